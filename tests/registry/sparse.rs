//! Rows of sparse linear layers: sizes around the units of 4 samples, the blocks of 32 and of 64, the eight lanes of
//! entries; empty rows, full rows, no weights at all.

use shadegrad::SparsePattern;
use shadegrad::rng::Philox;

use crate::case::{Case, gpu, rand};
use crate::oracle::sparse as oracle;

/// Each position with probability `density`, but none in the second output and all in the third.
fn positions([outputs, inputs]: [usize; 2], density: f32) -> Vec<u32> {
    let mut rng = Philox::new(7, (outputs * 10_000 + inputs) as u64);
    (0..outputs * inputs)
        .filter(|at| {
            let drawn = rng.uniform() < density;
            let row = at / inputs;
            row != 1 && (drawn || row == 2) && density > 0.0
        })
        .map(|at| at as u32)
        .collect()
}

/// The three operations on a matrix of this size.
fn rows(batch: usize, size: [usize; 2], density: f32, grad: bool) -> Vec<Case> {
    let [outputs, inputs] = size;
    let at = positions(size, density);
    let n = at.len();
    let name = format!("{batch}_{inputs}_{outputs}_{n}");
    let pattern = move |at: &[u32]| SparsePattern::new(&gpu(), outputs, inputs, at);
    let at: &'static [u32] = at.leak();
    vec![
        Case::new(
            format!("sparse/sparse_linear_{name}"),
            vec![rand(&[batch, inputs]), rand(&[n])],
            move |t| t[0].sparse_linear(&t[1], &pattern(at)?, None),
            move |x| oracle::sparse_linear(&x[0], &x[1], None, at, size),
        ),
        Case::new(
            format!("sparse/sparse_linear_bias_{name}"),
            vec![rand(&[batch, inputs]), rand(&[n]), rand(&[outputs])],
            move |t| t[0].sparse_linear(&t[1], &pattern(at)?, Some(&t[2])),
            move |x| oracle::sparse_linear(&x[0], &x[1], Some(&x[2]), at, size),
        ),
        Case::new(
            format!("sparse/sparse_linear_t_{name}"),
            vec![rand(&[batch, outputs]), rand(&[n])],
            move |t| t[0].sparse_linear_t(&t[1], &pattern(at)?),
            move |x| oracle::sparse_linear_t(&x[0], &x[1], at, size),
        ),
        Case::new(
            format!("sparse/sparse_outer_{name}"),
            vec![rand(&[batch, inputs]), rand(&[batch, outputs])],
            move |t| t[0].sparse_outer(&t[1], &pattern(at)?),
            move |x| oracle::sparse_outer(&x[0], &x[1], at),
        ),
    ]
    .into_iter()
    .map(|c| c.grad(grad))
    .collect()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, size, density) in [
        (3, [4, 5], 0.4),
        (1, [3, 1], 0.5),
        (4, [5, 12], 0.3),
        (2, [3, 4], 0.0),
        (0, [3, 4], 0.5),
        (2, [0, 3], 0.5),
        (2, [3, 0], 0.5),
    ] {
        cases.extend(rows(batch, size, density, true));
    }
    for (batch, size, density) in [
        (31, [9, 17], 0.5),
        (32, [64, 64], 0.2),
        (33, [65, 63], 0.2),
        (70, [130, 40], 0.1),
        (64, [20, 512], 0.05),
        (5, [12, 130], 0.1),
        (130, [6, 40], 0.3),
        (36, [300, 8], 0.2),
    ] {
        cases.extend(rows(batch, size, density, false));
    }
    // Leading dimensions count as samples.
    let (size, at) = ([4, 5], positions([4, 5], 0.5));
    let n = at.len();
    let again = at.clone();
    cases.push(Case::new(
        "sparse/sparse_linear_lead",
        vec![rand(&[2, 3, 5]), rand(&[n]), rand(&[4])],
        move |t| t[0].sparse_linear(&t[1], &SparsePattern::new(&gpu(), 4, 5, &at)?, Some(&t[2])),
        move |x| oracle::sparse_linear(&x[0], &x[1], Some(&x[2]), &again, size),
    ));
    cases
}
