//! Over the flat buffers of an arena, in place: gradient accumulation, masks, averages, norms and optimiser steps.

use shadegrad_shaders::optim as k;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Floats of one workgroup: 256 invocations, a `vec4` each.
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
