//! Matrix products.
//!
//! Everything that multiplies matrices comes through [`matmul`]: layers, attention, 1x1 convolutions, gradients. Operands
//! may lie transposed, repeated over a batch, or anywhere inside a larger tensor; nothing is copied for that.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::{matmul as r, matmul_lanes as l, matmul_tile as t};

use crate::adapter::Class;
use crate::error::GpuError;
use crate::memory::Storage;
use crate::{Gpu, Result};

/// Where the matrices of one operand lie. Lengths in elements.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::matmul::{Dims, Epilogue, Operand, matmul};
/// // The right half of a [2, 4] matrix, times a column of ones.
/// let a = gpu.alloc_from(&[0.0f32, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0], "a")?;
/// let (b, c) = (gpu.alloc_from(&[1.0f32, 1.0], "b")?, gpu.alloc(8, "c")?);
/// let right = Operand { offset: 2, ld: 4, batch: [0, 0], trans: false };
/// matmul(&gpu, &a, &b, &c, &Dims { a: right, ..Dims::new(2, 1, 2, false, false) }, Epilogue::default())?;
/// assert_eq!(gpu.read_as::<f32>(&c)?, [3.0, 7.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// First element of the first matrix.
    pub offset: usize,
    /// Distance of two rows as they lie in memory.
    pub ld: usize,
    /// Distance of two matrices along the outer and the inner batch dimension; 0 repeats the same one.
    pub batch: [usize; 2],
    /// Whether the product takes the transpose of what lies in memory.
    pub trans: bool,
}

impl Operand {
    /// One matrix from the start of the storage, its rows `ld` apart.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// use shadegrad_kernels::matmul::Operand;
    /// let transposed = Operand::plain(5, true); // lies as rows of five elements
    /// assert_eq!(transposed, Operand { offset: 0, ld: 5, batch: [0, 0], trans: true });
    /// ```
    pub fn plain(ld: usize, trans: bool) -> Self {
        Self { offset: 0, ld, batch: [0, 0], trans }
    }
}

/// Sizes of `C[m, n] = alpha * op(A)[m, k] op(B)[k, n]`, for each of `batch[0] * batch[1]` matrices.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::matmul::{Dims, Epilogue, matmul};
/// let a = gpu.alloc_from(&[1.0f32, 2.0, 3.0], "a")?;
/// let b = gpu.alloc_from(&[4.0f32, 5.0, 6.0], "b")?;
/// let c = gpu.alloc(4, "c")?;
/// let dims = Dims { alpha: 0.5, ..Dims::new(1, 1, 3, false, false) };
/// matmul(&gpu, &a, &b, &c, &dims, Epilogue::default())?;
/// assert_eq!(gpu.read_as::<f32>(&c)?, [16.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dims {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Lengths of the outer and the inner batch dimension.
    pub batch: [usize; 2],
    /// The left operand.
    pub a: Operand,
    /// The right operand.
    pub b: Operand,
    /// The result; must not be transposed, and its matrices must not overlap.
    pub c: Operand,
    /// Factor of the product.
    pub alpha: f32,
    /// Whether A and B are halves, two in a word. C and the bias are floats, and so are the sums.
    pub halves: bool,
}

impl Dims {
    /// Contiguous matrices, one each.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// use shadegrad_kernels::matmul::Dims;
    /// // A layer `y = x W^T` with x [32, 784] and W [10, 784].
    /// let dims = Dims::new(32, 10, 784, false, true);
    /// assert_eq!((dims.a.ld, dims.b.ld, dims.c.ld), (784, 784, 10));
    /// ```
    pub fn new(m: usize, n: usize, k: usize, trans_a: bool, trans_b: bool) -> Self {
        Self {
            m,
            n,
            k,
            batch: [1, 1],
            a: Operand::plain(if trans_a { m } else { k }, trans_a),
            b: Operand::plain(if trans_b { k } else { n }, trans_b),
            c: Operand::plain(n, false),
            alpha: 1.0,
            halves: false,
        }
    }

    /// `count` contiguous products one after the other; an operand that is `repeated` has one matrix only.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_kernels::matmul::{Dims, Epilogue, matmul};
    /// let a = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "a")?; // two rows, [1, 2] each
    /// let b = gpu.alloc_from(&[10.0f32, 1.0], "b")?; // one column, for both
    /// let c = gpu.alloc(8, "c")?;
    /// let dims = Dims::new(1, 1, 2, false, false).batched(2, false, true);
    /// matmul(&gpu, &a, &b, &c, &dims, Epilogue::default())?;
    /// assert_eq!(gpu.read_as::<f32>(&c)?, [12.0, 34.0]);
    /// # Ok::<(), GpuError>(())
    /// ```
    #[must_use]
    pub fn batched(mut self, count: usize, repeat_a: bool, repeat_b: bool) -> Self {
        self.batch = [1, count];
        self.a.batch = [0, if repeat_a { 0 } else { self.m * self.k }];
        self.b.batch = [0, if repeat_b { 0 } else { self.k * self.n }];
        self.c.batch = [0, self.m * self.n];
        self
    }

    /// The same product of operands that are halves.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_kernels::matmul::{Dims, Epilogue, matmul};
    /// let x = gpu.alloc_from(&[0x3c00u16, 0x4000], "x")?; // the halves 1 and 2
    /// let c = gpu.alloc(4, "c")?;
    /// matmul(&gpu, &x, &x, &c, &Dims::new(1, 1, 2, false, false).halves(true), Epilogue::default())?;
    /// assert_eq!(gpu.read_as::<f32>(&c)?, [5.0]);
    /// # Ok::<(), GpuError>(())
    /// ```
    #[must_use]
    pub fn halves(self, halves: bool) -> Self {
        Self { halves, ..self }
    }

    fn count(&self) -> usize {
        self.batch[0] * self.batch[1]
    }
}

/// What happens to each element of the result before it is stored.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::matmul::{Dims, Epilogue, matmul};
/// let a = gpu.alloc_from(&[1.0f32, 2.0], "a")?; // [2, 1]
/// let b = gpu.alloc_from(&[10.0f32, 20.0], "b")?; // [1, 2]
/// let (bias, c) = (gpu.alloc_from(&[0.5f32, 0.25], "bias")?, gpu.alloc(16, "c")?);
/// matmul(&gpu, &a, &b, &c, &Dims::new(2, 2, 1, false, false), Epilogue { bias: Some(&bias) })?;
/// assert_eq!(gpu.read_as::<f32>(&c)?, [10.5, 20.25, 20.5, 40.25]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `n` floats, added to every row.
    pub bias: Option<&'a Storage>,
}

type Regs = Kernel<r::GemmParams, 3, 1>;
type Lanes = Kernel<l::GemmParams, 3, 1>;
type Tile = Kernel<t::GemmParams, 3, 1>;
/// By halves, A transposed, B transposed, rows aligned to four elements.
type Table<K> = [&'static K; 16];

/// Names the sixteen variants of a kernel.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $module:ident $($kernel:ident)+;)+) => {
        $($(#[$doc])* static $name: Table<$ty> = [$(&$module::$kernel),+];)+
    };
}

tables! {
    /// Subgroups of 8 lanes, tiles of 24 x 64.
    LANES24: Lanes = l
        GEMM_SUB_24_64_N_N_1 GEMM_SUB_24_64_N_N_4 GEMM_SUB_24_64_N_T_1 GEMM_SUB_24_64_N_T_4
        GEMM_SUB_24_64_T_N_1 GEMM_SUB_24_64_T_N_4 GEMM_SUB_24_64_T_T_1 GEMM_SUB_24_64_T_T_4
        GEMM_SUB_24_64_N_N_1_HALF GEMM_SUB_24_64_N_N_4_HALF GEMM_SUB_24_64_N_T_1_HALF GEMM_SUB_24_64_N_T_4_HALF
        GEMM_SUB_24_64_T_N_1_HALF GEMM_SUB_24_64_T_N_4_HALF GEMM_SUB_24_64_T_T_1_HALF GEMM_SUB_24_64_T_T_4_HALF;
    /// Subgroups of 8 lanes, tiles of 16 x 64.
    LANES16: Lanes = l
        GEMM_SUB_16_64_N_N_1 GEMM_SUB_16_64_N_N_4 GEMM_SUB_16_64_N_T_1 GEMM_SUB_16_64_N_T_4
        GEMM_SUB_16_64_T_N_1 GEMM_SUB_16_64_T_N_4 GEMM_SUB_16_64_T_T_1 GEMM_SUB_16_64_T_T_4
        GEMM_SUB_16_64_N_N_1_HALF GEMM_SUB_16_64_N_N_4_HALF GEMM_SUB_16_64_N_T_1_HALF GEMM_SUB_16_64_N_T_4_HALF
        GEMM_SUB_16_64_T_N_1_HALF GEMM_SUB_16_64_T_N_4_HALF GEMM_SUB_16_64_T_T_1_HALF GEMM_SUB_16_64_T_T_4_HALF;
    /// Subgroups of 8 lanes, tiles of 8 x 64.
    LANES8: Lanes = l
        GEMM_SUB_8_64_N_N_1 GEMM_SUB_8_64_N_N_4 GEMM_SUB_8_64_N_T_1 GEMM_SUB_8_64_N_T_4
        GEMM_SUB_8_64_T_N_1 GEMM_SUB_8_64_T_N_4 GEMM_SUB_8_64_T_T_1 GEMM_SUB_8_64_T_T_4
        GEMM_SUB_8_64_N_N_1_HALF GEMM_SUB_8_64_N_N_4_HALF GEMM_SUB_8_64_N_T_1_HALF GEMM_SUB_8_64_N_T_4_HALF
        GEMM_SUB_8_64_T_N_1_HALF GEMM_SUB_8_64_T_N_4_HALF GEMM_SUB_8_64_T_T_1_HALF GEMM_SUB_8_64_T_T_4_HALF;
    /// Subgroups of 8 lanes, tiles of 16 x 32.
    NARROW: Lanes = l
        GEMM_SUB_16_32_N_N_1 GEMM_SUB_16_32_N_N_4 GEMM_SUB_16_32_N_T_1 GEMM_SUB_16_32_N_T_4
        GEMM_SUB_16_32_T_N_1 GEMM_SUB_16_32_T_N_4 GEMM_SUB_16_32_T_T_1 GEMM_SUB_16_32_T_T_4
        GEMM_SUB_16_32_N_N_1_HALF GEMM_SUB_16_32_N_N_4_HALF GEMM_SUB_16_32_N_T_1_HALF GEMM_SUB_16_32_N_T_4_HALF
        GEMM_SUB_16_32_T_N_1_HALF GEMM_SUB_16_32_T_N_4_HALF GEMM_SUB_16_32_T_T_1_HALF GEMM_SUB_16_32_T_T_4_HALF;
    /// No subgroups, 8 rows.
    REG8: Regs = r
        GEMM_REG_N_N_1 GEMM_REG_N_N_4 GEMM_REG_N_T_1 GEMM_REG_N_T_4
        GEMM_REG_T_N_1 GEMM_REG_T_N_4 GEMM_REG_T_T_1 GEMM_REG_T_T_4
        GEMM_REG_N_N_1_HALF GEMM_REG_N_N_4_HALF GEMM_REG_N_T_1_HALF GEMM_REG_N_T_4_HALF
        GEMM_REG_T_N_1_HALF GEMM_REG_T_N_4_HALF GEMM_REG_T_T_1_HALF GEMM_REG_T_T_4_HALF;
    /// Tiles of 32 x 32 in workgroup memory.
    TILE32: Tile = t
        GEMM_TILE_32_N_N_1 GEMM_TILE_32_N_N_4 GEMM_TILE_32_N_T_1 GEMM_TILE_32_N_T_4
        GEMM_TILE_32_T_N_1 GEMM_TILE_32_T_N_4 GEMM_TILE_32_T_T_1 GEMM_TILE_32_T_T_4
        GEMM_TILE_32_N_N_1_HALF GEMM_TILE_32_N_N_4_HALF GEMM_TILE_32_N_T_1_HALF GEMM_TILE_32_N_T_4_HALF
        GEMM_TILE_32_T_N_1_HALF GEMM_TILE_32_T_N_4_HALF GEMM_TILE_32_T_T_1_HALF GEMM_TILE_32_T_T_4_HALF;
    /// Tiles of 64 x 64 in workgroup memory.
    TILE64: Tile = t
        GEMM_TILE_64_N_N_1 GEMM_TILE_64_N_N_4 GEMM_TILE_64_N_T_1 GEMM_TILE_64_N_T_4
        GEMM_TILE_64_T_N_1 GEMM_TILE_64_T_N_4 GEMM_TILE_64_T_T_1 GEMM_TILE_64_T_T_4
        GEMM_TILE_64_N_N_1_HALF GEMM_TILE_64_N_N_4_HALF GEMM_TILE_64_N_T_1_HALF GEMM_TILE_64_N_T_4_HALF
        GEMM_TILE_64_T_N_1_HALF GEMM_TILE_64_T_N_4_HALF GEMM_TILE_64_T_T_1_HALF GEMM_TILE_64_T_T_4_HALF;
    /// Tiles of 128 x 128 in workgroup memory.
    TILE128: Tile = t
        GEMM_TILE_128_N_N_1 GEMM_TILE_128_N_N_4 GEMM_TILE_128_N_T_1 GEMM_TILE_128_N_T_4
        GEMM_TILE_128_T_N_1 GEMM_TILE_128_T_N_4 GEMM_TILE_128_T_T_1 GEMM_TILE_128_T_T_4
        GEMM_TILE_128_N_N_1_HALF GEMM_TILE_128_N_N_4_HALF GEMM_TILE_128_N_T_1_HALF GEMM_TILE_128_N_T_4_HALF
        GEMM_TILE_128_T_N_1_HALF GEMM_TILE_128_T_N_4_HALF GEMM_TILE_128_T_T_1_HALF GEMM_TILE_128_T_T_4_HALF;
    /// Tiles of 64 x 64 in one buffer.
    SINGLE: Tile = t
        GEMM_SINGLE_N_N_1 GEMM_SINGLE_N_N_4 GEMM_SINGLE_N_T_1 GEMM_SINGLE_N_T_4
        GEMM_SINGLE_T_N_1 GEMM_SINGLE_T_N_4 GEMM_SINGLE_T_T_1 GEMM_SINGLE_T_T_4
        GEMM_SINGLE_N_N_1_HALF GEMM_SINGLE_N_N_4_HALF GEMM_SINGLE_N_T_1_HALF GEMM_SINGLE_N_T_4_HALF
        GEMM_SINGLE_T_N_1_HALF GEMM_SINGLE_T_N_4_HALF GEMM_SINGLE_T_T_1_HALF GEMM_SINGLE_T_T_4_HALF;
}

fn pick<K>(table: &Table<K>, halves: bool, [a, b]: [bool; 2], aligned: bool) -> &'static K {
    table[usize::from(halves) * 8 + usize::from(a) * 4 + usize::from(b) * 2 + usize::from(aligned)]
}

/// The kernel for a product: its tile, and the order of its operands.
#[derive(Clone, Copy)]
enum Choice {
    /// Registers of a subgroup; with operands exchanged, the transpose of the result is computed.
    Lanes { table: &'static Table<Lanes>, rows: usize, columns: usize, swap: bool },
    /// Registers of single invocations, 8 x 64; exchanged as above.
    Regs { swap: bool },
    /// Square tiles in workgroup memory.
    Tile { table: &'static Table<Tile>, size: usize },
}

/// The tiles of subgroups: table, rows, columns, and in nanoseconds of a processor what four steps of K take and what a tile
/// takes besides. Measured; a quarter of it and more goes into loading columns, so that few rows are not much cheaper.
const LANES: [(&Table<Lanes>, usize, usize, [usize; 2]); 4] = [
    (&LANES24, 24, 64, [455, 2600]),
    (&LANES16, 16, 64, [350, 1600]),
    (&LANES8, 8, 64, [265, 900]),
    (&NARROW, 16, 32, [220, 900]),
];
/// Tile of the register kernel.
const REGS: [usize; 2] = [8, 64];
/// K per step of the tile kernels; spans of a split are multiples of it.
const STEP: usize = 16;
/// Rows of tiles that follow each other down, times K: a quarter of a megabyte of either operand, so that a core's cache holds
/// what neighbouring tiles share. A graphics card's holds more.
const BAND: usize = 2048;
/// Workgroups that fill a graphics card (132 cores of the largest, at two each, less the tail).
const FULL: usize = 200;

/// The cheapest tile for each order of the operands.
fn choose_lanes(d: &Dims) -> Choice {
    let mut best = (usize::MAX, Choice::Regs { swap: false });
    for (table, rows, columns, [step, once]) in LANES {
        for swap in [false, true] {
            let (m, n) = if swap { (d.n, d.m) } else { (d.m, d.n) };
            let cost = m.div_ceil(rows) * n.div_ceil(columns) * (d.k.div_ceil(4) * step + once);
            if cost < best.0 {
                best = (cost, Choice::Lanes { table, rows, columns, swap });
            }
        }
    }
    best.1
}

fn choose(gpu: &Gpu, d: &Dims) -> Choice {
    let caps = gpu.caps();
    let tiles = |size: usize| d.m.div_ceil(size) * d.n.div_ceil(size) * d.count();
    let small = d.m.min(d.n) <= 32;
    match caps.class {
        Class::Software if caps.subgroup == Some(8) && caps.int64 => choose_lanes(d),
        Class::Software => {
            let count = |m: usize, n: usize| m.div_ceil(REGS[0]) * n.div_ceil(REGS[1]);
            Choice::Regs { swap: count(d.n, d.m) < count(d.m, d.n) }
        }
        Class::Integrated if small || tiles(64) < 32 => Choice::Tile { table: &TILE32, size: 32 },
        Class::Integrated => Choice::Tile { table: &SINGLE, size: 64 },
        Class::Discrete => {
            // The large tile takes 32 KiB of workgroup memory, twice what every device has.
            if tiles(128) >= FULL && caps.workgroup_bytes >= 32 << 10 {
                Choice::Tile { table: &TILE128, size: 128 }
            } else if !small && (tiles(64) >= FULL || d.k >= 512) {
                Choice::Tile { table: &TILE64, size: 64 }
            } else {
                Choice::Tile { table: &TILE32, size: 32 }
            }
        }
    }
}

/// Workgroups that share the sum over K of one tile.
fn splits(class: Class, tiles: usize, k: usize) -> usize {
    let (enough, least, most) = match class {
        // Only few cores, but a single workgroup must not keep all but one of them waiting.
        Class::Software => (32, 512, 16),
        Class::Integrated => (32, 256, 16),
        Class::Discrete => (264, 256, 16),
    };
    let busy = if 2 * tiles > enough { 1 } else { (enough / tiles.max(1)).min(k / least).clamp(1, most) };
    // Processors keep what neighbouring tiles share in their cache only if it is not too long.
    if class == Class::Software { busy.max((k / 1024).min(most)) } else { busy }
}

/// `C = alpha * op(A) op(B)`, then the epilogue. `c` must not share a buffer with an operand.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::matmul::{Dims, Epilogue, matmul};
/// let a = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "a")?; // [2, 2]
/// let b = gpu.alloc_from(&[5.0f32, 6.0, 7.0, 8.0], "b")?;
/// let c = gpu.alloc(4 * 4, "c")?;
/// matmul(&gpu, &a, &b, &c, &Dims::new(2, 2, 2, false, false), Epilogue::default())?;
/// assert_eq!(gpu.read_as::<f32>(&c)?, [19.0, 22.0, 43.0, 50.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// If a matrix reaches past the end of its storage, or as [`Gpu::dispatch`].
pub fn matmul(gpu: &Gpu, a: &Storage, b: &Storage, c: &Storage, dims: &Dims, epilogue: Epilogue<'_>) -> Result<()> {
    let d = dims;
    check(a, b, c, d, epilogue)?;
    let count = d.count();
    if d.m * d.n * count == 0 {
        return Ok(());
    }
    if d.k == 0 {
        return no_terms(gpu, a, c, d, epilogue);
    }
    let choice = choose(gpu, d);
    let (tm, tn, swap) = match choice {
        Choice::Lanes { rows, columns, swap: false, .. } => (rows, columns, false),
        Choice::Lanes { rows, columns, swap: true, .. } => (columns, rows, true),
        Choice::Regs { swap: false } => (REGS[0], REGS[1], false),
        Choice::Regs { swap: true } => (REGS[1], REGS[0], true),
        Choice::Tile { size, .. } => (size, size, false),
    };
    let (tiles_m, tiles_n) = (d.m.div_ceil(tm), d.n.div_ceil(tn));
    let tiles = tiles_m * tiles_n * count;
    let span = d.k.div_ceil(splits(gpu.caps().class, tiles, d.k)).next_multiple_of(STEP);
    let splits = d.k.div_ceil(span);
    gpu.note_flops(2.0 * (d.m * d.n * d.k * count) as f64);
    if splits == 1 {
        return launch(gpu, a, b, c, d, epilogue, choice, [tiles_m, tiles_n, 1, d.k, 0], swap);
    }
    let part = d.m * d.n * count;
    let sums = gpu.alloc((4 * part * splits) as u64, "split-k")?;
    let mut dense = *d;
    dense.alpha = 1.0;
    dense.c = Operand { offset: 0, ld: d.n, batch: [d.batch[1] * d.m * d.n, d.m * d.n], trans: false };
    launch(gpu, a, b, &sums, &dense, Epilogue::default(), choice, [tiles_m, tiles_n, splits, span, part], swap)?;
    add_parts(gpu, &sums, c, d, epilogue, splits)
}

fn launch(
    gpu: &Gpu,
    a: &Storage,
    b: &Storage,
    c_at: &Storage,
    d: &Dims,
    epilogue: Epilogue<'_>,
    choice: Choice,
    [tiles_m, tiles_n, splits, span, sp]: [usize; 5],
    swap: bool,
) -> Result<()> {
    let (grid, gx) = gpu.grid((tiles_m * tiles_n * splits * d.count()) as u64)?;
    // The transpose of a product is the product of the transposes in the other order.
    let (x, y, m, n) = if swap { (&d.b, &d.a, d.n, d.m) } else { (&d.a, &d.b, d.m, d.n) };
    let (mut x, mut y) = (Operand { trans: x.trans != swap, ..*x }, Operand { trans: y.trans != swap, ..*y });
    // A dense column is a row.
    if m == 1 && x.trans && x.ld == 1 {
        x = Operand { trans: false, ld: d.k, ..x };
    }
    if n == 1 && !y.trans && y.ld == 1 {
        y = Operand { trans: true, ld: d.k, ..y };
    }
    let x = x.relevant(d.batch, if x.trans { d.k } else { m });
    let y = y.relevant(d.batch, if y.trans { n } else { d.k });
    let c = Operand { trans: false, ..d.c.relevant(d.batch, d.m) };
    let mut aligned = x.is_aligned() && y.is_aligned();
    if let Choice::Lanes { .. } = choice {
        // These write vec4s, too.
        aligned &= c.is_aligned() && (d.n | sp).is_multiple_of(4);
    }
    let params = r::GemmParams {
        m: m as u32,
        n: n as u32,
        k: d.k as u32,
        gx,
        lda: x.ld as u32,
        ldb: y.ld as u32,
        crs: if swap { 1 } else { c.ld as u32 },
        ccs: if swap { c.ld as u32 } else { 1 },
        a0: x.offset as u32,
        b0: y.offset as u32,
        c0: d.c.offset as u32,
        count: (tiles_m * tiles_n * splits * d.count()) as u32,
        ao: x.batch[0] as u32,
        ai: x.batch[1] as u32,
        bo: y.batch[0] as u32,
        bi: y.batch[1] as u32,
        co: c.batch[0] as u32,
        ci: c.batch[1] as u32,
        sp: sp as u32,
        inner: d.batch[1] as u32,
        tiles_m: if swap { tiles_n } else { tiles_m } as u32,
        tiles_n: if swap { tiles_m } else { tiles_n } as u32,
        splits: splits as u32,
        span: span as u32,
        bias: match epilogue.bias {
            None => 0,
            Some(_) if swap => 2,
            Some(_) => 1,
        },
        alpha: d.alpha,
        band: BAND.div_ceil(span.max(1)).max(2) as u32,
    };
    let (left, right) = if swap { (b, a) } else { (a, b) };
    // Something must be bound; without a bias nothing of it is used.
    let bias = epilogue.bias.unwrap_or(left);
    let (buffers, trans) = ([left, right, bias], [x.trans, y.trans]);
    match choice {
        Choice::Lanes { table, .. } => {
            let params: l::GemmParams = bytemuck::cast(params);
            gpu.dispatch(pick(table, d.halves, trans, aligned), buffers, [c_at], params, grid)
        }
        Choice::Regs { .. } => gpu.dispatch(pick(&REG8, d.halves, trans, aligned), buffers, [c_at], params, grid),
        Choice::Tile { table, .. } => {
            let params: t::GemmParams = bytemuck::cast(params);
            gpu.dispatch(pick(table, d.halves, trans, aligned), buffers, [c_at], params, grid)
        }
    }
}

impl Operand {
    /// Without the strides that nothing depends on, which would only spoil the alignment.
    fn relevant(mut self, batch: [usize; 2], rows: usize) -> Self {
        for (stride, n) in self.batch.iter_mut().zip(batch) {
            if n == 1 {
                *stride = 0;
            }
        }
        if rows == 1 {
            self.ld = self.ld.next_multiple_of(4);
        }
        self
    }

    /// Whether every row begins at a multiple of four elements.
    fn is_aligned(&self) -> bool {
        (self.offset | self.ld | self.batch[0] | self.batch[1]).is_multiple_of(4)
    }

    /// Elements that a storage must have for it.
    fn extent(&self, batch: [usize; 2], rows: usize, cols: usize) -> usize {
        let (rows, cols) = if self.trans { (cols, rows) } else { (rows, cols) };
        if rows * cols * batch[0] * batch[1] == 0 {
            return 0;
        }
        self.offset + (batch[0] - 1) * self.batch[0] + (batch[1] - 1) * self.batch[1] + (rows - 1) * self.ld + cols
    }
}

fn check(a: &Storage, b: &Storage, c: &Storage, d: &Dims, epilogue: Epilogue<'_>) -> Result<()> {
    let fail = |reason: String| Err(GpuError::Dispatch { kernel: "matmul".into(), reason });
    let plain = Operand::plain(d.n, false);
    let size = if d.halves { 2 } else { 4 };
    let operands = [
        ("A", a, &d.a, d.batch, d.m, d.k, size),
        ("B", b, &d.b, d.batch, d.k, d.n, size),
        ("C", c, &d.c, d.batch, d.m, d.n, 4),
        ("bias", epilogue.bias.unwrap_or(a), &plain, [1, 1], usize::from(epilogue.bias.is_some()), d.n, 4),
    ];
    for (name, storage, at, batch, rows, cols, size) in operands {
        let need = at.extent(batch, rows, cols);
        if need as u64 * size > storage.bytes() {
            return fail(format!(
                "{name} of {d:?} needs {need} elements, {storage:?} holds {}",
                storage.bytes() / size
            ));
        }
        if need > u32::MAX as usize {
            return fail(format!("{name} of {d:?} has more than 2^32 elements; split the batch"));
        }
    }
    if d.c.trans {
        return fail(format!("the result of {d:?} is transposed; exchange the operands instead"));
    }
    Ok(())
}

/// A sum of no terms: zero, and the bias.
fn no_terms(gpu: &Gpu, any: &Storage, c: &Storage, d: &Dims, epilogue: Epilogue<'_>) -> Result<()> {
    add_parts(gpu, any, c, d, epilogue, 0)
}

/// Adds the parts of a split K in their order, then the epilogue.
fn add_parts(gpu: &Gpu, sums: &Storage, c: &Storage, d: &Dims, epilogue: Epilogue<'_>, splits: usize) -> Result<()> {
    let count = d.m * d.n * d.count();
    let (grid, gx) = gpu.grid((count as u64).div_ceil(64))?;
    let c_batch = d.c.relevant(d.batch, d.m).batch;
    let params = r::GemmSumParams {
        m: d.m as u32,
        n: d.n as u32,
        count: count as u32,
        gx,
        splits: splits as u32,
        sp: count as u32,
        crs: d.c.ld as u32,
        inner: d.batch[1] as u32,
        c0: d.c.offset as u32,
        co: c_batch[0] as u32,
        ci: c_batch[1] as u32,
        bias: u32::from(epilogue.bias.is_some()),
        alpha: d.alpha,
    };
    gpu.dispatch(&r::GEMM_SUM, [sums, epilogue.bias.unwrap_or(sums)], [c], params, grid)
}
