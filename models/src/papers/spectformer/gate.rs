//! The spectral gate and what mixes tokens in its place.

use shadegrad::nn::{Cx, Init, Module, MultiHeadAttention, ParamId, Scope};
use shadegrad::{Error, FftNorm, Result, Tensor};

/// The half spectrum of real maps `[B, H, W, C]` with orthonormal scaling: real and imaginary part, each
/// `[B, H, W/2 + 1, C]`. [`Tensor::rfft2`] is the same with the parts as pairs in one tensor.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::spectformer::rfft2;
/// let (re, im) = rfft2(&Tensor::ones(&gpu, &[1, 2, 2, 1])?)?;
/// // All that a constant map has is its mean.
/// assert!((re.to_vec()?[0] - 2.0).abs() < 1e-6 && re.to_vec()?[1..].iter().all(|v| v.abs() < 1e-6));
/// assert!(im.to_vec()?.iter().all(|v| v.abs() < 1e-6));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If `x` has not four dimensions, or a map has no cells.
pub fn rfft2(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let y = x.rfft2(FftNorm::Ortho)?;
    Ok((y.select_at(4, 0)?, y.select_at(4, 1)?))
}

/// The real maps `[B, h, w, C]` of a half spectrum given by its parts, each `[B, h, w/2 + 1, C]`: the inverse of
/// [`rfft2`]. What of the spectrum no real map can have is ignored, as a standard real inverse does.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::spectformer::{irfft2, rfft2};
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 5.0], &[1, 2, 2, 1])?;
/// let (re, im) = rfft2(&x)?;
/// let back = irfft2(&re, &im, (2, 2))?.to_vec()?;
/// assert!(back.iter().zip([1.0, 2.0, 3.0, 5.0]).all(|(a, b)| (a - b).abs() < 1e-5));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the parts differ in shape, or are not a half spectrum of an `h` x `w` grid.
pub fn irfft2(re: &Tensor, im: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
    if re.shape() != im.shape() || re.rank() != 4 || re.dim(1) != h {
        return Err(Error::shape(
            "irfft2",
            format!(
                "real part {:?} and imaginary part {:?}; a {h} x {w} grid takes [B, {h}, {}, C] for both",
                re.shape(),
                im.shape(),
                w / 2 + 1
            ),
        ));
    }
    Tensor::stack(&[re, im], 4)?.irfft2(w, FftNorm::Ortho)
}

/// Mixes the tokens of a grid: the part of a transformer block that a spectral gate and attention both are.
///
/// [`SpectFormer::with_mixers`](super::SpectFormer::with_mixers) builds a network of any.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::spectformer::{SpectFormer, SpectFormerConfig, TokenMixer};
/// /// The mean of all tokens, for each of them.
/// struct Mean;
/// impl TokenMixer for Mean {
///     fn mix(&self, _: &Cx, x: &Tensor, _: (usize, usize)) -> Result<Tensor> {
///         x.mean(&[1], true)?.broadcast_to(x.shape())
///     }
///     fn macs(&self, _: (usize, usize), _: usize) -> u64 {
///         0
///     }
/// }
/// let config = SpectFormerConfig::tiny(&Spec::cifar10());
/// let mut names = Builder::new();
/// let model = SpectFormer::with_mixers(&mut names.root(), &config, |_, _, _| Ok(Box::new(Mean)))?;
/// assert!(model.macs() < SpectFormer::new(&mut Builder::new().root(), &config)?.macs());
/// # Ok::<(), Error>(())
/// ```
pub trait TokenMixer: Send + Sync {
    /// The mixed tokens `[B, h w, C]` of `x` of the same shape, whose tokens lie row by row on the grid `(h, w)`.
    ///
    /// # Errors
    /// If shape or grid do not fit, or the device refuses.
    fn mix(&self, cx: &Cx, x: &Tensor, grid: (usize, usize)) -> Result<Tensor>;

    /// Multiply-adds for the tokens of one image.
    fn macs(&self, grid: (usize, usize), channels: usize) -> u64;
}

impl TokenMixer for MultiHeadAttention {
    fn mix(&self, cx: &Cx, x: &Tensor, _: (usize, usize)) -> Result<Tensor> {
        self.forward(cx, x)
    }

    /// Four products with a `C` x `C` matrix, scores, and values by scores.
    fn macs(&self, (h, w): (usize, usize), channels: usize) -> u64 {
        let (n, c) = ((h * w) as u64, channels as u64);
        4 * n * c * c + 2 * n * n * c
    }
}

/// The spectral gating layer: `irfft2(rfft2(x) * K)` over the token grid with a learned complex `K` for every frequency and
/// channel, which is a circular convolution with a kernel as large as the grid. Parameter `complex_weight`
/// `[h, w/2 + 1, C, 2]`, real and imaginary part last; no bias.
///
/// Of its `2 h (w/2 + 1)` numbers a channel only `h w` have an effect: a real map's spectrum is Hermitian, and what
/// `K` adds to that in the columns `0` and (even `w`) `w/2` is ignored.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::spectformer::SpectralGate;
/// let mut names = Builder::new();
/// let gate = SpectralGate::new(&mut names.root().sub("mix"), (2, 3), 4, SpectralGate::INIT_STD)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let tokens = Tensor::ones(&gpu, &[5, 2 * 3, 4])?;
/// assert_eq!(gate.forward(&Cx::eval(&arena), &tokens)?.shape(), [5, 6, 4]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SpectralGate {
    name: String,
    filter: ParamId,
    grid: (usize, usize),
    channels: usize,
}

impl SpectralGate {
    /// The paper's standard deviation of the first values.
    pub const INIT_STD: f32 = 0.02;

    /// A layer for tokens on `grid` (height, width), real and imaginary parts drawn with standard deviation `init_std`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::spectformer::SpectralGate;
    /// let mut names = Builder::new();
    /// SpectralGate::new(&mut names.root().sub("mix"), (14, 14), 64, 0.02)?;
    /// assert_eq!(names.tables()?.0.numel(), 14 * 8 * 64 * 2); // half the spectrum, two parts
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a side of the grid is 0.
    pub fn new(scope: &mut Scope<'_>, grid: (usize, usize), channels: usize, init_std: f32) -> Result<Self> {
        let (h, w) = grid;
        if h == 0 || w == 0 {
            return Err(Error::value("SpectralGate", format!("a grid of {h} x {w}; both sides must be at least 1")));
        }
        Ok(Self {
            name: scope.name().to_string(),
            filter: scope.param("complex_weight", &[h, w / 2 + 1, channels, 2], Init::Normal(0.0, init_std)),
            grid,
            channels,
        })
    }

    /// The filter.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::spectformer::SpectralGate;
    /// let mut names = Builder::new();
    /// let gate = SpectralGate::new(&mut names.root().sub("mix"), (4, 4), 8, 0.02)?;
    /// assert_eq!(names.tables()?.0.entries()[gate.filter().index()].name, "mix.complex_weight");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn filter(&self) -> ParamId {
        self.filter
    }

    /// Height and width of the grid it filters.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::spectformer::SpectralGate;
    /// let gate = SpectralGate::new(&mut Builder::new().root(), (14, 7), 64, 0.02)?;
    /// assert_eq!(gate.grid(), (14, 7));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn grid(&self) -> (usize, usize) {
        self.grid
    }

    /// The kernel `[h, w, C]` that the layer convolves with:
    /// `y[i, j] = sum k[a, b] x[(i - a) mod h, (j - b) mod w]` in each channel.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::spectformer::SpectralGate;
    /// let mut names = Builder::new();
    /// let gate = SpectralGate::new(&mut names.root().sub("mix"), (2, 2), 1, 0.02)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// // 1 for every frequency: the gate leaves all as it is, its kernel is a single 1.
    /// arena.set_value(gate.filter(), &Tensor::from_slice(&gpu, &[1.0, 0.0].repeat(4), &[2, 2, 1, 2])?)?;
    /// let kernel = gate.spatial_kernel(&Cx::eval(&arena))?.to_vec()?;
    /// assert!((kernel[0] - 1.0).abs() < 1e-6 && kernel[1..].iter().all(|k| k.abs() < 1e-6));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn spatial_kernel(&self, cx: &Cx) -> Result<Tensor> {
        let k = cx.param(self.filter).unsqueeze(0)?.irfft2(self.grid.1, FftNorm::Backward)?;
        k.squeeze(0)
    }
}

impl Module for SpectralGate {
    /// Takes `[B, h w, C]`.
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let (h, w) = self.grid;
        let &[n, tokens, c] = x.shape() else {
            return Err(Error::shape("SpectralGate", format!("takes [B, tokens, C], got {:?}", x.shape())));
        };
        if tokens != h * w || c != self.channels {
            return Err(Error::shape(
                "SpectralGate",
                format!(
                    "{:?} for a filter of a {h} x {w} grid with {} channels, which takes [B, {}, {}]; a filter belongs to \
                     its grid: build the model for this input size",
                    x.shape(),
                    self.channels,
                    h * w,
                    self.channels
                ),
            ));
        }
        let y = x.reshape(&[n, h, w, c])?.spectral_filter(cx.param(self.filter))?;
        cx.tap(&self.name, y.reshape(x.shape())?)
    }
}

impl TokenMixer for SpectralGate {
    fn mix(&self, cx: &Cx, x: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        if grid != self.grid {
            let ((h, w), (a, b)) = (self.grid, grid);
            return Err(Error::shape(
                "SpectralGate",
                format!("tokens on a {a} x {b} grid for a filter of {h} x {w}; build the model for this input size"),
            ));
        }
        self.forward(cx, x)
    }

    /// Of a fast transform: `n log2 n` a channel for each of the two, and four for every stored coefficient.
    fn macs(&self, (h, w): (usize, usize), channels: usize) -> u64 {
        let n = (h * w) as f64;
        channels as u64 * ((2.0 * n * n.log2()).round() as u64 + 4 * (h * (w / 2 + 1)) as u64)
    }
}
