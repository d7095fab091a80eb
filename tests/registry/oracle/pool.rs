//! Pooling of NHWC images.

use super::{A, build, dims};
use ndarray::ArrayD;
use std::ops::Range;

/// Window geometry; pairs are (height, width). The result has `(size + 2 padding - kernel) / stride + 1`
/// rows and columns, rounded down.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
}

impl Pool {
    fn output(&self, d: usize, size: usize) -> usize {
        (size + 2 * self.padding[d] - self.kernel[d]) / self.stride[d] + 1
    }

    /// The part of window `o` that lies inside the image.
    fn window(&self, d: usize, o: usize, size: usize) -> Range<usize> {
        let start = o * self.stride[d];
        start.saturating_sub(self.padding[d])..(start + self.kernel[d]).saturating_sub(self.padding[d]).min(size)
    }
}

/// Window `o` of `outputs` that together cover `size`: from `floor(o size / outputs)` to
/// `ceil((o + 1) size / outputs)`; neighbours overlap where the division has a remainder.
fn adaptive_window(o: usize, outputs: usize, size: usize) -> Range<usize> {
    o * size / outputs..((o + 1) * size).div_ceil(outputs)
}

fn window_sum(x: &A, n: usize, rows: Range<usize>, columns: Range<usize>, c: usize) -> f64 {
    rows.flat_map(|iy| columns.clone().map(move |ix| x[[n, iy, ix, c]])).sum()
}

/// Value and index `iy W + ix` of the largest element of a window, the first in row-major order on ties.
fn window_max(x: &A, n: usize, rows: Range<usize>, columns: Range<usize>, c: usize) -> (f64, usize) {
    let width = x.shape()[2];
    rows.flat_map(|iy| columns.clone().map(move |ix| (x[[n, iy, ix, c]], iy * width + ix)))
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .expect("a window holds at least one element: padding is at most half the kernel")
}

/// Largest element of every window (padding never wins) and its index `iy W + ix` in the input plane.
pub fn max_pool2d(x: &A, p: &Pool) -> (A, ArrayD<usize>) {
    let [n, height, width, c] = dims(x.shape());
    let best = build(&[n, p.output(0, height), p.output(1, width), c], |i| {
        window_max(x, i[0], p.window(0, i[1], height), p.window(1, i[2], width), i[3])
    });
    (best.map(|b| b.0), best.map(|b| b.1))
}

/// Sum of every window divided by the full kernel area: padding counts as zeros.
pub fn avg_pool2d(x: &A, p: &Pool) -> A {
    let [n, height, width, c] = dims(x.shape());
    build(&[n, p.output(0, height), p.output(1, width), c], |i| {
        let sum = window_sum(x, i[0], p.window(0, i[1], height), p.window(1, i[2], width), i[3]);
        sum / (p.kernel[0] * p.kernel[1]) as f64
    })
}

/// Sum of every window divided by the number of its pixels that lie on the image.
pub fn avg_pool2d_inside(x: &A, p: &Pool) -> A {
    let [n, height, width, c] = dims(x.shape());
    build(&[n, p.output(0, height), p.output(1, width), c], |i| {
        let (rows, columns) = (p.window(0, i[1], height), p.window(1, i[2], width));
        let count = rows.len() * columns.len();
        window_sum(x, i[0], rows, columns, i[3]) / count as f64
    })
}

/// Mean of each of `oh x ow` windows that cover the image: `[N, oh, ow, C]`.
pub fn adaptive_avg_pool2d(x: &A, oh: usize, ow: usize) -> A {
    let [n, height, width, c] = dims(x.shape());
    build(&[n, oh, ow, c], |i| {
        let (rows, columns) = (adaptive_window(i[1], oh, height), adaptive_window(i[2], ow, width));
        let area = rows.len() * columns.len();
        window_sum(x, i[0], rows, columns, i[3]) / area as f64
    })
}

/// Largest element, with its index `iy W + ix`, of each of `oh x ow` windows that cover the image.
pub fn adaptive_max_pool2d(x: &A, oh: usize, ow: usize) -> (A, ArrayD<usize>) {
    let [n, height, width, c] = dims(x.shape());
    let best = build(&[n, oh, ow, c], |i| {
        window_max(x, i[0], adaptive_window(i[1], oh, height), adaptive_window(i[2], ow, width), i[3])
    });
    (best.map(|b| b.0), best.map(|b| b.1))
}

/// Mean over all pixels: `[N, H, W, C]` -> `[N, C]`.
pub fn global_avg_pool(x: &A) -> A {
    super::reduce::mean(x, &[1, 2], false)
}
