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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::{AttnPenalty, Layers, attn_penalty};
/// // Half of the attention on either of two keys.
/// let maps = [Tensor::full(&gpu, &[1, 1, 2], 0.5)?];
/// let of = |penalty| attn_penalty(&maps, penalty, Layers::Last)?.item();
/// assert!((of(AttnPenalty::LogSquare)? - 1.25f32.ln()).abs() < 1e-6);
/// assert!((of(AttnPenalty::LogSquareSum)? - 2.0 * 1.25f32.ln()).abs() < 1e-6);
/// assert!((of(AttnPenalty::Entropy)? - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::{AttnPenalty, Layers, attn_penalty};
/// let maps = [Tensor::zeros(&gpu, &[1, 1, 2])?, Tensor::full(&gpu, &[1, 1, 2], 0.5)?];
/// let of = |layers| attn_penalty(&maps, AttnPenalty::LogSquare, layers)?.item();
/// assert!((of(Layers::All)? - of(Layers::Last)? / 2.0).abs() < 1e-6); // the first has a penalty of 0
/// # Ok::<(), Error>(())
/// ```
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
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::attention_maps;
/// let scores = Tensor::zeros(&gpu, &[1, 2, 4])?;
/// let (sums, maps) = attention_maps(|| scores.softmax(2)?.sum(&[2], false))?;
/// assert_eq!((sums.shape(), maps[0].to_vec()?), (&[1, 2][..], vec![0.25; 8]));
/// # Ok::<(), Error>(())
/// ```
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
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::{AttnPenalty, Layers, attn_penalty};
/// let maps = [Tensor::full(&gpu, &[1, 1, 4], 0.25)?];
/// let penalty = attn_penalty(&maps, AttnPenalty::LogSquare, Layers::Last)?;
/// assert!((penalty.item()? - (1.0f32 + 0.0625).ln()).abs() < 1e-6);
/// assert!(attn_penalty(&[], AttnPenalty::LogSquare, Layers::Last).is_err());
/// # Ok::<(), Error>(())
/// ```
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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::{AttnPenalty, Layers, SparseLoss};
/// # /// A layer whose rows attend to each other, and a head.
/// # struct Attend(Linear, Linear);
/// # impl Module for Attend {
/// #     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
/// #         let weights = self.0.forward(cx, &x.flatten(2, 3)?)?.softmax(2)?;
/// #         self.1.forward(cx, &weights.mean(&[1], false)?)
/// #     }
/// # }
/// # let mut names = Builder::new();
/// # let rows = Linear::new(&mut names.root().sub("rows"), 8, 8, true);
/// # let model = Attend(rows, Linear::new(&mut names.root().sub("head"), 8, 10, true));
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// // A model whose eight rows of pixels attend to each other once.
/// let sparse = SparseLoss { lambda: 0.01, penalty: AttnPenalty::LogSquare, layers: Layers::Last };
/// let x = Tensor::ones(&gpu, &[2, 8, 8, 1])?;
/// let cx = Cx::train(&arena);
/// let loss = sparse.add(|| model.forward(&cx, &x), |logits| logits.square()?.mean_all())?;
/// arena.backward(&loss)?; // through the attention, too
/// # Ok::<(), Error>(())
/// ```
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
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::{Optimizer, Rule};
    /// # use shadegrad::train::{FitOptions, Images, NoHooks, Trainer};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::sparse_then_prune::{AttnPenalty, Layers, SparseLoss};
    /// # /// A layer whose rows attend to each other, and a head.
    /// # struct Attend(Linear, Linear);
    /// # impl Module for Attend {
    /// #     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
    /// #         let weights = self.0.forward(cx, &x.flatten(2, 3)?)?.softmax(2)?;
    /// #         self.1.forward(cx, &weights.mean(&[1], false)?)
    /// #     }
    /// # }
    /// # let mut names = Builder::new();
    /// # let rows = Linear::new(&mut names.root().sub("rows"), 8, 8, true);
    /// # let model = Attend(rows, Linear::new(&mut names.root().sub("head"), 8, 10, true));
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// // A model whose eight rows of pixels attend to each other once.
    /// # let pair = shadegrad::data::digits();
    /// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
    /// # let images = Images::upload(&gpu, &few, &stats)?;
    /// let sparse = SparseLoss { lambda: 0.01, penalty: AttnPenalty::LogSquare, layers: Layers::Last };
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
    /// let options = FitOptions { epochs: 1, batch: 10, ..FitOptions::default() };
    /// let summary = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.01, options)
    ///     .loss(|step| sparse.loss(step))
    ///     .fit(&images, None, &mut NoHooks)?;
    /// assert_eq!(summary.steps, 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`SparseLoss::add`].
    pub fn loss(&self, step: &Step) -> Result<Tensor> {
        self.add(|| step.logits(), |logits| step.cross_entropy(logits))
    }

    /// Runs `forward`, makes a loss of its result by `plain`, and adds the penalty of the attention on the way.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::sparse_then_prune::{AttnPenalty, Layers, SparseLoss};
    /// let scores = Tensor::zeros(&gpu, &[1, 2, 4])?.leaf();
    /// let sparse = SparseLoss { lambda: 2.0, penalty: AttnPenalty::LogSquare, layers: Layers::Last };
    /// let loss = sparse.add(|| scores.softmax(2), |weights| weights.mean_all())?;
    /// assert!((loss.item()? - (0.25 + 2.0 * (1.0f32 + 0.0625).ln())).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::{AttentionStats, attention_stats};
/// # /// A layer whose rows attend to each other, and a head.
/// # struct Attend(Linear, Linear);
/// # impl Module for Attend {
/// #     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
/// #         let weights = self.0.forward(cx, &x.flatten(2, 3)?)?.softmax(2)?;
/// #         self.1.forward(cx, &weights.mean(&[1], false)?)
/// #     }
/// # }
/// # let mut names = Builder::new();
/// # let rows = Linear::new(&mut names.root().sub("rows"), 8, 8, true);
/// # let model = Attend(rows, Linear::new(&mut names.root().sub("head"), 8, 10, true));
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// // A model whose eight rows of pixels attend to each other once.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let stats: AttentionStats = attention_stats(&model, &Cx::eval(&arena), &images, 10)?;
/// assert_eq!((stats.entropy.len(), stats.log_square.len()), (1, 1));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionStats {
    /// Mean entropy of the rows in nats; at most the logarithm of the keys.
    pub entropy: Vec<f64>,
    /// Mean of `log(1 + A^2)`.
    pub log_square: Vec<f64>,
}

/// Measures attention on the first `pictures` of `data`, in evaluation.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::attention_stats;
/// # /// A layer whose rows attend to each other, and a head.
/// # struct Attend(Linear, Linear);
/// # impl Module for Attend {
/// #     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
/// #         let weights = self.0.forward(cx, &x.flatten(2, 3)?)?.softmax(2)?;
/// #         self.1.forward(cx, &weights.mean(&[1], false)?)
/// #     }
/// # }
/// # let mut names = Builder::new();
/// # let rows = Linear::new(&mut names.root().sub("rows"), 8, 8, true);
/// # let model = Attend(rows, Linear::new(&mut names.root().sub("head"), 8, 10, true));
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// // A model whose eight rows of pixels attend to each other once.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let stats = attention_stats(&model, &Cx::eval(&arena), &images, 10)?;
/// assert!(stats.entropy[0] > 0.0 && stats.entropy[0] <= 8f64.ln() + 1e-6); // of eight keys
/// # Ok::<(), Error>(())
/// ```
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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::{PruneReport, prune_global_l1};
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.25], &[2, 2])?)?;
/// // A model with the weights 0.1, -4, 2 and -0.25.
/// let report: PruneReport = prune_global_l1(&mut arena, 0.5, |_| true)?;
/// assert_eq!(report.per_tensor, [("w".to_string(), 2, 4)]);
/// # Ok::<(), Error>(())
/// ```
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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::sparse_then_prune::weights;
/// let mut names = Builder::new();
/// Linear::new(&mut names.root().sub("fc"), 2, 2, true);
/// LayerNorm::new(&mut names.root().sub("norm"), 2, 1e-5);
/// let (table, _) = names.tables()?;
/// let chosen: Vec<&str> =
///     table.entries().iter().filter(|e| weights("norm.weight")(e)).map(|e| e.name.as_str()).collect();
/// assert_eq!(chosen, ["fc.weight"]);
/// # Ok::<(), Error>(())
/// ```
pub fn weights(except: &str) -> impl Fn(&Entry) -> bool + Copy + use<'_> {
    move |e| (e.name == "weight" || e.name.ends_with(".weight")) && e.name != except
}

/// Masks the `round(share n)` weights (halves to even) of smallest size among the `n` that `prunable` chooses, all layers
/// together; ties go to the lower position. What is masked already counts among them.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::prune_global_l1;
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.25], &[2, 2])?)?;
/// // A model with the weights 0.1, -4, 2 and -0.25.
/// let report = prune_global_l1(&mut arena, 0.5, |_| true)?;
/// assert_eq!((report.pruned, report.threshold), (2, 0.25));
/// assert_eq!(arena.params().by_name("w")?.to_vec()?, [0.0, -4.0, 2.0, 0.0]);
/// # Ok::<(), Error>(())
/// ```
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
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::sparse_then_prune::prune_sweep;
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.25], &[2, 2])?)?;
/// // A model with the weights 0.1, -4, 2 and -0.25.
/// let left = |arena: &Arena| Ok(arena.params().by_name("w")?.to_vec()?.iter().filter(|v| **v != 0.0).count() as f64);
/// assert_eq!(prune_sweep(&arena, &[0.25, 0.75], |_| true, left)?, [(0.25, 3.0), (0.75, 1.0)]);
/// # Ok::<(), Error>(())
/// ```
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
///
/// ```
/// use shadegrad_models::papers::sparse_then_prune::OneCycleConfig;
/// let config = OneCycleConfig { max_lr: 0.01, momentum: None, ..OneCycleConfig::paper(1000) };
/// assert_eq!((config.div, config.pct), (25.0, 0.5));
/// ```
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
    ///
    /// ```
    /// use shadegrad_models::papers::sparse_then_prune::OneCycleConfig;
    /// assert_eq!(OneCycleConfig::paper(5000).pct, 0.1); // 500 steps of 5000
    /// assert_eq!(OneCycleConfig::paper(400).pct, 0.3);
    /// ```
    pub fn paper(total: u64) -> Self {
        let pct = if total > 500 { 500.0 / total as f64 } else { 0.3 };
        Self { max_lr: 1e-3, total, pct, div: 25.0, final_div: 1e4, momentum: Some((0.85, 0.95)), weight_decay: 1e-4 }
    }
}

/// One cycle of the rate with the momentum going the other way, as PyTorch's `OneCycleLR` with `cycle_momentum`. As a
/// watcher of a [`shadegrad::train::Trainer`] it sets the momentum of every step; the rate is [`OneCycle::lr`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::sparse_then_prune::{OneCycle, OneCycleConfig};
/// let cycle = OneCycle::new(OneCycleConfig::paper(5000))?;
/// assert!((cycle.lr(499) - 1e-3).abs() < 1e-8 && (cycle.momentum(499) - 0.85).abs() < 1e-6);
/// assert!(cycle.lr(4999) < 1e-8);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OneCycle {
    config: OneCycleConfig,
}

impl OneCycle {
    /// Checks the options.
    ///
    /// ```
    /// use shadegrad_models::papers::sparse_then_prune::{OneCycle, OneCycleConfig};
    /// assert!(OneCycle::new(OneCycleConfig::paper(1000)).is_ok());
    /// assert!(OneCycle::new(OneCycleConfig { pct: 1.0, ..OneCycleConfig::paper(1000) }).is_err()); // it never falls
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::sparse_then_prune::{OneCycle, OneCycleConfig};
    /// let cycle = OneCycle::new(OneCycleConfig { max_lr: 1.0, ..OneCycleConfig::paper(5000) })?;
    /// assert!((cycle.lr(0) - 1.0 / 25.0).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn lr(&self, step: u64) -> f32 {
        let OneCycleConfig { max_lr, total, pct, div, final_div, .. } = self.config;
        schedule::one_cycle(step, total, max_lr, pct as f32, div, final_div)
    }

    /// The momentum of a step.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::sparse_then_prune::{OneCycle, OneCycleConfig};
    /// let cycle = OneCycle::new(OneCycleConfig::paper(5000))?;
    /// assert!((cycle.momentum(0) - 0.95).abs() < 1e-6 && (cycle.momentum(4999) - 0.95).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn momentum(&self, step: u64) -> f32 {
        match self.config.momentum {
            // From `high` down to `low`, and back to where it began.
            Some((low, high)) => schedule::one_cycle(step, self.config.total, low, self.config.pct as f32, low / high, 1.0),
            None => 0.9,
        }
    }

    /// The rule of a step: SGD with its momentum.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::Rule;
    /// use shadegrad_models::papers::sparse_then_prune::{OneCycle, OneCycleConfig};
    /// let cycle = OneCycle::new(OneCycleConfig { momentum: None, ..OneCycleConfig::paper(5000) })?;
    /// assert_eq!(cycle.rule(0), Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 1e-4 });
    /// # Ok::<(), Error>(())
    /// ```
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
