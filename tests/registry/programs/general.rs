//! Operations on tensors of any shape: functions of elements, reductions, scans, products.

use ndarray::ArrayD;
use shadegrad::{Result, Tensor};

use super::{GAP, Maker, learning, moves};
use crate::oracle::elementwise as e;
use crate::oracle::{self, A, array};

/// Adds one operation, or nothing where it does not fit what there is.
pub(super) type Kind = fn(&mut Maker) -> Option<usize>;

/// The kinds of operations, those with many names more often.
pub(super) const KINDS: &[Kind] = &[
    smooth,
    smooth,
    smooth,
    positive,
    positive,
    bent,
    bent,
    learned,
    scalar,
    jumps,
    compare,
    binary,
    binary,
    binary,
    binary,
    select,
    matmul,
    matmul,
    linear,
    sum,
    sum,
    extreme,
    places,
    softmax,
    softmax,
    cumsum,
    sort,
    moves::reshape,
    moves::permute,
    moves::slice,
    moves::slice,
    moves::pad,
    moves::broadcast,
    moves::flip,
    moves::roll,
    moves::concat,
    moves::stack,
    moves::gather,
    moves::scatter,
    moves::rows,
    moves::embedding,
    moves::one_hot,
    moves::diagonal,
    moves::triangles,
    moves::split,
    learning::solve,
    learning::solve,
    learning::cross_entropy,
    learning::cross_entropy,
    learning::losses,
    learning::losses,
    learning::drop,
    learning::sparse,
    learning::sparse,
    learning::spikes,
    learning::magnitudes,
];

type Unary = (&'static str, fn(&Tensor) -> Result<Tensor>, fn(f64) -> f64);

const SMOOTH: [Unary; 14] = [
    ("sin", Tensor::sin, f64::sin),
    ("cos", Tensor::cos, f64::cos),
    ("tanh", Tensor::tanh, f64::tanh),
    ("sigmoid", Tensor::sigmoid, e::sigmoid),
    ("softplus", Tensor::softplus, e::softplus),
    ("silu", Tensor::silu, e::silu),
    ("mish", Tensor::mish, e::mish),
    ("gelu", Tensor::gelu, e::gelu),
    ("gelu_tanh", Tensor::gelu_tanh, e::gelu_tanh),
    ("erf", Tensor::erf, e::erf),
    ("square", Tensor::square, e::square),
    ("neg", Tensor::neg, |x| -x),
    ("exp", Tensor::exp, f64::exp),
    ("expm1", Tensor::expm1, f64::exp_m1),
];

fn smooth(m: &mut Maker) -> Option<usize> {
    let (name, engine, want) = m.from(&SMOOTH);
    let i = m.any();
    m.step(name, &[i], move |x| engine(x[0]), move |x| x[0].mapv(want))
}

/// A value of positive elements, made so if need be.
fn above(m: &mut Maker) -> Option<usize> {
    let i = m.any();
    if m.values[i].iter().all(|&v| v > 0.2) {
        return Some(i);
    }
    let i = m.step("softplus", &[i], |x| x[0].softplus(), |x| x[0].mapv(e::softplus))?;
    m.step("add_scalar 0.25", &[i], |x| x[0].add_scalar(0.25), |x| x[0] + 0.25)
}

fn positive(m: &mut Maker) -> Option<usize> {
    let i = above(m)?;
    if m.values[i].iter().any(|&v| v < 0.2) {
        return None;
    }
    const ALL: [Unary; 5] = [
        ("log", Tensor::log, f64::ln),
        ("log1p", Tensor::log1p, f64::ln_1p),
        ("sqrt", Tensor::sqrt, f64::sqrt),
        ("rsqrt", Tensor::rsqrt, e::rsqrt),
        ("recip", Tensor::recip, f64::recip),
    ];
    if m.one_in(4) {
        let p = m.from(&[-1.5f32, -1.0, 0.5, 1.0, 2.5, 3.0]);
        return m.step(format!("powf {p}"), &[i], move |x| x[0].powf(p), move |x| x[0].mapv(|v| v.powf(f64::from(p))));
    }
    let (name, engine, want) = m.from(&ALL);
    m.step(name, &[i], move |x| engine(x[0]), move |x| x[0].mapv(want))
}

/// Whether no element is near one of these points.
pub(super) fn far(x: &A, points: &[f64]) -> bool {
    x.iter().all(|v| points.iter().all(|p| (v - p).abs() > GAP))
}

/// A value without elements near these points.
fn away(m: &mut Maker, points: &[f64]) -> usize {
    m.find_or(
        |v| far(v, points),
        |m| {
            let shape = m.shape();
            let mut x = m.noise(&shape);
            // Redrawing a few elements is quicker than waiting for luck.
            for v in x.iter_mut() {
                while points.iter().any(|p| (*v - p).abs() <= GAP) {
                    *v = f64::from(m.rng.uniform());
                }
            }
            x
        },
    )
}

fn bent(m: &mut Maker) -> Option<usize> {
    match m.below(5) {
        0 => {
            let i = away(m, &[0.0]);
            m.step("abs", &[i], |x| x[0].abs(), |x| x[0].mapv(f64::abs))
        }
        1 => {
            let i = away(m, &[0.0]);
            m.step("relu", &[i], |x| x[0].relu(), |x| x[0].mapv(e::relu))
        }
        2 => {
            let (i, a) = (away(m, &[0.0]), m.from(&[0.125f32, 0.01, -0.5]));
            let want = move |v| e::leaky_relu(v, f64::from(a));
            m.step(format!("leaky_relu {a}"), &[i], move |x| x[0].leaky_relu(a), move |x| x[0].mapv(want))
        }
        3 => {
            let (i, a) = (away(m, &[0.0]), m.from(&[1.0f32, 0.75, 2.0]));
            m.step(format!("elu {a}"), &[i], move |x| x[0].elu(a), move |x| x[0].mapv(|v| e::elu(v, f64::from(a))))
        }
        _ => {
            let (lo, hi) = m.from(&[(-0.5f32, 0.75f32), (-1.0, 2.0), (0.0, 0.25)]);
            let (from, to) = (f64::from(lo), f64::from(hi));
            let i = away(m, &[from, to]);
            m.step(
                format!("clamp {lo} {hi}"),
                &[i],
                move |x| x[0].clamp(lo, hi),
                move |x| x[0].mapv(|v| v.clamp(from, to)),
            )
        }
    }
}

fn learned(m: &mut Maker) -> Option<usize> {
    if m.one_in(3) {
        let grid = [-2.0, -0.5, 0.0, 0.25, 3.0];
        let i = away(m, &grid);
        let y = m.noise(&[5]);
        let (g, y) = (m.constant(array(&[5], &grid)), m.constant(y));
        let want = |x: &[&A]| oracle::parametric::piecewise_linear(x[0], x[1], x[2]);
        return m.step("piecewise_linear", &[i, g, y], |x| x[0].piecewise_linear(x[1], x[2]), want);
    }
    let i = away(m, &[0.0]);
    let a = m.noisy(&[]);
    if m.one_in(2) {
        m.step("prelu", &[i, a], |x| x[0].prelu(x[1]), |x| oracle::parametric::prelu(x[0], x[1]))
    } else {
        m.step("crrelu", &[i, a], |x| x[0].crrelu(x[1]), |x| oracle::parametric::crrelu(x[0], x[1]))
    }
}

fn scalar(m: &mut Maker) -> Option<usize> {
    let (i, c) = (m.any(), m.from(&[0.625f32, -1.5, 2.0, 0.0]));
    let d = f64::from(c);
    if m.one_in(2) {
        m.step(format!("add_scalar {c}"), &[i], move |x| x[0].add_scalar(c), move |x| x[0] + d)
    } else {
        m.step(format!("mul_scalar {c}"), &[i], move |x| x[0].mul_scalar(c), move |x| x[0] * d)
    }
}

/// Steps of functions, which have no gradient.
fn jumps(m: &mut Maker) -> Option<usize> {
    const ALL: [Unary; 6] = [
        ("sign", Tensor::sign, e::sign),
        ("floor", Tensor::floor, f64::floor),
        ("ceil", Tensor::ceil, f64::ceil),
        ("round", Tensor::round, f64::round_ties_even),
        ("is_nan", Tensor::is_nan, e::is_nan),
        ("is_finite", Tensor::is_finite, e::is_finite),
    ];
    let i = away(m, &[-3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]);
    let (name, engine, want) = m.from(&ALL);
    m.cut(name, &[i], move |x| engine(x[0]), move |x| x[0].mapv(want))
}

type Binary = (&'static str, fn(&Tensor, &Tensor) -> Result<Tensor>, fn(f64, f64) -> f64);
type Compare = (&'static str, fn(&Tensor, f32) -> Result<Tensor>, fn(f64, f64) -> f64);

fn compare(m: &mut Maker) -> Option<usize> {
    const WITH: [Compare; 6] = [
        ("gt_scalar", Tensor::gt_scalar, e::gt),
        ("ge_scalar", Tensor::ge_scalar, e::ge),
        ("lt_scalar", Tensor::lt_scalar, e::lt),
        ("le_scalar", Tensor::le_scalar, e::le),
        ("eq_scalar", Tensor::eq_scalar, e::eq),
        ("ne_scalar", Tensor::ne_scalar, e::ne),
    ];
    const ALL: [Binary; 6] = [
        ("gt", Tensor::gt, e::gt),
        ("ge", Tensor::ge, e::ge),
        ("lt", Tensor::lt, e::lt),
        ("le", Tensor::le, e::le),
        ("eq", Tensor::eq, e::eq),
        ("ne", Tensor::ne, e::ne),
    ];
    if m.one_in(2) {
        let ((name, engine, want), c) = (m.from(&WITH), m.from(&[0.5f32, 0.0, -0.25]));
        let i = away(m, &[f64::from(c)]);
        return m.cut(
            format!("{name} {c}"),
            &[i],
            move |x| engine(x[0], c),
            move |x| x[0].mapv(|v| want(v, f64::from(c))),
        );
    }
    let (name, engine, want) = m.from(&ALL);
    let (i, j) = pair(m)?;
    apart(m, i, j)?;
    m.cut(name, &[i, j], move |x| engine(x[0], x[1]), move |x| e::binary(x[0], x[1], want))
}

/// Nothing if two elements that meet are nearly equal.
fn apart(m: &Maker, i: usize, j: usize) -> Option<()> {
    far(&e::binary(&m.values[i], &m.values[j], |a, b| a - b), &[0.0]).then_some(())
}

/// Whether two shapes broadcast, one to the other.
fn stretches(from: &[usize], to: &[usize]) -> bool {
    from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(|(a, b)| a == b || *a == 1)
}

/// Two values that broadcast, in either order.
fn pair(m: &mut Maker) -> Option<(usize, usize)> {
    let i = m.any();
    let shape = m.dims(i);
    let found = if m.one_in(2) { m.find(|v| stretches(v.shape(), &shape)) } else { None };
    let j = found.unwrap_or_else(|| {
        // Repeated along some of the axes.
        let small: Vec<usize> = shape.iter().map(|&d| if m.one_in(3) { 1 } else { d }).collect();
        let from = m.below(shape.len() + 1);
        m.noisy(&small[from..])
    });
    Some(if m.one_in(2) { (i, j) } else { (j, i) })
}

fn binary(m: &mut Maker) -> Option<usize> {
    const ALL: [Binary; 3] =
        [("add", Tensor::add, |a, b| a + b), ("sub", Tensor::sub, |a, b| a - b), ("mul", Tensor::mul, |a, b| a * b)];
    const BENT: [Binary; 2] = [("maximum", Tensor::maximum, f64::max), ("minimum", Tensor::minimum, f64::min)];
    let which = m.below(7);
    let (name, engine, want) = match which {
        0..4 => m.from(&ALL),
        4 => m.from(&BENT),
        5 => ("div", Tensor::div as _, (|a, b| a / b) as _),
        _ => ("pow", Tensor::pow as _, f64::powf as _),
    };
    let (mut i, mut j) = pair(m)?;
    match which {
        4 => apart(m, i, j)?,
        5 | 6 => {
            let k = above(m)?;
            let shape = m.dims(k);
            let other = m.find_or(|v| stretches(v.shape(), &shape), |m| m.noise(&shape));
            (i, j) = if which == 5 { (other, k) } else { (k, other) };
            if m.values[k].iter().any(|&v| v < 0.2) {
                return None;
            }
        }
        _ => {}
    }
    m.step(name, &[i, j], move |x| engine(x[0], x[1]), move |x| e::binary(x[0], x[1], want))
}

fn select(m: &mut Maker) -> Option<usize> {
    let (i, j) = pair(m)?;
    let shape = e::binary(&m.values[i], &m.values[j], |a, _| a).shape().to_vec();
    let small: Vec<usize> = shape.iter().map(|&d| if m.one_in(4) { 1 } else { d }).collect();
    let mask = m.noise(&small).mapv(|v| if v > 0.0 { 1.0 } else { 0.0 });
    let c = m.constant(mask);
    m.step("select", &[c, i, j], |x| x[0].select(x[1], x[2]), |x| e::select(x[0], x[1], x[2]))
}

fn matmul(m: &mut Maker) -> Option<usize> {
    let i = m.find_or(
        |v| v.ndim() >= 2,
        |m| {
            let (a, b) = (1 + m.below(20), 1 + m.below(20));
            m.noise(&[a, b])
        },
    );
    let (shape, rank) = (m.dims(i), m.values[i].ndim());
    let (ta, tb) = (m.one_in(2), m.one_in(2));
    let inner = if ta { shape[rank - 2] } else { shape[rank - 1] };
    let cols = if m.one_in(5) { 1 + m.below(40) } else { 1 + m.below(7) };
    let tail = if tb { [cols, inner] } else { [inner, cols] };
    // A batch of its own, a shared one, or none.
    let lead: Vec<usize> = match m.below(3) {
        0 => Vec::new(),
        1 => shape[..rank - 2].to_vec(),
        _ => shape[..rank - 2].iter().map(|_| 1).collect(),
    };
    let j = m.noisy(&[&lead[..], &tail].concat());
    if !ta && !tb && m.one_in(2) {
        return m.step("matmul", &[i, j], |x| x[0].matmul(x[1]), |x| oracle::matmul::matmul(x[0], x[1]));
    }
    m.step(
        format!("matmul_t {ta} {tb}"),
        &[i, j],
        move |x| x[0].matmul_t(x[1], ta, tb),
        move |x| oracle::matmul::matmul_t(x[0], x[1], ta, tb),
    )
}

fn linear(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let (inputs, outputs) = (*m.dims(i).last()?, 1 + m.below(9));
    let w = m.noisy(&[outputs, inputs]);
    if m.one_in(3) {
        return m.step("linear", &[i, w], |x| x[0].linear(x[1], None), |x| oracle::matmul::linear(x[0], x[1], None));
    }
    let b = m.noisy(&[outputs]);
    m.step("linear", &[i, w, b], |x| x[0].linear(x[1], Some(x[2])), |x| oracle::matmul::linear(x[0], x[1], Some(x[2])))
}

/// Some of the axes, at least one.
pub(super) fn axes(m: &mut Maker, rank: usize) -> Vec<usize> {
    let mask = 1 + m.below((1 << rank) - 1);
    (0..rank).filter(|a| mask >> a & 1 == 1).collect()
}

fn sum(m: &mut Maker) -> Option<usize> {
    type Reduce = (&'static str, fn(&Tensor, &[usize], bool) -> Result<Tensor>, fn(&A, &[usize], bool) -> A);
    const ALL: [Reduce; 3] = [
        ("sum", Tensor::sum, oracle::reduce::sum),
        ("mean", Tensor::mean, oracle::reduce::mean),
        ("logsumexp", Tensor::logsumexp, oracle::reduce::logsumexp),
    ];
    let i = m.line();
    let shape = m.dims(i);
    let (axes, keep) = (axes(m, shape.len()), m.one_in(2));
    let other = axes.clone();
    match m.below(6) {
        0 => {
            let n: usize = axes.iter().map(|&a| shape[a]).product();
            let correction = m.below(2);
            if n <= correction + 1 {
                return None;
            }
            m.step(
                format!("var {axes:?} {correction} {keep}"),
                &[i],
                move |x| x[0].var(&axes, correction, keep),
                move |x| oracle::reduce::var(x[0], &other, correction, keep),
            )
        }
        1 => {
            let from = m.below(shape.len() + 1);
            let to: Vec<usize> = shape[from..].iter().map(|&d| if m.one_in(2) { 1 } else { d }).collect();
            let other = to.clone();
            m.step(
                format!("sum_to {to:?}"),
                &[i],
                move |x| x[0].sum_to(&to),
                move |x| oracle::reduce::sum_to(x[0], &other),
            )
        }
        _ => {
            let (name, engine, want) = m.from(&ALL);
            m.step(
                format!("{name} {axes:?} {keep}"),
                &[i],
                move |x| engine(x[0], &axes, keep),
                move |x| want(x[0], &other, keep),
            )
        }
    }
}

/// Whether all elements differ.
pub(super) fn differ(x: &A) -> bool {
    let mut all: Vec<f64> = x.iter().copied().collect();
    all.sort_by(f64::total_cmp);
    all.windows(2).all(|w| w[1] - w[0] > GAP / 4.0)
}

/// A value whose elements all differ.
fn unequal(m: &mut Maker) -> usize {
    m.find_or(
        |v| v.ndim() > 0 && differ(v),
        |m| {
            let shape = m.shape();
            m.unequal(&shape)
        },
    )
}

fn extreme(m: &mut Maker) -> Option<usize> {
    let i = unequal(m);
    let (axes, keep, min) = (axes(m, m.values[i].ndim()), m.one_in(2), m.one_in(2));
    let other = axes.clone();
    let want = if min { oracle::reduce::min } else { oracle::reduce::max };
    m.step(
        format!("{} {axes:?} {keep}", if min { "min" } else { "max" }),
        &[i],
        move |x| if min { x[0].min(&axes, keep) } else { x[0].max(&axes, keep) },
        move |x| want(x[0], &other, keep),
    )
}

/// Where something is, as numbers.
fn places(m: &mut Maker) -> Option<usize> {
    use shadegrad::DType::F32;
    let i = unequal(m);
    let (axis, flag) = (m.below(m.values[i].ndim()), m.one_in(2));
    let k = 1 + m.below(m.dims(i)[axis]);
    let number = |i: ArrayD<usize>| i.mapv(|i| i as f64);
    match m.below(4) {
        0 => m.cut(
            format!("argmax {axis} {flag}"),
            &[i],
            move |x| x[0].argmax(axis, flag)?.cast(F32),
            move |x| number(oracle::reduce::argmax(x[0], axis, flag)),
        ),
        1 => m.cut(
            format!("argmin {axis} {flag}"),
            &[i],
            move |x| x[0].argmin(axis, flag)?.cast(F32),
            move |x| number(oracle::reduce::argmin(x[0], axis, flag)),
        ),
        2 => m.cut(
            format!("argsort {axis} {flag}"),
            &[i],
            move |x| x[0].argsort(axis, flag)?.cast(F32),
            move |x| number(oracle::scan::sort(x[0], axis, flag).1),
        ),
        _ => m.cut(
            format!("topk_places {k} {axis} {flag}"),
            &[i],
            move |x| x[0].topk(k, axis, flag)?.1.cast(F32),
            move |x| number(oracle::scan::topk(x[0], k, axis, flag).1),
        ),
    }
}

fn softmax(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let axis = m.below(m.values[i].ndim());
    if m.one_in(2) {
        return m.step(
            format!("softmax {axis}"),
            &[i],
            move |x| x[0].softmax(axis),
            move |x| oracle::softmax::softmax(x[0], axis),
        );
    }
    m.step(
        format!("log_softmax {axis}"),
        &[i],
        move |x| x[0].log_softmax(axis),
        move |x| oracle::softmax::log_softmax(x[0], axis),
    )
}

fn cumsum(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let axis = m.below(m.values[i].ndim());
    m.step(format!("cumsum {axis}"), &[i], move |x| x[0].cumsum(axis), move |x| oracle::scan::cumsum(x[0], axis))
}

fn sort(m: &mut Maker) -> Option<usize> {
    let i = unequal(m);
    let (axis, flag) = (m.below(m.values[i].ndim()), m.one_in(2));
    if m.one_in(2) {
        return m.step(
            format!("sort {axis} {flag}"),
            &[i],
            move |x| Ok(x[0].sort(axis, flag)?.0),
            move |x| oracle::scan::sort(x[0], axis, flag).0,
        );
    }
    let k = 1 + m.below(m.dims(i)[axis]);
    m.step(
        format!("topk {k} {axis} {flag}"),
        &[i],
        move |x| Ok(x[0].topk(k, axis, flag)?.0),
        move |x| oracle::scan::topk(x[0], k, axis, flag).0,
    )
}
