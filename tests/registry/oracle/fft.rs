//! Real two-dimensional Fourier transforms of NHWC images by the defining sums, for any height and width.
//!
//! A spectrum is `[N, H, W/2 + 1, C, 2]` (real and imaginary part in the last axis): the columns that the
//! symmetry `Y[-ky, -kx] = conj(Y[ky, kx])` does not already give.

use super::{A, dims};
use std::f64::consts::TAU;

/// Where the factor `1 / (H W)` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FftNorm {
    /// All of it on the inverse.
    Backward,
    /// Its square root on both.
    Ortho,
}

type Complex = [f64; 2];

fn mul([a, b]: Complex, [c, d]: Complex) -> Complex {
    [a * c - b * d, a * d + b * c]
}

fn add([a, b]: Complex, [c, d]: Complex) -> Complex {
    [a + c, b + d]
}

/// `e^(sign 2 pi i jk / n)` for all `j k` reduced modulo n, so that the angle stays exact.
struct Roots(Vec<Complex>);

impl Roots {
    fn new(n: usize, sign: f64) -> Self {
        let angle = |j: usize| sign * TAU * j as f64 / n as f64;
        Self((0..n).map(|j| [angle(j).cos(), angle(j).sin()]).collect())
    }

    fn get(&self, j: usize, k: usize) -> Complex {
        self.0[j * k % self.0.len()]
    }
}

fn sum(terms: impl Iterator<Item = Complex>) -> Complex {
    terms.fold([0.0; 2], add)
}

/// `Y[ky, kx] = s sum_{y, x} x[y, x] e^(-2 pi i (ky y / H + kx x / W))`; `s` is 1 or, ortho, `1 / sqrt(H W)`.
pub fn rfft2(x: &A, norm: FftNorm) -> A {
    let [batch, height, width, channels] = dims(x.shape());
    let half = width / 2 + 1;
    let scale = if norm == FftNorm::Ortho { 1.0 / ((height * width) as f64).sqrt() } else { 1.0 };
    let (along_h, along_w) = (Roots::new(height, -1.0), Roots::new(width, -1.0));
    let mut out = A::zeros(&[batch, height, half, channels, 2][..]);
    for (n, c) in ndarray::indices((batch, channels)) {
        for kx in 0..half {
            let rows: Vec<Complex> =
                (0..height).map(|y| sum((0..width).map(|p| mul([x[[n, y, p, c]], 0.0], along_w.get(kx, p))))).collect();
            for ky in 0..height {
                let y = sum(rows.iter().enumerate().map(|(y, &row)| mul(row, along_h.get(ky, y))));
                (0..2).for_each(|part| out[[n, ky, kx, c, part]] = scale * y[part]);
            }
        }
    }
    out
}

/// The real image `[N, H, width, C]` of a half spectrum of `width / 2 + 1` columns:
/// `x[y, p] = s sum_{ky, kx} w[kx] Re(Y[ky, kx] e^(2 pi i (ky y / H + kx p / W)))`. The weight `w` is 2 for a
/// column that also stands for its mirror image, 1 for the first and, even width, the last (Nyquist) one;
/// `s` is `1 / (H W)` or, ortho, its square root.
///
/// After the sum over ky the imaginary parts of the two columns of weight 1 multiply a zero sine: they are
/// ignored, as every real inverse transform does, also where the spectrum lacks the symmetry that makes them 0.
pub fn irfft2(y: &A, width: usize, norm: FftNorm) -> A {
    let [batch, height, half, channels, _] = dims(y.shape());
    assert_eq!(half, width / 2 + 1, "columns of a half spectrum of width {width}");
    let area = (height * width) as f64;
    let scale = if norm == FftNorm::Ortho { 1.0 / area.sqrt() } else { 1.0 / area };
    let (along_h, along_w) = (Roots::new(height, 1.0), Roots::new(width, 1.0));
    let weight = |kx: usize| if kx == 0 || 2 * kx == width { 1.0 } else { 2.0 };
    let mut out = A::zeros(&[batch, height, width, channels][..]);
    for (n, c) in ndarray::indices((batch, channels)) {
        for row in 0..height {
            let at = |ky: usize, kx: usize| [y[[n, ky, kx, c, 0]], y[[n, ky, kx, c, 1]]];
            let columns: Vec<Complex> =
                (0..half).map(|kx| sum((0..height).map(|ky| mul(at(ky, kx), along_h.get(ky, row))))).collect();
            for p in 0..width {
                let terms = columns.iter().enumerate().map(|(kx, &z)| weight(kx) * mul(z, along_w.get(kx, p))[0]);
                out[[n, row, p, c]] = scale * terms.sum::<f64>();
            }
        }
    }
    out
}
