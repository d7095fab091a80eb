use crate::oracle::array;
use crate::oracle::reduce::*;
use crate::{close, dot, indices, noise};

#[test]
fn by_hand() {
    let x = array(&[2, 3], &[1.0, 5.0, 3.0, 4.0, 0.0, 5.0]);
    close(&sum(&x, &[1], false), &array(&[2], &[9.0, 9.0]), 0.0);
    close(&sum(&x, &[1, 0], false), &array(&[], &[18.0]), 0.0);
    close(&sum(&x, &[], false), &x, 0.0);
    close(&mean(&x, &[0], true), &array(&[1, 3], &[2.5, 2.5, 4.0]), 0.0);
    close(&max(&x, &[0], false), &array(&[3], &[4.0, 5.0, 5.0]), 0.0);
    close(&min(&x, &[0, 1], true), &array(&[1, 1], &[0.0]), 0.0);
    close(&var(&x, &[1], 1, false), &array(&[2], &[4.0, 7.0]), 1e-15);
    close(&var(&x, &[1], 0, false), &array(&[2], &[8.0 / 3.0, 14.0 / 3.0]), 1e-15);
}

#[test]
fn logsumexp_is_shifted() {
    let x = array(&[2, 2], &[1000.0, 1000.0, 0.0, 3f64.ln()]);
    close(&logsumexp(&x, &[1], false), &array(&[2], &[1000.0 + 2f64.ln(), 4f64.ln()]), 1e-12);
    let nothing = array(&[2], &[f64::NEG_INFINITY; 2]);
    assert_eq!(logsumexp(&nothing, &[0], false)[[]], f64::NEG_INFINITY);
}

#[test]
fn ties_go_to_the_lowest_index() {
    let x = array(&[2, 3], &[2.0, 7.0, 7.0, 1.0, 1.0, 5.0]);
    assert_eq!(argmax(&x, 1, false), indices(&[2], &[1, 2]));
    assert_eq!(argmin(&x, 1, true), indices(&[2, 1], &[0, 0]));
    assert_eq!(argmax(&x, 0, false), indices(&[3], &[0, 0, 0]));
}

#[test]
fn sum_to_is_the_adjoint_of_broadcasting() {
    let big = noise(&[4, 2, 3]);
    for shape in [&[2, 3][..], &[1, 3], &[2, 1], &[4, 1, 1], &[3], &[], &[1, 1, 1, 3][1..]] {
        let small = noise(shape);
        let stretched = crate::oracle::index::broadcast_to(&small, big.shape());
        assert!((dot(&stretched, &big) - dot(&small, &sum_to(&big, shape))).abs() < 1e-12);
    }
}

#[test]
fn empty_inputs() {
    let x = array(&[0, 3], &[]);
    close(&sum(&x, &[0], false), &array(&[3], &[0.0; 3]), 0.0);
    assert_eq!(mean(&x, &[1], true).shape(), [0, 1]);
}
