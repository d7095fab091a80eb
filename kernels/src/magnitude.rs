//! The elements of largest magnitude of a whole tensor.

use shadegrad_shaders::magnitude as k;
use shadegrad_shaders::magnitude::{MagnitudeParams, MagnitudeRunParams};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Invocations of one workgroup, and values of eight bits.
const GROUP: usize = 256;
/// Most workgroups that count, and fewest elements of each.
const SHARES: usize = 256;
const SHARE: usize = 2048;
/// Most runs, and fewest elements of each.
const RUNS: usize = 1 << 16;
const RUN: usize = 16;

/// The `count` of `n` floats that are largest in magnitude, in the order of their places, and the places. Of equal ones
/// those at the lowest places; NaN counts as the largest. `count` is neither 0 nor more than `n`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc_from(&[1.0f32, -5.0, 3.0, 0.5], "x")?;
/// let (values, places) = (gpu.alloc(8, "values")?, gpu.alloc(8, "places")?);
/// magnitude::largest(&gpu, &x, 4, 2, [&values, &places])?;
/// assert_eq!(gpu.read_as::<f32>(&values)?, [-5.0, 3.0]);
/// assert_eq!(gpu.read_as::<u32>(&places)?, [1, 2]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn largest(gpu: &Gpu, x: &Storage, n: usize, count: usize, [values, places]: [&Storage; 2]) -> Result<()> {
    let share = n.div_ceil(SHARES).max(SHARE);
    let shares = n.div_ceil(share);
    let found = gpu.alloc(8, "magnitude")?;
    let counts = gpu.alloc((4 * GROUP * shares) as u64, "magnitude")?;
    // The sign is the highest bit; the other 31 in four rounds.
    for (shift, bits) in [(23, 8), (15, 8), (7, 8), (0, 7)] {
        let rank = if shift == 23 { count as u32 } else { 0 };
        let params = MagnitudeParams { n: n as u32, share: share as u32, shares: shares as u32, shift, bits, rank };
        gpu.dispatch(&k::MAGNITUDE_COUNT, [x, &found], [&counts], params, [shares as u32, 1, 1])?;
        gpu.dispatch(&k::MAGNITUDE_NARROW, [&counts], [&found], params, [1, 1, 1])?;
    }
    let run = n.div_ceil(RUNS).max(RUN);
    let runs = n.div_ceil(run);
    let (grid, gx) = gpu.grid(runs.div_ceil(GROUP) as u64)?;
    let params = MagnitudeRunParams { n: n as u32, run: run as u32, runs: runs as u32, gx };
    let sums = gpu.alloc(8 * runs as u64, "magnitude")?;
    let offsets = gpu.alloc(8 * runs as u64, "magnitude")?;
    gpu.dispatch(&k::MAGNITUDE_RUNS, [x, &found], [&sums], params, grid)?;
    gpu.dispatch(&k::MAGNITUDE_OFFSETS, [&sums], [&offsets], params, [1, 1, 1])?;
    gpu.dispatch(&k::MAGNITUDE_TAKE, [x, &found, &offsets], [values, places], params, grid)
}
