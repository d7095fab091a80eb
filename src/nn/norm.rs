//! Normalisation layers; channels lie last.

use shadegrad_kernels::norm::update_running;

use crate::autograd::leave_layer;
use crate::error::Result;
use crate::nn::per_sample::Kind;
use crate::nn::{BufferId, Cx, Init, Module, ParamId, Scope, Stats};
use crate::tensor::Tensor;

/// Scale and shift: parameters `weight` and `bias`, both `[channels]`.
#[derive(Clone, Copy, Debug)]
struct Affine(ParamId, ParamId);

impl Affine {
    fn new(scope: &mut Scope<'_>, channels: usize, scale: Init) -> Self {
        Self(scope.param("weight", &[channels], scale), scope.param("bias", &[channels], Init::Zeros))
    }

    /// Runs a normalisation with scale and shift; `plain` is the same without, for per-sample gradients.
    fn run(
        affine: Option<Self>,
        cx: &Cx,
        with: impl FnOnce(Option<&Tensor>, Option<&Tensor>) -> Result<Tensor>,
        plain: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some(Self(gamma, beta)) = affine else { return with(None, None) };
        let y = with(Some(cx.param(gamma)), Some(cx.param(beta)))?;
        cx.capture(|| Ok((Kind::Affine(gamma, beta), plain()?)), &y)?;
        Ok(y)
    }
}

/// Batch normalisation of `[.., C]`: parameters `weight` and `bias`, buffers `running_mean` and `running_var`. Where its
/// statistics come from is for the context to say ([`Stats`]).
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = BatchNorm2d::new(&mut names.root().sub("bn"), 3).momentum(0.05);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[2, 4, 4, 3])?)?;
/// assert_eq!(y.shape(), [2, 4, 4, 3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm2d {
    name: String,
    affine: Option<Affine>,
    mean: BufferId,
    var: BufferId,
    momentum: f32,
    eps: f32,
}

impl BatchNorm2d {
    /// PyTorch's defaults: momentum 0.1, eps 1e-5, scale 1, shift 0.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::new(&mut names.root().sub("bn"), 1);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1, 1, 1])?;
    /// let y = layer.forward(&Cx::train(&arena), &x)?.round()?;
    /// assert_eq!(y.to_vec()?, [-1.0, 1.0]); // by the batch's mean 2 and variance 1
    /// let running = arena.buffers().by_name("bn.running_mean")?.item()?;
    /// assert!((running - 0.2).abs() < 1e-6); // a tenth of the way from 0 to 2
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, channels: usize) -> Self {
        Self::with_scale(scope, channels, Init::Ones)
    }

    /// With other first values of the scale: zeros for the last one of a residual branch.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let last = BatchNorm2d::with_scale(&mut names.root(), 2, Init::Zeros); // the branch begins as zero
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let branch = last.forward(&Cx::train(&arena), &Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 5.0], &[2, 2])?)?;
    /// assert_eq!(branch.to_vec()?, [0.0; 4]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_scale(scope: &mut Scope<'_>, channels: usize, scale: Init) -> Self {
        let affine = Some(Affine::new(scope, channels, scale));
        Self { affine, ..Self::plain(scope, channels) }
    }

    /// Without scale and shift.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::plain(&mut names.root().sub("bn"), 8);
    /// let (params, buffers) = names.tables()?;
    /// assert_eq!((params.len(), buffers.len()), (0, 2)); // running mean and variance only
    /// assert_eq!(layer.weight(), None);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn plain(scope: &mut Scope<'_>, channels: usize) -> Self {
        Self {
            name: scope.name().to_string(),
            affine: None,
            mean: scope.buffer("running_mean", &[channels], 0.0),
            var: scope.buffer("running_var", &[channels], 1.0),
            momentum: 0.1,
            eps: 1e-5,
        }
    }

    /// With another share of the batch in the running statistics.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::new(&mut names.root(), 1).momentum(0.5);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// layer.forward(&Cx::train(&arena), &Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1])?)?;
    /// assert_eq!(arena.buffers().by_name("running_mean")?.to_vec()?, [1.0]); // half of 0 and 2
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn momentum(self, momentum: f32) -> Self {
        Self { momentum, ..self }
    }

    /// With another addition to the variance.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::new(&mut names.root(), 16).eps(1e-3).momentum(0.01);
    /// assert_eq!(layer.epsilon(), 1e-3);
    /// ```
    #[must_use]
    pub fn eps(self, eps: f32) -> Self {
        Self { eps, ..self }
    }

    /// The scale, if there is one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::new(&mut names.root(), 2);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let scale = layer.weight().map(|id| arena.params().get(id).to_vec()).transpose()?;
    /// assert_eq!(scale, Some(vec![1.0, 1.0]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn weight(&self) -> Option<ParamId> {
        self.affine.map(|a| a.0)
    }

    /// The shift, if there is one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::new(&mut names.root(), 2);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let shift = layer.bias().map(|id| arena.params().get(id).to_vec()).transpose()?;
    /// assert_eq!(shift, Some(vec![0.0, 0.0]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn bias(&self) -> Option<ParamId> {
        self.affine.map(|a| a.1)
    }

    /// The running mean.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::plain(&mut names.root(), 1).momentum(1.0);
    /// # names.root().param("other", &[1], Init::Ones);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::train(&arena);
    /// layer.forward(&cx, &Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1])?)?;
    /// assert_eq!(cx.buffer(layer.running_mean()).to_vec()?, [2.0]); // that of the batch
    /// # Ok::<(), Error>(())
    /// ```
    pub fn running_mean(&self) -> BufferId {
        self.mean
    }

    /// The running variance.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::plain(&mut names.root(), 1).momentum(1.0);
    /// # names.root().param("other", &[1], Init::Ones);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::train(&arena);
    /// layer.forward(&cx, &Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1])?)?;
    /// assert_eq!(cx.buffer(layer.running_var()).to_vec()?, [2.0]); // the unbiased one, as in PyTorch
    /// # Ok::<(), Error>(())
    /// ```
    pub fn running_var(&self) -> BufferId {
        self.var
    }

    /// The addition to the variance.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// assert_eq!(BatchNorm2d::new(&mut names.root(), 16).epsilon(), 1e-5);
    /// ```
    pub fn epsilon(&self) -> f32 {
        self.eps
    }

    /// The layer and ReLU, in one kernel where nobody looks at what lies between.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = BatchNorm2d::new(&mut names.root(), 1);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1])?;
    /// let y = layer.forward_relu(&Cx::train(&arena), &x)?.round()?;
    /// assert_eq!(y.to_vec()?, [0.0, 1.0]); // -1 and 1 before the ReLU
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_relu(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        match self.affine {
            Some(Affine(gamma, beta)) if !cx.is_watched() && cx.stats() != Stats::Running => {
                let out = x.batch_norm_relu(Some(cx.param(gamma)), Some(cx.param(beta)), self.eps)?;
                self.follow_batch(cx, x, &out.mean, &out.var)?;
                leave_layer(&self.name);
                Ok(out.y)
            }
            _ => self.forward(cx, x)?.relu(),
        }
    }

    /// Moves the running statistics by those of the batch `x`, in training.
    fn follow_batch(&self, cx: &Cx, x: &Tensor, mean: &Tensor, var: &Tensor) -> Result<()> {
        let channels = mean.numel();
        if cx.stats() != Stats::Update || channels == 0 {
            return Ok(());
        }
        self.follow(cx, (mean, var), x.numel() / channels, self.momentum)
    }

    /// Moves the running statistics towards `mean` and the biased `var`, both `[channels]` and taken over `count` elements,
    /// by the share `momentum`.
    pub(super) fn follow(&self, cx: &Cx, (mean, var): (&Tensor, &Tensor), count: usize, momentum: f32) -> Result<()> {
        let running = (cx.buffer(self.mean).storage(), cx.buffer(self.var).storage());
        Ok(update_running(mean.gpu(), (mean.storage(), var.storage()), running, momentum, count, mean.numel())?)
    }

    /// The share of a batch in the running statistics.
    pub(super) fn share(&self) -> f32 {
        self.momentum
    }

    /// The layer's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Module for BatchNorm2d {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = &cx.enter(&self.name, x)?;
        let y = if cx.stats() == Stats::Running {
            let (mean, var) = (cx.buffer(self.mean), cx.buffer(self.var));
            let by = |x: &Tensor, g: Option<&Tensor>, b: Option<&Tensor>| x.batch_norm_eval(mean, var, g, b, self.eps);
            Affine::run(self.affine, cx, |g, b| by(x, g, b), || by(&x.detach(), None, None))?
        } else {
            let with = |g: Option<&Tensor>, b: Option<&Tensor>| {
                let out = x.batch_norm(g, b, self.eps)?;
                self.follow_batch(cx, x, &out.mean, &out.var)?;
                Ok(out.y)
            };
            Affine::run(self.affine, cx, with, || Ok(x.detach().batch_norm(None, None, self.eps)?.y))?
        };
        cx.tap(&self.name, y)
    }
}

/// Layer normalisation over the last axis: parameters `weight` and `bias`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = LayerNorm::new(&mut names.root().sub("norm"), 8, 1e-5);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[2, 5, 8])?)?;
/// assert_eq!(y.shape(), [2, 5, 8]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    name: String,
    affine: Option<Affine>,
    eps: f32,
}

impl LayerNorm {
    /// A layer over `channels`; eps is 1e-5 in PyTorch, 1e-6 in timm's ViT.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = LayerNorm::new(&mut names.root().sub("norm"), 2, 1e-5);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::from_slice(&gpu, &[0.0, 2.0, 30.0, 10.0], &[2, 2])?;
    /// let y = layer.forward(&Cx::eval(&arena), &x)?.round()?;
    /// assert_eq!(y.to_vec()?, [-1.0, 1.0, 1.0, -1.0]); // each row by itself
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, channels: usize, eps: f32) -> Self {
        Self { name: scope.name().to_string(), affine: Some(Affine::new(scope, channels, Init::Ones)), eps }
    }
}

impl Module for LayerNorm {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = &cx.enter(&self.name, x)?;
        let plain = || x.detach().layer_norm(None, None, self.eps);
        cx.tap(&self.name, Affine::run(self.affine, cx, |g, b| x.layer_norm(g, b, self.eps), plain)?)
    }
}

/// Group normalisation of images `[N, .., C]`: parameters `weight` and `bias`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = GroupNorm::new(&mut names.root().sub("norm"), 2, 8);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[2, 4, 4, 8])?)?;
/// assert_eq!(y.shape(), [2, 4, 4, 8]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GroupNorm {
    name: String,
    affine: Option<Affine>,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    /// A layer with `groups` blocks of channels and eps 1e-5.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = GroupNorm::new(&mut names.root().sub("norm"), 2, 4); // channels 0 and 1, channels 2 and 3
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let pixel = Tensor::from_slice(&gpu, &[0.0, 2.0, 30.0, 10.0], &[1, 1, 1, 4])?;
    /// let y = layer.forward(&Cx::eval(&arena), &pixel)?.round()?;
    /// assert_eq!(y.to_vec()?, [-1.0, 1.0, 1.0, -1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, groups: usize, channels: usize) -> Self {
        let affine = Some(Affine::new(scope, channels, Init::Ones));
        Self { name: scope.name().to_string(), affine, groups, eps: 1e-5 }
    }
}

impl Module for GroupNorm {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = &cx.enter(&self.name, x)?;
        let plain = || x.detach().group_norm(self.groups, None, None, self.eps);
        cx.tap(&self.name, Affine::run(self.affine, cx, |g, b| x.group_norm(self.groups, g, b, self.eps), plain)?)
    }
}

/// Instance normalisation of images `[N, .., C]`: parameters `weight` and `bias` if `affine`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// let layer = InstanceNorm2d::new(&mut names.root(), 2, true);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let image = Tensor::from_slice(&gpu, &[0.0, 50.0, 2.0, 10.0], &[1, 1, 2, 2])?; // two pixels, two channels
/// let y = layer.forward(&Cx::eval(&arena), &image)?.round()?;
/// assert_eq!(y.to_vec()?, [-1.0, 1.0, 1.0, -1.0]); // each channel of an image by itself
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct InstanceNorm2d {
    name: String,
    affine: Option<Affine>,
    eps: f32,
}

impl InstanceNorm2d {
    /// A layer with eps 1e-5. PyTorch's default is without scale and shift.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let mut root = names.root();
    /// InstanceNorm2d::new(&mut root.sub("plain"), 8, false);
    /// InstanceNorm2d::new(&mut root.sub("affine"), 8, true);
    /// let (table, buffers) = names.tables()?;
    /// assert_eq!((table.len(), table.entries()[0].name.as_str()), (2, "affine.weight"));
    /// assert!(buffers.is_empty()); // no running statistics
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, channels: usize, affine: bool) -> Self {
        let affine = affine.then(|| Affine::new(scope, channels, Init::Ones));
        Self { name: scope.name().to_string(), affine, eps: 1e-5 }
    }
}

impl Module for InstanceNorm2d {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = &cx.enter(&self.name, x)?;
        let plain = || x.detach().instance_norm(None, None, self.eps);
        cx.tap(&self.name, Affine::run(self.affine, cx, |g, b| x.instance_norm(g, b, self.eps), plain)?)
    }
}
