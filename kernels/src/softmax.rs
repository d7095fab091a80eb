//! Softmax and its logarithm along one axis, and their gradients.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::softmax as k;
use shadegrad_shaders::softmax::{SoftmaxColParams, SoftmaxRowParams};

use crate::memory::Storage;
use crate::team::Team;
use crate::{Gpu, Result};

type RowTable<const R: usize> = [[&'static Kernel<SoftmaxRowParams, R, 1>; 5]; 2];
type HeldTable<const R: usize> = [[&'static Kernel<SoftmaxRowParams, R, 1>; 4]; 2];
type ColTable<const R: usize> = [&'static Kernel<SoftmaxColParams, R, 1>; 2];

static SOFT: RowTable<1> = [
    [
        &k::SOFTMAX_ROW_SOFT_1_T1,
        &k::SOFTMAX_ROW_SOFT_1_S8,
        &k::SOFTMAX_ROW_SOFT_1_S32,
        &k::SOFTMAX_ROW_SOFT_1_W64,
        &k::SOFTMAX_ROW_SOFT_1_W256,
    ],
    [
        &k::SOFTMAX_ROW_SOFT_4_T1,
        &k::SOFTMAX_ROW_SOFT_4_S8,
        &k::SOFTMAX_ROW_SOFT_4_S32,
        &k::SOFTMAX_ROW_SOFT_4_W64,
        &k::SOFTMAX_ROW_SOFT_4_W256,
    ],
];
static LOG: RowTable<1> = [
    [
        &k::SOFTMAX_ROW_LOG_1_T1,
        &k::SOFTMAX_ROW_LOG_1_S8,
        &k::SOFTMAX_ROW_LOG_1_S32,
        &k::SOFTMAX_ROW_LOG_1_W64,
        &k::SOFTMAX_ROW_LOG_1_W256,
    ],
    [
        &k::SOFTMAX_ROW_LOG_4_T1,
        &k::SOFTMAX_ROW_LOG_4_S8,
        &k::SOFTMAX_ROW_LOG_4_S32,
        &k::SOFTMAX_ROW_LOG_4_W64,
        &k::SOFTMAX_ROW_LOG_4_W256,
    ],
];
static DSOFT: RowTable<2> = [
    [
        &k::DSOFTMAX_ROW_SOFT_1_T1,
        &k::DSOFTMAX_ROW_SOFT_1_S8,
        &k::DSOFTMAX_ROW_SOFT_1_S32,
        &k::DSOFTMAX_ROW_SOFT_1_W64,
        &k::DSOFTMAX_ROW_SOFT_1_W256,
    ],
    [
        &k::DSOFTMAX_ROW_SOFT_4_T1,
        &k::DSOFTMAX_ROW_SOFT_4_S8,
        &k::DSOFTMAX_ROW_SOFT_4_S32,
        &k::DSOFTMAX_ROW_SOFT_4_W64,
        &k::DSOFTMAX_ROW_SOFT_4_W256,
    ],
];
static DLOG: RowTable<2> = [
    [
        &k::DSOFTMAX_ROW_LOG_1_T1,
        &k::DSOFTMAX_ROW_LOG_1_S8,
        &k::DSOFTMAX_ROW_LOG_1_S32,
        &k::DSOFTMAX_ROW_LOG_1_W64,
        &k::DSOFTMAX_ROW_LOG_1_W256,
    ],
    [
        &k::DSOFTMAX_ROW_LOG_4_T1,
        &k::DSOFTMAX_ROW_LOG_4_S8,
        &k::DSOFTMAX_ROW_LOG_4_S32,
        &k::DSOFTMAX_ROW_LOG_4_W64,
        &k::DSOFTMAX_ROW_LOG_4_W256,
    ],
];
static SOFT_HELD: HeldTable<1> = [
    [&k::SOFTMAX_HELD_SOFT_S8_1, &k::SOFTMAX_HELD_SOFT_S8_2, &k::SOFTMAX_HELD_SOFT_S8_4, &k::SOFTMAX_HELD_SOFT_S8_8],
    [
        &k::SOFTMAX_HELD_SOFT_S32_1,
        &k::SOFTMAX_HELD_SOFT_S32_2,
        &k::SOFTMAX_HELD_SOFT_S32_4,
        &k::SOFTMAX_HELD_SOFT_S32_8,
    ],
];
static LOG_HELD: HeldTable<1> = [
    [&k::SOFTMAX_HELD_LOG_S8_1, &k::SOFTMAX_HELD_LOG_S8_2, &k::SOFTMAX_HELD_LOG_S8_4, &k::SOFTMAX_HELD_LOG_S8_8],
    [&k::SOFTMAX_HELD_LOG_S32_1, &k::SOFTMAX_HELD_LOG_S32_2, &k::SOFTMAX_HELD_LOG_S32_4, &k::SOFTMAX_HELD_LOG_S32_8],
];
static DSOFT_HELD: HeldTable<2> = [
    [
        &k::DSOFTMAX_HELD_SOFT_S8_1,
        &k::DSOFTMAX_HELD_SOFT_S8_2,
        &k::DSOFTMAX_HELD_SOFT_S8_4,
        &k::DSOFTMAX_HELD_SOFT_S8_8,
    ],
    [
        &k::DSOFTMAX_HELD_SOFT_S32_1,
        &k::DSOFTMAX_HELD_SOFT_S32_2,
        &k::DSOFTMAX_HELD_SOFT_S32_4,
        &k::DSOFTMAX_HELD_SOFT_S32_8,
    ],
];
static DLOG_HELD: HeldTable<2> = [
    [&k::DSOFTMAX_HELD_LOG_S8_1, &k::DSOFTMAX_HELD_LOG_S8_2, &k::DSOFTMAX_HELD_LOG_S8_4, &k::DSOFTMAX_HELD_LOG_S8_8],
    [
        &k::DSOFTMAX_HELD_LOG_S32_1,
        &k::DSOFTMAX_HELD_LOG_S32_2,
        &k::DSOFTMAX_HELD_LOG_S32_4,
        &k::DSOFTMAX_HELD_LOG_S32_8,
    ],
];
static SOFT_COL: ColTable<1> = [&k::SOFTMAX_COL_SOFT_1, &k::SOFTMAX_COL_SOFT_4];
static LOG_COL: ColTable<1> = [&k::SOFTMAX_COL_LOG_1, &k::SOFTMAX_COL_LOG_4];
static DSOFT_COL: ColTable<2> = [&k::DSOFTMAX_COL_SOFT_1, &k::DSOFTMAX_COL_SOFT_4];
static DLOG_COL: ColTable<2> = [&k::DSOFTMAX_COL_LOG_1, &k::DSOFTMAX_COL_LOG_4];

/// `[outer][len][inner]`; the axis is the middle. No length may be zero.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::softmax::{Lanes, softmax};
/// let x = gpu.alloc_from(&[0.0f32; 6], "x")?; // [2, 3]
/// let y = gpu.alloc(24, "y")?;
/// softmax(&gpu, false, &x, &y, Lanes { outer: 1, len: 2, inner: 3 })?; // along the first axis
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.5; 6]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    /// Product of the lengths before the axis.
    pub outer: usize,
    /// Length of the axis.
    pub len: usize,
    /// Product of the lengths after the axis.
    pub inner: usize,
}

/// `y = softmax(x)`, or its logarithm if `log`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::softmax::{Lanes, softmax};
/// let x = gpu.alloc_from(&[0.0f32, 3f32.ln()], "x")?;
/// let y = gpu.alloc(8, "y")?;
/// softmax(&gpu, false, &x, &y, Lanes { outer: 1, len: 2, inner: 1 })?;
/// assert!(gpu.read_as::<f32>(&y)?.iter().zip([0.25, 0.75]).all(|(y, to)| (y - to).abs() < 1e-6));
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn softmax(gpu: &Gpu, log: bool, x: &Storage, y: &Storage, lanes: Lanes) -> Result<()> {
    if log {
        run(gpu, (&LOG, &LOG_HELD), LOG_COL, [x], y, lanes)
    } else {
        run(gpu, (&SOFT, &SOFT_HELD), SOFT_COL, [x], y, lanes)
    }
}

/// The gradient of [`softmax`] from its result `y` and that result's gradient `dy`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::softmax::{Lanes, softmax_grad};
/// let y = gpu.alloc_from(&[0.5f32, 0.5], "y")?; // the result of `softmax`
/// let (dy, dx) = (gpu.alloc_from(&[1.0f32, 0.0], "dy")?, gpu.alloc(8, "dx")?);
/// softmax_grad(&gpu, false, &y, &dy, &dx, Lanes { outer: 1, len: 2, inner: 1 })?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [0.25, -0.25]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn softmax_grad(gpu: &Gpu, log: bool, y: &Storage, dy: &Storage, dx: &Storage, lanes: Lanes) -> Result<()> {
    if log {
        run(gpu, (&DLOG, &DLOG_HELD), DLOG_COL, [y, dy], dx, lanes)
    } else {
        run(gpu, (&DSOFT, &DSOFT_HELD), DSOFT_COL, [y, dy], dx, lanes)
    }
}

fn run<const R: usize>(
    gpu: &Gpu,
    (row, held): (&RowTable<R>, &HeldTable<R>),
    col: ColTable<R>,
    reads: [&Storage; R],
    to: &Storage,
    Lanes { outer, len, inner }: Lanes,
) -> Result<()> {
    if inner == 1 {
        let team = Team::pick(gpu, outer, len);
        let vector = len.is_multiple_of(4);
        let (grid, gx) = team.grid(gpu, outer)?;
        let kernel = team.held(held, len).unwrap_or(team.of(row, vector));
        let len = if vector { len / 4 } else { len } as u32;
        let params = SoftmaxRowParams { rows: outer as u32, len, gx, ..Default::default() };
        return gpu.dispatch(kernel, reads, [to], params, grid);
    }
    let vector = inner.is_multiple_of(4);
    let inner = if vector { inner / 4 } else { inner };
    let n = outer * inner;
    let (grid, gx) = gpu.grid((n as u64).div_ceil(64))?;
    let params = SoftmaxColParams { n: n as u32, len: len as u32, inner: inner as u32, gx };
    gpu.dispatch(col[usize::from(vector)], reads, [to], params, grid)
}
