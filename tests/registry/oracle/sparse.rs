//! Linear layers with few weights, as dense ones with zeros elsewhere.

use super::matmul::{linear, matmul_t};
use super::{A, array};

/// The matrix `[outputs, inputs]` with `values` at `positions` and zeros elsewhere.
pub fn dense(values: &A, positions: &[u32], [outputs, inputs]: [usize; 2]) -> A {
    let mut matrix = array(&[outputs, inputs], &vec![0.0; outputs * inputs]);
    for (&at, &v) in positions.iter().zip(values) {
        let at = at as usize;
        matrix[[at / inputs, at % inputs]] = v;
    }
    matrix
}

/// `x W^T + bias`.
pub fn sparse_linear(x: &A, values: &A, bias: Option<&A>, positions: &[u32], size: [usize; 2]) -> A {
    linear(x, &dense(values, positions, size), bias)
}

/// `x W`, for `x` of two dimensions.
pub fn sparse_linear_t(x: &A, values: &A, positions: &[u32], size: [usize; 2]) -> A {
    matmul_t(x, &dense(values, positions, size), false, false)
}

/// `g^T x` at the positions, for operands of two dimensions.
pub fn sparse_outer(x: &A, g: &A, positions: &[u32]) -> A {
    let inputs = x.shape()[1];
    let all = matmul_t(g, x, true, false);
    let picked: Vec<f64> = positions.iter().map(|&at| all[[at as usize / inputs, at as usize % inputs]]).collect();
    array(&[picked.len()], &picked)
}
