//! Wide residual networks (Zagoruyko and Komodakis, 2016): few layers, many channels, norm and ReLU before each
//! convolution.

use shadegrad::nn::{BatchNorm2d, Conv2d, Cx, Dropout, Linear, Module, Scope};
use shadegrad::{Error, Result, Tensor};

use crate::{Spec, conv};

/// WRN-`depth`-`widen`: three stages of 16, 32 and 64 times `widen` channels.
///
/// ```
/// # use shadegrad_models::*;
/// # use shadegrad::Error;
/// use shadegrad::nn::Builder;
/// let mut names = Builder::new();
/// let model = WideResNet::new(&mut names.root(), &Spec::cifar10(), 40, 2, 0.0)?;
/// assert!(names.tables()?.0.numel() > 1_000_000);
/// # drop(model);
/// # Ok::<(), Error>(())
/// ```
pub struct WideResNet {
    conv1: Conv2d,
    blocks: Vec<Block>,
    bn: BatchNorm2d,
    fc: Linear,
}

struct Block {
    bn1: BatchNorm2d,
    conv1: Conv2d,
    bn2: BatchNorm2d,
    dropout: Dropout,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl WideResNet {
    /// `depth` layers, `widen` times the channels of a CIFAR ResNet, dropout between a block's convolutions.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{Spec, WideResNet};
    /// let mut names = Builder::new();
    /// WideResNet::new(&mut names.root(), &Spec::cifar10(), 28, 10, 0.3)?;
    /// assert_eq!(names.tables()?.0.numel(), 36_479_194);
    /// assert!(WideResNet::new(&mut names.root(), &Spec::cifar10(), 20, 4, 0.0).is_err()); // not 6n + 4
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `depth` is not `6n + 4`, or the images' sides are not multiples of four.
    pub fn new(scope: &mut Scope<'_>, spec: &Spec, depth: usize, widen: usize, dropout: f32) -> Result<Self> {
        if depth < 10 || !(depth - 4).is_multiple_of(6) {
            return Err(Error::value(
                "wrn",
                format!("depth {depth}: a wide ResNet has 6n + 4 layers (16, 28, 40, ..)"),
            ));
        }
        spec.divisible("wrn", 4)?;
        let conv1 = conv(scope, "conv1", spec.channels, 16, 3, 1);
        let mut blocks = Vec::new();
        let mut channels = 16;
        for (stage, base) in [16, 32, 64].into_iter().enumerate() {
            let width = base * widen;
            for i in 0..(depth - 4) / 6 {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let mut s = scope.sub(format!("block{}.layer.{i}", stage + 1));
                let conv2 = conv(&mut s, "conv2", width, width, 3, 1);
                let shortcut = (channels != width).then(|| conv(&mut s, "convShortcut", channels, width, 1, stride));
                blocks.push(Block {
                    bn1: BatchNorm2d::new(&mut s.sub("bn1"), channels),
                    conv1: conv(&mut s, "conv1", channels, width, 3, stride),
                    bn2: BatchNorm2d::new(&mut s.sub("bn2"), width),
                    dropout: Dropout(dropout),
                    conv2,
                    shortcut,
                });
                channels = width;
            }
        }
        let bn = BatchNorm2d::new(&mut scope.sub("bn1"), channels);
        Ok(Self { conv1, blocks, bn, fc: Linear::new(&mut scope.sub("fc"), channels, spec.classes, true) })
    }
}

impl Module for WideResNet {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = self.conv1.forward(cx, x)?;
        for block in &self.blocks {
            x = block.forward(cx, &x)?;
        }
        self.fc.forward(cx, &self.bn.forward_relu(cx, &x)?.global_avg_pool()?)
    }
}

impl Module for Block {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let a = self.bn1.forward_relu(cx, x)?;
        let y = self.bn2.forward_relu(cx, &self.conv1.forward(cx, &a)?)?;
        let y = self.conv2.forward(cx, &self.dropout.forward(cx, &y)?)?;
        // Where the shape changes, the shortcut sees the activated input too, as in the authors' code.
        match &self.shortcut {
            Some(conv) => y.add(&conv.forward(cx, &a)?),
            None => y.add(x),
        }
    }
}
