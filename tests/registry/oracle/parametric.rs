//! Activations with a number of their own, and those given by a table.

use super::elementwise::{relu, unary};
use super::{A, array, build};

fn only(a: &A) -> f64 {
    *a.iter().next().expect("one element")
}

fn bump(x: f64) -> f64 {
    if x.is_infinite() { 0.0 } else { x * (-x * x / 2.0).exp() }
}

/// `max(x, 0) + eps x exp(-x^2 / 2)`.
pub fn crrelu(x: &A, eps: &A) -> A {
    let eps = only(eps);
    unary(x, |v| if v.is_nan() { v } else { relu(v) + eps * bump(v) })
}

/// The derivative of `<dy, crrelu(x, eps)>` by `eps`, a scalar.
pub fn crrelu_by_eps(x: &A, dy: &A) -> A {
    array(&[], &[x.iter().zip(dy).map(|(&v, &g)| g * bump(v)).sum()])
}

/// `x` where positive, `a x` elsewhere.
pub fn prelu(x: &A, a: &A) -> A {
    let a = only(a);
    unary(x, |v| if v > 0.0 { v } else { a * v })
}

/// Lines between the points, the first and the last going on.
pub fn piecewise_linear(x: &A, grid: &A, values: &A) -> A {
    let (g, y): (Vec<f64>, Vec<f64>) = (grid.iter().copied().collect(), values.iter().copied().collect());
    build(x.shape(), |i| {
        let v = x[i];
        let k = (1..g.len() - 1).rev().find(|&k| g[k] <= v).unwrap_or(0);
        y[k] + (y[k + 1] - y[k]) / (g[k + 1] - g[k]) * (v - g[k])
    })
}
