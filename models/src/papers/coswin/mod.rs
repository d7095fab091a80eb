//! CoSwin: "Convolution Enhanced Hierarchical Shifted Window Attention For Small-Scale Vision" (arXiv 2509.08959).
//!
//! A Swin Transformer in whose blocks a small dense convolution runs beside the windows' attention, on the same tokens:
//!
//! ```text
//! x <- x + drop_path(attention(norm1(x)) + sigmoid(w) conv3x3(relu(conv3x3(x))))
//! x <- x + drop_path(mlp(norm2(x)))
//! ```
//!
//! The branch sees across the borders of windows and brings the bias to nearness and translation that attention has to
//! learn; it holds most of the parameters. [`Swin`] is the whole network, with the branch or without; [`SwinBlock`],
//! [`WindowAttention`], [`LocalConvBranch`] and [`PatchMerging`] are its parts for networks of one's own, and
//! [`LocalConvBranch`] goes beside any attention over a square grid of tokens:
//!
//! ```no_run
//! use shadegrad::nn::{Arena, Builder, Cx, Module};
//! use shadegrad_models::Spec;
//! use shadegrad_models::papers::coswin::{LocalBranch, Swin, SwinConfig};
//! # fn main() -> shadegrad::Result<()> {
//! # let gpu = shadegrad::Gpu::new(shadegrad::Options::from_env()?)?;
//! let config = SwinConfig { embed: 48, depths: vec![2, 4, 2], ..SwinConfig::coswin(&Spec::cifar10()) };
//! let mut builder = Builder::new();
//! let model = Swin::new(&mut builder.root(), &config)?;
//! let arena = Arena::new(&gpu, &builder, 0)?;
//! let images = shadegrad::Tensor::zeros(&gpu, &[1, 32, 32, 3])?;
//! let logits = model.forward(&Cx::eval(&arena), &images)?;
//! println!("{:?} with gates {:?}", logits.shape(), model.gates(&arena)?);
//! # Ok(())
//! # }
//! ```
//!
//! The paper's AutoAugment policies and random erasing are not here: its recipe trains with crops, mirror images, mixup
//! and cutmix.

mod block;
mod recipe;
mod window;

#[cfg(test)]
mod tests;

pub use block::{LocalConvBranch, PatchMerging, SwinBlock};
pub use shadegrad::window::{cyclic_shift, relative_index, shift_mask, window_partition, window_reverse};
pub use window::WindowAttention;

use shadegrad::nn::{Arena, Conv2d, ConvOptions, Cx, Init, LayerNorm, Linear, Module, Scope};
use shadegrad::{Error, Result, Tensor};

use super::Paper;
use crate::Spec;

/// The paper.
pub const PAPER: Paper = Paper {
    slug: "coswin",
    title: "CoSwin: Convolution Enhanced Hierarchical Shifted Window Attention For Small-Scale Vision",
    source: "arXiv 2509.08959",
    claim: "a gated convolution branch beside window attention raises the accuracy of Swin on small images",
    data: "CIFAR-10",
    seeds: 2,
    recipe: Some(recipe::run),
};

/// Of every norm of the network.
const EPS: f32 = 1e-5;

/// The branch beside the attention of a block.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
/// let wide = LocalBranch::Conv3x3 { expand: 2.0, gate_init: 0.5 };
/// let config = SwinConfig { local: wide, ..SwinConfig::coswin(&Spec::cifar10()) };
/// assert!(config.macs()? > SwinConfig::coswin(&Spec::cifar10()).macs()?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LocalBranch {
    /// None: a Swin Transformer.
    None,
    /// The paper's: two convolutions of 3 x 3 from the width to `expand` times that and back, with ReLU between, scaled by
    /// the sigmoid of a learnable scalar whose first value is `gate_init`.
    Conv3x3 {
        /// Channels between the convolutions over the width; 1.1 in the paper.
        expand: f32,
        /// 0.5 in the paper: the branch counts 0.62 at first.
        gate_init: f32,
    },
}

/// What distinguishes the members of the family.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::coswin::SwinConfig;
/// let config = SwinConfig { embed: 48, depths: vec![2, 2], heads: vec![3, 6], ..SwinConfig::coswin(&Spec::cifar10()) };
/// assert_eq!(config.stages()?, [(48, 16), (96, 8)]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SwinConfig {
    /// Images, which must be square, and classes.
    pub spec: Spec,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Width of a token in the first stage; each further stage has twice that on half the grid's side.
    pub embed: usize,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Heads of each stage.
    pub heads: Vec<usize>,
    /// Side of a window in tokens. A grid no larger than that is one window, never shifted.
    pub window: usize,
    /// Width of the hidden layer of a block's MLP over the token's.
    pub mlp_ratio: f32,
    /// Stochastic depth of the last block; it rises linearly from 0.
    pub drop_path: f32,
    /// Whether blocks have attention; without it only the branch mixes tokens, which tells what it does alone.
    pub attention: bool,
    /// The branch beside it.
    pub local: LocalBranch,
}

impl SwinConfig {
    /// The paper's network: patches of 2 (4 for images from 64 pixels), widths 96, 192 and 384, 12 blocks, windows of 4,
    /// stochastic depth up to 0.1.
    ///
    /// ```
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
    /// let config = SwinConfig::coswin(&Spec::cifar10());
    /// assert_eq!((config.embed, config.depths), (96, vec![2, 6, 4]));
    /// assert_eq!(config.local, LocalBranch::Conv3x3 { expand: 1.1, gate_init: 0.5 });
    /// ```
    pub fn coswin(spec: &Spec) -> Self {
        Self {
            spec: *spec,
            patch: if spec.height >= 64 { 4 } else { 2 },
            embed: 96,
            depths: vec![2, 6, 4],
            heads: vec![3, 6, 12],
            window: 4,
            mlp_ratio: 2.0,
            drop_path: 0.1,
            attention: true,
            local: LocalBranch::Conv3x3 { expand: 1.1, gate_init: 0.5 },
        }
    }

    /// The same without the branch.
    ///
    /// ```
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
    /// let config = SwinConfig::swin(&Spec::cifar10());
    /// assert_eq!(config, SwinConfig { local: LocalBranch::None, ..SwinConfig::coswin(&Spec::cifar10()) });
    /// ```
    pub fn swin(spec: &Spec) -> Self {
        Self { local: LocalBranch::None, ..Self::coswin(spec) }
    }

    /// Width and side of the grid of each stage.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::coswin::SwinConfig;
    /// let config = SwinConfig::coswin(&Spec::cifar10());
    /// assert_eq!(config.stages()?, [(96, 16), (192, 8), (384, 4)]);
    /// assert!(SwinConfig { window: 3, ..config }.stages().is_err()); // 3 does not divide 16
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the images are not square, patches or windows do not divide them, a grid of odd side is to be halved, heads do not
    /// divide a width, depths and heads are not as many, or neither attention nor branch is left.
    pub fn stages(&self) -> Result<Vec<(usize, usize)>> {
        const OP: &str = "swin";
        let Self { spec, patch, window, .. } = self;
        if spec.height != spec.width || spec.height == 0 || *patch == 0 || !spec.height.is_multiple_of(*patch) {
            return Err(Error::shape(
                OP,
                format!(
                    "images of {} x {} in patches of {patch}: takes square images whose side is a multiple of the patch; \
                     resize them",
                    spec.height, spec.width
                ),
            ));
        }
        if self.depths.is_empty() || self.depths.len() != self.heads.len() {
            return Err(Error::value(
                OP,
                format!("depths {:?} and heads {:?}: give one of each for every stage", self.depths, self.heads),
            ));
        }
        if !self.attention && self.local == LocalBranch::None {
            return Err(Error::value(OP, "neither attention nor a branch: tokens would never meet; keep one of them"));
        }
        let last = self.depths.len() - 1;
        let mut stages = Vec::new();
        let (mut side, mut dim) = (spec.height / patch, self.embed);
        for (k, &heads) in self.heads.iter().enumerate() {
            if *window == 0 || (side > *window && !side.is_multiple_of(*window)) {
                return Err(Error::shape(
                    OP,
                    format!("windows of side {window} do not divide the grid of {side} x {side} of stage {k}"),
                ));
            }
            if heads == 0 || dim == 0 || !dim.is_multiple_of(heads) {
                return Err(Error::value(OP, format!("width {dim} of stage {k} does not divide into {heads} heads")));
            }
            if k < last && !side.is_multiple_of(2) {
                return Err(Error::shape(
                    OP,
                    format!(
                        "the grid of {side} x {side} of stage {k} cannot be halved; take another patch or fewer stages"
                    ),
                ));
            }
            stages.push((dim, side));
            (side, dim) = (side / 2, 2 * dim);
        }
        Ok(stages)
    }

    /// Multiply-adds of a forward pass over one image: convolutions, linear layers and attention.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
    /// # let (depths, heads) = (vec![1, 1], vec![1, 2]);
    /// # let config = SwinConfig { embed: 4, depths, heads, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
    /// // Two stages of a block each, of widths 4 and 8 on grids of 4 x 4 and 2 x 2.
    /// let branches = 18 * (16 * 4 * 4 + 4 * 8 * 8);
    /// assert_eq!(config.macs()?, 5_712 + branches);
    /// assert_eq!(SwinConfig { local: LocalBranch::None, ..config }.macs()?, 5_712);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`SwinConfig::stages`].
    pub fn macs(&self) -> Result<u64> {
        let stages = self.stages()?;
        let mut all = (stages[0].1 * self.patch).pow(2) * self.spec.channels * self.embed;
        for (k, &(dim, side)) in stages.iter().enumerate() {
            let tokens = side * side;
            let mut block = 2 * tokens * dim * scaled(dim, self.mlp_ratio);
            if self.attention {
                block += tokens * dim * (4 * dim + 2 * self.window.min(side).pow(2));
            }
            if let LocalBranch::Conv3x3 { expand, .. } = self.local {
                block += 18 * tokens * dim * scaled(dim, expand);
            }
            all += block * self.depths[k];
            if k + 1 < stages.len() {
                all += tokens / 4 * 4 * dim * 2 * dim;
            }
        }
        Ok((all + stages[stages.len() - 1].0 * self.spec.classes) as u64)
    }
}

/// `factor` times `n` without the fraction. What is added keeps a product such as 1.3 x 10 from falling below its whole
/// number, since an f32 may be lower than the decimal it was written as.
pub(crate) fn scaled(n: usize, factor: f32) -> usize {
    (f64::from(factor) * n as f64 + 1e-3) as usize
}

struct Stage {
    blocks: Vec<SwinBlock>,
    merging: Option<PatchMerging>,
}

/// A Swin Transformer for images `[B, S, S, channels]`, with or without the paper's branch.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
/// use shadegrad_models::papers::coswin::Swin;
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
/// # let (depths, heads) = (vec![1, 1], vec![1, 2]);
/// # let config = SwinConfig { embed: 4, depths, heads, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
/// // Two stages of a block each, of widths 4 and 8 on grids of 4 x 4 and 2 x 2.
/// let mut names = Builder::new();
/// let model = Swin::new(&mut names.root(), &config)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let logits = model.forward(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 8, 8, 1])?)?;
/// assert_eq!(logits.shape(), [2, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct Swin {
    patch_embed: Conv2d,
    patch_norm: LayerNorm,
    stages: Vec<Stage>,
    norm: LayerNorm,
    head: Linear,
}

impl Swin {
    /// The network that `config` describes. First values: truncated normal 0.02 for linear weights and bias tables, zero for
    /// their biases, uniform in `+-1 / sqrt(fan_in)` for convolutions.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::coswin::LocalBranch;
    /// use shadegrad_models::papers::coswin::{Swin, SwinConfig};
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
    /// # let (depths, heads) = (vec![1, 1], vec![1, 2]);
    /// # let config = SwinConfig { embed: 4, depths, heads, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
    /// // Two stages of a block each, of widths 4 and 8 on grids of 4 x 4 and 2 x 2.
    /// let mut names = Builder::new();
    /// Swin::new(&mut names.root(), &config)?;
    /// assert!(names.tables()?.0.find("layers.1.blocks.0.local.gate").is_some());
    /// let wide = SwinConfig { heads: vec![3, 6], ..config };
    /// assert!(Swin::new(&mut names.root(), &wide).is_err()); // 3 heads do not divide 4
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`SwinConfig::stages`].
    pub fn new(scope: &mut Scope<'_>, config: &SwinConfig) -> Result<Self> {
        let sizes = config.stages()?;
        let patch_embed = Conv2d::new(
            &mut scope.sub("patch_embed.proj"),
            config.spec.channels,
            config.embed,
            config.patch,
            ConvOptions::new(config.patch, 0),
        );
        let patch_norm = LayerNorm::new(&mut scope.sub("patch_embed.norm"), config.embed, EPS);
        let all: usize = config.depths.iter().sum();
        let mut done = 0;
        let mut stages = Vec::new();
        for (k, &(dim, side)) in sizes.iter().enumerate() {
            let mut layer = scope.sub(format!("layers.{k}"));
            let mut blocks = Vec::new();
            for j in 0..config.depths[k] {
                let drop_path = config.drop_path * done as f32 / (all.max(2) - 1) as f32;
                let mut s = layer.sub(format!("blocks.{j}"));
                blocks.push(SwinBlock::new(&mut s, config, (dim, side, config.heads[k]), j % 2 == 1, drop_path)?);
                done += 1;
            }
            let merging = (k + 1 < sizes.len()).then(|| PatchMerging::new(&mut layer.sub("downsample"), dim));
            stages.push(Stage { blocks, merging });
        }
        let last = sizes[sizes.len() - 1].0;
        let (init, zeros) = (Init::TruncNormal(0.02), Some(Init::Zeros));
        Ok(Self {
            patch_embed,
            patch_norm,
            stages,
            norm: LayerNorm::new(&mut scope.sub("norm"), last, EPS),
            head: Linear::with_init(&mut scope.sub("head"), last, config.spec.classes, init, zeros),
        })
    }

    /// All tokens after the last norm, `[B, tokens, width]`, in rows of the last grid.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
    /// use shadegrad_models::papers::coswin::Swin;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
    /// # let (depths, heads) = (vec![1, 1], vec![1, 2]);
    /// # let config = SwinConfig { embed: 4, depths, heads, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
    /// // Two stages of a block each, of widths 4 and 8 on grids of 4 x 4 and 2 x 2.
    /// let mut names = Builder::new();
    /// let model = Swin::new(&mut names.root(), &config)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let tokens = model.forward_features(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 8, 8, 1])?)?;
    /// assert_eq!(tokens.shape(), [2, 2 * 2, 8]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_features(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = self.patch_norm.forward(cx, &self.patch_embed.forward(cx, x)?)?;
        for stage in &self.stages {
            for block in &stage.blocks {
                x = block.forward(cx, &x)?;
            }
            if let Some(merging) = &stage.merging {
                x = merging.forward(cx, &x)?;
            }
        }
        self.norm.forward(cx, &x)?.flatten(1, 2)
    }

    /// Every block, from the first.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::coswin::{Swin, SwinConfig};
    /// let mut names = Builder::new();
    /// let model = Swin::new(&mut names.root(), &SwinConfig::coswin(&Spec::cifar10()))?;
    /// let shifts: Vec<usize> = model.blocks().map(|b| b.shift()).collect();
    /// assert_eq!(shifts, [0, 2, 0, 2, 0, 2, 0, 2, 0, 0, 0, 0]); // the last stage is one window
    /// # Ok::<(), Error>(())
    /// ```
    pub fn blocks(&self) -> impl Iterator<Item = &SwinBlock> {
        self.stages.iter().flat_map(|s| &s.blocks)
    }

    /// What each block's branch is multiplied by, `sigmoid(w)`, from the first; empty without branches.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
    /// use shadegrad_models::papers::coswin::Swin;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
    /// # let (depths, heads) = (vec![1, 1], vec![1, 2]);
    /// # let config = SwinConfig { embed: 4, depths, heads, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
    /// // Two stages of a block each, of widths 4 and 8 on grids of 4 x 4 and 2 x 2.
    /// let mut names = Builder::new();
    /// let model = Swin::new(&mut names.root(), &config)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(model.gates(&arena)?, [0.5, 0.5]); // the sigmoid of 0
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn gates(&self, arena: &Arena) -> Result<Vec<f32>> {
        let branches = self.blocks().filter_map(SwinBlock::local);
        branches.map(|b| arena.params().get(b.gate()).sigmoid()?.item()).collect()
    }
}

impl Module for Swin {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.head.forward(cx, &self.forward_features(cx, x)?.mean(&[1], false)?)
    }
}
