//! Factorisations and solves of square matrices `[.., n, n]`, batched over the leading axes.

use super::A;
use ndarray::{Array2, ArrayView2, Axis, Ix2};

/// Applies `f` to every matrix of the batch; the result has the shape of `x`.
fn map_matrices(x: &A, mut f: impl FnMut(usize, ArrayView2<f64>) -> Array2<f64>) -> A {
    let [rows, columns] = *x.shape().last_chunk().expect("rank at least 2");
    let batch: usize = x.shape().iter().rev().skip(2).product();
    let flat = super::index::reshape(x, &[batch, rows, columns]);
    let mut out = flat.clone();
    for (i, matrix) in flat.axis_iter(Axis(0)).enumerate() {
        out.index_axis_mut(Axis(0), i).assign(&f(i, matrix.into_dimensionality::<Ix2>().expect("a matrix")));
    }
    super::index::reshape(&out, x.shape())
}

/// The lower triangular L with `L L^T = (A + A^T) / 2`.
///
/// The input is symmetrised so that differences of this function give the symmetric gradient, which is what
/// a caller who perturbs both halves of a symmetric matrix sees.
pub fn cholesky(a: &A) -> A {
    map_matrices(a, |_, a| {
        let n = a.nrows();
        let mut l = Array2::zeros((n, n));
        for i in 0..n {
            for j in 0..=i {
                let rest = 0.5 * (a[[i, j]] + a[[j, i]]) - (0..j).map(|k| l[[i, k]] * l[[j, k]]).sum::<f64>();
                assert!(i != j || rest > 0.0, "not positive definite at row {i}");
                l[[i, j]] = if i == j { rest.sqrt() } else { rest / l[[j, j]] };
            }
        }
        l
    })
}

/// `log det` of symmetric positive definite matrices, `[..]`; symmetrises as [`cholesky`] does.
pub fn logdet_spd(a: &A) -> A {
    let l = cholesky(a);
    let (batch, [n, _]) = a.shape().split_last_chunk().expect("rank at least 2");
    let diagonal = |i: &[usize], k: usize| l[&[i, &[k, k]].concat()[..]];
    super::build(batch, |i| 2.0 * (0..*n).map(|k| diagonal(i, k).ln()).sum::<f64>())
}

/// X with `op(T) X = B` for `t [.., n, n]` and `b [.., n, m]` of one batch shape. T is the upper or the lower
/// triangle of `t` (the other half is not read); op transposes if `trans`.
pub fn solve_triangular(t: &A, b: &A, upper: bool, trans: bool) -> A {
    let n = t.shape()[t.ndim() - 1];
    let flat = super::index::reshape(t, &[t.len() / (n * n).max(1), n, n]);
    map_matrices(b, |batch, b| {
        let op = |i: usize, j: usize| if trans { flat[[batch, j, i]] } else { flat[[batch, i, j]] };
        let mut x = b.to_owned();
        // Transposing turns a lower triangle into an upper one, and the substitution around.
        let backward = upper != trans;
        for step in 0..n {
            let i = if backward { n - 1 - step } else { step };
            let solved = if backward { i + 1..n } else { 0..i };
            for column in 0..b.ncols() {
                let known: f64 = solved.clone().map(|j| op(i, j) * x[[j, column]]).sum();
                x[[i, column]] = (b[[i, column]] - known) / op(i, i);
            }
        }
        x
    })
}
