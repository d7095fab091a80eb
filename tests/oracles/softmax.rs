use crate::oracle::softmax::*;
use crate::oracle::{array, reduce};
use crate::{close, noise};

#[test]
fn by_hand() {
    let x = array(&[2, 2], &[0.0, 3f64.ln(), 1000.0, 1000.0]);
    close(&softmax(&x, 1), &array(&[2, 2], &[0.25, 0.75, 0.5, 0.5]), 1e-15);
    close(&log_softmax(&x, 1), &array(&[2, 2], &[0.25f64.ln(), 0.75f64.ln(), 0.5f64.ln(), 0.5f64.ln()]), 1e-12);
}

#[test]
fn lanes_sum_to_one() {
    let x = noise(&[3, 4, 5]);
    for axis in 0..3 {
        let total = reduce::sum(&softmax(&x, axis), &[axis], false);
        close(&total, &total.mapv(|_| 1.0), 1e-14);
    }
    assert_eq!(softmax(&array(&[0, 3], &[]), 1).shape(), [0, 3]);
    assert_eq!(softmax(&array(&[3, 0], &[]), 1).shape(), [3, 0]);
}
