use crate::oracle::array;
use crate::oracle::fft::*;
use crate::oracle::index::slice;
use crate::{close, dot, near, noise};

const NORMS: [FftNorm; 2] = [FftNorm::Backward, FftNorm::Ortho];

#[test]
fn a_line_of_four() {
    let x = array(&[1, 1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
    let y = rfft2(&x, FftNorm::Backward);
    close(&y, &array(&[1, 1, 3, 1, 2], &[10.0, 0.0, -2.0, 2.0, -2.0, 0.0]), 1e-14);
    close(&rfft2(&x, FftNorm::Ortho), &(y / 2.0), 1e-14);
}

#[test]
fn a_wave_is_one_coefficient() {
    let wave = |y: usize, x: usize| (std::f64::consts::TAU * (y as f64 / 3.0 + 2.0 * x as f64 / 5.0)).cos();
    let x = crate::A::from_shape_fn(&[1, 3, 5, 1][..], |i| wave(i[1], i[2]));
    let mut expected = crate::A::zeros(&[1, 3, 3, 1, 2][..]);
    expected[[0, 1, 2, 0, 0]] = 7.5;
    close(&rfft2(&x, FftNorm::Backward), &expected, 1e-13);
}

#[test]
fn there_and_back() {
    for (h, w) in [(1, 1), (1, 2), (2, 1), (3, 4), (4, 3), (7, 7), (6, 8), (14, 14), (5, 13)] {
        let x = noise(&[2, h, w, 3]);
        for norm in NORMS {
            close(&irfft2(&rfft2(&x, norm), w, norm), &x, 1e-12);
        }
        // Parseval: with ortho both have the same energy, mirrored columns counted twice.
        let y = rfft2(&x, FftNorm::Ortho);
        let energy: f64 = (0..w / 2 + 1)
            .map(|k| {
                let column = slice(&y, 2, k, k + 1, 1);
                dot(&column, &column) * if k == 0 || 2 * k == w { 1.0 } else { 2.0 }
            })
            .sum();
        near(energy, dot(&x, &x), 1e-11);
    }
}

#[test]
fn imaginary_parts_without_a_mirror_are_ignored() {
    for w in [4, 5] {
        let mut y = rfft2(&noise(&[1, 1, w, 1]), FftNorm::Backward);
        let x = irfft2(&y, w, FftNorm::Backward);
        y[[0, 0, 0, 0, 1]] = 3.0;
        if w == 4 {
            y[[0, 0, 2, 0, 1]] = -5.0;
        }
        close(&irfft2(&y, w, FftNorm::Backward), &x, 1e-15);
    }
}
