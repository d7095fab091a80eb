//! Reductions over a list of axes, taken literally (no axes: every element is reduced alone), and the
//! reductions to an index over one axis.

use super::{A, build};
use ndarray::{ArrayD, Axis, Dimension};

/// Reduces `axes` with `f`, which sees the elements of a group in row-major order.
/// `keepdim` leaves the reduced axes with length 1.
fn reduce(x: &A, axes: &[usize], keepdim: bool, f: impl Fn(&[f64]) -> f64) -> A {
    let mut shape = x.shape().to_vec();
    axes.iter().for_each(|&a| shape[a] = 1);
    let mut groups = build(&shape, |_| Vec::new());
    for (i, &v) in x.indexed_iter() {
        let mut group = i.slice().to_vec();
        axes.iter().for_each(|&a| group[a] = 0);
        groups[&group[..]].push(v);
    }
    let mut out = groups.map(|g| f(g));
    if !keepdim {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        axes.into_iter().rev().for_each(|a| out = out.clone().remove_axis(Axis(a)));
    }
    out
}

fn mean_of(group: &[f64]) -> f64 {
    group.iter().sum::<f64>() / group.len() as f64
}

pub fn sum(x: &A, axes: &[usize], keepdim: bool) -> A {
    reduce(x, axes, keepdim, |g| g.iter().sum())
}

pub fn mean(x: &A, axes: &[usize], keepdim: bool) -> A {
    reduce(x, axes, keepdim, mean_of)
}

pub fn max(x: &A, axes: &[usize], keepdim: bool) -> A {
    reduce(x, axes, keepdim, |g| g.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

pub fn min(x: &A, axes: &[usize], keepdim: bool) -> A {
    reduce(x, axes, keepdim, |g| g.iter().copied().fold(f64::INFINITY, f64::min))
}

/// `log(sum(exp(x)))`, shifted by the largest element so that it cannot overflow.
pub fn logsumexp(x: &A, axes: &[usize], keepdim: bool) -> A {
    reduce(x, axes, keepdim, |g| {
        let top = g.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if top.is_infinite() { top } else { top + g.iter().map(|v| (v - top).exp()).sum::<f64>().ln() }
    })
}

/// `sum((x - mean)^2) / (n - correction)`.
pub fn var(x: &A, axes: &[usize], correction: usize, keepdim: bool) -> A {
    reduce(x, axes, keepdim, |g| {
        let mean = mean_of(g);
        g.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (g.len() as f64 - correction as f64)
    })
}

/// The lowest index along `axis` at which no later element is `better`.
fn best(x: &A, axis: usize, keepdim: bool, better: impl Fn(f64, f64) -> bool) -> ArrayD<usize> {
    let index =
        x.map_axis(Axis(axis), |lane| (1..lane.len()).fold(0, |b, i| if better(lane[i], lane[b]) { i } else { b }));
    if keepdim { index.insert_axis(Axis(axis)) } else { index }
}

/// Index of the largest element along `axis`, the lowest on ties.
pub fn argmax(x: &A, axis: usize, keepdim: bool) -> ArrayD<usize> {
    best(x, axis, keepdim, |a, b| a > b)
}

/// Index of the smallest element along `axis`, the lowest on ties.
pub fn argmin(x: &A, axis: usize, keepdim: bool) -> ArrayD<usize> {
    best(x, axis, keepdim, |a, b| a < b)
}

/// The adjoint of broadcasting: sums over every axis that stretching `shape` to the shape of `x` adds or widens.
pub fn sum_to(x: &A, shape: &[usize]) -> A {
    let added = x.ndim() - shape.len();
    let widened: Vec<_> = (added..x.ndim()).filter(|&i| shape[i - added] == 1).collect();
    sum(&sum(x, &widened, true), &(0..added).collect::<Vec<_>>(), false)
}
