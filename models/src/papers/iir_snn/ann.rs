//! The network before the conversion: layers that can be looked at, and the paper's VGGs made of them.

use shadegrad::nn::{BatchNorm2d, Conv2d, ConvOptions, Cx, Dropout, Flatten, Init, Linear, Module, Scope};
use shadegrad::{Error, Pool2d, Result, Tensor};

use crate::Spec;

const OP: &str = "Ann";

/// A layer of an [`Ann`]. The layers of the engine turn into it: `Layer::from(conv)`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::iir_snn::Layer;
/// let mut names = Builder::new();
/// let layer = Layer::from(Linear::new(&mut names.root().sub("fc"), 4, 2, false));
/// assert!(matches!(layer, Layer::Linear(_)));
/// ```
#[derive(Clone, Debug)]
pub enum Layer {
    /// A convolution.
    Conv(Conv2d),
    /// Batch norm, right behind a convolution: it is folded into it.
    BatchNorm(BatchNorm2d),
    /// ReLU: becomes a layer of neurons.
    Relu,
    /// Dropout. In the spiking network one mask serves all timesteps.
    Dropout(f32),
    /// Average pooling.
    AvgPool(Pool2d),
    /// Max pooling. Runs, but cannot be converted: the maximum of spikes loses the rate.
    MaxPool(Pool2d),
    /// Merges all dimensions but the first.
    Flatten,
    /// A linear layer. The last one gives the logits.
    Linear(Linear),
}

impl From<Conv2d> for Layer {
    fn from(layer: Conv2d) -> Self {
        Self::Conv(layer)
    }
}

impl From<BatchNorm2d> for Layer {
    fn from(layer: BatchNorm2d) -> Self {
        Self::BatchNorm(layer)
    }
}

impl From<Linear> for Layer {
    fn from(layer: Linear) -> Self {
        Self::Linear(layer)
    }
}

/// A feed-forward network as a list of layers, which [`super::SpikingNet::from_ann`] converts.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::iir_snn::{Ann, Layer};
/// let mut names = Builder::new();
/// let hidden = Linear::new(&mut names.root().sub("hidden"), 2, 3, false);
/// let out = Linear::new(&mut names.root().sub("out"), 3, 2, false);
/// let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// assert_eq!(ann.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[4, 2])?)?.shape(), [4, 2]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ann {
    layers: Vec<Layer>,
}

impl Ann {
    /// A network of these layers, first to last.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::iir_snn::{Ann, Layer};
    /// let mut names = Builder::new();
    /// let out = Linear::new(&mut names.root().sub("out"), 16, 10, false);
    /// let ann = Ann::new(vec![Layer::AvgPool(Pool2d::new(2, 2, 0)), Layer::Flatten, out.into()]);
    /// assert_eq!(ann.layers().len(), 3);
    /// ```
    pub fn new(layers: Vec<Layer>) -> Self {
        Self { layers }
    }

    /// The layers.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::iir_snn::{Ann, Layer, VggPlan};
    /// let ann = Ann::vgg(&mut Builder::new().root(), &VggPlan::small(), &Spec::cifar10())?;
    /// let weights = ann.layers().iter().filter(|l| matches!(l, Layer::Conv(_) | Layer::Linear(_))).count();
    /// assert_eq!(weights, 6 + 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The VGG of `plan` for images and classes of `spec`: 3x3 convolutions without bias, batch norm, ReLU, then dropout
    /// or, where the plan has one, a pooling in its place; then linear layers without biases. First values: convolutions
    /// normal with variance `2 / (9 outputs)`, linear layers normal with deviation 0.01.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::iir_snn::{Ann, VggPlan};
    /// let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// let mut names = Builder::new();
    /// Ann::vgg(&mut names.root(), &VggPlan::parse("4,A,8,A", &[16])?, &spec)?;
    /// let (first, second) = (9 * 4 + 8, 9 * 4 * 8 + 16); // with their norms
    /// assert_eq!(names.tables()?.0.numel(), first + second + 2 * 2 * 8 * 16 + 16 * 10);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the plan has no convolution, pools before the first one or twice in a row, or pools more than the images allow.
    pub fn vgg(scope: &mut Scope<'_>, plan: &VggPlan, spec: &Spec) -> Result<Self> {
        let (mut layers, mut channels, mut at) = (Vec::new(), spec.channels, 0);
        let (mut height, mut width) = (spec.height, spec.width);
        for feature in &plan.features {
            match *feature {
                Feature::Conv(outputs) => {
                    let options = ConvOptions::new(1, 1).no_bias().kaiming();
                    layers.push(Conv2d::new(&mut scope.sub(format!("conv{at}")), channels, outputs, 3, options).into());
                    layers.push(BatchNorm2d::new(&mut scope.sub(format!("norm{at}")), outputs).into());
                    layers.extend([Layer::Relu, Layer::Dropout(plan.conv_dropout)]);
                    (channels, at) = (outputs, at + 1);
                }
                Feature::Pool => {
                    let Some(Layer::Dropout(_)) = layers.pop() else {
                        return Err(Error::value(OP, "a pooling stands behind a convolution, one at a time"));
                    };
                    if height % 2 != 0 || width % 2 != 0 || height * width == 0 {
                        return Err(Error::shape(
                            OP,
                            format!(
                                "images of {} x {} halve to {height} x {width}, which has no half; use fewer poolings",
                                spec.height, spec.width
                            ),
                        ));
                    }
                    (height, width) = (height / 2, width / 2);
                    layers.push(Layer::AvgPool(Pool2d::new(2, 2, 0)));
                }
            }
        }
        if at == 0 {
            return Err(Error::value(OP, "a plan without convolutions; give at least one"));
        }
        layers.push(Layer::Flatten);
        let mut inputs = channels * height * width;
        for (i, &outputs) in plan.hidden.iter().enumerate() {
            layers.push(linear(&mut scope.sub(format!("fc{i}")), inputs, outputs));
            layers.extend([Layer::Relu, Layer::Dropout(plan.hidden_dropout)]);
            inputs = outputs;
        }
        layers.push(linear(&mut scope.sub(format!("fc{}", plan.hidden.len())), inputs, spec.classes));
        Ok(Self { layers })
    }
}

fn linear(scope: &mut Scope<'_>, inputs: usize, outputs: usize) -> Layer {
    Linear::with_init(scope, inputs, outputs, Init::Normal(0.0, 0.01), None).into()
}

impl Module for Ann {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        let mut layers = self.layers.iter().peekable();
        while let Some(layer) = layers.next() {
            x = match layer {
                Layer::Conv(conv) => conv.forward(cx, &x)?,
                Layer::BatchNorm(norm) => {
                    if matches!(layers.peek(), Some(Layer::Relu)) {
                        layers.next();
                        norm.forward_relu(cx, &x)?
                    } else {
                        norm.forward(cx, &x)?
                    }
                }
                Layer::Relu => x.relu()?,
                Layer::Dropout(p) => Dropout(*p).forward(cx, &x)?,
                Layer::AvgPool(pool) => x.avg_pool2d(*pool)?,
                Layer::MaxPool(pool) => x.max_pool2d(*pool)?,
                Layer::Flatten => Flatten.forward(cx, &x)?,
                Layer::Linear(linear) => linear.forward(cx, &x)?,
            };
        }
        Ok(x)
    }
}

/// A part of the convolutional half of a VGG.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::iir_snn::{Feature, VggPlan};
/// let plan = VggPlan::parse("64,A", &[])?;
/// assert_eq!(plan.features, [Feature::Conv(64), Feature::Pool]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A 3x3 convolution with so many outputs, batch norm and ReLU.
    Conv(usize),
    /// Average pooling by 2, in place of the dropout of the convolution before.
    Pool,
}

/// What distinguishes the VGGs.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::iir_snn::VggPlan;
/// let plan = VggPlan { conv_dropout: 0.0, ..VggPlan::parse("16,16,A,32,A", &[64])? };
/// assert_eq!((plan.features.len(), plan.hidden_dropout), (5, 0.2));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct VggPlan {
    /// The convolutional half.
    pub features: Vec<Feature>,
    /// Widths of the hidden linear layers.
    pub hidden: Vec<usize>,
    /// Dropout behind convolutions.
    pub conv_dropout: f32,
    /// Dropout behind hidden linear layers.
    pub hidden_dropout: f32,
}

impl VggPlan {
    /// A plan from the usual notation, `A` for an average pooling: `"64,A,128,A"`. Dropout 0.2 throughout.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::iir_snn::VggPlan;
    /// assert_eq!(VggPlan::parse("8,A", &[16])?.hidden, [16]);
    /// assert!(VggPlan::parse("8,M", &[16]).is_err()); // poolings are averages, A
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a part is neither a number above 0 nor `A`.
    pub fn parse(features: &str, hidden: &[usize]) -> Result<Self> {
        let part = |text: &str| match text.trim() {
            "A" => Ok(Feature::Pool),
            number => number.parse().ok().filter(|&n| n > 0).map(Feature::Conv).ok_or_else(|| {
                Error::value(OP, format!("`{number}` in the plan `{features}`; parts are numbers of channels and A"))
            }),
        };
        Ok(Self {
            features: features.split(',').map(part).collect::<Result<_>>()?,
            hidden: hidden.to_vec(),
            conv_dropout: 0.2,
            hidden_dropout: 0.2,
        })
    }

    fn of(stages: &[&[usize]], hidden: &[usize]) -> Self {
        let mut features = Vec::new();
        for (i, stage) in stages.iter().enumerate() {
            features.extend(stage.iter().map(|&n| Feature::Conv(n)));
            if i + 1 < stages.len() {
                features.push(Feature::Pool);
            }
        }
        Self { features, hidden: hidden.to_vec(), conv_dropout: 0.2, hidden_dropout: 0.2 }
    }

    /// 13 convolutions and 3 linear layers: the paper's network for 32 x 32 images.
    ///
    /// ```
    /// use shadegrad_models::papers::iir_snn::{Feature, VggPlan};
    /// let convolutions = |plan: &VggPlan| plan.features.iter().filter(|f| **f != Feature::Pool).count();
    /// assert_eq!((convolutions(&VggPlan::vgg16()), VggPlan::vgg16().hidden), (13, vec![4096, 4096]));
    /// ```
    pub fn vgg16() -> Self {
        let stages: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256; 3], &[512; 3], &[512; 3]];
        Self::of(&stages, &[4096, 4096])
    }

    /// 8 convolutions and 3 linear layers.
    ///
    /// ```
    /// use shadegrad_models::papers::iir_snn::{Feature, VggPlan};
    /// assert_eq!(VggPlan::vgg11().features.iter().filter(|f| **f != Feature::Pool).count(), 8);
    /// ```
    pub fn vgg11() -> Self {
        Self::of(&[&[64], &[128, 256], &[512, 512], &[512], &[512, 512]], &[4096, 4096])
    }

    /// 7 convolutions (so many its list has, whatever its name) and 3 linear layers.
    ///
    /// ```
    /// use shadegrad_models::papers::iir_snn::{Feature, VggPlan};
    /// assert_eq!(VggPlan::vgg9().features.iter().filter(|f| **f != Feature::Pool).count(), 7);
    /// ```
    pub fn vgg9() -> Self {
        Self::of(&[&[64], &[128, 256], &[256, 512], &[512], &[512]], &[4096, 4096])
    }

    /// Six narrow convolutions and one hidden linear layer of 128, the only one with dropout (0.1): minutes on a processor.
    ///
    /// ```
    /// use shadegrad_models::papers::iir_snn::VggPlan;
    /// let plan = VggPlan::small();
    /// assert_eq!((plan.conv_dropout, plan.hidden), (0.0, vec![128]));
    /// ```
    pub fn small() -> Self {
        Self { conv_dropout: 0.0, hidden_dropout: 0.1, ..Self::of(&[&[16, 16], &[32, 32], &[64, 64]], &[128]) }
    }
}
