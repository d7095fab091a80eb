use crate::oracle::array;
use crate::oracle::index::{reshape, transpose};
use crate::oracle::matmul::*;
use crate::{close, noise};

#[test]
fn by_hand() {
    let a = array(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let b = array(&[2, 1], &[5.0, 6.0]);
    close(&matmul(&a, &b), &array(&[2, 1], &[17.0, 39.0]), 0.0);
    close(&matmul_t(&a, &b, true, false), &array(&[2, 1], &[23.0, 34.0]), 0.0);
    close(&matmul_t(&b, &a, true, true), &array(&[1, 2], &[17.0, 39.0]), 0.0);
    assert_eq!(matmul(&array(&[2, 0], &[]), &array(&[0, 3], &[])), array(&[2, 3], &[0.0; 6]));
}

#[test]
fn batches_broadcast() {
    let (a, b) = (noise(&[2, 1, 3, 4]), noise(&[5, 4, 2]));
    let c = matmul(&a, &b);
    assert_eq!(c.shape(), [2, 5, 3, 2]);
    let expected: f64 = (0..4).map(|k| a[[1, 0, 2, k]] * b[[3, k, 1]]).sum();
    assert_eq!(c[[1, 3, 2, 1]], expected);
    close(&transpose(&c, 2, 3), &matmul_t(&b, &a, true, true), 1e-14);
}

#[test]
fn linear_is_a_product_with_the_transpose() {
    let (x, w, bias) = (noise(&[2, 3, 4]), noise(&[5, 4]), noise(&[5]));
    let expected = matmul_t(&reshape(&x, &[6, 4]), &w, false, true) + &bias;
    close(&reshape(&linear(&x, &w, Some(&bias)), &[6, 5]), &expected, 1e-14);
    close(&linear(&x, &w, None), &(linear(&x, &w, Some(&bias)) - &bias), 1e-14);
}
