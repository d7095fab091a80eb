//! Mixed precision over an arena: values as halves, and the factor of the loss, which never leaves the device.

use shadegrad_shaders::mixed as k;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Floats of the state that [`unscale`] reads and [`rescale`] changes: factor, its reciprocal, good steps since it last
/// changed, steps left out.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let state = gpu.alloc_from(&[1024.0f32, 1.0 / 1024.0, 0.0, 0.0], "state")?;
/// assert_eq!(state.bytes(), 4 * mixed::STATE as u64);
/// # Ok::<(), GpuError>(())
/// ```
pub const STATE: usize = 4;

/// The values of an arena as halves, in one dispatch: those of a parameter begin in `to` at the byte at which its floats
/// begin in `values`. `owners` names the parameter of each block of 64 floats, `firsts` the first block of each
/// parameter; `n` floats (a multiple of 64), `to` has as many bytes.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // An arena of one parameter of 64 floats: block 0 is the parameter's, and its first.
/// let values = gpu.alloc_from(&[1.0f32; 64], "values")?;
/// let (owners, firsts) = (gpu.alloc_from(&[0u32], "owners")?, gpu.alloc_from(&[0u32], "firsts")?);
/// let to = gpu.alloc(4 * 64, "halves")?;
/// mixed::halves(&gpu, &values, &owners, &firsts, &to, 64)?;
/// assert_eq!(gpu.read_as::<u16>(&to)?[..64], [0x3c00; 64]);
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let state = gpu.alloc_from(&[4.0f32, 0.25, 0.0, 0.0], "state")?; // the loss was multiplied by 4
/// let grads = gpu.alloc_from(&[8.0f32, 4.0, 0.0, -4.0], "grads")?;
/// mixed::unscale(&gpu, &state, &grads, 4)?;
/// assert_eq!(gpu.read_as::<f32>(&grads)?, [2.0, 1.0, 0.0, -1.0]);
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let state = gpu.alloc_from(&[1024.0f32, 1.0 / 1024.0, 3.0, 0.0], "state")?;
/// let scalars = gpu.alloc_from(&[0.0f32; optim::SCALARS], "scalars")?; // element 1: the step was left out
/// mixed::rescale(&gpu, &scalars, &state, 2000, [1.0, 65536.0])?;
/// assert_eq!(gpu.read_as::<f32>(&state)?, [512.0, 1.0 / 512.0, 0.0, 1.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn rescale(gpu: &Gpu, scalars: &Storage, state: &Storage, patience: u32, range: [f32; 2]) -> Result<()> {
    let [least, most] = range;
    let params = k::RescaleParams { patience: patience as f32, least, most, ..Default::default() };
    gpu.dispatch(&k::RESCALE, [scalars], [state], params, [1, 1, 1])
}
