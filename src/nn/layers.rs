//! The plain layers.

use crate::error::Result;
use crate::nn::{Cx, Module};
use crate::tensor::Tensor;

/// Element-wise activations, as a value that a model's options can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// None.
    Identity,
    /// [`Tensor::relu`].
    Relu,
    /// [`Tensor::leaky_relu`] with this slope.
    LeakyRelu(f32),
    /// [`Tensor::elu`] with this alpha.
    Elu(f32),
    /// [`Tensor::gelu`].
    Gelu,
    /// [`Tensor::gelu_tanh`].
    GeluTanh,
    /// [`Tensor::silu`].
    Silu,
    /// [`Tensor::tanh`].
    Tanh,
    /// [`Tensor::sigmoid`].
    Sigmoid,
    /// [`Tensor::softplus`].
    Softplus,
}

impl Activation {
    /// The function's values.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x.clone()),
            Self::Relu => x.relu(),
            Self::LeakyRelu(slope) => x.leaky_relu(slope),
            Self::Elu(alpha) => x.elu(alpha),
            Self::Gelu => x.gelu(),
            Self::GeluTanh => x.gelu_tanh(),
            Self::Silu => x.silu(),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => x.sigmoid(),
            Self::Softplus => x.softplus(),
        }
    }
}

impl Module for Activation {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        self.apply(x)
    }
}
