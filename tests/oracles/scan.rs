use crate::oracle::array;
use crate::oracle::scan::*;
use crate::{close, indices};

#[test]
fn running_sums() {
    let x = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    close(&cumsum(&x, 1), &array(&[2, 3], &[1.0, 3.0, 6.0, 4.0, 9.0, 15.0]), 0.0);
    close(&cumsum(&x, 0), &array(&[2, 3], &[1.0, 2.0, 3.0, 5.0, 7.0, 9.0]), 0.0);
}

#[test]
fn sorting_is_stable_both_ways() {
    let x = array(&[5], &[2.0, 1.0, 2.0, 3.0, 1.0]);
    let (values, index) = sort(&x, 0, false);
    close(&values, &array(&[5], &[1.0, 1.0, 2.0, 2.0, 3.0]), 0.0);
    assert_eq!(index, indices(&[5], &[1, 4, 0, 2, 3]));
    let (values, index) = sort(&x, 0, true);
    close(&values, &array(&[5], &[3.0, 2.0, 2.0, 1.0, 1.0]), 0.0);
    assert_eq!(index, indices(&[5], &[3, 0, 2, 1, 4]));
}

#[test]
fn sorting_columns_and_the_best() {
    let x = array(&[3, 2], &[3.0, 1.0, 2.0, 6.0, 5.0, 4.0]);
    close(&sort(&x, 0, false).0, &array(&[3, 2], &[2.0, 1.0, 3.0, 4.0, 5.0, 6.0]), 0.0);
    let (values, index) = topk(&x, 2, 0, true);
    close(&values, &array(&[2, 2], &[5.0, 6.0, 3.0, 4.0]), 0.0);
    assert_eq!(index, indices(&[2, 2], &[2, 1, 0, 2]));
    assert_eq!(topk(&x, 1, 1, false).1, indices(&[3, 1], &[1, 0, 1]));
    assert_eq!(sort(&array(&[2, 0], &[]), 1, true).0.shape(), [2, 0]);
}
