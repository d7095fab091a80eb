//! Architectures and papers on the shadegrad engine.
//!
//! A model is a plain struct of layers that names its parameters as PyTorch's reference implementation does. [`create`]
//! makes any of them by name:
//!
//! ```
//! use shadegrad::nn::Builder;
//! use shadegrad_models::{Spec, create};
//! let mut builder = Builder::new();
//! let model = create("resnet20", &mut builder.root(), &Spec::cifar10())?;
//! assert_eq!(builder.tables()?.0.numel(), 269_722);
//! # let _ = model;
//! # Ok::<(), shadegrad::Error>(())
//! ```
#![deny(missing_docs, unsafe_code)]
// Bad input is an error, never a panic: what could panic is refused by the compiler. Tests may.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)
)]

mod blocks;
mod cnn;
mod resnet;
mod resnet_cifar;
mod vgg;
mod vit;
pub mod weights;
mod wide_resnet;

pub mod papers;

pub use cnn::{LeNet, Mlp, SmallCnn};
pub use resnet::{ResNet, ResNetConfig};
pub use resnet_cifar::CifarResNet;
pub use vgg::{Vgg, VggConfig};
pub use vit::{Vit, VitConfig};
pub use wide_resnet::WideResNet;

use std::fmt::Display;

use shadegrad::nn::{Builder, Conv2d, ConvOptions, Module, Scope};
use shadegrad::{Error, Result, did_you_mean};

use papers::spectformer::{HierarchicalConfig, SpectFormer, SpectFormerConfig, SpectFormerH};

/// What goes in and comes out of a classifier.
///
/// ```
/// # use shadegrad_models::*;
/// let photos = Spec { height: 64, width: 64, channels: 3, classes: 5 };
/// assert!(parameter_count("resnet18", &photos).is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Colour channels.
    pub channels: usize,
    /// Classes.
    pub classes: usize,
}

impl Spec {
    /// 32 x 32 colour images of 10 classes.
    ///
    /// ```
    /// use shadegrad_models::Spec;
    /// assert_eq!(Spec::cifar10(), Spec { height: 32, width: 32, channels: 3, classes: 10 });
    /// ```
    pub fn cifar10() -> Self {
        Self { height: 32, width: 32, channels: 3, classes: 10 }
    }

    /// 224 x 224 colour images of 1000 classes.
    ///
    /// ```
    /// use shadegrad_models::Spec;
    /// let hundred = Spec { classes: 100, ..Spec::imagenet() };
    /// assert_eq!((hundred.height, hundred.channels), (224, 3));
    /// ```
    pub fn imagenet() -> Self {
        Self { height: 224, width: 224, channels: 3, classes: 1000 }
    }

    /// Refuses images whose sides are not multiples of `factor`.
    fn divisible(&self, op: &'static str, factor: usize) -> Result<()> {
        if self.height.is_multiple_of(factor) && self.width.is_multiple_of(factor) && self.height > 0 && self.width > 0
        {
            return Ok(());
        }
        Err(Error::shape(
            op,
            format!(
                "images of {} x {}: both sides must be multiples of {factor}; resize them",
                self.height, self.width
            ),
        ))
    }
}

/// A convolution that keeps the image's size but for its stride, without a bias: a norm follows.
fn conv(
    scope: &mut Scope<'_>,
    name: impl Display,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
) -> Conv2d {
    let options = ConvOptions::new(stride, kernel / 2).no_bias().kaiming();
    Conv2d::new(&mut scope.sub(name), inputs, outputs, kernel, options)
}

type Make = fn(&mut Scope<'_>, &Spec) -> Result<Box<dyn Module>>;

/// Every model: its name, what it is in a line, and how it is made.
const MODELS: &[(&str, &str, Make)] = &[
    ("mlp", "two hidden layers of 128", |s, x| Ok(Box::new(Mlp::new(s, x, &[128, 128])))),
    ("cnn", "three convolutions with batch norm; small and quick", |s, x| Ok(Box::new(SmallCnn::new(s, x)?))),
    ("lenet", "LeNet-5 (LeCun et al., 1998), with ReLU and max pooling", |s, x| Ok(Box::new(LeNet::new(s, x)?))),
    ("resnet20", "CIFAR ResNet, 20 layers (He et al., 2015)", |s, x| Ok(Box::new(CifarResNet::new(s, x, 20)?))),
    ("resnet32", "CIFAR ResNet, 32 layers", |s, x| Ok(Box::new(CifarResNet::new(s, x, 32)?))),
    ("resnet44", "CIFAR ResNet, 44 layers", |s, x| Ok(Box::new(CifarResNet::new(s, x, 44)?))),
    ("resnet56", "CIFAR ResNet, 56 layers", |s, x| Ok(Box::new(CifarResNet::new(s, x, 56)?))),
    ("resnet110", "CIFAR ResNet, 110 layers", |s, x| Ok(Box::new(CifarResNet::new(s, x, 110)?))),
    ("resnet18", "ResNet-18 (He et al., 2015)", |s, x| Ok(Box::new(ResNet::new(s, &ResNetConfig::resnet18(x))))),
    ("resnet34", "ResNet-34", |s, x| Ok(Box::new(ResNet::new(s, &ResNetConfig::resnet34(x))))),
    ("resnet50", "ResNet-50", |s, x| Ok(Box::new(ResNet::new(s, &ResNetConfig::resnet50(x))))),
    ("wide_resnet50_2", "ResNet-50 with bottlenecks twice as wide (Zagoruyko and Komodakis, 2016)", |s, x| {
        Ok(Box::new(ResNet::new(s, &ResNetConfig::wide_resnet50_2(x))))
    }),
    ("wrn16_4", "WideResNet-16-4 (Zagoruyko and Komodakis, 2016)", |s, x| {
        Ok(Box::new(WideResNet::new(s, x, 16, 4, 0.0)?))
    }),
    ("wrn28_10", "WideResNet-28-10", |s, x| Ok(Box::new(WideResNet::new(s, x, 28, 10, 0.0)?))),
    ("wrn40_2", "WideResNet-40-2", |s, x| Ok(Box::new(WideResNet::new(s, x, 40, 2, 0.0)?))),
    ("vgg11", "VGG-11 with batch norm (Simonyan and Zisserman, 2014)", |s, x| {
        Ok(Box::new(Vgg::new(s, &VggConfig::of(11, x)?)?))
    }),
    ("vgg13", "VGG-13 with batch norm", |s, x| Ok(Box::new(Vgg::new(s, &VggConfig::of(13, x)?)?))),
    ("vgg16", "VGG-16 with batch norm", |s, x| Ok(Box::new(Vgg::new(s, &VggConfig::of(16, x)?)?))),
    ("vgg19", "VGG-19 with batch norm", |s, x| Ok(Box::new(Vgg::new(s, &VggConfig::of(19, x)?)?))),
    ("vit_micro", "ViT for small images: 2 blocks of width 64 (Dosovitskiy et al., 2020)", |s, x| {
        Ok(Box::new(Vit::new(s, &VitConfig::micro(x))?))
    }),
    ("vit_tiny", "ViT-Ti: 12 blocks of width 192", |s, x| Ok(Box::new(Vit::new(s, &VitConfig::tiny(x))?))),
    ("vit_small", "ViT-S: 12 blocks of width 384", |s, x| Ok(Box::new(Vit::new(s, &VitConfig::small(x))?))),
    ("vit_base", "ViT-B: 12 blocks of width 768", |s, x| Ok(Box::new(Vit::new(s, &VitConfig::base(x))?))),
    ("spectformer_tiny", "SpectFormer for small images: 4 blocks of width 64, 2 of them spectral", |s, x| {
        Ok(Box::new(SpectFormer::new(s, &SpectFormerConfig::tiny(x))?))
    }),
    ("spectformer_cifar", "SpectFormer for small images: 9 blocks of width 192, 3 of them spectral", |s, x| {
        Ok(Box::new(SpectFormer::new(s, &SpectFormerConfig::cifar(x))?))
    }),
    ("spectformer_t", "SpectFormer-T: 12 blocks of width 256 (Patro et al., 2023)", |s, x| {
        Ok(Box::new(SpectFormer::new(s, &SpectFormerConfig::t(x))?))
    }),
    ("spectformer_xs", "SpectFormer-XS: 12 blocks of width 384", |s, x| {
        Ok(Box::new(SpectFormer::new(s, &SpectFormerConfig::xs(x))?))
    }),
    ("spectformer_s", "SpectFormer-S: 19 blocks of width 384", |s, x| {
        Ok(Box::new(SpectFormer::new(s, &SpectFormerConfig::s(x))?))
    }),
    ("spectformer_b", "SpectFormer-B: 19 blocks of width 512", |s, x| {
        Ok(Box::new(SpectFormer::new(s, &SpectFormerConfig::b(x))?))
    }),
    ("spectformer_h_cifar", "hierarchical SpectFormer for small images", |s, x| {
        Ok(Box::new(SpectFormerH::new(s, &HierarchicalConfig::cifar(x))?))
    }),
    ("spectformer_h_s", "SpectFormer-H-S: four stages, class attention", |s, x| {
        Ok(Box::new(SpectFormerH::new(s, &HierarchicalConfig::s(x))?))
    }),
    ("spectformer_h_b", "SpectFormer-H-B", |s, x| Ok(Box::new(SpectFormerH::new(s, &HierarchicalConfig::b(x))?))),
    ("spectformer_h_l", "SpectFormer-H-L", |s, x| Ok(Box::new(SpectFormerH::new(s, &HierarchicalConfig::l(x))?))),
];

/// The names [`create`] knows, each with a line of description.
///
/// ```
/// # use shadegrad_models::*;
/// assert!(names().any(|(name, about)| name == "vit_micro" && about.contains("ViT")));
/// ```
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    MODELS.iter().map(|(name, about, _)| (*name, *about))
}

/// Makes the model `name` for `spec`, its parameters under `scope`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::{Spec, create};
/// let mut names = Builder::new();
/// let model = create("lenet", &mut names.root(), &Spec::cifar10())?;
/// assert_eq!(names.tables()?.0.entries()[0].name, "conv1.weight");
/// let text = create("resnet19", &mut names.root(), &Spec::cifar10()).err().map(|e| e.to_string());
/// assert!(text.is_some_and(|t| t.contains("did you mean")));
/// # drop(model);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If there is no such model (the text names the nearest), or it does not fit the images.
pub fn create(name: &str, scope: &mut Scope<'_>, spec: &Spec) -> Result<Box<dyn Module>> {
    match MODELS.iter().find(|m| m.0 == name) {
        Some((_, _, make)) => make(scope, spec),
        None => Err(Error::value("model", unknown(name))),
    }
}

fn unknown(name: &str) -> String {
    let all: Vec<&str> = names().map(|m| m.0).collect();
    format!("there is no model `{name}`{}. There are: {}", did_you_mean(name, &all), all.join(", "))
}

/// Trainable parameters of model `name` for `spec`. Needs no device.
///
/// ```
/// # use shadegrad_models::*;
/// # use shadegrad::Error;
/// assert_eq!(parameter_count("resnet18", &Spec::imagenet())?, 11_689_512);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`create`].
pub fn parameter_count(name: &str, spec: &Spec) -> Result<usize> {
    let mut builder = Builder::new();
    create(name, &mut builder.root(), spec)?;
    Ok(builder.tables()?.0.numel())
}

/// The examples of the page on runs and weights, compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../docs/runs-and-weights.md")]
pub struct RunsAndWeights;

/// Those of the guide, likewise.
#[cfg(doctest)]
mod guide {
    macro_rules! pages {
        ($($name:ident $file:literal),* $(,)?) => {
            $(#[doc = include_str!(concat!("../../docs/guide/", $file))] pub struct $name;)*
        };
    }

    pages! {
        Start "start.md",
        Data "data.md",
        Model "model.md",
        Training "training.md",
        Devices "devices.md",
        Performance "performance.md",
    }
}
