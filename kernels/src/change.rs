//! How far parameters of an arena moved, relative to their size.

use shadegrad_shaders::change::{self as k, ChangeParams};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Invocations of one workgroup, a block of 64 floats each.
const GROUP: u64 = 256;

/// Copies the blocks at `places` (numbers of blocks of 64 floats) of `values` one after the other to `before`.
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
