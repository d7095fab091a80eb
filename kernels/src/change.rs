//! How far parameters of an arena moved, relative to their size.

use shadegrad_shaders::change::{self as k, ChangeParams};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Invocations of one workgroup, a block of 64 floats each.
const GROUP: u64 = 256;

/// Copies the blocks at `places` (numbers of blocks of 64 floats) of `values` one after the other to `before`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // Of an arena of two blocks of 64 floats, the second.
/// let values = gpu.alloc_from(&[[1.0f32; 64], [2.0; 64]], "values")?;
/// let places = gpu.alloc_from(&[1u32], "places")?;
/// let before = gpu.alloc(4 * 64, "before")?;
/// change::keep(&gpu, (&places, 1), &values, &before)?;
/// assert_eq!(gpu.read_as::<f32>(&before)?, [2.0; 64]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn keep(gpu: &Gpu, (places, blocks): (&Storage, usize), values: &Storage, before: &Storage) -> Result<()> {
    let (grid, gx) = gpu.grid((blocks as u64).div_ceil(GROUP))?;
    let params = ChangeParams { blocks: blocks as u32, gx, ..Default::default() };
    gpu.dispatch(&k::CHANGE_KEEP, [places, values], [before], params, grid)
}

/// The mean of `|before - now| / max(|before|, least)` over each of the `tensors` whose spans are given (first block in
/// `before`, blocks, floats, unused), one float each.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // One tensor of 64 floats, in block 0 of the arena and of what was kept: from 2 to 3.
/// let (before, now) = (gpu.alloc_from(&[2.0f32; 64], "before")?, gpu.alloc_from(&[3.0f32; 64], "now")?);
/// let places = gpu.alloc_from(&[0u32], "places")?;
/// let (spans, mean) = (gpu.alloc_from(&[[0u32, 1, 64, 0]], "spans")?, gpu.alloc(4, "mean")?);
/// change::mean(&gpu, (&places, 1), (&now, &before), (&spans, 1), 1e-6, &mean)?;
/// assert_eq!(gpu.read_as::<f32>(&mean)?, [0.5]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn mean(
    gpu: &Gpu,
    (places, blocks): (&Storage, usize),
    (values, before): (&Storage, &Storage),
    (spans, tensors): (&Storage, usize),
    least: f32,
    mean: &Storage,
) -> Result<()> {
    let (grid, gx) = gpu.grid((blocks as u64).div_ceil(GROUP))?;
    let params = ChangeParams { blocks: blocks as u32, gx, least, ..Default::default() };
    let sums = gpu.alloc(4 * blocks as u64, "change")?;
    gpu.dispatch(&k::CHANGE_SUMS, [places, values, before], [&sums], params, grid)?;
    gpu.dispatch(&k::CHANGE_MEAN, [spans, &sums], [mean], params, [tensors as u32, 1, 1])
}
