use crate::oracle::index::transpose;
use crate::oracle::linalg::*;
use crate::oracle::matmul::{matmul, matmul_t};
use crate::oracle::{A, array};
use crate::{close, gradient, noise};

/// A batch of well-conditioned symmetric positive definite matrices.
fn spd(batch: usize, n: usize) -> A {
    let x = noise(&[batch, n, n]);
    matmul_t(&x, &x, false, true) + A::from_shape_fn(&[n, n][..], |i| if i[0] == i[1] { n as f64 } else { 0.0 })
}

#[test]
fn cholesky_by_hand_and_squared() {
    let l = cholesky(&array(&[2, 2], &[4.0, 2.0, 2.0, 5.0]));
    close(&l, &array(&[2, 2], &[2.0, 0.0, 1.0, 2.0]), 1e-15);
    let a = spd(3, 5);
    let l = cholesky(&a);
    close(&matmul_t(&l, &l, false, true), &a, 1e-12);
    assert_eq!(l[[2, 0, 4]], 0.0);
}

#[test]
fn determinant() {
    let a = array(&[2, 2, 2], &[4.0, 2.0, 2.0, 5.0, 3.0, 0.0, 0.0, 2.0]);
    close(&logdet_spd(&a), &array(&[2], &[16f64.ln(), 6f64.ln()]), 1e-14);
    // The gradient of log det A is the inverse, symmetric although each element moves alone.
    let a = array(&[2, 2], &[4.0, 2.0, 2.0, 5.0]);
    let inverse = array(&[2, 2], &[5.0 / 16.0, -2.0 / 16.0, -2.0 / 16.0, 4.0 / 16.0]);
    gradient(|a| logdet_spd(a).sum(), &a, &inverse, 1e-8);
}

#[test]
fn triangular_solves() {
    let l = array(&[2, 2], &[2.0, 77.0, 1.0, 4.0]);
    let b = array(&[2, 1], &[6.0, 11.0]);
    close(&solve_triangular(&l, &b, false, false), &array(&[2, 1], &[3.0, 2.0]), 1e-15);
    let (l, b) = (cholesky(&spd(3, 4)), noise(&[3, 4, 2]));
    let upper = transpose(&l, 1, 2);
    close(&matmul(&l, &solve_triangular(&l, &b, false, false)), &b, 1e-13);
    close(&matmul(&upper, &solve_triangular(&l, &b, false, true)), &b, 1e-13);
    close(&matmul(&upper, &solve_triangular(&upper, &b, true, false)), &b, 1e-13);
    close(&matmul(&l, &solve_triangular(&upper, &b, true, true)), &b, 1e-13);
}
