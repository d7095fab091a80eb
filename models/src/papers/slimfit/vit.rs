//! A small vision transformer with separate queries, keys and values, as the paper counts its layers.

use shadegrad::nn::{Conv2d, ConvOptions, Cx, Init, LayerNorm, Linear, Module, ParamId, Scope};
use shadegrad::{Attention, Error, Result, Tensor};

/// The paper's epsilon of norms.
const EPS: f32 = 1e-12;

/// Sizes of a [`SplitVit`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitVitConfig {
    /// Side of a picture in pixels.
    pub side: usize,
    /// Its channels.
    pub channels: usize,
    /// Side of a patch.
    pub patch: usize,
    /// Width of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Classes.
    pub classes: usize,
}

impl SplitVitConfig {
    /// Tokens of a picture, the class token among them.
    pub(crate) fn tokens(&self) -> usize {
        (self.side / self.patch.max(1)).pow(2) + 1
    }
}

struct Block {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

/// A pre-norm transformer on patches, with a class token that the head reads. Weights start as truncated normals of
/// standard deviation `1 / sqrt(inputs)`, biases at 0; the head as a normal of 0.02.
pub(crate) struct SplitVit {
    patch: Conv2d,
    class: ParamId,
    position: ParamId,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl SplitVit {
    /// The network.
    ///
    /// # Errors
    /// If the patch does not divide the side, or the heads the width.
    pub(crate) fn new(scope: &mut Scope<'_>, config: &SplitVitConfig) -> Result<Self> {
        let &SplitVitConfig { side, channels, patch, width, depth, heads, classes } = config;
        if patch == 0 || side % patch != 0 || heads == 0 || width % heads != 0 {
            let detail = format!("patches of {patch} on a side of {side}, {heads} heads of width {width}; both must divide");
            return Err(Error::value("SplitVit", detail));
        }
        let from = |inputs: usize| Init::TruncNormal(1.0 / (inputs as f32).sqrt());
        let linear = |scope: &mut Scope<'_>, name: &str, inputs: usize, outputs: usize| {
            Linear::with_init(&mut scope.sub(name), inputs, outputs, from(inputs), Some(Init::Zeros))
        };
        let class = scope.param("cls_token", &[1, 1, width], Init::TruncNormal(0.02));
        let position = scope.param("pos_embed", &[1, config.tokens(), width], Init::TruncNormal(0.02));
        let options = ConvOptions {
            init: Some(from(patch * patch * channels)),
            bias_init: Some(Init::Zeros),
            ..ConvOptions::new(patch, 0)
        };
        let conv = Conv2d::new(&mut scope.sub("patch_embed"), channels, width, patch, options);
        let mut blocks = Vec::with_capacity(depth);
        for i in 0..depth {
            let mut s = scope.sub(format!("blocks.{i}"));
            blocks.push(Block {
                norm1: LayerNorm::new(&mut s.sub("norm1"), width, EPS),
                q: linear(&mut s, "q", width, width),
                k: linear(&mut s, "k", width, width),
                v: linear(&mut s, "v", width, width),
                proj: linear(&mut s, "proj", width, width),
                norm2: LayerNorm::new(&mut s.sub("norm2"), width, EPS),
                fc1: linear(&mut s, "fc1", width, 4 * width),
                fc2: linear(&mut s, "fc2", 4 * width, width),
                heads,
            });
        }
        Ok(Self {
            patch: conv,
            class,
            position,
            blocks,
            norm: LayerNorm::new(&mut scope.sub("norm"), width, EPS),
            head: Linear::with_init(
                &mut scope.sub("head"),
                width,
                classes,
                Init::Normal(0.0, 0.02),
                Some(Init::Zeros),
            ),
        })
    }
}

impl Module for Block {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let &[n, tokens, width] = x.shape() else {
            return Err(Error::shape("SplitVit", format!("a block takes [N, tokens, width], got {:?}", x.shape())));
        };
        let split = |t: Tensor| t.reshape(&[n, tokens, self.heads, width / self.heads])?.permute(&[0, 2, 1, 3]);
        let h = self.norm1.forward(cx, x)?;
        let q = split(self.q.forward(cx, &h)?)?;
        let k = split(self.k.forward(cx, &h)?)?;
        let v = split(self.v.forward(cx, &h)?)?;
        // The weights are stored, in few bits or whole, which is what the paper counts.
        let stored = Attention { recompute: Some(false), ..Attention::default() };
        let mixed = q.sdpa(&k, &v, stored)?.permute(&[0, 2, 1, 3])?.reshape(&[n, tokens, width])?;
        let x = x.add(&self.proj.forward(cx, &mixed)?)?;
        let h = self.fc1.forward(cx, &self.norm2.forward(cx, &x)?)?.gelu()?;
        x.add(&self.fc2.forward(cx, &h)?)
    }
}

impl Module for SplitVit {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let n = x.dim(0);
        let patches = self.patch.forward(cx, x)?.flatten(1, 2)?;
        let class = cx.param(self.class).broadcast_to(&[n, 1, patches.dim(2)])?;
        let mut x = Tensor::concat(&[&class, &patches], 1)?.add(cx.param(self.position))?;
        for block in &self.blocks {
            x = block.forward(cx, &x)?;
        }
        self.head.forward(cx, &self.norm.forward(cx, &x)?.slice(1, 0, 1, 1)?.flatten(0, 1)?)
    }
}
