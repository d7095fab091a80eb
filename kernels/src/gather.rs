//! Reading and adding at places that an index tensor names. Indices past the end are clamped to the last element.

use shadegrad_shaders::gather as k;

use crate::index::{Dim, collapse, reversed, strides};
use crate::memory::Storage;
use crate::{Class, Gpu, Result};

/// `y[i] = x[i, but index[i] along axis]` for every `i` of the index's shape, elements of four bytes. The index may be
/// shorter than `x` in the other dimensions.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::gather::gather;
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], "x")?; // [2, 3]
/// let index = gpu.alloc_from(&[2u32, 0, 1, 1], "index")?; // [2, 2]: two columns of each row
/// let y = gpu.alloc(16, "y")?;
/// gather(&gpu, (&x, &[2, 3]), (&index, &[2, 2]), &y, 1)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [3.0, 1.0, 5.0, 5.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn gather(
    gpu: &Gpu,
    (x, xshape): (&Storage, &[usize]),
    (index, shape): (&Storage, &[usize]),
    y: &Storage,
    axis: usize,
) -> Result<()> {
    let n: usize = shape.iter().product();
    let (xs, ys) = (strides(xshape), strides(shape));
    let dims: Vec<Dim> =
        (0..shape.len()).map(|d| Dim { len: shape[d], from: if d == axis { 0 } else { xs[d] }, to: ys[d] }).collect();
    let dims = collapse(&dims);
    let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
    let [dims0, dims1] = reversed(dims.iter().map(|d| d.len as isize), 1);
    let [xs0, xs1] = reversed(dims.iter().map(|d| d.from), 0);
    let params = k::GatherParams {
        n: n as u32,
        gx,
        k: xshape[axis] as u32,
        step: xs[axis] as u32,
        dims0,
        dims1,
        xs0,
        xs1,
        ..Default::default()
    };
    let kernel = match dims.len() {
        0..=2 => &k::GATHER_2,
        3..=4 => &k::GATHER_4,
        _ => &k::GATHER_8,
    };
    gpu.dispatch(kernel, [x, index], [y], params, grid)
}

/// Rows `index[0..len]` of `x [outer, rows, inner]`: `y [outer, len, inner]`, elements of four bytes.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let table = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], "table")?; // three rows of two
/// let (index, y) = (gpu.alloc_from(&[2u32, 0], "index")?, gpu.alloc(16, "y")?);
/// gather::rows(&gpu, &table, &index, &y, [1, 3, 2, 2])?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [5.0, 6.0, 1.0, 2.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn rows(gpu: &Gpu, x: &Storage, index: &Storage, y: &Storage, [outer, rows, len, inner]: [usize; 4]) -> Result<()> {
    let (kernel, inner) = if inner % 4 == 0 { (&k::ROWS_4, inner / 4) } else { (&k::ROWS_1, inner) };
    let n = outer * len * inner;
    let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
    let params = k::RowsParams { n: n as u32, gx, k: rows as u32, len: len as u32, inner: inner as u32 };
    gpu.dispatch(kernel, [x, index], [y], params, grid)
}

/// Rows `index[0..len]` of `x`, which has `rows` rows of `row` bytes.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc_from(&[1u8, 2, 3, 4, 5, 6, 7, 8, 9], "x")?; // three rows of three bytes
/// let (index, y) = (gpu.alloc_from(&[2u32, 0], "index")?, gpu.alloc(6, "y")?);
/// gather::byte_rows(&gpu, &x, &index, &y, [3, 2, 3])?;
/// assert_eq!(gpu.read(&y)?, [7, 8, 9, 1, 2, 3]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn byte_rows(gpu: &Gpu, x: &Storage, index: &Storage, y: &Storage, [count, len, row]: [usize; 3]) -> Result<()> {
    if row % 4 == 0 {
        return rows(gpu, x, index, y, [1, count, len, row / 4]);
    }
    let words = (len * row).div_ceil(4);
    let (grid, gx) = gpu.grid((words as u64).div_ceil(256))?;
    let params = k::BytesParams { words: words as u32, gx, k: count as u32, len: len as u32, row: row as u32 };
    gpu.dispatch(&k::ROWS_BYTES, [x, index], [y], params, grid)
}

/// How a scatter is split over invocations; see `gather.wgsl`.
struct Split {
    chunks: usize,
    per_chunk: usize,
    ranges: usize,
    per_range: usize,
}

impl Split {
    /// For `fibres` independent sequences of `len` sources that go to `k` targets each.
    fn new(gpu: &Gpu, fibres: usize, len: usize, k: usize) -> Self {
        // Invocations that keep the device busy, and the most ranges that may read the same indices.
        let (wanted, most_ranges) = match gpu.caps().class {
            Class::Software => (128, 4),
            Class::Integrated => (1 << 14, 64),
            Class::Discrete => (1 << 16, 256),
        };
        // The partial results of the chunks must not be more than the sources.
        let chunks = (wanted / fibres).min(len / 32).min(len / k).max(1);
        let per_chunk = len.div_ceil(chunks);
        let chunks = len.div_ceil(per_chunk);
        let ranges = (wanted / (fibres * chunks)).min(most_ranges).clamp(1, k);
        let per_range = k.div_ceil(ranges);
        Self { chunks, per_chunk, ranges: k.div_ceil(per_range), per_range }
    }

    fn invocations(&self, fibres: usize) -> u64 {
        (fibres * self.ranges * self.chunks) as u64
    }

    /// Runs `scatter` on `y`, or on partial results that are then added to it.
    fn run(&self, gpu: &Gpu, y: &Storage, n: usize, scatter: impl Fn(&Storage) -> Result<()>) -> Result<()> {
        if self.chunks == 1 {
            return scatter(y);
        }
        let parts = gpu.alloc((4 * n * self.chunks) as u64, "scatter")?;
        gpu.zero(&parts)?;
        scatter(&parts)?;
        let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
        let params = k::FoldParams { n: n as u32, gx, chunks: self.chunks as u32 };
        gpu.dispatch(&k::FOLD, [&parts], [y], params, grid)
    }
}

/// `y[i, but index[i] along axis] += s[i]` for every `i` of the shape of index and `s`, in a fixed order.
///
/// Work grows with the number of sources; only along `axis` are they taken one after the other.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let index = gpu.alloc_from(&[0u32, 2, 0], "index")?;
/// let s = gpu.alloc_from(&[1.0f32, 2.0, 3.0], "s")?;
/// let y = gpu.alloc_from(&[10.0f32, 10.0, 10.0], "y")?;
/// gather::scatter_add(&gpu, &index, (&s, &[3]), (&y, &[3]), 0)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [14.0, 10.0, 12.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn scatter_add(
    gpu: &Gpu,
    index: &Storage,
    (s, shape): (&Storage, &[usize]),
    (y, yshape): (&Storage, &[usize]),
    axis: usize,
) -> Result<()> {
    let (ss, ys) = (strides(shape), strides(yshape));
    let dims: Vec<Dim> =
        (0..shape.len()).filter(|&d| d != axis).map(|d| Dim { len: shape[d], from: ss[d], to: ys[d] }).collect();
    let dims = collapse(&dims);
    let fibres: usize = dims.iter().map(|d| d.len).product();
    let total: usize = yshape.iter().product();
    let split = Split::new(gpu, fibres, shape[axis], yshape[axis]);
    let (grid, gx) = gpu.grid(split.invocations(fibres).div_ceil(64))?;
    let [dims0, mut dims1] = reversed(dims.iter().map(|d| d.len as isize), 1);
    dims1[3] = total as u32;
    let [ss0, ss1] = reversed(dims.iter().map(|d| d.from), 0);
    let [ys0, ys1] = reversed(dims.iter().map(|d| d.to), 0);
    let params = k::ScatterParams {
        gx,
        fibres: fibres as u32,
        len: shape[axis] as u32,
        k: yshape[axis] as u32,
        si: ss[axis] as u32,
        so: ys[axis] as u32,
        per_chunk: split.per_chunk as u32,
        per_range: split.per_range as u32,
        dims0,
        dims1,
        ys0,
        ys1,
        ss0,
        ss1,
    };
    split.run(gpu, y, total, |to| gpu.dispatch(&k::SCATTER_FULL, [index, s], [to], params, grid))
}

/// Adds the rows of `s [outer, len, inner]` to rows `index[0..len]` of `y [outer, rows, inner]`, in a fixed order.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let index = gpu.alloc_from(&[1u32, 0, 1], "index")?;
/// let s = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], "s")?; // three rows of two
/// let y = gpu.alloc_from(&[0.0f32; 4], "y")?; // two rows of two
/// gather::add_rows(&gpu, &index, &s, &y, [1, 2, 3, 2])?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [3.0, 4.0, 6.0, 8.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn add_rows(
    gpu: &Gpu,
    index: &Storage,
    s: &Storage,
    y: &Storage,
    [outer, rows, len, inner]: [usize; 4],
) -> Result<()> {
    let (kernel, unit) = if inner % 4 == 0 { (&k::SCATTER_ROWS_4, 4) } else { (&k::SCATTER_ROWS_1, 1) };
    let inner = inner / unit;
    let fibres = outer * inner;
    let split = Split::new(gpu, fibres, len, rows);
    let (grid, gx) = gpu.grid(split.invocations(fibres).div_ceil(64))?;
    let params = k::ScatterRowsParams {
        gx,
        outer: outer as u32,
        len: len as u32,
        k: rows as u32,
        inner: inner as u32,
        per_chunk: split.per_chunk as u32,
        per_range: split.per_range as u32,
        total: (outer * rows * inner) as u32,
    };
    split.run(gpu, y, outer * rows * inner * unit, |to| gpu.dispatch(kernel, [index, s], [to], params, grid))
}

/// `y [rows, columns]`: 1 where the column is the row's index, 0 elsewhere.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (index, y) = (gpu.alloc_from(&[2u32, 0], "index")?, gpu.alloc(4 * 6, "y")?);
/// gather::one_hot(&gpu, &index, &y, 2, 3)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn one_hot(gpu: &Gpu, index: &Storage, y: &Storage, rows: usize, columns: usize) -> Result<()> {
    let n4 = (rows * columns).div_ceil(4);
    let (grid, gx) = gpu.grid((n4 as u64).div_ceil(256))?;
    let params = k::OneHotParams { n4: n4 as u32, gx, rows: rows as u32, k: columns as u32 };
    gpu.dispatch(&k::ONE_HOT, [index], [y], params, grid)
}
