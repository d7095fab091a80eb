//! Images at other sizes and samples at other positions, NHWC. Conventions are those of PyTorch's `interpolate` and
//! `grid_sample`.

use shadegrad_kernels::resize::{self as k, Mode, Resize, Sample};

use super::pool::images;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// What [`Tensor::grid_sample`] finds outside the image.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let image = Tensor::from_slice(&gpu, &[2.0, 4.0], &[1, 1, 2, 1])?;
/// let edge = Tensor::from_slice(&gpu, &[-1.0, 0.0], &[1, 1, 1, 2])?; // half a pixel left of the first centre
/// assert_eq!(image.grid_sample(&edge, Outside::Zeros)?.item()?, 1.0);
/// assert_eq!(image.grid_sample(&edge, Outside::Border)?.item()?, 2.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outside {
    /// Pixels outside are zero.
    Zeros,
    /// Positions outside move to the nearest pixel centre of the border.
    Border,
}

impl Tensor {
    fn resize(&self, op: &'static str, oh: usize, ow: usize, mode: Mode) -> Result<Tensor> {
        let [n, h, w, c] = images(op, self)?;
        if h * w == 0 && oh * ow > 0 {
            return Err(Error::shape(op, format!("{:?} has no pixels to make {oh} x {ow} from", self.shape())));
        }
        // Positions are whole numbers up to 2 * size * outputs, in 31 bits.
        if [(h, oh), (w, ow)].iter().any(|&(size, out)| 4 * (size + 1).saturating_mul(out + 1) > i32::MAX as usize) {
            return Err(Error::shape(
                op,
                format!("from {:?} to {oh} x {ow} is too large; go in two steps", self.shape()),
            ));
        }
        self.resample(op, Resize { n, size: [h, w], c, out: [oh, ow], mode })
    }

    fn resample(&self, op: &'static str, r: Resize) -> Result<Tensor> {
        let out = Tensor::empty(self.gpu(), &[r.n, r.out[0], r.out[1], r.c], DType::F32, op)?;
        if out.numel() > 0 {
            k::resize(self.gpu(), &r, self.storage(), out.storage())?;
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.unresample(op, r)?)])))
    }

    /// The adjoint of `resample`.
    fn unresample(&self, op: &'static str, r: Resize) -> Result<Tensor> {
        let out = Tensor::empty(self.gpu(), &[r.n, r.size[0], r.size[1], r.c], DType::F32, op)?;
        if out.numel() > 0 {
            if self.numel() > 0 {
                k::unresize(self.gpu(), &r, self.storage(), out.storage())?;
            } else {
                self.gpu().zero(out.storage())?;
            }
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.resample(op, r)?)])))
    }

    /// `[N, H, W, C]` images at `oh x ow`: pixel `o` of `n` is pixel `floor(o size / n)` of the original.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 1, 2, 1])?;
    /// assert_eq!(image.resize_nearest(1, 4)?.to_vec()?, [1.0, 1.0, 2.0, 2.0]);
    /// assert_eq!(image.resize_nearest(2, 1)?.to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If these are no images, or they have no pixels.
    pub fn resize_nearest(&self, oh: usize, ow: usize) -> Result<Tensor> {
        self.resize("resize_nearest", oh, ow, Mode::Nearest)
    }

    /// `[N, H, W, C]` images at `oh x ow`, interpolated between the four nearest pixels. With `align_corners` the centres
    /// of the corner pixels coincide (a single pixel is the first one); without, the outer edges of the images do, and what
    /// lies before the first centre or past the last takes its value.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[0.0, 2.0], &[1, 1, 2, 1])?;
    /// assert_eq!(image.resize_bilinear(1, 3, true)?.to_vec()?, [0.0, 1.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If these are no images, or they have no pixels.
    pub fn resize_bilinear(&self, oh: usize, ow: usize, align_corners: bool) -> Result<Tensor> {
        self.resize("resize_bilinear", oh, ow, if align_corners { Mode::BilinearCorners } else { Mode::Bilinear })
    }

    /// Bilinear samples of `[N, H, W, C]` images at `grid [N, oh, ow, 2]` of (x, y) positions: -1 and 1 are the outer edges
    /// of the image, so pixel `i` of `size` lies at `(2 i + 1) / size - 1`.
    ///
    /// The gradient for the images adds the positions of each image in order, without atomics, so that it repeats bit for
    /// bit; only images, channels and ranges of pixels are worked on at once. When gradients are differentiated again they
    /// are composed of index operations, which takes about ten times as long.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?;
    /// let grid = Tensor::from_slice(&gpu, &[0.0, 0.0, 0.5, -0.5], &[1, 1, 2, 2])?; // the middle, a pixel
    /// assert_eq!(image.grid_sample(&grid, Outside::Zeros)?.to_vec()?, [2.5, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If these are no images, they have no pixels, or the grid does not fit.
    pub fn grid_sample(&self, grid: &Tensor, outside: Outside) -> Result<Tensor> {
        const OP: &str = "grid_sample";
        let [n, h, w, c] = images(OP, self)?;
        grid.want(OP, DType::F32)?;
        self.same_gpu(OP, grid)?;
        let (oh, ow) = match *grid.shape() {
            [m, oh, ow, 2] if m == n => (oh, ow),
            _ => {
                return Err(Error::shape(
                    OP,
                    format!(
                        "a grid of {:?} for images of {:?}; it must be [{n}, rows, columns, 2], the last being (x, y)",
                        grid.shape(),
                        self.shape()
                    ),
                ));
            }
        };
        if h * w == 0 && n * oh * ow * c > 0 {
            return Err(Error::shape(OP, format!("images of {:?} have no pixels", self.shape())));
        }
        let s = Sample { n, size: [h, w], c, m: oh * ow, border: outside == Outside::Border };
        let out = Tensor::empty(self.gpu(), &[n, oh, ow, c], DType::F32, OP)?;
        if out.numel() > 0 {
            k::sample(self.gpu(), &s, self.storage(), grid.storage(), out.storage())?;
        }
        let (x, grid) = (self.clone(), grid.clone());
        Ok(out.record(OP, &[&x.clone(), &grid.clone()], move |ctx, dy| {
            if dy.numel() == 0 || x.numel() == 0 {
                return Ok(vec![Some(Tensor::zeros(x.gpu(), x.shape())?), Some(Tensor::zeros(x.gpu(), grid.shape())?)]);
            }
            if ctx.create_graph() {
                let (dx, dgrid) = sample_grads(&x, &grid, dy, &s)?;
                return Ok(vec![Some(dx), Some(dgrid)]);
            }
            let dx = || {
                let dx = Tensor::empty(x.gpu(), x.shape(), DType::F32, OP)?;
                k::sample_x(x.gpu(), &s, grid.storage(), dy.storage(), dx.storage())?;
                Ok::<_, Error>(dx)
            };
            let dgrid = || {
                let dgrid = Tensor::empty(x.gpu(), grid.shape(), DType::F32, OP)?;
                k::sample_grid(x.gpu(), &s, x.storage(), grid.storage(), dy.storage(), dgrid.storage())?;
                Ok::<_, Error>(dgrid)
            };
            Ok(vec![ctx.needs(0).then(dx).transpose()?, ctx.needs(1).then(dgrid).transpose()?])
        }))
    }
}

/// Gradients of a sampling for the images and the grid, made of operations that have gradients themselves.
fn sample_grads(x: &Tensor, grid: &Tensor, dy: &Tensor, s: &Sample) -> Result<(Tensor, Tensor)> {
    let gpu = x.gpu();
    let count = s.n * s.m;
    let pixels = s.n * s.size[0] * s.size[1];
    let index = Tensor::empty(gpu, &[4, count], DType::U32, "grid_sample")?;
    let mask = Tensor::empty(gpu, &[4, count, 1], DType::F32, "grid_sample")?;
    let low = Tensor::empty(gpu, &[count, 2], DType::F32, "grid_sample")?;
    k::corners(gpu, s, grid.storage(), [index.storage(), mask.storage(), low.storage()])?;

    // Distance from the pixel up and left, and how far the position moves with the grid; columns, then rows.
    let along = |d: usize| -> Result<(Tensor, Tensor)> {
        let size = s.size[1 - d] as f32;
        let mut at =
            grid.reshape(&[count, 2])?.narrow(1, d, 1)?.mul_scalar(0.5 * size)?.add_scalar(0.5 * (size - 1.0))?;
        let mut slope = Tensor::full(gpu, &[count, 1], 0.5 * size)?;
        if s.border {
            let end = Tensor::scalar(gpu, size - 1.0)?;
            slope = slope.mul(&at.ge(&Tensor::scalar(gpu, 0.0)?)?)?.mul(&at.le(&end)?)?;
            at = at.clamp(0.0, size - 1.0)?;
        }
        Ok((at.sub(&low.narrow(1, d, 1)?)?, slope))
    };
    let ((fx, slope_x), (fy, slope_y)) = (along(0)?, along(1)?);
    let rest = |f: &Tensor| f.neg()?.add_scalar(1.0);
    let (gx, gy) = (rest(&fx)?, rest(&fy)?);
    let part = |t: &Tensor, i: usize| t.narrow(0, i, 1)?.squeeze(0);

    let dy = dy.reshape(&[count, s.c])?;
    let flat = x.reshape(&[pixels, s.c])?;
    let mut dx = Tensor::zeros(gpu, &[pixels, s.c])?;
    let mut values = Vec::with_capacity(4);
    for (i, (wy, wx)) in [(&gy, &gx), (&gy, &fx), (&fy, &gx), (&fy, &fx)].into_iter().enumerate() {
        let (at, inside) = (part(&index, i)?, part(&mask, i)?);
        dx = dx.index_add(0, &at, &dy.mul(&wy.mul(wx)?.mul(&inside)?)?)?;
        values.push(flat.index_select(0, &at)?.mul(&inside)?);
    }
    let [v00, v01, v10, v11] = [&values[0], &values[1], &values[2], &values[3]];
    let in_x = v01.sub(v00)?.mul(&gy)?.add(&v11.sub(v10)?.mul(&fy)?)?;
    let in_y = v10.sub(v00)?.mul(&gx)?.add(&v11.sub(v01)?.mul(&fx)?)?;
    let total = |t: Tensor, slope: &Tensor| dy.mul(&t)?.sum_to(&[count, 1])?.mul(slope);
    let dgrid = Tensor::concat(&[&total(in_x, &slope_x)?, &total(in_y, &slope_y)?], 1)?.reshape(grid.shape())?;
    Ok((dx.reshape(x.shape())?, dgrid))
}
