//! Linear layers whose weights are sparse: work and memory grow with the number of weights that exist.

use shadegrad_shaders::sparse as k;

use crate::index::{self, Dim};
use crate::memory::Storage;
use crate::{Class, Gpu, Result};

/// The entries of a sparse matrix row by row, each row by rising column.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // [[0, 2, 0], [3, 0, 4]] by rows: the first row has entry 0, the second entries 1 and 2.
/// let start = gpu.alloc_from(&[0u32, 1, 3], "start")?;
/// let column = gpu.alloc_from(&[1u32, 0, 2], "column")?;
/// let entries = sparse::Entries { start: &start, column: &column, via: None };
/// let value = gpu.alloc_from(&[2.0f32, 3.0, 4.0], "value")?;
/// # let (x, y) = (gpu.alloc_from(&[1.0f32, 10.0, 100.0], "x")?, gpu.alloc(8, "y")?);
/// # let sizes = sparse::Sizes { batch: 1, inputs: 3, outputs: 2, entries: 3 };
/// sparse::apply(&gpu, &sizes, entries, &x, &value, None, &y)?; // to one sample, 1, 10, 100
/// assert_eq!(gpu.read_as::<f32>(&y)?, [20.0, 403.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    /// The first entry of every row; at the end the number of entries.
    pub start: &'a Storage,
    /// The column of each entry.
    pub column: &'a Storage,
    /// Where the value of each entry stands; at the entry's own place if `None`.
    pub via: Option<&'a Storage>,
}

/// Sizes of a product.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let sizes = sparse::Sizes { batch: 1, inputs: 2, outputs: 2, entries: 2 }; // a permutation
/// let (start, column) = (gpu.alloc_from(&[0u32, 1, 2], "start")?, gpu.alloc_from(&[1u32, 0], "column")?);
/// let entries = sparse::Entries { start: &start, column: &column, via: None };
/// let (x, value) = (gpu.alloc_from(&[7.0f32, 8.0], "x")?, gpu.alloc_from(&[1.0f32, 1.0], "value")?);
/// let y = gpu.alloc(8, "y")?;
/// sparse::apply(&gpu, &sizes, entries, &x, &value, None, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [8.0, 7.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Samples.
    pub batch: usize,
    /// Columns of the matrix.
    pub inputs: usize,
    /// Rows of the matrix.
    pub outputs: usize,
    /// Entries of the matrix.
    pub entries: usize,
}

impl Sizes {
    /// Groups of four samples, the last one perhaps partly used.
    fn units(&self) -> usize {
        self.batch.div_ceil(4)
    }

    fn flops(&self) -> f64 {
        2.0 * (self.entries * self.batch) as f64
    }

    fn params(&self) -> k::SparseParams {
        k::SparseParams {
            units: self.units() as u32,
            inputs: self.inputs as u32,
            outputs: self.outputs as u32,
            entries: self.entries as u32,
            ..Default::default()
        }
    }

    /// Parameters and grid for subgroups of eight lanes with `n` units each; a workgroup takes one block of them, or all
    /// if `whole`.
    fn split(&self, gpu: &Gpu, n: usize, whole: bool) -> Result<(k::SparseParams, [u32; 3])> {
        /// Workgroups that keep a processor's cores busy to the end.
        const WANTED: usize = 32;
        let blocks = self.units().div_ceil(8 * n);
        let apart = if whole { 1 } else { blocks };
        let per = self.outputs.div_ceil(WANTED.div_ceil(apart)).max(4);
        let count = self.outputs.div_ceil(per) * apart;
        let (grid, gx) = gpu.grid(count as u64)?;
        let params =
            k::SparseParams { blocks: blocks as u32, per: per as u32, count: count as u32, gx, ..self.params() };
        Ok((params, grid))
    }
}

/// For software drivers with subgroups of eight: units of a lane, two where there are enough samples.
fn lanes(gpu: &Gpu, s: &Sizes) -> Option<usize> {
    let caps = gpu.caps();
    (caps.class == Class::Software && caps.subgroup == Some(8)).then_some(if s.units() > 8 { 2 } else { 1 })
}

/// `[batch][features]` as `[features][units of four samples]` in new memory.
fn samples_last(gpu: &Gpu, x: &Storage, batch: usize, features: usize) -> Result<Storage> {
    let padded = batch.next_multiple_of(4);
    let to = gpu.alloc((4 * padded * features) as u64, "sparse operand")?;
    if batch != padded {
        // Sums over samples take in the padding.
        gpu.zero(&to)?;
    }
    if features > 0 {
        let dims =
            [Dim { len: batch, from: features as isize, to: 1 }, Dim { len: features, from: 1, to: padded as isize }];
        index::copy(gpu, x, 0, &to, 0, &dims)?;
    }
    Ok(to)
}

/// `y[b, o] = sum_e value[e] x[b, column[e]] + bias[o]` over the entries of row `o`, for `x` of `[batch][inputs]` and `y`
/// of `[batch][outputs]`. There must be samples and outputs.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::sparse::{Entries, Sizes, apply};
/// // [[0, 2], [3, 0]], with a bias of 1, to one sample.
/// let (start, column) = (gpu.alloc_from(&[0u32, 1, 2], "start")?, gpu.alloc_from(&[1u32, 0], "column")?);
/// let entries = Entries { start: &start, column: &column, via: None };
/// let (value, bias) = (gpu.alloc_from(&[2.0f32, 3.0], "value")?, gpu.alloc_from(&[1.0f32, 1.0], "bias")?);
/// let (x, y) = (gpu.alloc_from(&[10.0f32, 20.0], "x")?, gpu.alloc(8, "y")?);
/// apply(&gpu, &Sizes { batch: 1, inputs: 2, outputs: 2, entries: 2 }, entries, &x, &value, Some(&bias), &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [41.0, 31.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn apply(
    gpu: &Gpu,
    s: &Sizes,
    entries: Entries<'_>,
    x: &Storage,
    value: &Storage,
    bias: Option<&Storage>,
    y: &Storage,
) -> Result<()> {
    let Entries { start, column, via } = entries;
    let turned = samples_last(gpu, x, s.batch, s.inputs)?;
    let padded = 4 * s.units();
    let out = gpu.alloc((4 * padded * s.outputs) as u64, "sparse result")?;
    let (kernel, (mut params, grid)) = match (lanes(gpu, s), via) {
        (Some(1), None) => (&k::SPARSE_APPLY_SUB_0_1, s.split(gpu, 1, false)?),
        (Some(1), Some(_)) => (&k::SPARSE_APPLY_SUB_1_1, s.split(gpu, 1, false)?),
        (Some(n), None) => (&k::SPARSE_APPLY_SUB_0_2, s.split(gpu, n, false)?),
        (Some(n), Some(_)) => (&k::SPARSE_APPLY_SUB_1_2, s.split(gpu, n, false)?),
        (None, via) => {
            let (grid, gx) = gpu.grid(((s.units() * s.outputs) as u64).div_ceil(64))?;
            let kernel = if via.is_some() { &k::SPARSE_APPLY_1 } else { &k::SPARSE_APPLY_0 };
            (kernel, (k::SparseParams { gx, ..s.params() }, grid))
        }
    };
    params.bias = bias.is_some().into();
    gpu.note_flops(s.flops());
    // Something must be bound; without a bias or a detour nothing of it is used.
    let reads = [&turned, column, start, value, via.unwrap_or(column), bias.unwrap_or(value)];
    gpu.dispatch(kernel, reads, [&out], params, grid)?;
    let dims =
        [Dim { len: s.batch, from: 1, to: s.outputs as isize }, Dim { len: s.outputs, from: padded as isize, to: 1 }];
    index::copy(gpu, &out, 0, y, 0, &dims)
}

/// Of each entry the sum over samples of `g[b, row] x[b, column]`, for `g` of `[batch][outputs]`: the gradient of its
/// value. `row` has the row of each entry. There must be samples and entries, and `entries.via` is not used.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::sparse::{Entries, Sizes, outer};
/// // Entries at (0, 1) and (1, 0).
/// let (start, column) = (gpu.alloc_from(&[0u32, 1, 2], "start")?, gpu.alloc_from(&[1u32, 0], "column")?);
/// let row = gpu.alloc_from(&[0u32, 1], "row")?;
/// let entries = Entries { start: &start, column: &column, via: None };
/// let (x, g) = (gpu.alloc_from(&[10.0f32, 20.0], "x")?, gpu.alloc_from(&[1.0f32, 5.0], "g")?);
/// let d = gpu.alloc(8, "d")?;
/// outer(&gpu, &Sizes { batch: 1, inputs: 2, outputs: 2, entries: 2 }, entries, &row, &x, &g, &d)?;
/// assert_eq!(gpu.read_as::<f32>(&d)?, [20.0, 50.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn outer(
    gpu: &Gpu,
    s: &Sizes,
    entries: Entries<'_>,
    row: &Storage,
    x: &Storage,
    g: &Storage,
    d: &Storage,
) -> Result<()> {
    let x = samples_last(gpu, x, s.batch, s.inputs)?;
    let g = samples_last(gpu, g, s.batch, s.outputs)?;
    let (kernel, (params, grid), third) = match lanes(gpu, s) {
        Some(1) => (&k::SPARSE_OUTER_SUB_1, s.split(gpu, 1, true)?, entries.start),
        Some(n) => (&k::SPARSE_OUTER_SUB_2, s.split(gpu, n, true)?, entries.start),
        None => {
            let (grid, gx) = gpu.grid((s.entries as u64).div_ceil(64))?;
            (&k::SPARSE_OUTER, (k::SparseParams { gx, ..s.params() }, grid), row)
        }
    };
    gpu.note_flops(s.flops());
    gpu.dispatch(kernel, [&x, entries.column, third, &g], [d], params, grid)
}
