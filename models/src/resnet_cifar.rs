//! The residual networks for CIFAR of He et al., "Deep residual learning for image recognition", 2015, section 4.2.

use shadegrad::nn::{BatchNorm2d, Conv2d, Cx, Linear, Module, Scope};
use shadegrad::{Error, Result, Tensor};

use crate::{Spec, conv};

/// `6n + 2` layers in three stages of 16, 32 and 64 channels; shortcuts without parameters (option A: every second pixel,
/// the new channels zero, half of them on either side).
///
/// ```
/// # use shadegrad_models::*;
/// # use shadegrad::Error;
/// use shadegrad::nn::Builder;
/// let mut names = Builder::new();
/// let model = CifarResNet::new(&mut names.root(), &Spec::cifar10(), 20)?;
/// assert_eq!(names.tables()?.0.numel(), 269_722);
/// # drop(model);
/// # Ok::<(), Error>(())
/// ```
pub struct CifarResNet {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    blocks: Vec<Block>,
    linear: Linear,
}

struct Block {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    stride: usize,
    /// Channels added on each side of the shortcut.
    widen: usize,
}

impl CifarResNet {
    /// The network of `depth` layers for the images and classes of `spec`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{CifarResNet, Spec};
    /// let mut names = Builder::new();
    /// CifarResNet::new(&mut names.root(), &Spec::cifar10(), 110)?;
    /// assert_eq!(names.tables()?.0.numel(), 1_727_962);
    /// assert!(CifarResNet::new(&mut names.root(), &Spec::cifar10(), 18).is_err()); // not 6n + 2
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `depth` is not `6n + 2`, or the images' sides are not multiples of four.
    pub fn new(scope: &mut Scope<'_>, spec: &Spec, depth: usize) -> Result<Self> {
        if depth < 8 || !(depth - 2).is_multiple_of(6) {
            return Err(Error::value(
                "resnet",
                format!("depth {depth}: a CIFAR ResNet has 6n + 2 layers (20, 32, 44, ..)"),
            ));
        }
        spec.divisible("resnet", 4)?;
        let mut blocks = Vec::new();
        let mut channels = 16;
        for (stage, width) in [16, 32, 64].into_iter().enumerate() {
            for i in 0..(depth - 2) / 6 {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let mut s = scope.sub(format!("layer{}.{i}", stage + 1));
                blocks.push(Block {
                    conv1: conv(&mut s, "conv1", channels, width, 3, stride),
                    bn1: BatchNorm2d::new(&mut s.sub("bn1"), width),
                    conv2: conv(&mut s, "conv2", width, width, 3, 1),
                    bn2: BatchNorm2d::new(&mut s.sub("bn2"), width),
                    stride,
                    widen: (width - channels) / 2,
                });
                channels = width;
            }
        }
        Ok(Self {
            conv1: conv(scope, "conv1", spec.channels, 16, 3, 1),
            bn1: BatchNorm2d::new(&mut scope.sub("bn1"), 16),
            blocks,
            linear: Linear::new(&mut scope.sub("linear"), 64, spec.classes, true),
        })
    }

    /// The 64 features in front of the classifier.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::{CifarResNet, Spec};
    /// let mut names = Builder::new();
    /// let spec = Spec { height: 4, width: 4, channels: 1, classes: 10 };
    /// let model = CifarResNet::new(&mut names.root(), &spec, 8)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let features = model.features(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 4, 4, 1])?)?;
    /// assert_eq!(features.shape(), [2, 64]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn features(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = self.bn1.forward_relu(cx, &self.conv1.forward(cx, x)?)?;
        for block in &self.blocks {
            x = block.forward(cx, &x)?;
        }
        x.global_avg_pool()
    }
}

impl Module for CifarResNet {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.linear.forward(cx, &self.features(cx, x)?)
    }
}

impl Module for Block {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let y = self.bn1.forward_relu(cx, &self.conv1.forward(cx, x)?)?;
        let y = self.bn2.forward(cx, &self.conv2.forward(cx, &y)?)?;
        let mut shortcut = x.clone();
        if self.stride > 1 {
            shortcut = shortcut.slice(1, 0, x.dim(1), self.stride)?.slice(2, 0, x.dim(2), self.stride)?;
        }
        if self.widen > 0 {
            shortcut = shortcut.pad(&[(0, 0), (0, 0), (0, 0), (self.widen, self.widen)], 0.0)?;
        }
        y.add(&shortcut)?.relu()
    }
}
