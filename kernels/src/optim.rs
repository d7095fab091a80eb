//! Over the flat buffers of an arena, in place: gradient accumulation, masks, averages, norms and optimiser steps.

use shadegrad_shaders::{collect as c, optim as k, optim_norm as n, optim_step as s};

use crate::memory::Storage;
use crate::{Class, Gpu, GpuError, Result};

/// Floats of one workgroup: 256 invocations, a `vec4` each ([`step`] and [`measure`]: four).
const GROUP: u64 = 1024;

/// `to[i] += scale * from[i]` for the first `n` floats; what lies behind stays as it is.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (from, to) = (gpu.alloc_from(&[1.0f32, 2.0], "from")?, gpu.alloc_from(&[10.0f32, 10.0, 10.0], "to")?);
/// optim::accumulate(&gpu, &from, &to, 2, 0.5)?;
/// assert_eq!(gpu.read_as::<f32>(&to)?, [10.5, 11.0, 10.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn accumulate(gpu: &Gpu, from: &Storage, to: &Storage, n: usize, scale: f32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    gpu.dispatch(&k::ACCUMULATE, [from], [to], k::FlatParams { n: n as u32, gx, scale, ..Default::default() }, grid)
}

/// Arrays that one dispatch of [`collect`] takes.
pub const PARTS: usize = 7;

/// Floats up to which [`collect`] beats a copy command for an array of that length on this device.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// assert!(optim::worth_collecting(&gpu) >= 1024);
/// # Ok::<(), GpuError>(())
/// ```
pub fn worth_collecting(gpu: &Gpu) -> usize {
    match gpu.caps().class {
        // Software drivers run every branch of the kernel for all its lanes.
        Class::Software => 1 << 10,
        _ => 1 << 16,
    }
}

/// Copies each of `parts`, `(from, floats, place)`, to float `place` of `to`, which is a multiple of four; zeros follow up to
/// the next multiple of four. `to` must not share a buffer with a part.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (a, b, flat) = (gpu.alloc(12, "a")?, gpu.alloc(4, "b")?, gpu.alloc(32, "flat")?);
/// fill::f32(&gpu, &a, 3, 1.0)?;
/// fill::f32(&gpu, &b, 1, 2.0)?;
/// optim::collect(&gpu, &[(&a, 3, 0), (&b, 1, 4)], &flat)?;
/// assert_eq!(gpu.read(&flat)?, [1.0f32, 1.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0].map(f32::to_le_bytes).concat());
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// If a part is longer than its storage or reaches past the end of `to`, or as [`Gpu::dispatch`].
pub fn collect(gpu: &Gpu, parts: &[(&Storage, usize, usize)], to: &Storage) -> Result<()> {
    for parts in parts.chunks(PARTS) {
        let mut from = [parts[0].0; PARTS];
        // As the kernel's parameters lie: two words for all, three for each part.
        let mut words = [0u32; 2 + 3 * PARTS];
        let mut end = 0;
        for (i, part) in (0..PARTS).zip(parts.iter().map(Some).chain(std::iter::repeat(None))) {
            let (storage, len, place) = part.copied().unwrap_or((from[0], 0, 0));
            let fits = (len * 4) as u64 <= storage.bytes() && ((place + len) * 4) as u64 <= to.bytes();
            if !fits || !place.is_multiple_of(4) || place + len > u32::MAX as usize {
                return Err(GpuError::Dispatch {
                    kernel: "collect".into(),
                    reason: format!(
                        "{len} floats of {storage:?} to float {place} of {to:?}: give a range that fits both"
                    ),
                });
            }
            from[i] = storage;
            end += len.div_ceil(4);
            words[2 + 3 * i..][..3].copy_from_slice(&[end as u32, len as u32, (place / 4) as u32]);
        }
        let (grid, gx) = gpu.grid((end as u64).div_ceil(64))?;
        words[..2].copy_from_slice(&[end as u32, gx]);
        gpu.dispatch(&c::COLLECT, from, [to], bytemuck::cast::<_, c::CollectParams>(words), grid)?;
    }
    Ok(())
}

/// `to[i] *= mask[i]`; 0 where the mask is 0, whatever was there. `n` is a multiple of four.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mask = gpu.alloc_from(&[1.0f32, 0.0, 1.0, 0.0], "mask")?;
/// let to = gpu.alloc_from(&[5.0f32, 6.0, 7.0, f32::NAN], "to")?;
/// optim::mask(&gpu, &mask, &to, 4)?;
/// assert_eq!(gpu.read_as::<f32>(&to)?, [5.0, 0.0, 7.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn mask(gpu: &Gpu, mask: &Storage, to: &Storage, n: usize) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    gpu.dispatch(&k::MASK, [mask], [to], k::FlatParams { n: n as u32, gx, ..Default::default() }, grid)
}

/// `average[i] += (1 - decay) * (x[i] - average[i])`. `n` is a multiple of four.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (x, average) = (gpu.alloc_from(&[4.0f32; 4], "x")?, gpu.alloc_from(&[0.0f32; 4], "average")?);
/// optim::ema(&gpu, &x, &average, 4, 0.75)?;
/// optim::ema(&gpu, &x, &average, 4, 0.75)?;
/// assert_eq!(gpu.read_as::<f32>(&average)?, [1.75; 4]); // 1, then 1 + 3 / 4
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn ema(gpu: &Gpu, x: &Storage, average: &Storage, n: usize, decay: f32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let params = k::FlatParams { n: n as u32, gx, scale: (1.0 - f64::from(decay)) as f32, ..Default::default() };
    gpu.dispatch(&k::EMA, [x], [average], params, grid)
}

/// What a step reads and writes, over `n` floats (a multiple of 64): the flat buffers of an arena and its tables.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // One parameter of 64 floats, trained.
/// let (values, grads) = (gpu.alloc_from(&[0.0f32; 64], "values")?, gpu.alloc_from(&[1.0f32; 64], "grads")?);
/// let owners = gpu.alloc_from(&[0u32], "owners")?; // the only block is the first parameter's
/// let rows = gpu.alloc_from(&[[1.0f32, 1.0, 1.0, 1.0]], "rows")?;
/// let scalars = gpu.alloc_from(&[0.0f32; optim::SCALARS + 4], "scalars")?;
/// let flat = optim::Flat { grads: &grads, owners: &owners, rows: &rows, scalars: &scalars, values: &values, n: 64 };
/// # let partials = gpu.alloc(16, "partials")?;
/// optim::prepare(&gpu, (&partials, 0), flat, 1, None, false, [0.0; 2])?; // no norm was taken
/// optim::step(&gpu, optim::Rule::Sgd, flat, optim::Hyper { lr: 0.5, ..Default::default() })?;
/// assert_eq!(gpu.read_as::<f32>(&values)?, [-0.5; 64]);
/// # Ok::<(), GpuError>(())
/// ```
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
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // The scalars of an optimiser over three parameters.
/// let scalars = gpu.alloc_from(&vec![0.0f32; optim::SCALARS + 4 * 3], "scalars")?;
/// assert_eq!(scalars.bytes(), 4 * 20);
/// # Ok::<(), GpuError>(())
/// ```
pub const SCALARS: usize = 8;

/// Most workgroups of [`norm`], and so the length of its result in pairs.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let partials = gpu.alloc(8 * optim::PARTIALS as u64, "partials")?; // room for any number of floats
/// # assert_eq!(partials.bytes(), 8192);
/// # Ok::<(), GpuError>(())
/// ```
pub const PARTIALS: usize = 1024;

/// The gradients' sum of squares and number of elements that are not finite, in parts: pairs of floats, at most
/// [`PARTIALS`]. Frozen parameters do not count. Returns how many there are.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let (values, grads) = (gpu.alloc_from(&[0.0f32; 64], "values")?, gpu.alloc_from(&[1.0f32; 64], "grads")?);
/// # let owners = gpu.alloc_from(&[0u32], "owners")?;
/// # let rows = gpu.alloc_from(&[[1.0f32, 1.0, 1.0, 1.0]], "rows")?;
/// # let scalars = gpu.alloc_from(&[0.0f32; optim::SCALARS + 4], "scalars")?;
/// # let flat = optim::Flat { grads: &grads, owners: &owners, rows: &rows, scalars: &scalars, values: &values, n: 64 };
/// let partials = gpu.alloc(8 * optim::PARTIALS as u64, "partials")?;
/// assert_eq!(optim::norm(&gpu, flat, &partials)?, 1); // the 64 gradients are 1
/// assert_eq!(gpu.read_as::<[f32; 2]>(&partials)?[0], [64.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let (values, grads) = (gpu.alloc_from(&[0.0f32; 64], "values")?, gpu.alloc_from(&[1.0f32; 64], "grads")?);
/// # let owners = gpu.alloc_from(&[0u32], "owners")?;
/// # let rows = gpu.alloc_from(&[[1.0f32, 1.0, 1.0, 1.0]], "rows")?;
/// # let scalars = gpu.alloc_from(&[0.0f32; optim::SCALARS + 4], "scalars")?;
/// # let flat = optim::Flat { grads: &grads, owners: &owners, rows: &rows, scalars: &scalars, values: &values, n: 64 };
/// let partials = gpu.alloc_from(&[[64.0f32, 0.0]], "partials")?; // a norm of 8
/// optim::prepare(&gpu, (&partials, 1), flat, 1, Some(4.0), true, [0.5, 0.75])?;
/// let scalars = gpu.read_as::<f32>(flat.scalars)?;
/// assert!((scalars[0] - 0.5).abs() < 1e-6); // brings it to 4
/// assert_eq!(scalars[6..], [8.0, 1.0, 0.5, 0.25, 0.0, 1.0]); // norm, steps; corrections, steps before, steps
/// # Ok::<(), GpuError>(())
/// ```
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
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let (values, grads) = (gpu.alloc_from(&[0.0f32; 64], "values")?, gpu.alloc_from(&[1.0f32; 64], "grads")?);
/// # let owners = gpu.alloc_from(&[0u32], "owners")?;
/// # let rows = gpu.alloc_from(&[[1.0f32, 1.0, 1.0, 1.0]], "rows")?;
/// # let scalars = gpu.alloc_from(&[0.0f32; optim::SCALARS + 4], "scalars")?;
/// # let flat = optim::Flat { grads: &grads, owners: &owners, rows: &rows, scalars: &scalars, values: &values, n: 64 };
/// # let partials = gpu.alloc(16, "partials")?;
/// use shadegrad_kernels::optim::{Hyper, Rule, prepare, step};
/// let momentum = gpu.alloc_from(&[0.0f32; 64], "momentum")?;
/// let hyper = Hyper { lr: 1.0, betas: [0.5, 0.0], dampening: Some(0.0), ..Hyper::default() };
/// for values in [-1.0, -2.5] {
///     prepare(&gpu, (&partials, 0), flat, 1, None, false, hyper.betas)?;
///     step(&gpu, Rule::Momentum(&momentum), flat, hyper)?; // the gradients are 1
///     assert_eq!(gpu.read_as::<f32>(flat.values)?, [values; 64]);
/// }
/// # Ok::<(), GpuError>(())
/// ```
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
///
/// ```
/// # use shadegrad_kernels::*;
/// use shadegrad_kernels::optim::{CLIP, Hyper, NESTEROV};
/// let hyper = Hyper { flags: NESTEROV | CLIP, lr: 0.1, clip: 1.0, betas: [0.9, 0.0], ..Hyper::default() };
/// assert_eq!(hyper.flags, 1 + 8);
/// ```
pub const NESTEROV: u32 = 1;
/// Weight decay apart from the gradient.
///
/// ```
/// # use shadegrad_kernels::*;
/// let adam_w = optim::Hyper { flags: optim::DECOUPLED, decay: 0.01, ..Default::default() };
/// assert_eq!(adam_w.flags, 2);
/// ```
pub const DECOUPLED: u32 = 2;
/// RMSprop with momentum.
///
/// ```
/// # use shadegrad_kernels::*;
/// let rmsprop = optim::Hyper { flags: optim::HAS_MOMENTUM, betas: [0.9, 0.99], ..Default::default() };
/// assert_eq!(rmsprop.flags, 4);
/// ```
pub const HAS_MOMENTUM: u32 = 4;
/// Clip gradients to `-clip..=clip`.
///
/// ```
/// # use shadegrad_kernels::*;
/// let clipped = optim::Hyper { flags: optim::CLIP, clip: 1.0, ..Default::default() };
/// assert_eq!(clipped.flags, 8);
/// ```
pub const CLIP: u32 = 8;

/// The numbers of a step.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let (values, grads) = (gpu.alloc_from(&[0.0f32; 64], "values")?, gpu.alloc_from(&[1.0f32; 64], "grads")?);
/// # let owners = gpu.alloc_from(&[0u32], "owners")?;
/// # let rows = gpu.alloc_from(&[[1.0f32, 1.0, 1.0, 1.0]], "rows")?;
/// # let scalars = gpu.alloc_from(&[0.0f32; optim::SCALARS + 4], "scalars")?;
/// # let flat = optim::Flat { grads: &grads, owners: &owners, rows: &rows, scalars: &scalars, values: &values, n: 64 };
/// # let partials = gpu.alloc(16, "partials")?;
/// use shadegrad_kernels::optim::{CLIP, Hyper, Rule, prepare, step};
/// let hyper = Hyper { lr: 0.5, flags: CLIP, clip: 0.25, ..Hyper::default() };
/// prepare(&gpu, (&partials, 0), flat, 1, None, false, hyper.betas)?;
/// step(&gpu, Rule::Sgd, flat, hyper)?; // gradients of 1 become 0.25
/// assert_eq!(gpu.read_as::<f32>(flat.values)?, [-0.125; 64]);
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let (values, grads) = (gpu.alloc_from(&[2.0f32; 64], "values")?, gpu.alloc_from(&[1.0f32; 64], "grads")?);
/// # let owners = gpu.alloc_from(&[0u32], "owners")?;
/// # let rows = gpu.alloc_from(&[[1.0f32, 1.0, 2.0, 1.0]], "rows")?;
/// # let scalars = gpu.alloc_from(&[0.0f32; optim::SCALARS + 4], "scalars")?;
/// # let flat = optim::Flat { grads: &grads, owners: &owners, rows: &rows, scalars: &scalars, values: &values, n: 64 };
/// # let partials = gpu.alloc(16, "partials")?;
/// use shadegrad_kernels::optim::{Hyper, Rule, measure, prepare};
/// // One parameter, adapted: 64 values of 2, gradients of 1.
/// let momentum = gpu.alloc_from(&[0.0f32; 64], "momentum")?;
/// let hyper = Hyper { eta: 0.25, ..Hyper::default() };
/// prepare(&gpu, (&partials, 0), flat, 1, None, false, hyper.betas)?;
/// let (sums, spans) = (gpu.alloc(8, "sums")?, gpu.alloc_from(&[[0u32, 1]], "spans")?);
/// measure(&gpu, Rule::Lars(&momentum), flat, hyper, &sums, (&spans, 1))?;
/// assert_eq!(gpu.read_as::<[f32; 4]>(flat.rows)?[0][3], 0.5); // 0.25 * 16 / 8
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let (values, grads) = (gpu.alloc_from(&[0.0f32; 64], "values")?, gpu.alloc_from(&[1.0f32; 64], "grads")?);
/// # let owners = gpu.alloc_from(&[0u32], "owners")?;
/// # let rows = gpu.alloc_from(&[[1.0f32, 1.0, 1.0, 1.0]], "rows")?;
/// # let scalars = gpu.alloc_from(&[0.0f32; optim::SCALARS + 4], "scalars")?;
/// # let flat = optim::Flat { grads: &grads, owners: &owners, rows: &rows, scalars: &scalars, values: &values, n: 64 };
/// # let partials = gpu.alloc(16, "partials")?;
/// use shadegrad_kernels::optim::{DECOUPLED, Hyper, Rule, prepare, step};
/// let (m, v) = (gpu.alloc_from(&[0.0f32; 64], "m")?, gpu.alloc_from(&[0.0f32; 64], "v")?);
/// let hyper = Hyper { flags: DECOUPLED, lr: 0.5, eps: 1e-8, betas: [0.9, 0.999], ..Hyper::default() };
/// prepare(&gpu, (&partials, 0), flat, 1, None, false, hyper.betas)?;
/// step(&gpu, Rule::Adam(&m, &v), flat, hyper)?;
/// // Adam's first step is the rate, whatever the gradient's size.
/// assert!(gpu.read_as::<f32>(flat.values)?.iter().all(|x| (x + 0.5).abs() < 1e-5));
/// # Ok::<(), GpuError>(())
/// ```
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
