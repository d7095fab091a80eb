//! A block with its branch, and what joins stages.

use shadegrad::nn::{
    Activation, Conv2d, ConvOptions, Cx, DropPath, Init, LayerNorm, Linear, Mlp, Module, ParamId, Scope,
};
use shadegrad::{Error, Result, Tensor};

use super::{EPS, LocalBranch, SwinConfig, WindowAttention, scaled};

/// The paper's branch: `sigmoid(w) conv2(relu(conv1(x)))` with dense 3 x 3 convolutions over the whole grid of tokens,
/// zeros around it. Parameters `conv1`, `conv2` and the scalar `gate` w.
///
/// Takes tokens `[B, L, C]` of a square grid, or the grid `[B, H, W, C]`, and gives the same shape: add it to what any
/// attention over these tokens gives.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::coswin::LocalConvBranch;
/// let mut names = Builder::new();
/// let branch = LocalConvBranch::new(&mut names.root().sub("local"), 4, 1.0, 0.0);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// // Tokens of a grid of 3 x 3, as they go into the attention beside it.
/// let tokens = Tensor::ones(&gpu, &[2, 9, 4])?;
/// assert_eq!(branch.forward(&Cx::eval(&arena), &tokens)?.shape(), [2, 9, 4]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LocalConvBranch {
    conv1: Conv2d,
    conv2: Conv2d,
    gate: ParamId,
}

impl LocalConvBranch {
    /// A branch for tokens of width `dim` with `expand` times as many channels between, and the first value of the gate.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::coswin::LocalConvBranch;
    /// let mut names = Builder::new();
    /// LocalConvBranch::new(&mut names.root().sub("local"), 10, 1.1, 0.5);
    /// // Eleven channels between the convolutions, and the gate.
    /// assert_eq!(names.tables()?.0.numel(), (9 * 10 * 11 + 11) + (9 * 11 * 10 + 10) + 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, dim: usize, expand: f32, gate_init: f32) -> Self {
        let hidden = scaled(dim, expand);
        let options = ConvOptions::new(1, 1);
        Self {
            conv1: Conv2d::new(&mut scope.sub("conv1"), dim, hidden, 3, options),
            conv2: Conv2d::new(&mut scope.sub("conv2"), hidden, dim, 3, options),
            gate: scope.param("gate", &[], Init::Const(gate_init)),
        }
    }

    /// The scalar w.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::coswin::LocalConvBranch;
    /// let mut names = Builder::new();
    /// let branch = LocalConvBranch::new(&mut names.root().sub("local"), 4, 1.0, 0.5);
    /// assert_eq!(names.tables()?.0.entries()[branch.gate().index()].name, "local.gate");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gate(&self) -> ParamId {
        self.gate
    }

    /// The second convolution.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::coswin::LocalConvBranch;
    /// let mut names = Builder::new();
    /// let branch = LocalConvBranch::new(&mut names.root().sub("local"), 4, 1.0, 0.5);
    /// let weight = branch.conv2().weight();
    /// assert_eq!(names.tables()?.0.entries()[weight.index()].name, "local.conv2.weight");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn conv2(&self) -> &Conv2d {
        &self.conv2
    }
}

impl Module for LocalConvBranch {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let map = match *x.shape() {
            [b, tokens, c] if tokens.isqrt().pow(2) == tokens => x.reshape(&[b, tokens.isqrt(), tokens.isqrt(), c])?,
            [_, _, _, _] => x.clone(),
            _ => {
                return Err(Error::shape(
                    "local branch",
                    format!(
                        "takes tokens [B, L, C] with a square number L, or a grid [B, H, W, C]; got {:?}; reshape tokens \
                         of another grid, and leave a class token out",
                        x.shape()
                    ),
                ));
            }
        };
        let y = self.conv2.forward(cx, &self.conv1.forward(cx, &map)?.relu()?)?;
        y.mul(&cx.param(self.gate).sigmoid()?)?.reshape(x.shape())
    }
}

/// Half the grid's side and twice the width (Liu et al., 2021): the four tokens of each 2 x 2 square side by side, a norm
/// over `4 C` and a linear layer `reduction` to `2 C` without a bias.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::coswin::PatchMerging;
/// let mut names = Builder::new();
/// let merging = PatchMerging::new(&mut names.root(), 4);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let grid = merging.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 6, 4, 4])?)?;
/// assert_eq!(grid.shape(), [1, 3, 2, 8]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PatchMerging {
    norm: LayerNorm,
    reduction: Linear,
}

impl PatchMerging {
    /// A layer for tokens of width `dim`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::coswin::PatchMerging;
    /// let mut names = Builder::new();
    /// PatchMerging::new(&mut names.root(), 4);
    /// assert_eq!(names.tables()?.0.numel(), 2 * 16 + 16 * 8); // a norm, and a layer without a bias
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, dim: usize) -> Self {
        Self {
            norm: LayerNorm::new(&mut scope.sub("norm"), 4 * dim, EPS),
            reduction: Linear::with_init(&mut scope.sub("reduction"), 4 * dim, 2 * dim, Init::TruncNormal(0.02), None),
        }
    }

    /// The tokens `[B, H / 2, W / 2, 4 C]` before norm and linear layer: of every square upper left, lower left, upper
    /// right, lower right.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::coswin::PatchMerging;
    /// let grid = Tensor::from_slice(&gpu, &[0.0, 1.0, 2.0, 3.0], &[1, 2, 2, 1])?;
    /// let merged = PatchMerging::squares(&grid)?;
    /// assert_eq!((merged.shape(), merged.to_vec()?), (&[1, 1, 1, 4][..], vec![0.0, 2.0, 1.0, 3.0]));
    /// assert!(PatchMerging::squares(&Tensor::ones(&gpu, &[1, 3, 2, 1])?).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a side of the grid is odd.
    pub fn squares(x: &Tensor) -> Result<Tensor> {
        match *x.shape() {
            [b, h, w, c] if h % 2 == 0 && w % 2 == 0 => {
                let x = x.reshape(&[b, h / 2, 2, w / 2, 2, c])?.permute(&[0, 1, 3, 4, 2, 5])?;
                x.reshape(&[b, h / 2, w / 2, 4 * c])
            }
            _ => Err(Error::shape(
                "patch merging",
                format!("takes a grid [B, H, W, C] with even sides, got {:?}; pad it", x.shape()),
            )),
        }
    }
}

impl Module for PatchMerging {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.reduction.forward(cx, &self.norm.forward(cx, &Self::squares(x)?)?)
    }
}

/// Attention in windows and the branch beside it, both under one residual, then an MLP. Takes and gives the grid
/// `[B, R, R, C]`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
/// use shadegrad_models::papers::coswin::SwinBlock;
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
/// # let config = SwinConfig { embed: 4, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
/// // `config` has windows of side 2 and the branch.
/// let mut names = Builder::new();
/// let block = SwinBlock::new(&mut names.root(), &config, (4, 4, 2), true, 0.0)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let grid = Tensor::ones(&gpu, &[1, 4, 4, 4])?;
/// assert_eq!(block.forward(&Cx::eval(&arena), &grid)?.shape(), [1, 4, 4, 4]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SwinBlock {
    attention: Option<(LayerNorm, WindowAttention)>,
    local: Option<LocalConvBranch>,
    norm2: LayerNorm,
    mlp: Mlp,
    drop_path: DropPath,
    shift: usize,
}

impl SwinBlock {
    /// A block of the network `config` for tokens of width `dim` on a grid of side `side` with `heads` heads. With `shifted`
    /// the windows are moved by half of one, unless the grid is one window.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
    /// use shadegrad_models::papers::coswin::SwinBlock;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
    /// # let config = SwinConfig { embed: 4, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
    /// // `config` has windows of side 2 and the branch.
    /// let mut names = Builder::new();
    /// // Width 4 on a grid of 4 x 4, with two heads; three do not divide the width.
    /// assert!(SwinBlock::new(&mut names.root().sub("a"), &config, (4, 4, 2), false, 0.0).is_ok());
    /// assert!(SwinBlock::new(&mut names.root().sub("b"), &config, (4, 4, 3), false, 0.0).is_err());
    /// ```
    ///
    /// # Errors
    /// If the heads do not divide the width.
    pub fn new(
        scope: &mut Scope<'_>,
        config: &SwinConfig,
        (dim, side, heads): (usize, usize, usize),
        shifted: bool,
        drop_path: f32,
    ) -> Result<Self> {
        let window = config.window.min(side);
        let attention = if config.attention {
            let norm = LayerNorm::new(&mut scope.sub("norm1"), dim, EPS);
            Some((norm, WindowAttention::new(&mut scope.sub("attn"), dim, heads, window)?))
        } else {
            None
        };
        let local = match config.local {
            LocalBranch::None => None,
            LocalBranch::Conv3x3 { expand, gate_init } => {
                Some(LocalConvBranch::new(&mut scope.sub("local"), dim, expand, gate_init))
            }
        };
        let hidden = scaled(dim, config.mlp_ratio);
        Ok(Self {
            attention,
            local,
            norm2: LayerNorm::new(&mut scope.sub("norm2"), dim, EPS),
            mlp: Mlp::new(&mut scope.sub("mlp"), dim, hidden, Activation::Gelu, 0.0),
            drop_path: DropPath(drop_path),
            shift: if shifted && side > window { window / 2 } else { 0 },
        })
    }

    /// The branch, if there is one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::coswin::{LocalBranch, SwinBlock, SwinConfig};
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
    /// # let config = SwinConfig { embed: 4, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
    /// // `config` has windows of side 2 and the branch.
    /// let mut names = Builder::new();
    /// let plain = SwinConfig { local: LocalBranch::None, ..config.clone() };
    /// let with = SwinBlock::new(&mut names.root().sub("a"), &config, (4, 4, 1), false, 0.0)?;
    /// let without = SwinBlock::new(&mut names.root().sub("b"), &plain, (4, 4, 1), false, 0.0)?;
    /// assert!(with.local().is_some() && without.local().is_none());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn local(&self) -> Option<&LocalConvBranch> {
        self.local.as_ref()
    }

    /// By how much its windows are moved.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
    /// use shadegrad_models::papers::coswin::SwinBlock;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
    /// # let config = SwinConfig { embed: 4, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
    /// // `config` has windows of side 2 and the branch.
    /// let mut names = Builder::new();
    /// let block = SwinBlock::new(&mut names.root().sub("a"), &config, (4, 4, 1), true, 0.0)?;
    /// let last = SwinBlock::new(&mut names.root().sub("b"), &config, (4, 2, 1), true, 0.0)?;
    /// assert_eq!((block.shift(), last.shift()), (1, 0)); // a grid of one window is never shifted
    /// # Ok::<(), Error>(())
    /// ```
    pub fn shift(&self) -> usize {
        self.shift
    }

    /// The probability that a sample goes without this block's branches in training.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::coswin::{LocalBranch, SwinConfig};
    /// use shadegrad_models::papers::coswin::SwinBlock;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let local = LocalBranch::Conv3x3 { expand: 1.0, gate_init: 0.0 };
    /// # let config = SwinConfig { embed: 4, window: 2, drop_path: 0.0, local, ..SwinConfig::coswin(&spec) };
    /// // `config` has windows of side 2 and the branch.
    /// let mut names = Builder::new();
    /// let block = SwinBlock::new(&mut names.root(), &config, (4, 4, 1), false, 0.1)?;
    /// assert_eq!(block.drop_path(), 0.1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn drop_path(&self) -> f32 {
        self.drop_path.0
    }
}

impl Module for SwinBlock {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let attended = match &self.attention {
            Some((norm, attention)) => Some(attention.forward_map(cx, &norm.forward(cx, x)?, self.shift)?),
            None => None,
        };
        // The branch takes the tokens as they come, before the norm.
        let local = self.local.as_ref().map(|branch| branch.forward(cx, x)).transpose()?;
        let z = match (attended, local) {
            (Some(a), Some(c)) => a.add(&c)?,
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return Err(Error::value("swin", "a block with neither attention nor a branch")),
        };
        let x = x.add(&self.drop_path.forward(cx, &z)?)?;
        let y = self.mlp.forward(cx, &self.norm2.forward(cx, &x)?)?;
        x.add(&self.drop_path.forward(cx, &y)?)
    }
}
