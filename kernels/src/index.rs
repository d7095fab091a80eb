//! Copies between strided layouts: everything that only moves elements of four bytes.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::index as k;
use shadegrad_shaders::index::MapParams;

use crate::memory::Storage;
use crate::{Class, Gpu, Result};

/// Contiguous copies of at least this many bytes go to the copy engine; shorter ones would cost more in the change from
/// computing to copying than they save.
const COPY_BYTES: usize = 1 << 18;

/// One map for at most two, three, four and eight dimensions.
type Maps = [&'static Kernel<MapParams, 1, 1>; 4];

static MAP_1: Maps = [&k::MAP_1_2, &k::MAP_1_3, &k::MAP_1_4, &k::MAP_1_8];
static MAP_4: Maps = [&k::MAP_4_2, &k::MAP_4_3, &k::MAP_4_4, &k::MAP_4_8];
static MAP_G4: Maps = [&k::MAP_G4_2, &k::MAP_G4_3, &k::MAP_G4_4, &k::MAP_G4_8];
static MAP_S4: Maps = [&k::MAP_S4_2, &k::MAP_S4_3, &k::MAP_S4_4, &k::MAP_S4_8];
static MAP_T4: Maps = [&k::MAP_T4_2, &k::MAP_T4_3, &k::MAP_T4_4, &k::MAP_T4_8];

/// One dimension of a copy: how often, and how far apart the elements lie on either side.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::index::{Dim, copy};
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0], "x")?, gpu.alloc(12, "y")?);
/// // Backwards, from element 2 on.
/// copy(&gpu, &x, 2, &y, 0, &[Dim { len: 3, from: -1, to: 1 }])?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [3.0, 2.0, 1.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim {
    /// Elements along it.
    pub len: usize,
    /// Distance in the source, in elements; 0 repeats, negative runs backwards.
    pub from: isize,
    /// Distance in the destination; distinct elements must go to distinct places.
    pub to: isize,
}

/// Row-major strides of `shape`.
///
/// ```
/// # use shadegrad_kernels::*;
/// assert_eq!(index::strides(&[2, 3, 4]), [12, 4, 1]);
/// ```
pub fn strides(shape: &[usize]) -> Vec<isize> {
    let mut out = vec![1; shape.len()];
    for d in (0..shape.len().saturating_sub(1)).rev() {
        out[d] = out[d + 1] * shape[d + 1] as isize;
    }
    out
}

/// Drops dimensions of length one and joins neighbours that are one dimension on both sides.
pub(crate) fn collapse(dims: &[Dim]) -> Vec<Dim> {
    let mut out: Vec<Dim> = Vec::with_capacity(dims.len());
    for &d in dims.iter().filter(|d| d.len != 1) {
        match out.last_mut() {
            Some(o) if o.from == d.from * d.len as isize && o.to == d.to * d.len as isize => {
                *o = Dim { len: o.len * d.len, ..d };
            }
            _ => out.push(d),
        }
    }
    out
}

/// Copies the element at `x0 + sum(r from)` to `y0 + sum(r to)` for every index `r` of `dims` (outermost first, at most
/// eight of them; elements of four bytes). What is not written keeps its content.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::index::{Dim, copy};
/// // The transpose of [2, 3].
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], "x")?;
/// let y = gpu.alloc(4 * 6, "y")?;
/// copy(&gpu, &x, 0, &y, 0, &[Dim { len: 3, from: 1, to: 2 }, Dim { len: 2, from: 3, to: 1 }])?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn copy(gpu: &Gpu, x: &Storage, x0: usize, y: &Storage, y0: usize, dims: &[Dim]) -> Result<()> {
    let dims = collapse(dims);
    if dims.iter().any(|d| d.len == 0) {
        return Ok(());
    }
    let contiguous = match dims[..] {
        [] => Some(1),
        [Dim { len, from: 1, to: 1 }] => Some(len),
        _ => None,
    };
    if let Some(len) = contiguous.filter(|len| 4 * len >= COPY_BYTES) {
        return gpu.copy(x, 4 * x0 as u64, y, 4 * y0 as u64, 4 * len as u64);
    }
    if gpu.caps().class != Class::Software
        && let Some((batch, rows, cols)) = plain_transpose(&dims, x0, y0)
    {
        return tiled(gpu, x, y, batch, rows, cols);
    }
    let by4 = |v: isize| v % 4 == 0;
    let offsets = (x0 as isize, y0 as isize);
    let Some((&last, outer)) = dims.split_last() else {
        return map(gpu, &MAP_1, x, y, offsets, (0, 0), &dims);
    };
    let y_blocks = last.to == 1 && last.len % 4 == 0 && by4(offsets.1) && outer.iter().all(|d| by4(d.to));
    if y_blocks && last.from == 1 && by4(offsets.0) && outer.iter().all(|d| by4(d.from)) {
        let mut dims: Vec<Dim> = dims.iter().map(|d| Dim { from: d.from / 4, to: d.to / 4, ..*d }).collect();
        if let Some(d) = dims.last_mut() {
            *d = Dim { len: d.len / 4, from: 1, to: 1 };
        }
        return map(gpu, &MAP_4, x, y, (offsets.0 / 4, offsets.1 / 4), (0, 0), &dims);
    }
    // The dimension that is contiguous in x, where another is in y: whole 4x4 blocks change hands.
    let a = outer.iter().position(|d| d.from == 1 && d.len % 4 == 0);
    let others = |a: usize| outer.iter().enumerate().all(|(i, d)| i == a || by4(d.from));
    if let Some(a) = a.filter(|&a| y_blocks && by4(last.from) && last.from != 0 && by4(offsets.0) && others(a)) {
        let block = |i: usize, d: &Dim| match i {
            _ if i == a => Dim { len: d.len / 4, from: 1, to: d.to },
            _ if i + 1 == dims.len() => Dim { len: d.len / 4, from: d.from, to: 1 },
            _ => Dim { len: d.len, from: d.from / 4, to: d.to / 4 },
        };
        let blocks: Vec<Dim> = dims.iter().enumerate().map(|(i, d)| block(i, d)).collect();
        let apart = (last.from / 4, outer[a].to / 4);
        return map(gpu, &MAP_T4, x, y, (offsets.0 / 4, offsets.1 / 4), apart, &blocks);
    }
    if y_blocks {
        let mut blocks: Vec<Dim> = dims.iter().map(|d| Dim { to: d.to / 4, ..*d }).collect();
        if let Some(d) = blocks.last_mut() {
            *d = Dim { len: d.len / 4, from: 4 * d.from, to: 1 };
        }
        let kernels = if last.from == 0 { &MAP_S4 } else { &MAP_G4 };
        return map(gpu, kernels, x, y, (offsets.0, offsets.1 / 4), (last.from, 0), &blocks);
    }
    map(gpu, &MAP_1, x, y, offsets, (0, 0), &dims)
}

/// Batch, rows and columns of the source if the copy is a plain transposition of whole matrices.
fn plain_transpose(dims: &[Dim], x0: usize, y0: usize) -> Option<(usize, usize, usize)> {
    let (batch, cols, rows) = match *dims {
        [c, r] => (None, c, r),
        [b, c, r] => (Some(b), c, r),
        _ => return None,
    };
    let (m, n) = (rows.len as isize, cols.len as isize);
    let fits = (cols.from, cols.to, rows.from, rows.to) == (1, m, n, 1)
        && batch.is_none_or(|b| (b.from, b.to) == (m * n, m * n))
        && (x0, y0) == (0, 0)
        && rows.len.min(cols.len) >= 8;
    fits.then_some((batch.map_or(1, |b| b.len), rows.len, cols.len))
}

fn tiled(gpu: &Gpu, x: &Storage, y: &Storage, batch: usize, rows: usize, cols: usize) -> Result<()> {
    let (tiles_r, tiles_c) = (rows.div_ceil(32), cols.div_ceil(32));
    let count = batch * tiles_r * tiles_c;
    let (grid, gx) = gpu.grid(count as u64)?;
    let params = k::TileParams {
        rows: rows as u32,
        cols: cols as u32,
        tiles_r: tiles_r as u32,
        tiles_c: tiles_c as u32,
        count: count as u32,
        gx,
    };
    gpu.dispatch(&k::TRANSPOSE_TILE, [x], [y], params, grid)
}

/// Up to eight numbers, the last first, as two `vec4`s; negative ones modulo 2^32.
pub(crate) fn reversed(values: impl DoubleEndedIterator<Item = isize>, empty: u32) -> [[u32; 4]; 2] {
    let mut out = [[empty; 4]; 2];
    for (i, v) in values.rev().enumerate() {
        out[i / 4][i % 4] = v as u32;
    }
    out
}

fn map(
    gpu: &Gpu,
    kernels: &Maps,
    x: &Storage,
    y: &Storage,
    (x0, y0): (isize, isize),
    (xb, ya): (isize, isize),
    dims: &[Dim],
) -> Result<()> {
    let n: usize = dims.iter().map(|d| d.len).product();
    let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
    let [dims0, dims1] = reversed(dims.iter().map(|d| d.len as isize), 1);
    let [xs0, xs1] = reversed(dims.iter().map(|d| d.from), 0);
    let [ys0, ys1] = reversed(dims.iter().map(|d| d.to), 0);
    let params = MapParams {
        n: n as u32,
        gx,
        pad0: 0,
        x0: x0 as u32,
        y0: y0 as u32,
        xb: xb as u32,
        ya: ya as u32,
        pad1: 0,
        dims0,
        dims1,
        xs0,
        xs1,
        ys0,
        ys1,
    };
    let kernel = kernels[match dims.len() {
        0..=2 => 0,
        3 => 1,
        4 => 2,
        _ => 3,
    }];
    gpu.dispatch(kernel, [x], [y], params, grid)
}

/// Keeps `column - row <= diagonal` of `count` matrices `rows x cols` (`upper`: `>=`), zeros elsewhere.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "x")?, gpu.alloc(16, "y")?);
/// index::triangle(&gpu, &x, &y, (1, 2, 2), 0, false)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, 0.0, 3.0, 4.0]);
/// index::triangle(&gpu, &x, &y, (1, 2, 2), 1, true)?; // above the diagonal
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.0, 2.0, 0.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn triangle(
    gpu: &Gpu,
    x: &Storage,
    y: &Storage,
    (count, rows, cols): (usize, usize, usize),
    diagonal: i32,
    upper: bool,
) -> Result<()> {
    let n = count * rows * cols;
    let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
    let params =
        k::TriangleParams { n: n as u32, gx, rows: rows as u32, cols: cols as u32, diagonal, upper: upper.into() };
    gpu.dispatch(&k::TRIANGLE, [x], [y], params, grid)
}
