//! Rows of the linalg family: sizes around the blocks of 32, batches, every combination of flags.

use shadegrad::{Result, Tensor};

use crate::case::{Case, rand, range};
use crate::oracle::linalg::{cholesky, logdet_spd, solve_triangular};
use crate::oracle::matmul::matmul_t;
use crate::oracle::{A, index::transpose};

/// `x x^T / n + I`, and something unsymmetric that symmetrising takes away again.
pub(crate) fn spd(x: &Tensor) -> Result<Tensor> {
    let (rank, n) = (x.rank(), x.dim(x.rank() - 1));
    let skew = x.sub(&x.transpose(rank - 2, rank - 1)?)?;
    let product = x.matmul_t(x, false, true)?.mul_scalar(1.0 / n.max(1) as f32)?;
    product.add(&Tensor::eye(x.gpu(), n)?)?.add(&skew)
}

pub(crate) fn spd_oracle(x: &A) -> A {
    let (rank, n) = (x.ndim(), x.shape()[x.ndim() - 1]);
    let mut out = matmul_t(x, x, false, true) / n.max(1) as f64;
    out += &(x - &transpose(x, rank - 2, rank - 1));
    for mut matrix in out.rows_mut().into_iter().enumerate() {
        matrix.1[matrix.0 % n] += 1.0;
    }
    out
}

/// A matrix whose triangles are well conditioned: diagonal at least one half, small elsewhere.
pub(crate) fn triangle(x: &Tensor) -> Result<Tensor> {
    let n = x.dim(x.rank() - 1);
    let scaled = x.mul_scalar(1.0 / n.max(1) as f32)?;
    scaled.add(&Tensor::eye(x.gpu(), n)?)
}

pub(crate) fn triangle_oracle(x: &A) -> A {
    let n = x.shape()[x.ndim() - 1];
    let mut out = x / n.max(1) as f64;
    for (i, mut row) in out.rows_mut().into_iter().enumerate() {
        row[i % n] += 1.0;
    }
    out
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes: [&[usize]; 9] =
        [&[1, 1], &[2, 2], &[5, 5], &[2, 3, 3], &[2, 1, 2, 2], &[0, 0], &[33, 33], &[3, 31, 31], &[100, 100]];
    for shape in shapes {
        let small = shape.iter().product::<usize>() <= 30;
        cases.push(
            Case::new(
                format!("linalg/cholesky_{shape:?}"),
                vec![rand(shape)],
                |t| spd(&t[0])?.cholesky(),
                |a| cholesky(&spd_oracle(&a[0])),
            )
            .grad(small),
        );
        cases.push(
            Case::new(
                format!("linalg/logdet_spd_{shape:?}"),
                // Away from the identity, whose log-determinant is 0 and leaves no relative accuracy.
                vec![range(shape, 0.3, 1.0)],
                |t| spd(&t[0])?.logdet_spd(),
                |a| logdet_spd(&spd_oracle(&a[0])),
            )
            .grad(small),
        );
    }
    // The gradient for the matrix itself, both halves moving alone.
    cases.push(Case::new(
        "linalg/cholesky_of_leaf",
        vec![range(&[3, 3], -0.2, 0.2)],
        |t| t[0].add(&Tensor::eye(t[0].gpu(), 3)?)?.cholesky_checked(),
        |a| cholesky(&(&a[0] + &spd_oracle(&A::zeros(vec![3, 3])))),
    ));
    for (upper, trans) in [(false, false), (false, true), (true, false), (true, true)] {
        let sizes: [(&[usize], usize, usize); 8] = [
            (&[], 1, 1),
            (&[], 4, 3),
            (&[2], 3, 2),
            (&[2], 3, 0),
            (&[], 0, 2),
            (&[], 32, 65),
            (&[2], 33, 5),
            (&[], 97, 40),
        ];
        for (lead, n, m) in sizes {
            let shape = |cols: usize| [lead, &[n, cols]].concat();
            cases.push(
                Case::new(
                    format!(
                        "linalg/solve_triangular_{}{}_{lead:?}_{n}x{m}",
                        if upper { "upper" } else { "lower" },
                        if trans { "_trans" } else { "" }
                    ),
                    vec![rand(&shape(n)), rand(&shape(m))],
                    move |t| triangle(&t[0])?.solve_triangular(&t[1], upper, trans),
                    move |a| solve_triangular(&triangle_oracle(&a[0]), &a[1], upper, trans),
                )
                .grad(n < 10),
            );
        }
    }
    cases
}
