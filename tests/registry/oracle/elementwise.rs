//! Unary and binary functions of single numbers, and the two ways of applying them to arrays.
//!
//! Those in the standard library (`f64::exp`, `f64::ln_1p`, ..) are not repeated here.

use super::{A, broadcast_shape, build, stretch};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// `f` at every element.
pub fn unary(x: &A, f: impl Fn(f64) -> f64) -> A {
    build(x.shape(), |i| f(x[i]))
}

/// `f` at every pair of elements of the broadcast inputs.
pub fn binary(a: &A, b: &A, f: impl Fn(f64, f64) -> f64) -> A {
    let shape = broadcast_shape(a.shape(), b.shape());
    let (a, b) = (stretch(a, &shape), stretch(b, &shape));
    build(&shape, |i| f(a[i], b[i]))
}

/// `a` where `cond` is not zero, else `b`; all three broadcast.
pub fn select(cond: &A, a: &A, b: &A) -> A {
    let shape = broadcast_shape(&broadcast_shape(cond.shape(), a.shape()), b.shape());
    let (cond, a, b) = (stretch(cond, &shape), stretch(a, &shape), stretch(b, &shape));
    build(&shape, |i| if cond[i] != 0.0 { a[i] } else { b[i] })
}

fn mask(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

pub fn gt(a: f64, b: f64) -> f64 {
    mask(a > b)
}

pub fn ge(a: f64, b: f64) -> f64 {
    mask(a >= b)
}

pub fn lt(a: f64, b: f64) -> f64 {
    mask(a < b)
}

pub fn le(a: f64, b: f64) -> f64 {
    mask(a <= b)
}

pub fn eq(a: f64, b: f64) -> f64 {
    mask(a == b)
}

pub fn ne(a: f64, b: f64) -> f64 {
    mask(a != b)
}

pub fn is_nan(x: f64) -> f64 {
    mask(x.is_nan())
}

pub fn is_finite(x: f64) -> f64 {
    mask(x.is_finite())
}

/// -1, 0 or 1: unlike `f64::signum`, zero has no sign.
pub fn sign(x: f64) -> f64 {
    gt(x, 0.0) - lt(x, 0.0)
}

pub fn square(x: f64) -> f64 {
    x * x
}

pub fn rsqrt(x: f64) -> f64 {
    1.0 / x.sqrt()
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `log(1 + e^x)`, split so that a large x does not overflow.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// `x tanh(log(1 + e^x))` (Misra 2019).
pub fn mish(x: f64) -> f64 {
    x * softplus(x).tanh()
}

/// `x Phi(x)` with the exact normal distribution function; erfc keeps the relative accuracy of the left tail.
pub fn gelu(x: f64) -> f64 {
    0.5 * x * erfc(-x * FRAC_1_SQRT_2)
}

/// The tanh approximation of [`gelu`] (Hendrycks and Gimpel 2016).
pub fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

pub fn relu(x: f64) -> f64 {
    x.max(0.0)
}

pub fn leaky_relu(x: f64, slope: f64) -> f64 {
    if x > 0.0 { x } else { slope * x }
}

pub fn elu(x: f64, alpha: f64) -> f64 {
    if x > 0.0 { x } else { alpha * x.exp_m1() }
}

/// The error function, to about 1e-15.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 2.5 { erf_series(x) } else { x.signum() * (1.0 - erfc_fraction(x.abs())) }
}

/// `1 - erf(x)` without the cancellation at large positive x.
pub fn erfc(x: f64) -> f64 {
    if x >= 2.5 { erfc_fraction(x) } else { 1.0 - erf(x) }
}

/// `2/sqrt(pi) e^(-x^2) sum_n 2^n x^(2n+1) / (1 3 5 .. (2n+1))`: all terms have one sign, nothing cancels.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// `e^(-x^2)/sqrt(pi) / (x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ..))))`, evaluated from the inside; for x >= 2.5.
fn erfc_fraction(x: f64) -> f64 {
    let tail = (1..=120).rev().fold(x, |inner, n| x + 0.5 * f64::from(n) / inner);
    (-x * x).exp() / (PI.sqrt() * tail)
}
