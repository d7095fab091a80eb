//! Scaled dot-product attention.

use super::{A, dims, stretch};

/// `softmax(scale q k^T + bias) v` for `q [B, H, L, D]`, `k [B, H, S, D]`, `v [B, H, S, Dv]` -> `[B, H, L, Dv]`.
///
/// `bias` and `mask` broadcast to `[B, H, L, S]`; a mask element 0 removes the key, any other keeps it.
/// `causal` lets query `i` see the keys `j <= i` (counted from the first of both, also where L and S differ).
/// A query that sees no key gives zeros.
pub fn sdpa(q: &A, k: &A, v: &A, bias: Option<&A>, mask: Option<&A>, causal: bool, scale: f64) -> A {
    let [b, h, l, d] = dims(q.shape());
    let [_, _, s, dv] = dims(v.shape());
    let scores = [b, h, l, s];
    let bias = bias.map(|x| stretch(x, &scores));
    let mask = mask.map(|x| stretch(x, &scores));
    let mut out = A::zeros(&[b, h, l, dv][..]);
    for i in ndarray::indices((b, h, l)) {
        let (b, h, l) = i;
        let seen = |j: usize| !(causal && j > l) && mask.as_ref().is_none_or(|m| m[[b, h, l, j]] != 0.0);
        let score = |j: usize| {
            let dot: f64 = (0..d).map(|c| q[[b, h, l, c]] * k[[b, h, j, c]]).sum();
            scale * dot + bias.as_ref().map_or(0.0, |x| x[[b, h, l, j]])
        };
        let keys: Vec<(usize, f64)> = (0..s).filter(|&j| seen(j)).map(|j| (j, score(j))).collect();
        let top = keys.iter().fold(f64::NEG_INFINITY, |top, key| top.max(key.1));
        let total: f64 = keys.iter().map(|key| (key.1 - top).exp()).sum();
        for (j, score) in keys {
            let p = (score - top).exp() / total;
            (0..dv).for_each(|c| out[[b, h, l, c]] += p * v[[b, h, j, c]]);
        }
    }
    out
}
