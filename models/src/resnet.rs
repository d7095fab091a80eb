//! ResNet-18, -34 and -50 (He et al., "Deep residual learning for image recognition", 2015) and the wide ResNet-50-2
//! (Zagoruyko and Komodakis, 2016), named as torchvision does.

use shadegrad::nn::{BatchNorm2d, Conv2d, Cx, Linear, Module, Scope};
use shadegrad::{Pool2d, Result, Tensor};

use crate::{Spec, conv};

/// What distinguishes the members of the family.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::{ResNet, ResNetConfig, Spec};
/// // Between ResNet-18 and -34, for small grey images.
/// let small = Spec { height: 28, width: 28, channels: 1, classes: 10 };
/// let config = ResNetConfig { blocks: [2, 3, 3, 2], ..ResNetConfig::resnet18(&small) };
/// let mut names = Builder::new();
/// ResNet::new(&mut names.root(), &config);
/// assert!(names.tables()?.0.find("layer2.2.conv2.weight").is_some());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ResNetConfig {
    /// Blocks of each of the four stages.
    pub blocks: [usize; 4],
    /// Three-layer blocks with four times the channels at their end.
    pub bottleneck: bool,
    /// Width of a bottleneck's inner layers for each 64 channels of the usual one: 64, or 128 for the wide networks.
    pub base_width: usize,
    /// A 7x7 convolution of stride 2 and a pooling layer first; otherwise one 3x3 convolution, for images of 32 pixels.
    pub large_images: bool,
    /// Colour channels.
    pub channels: usize,
    /// Classes.
    pub classes: usize,
}

impl ResNetConfig {
    fn of(blocks: [usize; 4], bottleneck: bool, spec: &Spec) -> Self {
        let large_images = spec.height.min(spec.width) > 64;
        let (channels, classes) = (spec.channels, spec.classes);
        Self { blocks, bottleneck, base_width: 64, large_images, channels, classes }
    }

    /// ResNet-18; the small stem for images up to 64 pixels.
    ///
    /// ```
    /// use shadegrad_models::{ResNetConfig, Spec};
    /// assert!(!ResNetConfig::resnet18(&Spec::cifar10()).large_images);
    /// assert!(ResNetConfig::resnet18(&Spec::imagenet()).large_images);
    /// ```
    pub fn resnet18(spec: &Spec) -> Self {
        Self::of([2, 2, 2, 2], false, spec)
    }

    /// ResNet-34.
    ///
    /// ```
    /// use shadegrad_models::{ResNetConfig, Spec};
    /// let config = ResNetConfig::resnet34(&Spec::imagenet());
    /// assert_eq!((config.blocks, config.bottleneck), ([3, 4, 6, 3], false));
    /// ```
    pub fn resnet34(spec: &Spec) -> Self {
        Self::of([3, 4, 6, 3], false, spec)
    }

    /// ResNet-50.
    ///
    /// ```
    /// use shadegrad_models::{ResNetConfig, Spec};
    /// let config = ResNetConfig::resnet50(&Spec::imagenet());
    /// assert_eq!((config.blocks, config.bottleneck), ([3, 4, 6, 3], true));
    /// ```
    pub fn resnet50(spec: &Spec) -> Self {
        Self::of([3, 4, 6, 3], true, spec)
    }

    /// Wide ResNet-50-2: bottlenecks twice as wide inside.
    ///
    /// ```
    /// use shadegrad_models::{ResNetConfig, Spec};
    /// let config = ResNetConfig::wide_resnet50_2(&Spec::imagenet());
    /// assert_eq!(config.base_width, 2 * ResNetConfig::resnet50(&Spec::imagenet()).base_width);
    /// ```
    pub fn wide_resnet50_2(spec: &Spec) -> Self {
        Self { base_width: 128, ..Self::resnet50(spec) }
    }
}

/// A residual network of four stages.
///
/// ```
/// # use shadegrad_models::*;
/// # use shadegrad::Error;
/// use shadegrad::nn::Builder;
/// let mut names = Builder::new();
/// let model = ResNet::new(&mut names.root(), &ResNetConfig::resnet18(&Spec::imagenet()));
/// assert_eq!(names.tables()?.0.numel(), 11_689_512);
/// # drop(model);
/// # Ok::<(), Error>(())
/// ```
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    pool: bool,
    blocks: Vec<Block>,
    fc: Linear,
}

struct Block {
    /// Convolutions with their norms; ReLU after each but the last, which follows the addition.
    layers: Vec<(Conv2d, BatchNorm2d)>,
    downsample: Option<(Conv2d, BatchNorm2d)>,
}

impl ResNet {
    /// The network that `config` describes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{ResNet, ResNetConfig, Spec};
    /// let mut names = Builder::new();
    /// ResNet::new(&mut names.root(), &ResNetConfig::resnet50(&Spec::imagenet()));
    /// assert_eq!(names.tables()?.0.numel(), 25_557_032);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, config: &ResNetConfig) -> Self {
        let (kernel, stride) = if config.large_images { (7, 2) } else { (3, 1) };
        let conv1 = conv(scope, "conv1", config.channels, 64, kernel, stride);
        let bn1 = BatchNorm2d::new(&mut scope.sub("bn1"), 64);
        let expansion = if config.bottleneck { 4 } else { 1 };
        let mut blocks = Vec::new();
        let mut channels = 64;
        for (stage, &count) in config.blocks.iter().enumerate() {
            let width = 64 << stage;
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let mut s = scope.sub(format!("layer{}.{i}", stage + 1));
                let inner = if config.bottleneck { width * config.base_width / 64 } else { width };
                blocks.push(Block::new(&mut s, channels, inner, width * expansion, config.bottleneck, stride));
                channels = width * expansion;
            }
        }
        let fc = Linear::new(&mut scope.sub("fc"), channels, config.classes, true);
        Self { conv1, bn1, pool: config.large_images, blocks, fc }
    }

    /// The features in front of the classifier.
    ///
    /// ```no_run
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::{ResNet, ResNetConfig, Spec};
    /// let mut names = Builder::new();
    /// let model = ResNet::new(&mut names.root(), &ResNetConfig::resnet18(&Spec::cifar10()));
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let features = model.features(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[4, 32, 32, 3])?)?;
    /// assert_eq!(features.shape(), [4, 512]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn features(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = self.bn1.forward_relu(cx, &self.conv1.forward(cx, x)?)?;
        if self.pool {
            x = x.max_pool2d(Pool2d::new(3, 2, 1))?;
        }
        for block in &self.blocks {
            x = block.forward(cx, &x)?;
        }
        x.global_avg_pool()
    }
}

impl Module for ResNet {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.fc.forward(cx, &self.features(cx, x)?)
    }
}

impl Block {
    fn new(scope: &mut Scope<'_>, channels: usize, width: usize, out: usize, bottleneck: bool, stride: usize) -> Self {
        // (input, output, kernel, stride); a bottleneck strides in its 3x3 convolution, as torchvision's does.
        let shapes: &[(usize, usize, usize, usize)] = if !bottleneck {
            &[(channels, width, 3, stride), (width, out, 3, 1)]
        } else {
            &[(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        };
        let mut layers = Vec::new();
        for (i, &(from, to, kernel, stride)) in shapes.iter().enumerate() {
            let conv = conv(scope, format!("conv{}", i + 1), from, to, kernel, stride);
            layers.push((conv, BatchNorm2d::new(&mut scope.sub(format!("bn{}", i + 1)), to)));
        }
        let downsample = (stride > 1 || channels != out).then(|| {
            let conv = conv(scope, "downsample.0", channels, out, 1, stride);
            (conv, BatchNorm2d::new(&mut scope.sub("downsample.1"), out))
        });
        Self { layers, downsample }
    }
}

impl Module for Block {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut y = x.clone();
        for (i, (conv, norm)) in self.layers.iter().enumerate() {
            y = conv.forward(cx, &y)?;
            y = if i + 1 < self.layers.len() { norm.forward_relu(cx, &y)? } else { norm.forward(cx, &y)? };
        }
        match &self.downsample {
            Some((conv, norm)) => y.add(&norm.forward(cx, &conv.forward(cx, x)?)?)?.relu(),
            None => y.add(x)?.relu(),
        }
    }
}
