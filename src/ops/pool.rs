//! Pooling of NHWC images. The gradient of the largest element puts gradients back at its pixel; the gradient of that
//! picks them again, so that derivatives of any order need nothing else.

use shadegrad_kernels::pool::{self as k, Pool, Windows};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Windows of a pooling. Pairs are (rows, columns), in pixels.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let row = Tensor::from_slice(&gpu, &[1.0, 2.0, 4.0, 3.0], &[1, 1, 4, 1])?;
/// let halves = Pool2d { kernel: [1, 2], stride: [1, 2], padding: [0, 0] };
/// assert_eq!(row.max_pool2d(halves)?.to_vec()?, [2.0, 4.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2d {
    /// Size of a window.
    pub kernel: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// What windows may reach past the image, on both sides; at most half the kernel.
    pub padding: [usize; 2],
}

impl Pool2d {
    /// The same in both directions.
    ///
    /// ```
    /// # use shadegrad::*;
    /// assert_eq!(Pool2d::new(3, 2, 1), Pool2d { kernel: [3, 3], stride: [2, 2], padding: [1, 1] });
    /// ```
    pub fn new(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    fn plan(&self, op: &'static str, x: &Tensor) -> Result<Pool> {
        let [n, h, w, c] = images(op, x)?;
        let mut out = [0; 2];
        for (d, size) in [h, w].into_iter().enumerate() {
            let (kernel, stride, padding) = (self.kernel[d], self.stride[d], self.padding[d]);
            if kernel == 0 || stride == 0 || 2 * padding > kernel {
                return Err(Error::shape(
                    op,
                    format!(
                        "a kernel of {:?} with stride {:?} and padding {:?}: kernel and stride must be at least 1, padding at \
                         most half the kernel",
                        self.kernel, self.stride, self.padding
                    ),
                ));
            }
            let room = (size + 2 * padding).checked_sub(kernel).filter(|_| size > 0).ok_or_else(|| {
                Error::shape(
                    op,
                    format!(
                        "a kernel of {:?} with padding {:?} does not fit into images of {:?}; make it smaller or the images \
                         larger",
                        self.kernel,
                        self.padding,
                        x.shape()
                    ),
                )
            })?;
            out[d] = room / stride + 1;
        }
        Ok(Pool { n, size: [h, w], c, out, windows: Windows::Fixed(self.kernel, self.stride, self.padding) })
    }
}

/// The four lengths of images.
pub(super) fn images(op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    x.want(op, DType::F32)?;
    x.shape().try_into().map_err(|_| {
        Error::shape(op, format!("{:?} are no images; they must be [n, height, width, channels]", x.shape()))
    })
}

fn adaptive(op: &'static str, x: &Tensor, oh: usize, ow: usize) -> Result<Pool> {
    let [n, h, w, c] = images(op, x)?;
    if (h == 0 || w == 0) && oh * ow > 0 {
        return Err(Error::shape(
            op,
            format!("{oh} x {ow} windows over images of {:?}, which have no pixels", x.shape()),
        ));
    }
    // The windows' ends are computed as `window * size` in 31 bits.
    if (h + 1).max(w + 1).saturating_mul((oh + 1).max(ow + 1)) > i32::MAX as usize {
        return Err(Error::shape(op, format!("{oh} x {ow} windows over images of {:?} are too many", x.shape())));
    }
    Ok(Pool { n, size: [h, w], c, out: [oh, ow], windows: Windows::Adaptive })
}

fn small(p: &Pool) -> [usize; 4] {
    [p.n, p.out[0], p.out[1], p.c]
}

fn large(p: &Pool) -> [usize; 4] {
    [p.n, p.size[0], p.size[1], p.c]
}

impl Tensor {
    fn max_windows(&self, op: &'static str, p: Pool) -> Result<(Tensor, Tensor)> {
        let out = Tensor::empty(self.gpu(), &small(&p), DType::F32, op)?;
        let arg = Tensor::empty(self.gpu(), &small(&p), DType::U32, "argmax")?;
        if out.numel() > 0 {
            k::max(self.gpu(), &p, self.storage(), out.storage(), arg.storage())?;
        }
        let at = arg.clone();
        let out = out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.unpool(op, &at, p)?)]));
        Ok((out, arg.record_cut(op, &[self])))
    }

    /// Puts every element at the pixel `arg` of its image, adding those that meet.
    fn unpool(&self, op: &'static str, arg: &Tensor, p: Pool) -> Result<Tensor> {
        let out = Tensor::empty(self.gpu(), &large(&p), DType::F32, op)?;
        if out.numel() > 0 {
            if self.numel() > 0 {
                k::unmax(self.gpu(), &p, self.storage(), arg.storage(), out.storage())?;
            } else {
                self.gpu().zero(out.storage())?;
            }
        }
        let at = arg.clone();
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.pick_pooled(op, &at, p)?)])))
    }

    /// The elements at the pixels `arg`.
    fn pick_pooled(&self, op: &'static str, arg: &Tensor, p: Pool) -> Result<Tensor> {
        let out = Tensor::empty(self.gpu(), &small(&p), DType::F32, op)?;
        if out.numel() > 0 {
            k::pick(self.gpu(), &p, self.storage(), arg.storage(), out.storage())?;
        }
        let at = arg.clone();
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.unpool(op, &at, p)?)])))
    }

    fn avg_windows(&self, op: &'static str, p: Pool) -> Result<Tensor> {
        let out = Tensor::empty(self.gpu(), &small(&p), DType::F32, op)?;
        if out.numel() > 0 {
            k::avg(self.gpu(), &p, self.storage(), out.storage())?;
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.unavg(op, p)?)])))
    }

    /// The adjoint of `avg_windows`.
    fn unavg(&self, op: &'static str, p: Pool) -> Result<Tensor> {
        let out = Tensor::empty(self.gpu(), &large(&p), DType::F32, op)?;
        if out.numel() > 0 {
            if self.numel() > 0 {
                k::unavg(self.gpu(), &p, self.storage(), out.storage())?;
            } else {
                self.gpu().zero(out.storage())?;
            }
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.avg_windows(op, p)?)])))
    }

    /// Largest element of every window of `[N, H, W, C]` images. The result has `(size + 2 padding - kernel) / stride + 1`
    /// rows and columns, rounded down; padding never wins; NaN does. On ties the gradient goes to the first element in
    /// row-major order.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?;
    /// assert_eq!(image.max_pool2d(Pool2d::new(2, 2, 0))?.to_vec()?, [4.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If these are no images, the window does not fit, or the padding is more than half the kernel.
    pub fn max_pool2d(&self, pool: Pool2d) -> Result<Tensor> {
        Ok(self.max_pool2d_indices(pool)?.0)
    }

    /// [`Tensor::max_pool2d`], and the pixel `y * W + x` of every largest element (U32, no gradient).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 9.0, 3.0, 4.0], &[1, 2, 2, 1])?;
    /// let (best, pixel) = image.max_pool2d_indices(Pool2d::new(2, 2, 0))?;
    /// assert_eq!((best.to_vec()?, pixel.to_vec_u32()?), (vec![9.0], vec![1])); // row 0, column 1
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::max_pool2d`].
    pub fn max_pool2d_indices(&self, pool: Pool2d) -> Result<(Tensor, Tensor)> {
        self.max_windows("max_pool2d", pool.plan("max_pool2d", self)?)
    }

    /// Sum of every window of `[N, H, W, C]` images over the kernel's area: padding counts as zeros.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?;
    /// assert_eq!(image.avg_pool2d(Pool2d::new(2, 2, 0))?.to_vec()?, [2.5]);
    /// assert_eq!(image.avg_pool2d(Pool2d::new(2, 2, 1))?.to_vec()?, [0.25, 0.5, 0.75, 1.0]); // one pixel each
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::max_pool2d`].
    pub fn avg_pool2d(&self, pool: Pool2d) -> Result<Tensor> {
        self.avg_windows("avg_pool2d", pool.plan("avg_pool2d", self)?)
    }

    /// Mean of every window of `[N, H, W, C]` images over those of its pixels that lie on the image: padding decides where
    /// windows lie and counts for nothing (PyTorch's `count_include_pad=False`).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?;
    /// assert_eq!(image.avg_pool2d_inside(Pool2d::new(2, 2, 1))?.to_vec()?, [1.0, 2.0, 3.0, 4.0]); // one pixel each
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::max_pool2d`].
    pub fn avg_pool2d_inside(&self, pool: Pool2d) -> Result<Tensor> {
        let mut p = pool.plan("avg_pool2d_inside", self)?;
        // Without padding the two averages are one.
        if pool.padding != [0, 0] {
            p.windows = Windows::Inside(pool.kernel, pool.stride, pool.padding);
        }
        self.avg_windows("avg_pool2d_inside", p)
    }

    /// Means of `oh x ow` windows that cover `[N, H, W, C]` images: window `o` of `n` over `size` pixels goes from
    /// `floor(o size / n)` to `ceil((o + 1) size / n)`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let row = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[1, 1, 3, 1])?;
    /// assert_eq!(row.adaptive_avg_pool2d(1, 2)?.to_vec()?, [1.5, 2.5]); // the middle pixel is in both
    /// assert_eq!(Tensor::ones(&gpu, &[2, 9, 7, 3])?.adaptive_avg_pool2d(4, 4)?.shape(), [2, 4, 4, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If these are no images, or they have no pixels.
    pub fn adaptive_avg_pool2d(&self, oh: usize, ow: usize) -> Result<Tensor> {
        self.avg_windows("adaptive_avg_pool2d", adaptive("adaptive_avg_pool2d", self, oh, ow)?)
    }

    /// Largest elements of the windows of [`Tensor::adaptive_avg_pool2d`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let row = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[1, 1, 3, 1])?;
    /// assert_eq!(row.adaptive_max_pool2d(1, 2)?.to_vec()?, [2.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If these are no images, or they have no pixels.
    pub fn adaptive_max_pool2d(&self, oh: usize, ow: usize) -> Result<Tensor> {
        Ok(self.max_windows("adaptive_max_pool2d", adaptive("adaptive_max_pool2d", self, oh, ow)?)?.0)
    }

    /// Mean over all pixels: `[N, H, W, C]` -> `[N, C]`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let y = Tensor::ones(&gpu, &[2, 4, 4, 3])?.global_avg_pool()?;
    /// assert_eq!(y.to_vec()?, [1.0; 6]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If these are no images, or they have no pixels.
    pub fn global_avg_pool(&self) -> Result<Tensor> {
        let [_, h, w, _] = images("global_avg_pool", self)?;
        if h * w == 0 {
            return Err(Error::shape("global_avg_pool", format!("images of {:?} have no pixels", self.shape())));
        }
        self.mean(&[1, 2], false)
    }
}
