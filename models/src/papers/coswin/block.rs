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
#[derive(Clone, Debug)]
pub struct LocalConvBranch {
    conv1: Conv2d,
    conv2: Conv2d,
    gate: ParamId,
}

impl LocalConvBranch {
    /// A branch for tokens of width `dim` with `expand` times as many channels between, and the first value of the gate.
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
    pub fn gate(&self) -> ParamId {
        self.gate
    }

    /// The second convolution.
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
#[derive(Clone, Debug)]
pub struct PatchMerging {
    norm: LayerNorm,
    reduction: Linear,
}

impl PatchMerging {
    /// A layer for tokens of width `dim`.
    pub fn new(scope: &mut Scope<'_>, dim: usize) -> Self {
        Self {
            norm: LayerNorm::new(&mut scope.sub("norm"), 4 * dim, EPS),
            reduction: Linear::with_init(&mut scope.sub("reduction"), 4 * dim, 2 * dim, Init::TruncNormal(0.02), None),
        }
    }

    /// The tokens `[B, H / 2, W / 2, 4 C]` before norm and linear layer: of every square upper left, lower left, upper
    /// right, lower right.
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
    pub fn local(&self) -> Option<&LocalConvBranch> {
        self.local.as_ref()
    }

    /// By how much its windows are moved.
    pub fn shift(&self) -> usize {
        self.shift
    }

    /// The probability that a sample goes without this block's branches in training.
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
