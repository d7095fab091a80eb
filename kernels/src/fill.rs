//! Constants and ranges.

use shadegrad_shaders::fill as k;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Invocations of one workgroup in `fill.wgsl`, four elements each.
const GROUP: u64 = 256 * 4;

/// Sets `n` floats to `value`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc(4 * 3, "x")?;
/// fill::f32(&gpu, &x, 3, 0.5)?;
/// assert_eq!(gpu.read_as::<f32>(&x)?, [0.5, 0.5, 0.5]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn f32(gpu: &Gpu, to: &Storage, n: usize, value: f32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let params = k::FillF32Params { n4: n.div_ceil(4) as u32, gx, value, ..Default::default() };
    gpu.dispatch(&k::FILL_F32, [], [to], params, grid)
}

/// Sets `n` words to `value`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc(4 * 3, "x")?;
/// fill::u32(&gpu, &x, 3, 7)?;
/// assert_eq!(gpu.read_as::<u32>(&x)?, [7, 7, 7]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn u32(gpu: &Gpu, to: &Storage, n: usize, value: u32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let params = k::FillU32Params { n4: n.div_ceil(4) as u32, gx, value, ..Default::default() };
    gpu.dispatch(&k::FILL_U32, [], [to], params, grid)
}

/// Sets element `i` of `n` to `start + i * step`, wrapping.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc(4 * 4, "x")?;
/// fill::arange(&gpu, &x, 4, 10, 2)?;
/// assert_eq!(gpu.read_as::<u32>(&x)?, [10, 12, 14, 16]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn arange(gpu: &Gpu, to: &Storage, n: usize, start: u32, step: u32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let params = k::ArangeParams { n4: n.div_ceil(4) as u32, gx, start, step };
    gpu.dispatch(&k::FILL_ARANGE, [], [to], params, grid)
}
