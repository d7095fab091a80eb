//! What is kept for the backward pass: as the engine counts it, and as the sizes of a transformer block predict it.

use shadegrad::Quantizer;
use shadegrad::autograd::{Compact, SavedTensor};

/// Bytes kept of something, and bytes that keeping all of it would take.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::slimfit::{SlimConfig, SlimFit};
/// use shadegrad_models::papers::slimfit::Share;
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.5, ..SlimConfig::default() })?;
/// # slim.plan(&mut arena)?;
/// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
/// # let loss = slim.forward(|| model.forward(&Cx::train(&arena), &x)?.square()?.sum_all())?;
/// // After a forward pass of a model with two layers, of which one is frozen.
/// let shares: Vec<Share> = slim.memory().by_category();
/// assert!(shares.iter().all(|s| s.kept <= s.whole && !s.name.is_empty()));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// What it is.
    pub name: String,
    /// Bytes kept.
    pub kept: u64,
    /// Bytes without freezing and without compression.
    pub whole: u64,
}

/// What the forward pass of a step kept for its backward pass, by the engine's own account.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::slimfit::{SlimConfig, SlimFit};
/// use shadegrad_models::papers::slimfit::Memory;
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.5, ..SlimConfig::default() })?;
/// # slim.plan(&mut arena)?;
/// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
/// # let loss = slim.forward(|| model.forward(&Cx::train(&arena), &x)?.square()?.sum_all())?;
/// // After a forward pass of a model with two layers, of which one is frozen.
/// let memory: Memory = slim.memory();
/// assert!(memory.kept() > 0 && memory.kept() <= memory.whole());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Tensor by tensor, in order.
    pub tensors: Vec<SavedTensor>,
    /// The most bytes that any step kept so far.
    pub peak: u64,
}

impl Memory {
    /// Bytes kept in the last step.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::{SlimConfig, SlimFit};
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.5, ..SlimConfig::default() })?;
    /// # slim.plan(&mut arena)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let loss = slim.forward(|| model.forward(&Cx::train(&arena), &x)?.square()?.sum_all())?;
    /// // After a forward pass of a model with two layers, of which one is frozen.
    /// let memory = slim.memory();
    /// assert_eq!(memory.kept(), memory.tensors.iter().map(|t| t.bytes).sum::<u64>());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn kept(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes).sum()
    }

    /// Bytes that the same pass keeps when every layer is trained and nothing is compressed: the baseline's.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::{SlimConfig, SlimFit};
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.5, ..SlimConfig::default() })?;
    /// # slim.plan(&mut arena)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let loss = slim.forward(|| model.forward(&Cx::train(&arena), &x)?.square()?.sum_all())?;
    /// // After a forward pass of a model with two layers, of which one is frozen.
    /// assert!(slim.memory().whole() >= 5 * 4 * 4); // the hidden units' inputs of five samples at the least
    /// # Ok::<(), Error>(())
    /// ```
    pub fn whole(&self) -> u64 {
        self.tensors.iter().map(|t| t.whole_bytes).sum()
    }

    /// By operation and what of it is kept, in the order of the first of each.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::{SlimConfig, SlimFit};
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.5, ..SlimConfig::default() })?;
    /// # slim.plan(&mut arena)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let loss = slim.forward(|| model.forward(&Cx::train(&arena), &x)?.square()?.sum_all())?;
    /// // After a forward pass of a model with two layers, of which one is frozen.
    /// let memory = slim.memory();
    /// assert_eq!(memory.by_category().iter().map(|s| s.kept).sum::<u64>(), memory.kept());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn by_category(&self) -> Vec<Share> {
        self.sum_by(|t| format!("{} {}", t.op, t.what))
    }

    /// By the layer that ended next.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::{SlimConfig, SlimFit};
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.5, ..SlimConfig::default() })?;
    /// # slim.plan(&mut arena)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let loss = slim.forward(|| model.forward(&Cx::train(&arena), &x)?.square()?.sum_all())?;
    /// // After a forward pass of a model with two layers, of which one is frozen.
    /// let memory = slim.memory();
    /// assert_eq!(memory.by_layer().iter().map(|s| s.whole).sum::<u64>(), memory.whole());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn by_layer(&self) -> Vec<Share> {
        self.sum_by(|t| t.layer.clone())
    }

    fn sum_by(&self, name: impl Fn(&SavedTensor) -> String) -> Vec<Share> {
        let mut all: Vec<Share> = Vec::new();
        for t in &self.tensors {
            let name = name(t);
            let at = all.iter().position(|s| s.name == name).unwrap_or_else(|| {
                all.push(Share { name, kept: 0, whole: 0 });
                all.len() - 1
            });
            all[at].kept += t.bytes;
            all[at].whole += t.whole_bytes;
        }
        all
    }
}

/// Sizes of a pre-norm transformer block with separate queries, keys and values.
///
/// ```
/// # use shadegrad::autograd::Compact;
/// use shadegrad_models::papers::slimfit::{ActiveLayers, BlockShape};
/// // A block of ViT-S on batches of 64.
/// let block = BlockShape { batch: 64, tokens: 197, width: 384, heads: 6, hidden: 1536 };
/// let all = block.bytes(&Compact::default(), ActiveLayers::ALL);
/// assert!(block.bytes(&Compact::default(), ActiveLayers::default()) < all);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BlockShape {
    /// Samples, B.
    pub batch: usize,
    /// Tokens, T.
    pub tokens: usize,
    /// Width, d.
    pub width: usize,
    /// Heads, h.
    pub heads: usize,
    /// Width of the hidden layer, 4 d in the paper.
    pub hidden: usize,
}

/// Which weights of a block are trained in a step.
///
/// ```
/// # use shadegrad::autograd::Compact;
/// # use shadegrad_models::papers::slimfit::BlockShape;
/// use shadegrad_models::papers::slimfit::ActiveLayers;
/// # let block = BlockShape { batch: 1, tokens: 4, width: 8, heads: 2, hidden: 16 };
/// // A sample of 4 tokens of width 8, which are 128 bytes.
/// let first = ActiveLayers { fc1: true, ..ActiveLayers::default() };
/// let more = block.bytes(&Compact::default(), first) - block.bytes(&Compact::default(), ActiveLayers::default());
/// assert_eq!(more, 128); // the input of that layer
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActiveLayers {
    /// Scale of the norm before attention.
    pub norm1: bool,
    /// Any of the weights of queries, keys and values: they share one input.
    pub qkv: bool,
    /// Weight behind attention.
    pub proj: bool,
    /// Scale of the norm before the MLP.
    pub norm2: bool,
    /// First weight of the MLP.
    pub fc1: bool,
    /// Its second.
    pub fc2: bool,
}

impl ActiveLayers {
    /// All of them.
    pub const ALL: Self = Self { norm1: true, qkv: true, proj: true, norm2: true, fc1: true, fc2: true };
}

fn floats(n: usize) -> u64 {
    4 * n as u64
}

fn packed(how: Option<Quantizer>, n: usize) -> u64 {
    how.map_or(floats(n), |q| q.bytes(n))
}

impl BlockShape {
    /// Bytes kept of each tensor of a block, in whole words, as the paper's accounting has them.
    ///
    /// ```
    /// # use shadegrad::autograd::Compact;
    /// # use shadegrad_models::papers::slimfit::BlockShape;
    /// use shadegrad_models::papers::slimfit::ActiveLayers;
    /// # let block = BlockShape { batch: 1, tokens: 4, width: 8, heads: 2, hidden: 16 };
    /// // A sample of 4 tokens of width 8, which are 128 bytes.
    /// let parts = block.predict(&Compact::default(), ActiveLayers::ALL);
    /// assert_eq!((parts[0], parts[2]), (("norm1", 128), ("queries and keys", 2 * 128)));
    /// ```
    pub fn predict(&self, how: &Compact, active: ActiveLayers) -> Vec<(&'static str, u64)> {
        let &Self { batch, tokens, width, heads, hidden } = self;
        let (rows, e) = (batch * tokens, batch * tokens * width);
        let norm = |trained: bool| match how.norm_share {
            // Values and places of some elements, and a deviation of each row.
            Some(share) if !trained => 2 * floats((share * e as f64 + 1e-9).floor() as usize) + floats(rows),
            _ => floats(e),
        };
        let input = |trained: bool, bytes: u64| if trained { bytes } else { 0 };
        vec![
            ("norm1", norm(active.norm1)),
            ("input of q, k and v", input(active.qkv, floats(e))),
            ("queries and keys", 2 * packed(how.product, e)),
            ("probabilities", packed(how.probability, batch * heads * tokens * tokens)),
            ("values", packed(how.product, e)),
            ("input of proj", input(active.proj, floats(e))),
            ("norm2", norm(active.norm2)),
            ("input of fc1", input(active.fc1, floats(e))),
            ("input of gelu", packed(how.activation, rows * hidden)),
            ("input of fc2", input(active.fc2, packed(how.after_activation, rows * hidden))),
        ]
    }

    /// The sum of [`BlockShape::predict`].
    ///
    /// ```
    /// # use shadegrad::autograd::Compact;
    /// # use shadegrad_models::papers::slimfit::BlockShape;
    /// use shadegrad_models::papers::slimfit::ActiveLayers;
    /// # let block = BlockShape { batch: 1, tokens: 4, width: 8, heads: 2, hidden: 16 };
    /// // A sample of 4 tokens of width 8, which are 128 bytes.
    /// // Without compression; trained, and with all of its layers frozen.
    /// assert_eq!(block.bytes(&Compact::default(), ActiveLayers::ALL), 1664);
    /// assert_eq!(block.bytes(&Compact::default(), ActiveLayers::default()), 1664 - 3 * 128 - 256);
    /// ```
    pub fn bytes(&self, how: &Compact, active: ActiveLayers) -> u64 {
        self.predict(how, active).iter().map(|p| p.1).sum()
    }

    /// What this engine keeps beyond the paper's accounting: mean and deviation of each row of a norm that keeps its whole
    /// input, where the paper's code computes them again.
    ///
    /// ```
    /// # use shadegrad::autograd::Compact;
    /// # use shadegrad_models::papers::slimfit::BlockShape;
    /// use shadegrad_models::papers::slimfit::ActiveLayers;
    /// # let block = BlockShape { batch: 1, tokens: 4, width: 8, heads: 2, hidden: 16 };
    /// // A sample of 4 tokens of width 8, which are 128 bytes.
    /// // Mean and deviation of 4 rows, for two norms.
    /// assert_eq!(block.statistics(&Compact::default(), ActiveLayers::ALL), 2 * 4 * 8);
    /// ```
    pub fn statistics(&self, how: &Compact, active: ActiveLayers) -> u64 {
        let of = |trained: bool| if trained || how.norm_share.is_none() { 8 * (self.batch * self.tokens) as u64 } else { 0 };
        of(active.norm1) + of(active.norm2)
    }
}
