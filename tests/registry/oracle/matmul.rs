//! Matrix products over the last two axes; leading axes are a broadcast batch.

use super::{A, broadcast_shape, build, index::transpose, stretch};

/// `[.., m, k] x [.., k, n] -> [.., m, n]`.
pub fn matmul(a: &A, b: &A) -> A {
    let (batch_a, [m, k]) = split(a);
    let (batch_b, [k_b, n]) = split(b);
    assert_eq!(k, k_b, "inner dimensions of {:?} and {:?}", a.shape(), b.shape());
    let batch = broadcast_shape(batch_a, batch_b);
    let a = stretch(a, &[&batch[..], &[m, k]].concat());
    let b = stretch(b, &[&batch[..], &[k, n]].concat());
    build(&[&batch[..], &[m, n]].concat(), |i| {
        let (batch, [row, column]) = i.split_last_chunk().expect("rank at least 2");
        let at = |r: usize, c: usize| [batch, &[r, c]].concat();
        (0..k).map(|j| a[&at(*row, j)[..]] * b[&at(j, *column)[..]]).sum()
    })
}

/// Batch shape and the two matrix dimensions.
fn split(x: &A) -> (&[usize], [usize; 2]) {
    let (batch, matrix) = x.shape().split_last_chunk().expect("rank at least 2");
    (batch, *matrix)
}

/// [`matmul`] of the inputs with their last two axes exchanged where the flag says so.
pub fn matmul_t(a: &A, b: &A, trans_a: bool, trans_b: bool) -> A {
    let flip = |x: &A, yes: bool| if yes { transpose(x, x.ndim() - 2, x.ndim() - 1) } else { x.clone() };
    matmul(&flip(a, trans_a), &flip(b, trans_b))
}

/// `y[.., o] = sum_i x[.., i] w[o, i] + bias[o]`.
pub fn linear(x: &A, w: &A, bias: Option<&A>) -> A {
    let (inputs, rows) = x.shape().split_last().expect("rank at least 1");
    build(&[rows, &[w.shape()[0]]].concat(), |i| {
        let (&o, row) = i.split_last().expect("rank at least 1");
        let dot: f64 = (0..*inputs).map(|j| x[&[row, &[j]].concat()[..]] * w[[o, j]]).sum();
        dot + bias.map_or(0.0, |b| b[o])
    })
}
