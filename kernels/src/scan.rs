//! Running sums, sorting, and single elements picked by index, along the middle of `[outer][len][inner]`.

use shadegrad_shaders::pick::{self, PickParams};
use shadegrad_shaders::scan as k;
use shadegrad_shaders::scan::{ScanParams, SortKeysParams, SortStepParams, SortTakeParams};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Threads of a workgroup.
const GROUP: u64 = 256;
/// Neighbours that the sorting network orders in workgroup memory.
const BLOCK: usize = 1024;

/// Running sums of a lane.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::scan::{Direction, cumsum};
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0], "x")?, gpu.alloc(12, "y")?);
/// cumsum(&gpu, &x, &y, [1, 3, 1], Direction { reverse: true, exclusive: true })?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [5.0, 3.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// From the end to the start.
    pub reverse: bool,
    /// Without the element itself.
    pub exclusive: bool,
}

/// `y[o][l][i] = sum of x[o][..=l][i]`, or as `direction` says. Long lanes are cut into chunks whose totals are summed
/// first.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::scan::{Direction, cumsum};
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0, 10.0, 20.0, 30.0], "x")?, gpu.alloc(24, "y")?);
/// cumsum(&gpu, &x, &y, [2, 3, 1], Direction::default())?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, 3.0, 6.0, 10.0, 30.0, 60.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn cumsum(
    gpu: &Gpu,
    x: &Storage,
    y: &Storage,
    [outer, len, inner]: [usize; 3],
    direction: Direction,
) -> Result<()> {
    // Chunks near the root of the length keep both levels short.
    let chunk = len.isqrt().next_power_of_two().clamp(64, 1024);
    let chunks = len.div_ceil(chunk);
    let units = outer * chunks * inner;
    let (grid, gx) = gpu.grid((units as u64).div_ceil(GROUP))?;
    let params = ScanParams {
        units: units as u32,
        chunks: chunks as u32,
        chunk: chunk as u32,
        len: len as u32,
        inner: inner as u32,
        gx,
        reverse: direction.reverse.into(),
        exclusive: direction.exclusive.into(),
    };
    if chunks == 1 {
        return gpu.dispatch(&k::SCAN_SUMS_0, [x], [y], params, grid);
    }
    let bytes = 4 * units as u64;
    let (totals, offsets) = (gpu.alloc(bytes, "totals")?, gpu.alloc(bytes, "offsets")?);
    gpu.dispatch(&k::SCAN_TOTALS, [x], [&totals], params, grid)?;
    // The chunks are already in the order of the direction.
    cumsum(gpu, &totals, &offsets, [outer, chunks, inner], Direction { reverse: false, exclusive: true })?;
    gpu.dispatch(&k::SCAN_SUMS_1, [x, &offsets], [y], params, grid)
}

/// The first `count` of each lane in order, with their places in the lane; equal elements stay in their order, NaN counts
/// as the largest.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc_from(&[3.0f32, 1.0, 2.0], "x")?;
/// let (y, places) = (gpu.alloc(8, "y")?, gpu.alloc(8, "places")?);
/// scan::sort(&gpu, &x, [&y, &places], [1, 3, 1], 2, true)?; // the two largest
/// assert_eq!(gpu.read_as::<f32>(&y)?, [3.0, 2.0]);
/// assert_eq!(gpu.read_as::<u32>(&places)?, [0, 2]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn sort(
    gpu: &Gpu,
    x: &Storage,
    [y, places]: [&Storage; 2],
    [outer, len, inner]: [usize; 3],
    count: usize,
    descending: bool,
) -> Result<()> {
    let padded = len.next_power_of_two();
    let n = outer * inner * padded;
    let pairs = gpu.alloc(8 * n as u64, "sort pairs")?;
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let params = SortKeysParams {
        n: n as u32,
        padded: padded as u32,
        len: len as u32,
        inner: inner as u32,
        gx,
        descending: descending.into(),
    };
    gpu.dispatch(&k::SORT_KEYS, [x], [&pairs], params, grid)?;
    let local = |first: usize, last: usize| {
        let (grid, gx) = gpu.grid(n.div_ceil(BLOCK) as u64)?;
        let (n, padded, first, last) = (n as u32, padded as u32, first as u32, last as u32);
        gpu.dispatch(&k::SORT_LOCAL, [], [&pairs], SortStepParams { n, padded, first, last, gx }, grid)
    };
    if padded > 1 {
        local(2, padded.min(BLOCK))?;
    }
    let mut size = 2 * BLOCK;
    while size <= padded {
        let mut distance = size / 2;
        while distance >= BLOCK {
            let (grid, gx) = gpu.grid((n as u64 / 2).div_ceil(GROUP))?;
            let (n, padded, first, last) = (n as u32, padded as u32, size as u32, distance as u32);
            gpu.dispatch(&k::SORT_STEP, [], [&pairs], SortStepParams { n, padded, first, last, gx }, grid)?;
            distance /= 2;
        }
        local(size, size)?;
        size *= 2;
    }
    let n = outer * inner * count;
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let params = SortTakeParams {
        n: n as u32,
        padded: padded as u32,
        len: len as u32,
        inner: inner as u32,
        count: count as u32,
        gx,
    };
    gpu.dispatch(&k::SORT_TAKE, [x, &pairs], [y, places], params, grid)
}

fn pick_params(gpu: &Gpu, [outer, len, inner]: [usize; 3], count: usize) -> Result<(PickParams, [u32; 3])> {
    let n = outer * count * inner;
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    Ok((PickParams { n: n as u32, count: count as u32, len: len as u32, inner: inner as u32, gx }, grid))
}

/// `y[o][c][i] = x[o][places[o][c][i]][i]` for `count` places a lane.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc_from(&[10.0f32, 20.0, 30.0], "x")?;
/// let (places, y) = (gpu.alloc_from(&[2u32, 0], "places")?, gpu.alloc(8, "y")?);
/// scan::take(&gpu, &x, &places, &y, [1, 3, 1], 2)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [30.0, 10.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn take(gpu: &Gpu, x: &Storage, places: &Storage, y: &Storage, dims: [usize; 3], count: usize) -> Result<()> {
    let (params, grid) = pick_params(gpu, dims, count)?;
    gpu.dispatch(&pick::PICK_TAKE, [x, places], [y], params, grid)
}

/// `x[o][places[o][c][i]][i] = y[o][c][i]`, the other elements 0; no place may come twice in a lane.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let y = gpu.alloc_from(&[5.0f32, 6.0], "y")?;
/// let (places, x) = (gpu.alloc_from(&[2u32, 0], "places")?, gpu.alloc(12, "x")?);
/// scan::put(&gpu, &y, &places, &x, [1, 3, 1], 2)?;
/// assert_eq!(gpu.read_as::<f32>(&x)?, [6.0, 0.0, 5.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn put(gpu: &Gpu, y: &Storage, places: &Storage, x: &Storage, dims: [usize; 3], count: usize) -> Result<()> {
    let (params, grid) = pick_params(gpu, dims, count)?;
    crate::fill::f32(gpu, x, dims.iter().product(), 0.0)?;
    gpu.dispatch(&pick::PICK_PUT, [y, places], [x], params, grid)
}
