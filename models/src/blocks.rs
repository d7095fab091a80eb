//! What the transformers here share.

use shadegrad::nn::{Cx, DropPath, LayerNorm, Module, Scope};
use shadegrad::{Result, Tensor};

/// timm's epsilon for the norms of a transformer.
pub(crate) const EPS: f32 = 1e-6;

/// Stochastic depth of block `i` of `depth`: rises linearly from 0 to `max` at the last.
pub(crate) fn drop_path_of(max: f32, i: usize, depth: usize) -> f32 {
    max * i as f32 / (depth.max(2) - 1) as f32
}

/// A transformer block without its mixer and its MLP: the norms in front of them (`norm1`, `norm2`), the residuals around
/// them, and stochastic depth.
#[derive(Clone, Debug)]
pub(crate) struct PreNorm {
    norm1: LayerNorm,
    norm2: LayerNorm,
    drop_path: DropPath,
}

impl PreNorm {
    pub(crate) fn new(scope: &mut Scope<'_>, dim: usize, drop_path: f32) -> Self {
        Self {
            norm1: LayerNorm::new(&mut scope.sub("norm1"), dim, EPS),
            norm2: LayerNorm::new(&mut scope.sub("norm2"), dim, EPS),
            drop_path: DropPath(drop_path),
        }
    }

    /// The norm in front of the mixer.
    pub(crate) fn norm1(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.norm1.forward(cx, x)
    }

    /// The norm in front of the MLP.
    pub(crate) fn norm2(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.norm2.forward(cx, x)
    }

    /// `x + mix(norm1(x))`, and then `x + mlp(norm2(x))` of that.
    pub(crate) fn two_branches(
        &self,
        cx: &Cx,
        x: &Tensor,
        mix: impl FnOnce(&Tensor) -> Result<Tensor>,
        mlp: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let x = x.add(&self.drop_path.forward(cx, &mix(&self.norm1.forward(cx, x)?)?)?)?;
        x.add(&self.drop_path.forward(cx, &mlp(&self.norm2.forward(cx, &x)?)?)?)
    }

    /// `x + mlp(norm2(mix(norm1(x))))`: one residual around both.
    pub(crate) fn one_branch(
        &self,
        cx: &Cx,
        x: &Tensor,
        mix: impl FnOnce(&Tensor) -> Result<Tensor>,
        mlp: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mixed = mix(&self.norm1.forward(cx, x)?)?;
        x.add(&self.drop_path.forward(cx, &mlp(&self.norm2.forward(cx, &mixed)?)?)?)
    }
}
