//! VGG with batch norm (Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition",
//! 2014), named as torchvision does.

use shadegrad::nn::{BatchNorm2d, Conv2d, ConvOptions, Cx, Dropout, Linear, Module, Scope};
use shadegrad::{Error, Pool2d, Result, Tensor};

use crate::Spec;

/// What distinguishes the members of the family.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::{Vgg, VggConfig};
/// // Two convolutions with a pooling after each, and no hidden layers.
/// let stages = vec![vec![4], vec![8]];
/// let config = VggConfig { stages, hidden: vec![], grid: 1, dropout: 0.0, channels: 3, classes: 10 };
/// let mut names = Builder::new();
/// Vgg::new(&mut names.root(), &config)?;
/// assert_eq!(names.tables()?.0.numel(), (9 * 3 * 4 + 4 + 8) + (9 * 4 * 8 + 8 + 16) + (8 * 10 + 10));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct VggConfig {
    /// Output channels of each convolution, stage by stage; a pooling layer follows each stage.
    pub stages: Vec<Vec<usize>>,
    /// Widths of the hidden fully connected layers.
    pub hidden: Vec<usize>,
    /// Side of the feature map that the fully connected layers see.
    pub grid: usize,
    /// Dropout in the fully connected layers.
    pub dropout: f32,
    /// Colour channels.
    pub channels: usize,
    /// Classes.
    pub classes: usize,
}

impl VggConfig {
    /// VGG-11, -13, -16 or -19. Images over 64 pixels get torchvision's head (4096, 4096 on a grid of 7 x 7), smaller
    /// ones a single linear layer, as is usual for CIFAR.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{Spec, VggConfig};
    /// let config = VggConfig::of(16, &Spec::cifar10())?;
    /// assert_eq!(config.stages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 3, 3, 3]);
    /// assert!(config.hidden.is_empty());
    /// assert!(VggConfig::of(17, &Spec::cifar10()).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `depth` is none of these, or the images are smaller than 32 x 32.
    pub fn of(depth: usize, spec: &Spec) -> Result<Self> {
        let counts = match depth {
            11 => [1, 1, 2, 2, 2],
            13 => [2, 2, 2, 2, 2],
            16 => [2, 2, 3, 3, 3],
            19 => [2, 2, 4, 4, 4],
            _ => return Err(Error::value("vgg", format!("depth {depth}: there are 11, 13, 16 and 19"))),
        };
        if spec.height < 32 || spec.width < 32 {
            return Err(Error::shape(
                "vgg",
                format!("images of {} x {}: 32 x 32 at the least, for five poolings", spec.height, spec.width),
            ));
        }
        let large = spec.height.min(spec.width) > 64;
        Ok(Self {
            stages: counts.iter().zip([64, 128, 256, 512, 512]).map(|(&n, width)| vec![width; n]).collect(),
            hidden: if large { vec![4096, 4096] } else { vec![] },
            grid: if large { 7 } else { 1 },
            dropout: 0.5,
            channels: spec.channels,
            classes: spec.classes,
        })
    }
}

/// Stages of 3x3 convolutions with batch norm and ReLU, then fully connected layers.
///
/// ```
/// # use shadegrad_models::*;
/// # use shadegrad::Error;
/// use shadegrad::nn::Builder;
/// let mut names = Builder::new();
/// let model = Vgg::new(&mut names.root(), &VggConfig::of(16, &Spec::cifar10())?)?;
/// assert!(names.tables()?.0.numel() > 1_000_000);
/// # drop(model);
/// # Ok::<(), Error>(())
/// ```
pub struct Vgg {
    stages: Vec<Vec<(Conv2d, BatchNorm2d)>>,
    grid: usize,
    classifier: Vec<Linear>,
    dropout: Dropout,
}

impl Vgg {
    /// The network that `config` describes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::{Spec, Vgg, VggConfig};
    /// let mut names = Builder::new();
    /// Vgg::new(&mut names.root(), &VggConfig::of(16, &Spec::imagenet())?)?;
    /// assert_eq!(names.tables()?.0.numel(), 138_365_992);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it has no convolution.
    pub fn new(scope: &mut Scope<'_>, config: &VggConfig) -> Result<Self> {
        let mut channels = config.channels;
        // torchvision numbers convolution, norm, ReLU and pooling through in one sequence.
        let mut index = 0;
        let mut stages = Vec::new();
        for widths in &config.stages {
            let mut stage = Vec::new();
            for &width in widths {
                let conv = Conv2d::new(
                    &mut scope.sub(format!("features.{index}")),
                    channels,
                    width,
                    3,
                    ConvOptions::new(1, 1).kaiming(),
                );
                stage.push((conv, BatchNorm2d::new(&mut scope.sub(format!("features.{}", index + 1)), width)));
                index += 3;
                channels = width;
            }
            index += 1;
            stages.push(stage);
        }
        if stages.iter().all(Vec::is_empty) {
            return Err(Error::value("vgg", "no convolutions; give at least one stage"));
        }
        let mut width = channels * config.grid * config.grid;
        let mut classifier = Vec::new();
        for (i, &next) in config.hidden.iter().chain(std::iter::once(&config.classes)).enumerate() {
            classifier.push(Linear::new(&mut scope.sub(format!("classifier.{}", 3 * i)), width, next, true));
            width = next;
        }
        Ok(Self { stages, grid: config.grid, classifier, dropout: Dropout(config.dropout) })
    }
}

impl Module for Vgg {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for stage in &self.stages {
            for (conv, norm) in stage {
                x = norm.forward_relu(cx, &conv.forward(cx, &x)?)?;
            }
            x = x.max_pool2d(Pool2d::new(2, 2, 0))?;
        }
        let mut x = if self.grid == 1 {
            x.global_avg_pool()?
        } else {
            // torchvision flattens channels first.
            x.adaptive_avg_pool2d(self.grid, self.grid)?.permute(&[0, 3, 1, 2])?.flatten(1, 3)?
        };
        for (i, layer) in self.classifier.iter().enumerate() {
            x = layer.forward(cx, &x)?;
            if i + 1 < self.classifier.len() {
                x = self.dropout.forward(cx, &x.relu()?)?;
            }
        }
        Ok(x)
    }
}
