//! Sparse then prune: Prasetyo, Yudistira and Widodo, "Sparse then Prune: Toward Efficient Vision Transformers", 2023, arXiv
//! 2307.11988.
//!
//! A transformer is fine-tuned with `lambda` times the mean of `log(1 + A^2)` over its attention weights `A` in the loss
//! ([`SparseLoss`]), and then loses the smallest of all its weights at once, without retraining ([`prune_global_l1`],
//! [`prune_sweep`]). Both work on any model: attention is found while the model runs, whoever wrote it.
//!
//! ```no_run
//! # use shadegrad::{Gpu, Options, Result, data::digits, nn::{Arena, Builder, Cx}};
//! # use shadegrad_models::{Spec, create};
//! use shadegrad::optim::Optimizer;
//! use shadegrad::train::{FitOptions, Images, Trainer, evaluate};
//! use shadegrad_models::papers::sparse_then_prune::{
//!     AttnPenalty, Layers, OneCycle, OneCycleConfig, SparseLoss, prune_sweep, weights,
//! };
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
//! # let stats = pair.train.channel_stats()?;
//! # let (train, test) = (Images::upload(&gpu, &pair.train, &stats)?, Images::upload(&gpu, &pair.test, &stats)?);
//! let mut names = Builder::new();
//! let model = create("vit_micro", &mut names.root(), &spec)?;
//! let mut arena = Arena::new(&gpu, &names, 0)?;
//!
//! // Fine-tuned with the penalty on the last block, rate and momentum in one cycle.
//! let options = FitOptions { epochs: 20, batch: 16, ..FitOptions::default() };
//! let steps = options.epochs * (train.len() as u64).div_ceil(16);
//! let mut cycle = OneCycle::new(OneCycleConfig::paper(steps))?;
//! let mut optimizer = Optimizer::new(&arena, cycle.rule(0))?;
//! let sparse = SparseLoss { lambda: 0.01, penalty: AttnPenalty::LogSquare, layers: Layers::Last };
//! let rate = cycle.clone();
//! Trainer::new(model.as_ref(), &mut arena, &mut optimizer, |step| rate.lr(step), options)
//!     .loss(|step| sparse.loss(step))
//!     .fit(&train, Some(&test), &mut cycle)?;
//! // Then the smallest 10, 20, .. per cent of all weights go, from a copy each time.
//! let accuracy = |arena: &Arena| Ok(evaluate(model.as_ref(), &Cx::eval(arena), &test, 250)?.accuracy);
//! for (share, accuracy) in prune_sweep(&arena, &[0.1, 0.2, 0.3, 0.4, 0.5], weights("norm.weight"), accuracy)? {
//!     println!("{share}: {accuracy:.4}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What the penalty does
//!
//! `log(1 + a^2)` is convex for `0 <= a <= 1` and the rows of `A` sum to one, so over a row of `T` weights the sum is least,
//! `T log(1 + 1 / T^2)`, where all are equal, and most, `log 2`, where one is 1. Minimising it makes attention *flatter*,
//! not sparser. And as a mean over entries it is tiny: with the published `lambda` of 0.01 and 577 tokens it adds at most
//! 1.2e-5 to the loss. The paper's formula is the default here all the same; [`AttnPenalty::LogSquareSum`] is `T` times as
//! much, a negative `lambda` or [`AttnPenalty::Entropy`] sparsify, and these are not the paper's.
//!
//! Masked weights stay in memory, and nothing becomes faster: [`crate::papers::shared::prune::units`] takes whole units out.

mod recipe;
#[cfg(test)]
mod tests;
mod tiled;

pub use tiled::tiled_attention;

use shadegrad::autograd::{no_grad, recording, trace};
use shadegrad::nn::{Arena, Cx, Entry, Module};
use shadegrad::optim::{Optimizer, Rule, schedule};
use shadegrad::train::{Hooks, Images, Step};
use shadegrad::{Error, Result, Tensor};

use super::Paper;
use super::shared::prune::{Criterion, Pooling, PruneMasks};

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "sparse-then-prune",
    title: "Sparse then Prune: Toward Efficient Vision Transformers",
    source: "arXiv 2307.11988",
    claim: "a penalty on the attention weights in fine-tuning leaves more accuracy after one-shot pruning",
    data: "MNIST",
    seeds: 2,
    recipe: Some(recipe::run),
};

/// What is taken of attention weights `A` `[.., T]`, whose rows sum to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttnPenalty {
    /// `mean log(1 + A^2)` over all entries: the paper's.
    #[default]
    LogSquare,
    /// The same summed over each row, and the mean of that over rows: `T` times as much. Not the paper's.
    LogSquareSum,
    /// `-sum_j A log A`, the mean over rows: least where each row is one weight. Not the paper's.
    Entropy,
}

/// Which attention is penalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layers {
    /// That of the last block, as the published code does.
    #[default]
    Last,
    /// That of every block; the mean of the blocks' penalties.
    All,
}

/// Runs `forward` and returns, beside its result, the attention weights `[batch, heads, queries, keys]` of every attention
/// in it, in the graph: of [`Tensor::sdpa`], window attention, or a softmax over three or four dimensions in a layer of
/// one's own.
///
/// # Errors
/// Those of `forward`.
pub fn attention_maps<T>(forward: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Tensor>)> {
    let (out, seen) = trace(&["masked_softmax", "softmax"], forward)?;
    let maps = seen.into_iter().map(|t| t.output).filter(|a| (3..=4).contains(&a.rank()));
    Ok((out, maps.collect()))
}

/// The penalty of attention weights: a scalar, differentiable.
///
/// # Errors
/// If there are no weights: the model has no attention, or was run without [`attention_maps`].
pub fn attn_penalty(maps: &[Tensor], penalty: AttnPenalty, layers: Layers) -> Result<Tensor> {
    let chosen = match layers {
        Layers::Last => maps.last().map(std::slice::from_ref).unwrap_or_default(),
        Layers::All => maps,
    };
    let of = |a: &Tensor| {
        let keys = a.shape().last().copied().unwrap_or(1) as f32;
        match penalty {
            AttnPenalty::LogSquare => a.square()?.log1p()?.mean_all(),
            AttnPenalty::LogSquareSum => a.square()?.log1p()?.mean_all()?.mul_scalar(keys),
            // 0 log 0 is 0; the bound keeps the logarithm and its slope finite.
            AttnPenalty::Entropy => a.mul(&a.clamp(1e-12, 1.0)?.log()?)?.mean_all()?.mul_scalar(-keys),
        }
    };
    let mut sum: Option<Tensor> = None;
    for a in chosen {
        let one = of(a)?;
        sum = Some(match sum {
            Some(before) => before.add(&one)?,
            None => one,
        });
    }
    let sum = sum.ok_or_else(|| {
        Error::value("attn_penalty", "no attention weights; run a model with attention inside `attention_maps`")
    })?;
    if chosen.len() == 1 { Ok(sum) } else { sum.mul_scalar(1.0 / chosen.len() as f32) }
}

/// Cross-entropy and `lambda` times a penalty, for [`shadegrad::train::Trainer::loss`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparseLoss {
    /// The penalty's factor; 0.01 in the paper.
    pub lambda: f32,
    /// What is penalised.
    pub penalty: AttnPenalty,
    /// Where.
    pub layers: Layers,
}

impl SparseLoss {
    /// The loss of a training step: any model that has attention. With a `lambda` of 0 it is the plain one to the bit.
    ///
    /// # Errors
    /// As [`SparseLoss::add`].
    pub fn loss(&self, step: &Step) -> Result<Tensor> {
        self.add(|| step.logits(), |logits| step.cross_entropy(logits))
    }

    /// Runs `forward`, makes a loss of its result by `plain`, and adds the penalty of the attention on the way.
    ///
    /// # Errors
    /// If the model has no attention, or its weights are constants in the graph; those of the two functions.
    pub fn add<T>(
        &self,
        forward: impl FnOnce() -> Result<T>,
        plain: impl FnOnce(&T) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if self.lambda == 0.0 {
            return plain(&forward()?);
        }
        if !self.lambda.is_finite() {
            return Err(Error::value("SparseLoss", format!("lambda {}; it must be finite", self.lambda)));
        }
        let (out, maps) = attention_maps(forward)?;
        if recording() && maps.last().is_some_and(|a| !a.requires_grad()) {
            return Err(Error::value(
                "SparseLoss",
                "the attention weights are constants: the penalty would have no gradient. Take blocks out of checkpointing \
                 and unfreeze queries or keys",
            ));
        }
        let penalty = attn_penalty(&maps, self.penalty, self.layers)?;
        plain(&out)?.add(&penalty.mul_scalar(self.lambda)?)
    }
}

/// What attention looks like, by block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionStats {
    /// Mean entropy of the rows in nats; at most the logarithm of the keys.
    pub entropy: Vec<f64>,
    /// Mean of `log(1 + A^2)`.
    pub log_square: Vec<f64>,
}

/// Measures attention on the first `pictures` of `data`, in evaluation.
///
/// # Errors
/// If the model has no attention, or those of the model.
pub fn attention_stats(model: &dyn Module, cx: &Cx, data: &Images, pictures: usize) -> Result<AttentionStats> {
    const BATCH: usize = 100;
    let n = pictures.min(data.len());
    let mut stats = AttentionStats::default();
    for from in (0..n).step_by(BATCH) {
        let to = (from + BATCH).min(n);
        let x = data.plain(&(from as u32..to as u32).collect::<Vec<_>>())?.images;
        let (_, maps) = no_grad(|| attention_maps(|| model.forward(cx, &x)))?;
        stats.entropy.resize(maps.len(), 0.0);
        stats.log_square.resize(maps.len(), 0.0);
        let weight = (to - from) as f64 / n as f64;
        for (i, a) in maps.iter().enumerate() {
            let of = |p| attn_penalty(std::slice::from_ref(a), p, Layers::Last)?.item();
            stats.entropy[i] += weight * f64::from(of(AttnPenalty::Entropy)?);
            stats.log_square[i] += weight * f64::from(of(AttnPenalty::LogSquare)?);
        }
    }
    if stats.entropy.is_empty() {
        return Err(Error::value("attention_stats", "the model runs no attention, or there are no pictures"));
    }
    Ok(stats)
}

/// What a pruning left.
#[derive(Clone, Debug, PartialEq)]
pub struct PruneReport {
    /// Prunable weights.
    pub total: usize,
    /// Those that are 0 now.
    pub pruned: usize,
    /// Size of the largest that went in this pruning; 0 if none did.
    pub threshold: f32,
    /// Zeros and weights of each prunable parameter.
    pub per_tensor: Vec<(String, usize, usize)>,
}

/// The paper's choice of what can be pruned: every parameter called `weight`, scales of norms included, except the one
/// named (the last norm's scale, `norm.weight` in [`crate::Vit`]). Biases, class token and positions are not.
pub fn weights(except: &str) -> impl Fn(&Entry) -> bool + Copy + use<'_> {
    move |e| (e.name == "weight" || e.name.ends_with(".weight")) && e.name != except
}

/// Masks the `round(share n)` weights (halves to even) of smallest size among the `n` that `prunable` chooses, all layers
/// together; ties go to the lower position. What is masked already counts among them.
///
/// # Errors
/// If the share does not lie in `0..=1`, nothing is chosen, or a weight is NaN.
pub fn prune_global_l1(arena: &mut Arena, share: f64, prunable: impl Fn(&Entry) -> bool) -> Result<PruneReport> {
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::value("prune_global_l1", format!("a share of {share}; it must lie between 0 and 1")));
    }
    let mut masks = PruneMasks::new(arena, prunable)?;
    let count = (share * masks.len() as f64).round_ties_even() as usize;
    let gone = masks.len() - masks.alive();
    let mut threshold = 0.0;
    if count > gone {
        let sizes = masks.scores(arena, Criterion::Magnitude)?;
        let went = masks.remove_lowest(&sizes, count - gone, Pooling::Global)?;
        threshold = went.iter().map(|&at| sizes[at as usize]).fold(0.0, f32::max);
        masks.apply(arena)?;
    }
    let per_tensor = masks.layers().into_iter().map(|l| (l.name, l.total - l.alive, l.total)).collect();
    Ok(PruneReport { total: masks.len(), pruned: masks.len() - masks.alive(), threshold, per_tensor })
}

/// What `evaluate` finds after each share was pruned from a copy of `arena`.
///
/// # Errors
/// As [`prune_global_l1`], and those of `evaluate`.
pub fn prune_sweep(
    arena: &Arena,
    shares: &[f64],
    prunable: impl Fn(&Entry) -> bool,
    mut evaluate: impl FnMut(&Arena) -> Result<f64>,
) -> Result<Vec<(f64, f64)>> {
    let one = |&share: &f64| {
        let mut copy = arena.fork()?;
        prune_global_l1(&mut copy, share, &prunable)?;
        Ok((share, evaluate(&copy)?))
    };
    shares.iter().map(one).collect()
}

/// Options of [`OneCycle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycleConfig {
    /// The highest rate.
    pub max_lr: f32,
    /// Steps in all.
    pub total: u64,
    /// Part of them over which the rate rises.
    pub pct: f64,
    /// The highest rate over the first one.
    pub div: f32,
    /// The first rate over the last one.
    pub final_div: f32,
    /// Momentum at the highest rate, and at the ends; 0.9 throughout if `None`.
    pub momentum: Option<(f32, f32)>,
    /// L2 penalty of [`OneCycle::rule`].
    pub weight_decay: f32,
}

impl OneCycleConfig {
    /// As in the paper's code: rate 1e-3 after 500 steps, momentum from 0.95 to 0.85 and back, decay 1e-4. The code
    /// breaks with 500 steps or fewer in all; here it is 0.3 of the steps then.
    pub fn paper(total: u64) -> Self {
        let pct = if total > 500 { 500.0 / total as f64 } else { 0.3 };
        Self { max_lr: 1e-3, total, pct, div: 25.0, final_div: 1e4, momentum: Some((0.85, 0.95)), weight_decay: 1e-4 }
    }
}

/// One cycle of the rate with the momentum going the other way, as PyTorch's `OneCycleLR` with `cycle_momentum`. As a
/// watcher of a [`shadegrad::train::Trainer`] it sets the momentum of every step; the rate is [`OneCycle::lr`].
#[derive(Clone, Debug, PartialEq)]
pub struct OneCycle {
    config: OneCycleConfig,
}

impl OneCycle {
    /// Checks the options.
    ///
    /// # Errors
    /// If the rise is not longer than a step and shorter than all, a rate or a divisor is not positive, or a momentum is
    /// not within `0..1`.
    pub fn new(config: OneCycleConfig) -> Result<Self> {
        let OneCycleConfig { max_lr, total, pct, div, final_div, momentum, .. } = config;
        let rates = [max_lr, div, final_div].into_iter().all(|v| v.is_finite() && v > 0.0);
        let (low, high) = momentum.unwrap_or((0.9, 0.9));
        if !(pct < 1.0 && pct * total as f64 > 1.0) {
            return Err(Error::value(
                "OneCycle",
                format!("{total} steps, {pct} of them rising; that must be more than one step and less than all"),
            ));
        }
        if !(rates && 0.0 < low && low <= high && high < 1.0) {
            return Err(Error::value(
                "OneCycle",
                format!("rate {max_lr}, divisors {div} and {final_div}, momentum {low} to {high}; rates must be positive, momenta in 0..1 and rising"),
            ));
        }
        Ok(Self { config })
    }

    /// The rate of a step, from 0.
    pub fn lr(&self, step: u64) -> f32 {
        let OneCycleConfig { max_lr, total, pct, div, final_div, .. } = self.config;
        schedule::one_cycle(step, total, max_lr, pct as f32, div, final_div)
    }

    /// The momentum of a step.
    pub fn momentum(&self, step: u64) -> f32 {
        match self.config.momentum {
            // From `high` down to `low`, and back to where it began.
            Some((low, high)) => schedule::one_cycle(step, self.config.total, low, self.config.pct as f32, low / high, 1.0),
            None => 0.9,
        }
    }

    /// The rule of a step: SGD with its momentum.
    pub fn rule(&self, step: u64) -> Rule {
        let OneCycleConfig { weight_decay, .. } = self.config;
        Rule::Sgd { momentum: self.momentum(step), dampening: 0.0, nesterov: false, weight_decay }
    }
}

impl Hooks for OneCycle {
    fn stepped(&mut self, step: u64, _: &mut Arena, optimizer: &mut Optimizer) -> Result<()> {
        optimizer.set_rule(self.rule(step + 1))
    }
}
