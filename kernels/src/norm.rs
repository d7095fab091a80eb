//! Batch, group, instance and layer normalisation, forward and backward.

use shadegrad_shaders::norm::NormParams;
use shadegrad_shaders::norm_finish::{FinishParams, FixedParams, RunningParams};
use shadegrad_shaders::{Kernel, layer_norm as l, norm as k, norm_finish as f};

use crate::memory::Storage;
use crate::team::Team;
use crate::{Class, Gpu, Result};

/// Kernels by workgroup size (64, 256), then scalars and `vec4`s.
type Table<const R: usize, const W: usize> = [[&'static Kernel<NormParams, R, W>; 2]; 2];

static STATS: Table<1, 2> = [[&k::NORM_STATS_1_64, &k::NORM_STATS_4_64], [&k::NORM_STATS_1_256, &k::NORM_STATS_4_256]];
static APPLY: [Table<2, 1>; 2] = [
    [[&k::NORM_APPLY_1_64_ID, &k::NORM_APPLY_4_64_ID], [&k::NORM_APPLY_1_256_ID, &k::NORM_APPLY_4_256_ID]],
    [[&k::NORM_APPLY_1_64_RELU, &k::NORM_APPLY_4_64_RELU], [&k::NORM_APPLY_1_256_RELU, &k::NORM_APPLY_4_256_RELU]],
];
static SUMS: [Table<3, 2>; 2] = [
    [[&k::NORM_SUMS_1_64_ID, &k::NORM_SUMS_4_64_ID], [&k::NORM_SUMS_1_256_ID, &k::NORM_SUMS_4_256_ID]],
    [[&k::NORM_SUMS_1_64_RELU, &k::NORM_SUMS_4_64_RELU], [&k::NORM_SUMS_1_256_RELU, &k::NORM_SUMS_4_256_RELU]],
];
static ROW_SUMS: Table<3, 2> =
    [[&k::NORM_SUMS_1_64_ROWS, &k::NORM_SUMS_4_64_ROWS], [&k::NORM_SUMS_1_256_ROWS, &k::NORM_SUMS_4_256_ROWS]];
static DX: [Table<4, 1>; 2] = [
    [[&k::NORM_DX_1_64_ID, &k::NORM_DX_4_64_ID], [&k::NORM_DX_1_256_ID, &k::NORM_DX_4_256_ID]],
    [[&k::NORM_DX_1_64_RELU, &k::NORM_DX_4_64_RELU], [&k::NORM_DX_1_256_RELU, &k::NORM_DX_4_256_RELU]],
];
static LAYER: [[&Kernel<l::LayerParams, 3, 2>; 5]; 2] = [
    [&l::LAYER_NORM_1_T1, &l::LAYER_NORM_1_S8, &l::LAYER_NORM_1_S32, &l::LAYER_NORM_1_W64, &l::LAYER_NORM_1_W256],
    [&l::LAYER_NORM_4_T1, &l::LAYER_NORM_4_S8, &l::LAYER_NORM_4_S32, &l::LAYER_NORM_4_W64, &l::LAYER_NORM_4_W256],
];
static DLAYER_KEPT: [[&Kernel<l::LayerParams, 4, 1>; 5]; 2] = [
    [
        &l::DLAYER_NORM_KEPT_1_T1,
        &l::DLAYER_NORM_KEPT_1_S8,
        &l::DLAYER_NORM_KEPT_1_S32,
        &l::DLAYER_NORM_KEPT_1_W64,
        &l::DLAYER_NORM_KEPT_1_W256,
    ],
    [
        &l::DLAYER_NORM_KEPT_4_T1,
        &l::DLAYER_NORM_KEPT_4_S8,
        &l::DLAYER_NORM_KEPT_4_S32,
        &l::DLAYER_NORM_KEPT_4_W64,
        &l::DLAYER_NORM_KEPT_4_W256,
    ],
];
static DLAYER: [[&Kernel<l::LayerParams, 4, 1>; 5]; 2] = [
    [&l::DLAYER_NORM_1_T1, &l::DLAYER_NORM_1_S8, &l::DLAYER_NORM_1_S32, &l::DLAYER_NORM_1_W64, &l::DLAYER_NORM_1_W256],
    [&l::DLAYER_NORM_4_T1, &l::DLAYER_NORM_4_S8, &l::DLAYER_NORM_4_S32, &l::DLAYER_NORM_4_W64, &l::DLAYER_NORM_4_W256],
];

static LAYER_HELD: [[&Kernel<l::LayerParams, 3, 2>; 4]; 2] = [
    [&l::LAYER_NORM_HELD_S8_1, &l::LAYER_NORM_HELD_S8_2, &l::LAYER_NORM_HELD_S8_4, &l::LAYER_NORM_HELD_S8_8],
    [&l::LAYER_NORM_HELD_S32_1, &l::LAYER_NORM_HELD_S32_2, &l::LAYER_NORM_HELD_S32_4, &l::LAYER_NORM_HELD_S32_8],
];
static DLAYER_HELD: [[&Kernel<l::LayerParams, 4, 1>; 4]; 2] = [
    [&l::DLAYER_NORM_HELD_S8_1, &l::DLAYER_NORM_HELD_S8_2, &l::DLAYER_NORM_HELD_S8_4, &l::DLAYER_NORM_HELD_S8_8],
    [&l::DLAYER_NORM_HELD_S32_1, &l::DLAYER_NORM_HELD_S32_2, &l::DLAYER_NORM_HELD_S32_4, &l::DLAYER_NORM_HELD_S32_8],
];

/// Invocations of one workgroup in `norm_finish.wgsl`.
const FINISH: usize = 64;

/// `[batch][rows][cols]` in which the mean and the variance are taken over the rows and over `span` neighbouring columns.
/// No length may be zero; `span` divides `cols`.
///
/// ```
/// # use shadegrad_kernels::*;
/// use shadegrad_kernels::norm::Dims;
/// let (images, pixels, channels) = (8, 32 * 32, 64);
/// let batch_norm = Dims { batch: 1, rows: images * pixels, cols: channels, span: 1 };
/// let group_norm = Dims { batch: images, rows: pixels, cols: channels, span: 4 };
/// assert_eq!((batch_norm.groups(), group_norm.groups()), (64, 8 * 16));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Independent blocks: 1 in batch norm, images in group norm.
    pub batch: usize,
    /// Rows of a block: pixels.
    pub rows: usize,
    /// Columns: channels.
    pub cols: usize,
    /// Columns of a group.
    pub span: usize,
}

impl Dims {
    /// Groups of all blocks: the length of the mean and of the variance.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// // Six channels in groups of three, of two images.
    /// assert_eq!(norm::Dims { batch: 2, rows: 16, cols: 6, span: 3 }.groups(), 4);
    /// ```
    pub fn groups(self) -> usize {
        self.batch * (self.cols / self.span)
    }

    /// Floats of the coefficients that the forward kernels leave to the backward ones.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// assert_eq!(norm::Dims { batch: 2, rows: 16, cols: 6, span: 3 }.coefficients(), 3 * 2 * 6);
    /// ```
    pub fn coefficients(self) -> usize {
        3 * self.batch * self.cols
    }
}

/// The optional scale and shift of each column.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 3.0], "x")?, gpu.alloc(8, "y")?); // two rows of one column
/// let (mean, var) = (gpu.alloc_from(&[1.0f32], "mean")?, gpu.alloc_from(&[4.0f32], "var")?);
/// let (gamma, beta) = (gpu.alloc_from(&[10.0f32], "gamma")?, gpu.alloc_from(&[5.0f32], "beta")?);
/// let affine = norm::Affine { gamma: Some(&gamma), beta: Some(&beta) };
/// norm::normalise_fixed(&gpu, &x, (2, 1), (&mean, &var), affine, 0.0, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [5.0, 15.0]); // 10 (x - 1) / 2 + 5
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Affine<'a> {
    /// Scale, `[cols]`.
    pub gamma: Option<&'a Storage>,
    /// Shift, `[cols]`.
    pub beta: Option<&'a Storage>,
}

impl Affine<'_> {
    fn bits(self) -> u32 {
        u32::from(self.gamma.is_some()) | u32::from(self.beta.is_some()) << 1
    }
}

/// How one kernel over columns is cut into workgroups.
struct Cut {
    wide: usize,
    vector: usize,
    params: NormParams,
    grid: [u32; 3],
}

impl Cut {
    /// `per_lane`: rows that an invocation should handle at least; `groups`: workgroups beyond which there is no use.
    fn new(gpu: &Gpu, dims: Dims, per_lane: usize, groups: usize) -> Result<Self> {
        let wide = usize::from(gpu.caps().class != Class::Software);
        let size = [64, 256][wide];
        let vector = usize::from(dims.cols.is_multiple_of(4));
        let cols = if vector == 1 { dims.cols / 4 } else { dims.cols };
        let tx = cols.next_power_of_two().min(size);
        let blocks = cols.div_ceil(tx);
        let least = dims.rows.div_ceil(size / tx * per_lane);
        let chunks = (groups / (blocks * dims.batch)).clamp(1, least);
        let chunk = dims.rows.div_ceil(chunks);
        let chunks = dims.rows.div_ceil(chunk);
        let (grid, gx) = gpu.grid((blocks * chunks * dims.batch) as u64)?;
        let params = NormParams {
            batch: dims.batch as u32,
            rows: dims.rows as u32,
            cols: cols as u32,
            chunk: chunk as u32,
            chunks: chunks as u32,
            tx: tx as u32,
            blocks: blocks as u32,
            gx,
        };
        Ok(Self { wide, vector, params, grid })
    }

    /// For a reduction over rows.
    fn reduce(gpu: &Gpu, dims: Dims) -> Result<Self> {
        let groups = if gpu.caps().class == Class::Software { 64 } else { 1024 };
        Self::new(gpu, dims, 8, groups)
    }

    /// For a kernel that writes every element: invocations reuse a column's coefficients over some rows.
    fn map(gpu: &Gpu, dims: Dims) -> Result<Self> {
        Self::new(gpu, dims, if gpu.caps().class == Class::Software { 16 } else { 4 }, usize::MAX)
    }

    fn of<const R: usize, const W: usize>(&self, table: &Table<R, W>) -> &'static Kernel<NormParams, R, W> {
        table[self.wide][self.vector]
    }

    fn partials(&self, dims: Dims) -> u64 {
        4 * (dims.batch * dims.cols) as u64 * u64::from(self.params.chunks)
    }
}

/// The parameters and grid of a finishing kernel over `count` groups of `items` partial values.
fn finish(
    gpu: &Gpu,
    dims: Dims,
    cut: &NormParams,
    count: usize,
    items: usize,
    eps: f32,
) -> Result<(FinishParams, [u32; 3])> {
    // Four values an invocation, then a tree.
    let lanes = items.div_ceil(4).next_power_of_two().min(FINISH);
    let tx = FINISH / lanes;
    let (grid, gx) = gpu.grid(count.div_ceil(tx) as u64)?;
    let params = FinishParams {
        batch: dims.batch as u32,
        rows: dims.rows as u32,
        cols: dims.cols as u32,
        span: dims.span as u32,
        chunk: cut.chunk,
        chunks: cut.chunks,
        tx: tx as u32,
        gx,
        eps,
        affine: 0,
        scaled: 1,
    };
    Ok((params, grid))
}

/// Takes statistics of `x` and normalises it by them into `y`, through ReLU if `relu`. Writes the means and biased
/// variances of the groups, and the coefficients that [`normalise_grad`] needs.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::norm::{Affine, Dims, normalise};
/// let dims = Dims { batch: 1, rows: 2, cols: 2, span: 1 }; // two pixels of two channels
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 10.0, 3.0, 30.0], "x")?, gpu.alloc(16, "y")?);
/// let (mean, var) = (gpu.alloc(8, "mean")?, gpu.alloc(8, "var")?);
/// let coef = gpu.alloc(4 * dims.coefficients() as u64, "coef")?;
/// normalise(&gpu, &x, dims, Affine::default(), 0.0, false, (&y, &mean, &var, &coef))?;
/// assert_eq!((gpu.read_as::<f32>(&mean)?, gpu.read_as::<f32>(&var)?), (vec![2.0, 20.0], vec![1.0, 100.0]));
/// assert!(gpu.read_as::<f32>(&y)?.iter().zip([-1.0, -1.0, 1.0, 1.0]).all(|(y, to)| (y - to).abs() < 1e-6));
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn normalise(
    gpu: &Gpu,
    x: &Storage,
    dims: Dims,
    affine: Affine,
    eps: f32,
    relu: bool,
    (y, mean, var, coef): (&Storage, &Storage, &Storage, &Storage),
) -> Result<()> {
    let cut = Cut::reduce(gpu, dims)?;
    let part_mean = gpu.alloc(cut.partials(dims), "norm")?;
    let part_m2 = gpu.alloc(cut.partials(dims), "norm")?;
    gpu.dispatch(cut.of(&STATS), [x], [&part_mean, &part_m2], cut.params, cut.grid)?;
    let items = cut.params.chunks as usize * dims.span;
    let (mut params, grid) = finish(gpu, dims, &cut.params, dims.groups(), items, eps)?;
    params.affine = affine.bits();
    let reads = [&part_mean, &part_m2, affine.gamma.unwrap_or(&part_mean), affine.beta.unwrap_or(&part_mean)];
    gpu.dispatch(&f::NORM_FINISH, reads, [mean, var, coef], params, grid)?;
    apply(gpu, x, dims, coef, relu, y)
}

/// Normalises `[rows][cols]` by given means and variances `[cols]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::norm::{Affine, normalise_fixed};
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 3.0, 5.0], "x")?, gpu.alloc(12, "y")?); // three rows of one column
/// let (mean, var) = (gpu.alloc_from(&[1.0f32], "mean")?, gpu.alloc_from(&[4.0f32], "var")?);
/// normalise_fixed(&gpu, &x, (3, 1), (&mean, &var), Affine::default(), 0.0, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.0, 1.0, 2.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn normalise_fixed(
    gpu: &Gpu,
    x: &Storage,
    (rows, cols): (usize, usize),
    (mean, var): (&Storage, &Storage),
    affine: Affine,
    eps: f32,
    y: &Storage,
) -> Result<()> {
    let dims = Dims { batch: 1, rows, cols, span: 1 };
    let coef = gpu.alloc(4 * dims.coefficients() as u64, "norm")?;
    let (grid, gx) = gpu.grid(cols.div_ceil(64) as u64)?;
    let params = FixedParams { n: cols as u32, gx, eps, affine: affine.bits() };
    let reads = [mean, var, affine.gamma.unwrap_or(mean), affine.beta.unwrap_or(mean)];
    gpu.dispatch(&f::NORM_FIXED, reads, [&coef], params, grid)?;
    apply(gpu, x, dims, &coef, false, y)
}

fn apply(gpu: &Gpu, x: &Storage, dims: Dims, coef: &Storage, relu: bool, y: &Storage) -> Result<()> {
    let cut = Cut::map(gpu, dims)?;
    gpu.dispatch(cut.of(&APPLY[usize::from(relu)]), [x, coef], [y], cut.params, cut.grid)
}

/// Gradients of [`normalise`] from `dy`, the gradient of `y`: always `dx`; those of gamma and beta, `[cols]`, if asked.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::norm::{Affine, Dims, normalise, normalise_grad};
/// let dims = Dims { batch: 1, rows: 4, cols: 1, span: 1 };
/// let x = gpu.alloc_from(&[-1.0f32, -1.0, 1.0, 1.0], "x")?;
/// let [y, mean, var, coef, dx, dgamma, dbeta] = [16, 4, 4, 12, 16, 4, 4].map(|n| gpu.alloc(n, "norm"));
/// # let (y, mean, var, coef, dx, dgamma, dbeta) = (y?, mean?, var?, coef?, dx?, dgamma?, dbeta?);
/// normalise(&gpu, &x, dims, Affine::default(), 0.0, false, (&y, &mean, &var, &coef))?;
/// let dy = gpu.alloc_from(&[1.0f32, 0.0, 0.0, 0.0], "dy")?;
/// normalise_grad(&gpu, (&x, &dy), dims, (&var, &coef), 0.0, false, &dx, Some((&dgamma, &dbeta)))?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [0.5, -0.5, 0.0, 0.0]);
/// assert_eq!((gpu.read_as::<f32>(&dgamma)?, gpu.read_as::<f32>(&dbeta)?), (vec![-1.0], vec![1.0]));
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn normalise_grad(
    gpu: &Gpu,
    (x, dy): (&Storage, &Storage),
    dims: Dims,
    (var, coef): (&Storage, &Storage),
    eps: f32,
    relu: bool,
    dx: &Storage,
    params: Option<(&Storage, &Storage)>,
) -> Result<()> {
    let relu = usize::from(relu);
    let cut = Cut::reduce(gpu, dims)?;
    let part_s = gpu.alloc(cut.partials(dims), "norm")?;
    let part_t = gpu.alloc(cut.partials(dims), "norm")?;
    gpu.dispatch(cut.of(&SUMS[relu]), [x, dy, coef], [&part_s, &part_t], cut.params, cut.grid)?;
    let dcoef = gpu.alloc(8 * (dims.batch * dims.cols) as u64, "norm")?;
    let chunks = cut.params.chunks as usize;
    let (finish_params, grid) = finish(gpu, dims, &cut.params, dims.groups(), chunks * dims.span, eps)?;
    let reads = [&part_s, &part_t, var, coef];
    match params {
        Some((dgamma, dbeta)) if dims.batch == 1 && dims.span == 1 => {
            gpu.dispatch(&f::NORM_DFINISH_1, reads, [&dcoef, dgamma, dbeta], finish_params, grid)?;
        }
        Some((dgamma, dbeta)) => {
            gpu.dispatch(&f::NORM_DFINISH_0, reads, [&dcoef], finish_params, grid)?;
            let (params, grid) = finish(gpu, dims, &cut.params, dims.cols, chunks * dims.batch, eps)?;
            gpu.dispatch(&f::NORM_DPARAMS, [&part_s, &part_t, var], [dgamma, dbeta], params, grid)?;
        }
        None => gpu.dispatch(&f::NORM_DFINISH_0, reads, [&dcoef], finish_params, grid)?,
    }
    let cut = Cut::map(gpu, dims)?;
    gpu.dispatch(cut.of(&DX[relu]), [x, dy, coef, &dcoef], [dx], cut.params, cut.grid)
}

/// `running = (1 - momentum) * running + momentum * statistic`, in place, for means and variances `[len]`; the variance
/// over `n` elements is taken unbiased, times `n / (n - 1)` (and as it is where `n` is 1).
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (mean, var) = (gpu.alloc_from(&[2.0f32], "mean")?, gpu.alloc_from(&[1.0f32], "var")?); // over two elements
/// let running = (gpu.alloc_from(&[0.0f32], "mean")?, gpu.alloc_from(&[1.0f32], "var")?);
/// norm::update_running(&gpu, (&mean, &var), (&running.0, &running.1), 0.5, 2, 1)?;
/// assert_eq!(gpu.read_as::<f32>(&running.0)?, [1.0]);
/// assert_eq!(gpu.read_as::<f32>(&running.1)?, [1.5]); // half of 1, and half of 2 / (2 - 1)
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn update_running(
    gpu: &Gpu,
    (mean, var): (&Storage, &Storage),
    (running_mean, running_var): (&Storage, &Storage),
    momentum: f32,
    n: usize,
    len: usize,
) -> Result<()> {
    let (grid, gx) = gpu.grid(len.div_ceil(64) as u64)?;
    let unbias = if n > 1 { n as f32 / (n - 1) as f32 } else { 1.0 };
    let params = RunningParams { n: len as u32, gx, keep: 1.0 - momentum, unbias };
    gpu.dispatch(&f::NORM_RUNNING, [mean, var], [running_mean, running_var], params, grid)
}

/// Layer norm of `rows` rows of `len` floats into `y`; `stat` (two floats a row) is for [`layer_norm_grad`].
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc_from(&[1.0f32, 3.0, 10.0, 30.0], "x")?; // two rows of two
/// let (y, stat) = (gpu.alloc(16, "y")?, gpu.alloc(16, "stat")?);
/// norm::layer_norm(&gpu, &x, (2, 2), norm::Affine::default(), 0.0, (&y, &stat))?;
/// assert!(gpu.read_as::<f32>(&y)?.iter().zip([-1.0, 1.0, -1.0, 1.0]).all(|(y, to)| (y - to).abs() < 1e-6));
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn layer_norm(
    gpu: &Gpu,
    x: &Storage,
    (rows, len): (usize, usize),
    affine: Affine,
    eps: f32,
    (y, stat): (&Storage, &Storage),
) -> Result<()> {
    let (team, vector, params, grid) = layer(gpu, rows, len, affine, eps)?;
    let reads = [x, affine.gamma.unwrap_or(x), affine.beta.unwrap_or(x)];
    let kernel = team.held(&LAYER_HELD, len).unwrap_or(team.of(&LAYER, vector));
    gpu.dispatch(kernel, reads, [y, stat], params, grid)
}

/// Gradients of [`layer_norm`]: always `dx`; those of gamma and beta, `[len]`, if asked.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc_from(&[-1.0f32, -1.0, 1.0, 1.0], "x")?; // one row
/// let [y, stat, dx, dgamma, dbeta] = [16, 8, 16, 16, 16].map(|n| gpu.alloc(n, "norm"));
/// # let (y, stat, dx, dgamma, dbeta) = (y?, stat?, dx?, dgamma?, dbeta?);
/// norm::layer_norm(&gpu, &x, (1, 4), norm::Affine::default(), 0.0, (&y, &stat))?;
/// let dy = gpu.alloc_from(&[1.0f32, 0.0, 0.0, 0.0], "dy")?;
/// norm::layer_norm_grad(&gpu, (&x, &dy), (1, 4), None, &stat, &dx, Some((&dgamma, &dbeta)))?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [0.5, -0.5, 0.0, 0.0]);
/// assert_eq!(gpu.read_as::<f32>(&dgamma)?, [-1.0, 0.0, 0.0, 0.0]);
/// assert_eq!(gpu.read_as::<f32>(&dbeta)?, [1.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn layer_norm_grad(
    gpu: &Gpu,
    (x, dy): (&Storage, &Storage),
    (rows, len): (usize, usize),
    gamma: Option<&Storage>,
    stat: &Storage,
    dx: &Storage,
    params: Option<(&Storage, &Storage)>,
) -> Result<()> {
    let (team, vector, row, grid) = layer(gpu, rows, len, Affine { gamma, beta: None }, 0.0)?;
    let kernel = team.held(&DLAYER_HELD, len).unwrap_or(team.of(&DLAYER, vector));
    gpu.dispatch(kernel, [x, dy, gamma.unwrap_or(x), stat], [dx], row, grid)?;
    let Some((dgamma, dbeta)) = params else { return Ok(()) };
    let dims = Dims { batch: 1, rows, cols: len, span: 1 };
    let cut = Cut::reduce(gpu, dims)?;
    let part_s = gpu.alloc(cut.partials(dims), "norm")?;
    let part_t = gpu.alloc(cut.partials(dims), "norm")?;
    gpu.dispatch(cut.of(&ROW_SUMS), [x, dy, stat], [&part_s, &part_t], cut.params, cut.grid)?;
    let (mut params, grid) = finish(gpu, dims, &cut.params, len, cut.params.chunks as usize, 0.0)?;
    params.scaled = 0;
    gpu.dispatch(&f::NORM_DPARAMS, [&part_s, &part_t, stat], [dgamma, dbeta], params, grid)
}

/// `dx` of [`layer_norm`] from what was kept of the normalised elements, `n` `[rows][len]` with 0 for the others, and
/// `1 / sqrt(var + eps)` of each row: with `h = dy gamma`, `dx = (h - mean(h) - n mean(h n)) / sqrt(var + eps)`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let n = gpu.alloc_from(&[-1.0f32, 0.0, 0.0, 1.0], "n")?; // of -1, -1, 1, 1 the outer two were kept
/// let dy = gpu.alloc_from(&[1.0f32, 0.0, 0.0, 0.0], "dy")?;
/// let (deviation, dx) = (gpu.alloc_from(&[1.0f32], "deviation")?, gpu.alloc(16, "dx")?);
/// norm::layer_norm_grad_kept(&gpu, (&n, &dy), (1, 4), None, &deviation, &dx)?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [0.5, -0.25, -0.25, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn layer_norm_grad_kept(
    gpu: &Gpu,
    (n, dy): (&Storage, &Storage),
    (rows, len): (usize, usize),
    gamma: Option<&Storage>,
    deviation: &Storage,
    dx: &Storage,
) -> Result<()> {
    let (team, vector, row, grid) = layer(gpu, rows, len, Affine { gamma, beta: None }, 0.0)?;
    gpu.dispatch(team.of(&DLAYER_KEPT, vector), [n, dy, gamma.unwrap_or(n), deviation], [dx], row, grid)
}

fn layer(
    gpu: &Gpu,
    rows: usize,
    len: usize,
    affine: Affine,
    eps: f32,
) -> Result<(Team, bool, l::LayerParams, [u32; 3])> {
    let team = Team::pick(gpu, rows, len);
    let vector = len.is_multiple_of(4);
    let (grid, gx) = team.grid(gpu, rows)?;
    let len = if vector { len / 4 } else { len } as u32;
    Ok((team, vector, l::LayerParams { rows: rows as u32, len, gx, affine: affine.bits(), eps }, grid))
}
