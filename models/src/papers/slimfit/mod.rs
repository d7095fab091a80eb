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
pub use vit::{SplitVit, SplitVitConfig};

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
    #[must_use]
    pub fn uncompressed(self) -> Self {
        Self { keep_ln: 1.0, gelu_bits: 32, matmul_bits: 32, probs_bits: 32, fc2_bits: 32, ..self }
    }

    /// What it asks of the engine; `None` if everything is kept whole.
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
pub fn weights_and_scales(entry: &Entry) -> bool {
    entry.shape.len() > 1 || (entry.shape.len() == 1 && entry.name.rsplit('.').next() == Some("weight"))
}

/// What a step trains and freezes, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Scheduled layers that are trained.
    pub active: Vec<String>,
    /// Those that are frozen.
    pub frozen: Vec<String>,
}

/// Runs forward passes with their tensors kept as the options say, and counted. Cheap to clone: one goes into a trainer's
/// loss while [`SlimFit`] watches the trainer.
#[derive(Clone)]
pub struct Keeper {
    compact: Option<Compact>,
    ledger: Ledger,
    peak: Arc<AtomicU64>,
}

impl Keeper {
    /// Runs the forward pass `f`, on this thread.
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
    /// # Errors
    /// Those of `f`.
    pub fn forward<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.keeper.run(f)
    }

    /// What [`SlimFit::forward`] runs with, for a closure of its own.
    pub fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// Takes note of how far the layers of the plan moved. After the optimiser's step; waits for the device if the schedule
    /// depends on it.
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
    pub fn layers(&self) -> Vec<&str> {
        self.layers.iter().map(|l| l.name.as_str()).collect()
    }

    /// The state of the schedule.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// What the last forward pass kept, and the most that any kept.
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
/// # Errors
/// If the device refuses.
pub fn gelu_q4(x: &Tensor) -> Result<Tensor> {
    keep_compactly(&Compact { activation: Some(Quantizer::Q4), ..Compact::default() }, || x.gelu())
}

/// The product `a b^T` of two activations (the last two dimensions; others broadcast), both kept in 8 bits.
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
/// # Errors
/// If the shapes do not fit.
pub fn softmax_matmul_q8(scores: &Tensor, v: &Tensor) -> Result<Tensor> {
    let how = Compact { probability: Some(Quantizer::QU8), product: Some(Quantizer::Q8), ..Compact::default() };
    let v = v.mul_scalar(1.0)?;
    keep_compactly(&how, || scores.softmax(scores.rank().saturating_sub(1))?.matmul(&v))
}

/// Layer norm over the last axis whose scale is a constant, keeping the largest `share` of its normalised elements.
///
/// # Errors
/// If the share does not lie in `0..=1` (0 excluded), or the shapes do not fit.
pub fn layer_norm_pruned(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f32, share: f64) -> Result<Tensor> {
    let how = Compact { norm_share: Some(share), ..Compact::default() };
    keep_compactly(&how, || x.layer_norm(Some(&scale.detach()), Some(shift), eps))
}

/// A linear layer whose weight is a constant: keeps nothing of its input.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear_frozen(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    x.linear(&weight.detach(), bias)
}
