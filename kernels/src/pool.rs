//! Pooling of NHWC images, and its adjoints in gather form.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::pool as k;
use shadegrad_shaders::pool::PoolParams;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// The windows of a pooling.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::pool::{Pool, Windows, avg};
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0], "x")?, gpu.alloc(8, "y")?); // 1 x 3
/// for (windows, means) in [
///     (Windows::Adaptive, [1.5, 2.5]), // two windows that share a pixel
///     (Windows::Fixed([1, 2], [1, 2], [0, 1]), [0.5, 2.5]),
///     (Windows::Inside([1, 2], [1, 2], [0, 1]), [1.0, 2.5]), // the padding does not count
/// ] {
///     avg(&gpu, &Pool { n: 1, size: [1, 3], c: 1, out: [1, 2], windows }, &x, &y)?;
///     assert_eq!(gpu.read_as::<f32>(&y)?, means);
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Kernel, stride and padding, each (rows, columns).
    Fixed([usize; 2], [usize; 2], [usize; 2]),
    /// As `Fixed`, but averages are over the pixels of the image alone.
    Inside([usize; 2], [usize; 2], [usize; 2]),
    /// Window `o` of `n` over `size` pixels is `floor(o size / n) .. ceil((o + 1) size / n)`.
    Adaptive,
}

/// Sizes of a pooling: images `[n, h, w, c]` and results `[n, oh, ow, c]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::pool::{Pool, Windows, avg};
/// // Halves the side of one image of 4 x 4.
/// let windows = Windows::Fixed([2, 2], [2, 2], [0, 0]);
/// let p = Pool { n: 1, size: [4, 4], c: 1, out: [2, 2], windows };
/// let (x, y) = (gpu.alloc_from(&[3.0f32; 16], "x")?, gpu.alloc(16, "y")?);
/// avg(&gpu, &p, &x, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [3.0; 4]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Images.
    pub n: usize,
    /// Rows and columns of an image.
    pub size: [usize; 2],
    /// Channels.
    pub c: usize,
    /// Rows and columns of windows.
    pub out: [usize; 2],
    /// The windows.
    pub windows: Windows,
}

impl Pool {
    /// Channels an invocation, as index into kernel tables: 0 for one, 1 for four.
    fn unit(&self) -> usize {
        usize::from(self.c.is_multiple_of(4))
    }

    /// Whether the windows tile the image exactly.
    fn tiles(&self) -> bool {
        matches!(self.windows, Windows::Fixed(kernel, stride, [0, 0]) if kernel == stride
            && (0..2).all(|d| self.out[d] * kernel[d] == self.size[d]))
    }

    /// Index into kernel tables: window, adaptive. For largest elements, which padding never is, the other two agree.
    fn mode(&self) -> usize {
        usize::from(self.windows == Windows::Adaptive)
    }

    /// Index into the tables of averages: window, adaptive, inside.
    fn average(&self) -> usize {
        match self.windows {
            Windows::Fixed(..) => 0,
            Windows::Adaptive => 1,
            Windows::Inside(..) => 2,
        }
    }

    fn pixels(&self) -> usize {
        self.n * self.size[0] * self.size[1]
    }

    fn outputs(&self) -> usize {
        self.n * self.out[0] * self.out[1]
    }

    /// Grid and parameters for `pixels` pixels, one unit of channels an invocation.
    fn plan(&self, gpu: &Gpu, pixels: usize) -> Result<([u32; 3], PoolParams)> {
        let c = if self.unit() == 1 { self.c / 4 } else { self.c };
        let n = pixels * c;
        let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
        let (kernel, stride, padding) = match self.windows {
            Windows::Fixed(k, s, p) | Windows::Inside(k, s, p) => (k, s, p),
            Windows::Adaptive => ([1; 2], [1; 2], [0; 2]),
        };
        let params = PoolParams {
            n: n as u32,
            gx,
            c: c as u32,
            h: self.size[0] as u32,
            w: self.size[1] as u32,
            oh: self.out[0] as u32,
            ow: self.out[1] as u32,
            kh: kernel[0] as u32,
            kw: kernel[1] as u32,
            sh: stride[0] as u32,
            sw: stride[1] as u32,
            ph: padding[0] as u32,
            pw: padding[1] as u32,
            scale: 1.0 / (kernel[0] * kernel[1]) as f32,
        };
        Ok((grid, params))
    }
}

/// Largest element of every window, and its pixel `iy * w + ix` (the first on ties).
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let windows = pool::Windows::Fixed([2, 2], [2, 2], [0, 0]);
/// # let p = pool::Pool { n: 1, size: [2, 2], c: 1, out: [1, 1], windows };
/// let x = gpu.alloc_from(&[1.0f32, 5.0, 3.0, 4.0], "x")?; // 2 x 2, one window
/// let (y, arg) = (gpu.alloc(4, "y")?, gpu.alloc(4, "arg")?);
/// pool::max(&gpu, &p, &x, &y, &arg)?;
/// assert_eq!((gpu.read_as::<f32>(&y)?, gpu.read_as::<u32>(&arg)?), (vec![5.0], vec![1]));
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn max(gpu: &Gpu, p: &Pool, x: &Storage, y: &Storage, arg: &Storage) -> Result<()> {
    let table: [[&Kernel<PoolParams, 1, 2>; 2]; 2] =
        [[&k::MAX_1_WINDOW, &k::MAX_1_ADAPTIVE], [&k::MAX_4_WINDOW, &k::MAX_4_ADAPTIVE]];
    let (grid, params) = p.plan(gpu, p.outputs())?;
    gpu.dispatch(table[p.unit()][p.mode()], [x], [y, arg], params, grid)
}

/// The elements of `x` at the pixels that [`max`] found.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let windows = pool::Windows::Fixed([2, 2], [2, 2], [0, 0]);
/// # let p = pool::Pool { n: 1, size: [2, 2], c: 1, out: [1, 1], windows };
/// let x = gpu.alloc_from(&[10.0f32, 20.0, 30.0, 40.0], "x")?; // 2 x 2, one window
/// let (arg, y) = (gpu.alloc_from(&[1u32], "arg")?, gpu.alloc(4, "y")?);
/// pool::pick(&gpu, &p, &x, &arg, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [20.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn pick(gpu: &Gpu, p: &Pool, x: &Storage, arg: &Storage, y: &Storage) -> Result<()> {
    let (grid, params) = p.plan(gpu, p.outputs())?;
    gpu.dispatch([&k::PICK_1, &k::PICK_4][p.unit()], [x, arg], [y], params, grid)
}

/// The adjoint of [`pick`]: the gradient of [`max`].
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let windows = pool::Windows::Fixed([2, 2], [2, 2], [0, 0]);
/// # let p = pool::Pool { n: 1, size: [2, 2], c: 1, out: [1, 1], windows };
/// let (dy, arg) = (gpu.alloc_from(&[7.0f32], "dy")?, gpu.alloc_from(&[1u32], "arg")?);
/// let dx = gpu.alloc(16, "dx")?; // 2 x 2, one window
/// pool::unmax(&gpu, &p, &dy, &arg, &dx)?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [0.0, 7.0, 0.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn unmax(gpu: &Gpu, p: &Pool, dy: &Storage, arg: &Storage, dx: &Storage) -> Result<()> {
    if p.tiles() {
        let (grid, params) = p.plan(gpu, p.outputs())?;
        return gpu.dispatch([&k::UNMAX_1_TILES, &k::UNMAX_4_TILES][p.unit()], [dy, arg], [dx], params, grid);
    }
    let table: [[&Kernel<PoolParams, 2, 1>; 2]; 2] =
        [[&k::UNMAX_1_WINDOW, &k::UNMAX_1_ADAPTIVE], [&k::UNMAX_4_WINDOW, &k::UNMAX_4_ADAPTIVE]];
    let (grid, params) = p.plan(gpu, p.pixels())?;
    gpu.dispatch(table[p.unit()][p.mode()], [dy, arg], [dx], params, grid)
}

/// Sum of every window over its area; padding counts as zeros, or not at all if the windows are `Inside`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let windows = pool::Windows::Fixed([2, 2], [2, 2], [0, 0]);
/// # let p = pool::Pool { n: 1, size: [2, 2], c: 1, out: [1, 1], windows };
/// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "x")?; // 2 x 2, one window
/// let y = gpu.alloc(4, "y")?;
/// pool::avg(&gpu, &p, &x, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [2.5]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn avg(gpu: &Gpu, p: &Pool, x: &Storage, y: &Storage) -> Result<()> {
    let table: [[&Kernel<PoolParams, 1, 1>; 3]; 2] = [
        [&k::AVG_1_WINDOW, &k::AVG_1_ADAPTIVE, &k::AVG_1_INSIDE],
        [&k::AVG_4_WINDOW, &k::AVG_4_ADAPTIVE, &k::AVG_4_INSIDE],
    ];
    let (grid, params) = p.plan(gpu, p.outputs())?;
    gpu.dispatch(table[p.unit()][p.average()], [x], [y], params, grid)
}

/// The adjoint of [`avg`].
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let windows = pool::Windows::Fixed([2, 2], [2, 2], [0, 0]);
/// # let p = pool::Pool { n: 1, size: [2, 2], c: 1, out: [1, 1], windows };
/// let (dy, dx) = (gpu.alloc_from(&[4.0f32], "dy")?, gpu.alloc(16, "dx")?); // 2 x 2, one window
/// pool::unavg(&gpu, &p, &dy, &dx)?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [1.0; 4]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn unavg(gpu: &Gpu, p: &Pool, dy: &Storage, dx: &Storage) -> Result<()> {
    if p.tiles() {
        let (grid, params) = p.plan(gpu, p.outputs())?;
        return gpu.dispatch([&k::UNAVG_1_TILES, &k::UNAVG_4_TILES][p.unit()], [dy], [dx], params, grid);
    }
    let table: [[&Kernel<PoolParams, 1, 1>; 3]; 2] = [
        [&k::UNAVG_1_WINDOW, &k::UNAVG_1_ADAPTIVE, &k::UNAVG_1_INSIDE],
        [&k::UNAVG_4_WINDOW, &k::UNAVG_4_ADAPTIVE, &k::UNAVG_4_INSIDE],
    ];
    let (grid, params) = p.plan(gpu, p.pixels())?;
    gpu.dispatch(table[p.unit()][p.average()], [dy], [dx], params, grid)
}
