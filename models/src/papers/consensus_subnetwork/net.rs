//! Networks whose constructors ask a [`Shape`] what to build.

use shadegrad::nn::{BatchNorm2d, Conv2d, Cx, Fan, Init, LayerNorm, Linear, Module, Scope};
use shadegrad::{Error, Result, Tensor};

use super::{Shape, Unit};
use crate::{Spec, conv};

/// A residual perceptron: a linear stem, blocks `x + fc2(relu(fc1(norm(x))))`, a linear head. Weights are He-normal, biases
/// start at zero. The weights of `fc2` are divided by the number of blocks: with eight of them at full size the sum has eight
/// times a block's variance, and training at a rate of 0.05 diverges.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::consensus_subnetwork::{ResidualMlp, Shape};
/// let mut names = Builder::new();
/// let model = ResidualMlp::new(&mut names.root(), &Shape::full(), 64, 8, 2, 3);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let logits = model.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[4, 8, 8, 1])?)?;
/// assert_eq!(logits.shape(), [4, 3]);
/// # Ok::<(), Error>(())
/// ```
pub struct ResidualMlp {
    stem: Linear,
    blocks: Vec<MlpBlock>,
    head: Linear,
}

struct MlpBlock {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl ResidualMlp {
    /// As many of `blocks` blocks of this width as `shape` has, in `blocks.0` and so on.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::consensus_subnetwork::{ResidualMlp, Shape};
    /// let mut names = Builder::new();
    /// ResidualMlp::new(&mut names.root(), &Shape::full().without(["blocks.1"]), 64, 8, 2, 3);
    /// let (stem, block, head) = (64 * 8 + 8, 2 * 8 + 2 * (8 * 8 + 8), 8 * 3 + 3);
    /// assert_eq!(names.tables()?.0.numel(), stem + block + head);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(scope: &mut Scope<'_>, shape: &Shape, inputs: usize, width: usize, blocks: usize, classes: usize) -> Self {
        let scaled = |s: &mut Scope<'_>, i, o, part: f32| {
            let gain = std::f32::consts::SQRT_2 * part;
            Linear::with_init(s, i, o, Init::KaimingNormal(Fan::In, gain), Some(Init::Zeros))
        };
        let he = |s: &mut Scope<'_>, i, o| scaled(s, i, o, 1.0);
        let kept = (0..blocks).map(|i| format!("blocks.{i}")).filter(|name| shape.has(name));
        let block = |name: String| {
            let mut s = scope.sub(name);
            MlpBlock {
                norm: LayerNorm::new(&mut s.sub("norm"), width, 1e-5),
                fc1: he(&mut s.sub("fc1"), width, width),
                fc2: scaled(&mut s.sub("fc2"), width, width, 1.0 / blocks as f32),
            }
        };
        let blocks = kept.map(block).collect();
        Self { stem: he(&mut scope.sub("stem"), inputs, width), blocks, head: he(&mut scope.sub("head"), width, classes) }
    }

    /// Its blocks as units.
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::{ResidualMlp, Unit};
    /// let units = ResidualMlp::units(3);
    /// assert_eq!(units.iter().map(Unit::name).collect::<Vec<_>>(), ["blocks.0", "blocks.1", "blocks.2"]);
    /// ```
    pub fn units(blocks: usize) -> Vec<Unit> {
        (0..blocks).map(|i| Unit::layer(&format!("blocks.{i}"), "norm", "fc2")).collect()
    }
}

impl Module for ResidualMlp {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = self.stem.forward(cx, &x.flatten(1, x.rank() - 1)?)?;
        for MlpBlock { norm, fc1, fc2 } in &self.blocks {
            let hidden = fc1.forward(cx, &norm.forward(cx, &x)?)?.relu()?;
            x = x.add(&fc2.forward(cx, &hidden)?)?;
        }
        self.head.forward(cx, &x)
    }
}

/// The residual network for CIFAR (He et al., 2015) with convolutions of 1x1 in the shortcuts that change shape: blocks can
/// be left out and their inner channels be fewer.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::consensus_subnetwork::{PrunableResNet, Shape};
/// let parameters = |shape: &Shape| -> Result<usize> {
///     let mut names = Builder::new();
///     PrunableResNet::new(&mut names.root(), shape, &Spec::cifar10(), 20)?;
///     Ok(names.tables()?.0.numel())
/// };
/// let smaller = Shape::full().without(["layer3.1", "layer3.2"]);
/// let block = 2 * (9 * 64 * 64 + 2 * 64);
/// assert_eq!(parameters(&Shape::full())? - parameters(&smaller)?, 2 * block);
/// # Ok::<(), Error>(())
/// ```
pub struct PrunableResNet {
    stem: (Conv2d, BatchNorm2d),
    blocks: Vec<ConvBlock>,
    linear: Linear,
}

struct ConvBlock {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    shortcut: Option<(Conv2d, BatchNorm2d)>,
}

/// Widths of the three stages.
const STAGES: [usize; 3] = [16, 32, 64];

impl PrunableResNet {
    /// `6n + 2` layers, less what `shape` says.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::consensus_subnetwork::{PrunableResNet, Shape};
    /// let mut names = Builder::new();
    /// PrunableResNet::new(&mut names.root(), &Shape::full(), &Spec::cifar10(), 8)?;
    /// assert_eq!(names.tables()?.0.numel(), 78_042);
    /// assert!(PrunableResNet::new(&mut names.root(), &Shape::full(), &Spec::cifar10(), 9).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `depth` is not `6n + 2`, or the images' sides are not multiples of four.
    pub fn new(scope: &mut Scope<'_>, shape: &Shape, spec: &Spec, depth: usize) -> Result<Self> {
        let per_stage = blocks_of(depth)?;
        spec.divisible("resnet", 4)?;
        let mut blocks = Vec::new();
        let mut channels = STAGES[0];
        for (stage, width) in STAGES.into_iter().enumerate() {
            for i in 0..per_stage {
                let name = block_name(stage, i);
                let changes = stage > 0 && i == 0;
                if !changes && !shape.has(&name) {
                    continue;
                }
                let inner = shape.width(&format!("{name}.conv1"), width);
                let mut s = scope.sub(&name);
                let stride = if changes { 2 } else { 1 };
                blocks.push(ConvBlock {
                    conv1: conv(&mut s, "conv1", channels, inner, 3, stride),
                    bn1: BatchNorm2d::new(&mut s.sub("bn1"), inner),
                    conv2: conv(&mut s, "conv2", inner, width, 3, 1),
                    bn2: BatchNorm2d::new(&mut s.sub("bn2"), width),
                    shortcut: changes.then(|| {
                        let mut s = s.sub("shortcut");
                        (conv(&mut s, 0, channels, width, 1, stride), BatchNorm2d::new(&mut s.sub(1), width))
                    }),
                });
                channels = width;
            }
        }
        Ok(Self {
            stem: (conv(scope, "conv1", spec.channels, STAGES[0], 3, 1), BatchNorm2d::new(&mut scope.sub("bn1"), STAGES[0])),
            blocks,
            linear: Linear::new(&mut scope.sub("linear"), STAGES[2], spec.classes, true),
        })
    }

    /// The branches that can go: all blocks but the two that change shape.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::consensus_subnetwork::{PrunableResNet, Unit};
    /// let units = PrunableResNet::layer_units(14)?;
    /// let names: Vec<&str> = units.iter().map(Unit::name).collect();
    /// assert_eq!(names, ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]); // the others change shape
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `depth` is not `6n + 2`.
    pub fn layer_units(depth: usize) -> Result<Vec<Unit>> {
        let per_stage = blocks_of(depth)?;
        let all = (0..STAGES.len()).flat_map(|stage| (0..per_stage).map(move |i| (stage, i)));
        let kept = all.filter(|&(stage, i)| stage == 0 || i > 0);
        Ok(kept.map(|(stage, i)| Unit::layer(&block_name(stage, i), "conv1", "bn2")).collect())
    }

    /// The inner channels of every block, which leave the sums as wide as they are.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::consensus_subnetwork::PrunableResNet;
    /// let units = PrunableResNet::channel_units(8)?;
    /// assert_eq!(units[2].name(), "layer3.0.conv1");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `depth` is not `6n + 2`.
    pub fn channel_units(depth: usize) -> Result<Vec<Unit>> {
        let per_stage = blocks_of(depth)?;
        let all = (0..STAGES.len()).flat_map(|stage| (0..per_stage).map(move |i| block_name(stage, i)));
        let unit = |b: String| Unit::channels(&format!("{b}.conv1"), Some(&format!("{b}.bn1")), &format!("{b}.conv2"));
        Ok(all.map(unit).collect())
    }
}

fn block_name(stage: usize, i: usize) -> String {
    format!("layer{}.{i}", stage + 1)
}

fn blocks_of(depth: usize) -> Result<usize> {
    if depth < 8 || !(depth - 2).is_multiple_of(6) {
        return Err(Error::value("resnet", format!("depth {depth}: a CIFAR ResNet has 6n + 2 layers (20, 32, 44, ..)")));
    }
    Ok((depth - 2) / 6)
}

impl Module for PrunableResNet {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = self.stem.1.forward_relu(cx, &self.stem.0.forward(cx, x)?)?;
        for block in &self.blocks {
            let y = block.bn1.forward_relu(cx, &block.conv1.forward(cx, &x)?)?;
            let y = block.bn2.forward(cx, &block.conv2.forward(cx, &y)?)?;
            let around = match &block.shortcut {
                Some((conv, norm)) => norm.forward(cx, &conv.forward(cx, &x)?)?,
                None => x,
            };
            x = y.add(&around)?.relu()?;
        }
        self.linear.forward(cx, &x.global_avg_pool()?)
    }
}
