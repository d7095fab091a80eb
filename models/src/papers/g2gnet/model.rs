//! The network of the paper's comparison: patches, three masked layers, a classifier.

use shadegrad::nn::{Activation, Arena, Conv2d, ConvOptions, Cx, Linear, Module, Scope};
use shadegrad::rng::Stream;
use shadegrad::{Error, Result, Tensor};

use super::{Executor, GroupMask, Grouping, MaskedLinear};
use crate::Spec;
use crate::papers::shared::mask::Mask;

/// Groupings of the layers of a network.
///
/// ```
/// use shadegrad_models::papers::g2gnet::{Pattern, Wiring};
/// let paper = Wiring::paper(Pattern::Mixer);
/// assert!(matches!(paper, Wiring::Groups { groups: 8, pattern: Pattern::Mixer, .. }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Contiguous groups in all layers.
    Index,
    /// Random groups, others in each layer.
    Random,
    /// Contiguous groups in the first, third .. layer, interleaved ones in the others: every output then depends on every
    /// input already where no links between groups exist.
    Mixer,
}

/// Which weights the hidden layers have.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::g2gnet::{G2gConfig, G2gMlp, Wiring};
/// let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// let dense = G2gMlp::new(&mut Builder::new().root(), &G2gConfig::paper(&spec, 64, Wiring::Dense, 0))?;
/// let random = G2gMlp::new(&mut Builder::new().root(), &G2gConfig::paper(&spec, 64, Wiring::ErdosRenyi(0.25), 0))?;
/// assert_eq!((dense.masked_layers().len(), random.masked_layers().len()), (0, 3));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wiring {
    /// All.
    Dense,
    /// Each with this probability: the control without structure.
    ErdosRenyi(f64),
    /// Those of [`GroupMask`].
    Groups {
        /// Groups on either side.
        groups: usize,
        /// Probability of a weight within a group.
        p_intra: f64,
        /// Probability of a weight between groups.
        p_inter: f64,
        /// Which units form a group.
        pattern: Pattern,
    },
}

impl Wiring {
    /// The paper's: 8 groups, dense inside, 15 % between; density 0.25625.
    ///
    /// ```
    /// use shadegrad_models::papers::g2gnet::{Pattern, Wiring};
    /// let (groups, p_intra, p_inter, pattern) = (8, 1.0, 0.15, Pattern::Index);
    /// assert_eq!(Wiring::paper(Pattern::Index), Wiring::Groups { groups, p_intra, p_inter, pattern });
    /// ```
    pub fn paper(pattern: Pattern) -> Self {
        Self::Groups { groups: 8, p_intra: 1.0, p_inter: 0.15, pattern }
    }
}

/// What a [`G2gMlp`] is made of.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::g2gnet::{G2gConfig, G2gMlp, Wiring};
/// let config = G2gConfig { widths: vec![256, 128], ..G2gConfig::paper(&Spec::cifar10(), 512, Wiring::Dense, 0) };
/// let model = G2gMlp::new(&mut Builder::new().root(), &config)?;
/// assert_eq!(model.head_parameters(), (512 * 256 + 256) + (256 * 128 + 128) + (128 * 10 + 10));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct G2gConfig {
    /// Images and classes.
    pub spec: Spec,
    /// Channels of the patch encoder; a 4 x 4 grid of them are the features.
    pub channels: usize,
    /// Widths of the hidden layers.
    pub widths: Vec<usize>,
    /// Which weights the hidden layers have.
    pub wiring: Wiring,
    /// How masked layers compute.
    pub executor: Executor,
    /// Decides groups and masks.
    pub seed: u64,
}

impl G2gConfig {
    /// The network of the comparison: 32 channels, so 512 features, and three hidden layers of this width.
    ///
    /// ```
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::g2gnet::{G2gConfig, Pattern, Wiring};
    /// let config = G2gConfig::paper(&Spec::cifar10(), 512, Wiring::paper(Pattern::Index), 0);
    /// assert_eq!((config.channels, config.widths), (32, vec![512; 3]));
    /// ```
    pub fn paper(spec: &Spec, width: usize, wiring: Wiring, seed: u64) -> Self {
        Self { spec: *spec, channels: 32, widths: vec![width; 3], wiring, executor: Executor::Dense, seed }
    }
}

enum Hidden {
    Dense(Linear, [usize; 2]),
    Masked(MaskedLinear),
}

/// Patches of a quarter of the image's side through one convolution and ReLU, flattened channel by channel; hidden layers
/// with ReLU; a dense classifier. Parameters: `encoder`, `layers.N`, `head`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::g2gnet::{G2gConfig, Pattern, Wiring};
/// use shadegrad_models::papers::g2gnet::G2gMlp;
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let wiring = Wiring::Groups { groups: 2, p_intra: 1.0, p_inter: 0.0, pattern: Pattern::Index };
/// # let config = G2gConfig { channels: 1, widths: vec![16], ..G2gConfig::paper(&spec, 16, wiring, 0) };
/// // 16 features and one hidden layer of 16 units in two groups, for images of 8 x 8 pixels.
/// let mut names = Builder::new();
/// let model = G2gMlp::new(&mut names.root(), &config)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// model.attach(&arena, 0)?;
/// let logits = model.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[2, 8, 8, 1])?)?;
/// assert_eq!(logits.shape(), [2, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct G2gMlp {
    encoder: Conv2d,
    hidden: Vec<Hidden>,
    head: Linear,
    head_size: [usize; 2],
}

/// Patches along a side.
const GRID: usize = 4;
/// The stream of random graphs, and that of seeds for the layers.
const GRAPH: u64 = 0x4732_4720;
const LAYER: u64 = 0x4732_4721;

impl G2gMlp {
    /// The network that `config` describes. Call [`G2gMlp::attach`] once the arena is made.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::g2gnet::{Pattern, Wiring};
    /// use shadegrad_models::papers::g2gnet::{G2gConfig, G2gMlp};
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let wiring = Wiring::Groups { groups: 2, p_intra: 1.0, p_inter: 0.0, pattern: Pattern::Index };
    /// # let config = G2gConfig { channels: 1, widths: vec![16], ..G2gConfig::paper(&spec, 16, wiring, 0) };
    /// // 16 features and one hidden layer of 16 units in two groups, for images of 8 x 8 pixels.
    /// let mut names = Builder::new();
    /// G2gMlp::new(&mut names.root(), &config)?;
    /// assert!(names.tables()?.0.find("layers.0.weight").is_some());
    /// let odd = Spec { height: 6, width: 6, ..spec }; // 6 is no multiple of 4
    /// assert!(G2gMlp::new(&mut names.root(), &G2gConfig { spec: odd, ..config }).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the images are not square with a side divisible by 4, or a mask cannot be drawn.
    pub fn new(scope: &mut Scope<'_>, config: &G2gConfig) -> Result<Self> {
        let G2gConfig { spec, channels, widths, wiring, executor, seed } = config;
        let side = spec.height;
        if side != spec.width || side == 0 || side % GRID != 0 {
            return Err(Error::shape(
                "g2gnet",
                format!("images of {side} x {}; they must be square, the side a multiple of {GRID}", spec.width),
            ));
        }
        let patch = side / GRID;
        let encoder =
            Conv2d::new(&mut scope.sub("encoder"), spec.channels, *channels, patch, ConvOptions::new(patch, 0));
        let mut inputs = channels * GRID * GRID;
        let mut hidden = Vec::new();
        for (i, &width) in widths.iter().enumerate() {
            let name = format!("layers.{i}");
            let stream = Stream::new(*seed, GRAPH).child(i as u32);
            let mask = match *wiring {
                Wiring::Dense => None,
                Wiring::ErdosRenyi(density) => Some(Mask::erdos_renyi(width, inputs, density, stream)?),
                Wiring::Groups { groups, p_intra, p_inter, pattern } => {
                    let layer_seed = Stream::new(*seed, LAYER).child(i as u32).philox().next_u64();
                    let grouping = match pattern {
                        Pattern::Random => Grouping::Random { seed: layer_seed },
                        Pattern::Mixer if i % 2 == 1 => Grouping::Interleaved,
                        Pattern::Index | Pattern::Mixer => Grouping::Index,
                    };
                    Some(GroupMask { groups, p_intra, p_inter, grouping }.sample(width, inputs, layer_seed)?)
                }
            };
            hidden.push(match mask {
                None => Hidden::Dense(Linear::new(&mut scope.sub(name), inputs, width, true), [width, inputs]),
                Some(mask) => Hidden::Masked(MaskedLinear::new(&mut scope.sub(name), mask, true, *executor)),
            });
            inputs = width;
        }
        let head = Linear::new(&mut scope.sub("head"), inputs, spec.classes, true);
        Ok(Self { encoder, hidden, head, head_size: [spec.classes, inputs] })
    }

    /// Draws the first values of the masked layers.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::g2gnet::{G2gConfig, Pattern, Wiring};
    /// use shadegrad_models::papers::g2gnet::G2gMlp;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let wiring = Wiring::Groups { groups: 2, p_intra: 1.0, p_inter: 0.0, pattern: Pattern::Index };
    /// # let config = G2gConfig { channels: 1, widths: vec![16], ..G2gConfig::paper(&spec, 16, wiring, 0) };
    /// // 16 features and one hidden layer of 16 units in two groups, for images of 8 x 8 pixels.
    /// let mut names = Builder::new();
    /// let model = G2gMlp::new(&mut names.root(), &config)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// model.attach(&arena, 7)?;
    /// assert!(model.masked_layers()[0].matrix(&arena)?.iter().any(|w| *w != 0.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`MaskedLinear::attach`].
    pub fn attach(&self, arena: &Arena, seed: u64) -> Result<()> {
        self.masked_layers().iter().try_for_each(|layer| layer.attach(arena, seed))
    }

    /// The masked layers, first to last: none where the wiring is dense.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::g2gnet::{G2gConfig, Pattern, Wiring};
    /// use shadegrad_models::papers::g2gnet::G2gMlp;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let wiring = Wiring::Groups { groups: 2, p_intra: 1.0, p_inter: 0.0, pattern: Pattern::Index };
    /// # let config = G2gConfig { channels: 1, widths: vec![16], ..G2gConfig::paper(&spec, 16, wiring, 0) };
    /// // 16 features and one hidden layer of 16 units in two groups, for images of 8 x 8 pixels.
    /// let model = G2gMlp::new(&mut Builder::new().root(), &config)?;
    /// let densities: Vec<f64> = model.masked_layers().iter().map(|l| l.mask().density()).collect();
    /// assert_eq!(densities, [0.5]); // two groups, nothing between
    /// # Ok::<(), Error>(())
    /// ```
    pub fn masked_layers(&self) -> Vec<&MaskedLinear> {
        let masked = self.hidden.iter().filter_map(|h| match h {
            Hidden::Masked(layer) => Some(layer),
            Hidden::Dense(..) => None,
        });
        masked.collect()
    }

    /// Weights that exist and biases of hidden layers and classifier; without the encoder, as the paper counts.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::g2gnet::{G2gConfig, Pattern, Wiring};
    /// use shadegrad_models::papers::g2gnet::G2gMlp;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let wiring = Wiring::Groups { groups: 2, p_intra: 1.0, p_inter: 0.0, pattern: Pattern::Index };
    /// # let config = G2gConfig { channels: 1, widths: vec![16], ..G2gConfig::paper(&spec, 16, wiring, 0) };
    /// // 16 features and one hidden layer of 16 units in two groups, for images of 8 x 8 pixels.
    /// let model = G2gMlp::new(&mut Builder::new().root(), &config)?;
    /// assert_eq!(model.head_parameters(), (2 * 8 * 8 + 16) + (16 * 10 + 10));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn head_parameters(&self) -> usize {
        let of = |h: &Hidden| match h {
            Hidden::Dense(_, [outputs, inputs]) => outputs * inputs + outputs,
            Hidden::Masked(layer) => layer.parameters(),
        };
        let [classes, inputs] = self.head_size;
        self.hidden.iter().map(of).sum::<usize>() + classes * inputs + classes
    }

    /// The encoder's features `[batch, 16 * channels]`, channel by channel: index `c * 16 + row * 4 + column`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::g2gnet::{G2gConfig, Pattern, Wiring};
    /// use shadegrad_models::papers::g2gnet::G2gMlp;
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let wiring = Wiring::Groups { groups: 2, p_intra: 1.0, p_inter: 0.0, pattern: Pattern::Index };
    /// # let config = G2gConfig { channels: 1, widths: vec![16], ..G2gConfig::paper(&spec, 16, wiring, 0) };
    /// // 16 features and one hidden layer of 16 units in two groups, for images of 8 x 8 pixels.
    /// let mut names = Builder::new();
    /// let model = G2gMlp::new(&mut names.root(), &config)?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let features = model.features(&Cx::eval(&arena), &Tensor::ones(&gpu, &[2, 8, 8, 1])?)?;
    /// assert_eq!(features.shape(), [2, 16]); // one channel of 4 x 4 patches
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn features(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let patches = self.encoder.forward(cx, x)?.relu()?;
        // [batch, 4, 4, channels]: the channels go before the positions.
        patches.flatten(1, 2)?.transpose(1, 2)?.flatten(1, 2)
    }
}

impl Module for G2gMlp {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut x = self.features(cx, x)?;
        for layer in &self.hidden {
            x = match layer {
                Hidden::Dense(linear, _) => linear.forward(cx, &x)?.relu()?,
                Hidden::Masked(masked) => masked.forward_with(cx, &x, Activation::Relu)?,
            };
        }
        self.head.forward(cx, &x)
    }
}
