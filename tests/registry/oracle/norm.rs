//! Normalisations of arrays whose last axis holds the channels (NHWC images, or rows of features).
//!
//! All are one function: split the elements into groups, subtract each group's mean, divide by
//! `sqrt(biased variance + eps)`, then scale and shift by channel with the optional `gamma [C]` and `beta [C]`.

use super::{A, array, build};
use ndarray::Dimension;

/// Normalised elements, and mean and biased variance of each group.
fn normalise(x: &A, groups: usize, eps: f64, group_of: impl Fn(&[usize]) -> usize) -> (A, A, A) {
    let mut members = vec![Vec::new(); groups];
    x.indexed_iter().for_each(|(i, &v)| members[group_of(i.slice())].push(v));
    let mean: Vec<f64> = members.iter().map(|m| m.iter().sum::<f64>() / m.len() as f64).collect();
    let var: Vec<f64> = members
        .iter()
        .zip(&mean)
        .map(|(m, mean)| m.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / m.len() as f64)
        .collect();
    let out = build(x.shape(), |i| {
        let g = group_of(i);
        (x[i] - mean[g]) / (var[g] + eps).sqrt()
    });
    (out, array(&[groups], &mean), array(&[groups], &var))
}

fn affine(x: A, gamma: Option<&A>, beta: Option<&A>) -> A {
    let scaled = gamma.map_or(x.clone(), |g| x * g);
    beta.map_or(scaled.clone(), |b| scaled + b)
}

fn channels(x: &A) -> usize {
    *x.shape().last().expect("rank at least 1")
}

/// Statistics over everything but the channel. Returns the result, the mean and the biased variance `[C]`
/// (running statistics take the unbiased one: times `n / (n - 1)`).
pub fn batch_norm(x: &A, gamma: Option<&A>, beta: Option<&A>, eps: f64) -> (A, A, A) {
    let (out, mean, var) = normalise(x, channels(x), eps, |i| i[i.len() - 1]);
    (affine(out, gamma, beta), mean, var)
}

/// Batch normalisation with given statistics `[C]`.
pub fn batch_norm_eval(x: &A, mean: &A, var: &A, gamma: Option<&A>, beta: Option<&A>, eps: f64) -> A {
    affine((x - mean) / var.mapv(|v| (v + eps).sqrt()), gamma, beta)
}

/// Statistics over the last axis alone.
pub fn layer_norm(x: &A, gamma: Option<&A>, beta: Option<&A>, eps: f64) -> A {
    let rows = x.len() / channels(x).max(1);
    let row = |i: &[usize]| i.iter().zip(x.shape()).take(i.len() - 1).fold(0, |flat, (i, n)| flat * n + i);
    affine(normalise(x, rows, eps, row).0, gamma, beta)
}

/// Statistics over the pixels and the `C / groups` neighbouring channels of a group, per image.
pub fn group_norm(x: &A, groups: usize, gamma: Option<&A>, beta: Option<&A>, eps: f64) -> A {
    let size = channels(x) / groups;
    let group = |i: &[usize]| i[0] * groups + i[i.len() - 1] / size;
    affine(normalise(x, x.shape()[0] * groups, eps, group).0, gamma, beta)
}

/// Statistics over the pixels, per image and channel.
pub fn instance_norm(x: &A, gamma: Option<&A>, beta: Option<&A>, eps: f64) -> A {
    group_norm(x, channels(x), gamma, beta, eps)
}
