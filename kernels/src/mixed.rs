//! Mixed precision over an arena: values as halves, and the factor of the loss, which never leaves the device.

use shadegrad_shaders::mixed as k;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Floats of the state that [`unscale`] reads and [`rescale`] changes: factor, its reciprocal, good steps since it last
/// changed, steps left out.
pub const STATE: usize = 4;

/// The values of an arena as halves, in one dispatch: those of a parameter begin in `to` at the byte at which its floats
/// begin in `values`. `owners` names the parameter of each block of 64 floats, `firsts` the first block of each
/// parameter; `n` floats (a multiple of 64), `to` has as many bytes.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn halves(gpu: &Gpu, values: &Storage, owners: &Storage, firsts: &Storage, to: &Storage, n: usize) -> Result<()> {
    let n4 = n as u64 / 4;
    let (grid, gx) = gpu.grid(n4.div_ceil(256))?;
    gpu.dispatch(&k::HALVES, [values, owners, firsts], [to], k::HalvesParams { n4: n4 as u32, gx }, grid)
}

/// Divides `n` gradients (a multiple of four) by the factor, in place.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn unscale(gpu: &Gpu, state: &Storage, grads: &Storage, n: usize) -> Result<()> {
    let n4 = n as u64 / 4;
    let (grid, gx) = gpu.grid(n4.div_ceil(256))?;
    gpu.dispatch(&k::UNSCALE, [state], [grads], k::UnscaleParams { n4: n4 as u32, gx }, grid)
}

/// The factor of the next step: halved where the scalars (see [`crate::optim::prepare`]) say that this one was left out,
/// doubled after `patience` good ones in a row; it stays within `range`.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn rescale(gpu: &Gpu, scalars: &Storage, state: &Storage, patience: u32, range: [f32; 2]) -> Result<()> {
    let [least, most] = range;
    let params = k::RescaleParams { patience: patience as f32, least, most, ..Default::default() };
    gpu.dispatch(&k::RESCALE, [scalars], [state], params, [1, 1, 1])
}
