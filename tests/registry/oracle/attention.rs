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

/// Attention within windows of side `m` of a map `qkv [B, H, W, 3 heads D]` (channels `[3][heads][D]`) -> `[B, H, W, heads D]`.
///
/// Windows begin at row and column `shift` and go around the edges; a token sees those of its window that lie on the same
/// side of both edges. `table [(2 m - 1)^2, heads]` holds the bias by relative place.
pub fn windows(qkv: &A, table: Option<&A>, heads: usize, m: usize, shift: usize, scale: f64) -> A {
    let [b, h, w, c3] = dims(qkv.shape());
    let d = c3 / 3 / heads;
    // Of a coordinate: its window, its place in it, and whether it came around the edge.
    let of = |i: usize, len: usize| {
        let moved = (i + len - shift) % len;
        (moved / m, moved % m, i < shift)
    };
    let mut out = A::zeros(&[b, h, w, heads * d][..]);
    for (b, y, x, head) in ndarray::indices((b, h, w, heads)) {
        let (row, column) = (of(y, h), of(x, w));
        let at = |y: usize, x: usize, part: usize, i: usize| qkv[[b, y, x, (part * heads + head) * d + i]];
        let mut keys = Vec::new();
        for (ky, kx) in ndarray::indices((h, w)) {
            let (krow, kcolumn) = (of(ky, h), of(kx, w));
            if (krow.0, krow.2, kcolumn.0, kcolumn.2) == (row.0, row.2, column.0, column.2) {
                let place = (row.1 + m - 1 - krow.1) * (2 * m - 1) + column.1 + m - 1 - kcolumn.1;
                let dot: f64 = (0..d).map(|i| at(y, x, 0, i) * at(ky, kx, 1, i)).sum();
                keys.push((ky, kx, scale * dot + table.map_or(0.0, |t| t[[place, head]])));
            }
        }
        let top = keys.iter().fold(f64::NEG_INFINITY, |top, key| top.max(key.2));
        let total: f64 = keys.iter().map(|key| (key.2 - top).exp()).sum();
        for (ky, kx, score) in keys {
            let p = (score - top).exp() / total;
            (0..d).for_each(|i| out[[b, y, x, head * d + i]] += p * at(ky, kx, 2, i));
        }
    }
    out
}
