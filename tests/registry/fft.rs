//! Fourier transforms of images, and products of spectra.

use ndarray::Axis;
use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::{FftNorm, Tensor};

use crate::case::{Case, rand};
use crate::oracle::fft::{self, FftNorm as Norm};
use crate::oracle::{A, array};

const NORMS: [(&str, FftNorm, Norm); 2] =
    [("backward", FftNorm::Backward, Norm::Backward), ("ortho", FftNorm::Ortho, Norm::Ortho)];

/// `x * y` or `x * conj(y)` on pairs, `y` repeated over the leading dimensions.
pub(crate) fn complex_mul(x: &A, y: &A, sign: f64) -> A {
    let (a, b): (Vec<f64>, Vec<f64>) = (x.iter().copied().collect(), y.iter().copied().collect());
    let product = |(i, z): (usize, &[f64])| {
        let w = &b[2 * i % b.len()..][..2];
        [z[0] * w[0] - sign * z[1] * w[1], sign * z[0] * w[1] + z[1] * w[0]]
    };
    array(x.shape(), &a.chunks(2).enumerate().flat_map(product).collect::<Vec<_>>())
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Without gradients the large ones: finite differences evaluate the defining sums for every element.
    let sizes: &[[usize; 4]] = &[
        [1, 1, 1, 1],
        [2, 1, 2, 3],
        // Several columns and images by kernels of every small length.
        [2, 2, 2, 4],
        [2, 7, 2, 4],
        [2, 8, 2, 4],
        [2, 14, 1, 4],
        [2, 16, 1, 4],
        [1, 2, 1, 4],
        [1, 3, 4, 3],
        [2, 4, 3, 4],
        [1, 7, 7, 3],
        [1, 4, 8, 4],
        [1, 5, 13, 1],
        [1, 1, 16, 4],
        [1, 14, 2, 4],
        [0, 4, 4, 2],
        [2, 4, 4, 0],
        [2, 8, 8, 4],
        [1, 14, 14, 8],
        [3, 7, 14, 5],
        [1, 16, 16, 3],
        [1, 28, 28, 4],
        [1, 32, 28, 2],
        [1, 28, 32, 1],
        [1, 32, 32, 4],
        [1, 56, 56, 1],
        [1, 64, 64, 2],
        [1, 64, 56, 4],
        [1, 13, 66, 2],
        [1, 33, 9, 4],
    ];
    for &[n, h, w, c] in sizes {
        for (name, norm, want) in NORMS {
            let size = format!("{n}x{h}x{w}x{c}_{name}");
            let grad = h * w * c <= 200 && (n < 2 || (n == 2 && h <= 4));
            let x = vec![rand(&[n, h, w, c])];
            cases.push(
                Case::new(format!("fft/rfft2_{size}"), x, move |t| t[0].rfft2(norm), move |a| fft::rfft2(&a[0], want))
                    .grad(grad),
            );
            let y = vec![rand(&[n, h, w / 2 + 1, c, 2])];
            cases.push(
                Case::new(
                    format!("fft/irfft2_{size}"),
                    y,
                    move |t| t[0].irfft2(w, norm),
                    move |a| fft::irfft2(&a[0], w, want),
                )
                .grad(grad),
            );
        }
    }
    for (x, y) in [
        (&[2][..], &[2][..]),
        (&[3, 2], &[2]),
        (&[3, 5, 2], &[5, 2]),
        (&[2, 3, 2, 2], &[2, 2]),
        (&[7, 2], &[7, 2]),
        (&[0, 3, 2], &[3, 2]),
    ] {
        let inputs = || vec![rand(x), rand(y)];
        cases.push(Case::new(
            format!("fft/complex_mul_{x:?}_{y:?}"),
            inputs(),
            |t| t[0].complex_mul(&t[1]),
            |a| complex_mul(&a[0], &a[1], 1.0),
        ));
        cases.push(Case::new(
            format!("fft/complex_mul_conj_{x:?}_{y:?}"),
            inputs(),
            |t| t[0].complex_mul_conj(&t[1]),
            |a| complex_mul(&a[0], &a[1], -1.0),
        ));
    }
    let filters = [
        [2, 4, 4, 2],
        [1, 3, 5, 4],
        [1, 7, 7, 1],
        [1, 7, 7, 4],
        [2, 8, 8, 1],
        [2, 8, 8, 4],
        [3, 8, 8, 5],
        [1, 14, 14, 1],
        [2, 14, 14, 4],
        [1, 16, 16, 4],
        [1, 16, 16, 3],
        [1, 4, 4, 3],
        [1, 4, 4, 4],
        [1, 28, 28, 3],
        [2, 28, 28, 4],
        [1, 32, 32, 1],
        [1, 32, 32, 8],
        [1, 56, 56, 2],
        [1, 64, 64, 1],
        [1, 2, 4, 3],
        [1, 2, 6, 1],
        [1, 4, 3, 3],
        [1, 4, 6, 1],
        [2, 7, 3, 1],
        [1, 7, 6, 2],
        [1, 8, 3, 1],
        [2, 8, 16, 4],
        [1, 14, 3, 1],
        [1, 14, 6, 1],
        [1, 16, 3, 1],
        [1, 16, 6, 1],
        [0, 7, 7, 2],
    ];
    for [n, h, w, c] in filters {
        cases.push(
            Case::new(
                format!("fft/spectral_filter_{n}x{h}x{w}x{c}"),
                vec![rand(&[n, h, w, c]), rand(&[h, w / 2 + 1, c, 2])],
                |t| t[0].spectral_filter(&t[1]),
                move |a| {
                    let y = complex_mul(&fft::rfft2(&a[0], Norm::Backward), &a[1], 1.0);
                    fft::irfft2(&y, w, Norm::Backward)
                },
            )
            .grad(n * h * w * c <= 64),
        );
    }
    // Gradients of larger filters by their formulas: differences of the defining sums would take minutes.
    let sizes = [
        [3, 4, 4],
        [1, 4, 3],
        [2, 7, 5],
        [3, 7, 8],
        [2, 8, 4],
        [2, 8, 3],
        [2, 14, 3],
        [2, 14, 4],
        [1, 16, 4],
        [3, 16, 1],
        [2, 6, 3],
        [2, 28, 2],
        [1, 28, 4],
        [1, 32, 1],
    ];
    for [n, h, c] in sizes {
        let shape = [n, h, h, c];
        let run = move |t: &[Tensor]| {
            let (x, w) = (t[0].leaf(), t[1].leaf());
            let y = x.spectral_filter(&w)?;
            let grads = grad_with(&[&y], &[&x, &w], Some(&[&t[2]]), GradOptions::default())?;
            let flat: Vec<Tensor> =
                grads.into_iter().flatten().map(|g| g.reshape(&[g.numel()])).collect::<shadegrad::Result<_>>()?;
            Tensor::concat(&flat.iter().collect::<Vec<_>>(), 0)
        };
        let oracle = move |a: &[A]| {
            let grad = fft::rfft2(&a[2], Norm::Backward);
            let dx = fft::irfft2(&complex_mul(&grad, &a[1], -1.0), h, Norm::Backward);
            // The adjoint of irfft2: columns with a mirror image count twice.
            let mut dw = complex_mul(&grad, &fft::rfft2(&a[0], Norm::Backward), -1.0).sum_axis(Axis(0));
            for (kx, mut column) in dw.axis_iter_mut(Axis(1)).enumerate() {
                column *= if kx == 0 || 2 * kx == h { 1.0 } else { 2.0 } / (h * h) as f64;
            }
            let all: Vec<f64> = dx.iter().chain(dw.iter()).copied().collect();
            array(&[all.len()], &all)
        };
        let inputs = vec![rand(&shape), rand(&[h, h / 2 + 1, c, 2]), rand(&shape)];
        cases.push(Case::new(format!("fft/spectral_filter_gradient_{n}x{h}x{h}x{c}"), inputs, run, oracle).grad(false));
    }
    cases
}
