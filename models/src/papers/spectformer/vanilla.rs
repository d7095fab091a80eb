//! The isotropic SpectFormer: one width and one grid from the first block to the last.

use shadegrad::nn::{
    Activation, Builder, Conv2d, ConvOptions, Cx, Init, LayerNorm, Linear, Mlp, Module, MultiHeadAttention, ParamId, Scope,
};
use shadegrad::{Error, Result, Tensor};

use super::{Mixer, Order, Pattern, SpectralGate, TokenMixer};
use crate::Spec;
use crate::blocks::{EPS, PreNorm, drop_path_of};

/// What distinguishes the members of the family.
///
/// ```
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::spectformer::SpectFormerConfig;
/// let config = SpectFormerConfig { dim: 96, heads: 3, ..SpectFormerConfig::cifar(&Spec::cifar10()) };
/// assert_eq!((config.grid(), config.pattern.alpha()), ((8, 8), 3));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SpectFormerConfig {
    /// Images and classes.
    pub spec: Spec,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Width of a token.
    pub dim: usize,
    /// The mixer of each block. [`Pattern::new`] makes one from depth, alpha and order.
    pub pattern: Pattern,
    /// Heads of the attention blocks.
    pub heads: usize,
    /// Width of a block's hidden layer, in multiples of `dim`.
    pub mlp_ratio: usize,
    /// Stochastic depth of the last block; it rises linearly from 0.
    pub drop_path: f32,
}

/// Patches as tokens with learned positions, blocks, mean of the tokens, a linear head. No class token.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::spectformer::{SpectFormer, SpectFormerConfig};
/// let spec = Spec { height: 4, width: 4, channels: 1, classes: 10 };
/// let config = SpectFormerConfig { patch: 2, dim: 8, heads: 1, mlp_ratio: 1, ..SpectFormerConfig::tiny(&spec) };
/// let mut names = Builder::new();
/// let model = SpectFormer::new(&mut names.root(), &config.with_pattern("sa".parse()?))?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let logits = model.forward(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 4, 4, 1])?)?;
/// assert_eq!(logits.shape(), [2, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct SpectFormer {
    patch_embed: Conv2d,
    pos_embed: ParamId,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    grid: (usize, usize),
    macs: u64,
}

struct Block {
    kind: Mixer,
    pre: PreNorm,
    mixer: Box<dyn TokenMixer>,
    mlp: Mlp,
}

impl SpectFormerConfig {
    fn of(spec: &Spec, [patch, dim, heads]: [usize; 3], [alpha, depth]: [usize; 2], drop_path: f32) -> Self {
        Self { spec: *spec, patch, dim, pattern: Pattern::first(alpha, depth), heads, mlp_ratio: 4, drop_path }
    }

    /// SpectFormer-T: 12 blocks of width 256, 4 of them spectral. Like all published sizes with patches of 16 pixels.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// assert_eq!(SpectFormerConfig::t(&Spec::imagenet()).num_params()?, 9_158_376);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn t(spec: &Spec) -> Self {
        Self::of(spec, [16, 256, 4], [4, 12], 0.0)
    }

    /// SpectFormer-XS: 12 blocks of width 384.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// assert_eq!(SpectFormerConfig::xs(&Spec::imagenet()).num_params()?, 20_028_520);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn xs(spec: &Spec) -> Self {
        Self::of(spec, [16, 384, 6], [4, 12], 0.0)
    }

    /// SpectFormer-S: 19 blocks of width 384.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// assert_eq!(SpectFormerConfig::s(&Spec::imagenet()).num_params()?, 32_449_768);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn s(spec: &Spec) -> Self {
        Self::of(spec, [16, 384, 6], [4, 19], 0.15)
    }

    /// SpectFormer-B: 19 blocks of width 512. The number of heads is not in print; 8 keep them 64 wide as in the others.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// assert_eq!(SpectFormerConfig::b(&Spec::imagenet()).num_params()?, 57_159_656);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn b(spec: &Spec) -> Self {
        Self::of(spec, [16, 512, 8], [4, 19], 0.25)
    }

    /// For images of CIFAR's size: 9 blocks of width 192 with patches of 4 pixels, 3 of them spectral (the published share
    /// of 4 in 12). Not a published size.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// assert_eq!(SpectFormerConfig::cifar(&Spec::cifar10()).num_params()?, 3_629_194);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn cifar(spec: &Spec) -> Self {
        Self::of(spec, [4, 192, 3], [3, 9], 0.1)
    }

    /// For a processor: 4 blocks of width 64 with patches of 4 pixels, 2 of them spectral. Not a published size.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// let config = SpectFormerConfig::tiny(&Spec::cifar10());
    /// assert_eq!((config.num_params()?, config.pattern.to_string().as_str()), (184_906, "ssaa"));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn tiny(spec: &Spec) -> Self {
        Self::of(spec, [4, 64, 4], [2, 4], 0.0)
    }

    /// The same with another pattern, which may have another depth.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// let config = SpectFormerConfig::tiny(&Spec::cifar10()).with_pattern("saas".parse()?);
    /// assert_eq!((config.pattern.depth(), config.pattern.alpha()), (4, 2));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_pattern(self, pattern: Pattern) -> Self {
        Self { pattern, ..self }
    }

    /// The same with `alpha` spectral blocks in this order.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::{Order, SpectFormerConfig};
    /// let attention_only = SpectFormerConfig::tiny(&Spec::cifar10()).with_alpha(0, Order::SpectralFirst)?;
    /// assert_eq!(attention_only.num_params()?, 207_946);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `alpha` is larger than the depth.
    pub fn with_alpha(self, alpha: usize, order: Order) -> Result<Self> {
        let pattern = Pattern::new(self.pattern.depth(), alpha, order)?;
        Ok(self.with_pattern(pattern))
    }

    /// Rows and columns of tokens.
    ///
    /// ```
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// assert_eq!(SpectFormerConfig::t(&Spec::imagenet()).grid(), (14, 14));
    /// ```
    pub fn grid(&self) -> (usize, usize) {
        (self.spec.height / self.patch.max(1), self.spec.width / self.patch.max(1))
    }

    /// Trainable parameters of the model. Needs no device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::SpectFormerConfig;
    /// let config = SpectFormerConfig::tiny(&Spec::cifar10());
    /// assert_eq!(config.num_params()?, 184_906);
    /// assert!(SpectFormerConfig { patch: 5, ..config }.num_params().is_err()); // 5 does not divide 32
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`SpectFormer::new`].
    pub fn num_params(&self) -> Result<usize> {
        let mut builder = Builder::new();
        SpectFormer::new(&mut builder.root(), self)?;
        Ok(builder.tables()?.0.numel())
    }

    fn check(&self) -> Result<()> {
        let &Self { spec, patch, dim, heads, mlp_ratio, .. } = self;
        if patch == 0 || dim == 0 || mlp_ratio == 0 {
            return Err(Error::value(
                "spectformer",
                format!("patch {patch}, width {dim}, MLP ratio {mlp_ratio}; all must be at least 1"),
            ));
        }
        spec.divisible("spectformer", patch)?;
        let attends = self.pattern.alpha() < self.pattern.depth();
        if attends && (heads == 0 || dim % heads != 0) {
            return Err(Error::value("spectformer", format!("width {dim} does not divide into {heads} heads")));
        }
        Ok(())
    }
}

impl SpectFormer {
    /// The network that `config` describes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::{SpectFormer, SpectFormerConfig};
    /// let config = SpectFormerConfig::tiny(&Spec::cifar10());
    /// let mut names = Builder::new();
    /// SpectFormer::new(&mut names.root(), &config)?;
    /// let (table, _) = names.tables()?;
    /// assert!(table.find("blocks.0.filter.complex_weight").is_some() && table.find("blocks.3.attn.qkv.weight").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the patch does not divide the images, or the heads the width.
    pub fn new(scope: &mut Scope<'_>, config: &SpectFormerConfig) -> Result<Self> {
        let (grid, dim, heads) = (config.grid(), config.dim, config.heads);
        Self::with_mixers(scope, config, |scope, _, kind| match kind {
            Mixer::Spectral => {
                Ok(Box::new(SpectralGate::new(&mut scope.sub("filter"), grid, dim, SpectralGate::INIT_STD)?) as _)
            }
            Mixer::Attention => Ok(Box::new(MultiHeadAttention::new(&mut scope.sub("attn"), dim, heads, true, 0.0)) as _),
        })
    }

    /// The network with mixers of your own: `make` gets each block's scope, its number and the pattern's letter. The letter
    /// also decides the block's form: one residual around mixer and MLP for `s`, one around each for `a`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::{SpectFormer, SpectFormerConfig};
    /// // Attention in every block, whatever the letter says.
    /// let config = SpectFormerConfig::tiny(&Spec::cifar10());
    /// let mut names = Builder::new();
    /// SpectFormer::with_mixers(&mut names.root(), &config, |scope, _block, _kind| {
    ///     Ok(Box::new(MultiHeadAttention::new(&mut scope.sub("attn"), config.dim, 4, true, 0.0)))
    /// })?;
    /// assert_eq!(names.tables()?.0.numel(), 207_946);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`SpectFormer::new`], and those of `make`.
    pub fn with_mixers(
        scope: &mut Scope<'_>,
        config: &SpectFormerConfig,
        mut make: impl FnMut(&mut Scope<'_>, usize, Mixer) -> Result<Box<dyn TokenMixer>>,
    ) -> Result<Self> {
        config.check()?;
        let &SpectFormerConfig { spec, patch, dim, mlp_ratio, drop_path, .. } = config;
        let (grid, hidden, depth) = (config.grid(), dim * mlp_ratio, config.pattern.depth());
        let tokens = grid.0 * grid.1;
        let init = Init::TruncNormal(0.02);
        let mut macs = tokens * patch * patch * spec.channels * dim + dim * spec.classes;
        let mut mixing = 0;
        let mut blocks = Vec::new();
        for (i, &kind) in config.pattern.mixers().iter().enumerate() {
            let mut s = scope.sub(format!("blocks.{i}"));
            let mixer = make(&mut s, i, kind)?;
            mixing += mixer.macs(grid, dim);
            macs += 2 * tokens * dim * hidden;
            blocks.push(Block {
                kind,
                pre: PreNorm::new(&mut s, dim, drop_path_of(drop_path, i, depth)),
                mixer,
                mlp: Mlp::new(&mut s.sub("mlp"), dim, hidden, Activation::Gelu, 0.0),
            });
        }
        let mut proj = scope.sub("patch_embed.proj");
        Ok(Self {
            patch_embed: Conv2d::new(&mut proj, spec.channels, dim, patch, ConvOptions::new(patch, 0)),
            pos_embed: scope.param("pos_embed", &[1, tokens, dim], init),
            blocks,
            norm: LayerNorm::new(&mut scope.sub("norm"), dim, EPS),
            head: Linear::with_init(&mut scope.sub("head"), dim, spec.classes, init, Some(Init::Zeros)),
            grid,
            macs: macs as u64 + mixing,
        })
    }

    /// All tokens after the last norm, `[batch, patches, dim]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::{SpectFormer, SpectFormerConfig};
    /// let spec = Spec { height: 4, width: 4, channels: 1, classes: 10 };
    /// let config = SpectFormerConfig { patch: 2, dim: 8, mlp_ratio: 1, ..SpectFormerConfig::tiny(&spec) };
    /// let mut names = Builder::new();
    /// let model = SpectFormer::new(&mut names.root(), &config.with_pattern("s".parse()?))?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let tokens = model.tokens(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[3, 4, 4, 1])?)?;
    /// assert_eq!(tokens.shape(), [3, 2 * 2, 8]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn tokens(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let map = self.patch_embed.forward(cx, x)?;
        if (map.dim(1), map.dim(2)) != self.grid {
            let (h, w) = self.grid;
            return Err(Error::shape(
                "spectformer",
                format!("images {:?} give a grid other than the model's {h} x {w}; build it for this size", x.shape()),
            ));
        }
        let mut x = map.flatten(1, 2)?.add(cx.param(self.pos_embed))?;
        for block in &self.blocks {
            x = block.forward(cx, &x, self.grid)?;
        }
        self.norm.forward(cx, &x)
    }

    /// Multiply-adds of a forward pass for one image: products with weights, attention's scores and values, and the
    /// gates with the cost of a fast transform (see [`TokenMixer::macs`]). Norms and activations are not counted.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::{SpectFormer, SpectFormerConfig};
    /// let macs = |pattern: &str| -> Result<u64> {
    ///     let config = SpectFormerConfig::tiny(&Spec::cifar10()).with_pattern(pattern.parse()?);
    ///     Ok(SpectFormer::new(&mut Builder::new().root(), &config)?.macs())
    /// };
    /// assert!(macs("ss")? < macs("sa")? && macs("sa")? < macs("aa")?); // a gate costs less than attention
    /// # Ok::<(), Error>(())
    /// ```
    pub fn macs(&self) -> u64 {
        self.macs
    }
}

impl Module for SpectFormer {
    /// Images `[batch, height, width, channels]` to logits `[batch, classes]`.
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.head.forward(cx, &self.tokens(cx, x)?.mean(&[1], false)?)
    }
}

impl Block {
    fn forward(&self, cx: &Cx, x: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        let mix = |x: &Tensor| self.mixer.mix(cx, x, grid);
        let mlp = |x: &Tensor| self.mlp.forward(cx, x);
        match self.kind {
            Mixer::Spectral => self.pre.one_branch(cx, x, mix, mlp),
            Mixer::Attention => self.pre.two_branches(cx, x, mix, mlp),
        }
    }
}
