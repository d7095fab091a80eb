//! Tensors in few bits, the largest elements of a tensor, and gradients of operations that kept their inputs so. Such a
//! gradient is not the slope of the forward function, so it is computed inside the row and held against its formula.

use shadegrad::autograd::{Compact, GradOptions, grad_with, keep_compactly};
use shadegrad::{Quantizer, Result, Tensor};

use crate::case::{Case, Input, distinct, fixed, fixed_ints, rand, range};
use crate::oracle::elementwise::{gelu_tanh, sigmoid, unary};
use crate::oracle::{A, array};

/// What is left of `x`.
fn rounded(how: Quantizer, x: f64) -> f64 {
    let scale = f64::from(how.frac).exp2();
    let end = f64::from(how.int + how.frac).exp2();
    let lo = if how.unsigned { 0.0 } else { -end };
    (x * scale).round_ties_even().clamp(lo, end - 1.0) / scale
}

/// The `count` places of largest magnitude, rising.
fn largest(a: &A, count: usize) -> Vec<usize> {
    let all: Vec<f64> = a.iter().copied().collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|&i, &j| all[j].abs().total_cmp(&all[i].abs()).then(i.cmp(&j)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The gradient of input 0 of `f`, run with few bits kept, for the last input as the gradient of its result.
fn gradient(t: &[Tensor], how: &Compact, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let x = t[0].leaf();
    let y = keep_compactly(how, || f(&x))?;
    let grads = grad_with(&[&y], &[&x], Some(&[&t[t.len() - 1]]), GradOptions::default())?;
    grads.into_iter().flatten().next().ok_or_else(|| shadegrad::Error::Gradient("none".into()))
}

fn rounding() -> Vec<Case> {
    let mut cases = Vec::new();
    let formats = [Quantizer::Q8, Quantizer::QU8, Quantizer::Q4, Quantizer { int: 0, frac: 4, unsigned: true }];
    for how in formats {
        let Quantizer { int, frac, unsigned } = how;
        for shape in [&[1][..], &[2], &[3], &[5], &[7, 9], &[16, 4], &[3, 700], &[0], &[2, 0]] {
            cases.push(
                Case::new(
                    format!("compact/quantize_and_dequantize_{int}_{frac}_{unsigned}_{shape:?}"),
                    vec![range(shape, -9.0, 9.0)],
                    move |t| t[0].quantize(how)?.dequantize(how, t[0].shape()),
                    move |a| unary(&a[0], |x| rounded(how, x)),
                )
                .grad(false),
            );
        }
        let ties: Vec<f64> = (-300..300).map(|i| f64::from(i) * 0.5 / f64::from(frac).exp2()).collect();
        cases.push(
            Case::new(
                format!("compact/quantize_ties_{int}_{frac}_{unsigned}"),
                vec![fixed(&ties, &[600])],
                move |t| t[0].quantize(how)?.dequantize(how, &[600]),
                move |a| unary(&a[0], |x| rounded(how, x)),
            )
            .grad(false),
        );
    }
    // Bytes 191 and 8 are the halves (3, -8) and (7, 0); 0x80 is -128.
    cases.push(
        Case::new(
            "compact/dequantize_4_by_hand",
            vec![fixed_ints(&[191 + 8 * 256], &[1])],
            |t| t[0].dequantize(Quantizer::Q4, &[4]),
            |_| array(&[4], &[1.5, -4.0, 3.5, 0.0]),
        )
        .grad(false),
    );
    cases.push(
        Case::new(
            "compact/dequantize_8_by_hand",
            vec![fixed_ints(&[0x7fff_0180], &[1])],
            |t| t[0].dequantize(Quantizer::Q8, &[4]),
            |_| array(&[4], &[-8.0, 0.0625, -0.0625, 7.9375]),
        )
        .grad(false),
    );
    cases
}

fn magnitudes() -> Vec<Case> {
    let mut cases = Vec::new();
    let counts: [(&[usize], usize); 11] = [
        (&[1], 1),
        (&[1], 0),
        (&[0], 0),
        (&[5], 2),
        (&[16], 16),
        (&[17], 5),
        (&[3, 11], 3),
        (&[4, 6, 5], 12),
        (&[40, 51], 204),
        (&[2048], 100),
        (&[60, 111], 666),
    ];
    for (shape, count) in counts {
        let small = shape.iter().product::<usize>() < 150;
        cases.push(
            Case::new(
                format!("compact/largest_magnitudes_{shape:?}_{count}"),
                vec![distinct(shape)],
                move |t| Ok(t[0].largest_magnitudes(count)?.0),
                move |a| {
                    let all: Vec<f64> = a[0].iter().copied().collect();
                    let kept: Vec<f64> = largest(&a[0], count).into_iter().map(|i| all[i]).collect();
                    array(&[count], &kept)
                },
            )
            .grad(small),
        );
        cases.push(
            Case::new(
                format!("compact/largest_magnitudes_places_{shape:?}_{count}"),
                vec![distinct(shape)],
                move |t| Ok(t[0].largest_magnitudes(count)?.1),
                move |a| array(&[count], &largest(&a[0], count).into_iter().map(|i| i as f64).collect::<Vec<_>>()),
            )
            .grad(false),
        );
    }
    // Ties: among equal magnitudes the lowest places, whatever the sign; zeros count, too.
    let ties = [1.0, -2.0, 0.0, 2.0, -1.0, 2.0, 1.0, -0.0, 0.0, 2.0];
    for count in 0..=10 {
        cases.push(
            Case::new(
                format!("compact/largest_magnitudes_ties_{count}"),
                vec![fixed(&ties, &[10])],
                move |t| Ok(t[0].largest_magnitudes(count)?.1),
                move |a| array(&[count], &largest(&a[0], count).into_iter().map(|i| i as f64).collect::<Vec<_>>()),
            )
            .grad(false),
        );
    }
    cases
}

type Slope = fn(f64) -> f64;
type Function = fn(&Tensor) -> Result<Tensor>;

fn slopes() -> Vec<Case> {
    let functions: [(&str, Function, Slope); 3] = [
        (
            "gelu",
            |x| x.gelu(),
            |x| {
                let phi = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                0.5 * (1.0 + crate::oracle::elementwise::erf(x / 2f64.sqrt())) + x * phi
            },
        ),
        ("gelu_tanh", |x| x.gelu_tanh(), |x| (gelu_tanh(x + 1e-5) - gelu_tanh(x - 1e-5)) / 2e-5),
        ("silu", |x| x.silu(), |x| sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))),
    ];
    let mut cases = Vec::new();
    for (name, f, df) in functions {
        for how in [Quantizer::Q4, Quantizer::Q8] {
            for shape in [&[1][..], &[3, 5], &[8, 16], &[7, 331]] {
                let compact = Compact { activation: Some(how), ..Compact::default() };
                cases.push(
                    Case::new(
                        format!("compact/{name}_gradient_{}_bits_{shape:?}", how.bits()),
                        vec![range(shape, -5.0, 5.0), rand(shape)],
                        move |t| gradient(t, &compact, f),
                        move |a| unary(&a[0], |x| df(rounded(how, x))) * &a[1],
                    )
                    .grad(false),
                );
            }
        }
    }
    cases
}

/// `dx` of a layer norm that kept a share of its normalised elements.
fn pruned(a: &[A], share: f64) -> A {
    let (x, gamma, dy) = (&a[0], &a[1], &a[2]);
    let (rows, len) = (x.shape()[0], x.shape()[1]);
    let n = crate::oracle::norm::layer_norm(x, None, None, 1e-5);
    let kept = largest(&n, (share * n.len() as f64) as usize);
    let flat: Vec<f64> = n.iter().copied().collect();
    let mut left = vec![0.0; flat.len()];
    kept.into_iter().for_each(|i| left[i] = flat[i]);
    let mut dx = vec![0.0; flat.len()];
    for r in 0..rows {
        let row: Vec<f64> = (0..len).map(|c| x[[r, c].as_slice()]).collect();
        let mean = row.iter().sum::<f64>() / len as f64;
        let deviation = (row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / len as f64 + 1e-5).sqrt();
        let h: Vec<f64> = (0..len).map(|c| dy[[r, c].as_slice()] * gamma[[c].as_slice()]).collect();
        let of = |f: &dyn Fn(usize) -> f64| (0..len).map(f).sum::<f64>() / len as f64;
        let (mean_h, mean_hn) = (of(&|c| h[c]), of(&|c| h[c] * left[r * len + c]));
        for c in 0..len {
            dx[r * len + c] = (h[c] - mean_h - mean_hn * left[r * len + c]) / deviation;
        }
    }
    array(&[rows, len], &dx)
}

fn norms() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, len, share) in [(1, 4, 0.5), (3, 5, 0.4), (34, 48, 0.1), (7, 64, 1.0), (40, 16, 0.1), (2, 900, 0.1)] {
        let compact = Compact { norm_share: Some(share), ..Compact::default() };
        let inputs: Vec<Input> = vec![rand(&[rows, len]), range(&[len], 0.5, 1.5), rand(&[rows, len])];
        cases.push(
            Case::new(
                format!("compact/layer_norm_gradient_share_{share}_[{rows}, {len}]"),
                inputs,
                move |t| gradient(t, &compact, |x| x.layer_norm(Some(&t[1].detach()), None, 1e-5)),
                move |a| pruned(a, share),
            )
            .grad(false),
        );
    }
    cases
}

pub fn cases() -> Vec<Case> {
    [rounding(), magnitudes(), slopes(), norms()].into_iter().flatten().collect()
}
