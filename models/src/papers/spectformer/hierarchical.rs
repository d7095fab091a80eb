//! The hierarchical SpectFormer-H: a convolutional stem, four stages of falling resolution, a tail of class attention.

use std::f32::consts::SQRT_2;

use shadegrad::nn::{
    Activation, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, Init, LayerNorm, Linear, Mlp, Module,
    MultiHeadAttention, Scope,
};
use shadegrad::{Attention, Error, Reduction, Result, Tensor};

use super::{Mixer, SpectralGate, TokenMixer};
use crate::Spec;
use crate::blocks::{EPS, PreNorm, drop_path_of};

/// Weight of the auxiliary head: of its loss in training, of its best token's logits in a test.
const AUX: f32 = 0.5;
/// Epsilon of the norms behind the convolutions of stem and down-sampling, the framework's default.
const CONV_EPS: f32 = 1e-5;

/// The convolutions in front of the first stage.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::spectformer::{HierarchicalConfig, Stem};
/// let with = |hidden| HierarchicalConfig { stem: Stem::Small { hidden }, ..HierarchicalConfig::s(&Spec::cifar10()) };
/// // More channels between the first convolution, its norm and the second, which makes 64.
/// let more = with(64).num_params()? - with(32).num_params()?;
/// assert_eq!(more, 32 * (9 * 3) + 2 * 32 + 32 * (9 * 64));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// 7x7 of stride 2, two 3x3, 3x3 of stride 2: a quarter of the resolution.
    Deep {
        /// Channels between.
        hidden: usize,
    },
    /// 3x3, 3x3 of stride 2, for small images: half the resolution.
    Small {
        /// Channels between.
        hidden: usize,
    },
}

/// A stage: blocks of one width on one grid.
///
/// ```
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::spectformer::{HierarchicalConfig, Mixer, Stage};
/// let config = HierarchicalConfig::s(&Spec::imagenet());
/// assert_eq!(config.stages[0], Stage { mixer: Mixer::Spectral, dim: 64, depth: 3, heads: 0, mlp_ratio: 8 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What mixes its tokens.
    pub mixer: Mixer,
    /// Width of a token.
    pub dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads, where it attends.
    pub heads: usize,
    /// Width of a block's hidden layer, in multiples of `dim`.
    pub mlp_ratio: usize,
}

/// What distinguishes the members of the family.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::Spec;
/// use shadegrad_models::papers::spectformer::HierarchicalConfig;
/// let mut config = HierarchicalConfig::cifar(&Spec::cifar10());
/// config.stages.pop(); // one stage less
/// assert!(config.num_params()? < HierarchicalConfig::cifar(&Spec::cifar10()).num_params()?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct HierarchicalConfig {
    /// Images and classes.
    pub spec: Spec,
    /// What comes before the first stage.
    pub stem: Stem,
    /// The stages; each halves the resolution of the one before. The last one's heads and width are those of the tail.
    pub stages: Vec<Stage>,
    /// Stochastic depth of the last stage's last block; it rises linearly from 0 over all blocks. None in the tail.
    pub drop_path: f32,
    /// Whether there is a second head that labels every token of the last stage.
    pub token_labels: bool,
}

impl HierarchicalConfig {
    fn of(spec: &Spec, stem: Stem, dims: [usize; 4], heads: [usize; 2], depths: [usize; 4], drop_path: f32) -> Self {
        // The first two stages are spectral and have the wider MLPs.
        let stages = (0..4)
            .map(|i| {
                let spectral = i < 2;
                Stage {
                    mixer: if spectral { Mixer::Spectral } else { Mixer::Attention },
                    dim: dims[i],
                    depth: depths[i],
                    heads: if spectral { 0 } else { heads[i - 2] },
                    mlp_ratio: if spectral { 8 } else { 4 },
                }
            })
            .collect();
        Self { spec: *spec, stem, stages, drop_path, token_labels: false }
    }

    /// SpectFormer-H-S.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::HierarchicalConfig;
    /// assert_eq!(HierarchicalConfig::s(&Spec::imagenet()).num_params()?, 21_777_928);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn s(spec: &Spec) -> Self {
        Self::of(spec, Stem::Deep { hidden: 32 }, [64, 128, 320, 448], [10, 14], [3, 4, 6, 3], 0.1)
    }

    /// SpectFormer-H-B.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::HierarchicalConfig;
    /// assert_eq!(HierarchicalConfig::b(&Spec::imagenet()).num_params()?, 32_539_880);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn b(spec: &Spec) -> Self {
        Self::of(spec, Stem::Deep { hidden: 64 }, [64, 128, 320, 512], [10, 16], [3, 4, 12, 3], 0.1)
    }

    /// SpectFormer-H-L.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::HierarchicalConfig;
    /// assert_eq!(HierarchicalConfig::l(&Spec::imagenet()).num_params()?, 54_162_792);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn l(spec: &Spec) -> Self {
        Self::of(spec, Stem::Deep { hidden: 64 }, [96, 192, 384, 512], [12, 16], [3, 6, 18, 3], 0.3)
    }

    /// For images of CIFAR's size: grids of 16, 8, 4 and 2. Not a published size.
    ///
    /// ```
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::HierarchicalConfig;
    /// let config = HierarchicalConfig::cifar(&Spec::cifar10());
    /// assert_eq!(config.stages.iter().map(|s| s.dim).collect::<Vec<_>>(), [48, 96, 160, 224]);
    /// ```
    pub fn cifar(spec: &Spec) -> Self {
        Self::of(spec, Stem::Small { hidden: 32 }, [48, 96, 160, 224], [5, 7], [2, 2, 4, 2], 0.1)
    }

    /// The same with the head that labels tokens.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::HierarchicalConfig;
    /// let config = HierarchicalConfig::s(&Spec::imagenet()).with_token_labels();
    /// assert_eq!(config.num_params()? - 21_777_928, 448 * 1000 + 1000); // a second head
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_token_labels(self) -> Self {
        Self { token_labels: true, ..self }
    }

    /// Trainable parameters of the model. Needs no device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::HierarchicalConfig;
    /// let config = HierarchicalConfig::s(&Spec::imagenet());
    /// assert_eq!(config.num_params()?, 21_777_928);
    /// assert!(HierarchicalConfig { stages: vec![], ..config }.num_params().is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`SpectFormerH::new`].
    pub fn num_params(&self) -> Result<usize> {
        let mut builder = Builder::new();
        SpectFormerH::new(&mut builder.root(), self)?;
        Ok(builder.tables()?.0.numel())
    }

    fn check(&self) -> Result<()> {
        let Some(last) = self.stages.last() else {
            return Err(Error::value("spectformer-h", "no stages; takes at least one"));
        };
        if self.spec.height == 0 || self.spec.width == 0 {
            return Err(Error::value("spectformer-h", "images without pixels"));
        }
        for (i, stage) in self.stages.iter().enumerate() {
            let &Stage { dim, depth, heads, mlp_ratio, .. } = stage;
            if dim == 0 || depth == 0 || mlp_ratio == 0 {
                return Err(Error::value(
                    "spectformer-h",
                    format!("stage {}: width {dim}, {depth} blocks, MLP ratio {mlp_ratio}; all at least 1", i + 1),
                ));
            }
            // The tail attends with the heads of the last stage whatever that mixes with.
            if (stage.mixer == Mixer::Attention || stage == last) && (heads == 0 || dim % heads != 0) {
                return Err(Error::value(
                    "spectformer-h",
                    format!("stage {}: width {dim} does not divide into {heads} heads", i + 1),
                ));
            }
        }
        Ok(())
    }
}

/// Half of a side, rounded up: what every convolution of stride 2 here leaves.
fn halved((h, w): (usize, usize)) -> (usize, usize) {
    (h.div_ceil(2), w.div_ceil(2))
}

/// Convolutions as the code of the paper starts them: variance `2 / fan_out`, bias 0.
fn conv(scope: &mut Scope<'_>, io: (usize, usize), kernel: usize, stride: usize, bias: bool) -> Conv2d {
    let options = ConvOptions::new(stride, kernel / 2).kaiming().zero_bias();
    Conv2d::new(scope, io.0, io.1, kernel, if bias { options } else { options.no_bias() })
}

/// Counts multiply-adds while the network is built.
struct Count(usize);

impl Count {
    fn conv(&mut self, (h, w): (usize, usize), per_output: usize, outputs: usize) {
        self.0 += h * w * per_output * outputs;
    }
}

/// Convolutions with batch norm and ReLU behind all but the last, which has the layer norm behind it.
struct Embed {
    convs: Vec<(Conv2d, BatchNorm2d)>,
    proj: Conv2d,
    norm: LayerNorm,
}

/// A map and its tokens.
struct Tokens {
    x: Tensor,
    grid: (usize, usize),
}

impl Embed {
    fn stem(scope: &mut Scope<'_>, config: &HierarchicalConfig, grid: &mut (usize, usize), count: &mut Count) -> Self {
        let (c, out) = (config.spec.channels, config.stages[0].dim);
        // Kernel, stride and channels of the convolutions before the last, numbered as in a sequence with their norms.
        let (hidden, list) = match config.stem {
            Stem::Deep { hidden } => (hidden, vec![(7, 2, c), (3, 1, hidden), (3, 1, hidden)]),
            Stem::Small { hidden } => (hidden, vec![(3, 1, c)]),
        };
        let mut convs = Vec::new();
        for (i, (kernel, stride, inputs)) in list.into_iter().enumerate() {
            if stride == 2 {
                *grid = halved(*grid);
            }
            count.conv(*grid, kernel * kernel * inputs, hidden);
            let layer = conv(&mut scope.sub(format!("conv.{}", 3 * i)), (inputs, hidden), kernel, stride, false);
            convs.push((layer, BatchNorm2d::new(&mut scope.sub(format!("conv.{}", 3 * i + 1)), hidden)));
        }
        *grid = halved(*grid);
        count.conv(*grid, 9 * hidden, out);
        Self {
            convs,
            proj: conv(&mut scope.sub("proj"), (hidden, out), 3, 2, true),
            norm: LayerNorm::new(&mut scope.sub("norm"), out, CONV_EPS),
        }
    }

    fn down(scope: &mut Scope<'_>, io: (usize, usize), grid: &mut (usize, usize), count: &mut Count) -> Self {
        *grid = halved(*grid);
        count.conv(*grid, 9 * io.0, io.1);
        Self {
            convs: Vec::new(),
            proj: conv(&mut scope.sub("proj"), io, 3, 2, true),
            norm: LayerNorm::new(&mut scope.sub("norm"), io.1, CONV_EPS),
        }
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tokens> {
        let mut x = x.clone();
        for (conv, norm) in &self.convs {
            x = norm.forward_relu(cx, &conv.forward(cx, &x)?)?;
        }
        let map = self.proj.forward(cx, &x)?;
        let grid = (map.dim(1), map.dim(2));
        Ok(Tokens { x: self.norm.forward(cx, &map.flatten(1, 2)?)?, grid })
    }
}

/// The MLP of the hierarchical blocks: a depthwise 3x3 convolution over the grid in front of the activation.
struct ConvMlp {
    fc1: Linear,
    dwconv: Conv2d,
    fc2: Linear,
}

impl ConvMlp {
    fn new(scope: &mut Scope<'_>, dim: usize, hidden: usize) -> Self {
        let (w, b) = (Init::TruncNormal(0.02), Some(Init::Zeros));
        // Variance 2 / fan_out, where a depthwise kernel's fan-out is its nine weights.
        let depthwise = ConvOptions::new(1, 1).groups(hidden).init(Init::Normal(0.0, SQRT_2 / 3.0)).zero_bias();
        Self {
            fc1: Linear::with_init(&mut scope.sub("fc1"), dim, hidden, w, b),
            dwconv: Conv2d::new(&mut scope.sub("dwconv"), hidden, hidden, 3, depthwise),
            fc2: Linear::with_init(&mut scope.sub("fc2"), hidden, dim, w, b),
        }
    }

    fn forward(&self, cx: &Cx, x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
        let y = self.fc1.forward(cx, x)?;
        let map = y.reshape(&[y.dim(0), h, w, y.dim(2)])?;
        let y = self.dwconv.forward(cx, &map)?.flatten(1, 2)?;
        self.fc2.forward(cx, &Activation::Gelu.apply(&y)?)
    }
}

struct Block {
    pre: PreNorm,
    mixer: Box<dyn TokenMixer>,
    mlp: ConvMlp,
}

impl Block {
    fn forward(&self, cx: &Cx, x: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
        self.pre.two_branches(cx, x, |x| self.mixer.mix(cx, x, grid), |x| self.mlp.forward(cx, x, grid))
    }
}

/// Attention of the class token over all tokens, itself among them, and an MLP; only the class token changes.
struct ClassBlock {
    pre: PreNorm,
    q: Linear,
    kv: Linear,
    proj: Linear,
    mlp: Mlp,
    heads: usize,
}

impl ClassBlock {
    fn new(scope: &mut Scope<'_>, dim: usize, heads: usize) -> Self {
        let (w, b) = (Init::TruncNormal(0.02), Some(Init::Zeros));
        Self {
            pre: PreNorm::new(scope, dim, 0.0),
            q: Linear::with_init(&mut scope.sub("attn.q"), dim, dim, w, b),
            kv: Linear::with_init(&mut scope.sub("attn.kv"), dim, 2 * dim, w, b),
            proj: Linear::with_init(&mut scope.sub("attn.proj"), dim, dim, w, b),
            mlp: Mlp::new(&mut scope.sub("mlp"), dim, 4 * dim, Activation::Gelu, 0.0),
            heads,
        }
    }

    /// The class token `[B, 1, C]` after the block, for it and the others `[B, N, C]`.
    fn forward(&self, cx: &Cx, cls: &Tensor, x: &Tensor) -> Result<Tensor> {
        let all = self.pre.norm1(cx, &Tensor::concat(&[cls, x], 1)?)?;
        let (n, tokens, c) = (all.dim(0), all.dim(1), all.dim(2));
        let d = c / self.heads;
        let q = self.q.forward(cx, &all.narrow(1, 0, 1)?)?.reshape(&[n, self.heads, 1, d])?;
        let kv = self.kv.forward(cx, &all)?.reshape(&[n, tokens, 2, self.heads, d])?.permute(&[2, 0, 3, 1, 4])?;
        let y = q.sdpa(&kv.select_at(0, 0)?, &kv.select_at(0, 1)?, Attention::default())?;
        let cls = cls.add(&self.proj.forward(cx, &y.reshape(&[n, 1, c])?)?)?;
        cls.add(&self.mlp.forward(cx, &self.pre.norm2(cx, &cls)?)?)
    }
}

/// What the heads of [`SpectFormerH`] say.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::spectformer::{HierarchicalConfig, Mixer, Stage, Stem};
/// use shadegrad_models::papers::spectformer::{Logits, SpectFormerH};
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let one = Stage { mixer: Mixer::Spectral, dim: 4, depth: 1, heads: 1, mlp_ratio: 1 };
/// # let stem = Stem::Small { hidden: 2 };
/// # let config = HierarchicalConfig { spec, stem, stages: vec![one], drop_path: 0.0, token_labels: true };
/// // A stage of one spectral block on a grid of 4 x 4, with a head for its tokens.
/// let mut names = Builder::new();
/// let model = SpectFormerH::new(&mut names.root(), &config)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let logits: Logits = model.logits(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 8, 8, 1])?)?;
/// assert_eq!(logits.image.shape(), [2, 10]);
/// assert!(logits.tokens.is_some_and(|t| t.shape() == [2, 4 * 4, 10]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Logits {
    /// For the image, `[batch, classes]`.
    pub image: Tensor,
    /// For each token of the last stage, `[batch, tokens, classes]`, if there is a head for them.
    pub tokens: Option<Tensor>,
}

impl Logits {
    /// The logits of a test: the image's, and half the largest of the tokens' where there are some.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::spectformer::Logits;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 0.0], &[1, 2])?;
    /// let tokens = Tensor::from_slice(&gpu, &[0.0, 2.0, 4.0, 0.0], &[1, 2, 2])?;
    /// // Half of the tokens' largest, 4 and 2, is added.
    /// assert_eq!(Logits { image, tokens: Some(tokens) }.combined()?.to_vec()?, [3.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn combined(&self) -> Result<Tensor> {
        match &self.tokens {
            Some(tokens) => self.image.add(&tokens.max(&[1], false)?.mul_scalar(AUX)?),
            None => Ok(self.image.clone()),
        }
    }

    /// The loss of token labelling: cross-entropy of the image with `image` `[batch, classes]`, and half that of the tokens,
    /// averaged, with `tokens` `[batch, tokens, classes]`; both are distributions.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::spectformer::Logits;
    /// let (image, tokens) = (Tensor::zeros(&gpu, &[1, 2])?, Some(Tensor::zeros(&gpu, &[1, 3, 2])?));
    /// let (whole, parts) = (Tensor::full(&gpu, &[1, 2], 0.5)?, Tensor::full(&gpu, &[1, 3, 2], 0.5)?);
    /// let loss = Logits { image, tokens }.token_label_loss(&whole, &parts)?;
    /// assert!((loss.item()? - 1.5 * 2f32.ln()).abs() < 1e-6); // an undecided model
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the model was built without the head for tokens, or a shape does not fit.
    pub fn token_label_loss(&self, image: &Tensor, tokens: &Tensor) -> Result<Tensor> {
        let Some(logits) = &self.tokens else {
            return Err(Error::value(
                "token_label_loss",
                "this model has no head for tokens; build it from a configuration `with_token_labels`",
            ));
        };
        let loss = self.image.cross_entropy_soft(image, Reduction::Mean)?;
        if logits.shape() != tokens.shape() {
            return Err(Error::shape(
                "token_label_loss",
                format!("token logits {:?} with targets {:?}; both take one shape", logits.shape(), tokens.shape()),
            ));
        }
        let (logits, tokens) = (logits.flatten(0, 1)?, tokens.flatten(0, 1)?);
        loss.add(&logits.cross_entropy_soft(&tokens, Reduction::Mean)?.mul_scalar(AUX)?)
    }
}

struct StageLayers {
    embed: Embed,
    grid: (usize, usize),
    blocks: Vec<Block>,
    /// Behind every stage but the last.
    norm: Option<LayerNorm>,
}

/// Stem, stages, class attention, heads. The stages as the paper's code has them, whole: the first two spectral, the others
/// attention (the paper's figure draws both kinds within the first two).
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::spectformer::{HierarchicalConfig, Mixer, Stage, Stem};
/// use shadegrad_models::papers::spectformer::SpectFormerH;
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let one = Stage { mixer: Mixer::Spectral, dim: 4, depth: 1, heads: 1, mlp_ratio: 1 };
/// # let stem = Stem::Small { hidden: 2 };
/// # let config = HierarchicalConfig { spec, stem, stages: vec![one], drop_path: 0.0, token_labels: true };
/// // A stage of one spectral block on a grid of 4 x 4, with a head for its tokens.
/// let mut names = Builder::new();
/// let model = SpectFormerH::new(&mut names.root(), &config)?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let logits = model.forward(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[2, 8, 8, 1])?)?;
/// assert_eq!(logits.shape(), [2, 10]);
/// # Ok::<(), Error>(())
/// ```
pub struct SpectFormerH {
    stages: Vec<StageLayers>,
    class_block: ClassBlock,
    norm: LayerNorm,
    head: Linear,
    aux_head: Option<Linear>,
    macs: u64,
}

impl SpectFormerH {
    /// The network that `config` describes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::{HierarchicalConfig, SpectFormerH};
    /// let mut names = Builder::new();
    /// SpectFormerH::new(&mut names.root(), &HierarchicalConfig::cifar(&Spec::cifar10()))?;
    /// assert!(names.tables()?.0.find("block1.0.attn.complex_weight").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a number of it is 0, or heads do not divide a width.
    pub fn new(scope: &mut Scope<'_>, config: &HierarchicalConfig) -> Result<Self> {
        config.check()?;
        let depth = config.stages.iter().map(|s| s.depth).sum();
        let mut grid = (config.spec.height, config.spec.width);
        let (mut count, mut mixing, mut block) = (Count(0), 0, 0);
        let mut stages = Vec::new();
        for (i, stage) in config.stages.iter().enumerate() {
            let &Stage { mixer, dim, heads, mlp_ratio, .. } = stage;
            let mut s = scope.sub(format!("patch_embed{}", i + 1));
            let embed = match i.checked_sub(1) {
                None => Embed::stem(&mut s, config, &mut grid, &mut count),
                Some(before) => Embed::down(&mut s, (config.stages[before].dim, dim), &mut grid, &mut count),
            };
            let hidden = dim * mlp_ratio;
            let mut blocks = Vec::new();
            for j in 0..stage.depth {
                let mut s = scope.sub(format!("block{}.{j}", i + 1));
                // The paper's code has one product for queries and one for keys and values: the same map.
                let mixer: Box<dyn TokenMixer> = match mixer {
                    Mixer::Spectral => {
                        Box::new(SpectralGate::new(&mut s.sub("attn"), grid, dim, SpectralGate::INIT_STD)?)
                    }
                    Mixer::Attention => Box::new(MultiHeadAttention::new(&mut s.sub("attn"), dim, heads, true, 0.0)),
                };
                mixing += mixer.macs(grid, dim);
                count.conv(grid, 2 * dim + 9, hidden);
                blocks.push(Block {
                    pre: PreNorm::new(&mut s, dim, drop_path_of(config.drop_path, block, depth)),
                    mixer,
                    mlp: ConvMlp::new(&mut s.sub("mlp"), dim, hidden),
                });
                block += 1;
            }
            let norm = (i + 1 < config.stages.len())
                .then(|| LayerNorm::new(&mut scope.sub(format!("norm{}", i + 1)), dim, EPS));
            stages.push(StageLayers { embed, grid, blocks, norm });
        }
        let (dim, heads) = config.stages.last().map_or((0, 0), |s| (s.dim, s.heads));
        let (classes, tokens) = (config.spec.classes, grid.0 * grid.1);
        // Class attention: q and proj of one token, k and v of all, scores and values; the MLP; the heads.
        count.0 += 2 * dim * dim + 2 * dim * dim * (tokens + 1) + 2 * (tokens + 1) * dim + 8 * dim * dim;
        count.0 += dim * classes * if config.token_labels { 1 + tokens } else { 1 };
        let mut head =
            |name| Linear::with_init(&mut scope.sub(name), dim, classes, Init::TruncNormal(0.02), Some(Init::Zeros));
        Ok(Self {
            stages,
            head: head("head"),
            aux_head: config.token_labels.then(|| head("aux_head")),
            class_block: ClassBlock::new(&mut scope.sub("post_network.0"), dim, heads),
            norm: LayerNorm::new(&mut scope.sub("norm"), dim, EPS),
            macs: count.0 as u64 + mixing,
        })
    }

    /// What both heads say of images `[batch, height, width, channels]`: what training with token labels starts from.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::spectformer::{Mixer, Stage, Stem};
    /// use shadegrad_models::papers::spectformer::{HierarchicalConfig, SpectFormerH};
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let one = Stage { mixer: Mixer::Spectral, dim: 4, depth: 1, heads: 1, mlp_ratio: 1 };
    /// # let stem = Stem::Small { hidden: 2 };
    /// # let config = HierarchicalConfig { spec, stem, stages: vec![one], drop_path: 0.0, token_labels: true };
    /// // A stage of one spectral block on a grid of 4 x 4, with a head for its tokens.
    /// let mut names = Builder::new();
    /// let model = SpectFormerH::new(&mut names.root(), &HierarchicalConfig { token_labels: false, ..config })?;
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// let logits = model.logits(&Cx::eval(&arena), &Tensor::zeros(&gpu, &[1, 8, 8, 1])?)?;
    /// assert!(logits.tokens.is_none()); // without the second head
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn logits(&self, cx: &Cx, x: &Tensor) -> Result<Logits> {
        let mut map = x.clone();
        for stage in &self.stages {
            let Tokens { mut x, grid } = stage.embed.forward(cx, &map)?;
            if grid != stage.grid {
                return Err(Error::shape(
                    "spectformer-h",
                    format!("images give a grid of {grid:?} where the model has {:?}; build it for this size", stage.grid),
                ));
            }
            for block in &stage.blocks {
                x = block.forward(cx, &x, grid)?;
            }
            if let Some(norm) = &stage.norm {
                x = norm.forward(cx, &x)?;
            }
            map = x.reshape(&[x.dim(0), grid.0, grid.1, x.dim(2)])?;
        }
        let x = map.flatten(1, 2)?;
        let cls = self.class_block.forward(cx, &x.mean(&[1], true)?, &x)?;
        let image = self.head.forward(cx, &self.norm.forward(cx, &cls)?.squeeze(1)?)?;
        let tokens = match &self.aux_head {
            Some(head) => Some(head.forward(cx, &self.norm.forward(cx, &x)?)?),
            None => None,
        };
        Ok(Logits { image, tokens })
    }

    /// Multiply-adds of a forward pass for one image, counted as [`super::SpectFormer::macs`] does.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::Spec;
    /// use shadegrad_models::papers::spectformer::{HierarchicalConfig, SpectFormerH};
    /// let model = |c: &HierarchicalConfig| SpectFormerH::new(&mut Builder::new().root(), c);
    /// let config = HierarchicalConfig::cifar(&Spec::cifar10());
    /// let more = model(&config.clone().with_token_labels())?.macs() - model(&config)?.macs();
    /// assert_eq!(more, 2 * 2 * 224 * 10); // a head for each of four tokens
    /// # Ok::<(), Error>(())
    /// ```
    pub fn macs(&self) -> u64 {
        self.macs
    }
}

impl Module for SpectFormerH {
    /// Images `[batch, height, width, channels]` to [`Logits::combined`], `[batch, classes]`.
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.logits(cx, x)?.combined()
    }
}

#[cfg(test)]
mod tests {
    use shadegrad::nn::Fan;

    use super::*;

    /// The depthwise kernels' fan-out is nine, whatever the number of channels.
    #[test]
    fn depthwise_kernels_start_with_the_variance_of_their_own_fan_out() {
        let mut builder = Builder::new();
        ConvMlp::new(&mut builder.root(), 2, 16);
        conv(&mut builder.root().sub("plain"), (2, 16), 3, 1, true);
        let (table, _) = builder.tables().unwrap();
        let init = |name: &str| table.entries()[table.find(name).unwrap()].init;
        let Init::Normal(mean, std) = init("dwconv.weight") else { panic!("{:?}", init("dwconv.weight")) };
        assert!(mean == 0.0 && (std * std - 2.0 / 9.0).abs() < 1e-7);
        assert_eq!(init("plain.weight"), Init::KaimingNormal(Fan::Out, SQRT_2));
        assert_eq!((init("dwconv.bias"), init("plain.bias")), (Init::Zeros, Init::Zeros));
    }
}
