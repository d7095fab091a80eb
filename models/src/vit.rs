//! The Vision Transformer (Dosovitskiy et al., "An image is worth 16x16 words", 2020), named as timm does.

use shadegrad::nn::{
    Activation, Conv2d, ConvOptions, Cx, Dropout, Init, LayerNorm, Linear, Mlp, Module, MultiHeadAttention, ParamId,
    Scope,
};
use shadegrad::{Error, Result, Tensor};

use crate::Spec;
use crate::blocks::{EPS, PreNorm, drop_path_of};

/// What distinguishes the members of the family.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::{Spec, Vit, VitConfig};
/// let config = VitConfig { depth: 4, heads: 2, ..VitConfig::micro(&Spec::cifar10()) };
/// let mut names = Builder::new();
/// Vit::new(&mut names.root(), &config)?;
/// assert!(names.tables()?.0.find("blocks.3.attn.qkv.weight").is_some());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct VitConfig {
    /// Images and classes.
    pub spec: Spec,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Width of a token.
    pub dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the hidden layer in a block.
    pub mlp: usize,
    /// Dropout on tokens and in the hidden layers.
    pub dropout: f32,
    /// Stochastic depth of the last block; it rises linearly from 0.
    pub drop_path: f32,
    /// Between the linear layers of a block; GELU in the published networks.
    pub activation: Activation,
    /// Whether a learned class token is read by the head; without one it reads the mean of all tokens.
    pub class_token: bool,
}

impl VitConfig {
    fn of(spec: &Spec, dim: usize, depth: usize, heads: usize) -> Self {
        // The published patch of 16 for published image sizes; 4 for images of CIFAR's size, 2 below.
        let patch = match spec.height.min(spec.width) {
            0..16 => 2,
            16..112 => 4,
            _ => 16,
        };
        Self {
            spec: *spec,
            patch,
            dim,
            depth,
            heads,
            mlp: 4 * dim,
            dropout: 0.0,
            drop_path: 0.0,
            activation: Activation::Gelu,
            class_token: true,
        }
    }

    /// Two blocks of width 64 with four heads: seconds on any device.
    ///
    /// ```
    /// use shadegrad_models::{Spec, VitConfig};
    /// let config = VitConfig::micro(&Spec::cifar10());
    /// assert_eq!((config.dim, config.depth, config.heads, config.patch), (64, 2, 4, 4));
    /// ```
    pub fn micro(spec: &Spec) -> Self {
        Self { mlp: 128, ..Self::of(spec, 64, 2, 4) }
    }

    /// ViT-Ti (DeiT-Ti): 12 blocks of width 192, 3 heads.
    ///
    /// ```
    /// use shadegrad_models::{Spec, VitConfig};
    /// let config = VitConfig::tiny(&Spec::imagenet());
    /// assert_eq!((config.dim, config.depth, config.heads, config.patch), (192, 12, 3, 16));
    /// ```
    pub fn tiny(spec: &Spec) -> Self {
        Self::of(spec, 192, 12, 3)
    }

    /// ViT-S: 12 blocks of width 384, 6 heads.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{Spec, Vit, VitConfig};
    /// let mut names = Builder::new();
    /// Vit::new(&mut names.root(), &VitConfig::small(&Spec::imagenet()))?;
    /// assert_eq!(names.tables()?.0.numel(), 22_050_664);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn small(spec: &Spec) -> Self {
        Self::of(spec, 384, 12, 6)
    }

    /// ViT-B: 12 blocks of width 768, 12 heads.
    ///
    /// ```
    /// use shadegrad_models::{Spec, VitConfig};
    /// let config = VitConfig::base(&Spec::imagenet());
    /// assert_eq!((config.dim, config.mlp, config.heads), (768, 3072, 12));
    /// ```
    pub fn base(spec: &Spec) -> Self {
        Self::of(spec, 768, 12, 12)
    }
}

/// Patches as tokens with learned positions, mostly with a class token, blocks with the norm first, a linear head.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::nn::{Arena, Builder, Cx};
/// use shadegrad_models::{Spec, Vit, VitConfig};
/// // Any patch, width and depth; here one of 6 blocks, its last ones left out at random more often.
/// let config = VitConfig { depth: 6, drop_path: 0.1, ..VitConfig::micro(&Spec::cifar10()) };
/// let mut names = Builder::new();
/// let model = Vit::new(&mut names.root(), &config)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let tokens = model.tokens(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[1, 32, 32, 3])?)?;
/// assert_eq!(tokens.shape(), [1, 65, 64]); // the class token, 8 x 8 patches
/// # Ok::<(), Error>(())
/// ```
pub struct Vit {
    patch_embed: Conv2d,
    cls_token: Option<ParamId>,
    pos_embed: ParamId,
    dropout: Dropout,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

struct Block {
    pre: PreNorm,
    attn: MultiHeadAttention,
    mlp: Mlp,
}

impl Vit {
    /// The network that `config` describes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{Spec, Vit, VitConfig};
    /// let mut names = Builder::new();
    /// Vit::new(&mut names.root(), &VitConfig::base(&Spec::imagenet()))?;
    /// assert_eq!(names.tables()?.0.numel(), 86_567_656);
    /// let odd = VitConfig { heads: 5, ..VitConfig::base(&Spec::imagenet()) };
    /// assert!(Vit::new(&mut Builder::new().root(), &odd).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the patch does not divide the images, or the heads the width.
    pub fn new(scope: &mut Scope<'_>, config: &VitConfig) -> Result<Self> {
        let &VitConfig { spec, patch, dim, depth, heads, mlp, dropout, drop_path, activation, class_token } = config;
        spec.divisible("vit", patch)?;
        if heads == 0 || dim % heads != 0 {
            return Err(Error::value("vit", format!("width {dim} does not divide into {heads} heads")));
        }
        activation.check()?;
        let tokens = (spec.height / patch) * (spec.width / patch) + usize::from(class_token);
        let init = Init::TruncNormal(0.02);
        let mut blocks = Vec::new();
        for i in 0..depth {
            let mut s = scope.sub(format!("blocks.{i}"));
            blocks.push(Block {
                pre: PreNorm::new(&mut s, dim, drop_path_of(drop_path, i, depth)),
                attn: MultiHeadAttention::new(&mut s.sub("attn"), dim, heads, true, 0.0),
                mlp: Mlp::new(&mut s.sub("mlp"), dim, mlp, activation, dropout),
            });
        }
        Ok(Self {
            cls_token: class_token.then(|| scope.param("cls_token", &[1, 1, dim], init)),
            pos_embed: scope.param("pos_embed", &[1, tokens, dim], init),
            patch_embed: Conv2d::new(
                &mut scope.sub("patch_embed.proj"),
                spec.channels,
                dim,
                patch,
                ConvOptions::new(patch, 0),
            ),
            dropout: Dropout(dropout),
            blocks,
            norm: LayerNorm::new(&mut scope.sub("norm"), dim, EPS),
            head: Linear::with_init(&mut scope.sub("head"), dim, spec.classes, init, Some(Init::Zeros)),
        })
    }

    /// All tokens after the last norm, `[batch, 1 + patches, dim]`; the class token is the first, if there is one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::{Spec, Vit, VitConfig};
    /// let spec = Spec { height: 4, width: 4, channels: 1, classes: 10 };
    /// let config = VitConfig { dim: 8, mlp: 8, depth: 1, class_token: false, ..VitConfig::micro(&spec) };
    /// let mut names = Builder::new();
    /// let model = Vit::new(&mut names.root(), &config)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let tokens = model.tokens(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[3, 4, 4, 1])?)?;
    /// assert_eq!(tokens.shape(), [3, 4, 8]); // 2 x 2 patches of 2 x 2 pixels
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn tokens(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let n = x.dim(0);
        let patches = self.patch_embed.forward(cx, x)?.flatten(1, 2)?;
        let dim = patches.dim(2);
        let patches = match self.cls_token {
            Some(cls) => Tensor::concat(&[&cx.param(cls).broadcast_to(&[n, 1, dim])?, &patches], 1)?,
            None => patches,
        };
        let x = patches.add(cx.param(self.pos_embed))?;
        let mut x = self.dropout.forward(cx, &x)?;
        for block in &self.blocks {
            x = block.forward(cx, &x)?;
        }
        self.norm.forward(cx, &x)
    }
}

impl Module for Vit {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let tokens = self.tokens(cx, x)?;
        let read = match self.cls_token {
            Some(_) => tokens.slice(1, 0, 1, 1)?.flatten(0, 1)?,
            None => tokens.mean(&[1], false)?,
        };
        self.head.forward(cx, &read)
    }
}

impl Module for Block {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.pre.two_branches(cx, x, |x| self.attn.forward(cx, x), |x| self.mlp.forward(cx, x))
    }
}
