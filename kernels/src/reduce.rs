//! Reductions of `[outer][len][inner]` over the middle.

use shadegrad_shaders::reduce as k;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// `y[o][i] = sum_l x[o][l][i]`.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn sum(gpu: &Gpu, x: &Storage, y: &Storage, outer: usize, len: usize, inner: usize) -> Result<()> {
    let (grid, gx) = gpu.grid(((outer * inner) as u64).div_ceil(256))?;
    let params = k::ReduceParams { outer: outer as u32, len: len as u32, inner: inner as u32, gx };
    gpu.dispatch(&k::REDUCE_SUM, [x], [y], params, grid)
}
