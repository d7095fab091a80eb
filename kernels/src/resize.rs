//! Images at other sizes and samples at other positions, NHWC, and the adjoints.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::resize as k;
use shadegrad_shaders::resize::{ResizeParams, SampleParams};

use crate::memory::Storage;
use crate::{Class, Gpu, Result};

/// How a resized image samples the original.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Mode, Resize, resize};
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0], "x")?, gpu.alloc(16, "y")?);
/// for (mode, row) in [
///     (Mode::Nearest, [1.0, 1.0, 2.0, 2.0]),
///     (Mode::Bilinear, [1.0, 1.25, 1.75, 2.0]),
/// ] {
///     resize(&gpu, &Resize { n: 1, size: [1, 2], c: 1, out: [1, 4], mode }, &x, &y)?;
///     assert_eq!(gpu.read_as::<f32>(&y)?, row);
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Pixel `floor(o * size / outputs)`.
    Nearest,
    /// Between the four nearest pixels; the outer edges of the images coincide.
    Bilinear,
    /// The same with the centres of the corner pixels coinciding.
    BilinearCorners,
}

/// Sizes of a change of size: images `[n, h, w, c]` and results `[n, oh, ow, c]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Mode, Resize, resize};
/// let wider = Resize { n: 1, size: [1, 2], c: 1, out: [1, 3], mode: Mode::BilinearCorners };
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 3.0], "x")?, gpu.alloc(12, "y")?);
/// resize(&gpu, &wider, &x, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, 2.0, 3.0]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Images.
    pub n: usize,
    /// Rows and columns of an image.
    pub size: [usize; 2],
    /// Channels.
    pub c: usize,
    /// Rows and columns of the result.
    pub out: [usize; 2],
    /// Sampling.
    pub mode: Mode,
}

impl Resize {
    /// Output `o` lies at `max(o * m + m0, 0) / d`: `[m, m0, d]` along one axis.
    fn line(&self, axis: usize) -> [i32; 3] {
        let (size, out) = (self.size[axis] as i32, self.out[axis] as i32);
        match self.mode {
            Mode::BilinearCorners if out == 1 => [0, 0, 1],
            Mode::BilinearCorners => [size - 1, 0, out - 1],
            _ => [2 * size, size - out, 2 * out],
        }
    }

    fn run(
        &self,
        gpu: &Gpu,
        table: [[&Kernel<ResizeParams, 1, 1>; 2]; 2],
        size: [usize; 2],
        x: &Storage,
        y: &Storage,
    ) -> Result<()> {
        let by4 = self.c.is_multiple_of(4);
        let c = if by4 { self.c / 4 } else { self.c };
        let n = self.n * size[0] * size[1] * c;
        let (grid, gx) = gpu.grid((n as u64).div_ceil(256))?;
        let ([my, my0, dy], [mx, mx0, dx]) = (self.line(0), self.line(1));
        let params = ResizeParams {
            n: n as u32,
            gx,
            c: c as u32,
            h: self.size[0] as u32,
            w: self.size[1] as u32,
            oh: self.out[0] as u32,
            ow: self.out[1] as u32,
            my,
            my0,
            dy,
            mx,
            mx0,
            dx,
        };
        let kernel = table[usize::from(self.mode != Mode::Nearest)][usize::from(by4)];
        gpu.dispatch(kernel, [x], [y], params, grid)
    }
}

/// `y [n, oh, ow, c]` from `x [n, h, w, c]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Mode, Resize, resize};
/// let half = Resize { n: 1, size: [2, 2], c: 1, out: [1, 1], mode: Mode::Bilinear };
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "x")?, gpu.alloc(4, "y")?);
/// resize(&gpu, &half, &x, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [2.5]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn resize(gpu: &Gpu, r: &Resize, x: &Storage, y: &Storage) -> Result<()> {
    r.run(gpu, [[&k::NEAREST_1, &k::NEAREST_4], [&k::BILINEAR_1, &k::BILINEAR_4]], r.out, x, y)
}

/// The adjoint of [`resize`]: `dx [n, h, w, c]` from `dy [n, oh, ow, c]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Mode, Resize, unresize};
/// let wider = Resize { n: 1, size: [1, 2], c: 1, out: [1, 4], mode: Mode::Nearest };
/// let (dy, dx) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "dy")?, gpu.alloc(8, "dx")?);
/// unresize(&gpu, &wider, &dy, &dx)?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [3.0, 7.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn unresize(gpu: &Gpu, r: &Resize, dy: &Storage, dx: &Storage) -> Result<()> {
    r.run(gpu, [[&k::UNNEAREST_1, &k::UNNEAREST_4], [&k::UNBILINEAR_1, &k::UNBILINEAR_4]], r.size, dy, dx)
}

/// Sizes of a sampling: images `[n, h, w, c]` at `m` positions each.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Sample, sample};
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 3.0], "x")?, gpu.alloc(4, "y")?); // 1 x 2
/// let right = gpu.alloc_from(&[1.0f32, 0.0], "grid")?; // the edge, half a pixel beyond the last centre
/// for (border, value) in [(true, 3.0), (false, 1.5)] {
///     sample(&gpu, &Sample { n: 1, size: [1, 2], c: 1, m: 1, border }, &x, &right, &y)?;
///     assert_eq!(gpu.read_as::<f32>(&y)?, [value]);
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Images.
    pub n: usize,
    /// Rows and columns of an image.
    pub size: [usize; 2],
    /// Channels.
    pub c: usize,
    /// Positions in each image.
    pub m: usize,
    /// Positions outside move to the border; otherwise pixels outside are zero.
    pub border: bool,
}

impl Sample {
    /// Grid and parameters for `count` invocations (times the channels, if `channels`), and the kernel's index.
    fn plan(&self, gpu: &Gpu, count: usize, channels: bool) -> Result<([u32; 3], SampleParams, usize)> {
        let by4 = self.c.is_multiple_of(4);
        let c = if by4 { self.c / 4 } else { self.c };
        let n = if channels { count * c } else { count };
        let (grid, gx) = gpu.grid((n as u64).div_ceil(64))?;
        let params = SampleParams {
            n: n as u32,
            gx,
            c: c as u32,
            h: self.size[0] as u32,
            w: self.size[1] as u32,
            m: self.m as u32,
            border: self.border.into(),
            per_range: 0,
            images: self.n as u32,
        };
        Ok((grid, params, usize::from(by4)))
    }
}

/// `y [n, m, c]`: `x` at the positions `grid [n, m, 2]` of (column, row) in -1..1.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Sample, sample};
/// let s = Sample { n: 1, size: [1, 2], c: 1, m: 2, border: true };
/// let x = gpu.alloc_from(&[1.0f32, 3.0], "x")?;
/// let grid = gpu.alloc_from(&[[-0.5f32, 0.0], [0.0, 0.0]], "grid")?; // the left pixel, and between both
/// let y = gpu.alloc(8, "y")?;
/// sample(&gpu, &s, &x, &grid, &y)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, 2.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn sample(gpu: &Gpu, s: &Sample, x: &Storage, grid: &Storage, y: &Storage) -> Result<()> {
    let (groups, params, by4) = s.plan(gpu, s.n * s.m, true)?;
    gpu.dispatch([&k::SAMPLE_1, &k::SAMPLE_4][by4], [x, grid], [y], params, groups)
}

/// Gradient of [`sample`] for the grid.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Sample, sample_grid};
/// let s = Sample { n: 1, size: [1, 2], c: 1, m: 1, border: true };
/// let (x, grid) = (gpu.alloc_from(&[1.0f32, 3.0], "x")?, gpu.alloc_from(&[0.0f32, 0.0], "grid")?);
/// let (dy, dgrid) = (gpu.alloc_from(&[1.0f32], "dy")?, gpu.alloc(8, "dgrid")?);
/// sample_grid(&gpu, &s, &x, &grid, &dy, &dgrid)?;
/// assert_eq!(gpu.read_as::<f32>(&dgrid)?[0], 2.0); // two units of the grid are two pixels
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn sample_grid(gpu: &Gpu, s: &Sample, x: &Storage, grid: &Storage, dy: &Storage, dgrid: &Storage) -> Result<()> {
    let (groups, params, by4) = s.plan(gpu, s.n * s.m, false)?;
    gpu.dispatch([&k::SAMPLE_GRID_1, &k::SAMPLE_GRID_4][by4], [x, grid, dy], [dgrid], params, groups)
}

/// Gradient of [`sample`] for `x`. Every image's positions are taken one after the other, so that the result repeats bit
/// for bit; channels, images and ranges of pixels are independent.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Sample, sample_x};
/// let s = Sample { n: 1, size: [1, 2], c: 1, m: 1, border: true };
/// let grid = gpu.alloc_from(&[0.0f32, 0.0], "grid")?; // between both pixels
/// let (dy, dx) = (gpu.alloc_from(&[4.0f32], "dy")?, gpu.alloc(8, "dx")?);
/// sample_x(&gpu, &s, &grid, &dy, &dx)?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [2.0, 2.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn sample_x(gpu: &Gpu, s: &Sample, grid: &Storage, dy: &Storage, dx: &Storage) -> Result<()> {
    gpu.zero(dx)?;
    let pixels = s.size[0] * s.size[1];
    let fibres = s.n * if s.c.is_multiple_of(4) { s.c / 4 } else { s.c };
    // Invocations that keep the device busy, and the most ranges that may read the same positions.
    let (wanted, most) = match gpu.caps().class {
        Class::Software => (64, 8),
        Class::Integrated => (1 << 14, 256),
        Class::Discrete => (1 << 16, 1024),
    };
    let per_range = pixels.div_ceil((wanted / fibres).clamp(1, most.min(pixels)));
    let ranges = pixels.div_ceil(per_range);
    let (groups, mut params, by4) = s.plan(gpu, s.n * ranges, true)?;
    params.per_range = per_range as u32;
    gpu.dispatch([&k::SAMPLE_X_1, &k::SAMPLE_X_4][by4], [grid, dy], [dx], params, groups)
}

/// For every position of a grid: its four pixels counted over all images `index [4, n m]`, whether they are inside
/// `mask [4, n m]` (1 or 0), and the column and row up and left of it `low [n m, 2]`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::resize::{Sample, corners};
/// let s = Sample { n: 1, size: [2, 2], c: 1, m: 1, border: false };
/// let grid = gpu.alloc_from(&[0.0f32, 0.0], "grid")?; // the middle of 2 x 2 pixels
/// let (index, mask, low) = (gpu.alloc(16, "index")?, gpu.alloc(16, "mask")?, gpu.alloc(8, "low")?);
/// corners(&gpu, &s, &grid, [&index, &mask, &low])?;
/// assert_eq!(gpu.read_as::<u32>(&index)?, [0, 1, 2, 3]);
/// assert_eq!(gpu.read_as::<f32>(&mask)?, [1.0; 4]);
/// assert_eq!(gpu.read_as::<f32>(&low)?, [0.0, 0.0]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn corners(gpu: &Gpu, s: &Sample, grid: &Storage, [index, mask, low]: [&Storage; 3]) -> Result<()> {
    let (groups, params, _) = s.plan(gpu, s.n * s.m, false)?;
    gpu.dispatch(&k::CORNERS, [grid], [index, mask, low], params, groups)
}
