//! Reductions of `[outer][len][inner]` over the middle, in as many passes as keep every sum short.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::reduce as k;
use shadegrad_shaders::reduce::ReduceParams;

use crate::memory::Storage;
use crate::{Class, Gpu, Result};

/// Threads of a workgroup.
const GROUP: u64 = 256;
/// Most elements that one thread adds up.
const SERIAL: usize = 1024;
/// Fewest elements worth a thread of their own.
const SERIAL_MIN: usize = 32;
/// Threads that fill a device.
const THREADS: usize = 1 << 15;
/// The same for a processor, whose threads are lanes of a few cores.
const THREADS_SOFTWARE: usize = 1 << 11;

/// Reductions to a value.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::reduce::{Reduce, reduce};
/// let (x, y) = (gpu.alloc_from(&[3.0f32, -1.0, 2.0], "x")?, gpu.alloc(4, "y")?);
/// for (f, result) in [(Reduce::Sum, 4.0), (Reduce::Max, 3.0), (Reduce::Min, -1.0)] {
///     reduce(&gpu, f, &x, &y, [1, 3, 1], 1.0)?;
///     assert_eq!(gpu.read_as::<f32>(&y)?, [result]);
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// The sum.
    Sum,
    /// The largest; NaN if there is any.
    Max,
    /// The smallest; NaN if there is any.
    Min,
}

/// Reductions to a value and the index of its first occurrence.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::reduce::{ArgReduce, Index, arg};
/// let x = gpu.alloc_from(&[2.0f32, 5.0, 5.0, -1.0], "x")?;
/// let (y, i) = (gpu.alloc(4, "y")?, gpu.alloc(4, "i")?);
/// arg(&gpu, ArgReduce::Max, &x, None, (&y, &i), [1, 4, 1], Index::Flat)?;
/// assert_eq!((gpu.read_as::<f32>(&y)?, gpu.read_as::<u32>(&i)?), (vec![5.0], vec![1]));
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArgReduce {
    /// The largest; NaN before all.
    Max,
    /// The smallest; NaN before all.
    Min,
}

/// How a pass is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One thread a unit of a row.
    Rows,
    /// 32 lanes a unit of a row.
    Team,
    /// A workgroup a unit of a row.
    Workgroup,
    /// One thread a unit of one or four columns.
    Cols,
}

/// One pass over `[outer][len][inner]`, leaving `[outer][chunks][inner]`.
#[derive(Clone, Copy, Debug)]
struct Pass {
    form: Form,
    vector: bool,
    chunk: usize,
    chunks: usize,
    outer: usize,
    len: usize,
    inner: usize,
}

impl Pass {
    fn plan(gpu: &Gpu, outer: usize, len: usize, inner: usize) -> Self {
        let software = gpu.caps().class == Class::Software;
        let threads = if software { THREADS_SOFTWARE } else { THREADS };
        let (form, vector, groups, longest) = if inner > 1 {
            let vector = inner.is_multiple_of(4);
            (Form::Cols, vector, outer * if vector { inner / 4 } else { inner }, SERIAL)
        } else {
            let vector = outer == 1 || len.is_multiple_of(4);
            let (form, longest) = match len {
                _ if software => (Form::Rows, SERIAL),
                0..=32 => (Form::Rows, SERIAL),
                33..=1024 => (Form::Team, 1024),
                _ => (Form::Workgroup, 1 << 16),
            };
            (form, vector, outer, longest)
        };
        let width = match form {
            Form::Rows | Form::Cols => 1,
            Form::Team => 32,
            Form::Workgroup => 256,
        };
        // Enough units to fill the device, but none shorter than is worth it.
        let wanted = threads.div_ceil(groups * width).max(1);
        let chunk = len.div_ceil(wanted).clamp(SERIAL_MIN * width, longest).next_multiple_of(4);
        Self { form, vector, chunk, chunks: len.div_ceil(chunk), outer, len, inner }
    }

    /// Columns, in the units that threads take.
    fn inner_units(&self) -> usize {
        if self.vector && self.form == Form::Cols { self.inner / 4 } else { self.inner }
    }

    fn params(&self, gpu: &Gpu) -> Result<(ReduceParams, [u32; 3])> {
        let inner = self.inner_units();
        let units = (self.outer * self.chunks * inner) as u64;
        let groups = match self.form {
            Form::Rows | Form::Cols => units.div_ceil(GROUP),
            Form::Team => units.div_ceil(GROUP / 32),
            Form::Workgroup => units,
        };
        let (grid, gx) = gpu.grid(groups)?;
        let params = ReduceParams {
            units: units as u32,
            chunks: self.chunks as u32,
            chunk: self.chunk as u32,
            len: self.len as u32,
            inner: inner as u32,
            gx,
            scale: 1.0,
            div: 1,
            wrap: u32::MAX,
        };
        Ok((params, grid))
    }

    fn partials(&self) -> usize {
        self.outer * self.chunks * self.inner
    }

    /// Picks from kernels in the order of [`forms`].
    fn pick<T: Copy>(&self, gpu: &Gpu, table: [T; 16]) -> T {
        let subgroup = match gpu.caps().subgroup {
            Some(8) => 1,
            Some(32) => 2,
            _ => 0,
        };
        let form = match self.form {
            Form::Rows => 0,
            Form::Cols => 1,
            Form::Team => 2 + subgroup,
            Form::Workgroup => 5 + subgroup,
        };
        table[2 * form + usize::from(self.vector)]
    }
}

/// The kernels of one reduction: rows, columns, teams, workgroups, each scalar and vector.
macro_rules! forms {
    ($($k:ident)+) => { [$(&k::$k),+] };
}

impl Reduce {
    fn kernels(self) -> [&'static Kernel<ReduceParams, 1, 1>; 16] {
        match self {
            Self::Sum => forms![
                REDUCE_ROWS_SUM_1 REDUCE_ROWS_SUM_4 REDUCE_COLS_SUM_1 REDUCE_COLS_SUM_4
                REDUCE_LANES_SUM_1_32_0 REDUCE_LANES_SUM_4_32_0 REDUCE_LANES_SUM_1_32_8 REDUCE_LANES_SUM_4_32_8
                REDUCE_LANES_SUM_1_32_32 REDUCE_LANES_SUM_4_32_32 REDUCE_LANES_SUM_1_256_0 REDUCE_LANES_SUM_4_256_0
                REDUCE_LANES_SUM_1_256_8 REDUCE_LANES_SUM_4_256_8 REDUCE_LANES_SUM_1_256_32 REDUCE_LANES_SUM_4_256_32
            ],
            Self::Max => forms![
                REDUCE_ROWS_MAX_1 REDUCE_ROWS_MAX_4 REDUCE_COLS_MAX_1 REDUCE_COLS_MAX_4
                REDUCE_LANES_MAX_1_32_0 REDUCE_LANES_MAX_4_32_0 REDUCE_LANES_MAX_1_32_8 REDUCE_LANES_MAX_4_32_8
                REDUCE_LANES_MAX_1_32_32 REDUCE_LANES_MAX_4_32_32 REDUCE_LANES_MAX_1_256_0 REDUCE_LANES_MAX_4_256_0
                REDUCE_LANES_MAX_1_256_8 REDUCE_LANES_MAX_4_256_8 REDUCE_LANES_MAX_1_256_32 REDUCE_LANES_MAX_4_256_32
            ],
            Self::Min => forms![
                REDUCE_ROWS_MIN_1 REDUCE_ROWS_MIN_4 REDUCE_COLS_MIN_1 REDUCE_COLS_MIN_4
                REDUCE_LANES_MIN_1_32_0 REDUCE_LANES_MIN_4_32_0 REDUCE_LANES_MIN_1_32_8 REDUCE_LANES_MIN_4_32_8
                REDUCE_LANES_MIN_1_32_32 REDUCE_LANES_MIN_4_32_32 REDUCE_LANES_MIN_1_256_0 REDUCE_LANES_MIN_4_256_0
                REDUCE_LANES_MIN_1_256_8 REDUCE_LANES_MIN_4_256_8 REDUCE_LANES_MIN_1_256_32 REDUCE_LANES_MIN_4_256_32
            ],
        }
    }
}

/// One step over all elements of a group, the last pass scaled by `scale`; `len` must not be 0.
///
/// `y[o][i] = scale * reduce_l x[o][l][i]` (the scale is for sums only).
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::reduce::{Reduce, reduce};
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], "x")?; // [2, 3]
/// let (rows, columns) = (gpu.alloc(8, "rows")?, gpu.alloc(12, "columns")?);
/// reduce(&gpu, Reduce::Sum, &x, &rows, [2, 3, 1], 1.0)?;
/// assert_eq!(gpu.read_as::<f32>(&rows)?, [6.0, 15.0]);
/// reduce(&gpu, Reduce::Sum, &x, &columns, [1, 2, 3], 0.5)?; // the mean of two rows
/// assert_eq!(gpu.read_as::<f32>(&columns)?, [2.5, 3.5, 4.5]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn reduce(
    gpu: &Gpu,
    f: Reduce,
    x: &Storage,
    y: &Storage,
    [outer, len, inner]: [usize; 3],
    scale: f32,
) -> Result<()> {
    let mut from = x.clone();
    let mut len = len;
    loop {
        let pass = Pass::plan(gpu, outer, len, inner);
        let (params, grid) = pass.params(gpu)?;
        let kernel = pass.pick(gpu, f.kernels());
        if pass.chunks == 1 {
            return gpu.dispatch(kernel, [&from], [y], ReduceParams { scale, ..params }, grid);
        }
        let partials = gpu.alloc(4 * pass.partials() as u64, "partials")?;
        gpu.dispatch(kernel, [&from], [&partials], params, grid)?;
        from = partials;
        len = pass.chunks;
    }
}

impl ArgReduce {
    fn kernels(self) -> [&'static Kernel<ReduceParams, 1, 2>; 16] {
        match self {
            Self::Max => forms![
                REDUCE_ROWS_ARGMAX_1_0 REDUCE_ROWS_ARGMAX_4_0 REDUCE_COLS_ARGMAX_1_0 REDUCE_COLS_ARGMAX_4_0
                REDUCE_LANES_ARGMAX_1_32_0_0 REDUCE_LANES_ARGMAX_4_32_0_0 REDUCE_LANES_ARGMAX_1_32_8_0
                REDUCE_LANES_ARGMAX_4_32_8_0 REDUCE_LANES_ARGMAX_1_32_32_0 REDUCE_LANES_ARGMAX_4_32_32_0
                REDUCE_LANES_ARGMAX_1_256_0_0 REDUCE_LANES_ARGMAX_4_256_0_0 REDUCE_LANES_ARGMAX_1_256_8_0
                REDUCE_LANES_ARGMAX_4_256_8_0 REDUCE_LANES_ARGMAX_1_256_32_0 REDUCE_LANES_ARGMAX_4_256_32_0
            ],
            Self::Min => forms![
                REDUCE_ROWS_ARGMIN_1_0 REDUCE_ROWS_ARGMIN_4_0 REDUCE_COLS_ARGMIN_1_0 REDUCE_COLS_ARGMIN_4_0
                REDUCE_LANES_ARGMIN_1_32_0_0 REDUCE_LANES_ARGMIN_4_32_0_0 REDUCE_LANES_ARGMIN_1_32_8_0
                REDUCE_LANES_ARGMIN_4_32_8_0 REDUCE_LANES_ARGMIN_1_32_32_0 REDUCE_LANES_ARGMIN_4_32_32_0
                REDUCE_LANES_ARGMIN_1_256_0_0 REDUCE_LANES_ARGMIN_4_256_0_0 REDUCE_LANES_ARGMIN_1_256_8_0
                REDUCE_LANES_ARGMIN_4_256_8_0 REDUCE_LANES_ARGMIN_1_256_32_0 REDUCE_LANES_ARGMIN_4_256_32_0
            ],
        }
    }

    /// Those that read the indices of an earlier pass.
    fn later_kernels(self) -> [&'static Kernel<ReduceParams, 2, 2>; 16] {
        match self {
            Self::Max => forms![
                REDUCE_ROWS_ARGMAX_1_1 REDUCE_ROWS_ARGMAX_4_1 REDUCE_COLS_ARGMAX_1_1 REDUCE_COLS_ARGMAX_4_1
                REDUCE_LANES_ARGMAX_1_32_0_1 REDUCE_LANES_ARGMAX_4_32_0_1 REDUCE_LANES_ARGMAX_1_32_8_1
                REDUCE_LANES_ARGMAX_4_32_8_1 REDUCE_LANES_ARGMAX_1_32_32_1 REDUCE_LANES_ARGMAX_4_32_32_1
                REDUCE_LANES_ARGMAX_1_256_0_1 REDUCE_LANES_ARGMAX_4_256_0_1 REDUCE_LANES_ARGMAX_1_256_8_1
                REDUCE_LANES_ARGMAX_4_256_8_1 REDUCE_LANES_ARGMAX_1_256_32_1 REDUCE_LANES_ARGMAX_4_256_32_1
            ],
            Self::Min => forms![
                REDUCE_ROWS_ARGMIN_1_1 REDUCE_ROWS_ARGMIN_4_1 REDUCE_COLS_ARGMIN_1_1 REDUCE_COLS_ARGMIN_4_1
                REDUCE_LANES_ARGMIN_1_32_0_1 REDUCE_LANES_ARGMIN_4_32_0_1 REDUCE_LANES_ARGMIN_1_32_8_1
                REDUCE_LANES_ARGMIN_4_32_8_1 REDUCE_LANES_ARGMIN_1_32_32_1 REDUCE_LANES_ARGMIN_4_32_32_1
                REDUCE_LANES_ARGMIN_1_256_0_1 REDUCE_LANES_ARGMIN_4_256_0_1 REDUCE_LANES_ARGMIN_1_256_8_1
                REDUCE_LANES_ARGMIN_4_256_8_1 REDUCE_LANES_ARGMIN_1_256_32_1 REDUCE_LANES_ARGMIN_4_256_32_1
            ],
        }
    }
}

/// Values and indices, each one word per element.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_kernels::reduce::{ArgReduce, Index, arg};
/// let x = gpu.alloc_from(&[4.0f32, 9.0, 7.0, 3.0], "x")?;
/// let (values, indices) = (gpu.alloc(8, "values")?, gpu.alloc(8, "indices")?);
/// let to: reduce::Pairs = (&values, &indices);
/// arg(&gpu, ArgReduce::Min, &x, None, to, [2, 2, 1], Index::Flat)?;
/// assert_eq!(gpu.read_as::<f32>(&values)?, [4.0, 3.0]);
/// assert_eq!(gpu.read_as::<u32>(&indices)?, [0, 3]);
/// # Ok::<(), GpuError>(())
/// ```
pub type Pairs<'a> = (&'a Storage, &'a Storage);

/// What [`arg`] writes for element `i` of the tensor that the first of all passes read.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::reduce::{ArgReduce, Index, arg};
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 4.0, 3.0], "x")?; // [2, 2], by rows
/// let (y, i) = (gpu.alloc(8, "y")?, gpu.alloc(8, "i")?);
/// arg(&gpu, ArgReduce::Max, &x, None, (&y, &i), [2, 2, 1], Index::Flat)?;
/// assert_eq!(gpu.read_as::<u32>(&i)?, [1, 2]);
/// arg(&gpu, ArgReduce::Max, &x, None, (&y, &i), [2, 2, 1], Index::Along { len: 2, inner: 1 })?;
/// assert_eq!(gpu.read_as::<u32>(&i)?, [1, 0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// `i`.
    Flat,
    /// The index along the middle dimension of `[..][len][inner]`.
    Along {
        /// Length of the dimension.
        len: usize,
        /// Elements between two steps along it.
        inner: usize,
    },
}

/// The best of each group and its index, the lowest on ties. `indices` are those of an earlier call with
/// [`Index::Flat`], whose values are `x`; without them the elements of `x` are counted. `len` must not be 0.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::reduce::{ArgReduce, Index, arg};
/// let logits = gpu.alloc_from(&[0.5f32, 2.0, 1.0, 3.0, 0.0, 3.0], "logits")?; // [2, 3]
/// let (best, class) = (gpu.alloc(8, "best")?, gpu.alloc(8, "class")?);
/// arg(&gpu, ArgReduce::Max, &logits, None, (&best, &class), [2, 3, 1], Index::Along { len: 3, inner: 1 })?;
/// assert_eq!(gpu.read_as::<f32>(&best)?, [2.0, 3.0]);
/// assert_eq!(gpu.read_as::<u32>(&class)?, [1, 0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn arg(
    gpu: &Gpu,
    f: ArgReduce,
    x: &Storage,
    indices: Option<&Storage>,
    (y, yi): Pairs<'_>,
    [outer, len, inner]: [usize; 3],
    index: Index,
) -> Result<()> {
    let mut from = (x.clone(), indices.cloned());
    let mut len = len;
    loop {
        let pass = Pass::plan(gpu, outer, len, inner);
        let (mut params, grid) = pass.params(gpu)?;
        let last = pass.chunks == 1;
        if let (true, Index::Along { len, inner }) = (last, index) {
            (params.div, params.wrap) = (inner as u32, len as u32);
        }
        let bytes = 4 * pass.partials() as u64;
        let to = if last {
            (y.clone(), yi.clone())
        } else {
            (gpu.alloc(bytes, "partials")?, gpu.alloc(bytes, "partial indices")?)
        };
        match &from.1 {
            None => gpu.dispatch(pass.pick(gpu, f.kernels()), [&from.0], [&to.0, &to.1], params, grid)?,
            Some(i) => gpu.dispatch(pass.pick(gpu, f.later_kernels()), [&from.0, i], [&to.0, &to.1], params, grid)?,
        }
        if last {
            return Ok(());
        }
        from = (to.0, Some(to.1));
        len = pass.chunks;
    }
}
