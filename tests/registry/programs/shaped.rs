//! Operations that want images, tokens or spectra: convolution, pooling, normalisation, resizing, attention, transforms.

use shadegrad::window::Windows;
use shadegrad::{Attention, Conv2d, FftNorm, Outside, Pool2d, Result, Tensor};

use super::general::{Kind, differ};
use super::{GAP, Maker};
use crate::fft::complex_mul;
use crate::oracle::{self, A, fft};

/// The kinds of operations, those with many options more often.
pub(super) const KINDS: &[Kind] = &[
    conv,
    conv,
    conv,
    transposed,
    pool,
    pool,
    max_pool,
    max_pool,
    adaptive,
    layer_norm,
    group_norm,
    group_norm,
    batch_norm,
    batch_norm,
    batch_norm_eval,
    attention,
    attention,
    attention,
    masked_softmax,
    windows,
    spectrum,
    spectrum,
    filter,
    products,
    resize,
    resize,
    sample,
];

fn geometry(p: &Conv2d) -> oracle::conv::Conv {
    oracle::conv::Conv { stride: p.stride, padding: p.padding, dilation: p.dilation, groups: p.groups }
}

/// A number that divides all of these.
fn divisor(m: &mut Maker, of: &[usize]) -> usize {
    let all: Vec<usize> = (1..=of[0]).filter(|d| of.iter().all(|n| n.is_multiple_of(*d))).collect();
    m.from(&all)
}

/// Options of a convolution of an image of this size, rows and columns of its kernel.
fn options(m: &mut Maker, shape: &[usize]) -> Option<(Conv2d, [usize; 2])> {
    let side = m.from(&[1, 1, 2, 3, 3, 3, 4, 5]);
    let kernel = [side, if m.one_in(4) { 1 + m.below(3) } else { side }];
    let mut p = Conv2d::new(1 + m.below(3) % 2, m.below(3));
    p.dilation = if m.one_in(4) { [1 + m.below(2), 1 + m.below(3)] } else { [1; 2] };
    p.groups = divisor(m, &[shape[3]]);
    let fits = (0..2).all(|d| shape[d + 1] + 2 * p.padding[d] > p.dilation[d] * (kernel[d] - 1));
    fits.then_some((p, kernel))
}

fn conv(m: &mut Maker) -> Option<usize> {
    let i = m.images();
    let shape = m.dims(i);
    let (p, [r, s]) = options(m, &shape)?;
    let outputs = p.groups * m.from(&[1, 1, 2, 3, 4]);
    let w = m.noisy(&[outputs, r, s, shape[3] / p.groups]);
    let mut inputs = vec![i, w];
    if m.one_in(2) {
        inputs.push(m.noisy(&[outputs]));
    }
    m.step(
        format!("conv2d {p:?} {r}x{s}"),
        &inputs,
        move |x| x[0].conv2d(x[1], x.get(2).copied(), p),
        move |x| oracle::conv::conv2d(x[0], x[1], x.get(2).copied(), &geometry(&p)),
    )
}

fn transposed(m: &mut Maker) -> Option<usize> {
    let i = m.images();
    let shape = m.dims(i);
    let (mut p, [r, s]) = options(m, &shape)?;
    p.stride = [1 + m.below(3), 1 + m.below(2)];
    let out = m.from(&[1, 2, 3, 4]);
    let extra = p.stride.map(|stride| m.below(stride));
    // What is left after the padding is taken away.
    if (0..2)
        .any(|d| (shape[d + 1] - 1) * p.stride[d] + p.dilation[d] * ([r, s][d] - 1) + 1 + extra[d] <= 2 * p.padding[d])
    {
        return None;
    }
    let w = m.noisy(&[shape[3], r, s, out]);
    let mut inputs = vec![i, w];
    if m.one_in(2) {
        inputs.push(m.noisy(&[out * p.groups]));
    }
    m.step(
        format!("conv_transpose2d {p:?} {r}x{s} {extra:?}"),
        &inputs,
        move |x| x[0].conv_transpose2d(x[1], x.get(2).copied(), p, extra),
        move |x| oracle::conv::conv_transpose2d(x[0], x[1], x.get(2).copied(), &geometry(&p), extra),
    )
}

/// Windows that fit an image, as the engine and as the reference take them.
fn window(m: &mut Maker, shape: &[usize]) -> Option<(Pool2d, oracle::pool::Pool)> {
    let kernel = [1 + m.below(3), 1 + m.below(3)];
    let stride = [1 + m.below(3), 1 + m.below(2)];
    let padding = kernel.map(|k| if m.one_in(2) { k / 2 } else { 0 });
    let fits = (0..2).all(|d| shape[d + 1] + 2 * padding[d] >= kernel[d]);
    fits.then_some((Pool2d { kernel, stride, padding }, oracle::pool::Pool { kernel, stride, padding }))
}

fn pool(m: &mut Maker) -> Option<usize> {
    let i = m.images();
    let shape = m.dims(i);
    let (p, o) = window(m, &shape)?;
    match m.below(3) {
        0 => m.step(
            format!("avg_pool2d {p:?}"),
            &[i],
            move |x| x[0].avg_pool2d(p),
            move |x| oracle::pool::avg_pool2d(x[0], &o),
        ),
        1 => m.step(
            format!("avg_pool2d_inside {p:?}"),
            &[i],
            move |x| x[0].avg_pool2d_inside(p),
            move |x| oracle::pool::avg_pool2d_inside(x[0], &o),
        ),
        _ => m.step("global_avg_pool", &[i], |x| x[0].global_avg_pool(), |x| oracle::pool::global_avg_pool(x[0])),
    }
}

/// An image whose elements all differ.
fn unequal(m: &mut Maker) -> usize {
    m.find_or(
        |v| v.ndim() == 4 && differ(v),
        |m| {
            let shape = m.image();
            m.unequal(&shape)
        },
    )
}

fn max_pool(m: &mut Maker) -> Option<usize> {
    let i = unequal(m);
    let shape = m.dims(i);
    let (p, o) = window(m, &shape)?;
    if m.one_in(4) {
        return m.cut(
            format!("max_pool2d_indices {p:?}"),
            &[i],
            move |x| x[0].max_pool2d_indices(p)?.1.cast(shadegrad::DType::F32),
            move |x| oracle::pool::max_pool2d(x[0], &o).1.mapv(|i| i as f64),
        );
    }
    m.step(
        format!("max_pool2d {p:?}"),
        &[i],
        move |x| x[0].max_pool2d(p),
        move |x| oracle::pool::max_pool2d(x[0], &o).0,
    )
}

fn adaptive(m: &mut Maker) -> Option<usize> {
    let (oh, ow) = (1 + m.below(6), 1 + m.below(6));
    if m.one_in(2) {
        let i = m.images();
        return m.step(
            format!("adaptive_avg_pool2d {oh} {ow}"),
            &[i],
            move |x| x[0].adaptive_avg_pool2d(oh, ow),
            move |x| oracle::pool::adaptive_avg_pool2d(x[0], oh, ow),
        );
    }
    let i = unequal(m);
    m.step(
        format!("adaptive_max_pool2d {oh} {ow}"),
        &[i],
        move |x| x[0].adaptive_max_pool2d(oh, ow),
        move |x| oracle::pool::adaptive_max_pool2d(x[0], oh, ow).0,
    )
}

/// Added to variances: much, so that rows of nearly equal elements do not become noise.
const EPS: f32 = 0.1;

fn eps() -> f64 {
    f64::from(EPS)
}

type Norm = fn(&Tensor, Option<&Tensor>, Option<&Tensor>, usize) -> Result<Tensor>;
type NormOracle = fn(&A, Option<&A>, Option<&A>, usize) -> A;

/// A normalisation of value `i` with random scale and shift; `n` is its option.
fn normalise(m: &mut Maker, name: &str, i: usize, n: usize, engine: Norm, want: NormOracle) -> Option<usize> {
    let c = *m.dims(i).last()?;
    let (gamma, beta) = (m.one_in(2), m.one_in(2));
    let mut inputs = vec![i];
    if gamma {
        let g = m.range(&[c], 0.5, 1.5);
        inputs.push(m.leaf(g));
    }
    if beta {
        inputs.push(m.noisy(&[c]));
    }
    m.step(
        format!("{name} {n} gamma {gamma} beta {beta}"),
        &inputs,
        move |x| engine(x[0], gamma.then(|| x[1]), beta.then(|| x[x.len() - 1]), n),
        move |x| want(x[0], gamma.then(|| x[1]), beta.then(|| x[x.len() - 1]), n),
    )
}

fn layer_norm(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let want: NormOracle = |x, g, b, _| oracle::norm::layer_norm(x, g, b, eps());
    normalise(m, "layer_norm", i, 0, |x, g, b, _| x.layer_norm(g, b, EPS), want)
}

fn group_norm(m: &mut Maker) -> Option<usize> {
    let i = m.find_or(
        |v| v.ndim() >= 2,
        |m| {
            let shape = m.image();
            m.noise(&shape)
        },
    );
    if m.one_in(3) {
        let want: NormOracle = |x, g, b, _| oracle::norm::instance_norm(x, g, b, eps());
        return normalise(m, "instance_norm", i, 0, |x, g, b, _| x.instance_norm(g, b, EPS), want);
    }
    let c = *m.dims(i).last()?;
    let groups = divisor(m, &[c]);
    let want: NormOracle = |x, g, b, n| oracle::norm::group_norm(x, n, g, b, eps());
    normalise(m, "group_norm", i, groups, |x, g, b, n| x.group_norm(n, g, b, EPS), want)
}

fn batch_norm(m: &mut Maker) -> Option<usize> {
    let i = m.find_or(
        |v| v.ndim() >= 2,
        |m| {
            let shape = m.image();
            m.noise(&shape)
        },
    );
    let before = m.nodes.len();
    let want: NormOracle = |x, g, b, _| oracle::norm::batch_norm(x, g, b, eps()).0;
    if m.one_in(2) {
        return normalise(m, "batch_norm", i, 0, |x, g, b, _| Ok(x.batch_norm(g, b, EPS)?.y), want);
    }
    let relu: NormOracle = |x, g, b, _| oracle::norm::batch_norm(x, g, b, eps()).0.mapv(|v| v.max(0.0));
    let at = normalise(m, "batch_norm_relu", i, 0, |x, g, b, _| Ok(x.batch_norm_relu(g, b, EPS)?.y), relu)?;
    // Not where an element is at the kink.
    let step = (before..=at).find_map(|k| match &m.nodes[k] {
        super::Node::Step(step) => Some(step),
        _ => None,
    })?;
    let inputs: Vec<&A> = step.inputs.iter().map(|&k| &m.values[k]).collect();
    let (gamma, beta) = (step.what.contains("gamma true"), step.what.contains("beta true"));
    let plain = want(inputs[0], gamma.then(|| inputs[1]), beta.then(|| inputs[inputs.len() - 1]), 0);
    plain.iter().all(|v| v.abs() > GAP).then_some(at)
}

fn batch_norm_eval(m: &mut Maker) -> Option<usize> {
    let i = m.line();
    let c = *m.dims(i).last()?;
    let (mean, var) = (m.noisy(&[c]), m.range(&[c], 0.3, 2.0));
    let (var, gamma) = (m.leaf(var), m.noisy(&[c]));
    m.step(
        "batch_norm_eval",
        &[i, mean, var, gamma],
        |x| x[0].batch_norm_eval(x[1], x[2], Some(x[3]), None, EPS),
        |x| oracle::norm::batch_norm_eval(x[0], x[1], x[2], Some(x[3]), None, eps()),
    )
}

/// Zeros and ones.
fn mask(m: &mut Maker, shape: &[usize]) -> A {
    m.noise(shape).mapv(|v| if v > -0.4 { 1.0 } else { 0.0 })
}

/// Options of attention with scores of this shape; what they need is added to the inputs.
struct Seen {
    bias: Option<usize>,
    mask: Option<usize>,
    causal: bool,
    scale: Option<f32>,
}

impl Seen {
    fn new(m: &mut Maker, scores: [usize; 4], inputs: &mut Vec<usize>) -> Self {
        let small = |m: &mut Maker| scores.map(|d| if m.one_in(3) { 1 } else { d });
        let bias = m.one_in(2).then(|| {
            let shape = small(m);
            inputs.push(m.noisy(&shape));
            inputs.len() - 1
        });
        let hidden = m.one_in(2).then(|| {
            let shape = small(m);
            let values = mask(m, &shape);
            inputs.push(m.constant(values));
            inputs.len() - 1
        });
        Self { bias, mask: hidden, causal: m.one_in(2), scale: m.one_in(2).then_some(0.7) }
    }

    fn options<'a>(&self, x: &[&'a Tensor]) -> Attention<'a> {
        let Self { bias, mask, causal, scale } = *self;
        Attention { bias: bias.map(|i| x[i]), mask: mask.map(|i| x[i]), causal, scale, recompute: None }
    }

    fn what(&self) -> String {
        let Self { bias, mask, causal, scale } = self;
        format!("bias {} mask {} causal {causal} scale {scale:?}", bias.is_some(), mask.is_some())
    }
}

fn attention(m: &mut Maker) -> Option<usize> {
    let i = m.images();
    let &[b, h, l, d] = &m.dims(i)[..] else { return None };
    let (s, dv) = (1 + m.below(9), 1 + m.below(8));
    let mut inputs = vec![i, m.noisy(&[b, h, s, d]), m.noisy(&[b, h, s, dv])];
    let seen = std::sync::Arc::new(Seen::new(m, [b, h, l, s], &mut inputs));
    let (also, what) = (seen.clone(), seen.what());
    let factor = seen.scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
    m.step(
        format!("sdpa {s} {dv} {what}"),
        &inputs,
        move |x| x[0].sdpa(x[1], x[2], seen.options(x)),
        move |x| {
            let (bias, mask) = (also.bias.map(|i| x[i]), also.mask.map(|i| x[i]));
            oracle::attention::sdpa(x[0], x[1], x[2], bias, mask, also.causal, factor)
        },
    )
}

fn masked_softmax(m: &mut Maker) -> Option<usize> {
    let i = m.images();
    let &[b, h, l, s] = &m.dims(i)[..] else { return None };
    let mut inputs = vec![i];
    let seen = std::sync::Arc::new(Seen::new(m, [b, h, l, s], &mut inputs));
    let (also, what) = (seen.clone(), seen.what());
    m.step(
        format!("masked_softmax {what}"),
        &inputs,
        move |x| x[0].masked_softmax(seen.options(x)),
        move |x| {
            // The weights are what attention gives when the values are unit vectors, for keys that make the scores.
            let unit = |side: usize| A::from_shape_fn(vec![b, h, side, side], |i| if i[2] == i[3] { 1.0 } else { 0.0 });
            let (bias, mask) = (also.bias.map(|i| x[i]), also.mask.map(|i| x[i]));
            let scale = also.scale.map_or(1.0, f64::from);
            oracle::attention::sdpa(x[0], &unit(s), &unit(s), bias, mask, also.causal, scale)
        },
    )
}

fn windows(m: &mut Maker) -> Option<usize> {
    let (heads, d, side) = (1 + m.below(2), m.from(&[2, 3, 4, 8, 12]), 1 + m.below(3));
    let (shift, scale) = (m.below(side), m.one_in(3).then_some(0.4f32));
    let shape = [1, side * (1 + m.below(2)), side * (1 + m.below(2)), 3 * heads * d];
    let mut inputs = vec![m.noisy(&shape)];
    if m.one_in(2) {
        inputs.push(m.noisy(&[(2 * side - 1) * (2 * side - 1), heads]));
    }
    let how = Windows { heads, window: side, shift, scale };
    let factor = scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
    m.step(
        format!("window_attention {heads} {side} {shift} {scale:?}"),
        &inputs,
        move |x| x[0].window_attention(x.get(1).copied(), how),
        move |x| oracle::attention::windows(x[0], x.get(1).copied(), heads, side, shift, factor),
    )
}

const NORMS: [(FftNorm, fft::FftNorm); 2] =
    [(FftNorm::Backward, fft::FftNorm::Backward), (FftNorm::Ortho, fft::FftNorm::Ortho)];

fn spectrum(m: &mut Maker) -> Option<usize> {
    let (norm, want) = m.from(&NORMS);
    if m.one_in(2) {
        let i = m.images();
        return m.step(format!("rfft2 {want:?}"), &[i], move |x| x[0].rfft2(norm), move |x| fft::rfft2(x[0], want));
    }
    let width = 1 + m.below(9);
    let half = width / 2 + 1;
    let i = m.find_or(
        |v| v.ndim() == 5 && v.shape()[2] == half && v.shape()[4] == 2,
        |m| {
            let shape = [1 + m.below(2), 1 + m.below(7), half, 1 + m.below(4), 2];
            m.noise(&shape)
        },
    );
    m.step(
        format!("irfft2 {width} {want:?}"),
        &[i],
        move |x| x[0].irfft2(width, norm),
        move |x| fft::irfft2(x[0], width, want),
    )
}

fn filter(m: &mut Maker) -> Option<usize> {
    let i = m.images();
    let &[_, h, w, c] = &m.dims(i)[..] else { return None };
    let f = m.noisy(&[h, w / 2 + 1, c, 2]);
    m.step(
        "spectral_filter",
        &[i, f],
        |x| x[0].spectral_filter(x[1]),
        move |x| {
            let y = complex_mul(&fft::rfft2(x[0], fft::FftNorm::Backward), x[1], 1.0);
            fft::irfft2(&y, w, fft::FftNorm::Backward)
        },
    )
}

fn products(m: &mut Maker) -> Option<usize> {
    let i = m.find_or(
        |v| v.ndim() > 0 && v.shape()[v.ndim() - 1] == 2,
        |m| {
            let shape = [1 + m.below(5), 1 + m.below(5), 2];
            m.noise(&shape)
        },
    );
    let shape = m.dims(i);
    let from = m.below(shape.len());
    let (j, conjugate) = (m.noisy(&shape[from..]), m.one_in(2));
    if conjugate {
        return m.step("complex_mul_conj", &[i, j], |x| x[0].complex_mul_conj(x[1]), |x| complex_mul(x[0], x[1], -1.0));
    }
    m.step("complex_mul", &[i, j], |x| x[0].complex_mul(x[1]), |x| complex_mul(x[0], x[1], 1.0))
}

fn resize(m: &mut Maker) -> Option<usize> {
    let i = m.images();
    let (oh, ow, align) = (1 + m.below(9), 1 + m.below(9), m.one_in(2));
    if m.one_in(3) {
        return m.step(
            format!("resize_nearest {oh} {ow}"),
            &[i],
            move |x| x[0].resize_nearest(oh, ow),
            move |x| oracle::resize::resize_nearest(x[0], oh, ow),
        );
    }
    m.step(
        format!("resize_bilinear {oh} {ow} {align}"),
        &[i],
        move |x| x[0].resize_bilinear(oh, ow, align),
        move |x| oracle::resize::resize_bilinear(x[0], oh, ow, align),
    )
}

fn sample(m: &mut Maker) -> Option<usize> {
    let i = m.images();
    let &[n, h, w, _] = &m.dims(i)[..] else { return None };
    let (oh, ow) = (1 + m.below(4), 1 + m.below(4));
    let grid = m.range(&[n, oh, ow, 2], -1.4, 1.4);
    // Slopes jump where a position is at a pixel's centre.
    let near = |(i, g): (ndarray::IxDyn, &f64)| {
        let at = ((g + 1.0) * [w, h][i[3]] as f64 - 1.0) / 2.0;
        (at - at.round()).abs() < 10.0 * GAP
    };
    if grid.indexed_iter().any(near) {
        return None;
    }
    let grid = m.leaf(grid);
    let (outside, want) =
        m.from(&[(Outside::Zeros, oracle::resize::Outside::Zeros), (Outside::Border, oracle::resize::Outside::Border)]);
    m.step(
        format!("grid_sample {want:?}"),
        &[i, grid],
        move |x| x[0].grid_sample(x[1], outside),
        move |x| oracle::resize::grid_sample(x[0], x[1], want),
    )
}
