//! Activations: as values, and as layers where they have parameters.

use crate::error::{Error, Result};
use crate::nn::{Cx, Init, Module, ParamId, Scope};
use crate::tensor::Tensor;

/// Element-wise activations, as a value that a model's options can hold.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = Tensor::from_slice(&gpu, &[-1.0, 1.0], &[2])?;
/// assert_eq!(Activation::LeakyRelu(0.1).apply(&x)?.to_vec()?, [-0.1, 1.0]);
/// # Ok::<(), Error>(())
/// ```
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
    /// [`Tensor::mish`].
    Mish,
    /// [`Tensor::prelu`]; as a layer the number is learned, and this is where it starts (0.25 in PyTorch).
    Prelu(f32),
    /// [`Tensor::crrelu`]; as a layer the number is learned, and this is where it starts (0.01 in public code).
    Crrelu(f32),
}

impl Activation {
    /// The function's values. Those with a parameter take what they hold as a constant; see [`Activation::layer`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[-2.0, 0.0, 3.0], &[3])?;
    /// assert_eq!(Activation::Relu.apply(&x)?.to_vec()?, [0.0, 0.0, 3.0]);
    /// assert_eq!(Activation::Prelu(0.25).apply(&x)?.to_vec()?, [-0.5, 0.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
            Self::Mish => x.mish(),
            Self::Prelu(a) => x.leaky_relu(a),
            Self::Crrelu(eps) => x.crrelu(&Tensor::scalar(x.gpu(), eps)?),
        }
    }

    /// Checks the number that some hold.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// assert!(Activation::Elu(1.0).check().is_ok());
    /// assert!(Activation::LeakyRelu(f32::NAN).check().is_err());
    /// ```
    ///
    /// # Errors
    /// If it is not finite.
    pub fn check(self) -> Result<()> {
        match self {
            Self::LeakyRelu(v) | Self::Elu(v) | Self::Prelu(v) | Self::Crrelu(v) if !v.is_finite() => {
                Err(Error::value("activation", format!("{self:?}: its number must be finite")))
            }
            _ => Ok(()),
        }
    }

    /// The activation as a layer. [`Activation::Prelu`] declares its parameter `weight` `[1]` as PyTorch does,
    /// [`Activation::Crrelu`] `eps` `[]`; both without weight decay. The others have none.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = Activation::Prelu(0.25).layer(&mut names.root().sub("act")); // declares act.weight
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::from_slice(&gpu, &[-4.0, 4.0], &[2])?;
    /// assert_eq!(layer.forward(&Cx::eval(&arena), &x)?.to_vec()?, [-1.0, 4.0]);
    /// assert_eq!(arena.params().by_name("act.weight")?.to_vec()?, [0.25]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn layer(self, scope: &mut Scope<'_>) -> ActivationLayer {
        let param = match self {
            Self::Prelu(a) => Some(scope.param_without_decay("weight", &[1], Init::Const(a))),
            Self::Crrelu(eps) => Some(scope.param_without_decay("eps", &[], Init::Const(eps))),
            _ => None,
        };
        ActivationLayer { name: scope.name().to_string(), activation: self, param }
    }
}

impl Module for Activation {
    fn forward(&self, _: &Cx, x: &Tensor) -> Result<Tensor> {
        self.apply(x)
    }
}

/// An activation in a model, with its parameter where it has one: [`Activation::layer`] makes it.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// let layer: ActivationLayer = Activation::Prelu(0.5).layer(&mut names.root());
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let y = layer.forward(&Cx::train(&arena), &Tensor::from_slice(&gpu, &[-2.0, 3.0], &[2])?)?;
/// arena.backward(&y.sum_all()?)?;
/// assert_eq!(arena.grads().by_name("weight")?.to_vec()?, [-2.0]); // the sum of what was negative
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ActivationLayer {
    name: String,
    activation: Activation,
    param: Option<ParamId>,
}

impl ActivationLayer {
    /// The learned number, if there is one.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let mut names = Builder::new();
    /// let mut root = names.root();
    /// let (learned, plain) = (Activation::Prelu(0.25).layer(&mut root), Activation::Relu.layer(&mut root));
    /// assert!(learned.param().is_some() && plain.param().is_none());
    /// ```
    pub fn param(&self) -> Option<ParamId> {
        self.param
    }
}

impl Module for ActivationLayer {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        // Without a parameter it is a function, not a layer, and has no place of its own for hooks.
        match (self.activation, self.param) {
            (Activation::Prelu(_), Some(a)) => cx.tap(&self.name, cx.enter(&self.name, x)?.prelu(cx.param(a))?),
            (Activation::Crrelu(_), Some(eps)) => cx.tap(&self.name, cx.enter(&self.name, x)?.crrelu(cx.param(eps))?),
            (plain, _) => plain.apply(x),
        }
    }
}
