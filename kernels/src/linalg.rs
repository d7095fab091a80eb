//! Cholesky factors and triangular systems, for batches of square matrices.
//!
//! Both go by blocks of 32 columns: what lies left of a block comes as one matrix product, the block itself is a kernel.
//! Matrices are contiguous and row-major, one after the other.

use shadegrad_shaders::linalg as s;

use crate::matmul::{Dims, Epilogue, Operand, matmul};
use crate::memory::Storage;
use crate::{Gpu, Result};

/// Columns of a block, as in the shader.
const BLOCK: usize = 32;

/// Lower triangular L with `L L^T = (A + A^T) / 2` for `batch` matrices `[n, n]`; the upper half of `l` is zero. Where
/// the matrix is not positive definite, L has NaN from the pivot that failed on.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let a = gpu.alloc_from(&[4.0f32, 2.0, 2.0, 5.0], "a")?;
/// let l = gpu.alloc(16, "l")?;
/// linalg::cholesky(&gpu, &a, &l, 1, 2)?;
/// assert_eq!(gpu.read_as::<f32>(&l)?, [2.0, 0.0, 1.0, 2.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn cholesky(gpu: &Gpu, a: &Storage, l: &Storage, batch: usize, n: usize) -> Result<()> {
    let count = batch * n * n;
    if count == 0 {
        return Ok(());
    }
    let (grid, gx) = gpu.grid((count as u64).div_ceil(256))?;
    gpu.dispatch(&s::LINALG_LOWER, [a], [l], s::LowerParams { n: n as u32, count: count as u32, gx }, grid)?;
    for j0 in (0..n).step_by(BLOCK) {
        let w = BLOCK.min(n - j0);
        let rows = n - j0;
        // Columns left of the block times its rows: what the block and all below it have to give up.
        let known = if j0 == 0 {
            None
        } else {
            let known = gpu.alloc((4 * batch * rows * w) as u64, "cholesky")?;
            let mut d = Dims::new(rows, w, j0, false, true);
            d.batch = [1, batch];
            d.a = Operand { offset: j0 * n, ld: n, batch: [0, n * n], trans: false };
            d.b = Operand { trans: true, ..d.a };
            d.c = Operand { offset: 0, ld: w, batch: [0, rows * w], trans: false };
            matmul(gpu, l, l, &known, &d, Epilogue::default())?;
            Some(known)
        };
        let done = known.as_ref().unwrap_or(a);
        let (grid, gx) = gpu.grid(batch as u64)?;
        let params = s::FactorParams {
            n: n as u32,
            j0: j0 as u32,
            w: w as u32,
            step: (rows * w) as u32,
            count: batch as u32,
            gx,
        };
        gpu.dispatch(&s::LINALG_FACTOR, [done], [l], params, grid)?;
        if rows > w {
            // Rows below the block: L21 L11^T = A21, a system whose right sides are rows.
            let block = Place { offset: j0 * n + j0, matrix: n * n, along: n, across: 1 };
            let below = Place { offset: (j0 + w) * n + j0, matrix: n * n, along: 1, across: n };
            let known_at = Place { offset: w * w, matrix: rows * w, along: 1, across: w };
            let job = Job { w, cols: rows - w, batch, backward: false, has_known: known.is_some() };
            let (params, grid) = job.params(gpu, block, below, known_at, below)?;
            gpu.dispatch(&s::LINALG_SOLVE_INSIDE, [done], [l], params, grid)?;
        }
    }
    Ok(())
}

/// For each of `batch` factors `[n, n]` the index of the first diagonal element that is not a positive number, `n` if
/// there is none.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let l = gpu.alloc_from(&[1.0f32, 0.0, 0.0, f32::NAN, 1.0, 0.0, 0.5, 2.0], "l")?; // two factors
/// let out = gpu.alloc(8, "out")?;
/// linalg::first_bad_pivot(&gpu, &l, &out, 2, 2)?;
/// assert_eq!(gpu.read_as::<u32>(&out)?, [1, 2]); // the second one is sound
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn first_bad_pivot(gpu: &Gpu, l: &Storage, out: &Storage, batch: usize, n: usize) -> Result<()> {
    let (grid, gx) = gpu.grid((batch as u64).div_ceil(64))?;
    gpu.dispatch(&s::LINALG_PIVOT, [l], [out], s::PivotParams { n: n as u32, count: batch as u32, gx }, grid)
}

/// X with `op(T) X = B` for `batch` triangular `t` `[n, n]` and right sides `b` `[n, cols]`. T is the upper or the lower
/// triangle of `t`, whose other half is not used; op transposes if `trans`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let t = gpu.alloc_from(&[2.0f32, 0.0, 1.0, 2.0], "t")?;
/// let (b, x) = (gpu.alloc_from(&[4.0f32, 6.0], "b")?, gpu.alloc(8, "x")?); // [2, 1]
/// linalg::solve_triangular(&gpu, &t, &b, &x, [1, 2, 1], false, false)?;
/// assert_eq!(gpu.read_as::<f32>(&x)?, [2.0, 2.0]); // 2 * 2 = 4, 1 * 2 + 2 * 2 = 6
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn solve_triangular(
    gpu: &Gpu,
    t: &Storage,
    b: &Storage,
    x: &Storage,
    [batch, n, cols]: [usize; 3],
    upper: bool,
    trans: bool,
) -> Result<()> {
    if batch * n * cols == 0 {
        return Ok(());
    }
    // Transposing turns an upper triangle into a lower one.
    let backward = upper != trans;
    let blocks = n.div_ceil(BLOCK);
    for step in 0..blocks {
        let i0 = BLOCK * if backward { blocks - 1 - step } else { step };
        let w = BLOCK.min(n - i0);
        let solved = if backward { i0 + w..n } else { 0..i0 };
        let at = |i: usize, j: usize| if trans { j * n + i } else { i * n + j };
        let known = if solved.is_empty() {
            None
        } else {
            let known = gpu.alloc((4 * batch * w * cols) as u64, "solve_triangular")?;
            let mut d = Dims::new(w, cols, solved.len(), trans, false);
            d.batch = [1, batch];
            d.a = Operand { offset: at(i0, solved.start), ld: n, batch: [0, n * n], trans };
            d.b = Operand { offset: solved.start * cols, ld: cols, batch: [0, n * cols], trans: false };
            d.c = Operand { offset: 0, ld: cols, batch: [0, w * cols], trans: false };
            matmul(gpu, t, x, &known, &d, Epilogue::default())?;
            Some(known)
        };
        let (along, across) = if trans { (1, n) } else { (n, 1) };
        let block = Place { offset: at(i0, i0), matrix: n * n, along, across };
        let side = Place { offset: i0 * cols, matrix: n * cols, along: cols, across: 1 };
        let known_at = Place { offset: 0, matrix: w * cols, along: cols, across: 1 };
        let job = Job { w, cols, batch, backward, has_known: known.is_some() };
        let (params, grid) = job.params(gpu, block, side, known_at, side)?;
        gpu.dispatch(&s::LINALG_SOLVE_OWN, [t, b, known.as_ref().unwrap_or(b)], [x], params, grid)?;
    }
    Ok(())
}

/// Where the elements of a block lie, in floats: the first, the next matrix, the next along the block, the next column.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    matrix: usize,
    along: usize,
    across: usize,
}

/// One substitution.
struct Job {
    w: usize,
    cols: usize,
    batch: usize,
    backward: bool,
    has_known: bool,
}

impl Job {
    fn params(&self, gpu: &Gpu, t: Place, b: Place, k: Place, y: Place) -> Result<(s::SolveParams, [u32; 3])> {
        let groups = self.cols.div_ceil(64);
        let (grid, gx) = gpu.grid((groups * self.batch) as u64)?;
        let params = s::SolveParams {
            w: self.w as u32,
            cols: self.cols as u32,
            groups: groups as u32,
            gx,
            t0: t.offset as u32,
            tm: t.matrix as u32,
            ti: t.along as u32,
            tj: t.across as u32,
            b0: b.offset as u32,
            bm: b.matrix as u32,
            bi: b.along as u32,
            bc: b.across as u32,
            k0: k.offset as u32,
            km: k.matrix as u32,
            ki: k.along as u32,
            kc: k.across as u32,
            y0: y.offset as u32,
            ym: y.matrix as u32,
            yi: y.along as u32,
            yc: y.across as u32,
            has_k: u32::from(self.has_known),
            backward: u32::from(self.backward),
            count: (groups * self.batch) as u32,
        };
        Ok((params, grid))
    }
}
