//! Matrices to solve for, losses, what is drawn, what is sparse, what spikes.

use shadegrad::rng::Stream;
use shadegrad::{CrossEntropy, LifOptions, Reduction, SparsePattern, Tensor};

use super::general::{differ, far};
use super::moves::{at, square};
use super::{Maker, Step};
use crate::linalg::{spd, spd_oracle, triangle, triangle_oracle};
use crate::oracle::elementwise as e;
use crate::oracle::{self, A, array};

pub(super) fn solve(m: &mut Maker) -> Option<usize> {
    let i = m.find_or(
        |v| v.ndim() >= 2 && square(v) && super::largest(v) < 2.0,
        |m| {
            let (b, n) = (1 + m.below(2), 1 + m.below(6));
            m.noise(&[b, n, n])
        },
    );
    match m.below(3) {
        0 => m.step("cholesky", &[i], |x| spd(x[0])?.cholesky(), |x| oracle::linalg::cholesky(&spd_oracle(x[0]))),
        1 => {
            // A determinant near 1 leaves no digits of its logarithm.
            let want = |x: &A| oracle::linalg::logdet_spd(&spd_oracle(x));
            if want(&m.values[i]).iter().any(|v| v.abs() < 0.1) {
                return None;
            }
            m.step("logdet_spd", &[i], |x| spd(x[0])?.logdet_spd(), move |x| want(x[0]))
        }
        _ => {
            let mut shape = m.dims(i);
            *shape.last_mut()? = 1 + m.below(4);
            let b = m.noisy(&shape);
            let (upper, trans) = (m.one_in(2), m.one_in(2));
            m.step(
                format!("solve_triangular {upper} {trans}"),
                &[i, b],
                move |x| triangle(x[0])?.solve_triangular(x[1], upper, trans),
                move |x| oracle::linalg::solve_triangular(&triangle_oracle(x[0]), x[1], upper, trans),
            )
        }
    }
}

const REDUCTIONS: [(Reduction, oracle::loss::Reduction); 3] = [
    (Reduction::Mean, oracle::loss::Reduction::Mean),
    (Reduction::Sum, oracle::loss::Reduction::Sum),
    (Reduction::None, oracle::loss::Reduction::None),
];

pub(super) fn cross_entropy(m: &mut Maker) -> Option<usize> {
    let i = m.find_or(
        |v| v.ndim() == 2,
        |m| {
            let (n, c) = (1 + m.below(9), 1 + m.below(30));
            m.noise(&[n, c])
        },
    );
    let &[n, c] = &m.dims(i)[..] else { return None };
    let (reduction, want) = m.from(&REDUCTIONS);
    if m.one_in(3) {
        let p = m.range(&[n, c], 0.0, 1.0);
        let p = m.leaf(p);
        return m.step(
            format!("cross_entropy_soft {want:?}"),
            &[i, p],
            move |x| x[0].cross_entropy_soft(x[1], reduction),
            move |x| oracle::loss::cross_entropy_soft(x[0], x[1], want),
        );
    }
    let labels = m.indices(&[n], c);
    let mut inputs = vec![i, labels];
    let smoothing = m.from(&[0.0f32, 0.1, 0.3]);
    if m.one_in(3) {
        let w = m.range(&[n], 0.2, 2.0);
        inputs.push(m.constant(w));
    }
    m.step(
        format!("cross_entropy {smoothing} {want:?} weights {}", inputs.len() == 3),
        &inputs,
        move |x| x[0].cross_entropy(x[1], CrossEntropy { smoothing, weights: x.get(2).copied(), reduction }),
        move |x| {
            let labels: Vec<usize> = at(x[1]).into_iter().collect();
            oracle::loss::cross_entropy(x[0], &labels, f64::from(smoothing), x.get(2).copied(), want)
        },
    )
}

/// Reduces losses of elements; the mean divides by `n`.
pub(super) fn reduced(losses: A, how: Reduction, n: usize) -> A {
    match how {
        Reduction::None => losses,
        Reduction::Sum => array(&[], &[losses.sum()]),
        Reduction::Mean => array(&[], &[losses.sum() / n as f64]),
    }
}

pub(super) fn losses(m: &mut Maker) -> Option<usize> {
    let (how, _) = m.from(&REDUCTIONS);
    let i = m.line();
    let shape = m.dims(i);
    match m.below(5) {
        0 => {
            let t = m.noisy(&shape);
            m.step(
                format!("mse_loss {how:?}"),
                &[i, t],
                move |x| x[0].mse_loss(x[1], how),
                move |x| reduced((x[0] - x[1]).mapv(|d| d * d), how, x[0].len()),
            )
        }
        1 => {
            let t = m.noisy(&shape);
            let d = &m.values[i] - &m.values[t];
            if !far(&d, &[-0.5, 0.5]) {
                return None;
            }
            let huber = |d: f64| if d.abs() <= 0.5 { 0.5 * d * d } else { 0.5 * (d.abs() - 0.25) };
            m.step(
                format!("huber_loss {how:?}"),
                &[i, t],
                move |x| x[0].huber_loss(x[1], 0.5, how),
                move |x| reduced((x[0] - x[1]).mapv(huber), how, x[0].len()),
            )
        }
        2 => {
            let t = m.range(&shape, 0.0, 1.0);
            let t = m.leaf(t);
            m.step(
                format!("bce_with_logits {how:?}"),
                &[i, t],
                move |x| x[0].bce_with_logits(x[1], how),
                move |x| {
                    let loss = e::binary(x[0], x[1], |x, t| x.max(0.0) - x * t + (-x.abs()).exp().ln_1p());
                    reduced(loss, how, x[0].len())
                },
            )
        }
        3 => {
            let t = m.range(&shape, 0.1, 1.0);
            let t = m.leaf(t);
            m.step(
                format!("kl_div {how:?}"),
                &[i, t],
                move |x| x[0].kl_div(x[1], how),
                move |x| {
                    reduced(
                        e::binary(x[0], x[1], |x, t| t * (t.ln() - x)),
                        how,
                        x[0].len() / x[0].shape()[x[0].ndim() - 1],
                    )
                },
            )
        }
        _ => {
            let i = m.find(|v| v.ndim() == 2)?;
            let [n, c] = [m.dims(i)[0], m.dims(i)[1]];
            let labels = m.indices(&[n], c);
            m.step(
                format!("nll_loss {how:?}"),
                &[i, labels],
                move |x| x[0].nll_loss(x[1], how),
                move |x| {
                    let picked: Vec<f64> = at(x[1]).iter().enumerate().map(|(i, &l)| -x[0][[i, l]]).collect();
                    reduced(array(&[picked.len()], &picked), how, picked.len())
                },
            )
        }
    }
}

pub(super) fn drop(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let s = Stream { seed: m.rng.next_u64(), stream: m.rng.next_u64() };
    let same = oracle::random::Stream { seed: s.seed, stream: s.stream };
    let p = m.from(&[0.5f32, 0.4, 0.1]);
    if m.one_in(2) {
        m.step(
            format!("dropout {p}"),
            &[i],
            move |x| x[0].dropout(p, s),
            move |x| oracle::random::dropout(x[0], f64::from(p), same),
        )
    } else {
        m.step(
            format!("drop_path {p}"),
            &[i],
            move |x| x[0].drop_path(p, s),
            move |x| oracle::random::drop_path(x[0], f64::from(p), same),
        )
    }
}

pub(super) fn sparse(m: &mut Maker) -> Option<usize> {
    let i = m.find_or(
        |v| v.ndim() == 2,
        |m| {
            let (n, d) = (1 + m.below(9), 1 + m.below(20));
            m.noise(&[n, d])
        },
    );
    let [batch, width] = [m.dims(i)[0], m.dims(i)[1]];
    let (other, kind) = (1 + m.below(9), m.below(4));
    // In the transposed product the value's axis is that of the outputs.
    let (outputs, inputs) = if kind == 2 { (width, other) } else { (other, width) };
    let positions: Vec<u32> = (0..(outputs * inputs) as u32).filter(|_| m.one_in(3)).collect();
    let (n, size) = (positions.len(), [outputs, inputs]);
    if n == 0 {
        return None;
    }
    let (here, there) = (positions.clone(), positions);
    let pattern = move |x: &Tensor| SparsePattern::new(x.gpu(), outputs, inputs, &here);
    match kind {
        0 => {
            let w = m.noisy(&[n]);
            let want = move |x: &[&A]| oracle::sparse::sparse_linear(x[0], x[1], None, &there, size);
            m.step("sparse_linear", &[i, w], move |x| x[0].sparse_linear(x[1], &pattern(x[0])?, None), want)
        }
        1 => {
            let (w, b) = (m.noisy(&[n]), m.noisy(&[outputs]));
            let want = move |x: &[&A]| oracle::sparse::sparse_linear(x[0], x[1], Some(x[2]), &there, size);
            m.step("sparse_linear", &[i, w, b], move |x| x[0].sparse_linear(x[1], &pattern(x[0])?, Some(x[2])), want)
        }
        2 => {
            let w = m.noisy(&[n]);
            let want = move |x: &[&A]| oracle::sparse::sparse_linear_t(x[0], x[1], &there, size);
            m.step("sparse_linear_t", &[i, w], move |x| x[0].sparse_linear_t(x[1], &pattern(x[0])?), want)
        }
        _ => {
            let g = m.noisy(&[batch, outputs]);
            let want = move |x: &[&A]| oracle::sparse::sparse_outer(x[0], x[1], &there);
            m.step("sparse_outer", &[i, g], move |x| x[0].sparse_outer(x[1], &pattern(x[0])?), want)
        }
    }
}

/// Spiking neurons, whose gradient is that of another function than they are.
pub(super) fn spikes(m: &mut Maker) -> Option<usize> {
    let shape = [1 + m.below(8), 1 + m.below(2), 1 + m.below(9)];
    let x = m.range(&shape, -0.6, 1.6);
    let (threshold, leak) = (0.8f32, 0.9f32);
    let (v, l) = (f64::from(threshold), f64::from(leak));
    if !far(&oracle::lif::lif_forward(&x, None, v, l).potential, &[v]) {
        return None;
    }
    let (x, v, l) = (m.leaf(x), m.leaf(array(&[], &[v])), m.leaf(array(&[], &[l])));
    m.push(Step {
        what: "lif".into(),
        inputs: vec![x, v, l],
        engine: Box::new(|x| x[0].lif(x[1], x[2], &LifOptions::default())),
        oracle: Box::new(|x| oracle::lif::lif_forward(x[0], None, x[1].sum(), x[2].sum()).spikes),
        smooth: true,
        backward: Some(Box::new(|x, grad| {
            let g = oracle::lif::lif_backward(x[0], None, x[1].sum(), x[2].sum(), f64::from(0.3f32), grad, None);
            vec![g.current, g.threshold, g.leak]
        })),
        same: false,
    })
}

pub(super) fn magnitudes(m: &mut Maker) -> Option<usize> {
    let i = m.find(|v| v.ndim() > 0 && differ(&v.mapv(f64::abs)))?;
    let count = 1 + m.below(m.values[i].len());
    m.step(
        format!("largest_magnitudes {count}"),
        &[i],
        move |x| Ok(x[0].largest_magnitudes(count)?.0),
        move |x| {
            let all: Vec<f64> = x[0].iter().copied().collect();
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by(|&i, &j| all[j].abs().total_cmp(&all[i].abs()));
            order.truncate(count);
            order.sort_unstable();
            array(&[count], &order.into_iter().map(|i| all[i]).collect::<Vec<_>>())
        },
    )
}
