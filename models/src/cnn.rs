//! Small networks for small images.

use shadegrad::nn::{Activation, ActivationLayer, BatchNorm2d, Conv2d, ConvOptions, Cx, Layout, Linear, Module, Scope};
use shadegrad::{Error, Pool2d, Result, Tensor};

use crate::{Spec, conv};

/// Fully connected layers with an activation between them.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::{Mlp, Spec};
/// let mut names = Builder::new();
/// let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// let model = Mlp::new(&mut names.root(), &spec, &[16]);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let logits = model.forward(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[3, 8, 8, 1])?)?;
/// assert_eq!(logits.shape(), [3, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct Mlp {
    layers: Vec<Linear>,
    activations: Vec<ActivationLayer>,
}

impl Mlp {
    /// Hidden layers of the given widths with ReLU, then the classes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{Mlp, Spec};
    /// let mut names = Builder::new();
    /// let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// Mlp::new(&mut names.root(), &spec, &[4, 3]);
    /// assert_eq!(names.tables()?.0.numel(), (64 * 4 + 4) + (4 * 3 + 3) + (3 * 10 + 10));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, spec: &Spec, hidden: &[usize]) -> Self {
        Self::with_activation(scope, spec, hidden, Activation::Relu)
    }

    /// Hidden layers of the given widths with `activation`, each with a parameter of its own (in the scope `acts`) where it
    /// has one, then the classes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{Mlp, Spec};
    /// let mut names = Builder::new();
    /// let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// Mlp::with_activation(&mut names.root(), &spec, &[4], Activation::Prelu(0.25));
    /// // The slope is one parameter more.
    /// assert_eq!(names.tables()?.0.numel(), (64 * 4 + 4) + 1 + (4 * 10 + 10));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_activation(scope: &mut Scope<'_>, spec: &Spec, hidden: &[usize], activation: Activation) -> Self {
        let mut width = spec.height * spec.width * spec.channels;
        let mut layers = Vec::new();
        for (i, &next) in hidden.iter().chain(std::iter::once(&spec.classes)).enumerate() {
            layers.push(Linear::new(&mut scope.sub(format!("layers.{i}")), width, next, true));
            width = next;
        }
        // PyTorch flattens channels first.
        scope.layout(layers[0].weight(), Layout::Flattened([spec.height, spec.width, spec.channels]));
        let activations = (0..hidden.len()).map(|i| activation.layer(&mut scope.sub(format!("acts.{i}")))).collect();
        Self { layers, activations }
    }
}

impl Module for Mlp {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.flatten(1, x.rank() - 1)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(cx, &x)?;
            if let Some(activation) = self.activations.get(i) {
                x = activation.forward(cx, &x)?;
            }
        }
        Ok(x)
    }
}

/// Three convolutions with batch norm and ReLU (32, 64, 64 channels), pooling after the second, a linear head on the
/// mean over all pixels.
///
/// ```
/// # use shadegrad_models::*;
/// # use shadegrad::Error;
/// use shadegrad::nn::Builder;
/// let mut names = Builder::new();
/// let model = SmallCnn::new(&mut names.root(), &Spec { height: 8, width: 8, channels: 1, classes: 10 })?;
/// assert_eq!(names.tables()?.0.numel(), 56_554);
/// # drop(model);
/// # Ok::<(), Error>(())
/// ```
pub struct SmallCnn {
    blocks: Vec<(Conv2d, BatchNorm2d)>,
    head: Linear,
}

impl SmallCnn {
    /// The network for the images and classes of `spec`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{SmallCnn, Spec};
    /// let mut names = Builder::new();
    /// let spec = Spec { height: 28, width: 28, channels: 1, classes: 10 };
    /// SmallCnn::new(&mut names.root(), &spec)?;
    /// // It averages over all pixels: the size of the images changes nothing.
    /// assert_eq!(names.tables()?.0.numel(), 56_554);
    /// let dot = Spec { height: 1, width: 1, ..spec };
    /// assert!(SmallCnn::new(&mut Builder::new().root(), &dot).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the images are smaller than 2 x 2.
    pub fn new(scope: &mut Scope<'_>, spec: &Spec) -> Result<Self> {
        if spec.height < 2 || spec.width < 2 {
            return Err(Error::shape("cnn", format!("images of {} x {}: 2 x 2 at the least", spec.height, spec.width)));
        }
        let mut channels = spec.channels;
        let blocks = [32, 64, 64]
            .into_iter()
            .enumerate()
            .map(|(i, next)| {
                let conv = conv(scope, format!("conv{}", i + 1), channels, next, 3, 1);
                channels = next;
                (conv, BatchNorm2d::new(&mut scope.sub(format!("bn{}", i + 1)), next))
            })
            .collect();
        Ok(Self { blocks, head: Linear::new(&mut scope.sub("fc"), channels, spec.classes, true) })
    }
}

impl Module for SmallCnn {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, (conv, norm)) in self.blocks.iter().enumerate() {
            x = norm.forward_relu(cx, &conv.forward(cx, &x)?)?;
            if i == 1 {
                x = x.max_pool2d(Pool2d::new(2, 2, 0))?;
            }
        }
        self.head.forward(cx, &x.global_avg_pool()?)
    }
}

/// LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition", 1998) as it is used today: ReLU,
/// max pooling, 61,706 parameters on 32 x 32 grey images.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::{LeNet, Spec};
/// let mut names = Builder::new();
/// let model = LeNet::new(&mut names.root(), &Spec { height: 16, width: 16, channels: 1, classes: 10 })?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let logits = model.forward(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 16, 16, 1])?)?;
/// assert_eq!(logits.shape(), [2, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct LeNet {
    conv1: Conv2d,
    conv2: Conv2d,
    fc: [Linear; 3],
}

impl LeNet {
    /// The network for the images and classes of `spec`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{LeNet, Spec};
    /// let mut names = Builder::new();
    /// LeNet::new(&mut names.root(), &Spec { height: 32, width: 32, channels: 1, classes: 10 })?;
    /// assert_eq!(names.tables()?.0.numel(), 61_706);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the images are smaller than 16 x 16.
    pub fn new(scope: &mut Scope<'_>, spec: &Spec) -> Result<Self> {
        let side = |n: usize| (n.checked_sub(4)? / 2).checked_sub(4).map(|m| m / 2).filter(|&m| m > 0);
        let (Some(h), Some(w)) = (side(spec.height), side(spec.width)) else {
            return Err(Error::shape(
                "lenet",
                format!("images of {} x {}: 16 x 16 at the least; use cnn for smaller ones", spec.height, spec.width),
            ));
        };
        let conv1 = Conv2d::new(&mut scope.sub("conv1"), spec.channels, 6, 5, ConvOptions::new(1, 0));
        let conv2 = Conv2d::new(&mut scope.sub("conv2"), 6, 16, 5, ConvOptions::new(1, 0));
        let fc = [
            Linear::new(&mut scope.sub("fc1"), 16 * h * w, 120, true),
            Linear::new(&mut scope.sub("fc2"), 120, 84, true),
            Linear::new(&mut scope.sub("fc3"), 84, spec.classes, true),
        ];
        scope.layout(fc[0].weight(), Layout::Flattened([h, w, 16]));
        Ok(Self { conv1, conv2, fc })
    }
}

impl Module for LeNet {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let pool = |x: Tensor| x.relu()?.max_pool2d(Pool2d::new(2, 2, 0));
        let x = pool(self.conv1.forward(cx, x)?)?;
        let x = pool(self.conv2.forward(cx, &x)?)?;
        let x = self.fc[0].forward(cx, &x.flatten(1, 3)?)?.relu()?;
        let x = self.fc[1].forward(cx, &x)?.relu()?;
        self.fc[2].forward(cx, &x)
    }
}
