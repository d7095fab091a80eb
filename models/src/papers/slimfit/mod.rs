//! Fine-tuning in little memory: Ardakani, Haan, Tan, Popovici, Cheung, Iancu and Sen, "SlimFit: Memory-Efficient Fine-Tuning
//! of Transformer-based Models Using Training Dynamics", NAACL 2024, arXiv 2305.18513.
//!
//! Two things make up what a forward pass keeps for its backward pass. The inputs of layers with weights are needed for the
//! gradients of those weights alone: [`SlimFit`] freezes most layers in each step, those whose weights moved least when
//! they were last trained ([`Scheduler`], the paper's inter-layer scheduling), and the engine then keeps nothing of their
//! inputs. What is needed even so (the inputs of GELU and of the products of attention, the weights of attention, the
//! inputs of norms) is kept in 4 or 8 bits or pruned to its largest tenth ([`shadegrad::autograd::keep_compactly`]). The
//! forward pass is exact to the bit; only gradients see what is left.
//!
//! Any model works: layers are the parameters in an arena, and what is kept is decided by the operations themselves.
//! [`SlimFit::memory`] says tensor by tensor what the engine kept. On a model of one's own:
//!
//! ```no_run
//! # use shadegrad::{Gpu, Options, Result, Tensor, data::digits, nn::{Arena, Builder, Scope}, train::Images};
//! # use shadegrad::nn::Activation;
//! use shadegrad::nn::{Cx, LayerNorm, Linear, Mlp, Module, MultiHeadAttention};
//! use shadegrad::optim::{Optimizer, Rule};
//! use shadegrad::train::{FitOptions, Trainer};
//! use shadegrad_models::papers::slimfit::{SlimConfig, SlimFit};
//! /// A user's own network: the rows of a picture as tokens, one block, a head.
//! struct Net(Linear, LayerNorm, MultiHeadAttention, LayerNorm, Mlp, Linear);
//! impl Module for Net {
//!     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
//!         let x = self.0.forward(cx, &x.flatten(2, 3)?)?;
//!         let x = x.add(&self.2.forward(cx, &self.1.forward(cx, &x)?)?)?;
//!         let x = x.add(&self.4.forward(cx, &self.3.forward(cx, &x)?)?)?;
//!         self.5.forward(cx, &x.mean(&[1], false)?)
//!     }
//! }
//! # fn net(s: &mut Scope<'_>) -> Net {
//! #     Net(Linear::new(&mut s.sub("embed"), 8, 32, true), LayerNorm::new(&mut s.sub("ln1"), 32, 1e-6),
//! #         MultiHeadAttention::new(&mut s.sub("attn"), 32, 2, true, 0.0), LayerNorm::new(&mut s.sub("ln2"), 32, 1e-6),
//! #         Mlp::new(&mut s.sub("mlp"), 32, 128, Activation::Gelu, 0.0), Linear::new(&mut s.sub("head"), 32, 10, true))
//! # }
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let images = Images::upload(&gpu, &pair.train, &pair.train.channel_stats()?)?;
//! # let mut names = Builder::new();
//! # let model = net(&mut names.root());
//! # let mut arena = Arena::new(&gpu, &names, 0)?;
//! let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?;
//! let mut slim = SlimFit::new(&arena, SlimConfig { freeze: 0.75, ..SlimConfig::default() })?;
//! slim.plan(&mut arena)?; // before the first forward pass; afterwards `slim` plans as the trainer's watcher
//! let keep = slim.keeper();
//! Trainer::new(&model, &mut arena, &mut optimizer, |_| 1e-3, FitOptions::default())
//!     .loss(move |step| keep.run(|| step.cross_entropy(&step.logits()?)))
//!     .fit(&images, None, &mut slim)?;
//! let memory = slim.memory();
//! println!("{} bytes kept at most; the last step kept {} of {}", memory.peak, memory.kept(), memory.whole());
//! # Ok(())
//! # }
//! ```
//!
//! Departures from the authors' code, all by design: a frozen parameter is skipped by the optimiser altogether (in the
//! code, stale gradients of zero can move it by its momentum); the change of a weight is divided by at least
//! [`SlimConfig::least`]; dropout keeps no mask, since the engine draws it again.

mod memory;
mod recipe;
mod schedule;
#[cfg(test)]
mod tests;
mod vit;

pub use memory::{ActiveLayers, BlockShape, Memory, Share};
pub use schedule::{Schedule, Scheduler};
pub(crate) use vit::{SplitVit, SplitVitConfig};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shadegrad::autograd::{Compact, Ledger, keep_compactly};
use shadegrad::nn::{Arena, Entry, ParamId, glob};
use shadegrad::optim::{Optimizer, RelativeChange};
use shadegrad::train::Hooks;
use shadegrad::{Error, Quantizer, Result, Tensor};

use super::Paper;

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "slimfit",
    title: "SlimFit: Memory-Efficient Fine-Tuning of Transformer-based Models Using Training Dynamics",
    source: "arXiv 2305.18513",
    claim: "freezing most layers by their dynamics and shrinking stored activations cuts the memory of fine-tuning",
    data: "MNIST",
    seeds: 2,
    recipe: Some(recipe::run),
};

/// Options of [`SlimFit`].
///
/// ```
/// use shadegrad_models::papers::slimfit::{Schedule, SlimConfig};
/// let config = SlimConfig { freeze: 0.75, gelu_bits: 8, ..SlimConfig::default() };
/// assert_eq!((config.keep_ln, config.matmul_bits, config.schedule), (0.1, 8, Schedule::Dynamics));
/// ```
#[derive(Clone, Debug)]
pub struct SlimConfig {
    /// Share of the layers that each step freezes, F: 0 or more and less than 1.
    pub freeze: f64,
    /// How they are chosen.
    pub schedule: Schedule,
    /// First distances are uniform between 0 and this.
    pub distance_init: f64,
    /// Changes are relative to the weights' magnitudes or this, whichever is more.
    pub least: f32,
    /// Share of the normalised elements that a norm with a frozen scale keeps; all, as they are, if 1.
    pub keep_ln: f64,
    /// Bits of the input of GELU: 4, 8, or 32 for all of it.
    pub gelu_bits: u32,
    /// Bits of queries, keys and values.
    pub matmul_bits: u32,
    /// Bits of the weights of attention.
    pub probs_bits: u32,
    /// Bits of the input of a trained linear layer behind GELU.
    pub fc2_bits: u32,
    /// Which parameters are layers to be scheduled.
    pub schedulable: fn(&Entry) -> bool,
    /// Patterns ([`glob`]) of parameters that are always trained.
    pub always: Vec<String>,
    /// Decides first distances and random choices.
    pub seed: u64,
}

impl Default for SlimConfig {
    /// The paper's: 90 % frozen, 4 bits for GELU, 8 for the rest, a tenth of the norms; heads and last norms as timm, BERT
    /// and torchvision call them are always trained.
    fn default() -> Self {
        Self {
            freeze: 0.9,
            schedule: Schedule::Dynamics,
            distance_init: 1e7,
            least: 1e-8,
            keep_ln: 0.1,
            gelu_bits: 4,
            matmul_bits: 8,
            probs_bits: 8,
            fc2_bits: 8,
            schedulable: weights_and_scales,
            always: ["head.*", "fc.*", "classifier.*", "norm.*"].map(String::from).to_vec(),
            seed: 0,
        }
    }
}

impl SlimConfig {
    /// These options without compression: only the schedule is left.
    ///
    /// ```
    /// use shadegrad_models::papers::slimfit::SlimConfig;
    /// let config = SlimConfig::default().uncompressed();
    /// assert_eq!((config.gelu_bits, config.keep_ln, config.freeze), (32, 1.0, 0.9));
    /// ```
    #[must_use]
    pub fn uncompressed(self) -> Self {
        Self { keep_ln: 1.0, gelu_bits: 32, matmul_bits: 32, probs_bits: 32, fc2_bits: 32, ..self }
    }

    /// What it asks of the engine; `None` if everything is kept whole.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::slimfit::SlimConfig;
    /// let compact = SlimConfig::default().compact()?;
    /// assert!(compact.is_some_and(|c| c.activation == Some(Quantizer::Q4) && c.norm_share == Some(0.1)));
    /// assert!(SlimConfig::default().uncompressed().compact()?.is_none());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If bits are not 4, 8 or 32, or the share of the norms does not lie in `0..=1` (0 excluded).
    pub fn compact(&self) -> Result<Option<Compact>> {
        let signed = |what: &str, bits: u32| match bits {
            4 => Ok(Some(Quantizer::Q4)),
            8 => Ok(Some(Quantizer::Q8)),
            32 => Ok(None),
            _ => Err(Error::value("SlimFit", format!("{bits} bits for {what}; give 4, 8, or 32 for all of it"))),
        };
        if !(self.keep_ln > 0.0 && self.keep_ln <= 1.0) {
            let detail = format!("a share of {} for norms; give more than 0, at most 1", self.keep_ln);
            return Err(Error::value("SlimFit", detail));
        }
        let probability = match signed("the weights of attention", self.probs_bits)? {
            None => None,
            Some(Quantizer::Q4) => Some(Quantizer { int: 0, frac: 4, unsigned: true }),
            Some(_) => Some(Quantizer::QU8),
        };
        let compact = Compact {
            activation: signed("GELU", self.gelu_bits)?,
            product: signed("queries, keys and values", self.matmul_bits)?,
            probability,
            after_activation: signed("the layer behind GELU", self.fc2_bits)?,
            norm_share: Some(self.keep_ln).filter(|&k| k < 1.0),
        };
        Ok(Some(compact).filter(|c| *c != Compact::default()))
    }
}

/// The paper's choice of layers: every parameter of two or more dimensions, and the scales of norms (one dimension, called
/// `weight`). Biases and shifts are always trained.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::slimfit::weights_and_scales;
/// let mut names = Builder::new();
/// Linear::new(&mut names.root().sub("fc"), 2, 2, true);
/// LayerNorm::new(&mut names.root().sub("norm"), 2, 1e-5);
/// let (table, _) = names.tables()?;
/// let layers: Vec<&str> = table.entries().iter().filter(|e| weights_and_scales(e)).map(|e| e.name.as_str()).collect();
/// assert_eq!(layers, ["fc.weight", "norm.weight"]);
/// # Ok::<(), Error>(())
/// ```
pub fn weights_and_scales(entry: &Entry) -> bool {
    entry.shape.len() > 1 || (entry.shape.len() == 1 && entry.name.rsplit('.').next() == Some("weight"))
}

/// What a step trains and freezes, by name.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::slimfit::SlimConfig;
/// use shadegrad_models::papers::slimfit::{Plan, SlimFit};
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
/// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
/// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
/// let plan: Plan = SlimFit::new(&arena, config)?.plan(&mut arena)?;
/// assert_eq!((plan.active.len(), plan.frozen.len()), (2, 1));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Scheduled layers that are trained.
    pub active: Vec<String>,
    /// Those that are frozen.
    pub frozen: Vec<String>,
}

/// Runs forward passes with their tensors kept as the options say, and counted. Cheap to clone: one goes into a trainer's
/// loss while [`SlimFit`] watches the trainer.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::slimfit::SlimConfig;
/// use shadegrad_models::papers::slimfit::{Keeper, SlimFit};
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
/// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
/// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
/// let slim = SlimFit::new(&arena, config)?;
/// let keeper: Keeper = slim.keeper(); // goes into a closure while `slim` watches a trainer
/// let logits = keeper.run(|| model.forward(&Cx::train(&arena), &x))?;
/// assert_eq!((logits.shape(), keeper.live()), (&[5, 10][..], slim.memory().kept()));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Keeper {
    compact: Option<Compact>,
    ledger: Ledger,
    peak: Arc<AtomicU64>,
}

impl Keeper {
    /// Runs the forward pass `f`, on this thread.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// let slim = SlimFit::new(&arena, config)?;
    /// slim.keeper().run(|| model.forward(&Cx::train(&arena), &x))?;
    /// assert!(slim.memory().peak > 0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `f`.
    pub fn run<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.ledger.clear();
        let result = self.ledger.watch(|| match &self.compact {
            Some(how) => keep_compactly(how, f),
            None => f(),
        });
        self.peak.fetch_max(self.ledger.peak(), Ordering::Relaxed);
        result
    }

    /// Bytes that are kept right now.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// let keeper = SlimFit::new(&arena, config)?.keeper();
    /// let logits = keeper.run(|| model.forward(&Cx::train(&arena), &x))?;
    /// assert!(keeper.live() > 0);
    /// drop(logits); // and with it the graph
    /// assert_eq!(keeper.live(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn live(&self) -> u64 {
        self.ledger.live()
    }
}

struct Layer {
    id: ParamId,
    name: String,
}

/// The method over a user's arena: plans which layers a step trains, watches how far they move, and says what was kept.
///
/// A step is [`SlimFit::plan`], the forward pass inside [`SlimFit::forward`], `arena.backward`, the optimiser's step (which
/// skips frozen parameters, their moments and their counts), [`SlimFit::observe`]. As a trainer's watcher it observes and
/// plans by itself.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::optim::{Optimizer, Rule};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::slimfit::SlimConfig;
/// use shadegrad_models::papers::slimfit::SlimFit;
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
/// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
/// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
/// let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?;
/// let mut slim = SlimFit::new(&arena, config)?;
/// for _ in 0..2 {
///     slim.plan(&mut arena)?;
///     let loss = slim.forward(|| model.forward(&Cx::train(&arena), &x)?.square()?.sum_all())?;
///     arena.backward(&loss)?;
///     optimizer.step(&arena, 1e-3)?;
///     slim.observe(&arena)?;
/// }
/// assert_eq!(slim.scheduler().visits().iter().sum::<u64>(), 2 * 2); // two layers in each of two steps
/// # Ok::<(), Error>(())
/// ```
pub struct SlimFit {
    least: f32,
    layers: Vec<Layer>,
    /// Frozen before this came, and left so.
    fixed: Vec<ParamId>,
    scheduler: Scheduler,
    before: Option<RelativeChange>,
    keeper: Keeper,
}

impl SlimFit {
    /// The method for the parameters of `arena` that are trained now; those that are frozen stay so.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::slimfit::{SlimConfig, SlimFit};
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// assert!(SlimFit::new(&arena, config.clone()).is_ok());
    /// assert!(SlimFit::new(&arena, SlimConfig { freeze: 1.0, ..config }).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If no layer can be scheduled, the freezing rate does not lie in `0..1`, bits are not 4, 8 or 32, or the share of the
    /// norms does not lie in `0..=1`.
    pub fn new(arena: &Arena, config: SlimConfig) -> Result<Self> {
        let compact = config.compact()?;
        let (mut layers, mut fixed) = (Vec::new(), Vec::new());
        for e in arena.table().entries() {
            let id = arena.params().id(&e.name)?;
            if arena.is_frozen(&e.name)? {
                fixed.push(id);
            } else if (config.schedulable)(e) && !config.always.iter().any(|p| glob(p, &e.name)) {
                layers.push(Layer { id, name: e.name.clone() });
            }
        }
        let SlimConfig { freeze, schedule, distance_init, least, seed, .. } = config;
        let keeper = Keeper { compact, ledger: Ledger::new(&[arena.values_flat()]), peak: Arc::default() };
        let scheduler = Scheduler::new(layers.len(), freeze, schedule, distance_init, seed)?;
        Ok(Self { least, layers, fixed, scheduler, before: None, keeper })
    }

    /// Decides which layers the next step trains, and freezes the others in the arena. Before the forward pass: it decides
    /// what that keeps.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// let plan = SlimFit::new(&arena, config)?.plan(&mut arena)?;
    /// assert!(arena.is_frozen(&plan.frozen[0])? && !arena.is_frozen(&plan.active[0])?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn plan(&mut self, arena: &mut Arena) -> Result<Plan> {
        let active = self.scheduler.plan().to_vec();
        let mut plan = Plan::default();
        let mut frozen = self.fixed.clone();
        let mut trained = Vec::with_capacity(active.len());
        for (i, layer) in self.layers.iter().enumerate() {
            if active.binary_search(&i).is_ok() {
                trained.push(layer.id);
                plan.active.push(layer.name.clone());
            } else {
                frozen.push(layer.id);
                plan.frozen.push(layer.name.clone());
            }
        }
        arena.freeze_only(&frozen)?;
        let watched = self.scheduler.wants_changes() && !trained.is_empty();
        self.before = watched.then(|| RelativeChange::start(arena, &trained)).transpose()?;
        Ok(plan)
    }

    /// Runs the forward pass `f` with its tensors kept as the options say, and counts them.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// let slim = SlimFit::new(&arena, config)?;
    /// let logits = slim.forward(|| model.forward(&Cx::train(&arena), &x))?;
    /// // Exact to the bit, whatever is kept.
    /// assert_eq!(logits.to_vec()?, model.forward(&Cx::train(&arena), &x)?.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `f`.
    pub fn forward<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.keeper.run(f)
    }

    /// What [`SlimFit::forward`] runs with, for a closure of its own.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// let slim = SlimFit::new(&arena, config)?;
    /// let keep = slim.keeper();
    /// let loss = move |logits: Tensor| keep.run(|| logits.square()?.mean_all());
    /// assert!(loss(model.forward(&Cx::train(&arena), &x)?)?.item()? >= 0.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// Takes note of how far the layers of the plan moved. After the optimiser's step; waits for the device if the schedule
    /// depends on it.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// let mut slim = SlimFit::new(&arena, config)?;
    /// slim.plan(&mut arena)?;
    /// slim.observe(&arena)?; // nothing moved: the layers that were trained are at distance 0
    /// assert_eq!(slim.scheduler().distances().iter().filter(|d| **d == 0.0).count(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing was planned, or the device reported a fault.
    pub fn observe(&mut self, arena: &Arena) -> Result<()> {
        let active = self.scheduler.active().map_or(0, <[usize]>::len);
        let changes = match self.before.take() {
            Some(before) => before.measure(arena, self.least)?.into_iter().map(f64::from).collect(),
            None => vec![0.0; active],
        };
        self.scheduler.observe(&changes)
    }

    /// The names of the layers, in the order of [`Scheduler::distances`] and [`Scheduler::visits`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// let slim = SlimFit::new(&arena, config)?;
    /// assert_eq!(slim.layers(), ["layers.0.weight", "layers.1.weight", "layers.2.weight"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn layers(&self) -> Vec<&str> {
        self.layers.iter().map(|l| l.name.as_str()).collect()
    }

    /// The state of the schedule.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// assert_eq!(SlimFit::new(&arena, config)?.scheduler().frozen(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// What the last forward pass kept, and the most that any kept.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::slimfit::SlimConfig;
    /// use shadegrad_models::papers::slimfit::SlimFit;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4, 4]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[5, 8, 8, 1])?;
    /// # let config = SlimConfig { freeze: 0.5, ..SlimConfig::default() };
    /// // A model with three layers, `layers.0` to `layers.2`, of which one is frozen in each step.
    /// let slim = SlimFit::new(&arena, config)?;
    /// let logits = slim.forward(|| model.forward(&Cx::train(&arena), &x))?;
    /// let memory = slim.memory();
    /// assert!(memory.kept() > 0 && memory.peak >= memory.kept());
    /// # drop(logits);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn memory(&self) -> Memory {
        Memory { tensors: self.keeper.ledger.rows(), peak: self.keeper.peak.load(Ordering::Relaxed) }
    }
}

impl Hooks for SlimFit {
    fn stepped(&mut self, _: u64, arena: &mut Arena, _: &mut Optimizer) -> Result<()> {
        self.observe(arena)?;
        self.plan(arena)?;
        Ok(())
    }
}

/// Exact GELU that keeps its input in 4 bits.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::slimfit::gelu_q4;
/// let x = Tensor::from_slice(&gpu, &[-1.0, 0.5, 2.0], &[3])?.leaf();
/// assert_eq!(gelu_q4(&x)?.to_vec()?, x.gelu()?.to_vec()?); // only its gradient is of 4 bits
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the device refuses.
pub fn gelu_q4(x: &Tensor) -> Result<Tensor> {
    keep_compactly(&Compact { activation: Some(Quantizer::Q4), ..Compact::default() }, || x.gelu())
}

/// The product `a b^T` of two activations (the last two dimensions; others broadcast), both kept in 8 bits.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::slimfit::matmul_q8;
/// let a = Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 2])?;
/// let b = Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?;
/// assert_eq!(matmul_q8(&a, &b)?.to_vec()?, [1.0 * 3.0 + 2.0 * 4.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the shapes do not fit.
pub fn matmul_q8(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    // As results of an operation: the engine keeps leaves whole, which are parameters elsewhere.
    let (a, b) = (a.mul_scalar(1.0)?, b.mul_scalar(1.0)?);
    keep_compactly(&Compact { product: Some(Quantizer::Q8), ..Compact::default() }, || a.matmul_t(&b, false, true))
}

/// `softmax(scores) v`, the weights kept in 8 bits without sign, once, and `v` in 8 bits with it.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::slimfit::softmax_matmul_q8;
/// let v = Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1])?;
/// let mean = softmax_matmul_q8(&Tensor::zeros(&gpu, &[1, 2])?, &v)?;
/// assert!((mean.item()? - 2.0).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the shapes do not fit.
pub fn softmax_matmul_q8(scores: &Tensor, v: &Tensor) -> Result<Tensor> {
    let how = Compact { probability: Some(Quantizer::QU8), product: Some(Quantizer::Q8), ..Compact::default() };
    let v = v.mul_scalar(1.0)?;
    keep_compactly(&how, || scores.softmax(scores.rank().saturating_sub(1))?.matmul(&v))
}

/// Layer norm over the last axis whose scale is a constant, keeping the largest `share` of its normalised elements.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::slimfit::layer_norm_pruned;
/// let x = Tensor::from_slice(&gpu, &[1.0, 3.0], &[1, 2])?.leaf();
/// let (scale, shift) = (Tensor::ones(&gpu, &[2])?, Tensor::zeros(&gpu, &[2])?);
/// let y = layer_norm_pruned(&x, &scale, &shift, 1e-12, 0.5)?.to_vec()?;
/// assert!((y[0] + 1.0).abs() < 1e-5 && (y[1] - 1.0).abs() < 1e-5);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the share does not lie in `0..=1` (0 excluded), or the shapes do not fit.
pub fn layer_norm_pruned(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f32, share: f64) -> Result<Tensor> {
    let how = Compact { norm_share: Some(share), ..Compact::default() };
    keep_compactly(&how, || x.layer_norm(Some(&scale.detach()), Some(shift), eps))
}

/// A linear layer whose weight is a constant: keeps nothing of its input.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::autograd::grad;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::slimfit::linear_frozen;
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 2])?.leaf();
/// let weight = Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?.leaf();
/// let y = linear_frozen(&x, &weight, None)?;
/// assert_eq!((y.item()?, grad(&y, &[&x])?[0].to_vec()?), (11.0, vec![3.0, 4.0]));
/// assert!(grad(&y, &[&weight]).is_err()); // a constant
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the shapes do not fit.
pub fn linear_frozen(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    x.linear(&weight.detach(), bias)
}
