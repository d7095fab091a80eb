//! Pooling layers and embeddings.

use crate::error::Result;
use crate::nn::{Cx, Init, Module, ParamId, Scope};
use crate::ops::Pool2d;
use crate::tensor::Tensor;

/// [`Tensor::max_pool2d`].
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d(pub Pool2d);

impl Module for MaxPool2d {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        x.max_pool2d(self.0)
    }
}

/// [`Tensor::avg_pool2d`].
#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d(pub Pool2d);

impl Module for AvgPool2d {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        x.avg_pool2d(self.0)
    }
}

/// [`Tensor::adaptive_avg_pool2d`] to this many rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct AdaptiveAvgPool2d(pub usize, pub usize);

impl Module for AdaptiveAvgPool2d {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        x.adaptive_avg_pool2d(self.0, self.1)
    }
}

/// [`Tensor::global_avg_pool`]: `[N, H, W, C]` to `[N, C]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct GlobalAvgPool;

impl Module for GlobalAvgPool {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        x.global_avg_pool()
    }
}

/// A table of vectors, looked up by index: the parameter `weight` `[count, width]`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let table = Embedding::new(&mut names.root().sub("words"), 100, 8);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = table.forward(&Cx::eval(&arena), &Tensor::from_u32(&gpu, &[3, 14, 15], &[3])?)?;
/// assert_eq!(y.shape(), [3, 8]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Embedding {
    name: String,
    weight: ParamId,
}

impl Embedding {
    /// A table in this scope, standard normal at first.
    pub fn new(scope: &mut Scope<'_>, count: usize, width: usize) -> Self {
        let name = scope.name().to_string();
        Self { name, weight: scope.param("weight", &[count, width], Init::Normal(0.0, 1.0)) }
    }

    /// The table.
    pub fn weight(&self) -> ParamId {
        self.weight
    }
}

impl Module for Embedding {
    /// Takes indices (`U32`) of any shape.
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        cx.tap(&self.name, cx.param(self.weight).embedding(x)?)
    }
}
