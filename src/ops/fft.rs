//! Real two-dimensional Fourier transforms of NHWC images.
//!
//! A spectrum is `[N, H, W/2 + 1, C, 2]`, real and imaginary part last: the columns that the symmetry of a real image's
//! spectrum does not give. Two linear maps make up everything: [`Tensor::rfft2`] and [`Tensor::irfft2`] are each one of
//! them with some factors per column, and each map is the other's adjoint with the same factors. So all derivatives of
//! any order are again these two. As adjoints they treat the stored columns as independent numbers: no column counts
//! twice unless the transform itself said so.

use shadegrad_kernels::fft as k;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Where the factor `1 / (H W)` of a transform and its inverse goes.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let image = Tensor::ones(&gpu, &[1, 4, 4, 1])?;
/// let [sum, scaled] = [FftNorm::Backward, FftNorm::Ortho].map(|norm| Ok::<_, Error>(image.rfft2(norm)?.to_vec()?[0]));
/// assert!((sum? - 16.0).abs() < 1e-4 && (scaled? - 4.0).abs() < 1e-4);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FftNorm {
    /// All of it on the inverse.
    #[default]
    Backward,
    /// Its square root on both, which makes both keep the length of a vector.
    Ortho,
}

/// The factors of the columns of a half spectrum.
fn factors(scale: f64, doubled: bool) -> k::Scale {
    k::Scale { edge: scale as f32, bulk: (if doubled { 2.0 * scale } else { scale }) as f32 }
}

impl Tensor {
    /// The half spectrum of a real image: `[N, H, W, C]` to `[N, H, W/2 + 1, C, 2]`,
    /// `Y[ky, kx] = s sum x[j, i] e^(-2 pi i (ky j / H + kx i / W))` with `s` 1 or, ortho, `1 / sqrt(H W)`.
    ///
    /// Any size works; sides of 2, 4, 7, 8, 14, 16, 28, 32, 56 and 64 have kernels of their own.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::ones(&gpu, &[1, 4, 4, 1])?;
    /// let spectrum = image.rfft2(FftNorm::Ortho)?;
    /// assert_eq!(spectrum.shape(), [1, 4, 3, 1, 2]); // half of the columns, real and imaginary part
    /// let back = spectrum.irfft2(4, FftNorm::Ortho)?.to_vec()?;
    /// assert!(back.iter().all(|v| (v - 1.0).abs() < 1e-6));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the tensor is not `F32` or has not four dimensions, or an image has no pixels.
    pub fn rfft2(&self, norm: FftNorm) -> Result<Tensor> {
        let (h, w) = self.image_size("rfft2")?;
        let scale = if norm == FftNorm::Ortho { 1.0 / ((h * w) as f64).sqrt() } else { 1.0 };
        self.real_to_half("rfft2", factors(scale, false))
    }

    /// The real image of a half spectrum: `[N, H, width/2 + 1, C, 2]` to `[N, H, width, C]`, the inverse of
    /// [`Tensor::rfft2`] with the same norm. Imaginary parts that a real image cannot have are ignored.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let spectrum = Tensor::from_slice(&gpu, &[4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], &[1, 2, 2, 1, 2])?;
    /// let image = spectrum.irfft2(2, FftNorm::Backward)?; // nothing but the mean
    /// assert_eq!(image.shape(), [1, 2, 2, 1]);
    /// assert!(image.to_vec()?.iter().all(|v| (v - 1.0).abs() < 1e-5));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the tensor is not `F32` or its shape is not that of a half spectrum of this width.
    pub fn irfft2(&self, width: usize, norm: FftNorm) -> Result<Tensor> {
        self.want("irfft2", DType::F32)?;
        let [_, h, half, _, 2] = *self.shape() else {
            return Err(Error::shape(
                "irfft2",
                format!("got {:?}; takes [N, H, W/2 + 1, C, 2], real and imaginary part last", self.shape()),
            ));
        };
        if width == 0 || h == 0 || half != width / 2 + 1 {
            return Err(Error::shape(
                "irfft2",
                format!("{:?} is no half spectrum of width {width}, which has {} columns", self.shape(), width / 2 + 1),
            ));
        }
        let area = (h * width) as f64;
        let scale = if norm == FftNorm::Ortho { 1.0 / area.sqrt() } else { 1.0 / area };
        self.half_to_real("irfft2", width, factors(scale, true))
    }

    /// `irfft2(rfft2(x) * w)`: every channel of `x` `[N, H, W, C]` filtered with its own learned spectrum `w`
    /// `[H, W/2 + 1, C, 2]`, the token mixer of global filter networks (Rao et al., 2021). Where the transforms put their
    /// factor makes no difference here. Square images of 4, 7, 8, 14 and 16 are filtered in one pass, others whose height is
    /// 2, 4, 7, 8, 14, 16, 28, 32, 56 or 64 in three.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?;
    /// let mean_only = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], &[2, 2, 1, 2])?;
    /// assert!(x.spectral_filter(&mean_only)?.to_vec()?.iter().all(|v| (v - 2.5).abs() < 1e-5));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `w` has not the shape that belongs to `x`.
    pub fn spectral_filter(&self, w: &Tensor) -> Result<Tensor> {
        let (h, width) = self.image_size("spectral_filter")?;
        let want = [h, width / 2 + 1, self.dim(3), 2];
        if w.shape() != want {
            return Err(Error::shape(
                "spectral_filter",
                format!("images {:?} take a filter {want:?} (H, W/2 + 1, C, 2), got {:?}", self.shape(), w.shape()),
            ));
        }
        w.want("spectral_filter", DType::F32)?;
        self.same_gpu("spectral_filter", w)?;
        if k::has_spectral([h, width]) {
            return self.filtered(w, false);
        }
        self.rfft2(FftNorm::Ortho)?.complex_mul(w)?.irfft2(width, FftNorm::Ortho)
    }

    /// `irfft2(rfft2(x) * w)`, or with `conj(w)`, by kernels made for it. The map of `x` is its own adjoint up to the conjugate:
    /// the factors of the columns commute with the product.
    fn filtered(&self, w: &Tensor, conj: bool) -> Result<Tensor> {
        let [n, h, width, c] = [self.dim(0), self.dim(1), self.dim(2), self.dim(3)];
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, "spectral_filter")?;
        if out.numel() > 0 {
            k::spectral(self.gpu(), self.storage(), w.storage(), out.storage(), [n, h, width, c], conj)?;
        }
        let (x, w) = (self.clone(), w.clone());
        Ok(out.record("spectral_filter", &[self, &w.clone()], move |ctx, grad| {
            let dw = || {
                // Gradient of the product of spectra, by the adjoint of the inverse transform.
                let dy = grad.real_to_half("spectral_filter", factors(1.0 / (h * width) as f64, true))?;
                let spectrum = x.rfft2(FftNorm::Backward)?;
                let dw = if conj { spectrum.complex_mul_conj(&dy) } else { dy.complex_mul_conj(&spectrum) };
                dw?.sum_to(w.shape())
            };
            Ok(vec![ctx.needs(0).then(|| grad.filtered(&w, !conj)).transpose()?, ctx.needs(1).then(dw).transpose()?])
        }))
    }

    /// The product of complex numbers stored as pairs in a last axis of length 2. `other` has this tensor's shape or its
    /// last dimensions, and repeats over the leading ones.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (a, b) = (Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 2])?, Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?);
    /// assert_eq!(a.complex_mul(&b)?.to_vec()?, [-5.0, 10.0]); // (1 + 2 i) (3 + 4 i)
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the last axis is not 2 or the shapes do not fit.
    pub fn complex_mul(&self, other: &Tensor) -> Result<Tensor> {
        self.complex_product("complex_mul", other, false)
    }

    /// [`Tensor::complex_mul`] with the complex conjugate of `other`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let a = Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?;
    /// assert_eq!(a.complex_mul_conj(&a)?.to_vec()?, [25.0, 0.0]); // |a|^2
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::complex_mul`].
    pub fn complex_mul_conj(&self, other: &Tensor) -> Result<Tensor> {
        self.complex_product("complex_mul_conj", other, true)
    }

    fn complex_product(&self, op: &'static str, other: &Tensor, conj: bool) -> Result<Tensor> {
        self.want(op, DType::F32)?;
        other.want(op, DType::F32)?;
        self.same_gpu(op, other)?;
        if self.shape().last() != Some(&2) || other.rank() == 0 || !self.shape().ends_with(other.shape()) {
            return Err(Error::shape(
                op,
                format!(
                    "{:?} and {:?}: the last axis must be 2 (real, imaginary) and the second shape the end of the first",
                    self.shape(),
                    other.shape()
                ),
            ));
        }
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, op)?;
        if out.numel() > 0 {
            let (n, row) = (out.numel() / 2, other.numel() / 2);
            k::complex_mul(self.gpu(), self.storage(), other.storage(), out.storage(), n, row, conj)?;
        }
        let (x, y) = (self.clone(), other.clone());
        Ok(out.record(op, &[self, other], move |ctx, grad| {
            let dx = || if conj { grad.complex_mul(&y) } else { grad.complex_mul_conj(&y) };
            let dy = || if conj { x.complex_mul_conj(grad) } else { grad.complex_mul_conj(&x) }?.sum_to(y.shape());
            Ok(vec![ctx.needs(0).then(dx).transpose()?, ctx.needs(1).then(dy).transpose()?])
        }))
    }

    /// Height and width of images that have pixels.
    fn image_size(&self, op: &'static str) -> Result<(usize, usize)> {
        self.want(op, DType::F32)?;
        match *self.shape() {
            [_, h, w, _] if h > 0 && w > 0 => Ok((h, w)),
            _ => Err(Error::shape(op, format!("got {:?}; takes [N, H, W, C] with at least one pixel", self.shape()))),
        }
    }

    /// The first of the two maps: see [`k::real_to_half`].
    fn real_to_half(&self, op: &'static str, s: k::Scale) -> Result<Tensor> {
        let [n, h, w, c] = [self.dim(0), self.dim(1), self.dim(2), self.dim(3)];
        let out = Tensor::empty(self.gpu(), &[n, h, w / 2 + 1, c, 2], DType::F32, op)?;
        if out.numel() > 0 {
            k::real_to_half(self.gpu(), self.storage(), out.storage(), [n, h, w, c], s)?;
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.half_to_real(op, w, s)?)])))
    }

    /// The second, its adjoint: see [`k::half_to_real`].
    fn half_to_real(&self, op: &'static str, w: usize, s: k::Scale) -> Result<Tensor> {
        let [n, h, c] = [self.dim(0), self.dim(1), self.dim(3)];
        let out = Tensor::empty(self.gpu(), &[n, h, w, c], DType::F32, op)?;
        if out.numel() > 0 {
            k::half_to_real(self.gpu(), self.storage(), out.storage(), [n, h, w, c], s)?;
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.real_to_half(op, s)?)])))
    }
}
