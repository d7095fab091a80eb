//! Over the flat buffers of an arena, in place: gradient accumulation, masks, averages, norms and optimiser steps.

use shadegrad_shaders::{optim as k, optim_norm as n, optim_step as s};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Floats of one workgroup: 256 invocations, a `vec4` each ([`step`] and [`measure`]: four).
const GROUP: u64 = 1024;

/// `to[i] += scale * from[i]` for the first `n` floats; what lies behind stays as it is.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn accumulate(gpu: &Gpu, from: &Storage, to: &Storage, n: usize, scale: f32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    gpu.dispatch(&k::ACCUMULATE, [from], [to], k::FlatParams { n: n as u32, gx, scale, ..Default::default() }, grid)
}

/// `to[i] *= mask[i]`; 0 where the mask is 0, whatever was there. `n` is a multiple of four.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn mask(gpu: &Gpu, mask: &Storage, to: &Storage, n: usize) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    gpu.dispatch(&k::MASK, [mask], [to], k::FlatParams { n: n as u32, gx, ..Default::default() }, grid)
}

/// `average[i] += (1 - decay) * (x[i] - average[i])`. `n` is a multiple of four.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn ema(gpu: &Gpu, x: &Storage, average: &Storage, n: usize, decay: f32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let params = k::FlatParams { n: n as u32, gx, scale: (1.0 - f64::from(decay)) as f32, ..Default::default() };
    gpu.dispatch(&k::EMA, [x], [average], params, grid)
}

/// What a step reads and writes, over `n` floats (a multiple of 64): the flat buffers of an arena and its tables.
#[derive(Clone, Copy)]
pub struct Flat<'a> {
    /// Gradients.
    pub grads: &'a Storage,
    /// The parameter of each block of 64 floats.
    pub owners: &'a Storage,
    /// Four floats a parameter: rate multiplier, decay multiplier, 0 frozen | 1 trained | 2 and adapted, trust ratio.
    pub rows: &'a Storage,
    /// [`SCALARS`] floats and four a parameter; see [`prepare`].
    pub scalars: &'a Storage,
    /// Values.
    pub values: &'a Storage,
    /// Number of floats in each flat buffer.
    pub n: usize,
}

/// Floats of [`Flat::scalars`] before those of the parameters: scale of the gradients, whether to apply the step, three
/// unused, steps skipped, norm, steps applied. Then each parameter has two bias corrections, the steps it took before
/// this one and its steps: a frozen one takes none. All zero at the start.
pub const SCALARS: usize = 8;

/// Most workgroups of [`norm`], and so the length of its result in pairs.
pub const PARTIALS: usize = 1024;

/// The gradients' sum of squares and number of elements that are not finite, in parts: pairs of floats, at most
/// [`PARTIALS`]. Frozen parameters do not count. Returns how many there are.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn norm(gpu: &Gpu, flat: Flat, partials: &Storage) -> Result<usize> {
    let n4 = flat.n / 4;
    // Eight vec4s an invocation, more where that would be too many workgroups.
    let run4 = n4.div_ceil(PARTIALS).max(2048).next_multiple_of(16);
    let groups = n4.div_ceil(run4);
    let params = n::NormParams { n4: n4 as u32, run4: run4 as u32 };
    gpu.dispatch(&n::NORM_PARTIAL, [flat.grads, flat.owners, flat.rows], [partials], params, [groups as u32, 1, 1])?;
    Ok(groups)
}

/// Sets the scalars of the next step from the parts of a norm (`count` may be 0): the scale that brings the norm under
/// `max_norm`, the bias corrections of the two `betas` for each of the `tensors` parameters, and with `skip` whether the
/// step is skipped because an element is not finite.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn prepare(
    gpu: &Gpu,
    (partials, count): (&Storage, usize),
    flat: Flat,
    tensors: usize,
    max_norm: Option<f32>,
    skip: bool,
    betas: [f32; 2],
) -> Result<()> {
    let params = n::PrepareParams {
        partials: count as u32,
        flags: u32::from(max_norm.is_some()) + 2 * u32::from(skip),
        max_norm: max_norm.unwrap_or(0.0),
        beta1: betas[0],
        beta2: betas[1],
        one_beta1: one_less(betas[0]),
        one_beta2: one_less(betas[1]),
        tensors: tensors as u32,
    };
    gpu.dispatch(&n::PREPARE, [partials, flat.rows], [flat.scalars], params, [1, 1, 1])
}

/// `1 - beta` of the decimal number that `beta` stands for: in single precision alone it would lose digits.
fn one_less(beta: f32) -> f32 {
    let decimal: f64 = beta.to_string().parse().unwrap_or(f64::from(beta));
    (1.0 - decimal) as f32
}

/// The rules of [`step`], with the moments that each keeps.
#[derive(Clone, Copy)]
pub enum Rule<'a> {
    /// Gradient descent.
    Sgd,
    /// With momentum.
    Momentum(&'a Storage),
    /// Adam, or AdamW with the flag [`DECOUPLED`].
    Adam(&'a Storage, &'a Storage),
    /// Adam by the largest second moment so far, which is the third.
    AmsGrad(&'a Storage, &'a Storage, &'a Storage),
    /// RMSprop; the first is momentum, used with the flag [`HAS_MOMENTUM`].
    RmsProp(&'a Storage, &'a Storage),
    /// LAMB after [`measure`], which updates the moments.
    Lamb(&'a Storage, &'a Storage),
    /// LARS after [`measure`].
    Lars(&'a Storage),
}

/// Nesterov's momentum.
pub const NESTEROV: u32 = 1;
/// Weight decay apart from the gradient.
pub const DECOUPLED: u32 = 2;
/// RMSprop with momentum.
pub const HAS_MOMENTUM: u32 = 4;
/// Clip gradients to `-clip..=clip`.
pub const CLIP: u32 = 8;

/// The numbers of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hyper {
    /// Sum of the flags above.
    pub flags: u32,
    /// Learning rate.
    pub lr: f32,
    /// Weight decay.
    pub decay: f32,
    /// Largest gradient element, with [`CLIP`].
    pub clip: f32,
    /// Added to denominators.
    pub eps: f32,
    /// Decays of the moments.
    pub betas: [f32; 2],
    /// SGD: part of the gradient that momentum leaves out.
    pub dampening: Option<f32>,
    /// LARS: trust coefficient.
    pub eta: f32,
}

fn step_params(n: usize, gx: u32, h: Hyper) -> s::StepParams {
    s::StepParams {
        n4: (n / 4) as u32,
        gx,
        flags: h.flags,
        lr: h.lr,
        decay: h.decay,
        clip: h.clip,
        eps: h.eps,
        beta1: h.betas[0],
        beta2: h.betas[1],
        one_beta1: one_less(h.dampening.unwrap_or(h.betas[0])),
        one_beta2: one_less(h.betas[1]),
        ..Default::default()
    }
}

/// Sets the trust ratios in the rows: LAMB's `|x| / |step|` (updating the moments first) or LARS's
/// `eta |x| / (|grad| + decay |x| + eps)`; 1 where a norm is 0 or the parameter is not adapted. `sums` holds two floats
/// a block, `spans` the first block and number of blocks of each of `tensors` parameters.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn measure(
    gpu: &Gpu,
    rule: Rule,
    flat: Flat,
    h: Hyper,
    sums: &Storage,
    (spans, tensors): (&Storage, usize),
) -> Result<()> {
    let (grid, gx) = gpu.grid((flat.n as u64).div_ceil(4 * GROUP))?;
    let params = step_params(flat.n, gx, h);
    let reads = [flat.grads, flat.owners, flat.rows, flat.scalars, flat.values];
    let kernel = match rule {
        Rule::Lamb(m, v) => {
            gpu.dispatch(&s::MEASURE_LAMB, reads, [sums, m, v], params, grid)?;
            &n::TRUST_LAMB
        }
        Rule::Lars(_) => {
            gpu.dispatch(&s::MEASURE_LARS, reads, [sums], params, grid)?;
            &n::TRUST_LARS
        }
        _ => return Ok(()),
    };
    let trust = n::TrustParams { eta: h.eta, decay: h.decay, eps: h.eps, ..Default::default() };
    gpu.dispatch(kernel, [spans, sums], [flat.rows], trust, [tensors as u32, 1, 1])
}

/// One step in place, after [`prepare`] (and [`measure`] for the two that adapt).
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn step(gpu: &Gpu, rule: Rule, flat: Flat, h: Hyper) -> Result<()> {
    let (grid, gx) = gpu.grid((flat.n as u64).div_ceil(4 * GROUP))?;
    let p = step_params(flat.n, gx, h);
    let (reads, x) = ([flat.grads, flat.owners, flat.rows, flat.scalars], flat.values);
    match rule {
        Rule::Sgd => gpu.dispatch(&s::STEP_SGD, reads, [x], p, grid),
        Rule::Momentum(m) => gpu.dispatch(&s::STEP_MOMENTUM, reads, [x, m], p, grid),
        Rule::Adam(m, v) => gpu.dispatch(&s::STEP_ADAM, reads, [x, m, v], p, grid),
        Rule::AmsGrad(m, v, top) => gpu.dispatch(&s::STEP_AMSGRAD, reads, [x, m, v, top], p, grid),
        Rule::RmsProp(m, v) => gpu.dispatch(&s::STEP_RMSPROP, reads, [x, m, v], p, grid),
        Rule::Lamb(m, v) => gpu.dispatch(&s::STEP_LAMB, reads, [x, m, v], p, grid),
        Rule::Lars(m) => gpu.dispatch(&s::STEP_LARS, reads, [x, m], p, grid),
    }
}
