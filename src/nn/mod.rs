//! Layers, parameters and the context of a forward pass.
//!
//! A model is a plain struct of layers. Building it names its parameters in a [`Builder`]; an [`Arena`] holds their values,
//! gradients and running statistics, each in one buffer; `forward` gets the values through a [`Cx`], so that the same model
//! runs with any other [`Params`]: a client's, an average, or an inner loop's that gradients flow through.
//!
//! ```
//! # use shadegrad::{Error, Gpu, Options, Tensor};
//! use shadegrad::nn::{Arena, Builder, Cx, Linear, Module};
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! let mut builder = Builder::new();
//! let layer = Linear::new(&mut builder.root().sub("fc"), 8, 2, true);
//! let arena = Arena::new(&gpu, &builder, 0)?;
//! let y = layer.forward(&Cx::train(&arena), &Tensor::ones(&gpu, &[4, 8])?)?;
//! assert_eq!(y.shape(), [4, 2]);
//! arena.backward(&y.sum_all()?)?;
//! assert_eq!(arena.grads().by_name("fc.bias")?.to_vec()?, [4.0, 4.0]); // each counted in four rows
//! # Ok::<(), Error>(())
//! ```

mod activation;
mod arena;
mod attention;
mod build;
mod conv;
mod cx;
mod flat;
mod ghost;
mod init;
mod layers;
mod layout;
mod norm;
mod params;
mod per_sample;
mod pool;

pub use activation::{Activation, ActivationLayer};
pub use arena::{Arena, Group, Snapshot, Weight};
pub use attention::MultiHeadAttention;
pub use build::{BufferId, Builder, Entry, ParamId, Scope, Table, glob};
pub use conv::{Conv2d, ConvOptions, ConvTranspose2d};
pub use cx::{Cx, Stats};
pub use ghost::{GhostBatchNorm, Ghosts};
pub use init::{Fan, Init};
pub use layers::{DropPath, Dropout, Flatten, Identity, Linear, Mlp, Sequential};
pub use layout::Layout;
pub use norm::{BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm};
pub use params::Params;
pub use per_sample::{Capture, PerSample};
pub use pool::{AdaptiveAvgPool2d, AvgPool2d, Embedding, GlobalAvgPool, MaxPool2d};

use crate::error::Result;
use crate::tensor::Tensor;

/// A layer, or a model made of layers: names its parameters when it is built and holds none of their values.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// /// A line with its own two numbers.
/// struct Line(ParamId, ParamId);
///
/// impl Module for Line {
///     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
///         x.mul(cx.param(self.0))?.add(cx.param(self.1))
///     }
/// }
///
/// let mut names = Builder::new();
/// let mut root = names.root();
/// let line = Line(root.param("slope", &[1], Init::Ones), root.param("height", &[1], Init::Const(0.5)));
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?;
/// assert_eq!(line.forward(&Cx::eval(&arena), &x)?.to_vec()?, [1.5, 2.5]);
/// # Ok::<(), Error>(())
/// ```
pub trait Module: Send + Sync {
    /// The result for the input `x` with the parameters, mode and randomness of `cx`.
    ///
    /// ```
    /// # use shadegrad::{autograd::no_grad, nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let model = Sequential::new().then(Linear::new(&mut names.root(), 4, 2, true)).then(Dropout(0.5));
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::ones(&gpu, &[8, 4])?;
    /// let training = model.forward(&Cx::train(&arena).seeded(0, 0), &x)?; // dropout is on
    /// let evaluation = no_grad(|| model.forward(&Cx::eval(&arena), &x))?; // nothing is kept for a backward pass
    /// assert_eq!((training.shape(), evaluation.shape()), (&[8, 2][..], &[8, 2][..]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a shape does not fit, or the device refuses.
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor>;
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        (**self).forward(cx, x)
    }
}

impl<M: Module + ?Sized> Module for std::sync::Arc<M> {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        (**self).forward(cx, x)
    }
}
