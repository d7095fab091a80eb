//! Large batches that generalise like small ones: Hoffer, Hubara and Soudry, "Train longer, generalize better: closing the
//! generalization gap in large batch training of neural networks", NeurIPS 2017, arXiv 1705.08741.
//!
//! A large batch at as many epochs generalises worse because it makes fewer updates. The remedies here: rates scaled by the
//! square root of the ratio of the batches ([`LargeBatch::rate_factor`]) with clipped gradients, ghost batch
//! normalisation ([`shadegrad::nn::GhostBatchNorm`], or [`LargeBatch::step`], which runs any model on ghost batches), as
//! many updates as with small batches ([`LargeBatch::adapt`]), and noise on the samples' gradients. [`DistanceProbe`]
//! measures how far the weights move, which grows with the logarithm of the updates.
//!
//! On a model and data of one's own:
//!
//! ```
//! # use shadegrad::{Gpu, Options, data::{Sampler, digits}, train::Images};
//! use shadegrad::nn::{Arena, BatchNorm2d, Builder, Cx, Linear, Module};
//! use shadegrad::optim::{Optimizer, Rule};
//! use shadegrad::{Result, Tensor};
//! use shadegrad_models::papers::train_longer::{DistanceProbe, LargeBatch, LargeBatchConfig, LrRule, Regime};
//! struct Net(Linear, BatchNorm2d, Linear);
//! impl Module for Net {
//!     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
//!         self.2.forward(cx, &self.1.forward_relu(cx, &self.0.forward(cx, &x.flatten(1, 3)?)?)?)
//!     }
//! }
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let images = Images::upload(&gpu, &pair.train, &pair.train.channel_stats()?)?;
//! let (mut names, width) = (Builder::new(), 32);
//! let hidden = Linear::new(&mut names.root().sub("hidden"), 64, width, false);
//! let norm = BatchNorm2d::new(&mut names.root().sub("norm"), width);
//! let model = Net(hidden, norm, Linear::new(&mut names.root().sub("out"), width, 10, true));
//! let arena = Arena::new(&gpu, &names, 0)?;
//! // Batches of 32 were trained with rate 0.1, a tenth of it from epoch 2 on, for 3 epochs: now 512, as ghosts of 32.
//! let config = LargeBatchConfig {
//!     small_batch: 32,
//!     batch: 512,
//!     lr_rule: LrRule::Sqrt,
//!     ghost: Some(32),
//!     clip: Some(5.0),
//!     adapt_regime: true,
//!     gradient_noise: None,
//! };
//! let large = LargeBatch::new(config)?;
//! let regime = large.adapt(&Regime::new(0.1, &[(2, 0.01)], 3)?);
//! let mut optimizer = large.clipped(Optimizer::new(&arena, Rule::sgd(1e-4))?);
//! let mut probe = DistanceProbe::new(&arena, "*")?;
//! let (mut batches, mut step) = (Sampler::new(images.len(), 512)?.seed(0), 0);
//! for epoch in 0..regime.epochs {
//!     while let Some(batch) = batches.next_batch() {
//!         let batch = images.plain(&batch.indices)?;
//!         large.step(&model, &arena, &mut optimizer, &batch, regime.rate(epoch), (0, step))?;
//!         step += 1;
//!         probe.record(step, &arena)?;
//!     }
//! }
//! println!("distance from the start by the updates: {:?}", probe.fit_log(1)?);
//! # Ok(())
//! # }
//! ```

mod diffusion;
mod recipe;
#[cfg(test)]
mod tests;

pub use diffusion::{DistanceProbe, LogFit, Roughness, fit_log, roughness};

use shadegrad::nn::{Arena, Cx, Module};
use shadegrad::optim::Optimizer;
use shadegrad::rng::Stream;
use shadegrad::train::Minibatch;
use shadegrad::{CrossEntropy, Error, Result, Tensor};

use super::Paper;

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "train-longer",
    title: "Train longer, generalize better: closing the generalization gap in large batch training of neural networks",
    source: "arXiv 1705.08741",
    claim: "large batches generalise as small ones do with as many updates, scaled rates and ghost batch norm",
    data: "MNIST",
    seeds: 3,
    recipe: Some(recipe::run),
};

/// Stream of a seed that the noise on gradients is drawn from; the step is added.
const NOISE: u64 = 0x544c_0000_0000_0000;

/// How the rate follows the batch, with `k` = large batch / small batch.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
/// let (small_batch, batch) = (32, 512);
/// let of = |lr_rule| {
///     let (ghost, clip, adapt_regime, gradient_noise) = (None, None, false, None);
///     LargeBatch::new(LargeBatchConfig { small_batch, batch, lr_rule, ghost, clip, adapt_regime, gradient_noise })
/// };
/// let factors = [of(LrRule::None)?, of(LrRule::Sqrt)?, of(LrRule::Linear)?].map(|l| l.rate_factor());
/// assert_eq!(factors, [1.0, 4.0, 16.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LrRule {
    /// Not at all.
    None,
    /// Times the square root of `k`, which keeps the covariance of an update: the paper's.
    Sqrt,
    /// Times `k`, which keeps the mean drift of an epoch (Goyal et al., 2017).
    Linear,
}

/// Options of [`LargeBatch`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
/// let config = LargeBatchConfig {
///     small_batch: 128,
///     batch: 2048,
///     lr_rule: LrRule::Sqrt,
///     ghost: Some(128),
///     clip: Some(5.0),
///     adapt_regime: true,
///     gradient_noise: None,
/// };
/// assert_eq!(LargeBatch::new(config)?.ratio(), 16.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LargeBatchConfig {
    /// The batch whose training is to be matched.
    pub small_batch: usize,
    /// The batch that is trained with.
    pub batch: usize,
    /// How the rate follows.
    pub lr_rule: LrRule,
    /// Samples of a ghost batch; none if `None`.
    pub ghost: Option<usize>,
    /// Largest norm of the gradient; the paper's scripts use 5.
    pub clip: Option<f32>,
    /// Whether epochs are stretched so that as many updates are made.
    pub adapt_regime: bool,
    /// Variance of the factors, of mean 1, on the samples' losses: an alternative to the higher rate, with `k - 1`.
    pub gradient_noise: Option<f32>,
}

/// A schedule of rates by epochs.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::train_longer::Regime;
/// let regime = Regime::new(0.1, &[(2, 0.01)], 3)?;
/// assert_eq!([0, 1, 2].map(|epoch| regime.rate(epoch)), [0.1, 0.1, 0.01]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Regime {
    /// From which epoch on which rate holds; the first entry is for epoch 0.
    pub rates: Vec<(u64, f32)>,
    /// Epochs in all.
    pub epochs: u64,
}

impl Regime {
    /// The rate `first`, then others from the given epochs on.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::train_longer::Regime;
    /// assert_eq!(Regime::new(0.1, &[(80, 0.01)], 120)?.rates, [(0, 0.1), (80, 0.01)]);
    /// assert!(Regime::new(0.1, &[(80, 0.01), (40, 0.001)], 120).is_err()); // epochs must rise
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the epochs do not rise, or a rate is not positive and finite.
    pub fn new(first: f32, later: &[(u64, f32)], epochs: u64) -> Result<Self> {
        let rates: Vec<(u64, f32)> = std::iter::once((0, first)).chain(later.iter().copied()).collect();
        if !rates.windows(2).all(|w| w[0].0 < w[1].0) || !rates.iter().all(|r| r.1 > 0.0 && r.1.is_finite()) {
            return Err(Error::value("Regime", format!("{rates:?}; give rising epochs and positive rates")));
        }
        Ok(Self { rates, epochs })
    }

    /// The rate of an epoch, from 0.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::train_longer::Regime;
    /// let regime = Regime::new(0.1, &[(80, 0.01)], 120)?;
    /// assert_eq!((regime.rate(79), regime.rate(80)), (0.1, 0.01));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rate(&self, epoch: u64) -> f32 {
        self.rates.iter().rev().find(|r| r.0 <= epoch).map_or(0.0, |r| r.1)
    }
}

/// What a step did.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::optim::{Optimizer, Rule};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// # use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
/// use shadegrad_models::papers::train_longer::StepReport;
/// # use shadegrad_models::Mlp;
/// # let large = LargeBatch::new(LargeBatchConfig {
/// #     small_batch: 32, batch: 512, lr_rule: LrRule::Sqrt, ghost: Some(32), clip: Some(5.0), adapt_regime: true,
/// #     gradient_noise: None,
/// # })?;
/// // Batches of 512 in place of 32, as ghosts of 32.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[]);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
/// let batch = images.plain(&(0..20).collect::<Vec<u32>>())?;
/// let report: StepReport = large.step(&model, &arena, &mut optimizer, &batch, 0.1, (0, 0))?;
/// assert_eq!(report.ghosts, 10); // 20 samples leave no more than pieces of two
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Mean loss over the batch, on the device.
    pub loss: Tensor,
    /// Ghost batches the gradient was taken over.
    pub ghosts: usize,
}

/// Training with large batches.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
/// # let large = LargeBatch::new(LargeBatchConfig {
/// #     small_batch: 32, batch: 512, lr_rule: LrRule::Sqrt, ghost: Some(32), clip: Some(5.0), adapt_regime: true,
/// #     gradient_noise: None,
/// # })?;
/// // Batches of 512 in place of 32, as ghosts of 32.
/// assert_eq!((large.ratio(), large.rate_factor()), (16.0, 4.0));
/// assert_eq!(large.pieces(512).len(), 16);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LargeBatch {
    config: LargeBatchConfig,
}

impl LargeBatch {
    /// Checks the options.
    ///
    /// ```
    /// use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
    /// let (small_batch, batch, lr_rule, clip) = (32, 512, LrRule::Sqrt, Some(5.0));
    /// let of = |ghost| {
    ///     let (adapt_regime, gradient_noise) = (true, None);
    ///     LargeBatch::new(LargeBatchConfig { small_batch, batch, lr_rule, ghost, clip, adapt_regime, gradient_noise })
    /// };
    /// assert!(of(Some(32)).is_ok() && of(Some(1024)).is_err()); // ghosts larger than the batch
    /// ```
    ///
    /// # Errors
    /// If a batch is 0, the ghost is 0 or larger than the batch, the clip is not positive, or the variance is negative.
    pub fn new(config: LargeBatchConfig) -> Result<Self> {
        let LargeBatchConfig { small_batch, batch, ghost, clip, gradient_noise, .. } = config;
        let wrong = |what: String| Err(Error::value("LargeBatch", what));
        if small_batch == 0 || batch == 0 {
            return wrong(format!("batches of {small_batch} and {batch}; give at least 1"));
        }
        if let Some(g) = ghost.filter(|&g| g == 0 || g > batch) {
            return wrong(format!("ghosts of {g} in batches of {batch}; give 1 up to the batch"));
        }
        if let Some(c) = clip.filter(|c| c.is_nan() || *c <= 0.0) {
            return wrong(format!("gradients clipped to {c}; give a positive norm, such as 5"));
        }
        if let Some(v) = gradient_noise.filter(|v| !(*v >= 0.0 && v.is_finite())) {
            return wrong(format!("noise of variance {v}; give 0 or more, such as the ratio of the batches less 1"));
        }
        Ok(Self { config })
    }

    /// `k`, large batch / small batch.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
    /// # let large = LargeBatch::new(LargeBatchConfig {
    /// #     small_batch: 32, batch: 512, lr_rule: LrRule::Sqrt, ghost: Some(32), clip: Some(5.0), adapt_regime: true,
    /// #     gradient_noise: None,
    /// # })?;
    /// // Batches of 512 in place of 32, as ghosts of 32.
    /// assert_eq!(large.ratio(), 512.0 / 32.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn ratio(&self) -> f64 {
        self.config.batch as f64 / self.config.small_batch as f64
    }

    /// What every rate is multiplied by.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
    /// # let large = LargeBatch::new(LargeBatchConfig {
    /// #     small_batch: 32, batch: 512, lr_rule: LrRule::Sqrt, ghost: Some(32), clip: Some(5.0), adapt_regime: true,
    /// #     gradient_noise: None,
    /// # })?;
    /// // Batches of 512 in place of 32, as ghosts of 32.
    /// assert_eq!(large.rate_factor(), 16f64.sqrt());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rate_factor(&self) -> f64 {
        match self.config.lr_rule {
            LrRule::None => 1.0,
            LrRule::Sqrt => self.ratio().sqrt(),
            LrRule::Linear => self.ratio(),
        }
    }

    /// The regime of the small batch for this one: rates scaled, and epochs times `ceil(k)` if the regime is adapted
    /// (section 5 of the paper).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
    /// use shadegrad_models::papers::train_longer::Regime;
    /// # let large = LargeBatch::new(LargeBatchConfig {
    /// #     small_batch: 32, batch: 512, lr_rule: LrRule::Sqrt, ghost: Some(32), clip: Some(5.0), adapt_regime: true,
    /// #     gradient_noise: None,
    /// # })?;
    /// // Batches of 512 in place of 32, as ghosts of 32.
    /// let regime = large.adapt(&Regime::new(0.1, &[(2, 0.01)], 3)?);
    /// assert_eq!((regime.rate(0), regime.rate(32), regime.epochs), (0.4, 0.04, 48));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn adapt(&self, regime: &Regime) -> Regime {
        let stretch = if self.config.adapt_regime { self.ratio().ceil() as u64 } else { 1 };
        let scaled = |&(epoch, rate): &(u64, f32)| (epoch * stretch, (f64::from(rate) * self.rate_factor()) as f32);
        Regime { rates: regime.rates.iter().map(scaled).collect(), epochs: regime.epochs * stretch }
    }

    /// An optimiser that clips as the options say: by the norm of all gradients together.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::{Optimizer, Rule};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
    /// # let large = LargeBatch::new(LargeBatchConfig {
    /// #     small_batch: 32, batch: 512, lr_rule: LrRule::Sqrt, ghost: Some(32), clip: Some(5.0), adapt_regime: true,
    /// #     gradient_noise: None,
    /// # })?;
    /// // Batches of 512 in place of 32, as ghosts of 32.
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[1], Init::Zeros);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = large.clipped(Optimizer::new(&arena, Rule::sgd(0.0))?);
    /// arena.backward(&arena.params().get(w).mul_scalar(50.0)?.sum_all()?)?; // a gradient of 50
    /// optimizer.step(&arena, 0.1)?;
    /// assert!((arena.params().get(w).item()? + 0.1 * 5.0).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn clipped(&self, optimizer: Optimizer) -> Optimizer {
        match self.config.clip {
            Some(max) => optimizer.clip_norm(max),
            None => optimizer,
        }
    }

    /// Where a batch of `samples` is cut: as many pieces as a full batch has, each of equal length but for a shorter last
    /// one; there may be fewer.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
    /// # let large = LargeBatch::new(LargeBatchConfig {
    /// #     small_batch: 32, batch: 512, lr_rule: LrRule::Sqrt, ghost: Some(32), clip: Some(5.0), adapt_regime: true,
    /// #     gradient_noise: None,
    /// # })?;
    /// // Batches of 512 in place of 32, as ghosts of 32.
    /// let pieces = large.pieces(500); // the last batch of an epoch
    /// assert_eq!((pieces.len(), pieces[0], pieces[15]), (16, (0, 32), (480, 20)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn pieces(&self, samples: usize) -> Vec<(usize, usize)> {
        let count = self.config.ghost.map_or(1, |g| self.config.batch / g).max(1);
        let len = samples.div_ceil(count).max(1);
        (0..samples).step_by(len).map(|start| (start, len.min(samples - start))).collect()
    }

    /// Takes the gradient of the mean cross-entropy ghost by ghost (batch normalisation of any model then sees a ghost at
    /// a time), divides by the number of ghosts, and updates. `(seed, step)` decides dropout and noise.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::optim::{Optimizer, Rule};
    /// # use shadegrad::train::Images;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// # use shadegrad_models::papers::train_longer::{LargeBatch, LargeBatchConfig, LrRule};
    /// # use shadegrad_models::Mlp;
    /// # let large = LargeBatch::new(LargeBatchConfig {
    /// #     small_batch: 32, batch: 512, lr_rule: LrRule::Sqrt, ghost: Some(32), clip: Some(5.0), adapt_regime: true,
    /// #     gradient_noise: None,
    /// # })?;
    /// // Batches of 512 in place of 32, as ghosts of 32.
    /// # let pair = shadegrad::data::digits();
    /// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
    /// # let images = Images::upload(&gpu, &few, &stats)?;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[]);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
    /// let batch = images.plain(&[0, 1, 2, 3])?;
    /// let first = large.step(&model, &arena, &mut optimizer, &batch, 0.1, (0, 0))?;
    /// let second = large.step(&model, &arena, &mut optimizer, &batch, 0.1, (0, 1))?;
    /// assert!(second.loss.item()? < first.loss.item()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the model and the device.
    pub fn step(
        &self,
        model: &dyn Module,
        arena: &Arena,
        optimizer: &mut Optimizer,
        batch: &Minibatch,
        lr: f32,
        (seed, step): (u64, u64),
    ) -> Result<StepReport> {
        let samples = batch.labels.numel();
        let noise = self.noise(&batch.images, samples, Stream::new(seed, NOISE + step))?;
        let pieces = self.pieces(samples);
        let share = 1.0 / pieces.len().max(1) as f32;
        arena.zero_grad()?;
        let mut total: Option<Tensor> = None;
        let cx = Cx::train(arena).seeded(seed, step);
        for &(start, len) in &pieces {
            let logits = model.forward(&cx, &batch.images.narrow(0, start, len)?)?;
            let noise = noise.as_ref().map(|n| n.narrow(0, start, len)).transpose()?;
            // A factor on a sample's loss is one on its gradient; the mean is over the samples, not over the factors.
            let loss = match &noise {
                Some(z) => {
                    let none = CrossEntropy { reduction: shadegrad::Reduction::None, ..CrossEntropy::default() };
                    logits.cross_entropy(&batch.labels.narrow(0, start, len)?, none)?.mul(z)?.mean(&[0], false)?
                }
                None => logits.cross_entropy(&batch.labels.narrow(0, start, len)?, CrossEntropy::default())?,
            };
            arena.backward_add(&loss, share)?;
            let part = loss.detach().mul_scalar(len as f32 / samples as f32)?;
            total = Some(match total {
                Some(sum) => sum.add(&part)?,
                None => part,
            });
        }
        optimizer.step(arena, lr)?;
        let loss = total.ok_or_else(|| Error::value("LargeBatch", "an empty batch"))?;
        Ok(StepReport { loss, ghosts: pieces.len() })
    }

    /// The factors on the losses of a batch, if there is noise.
    fn noise(&self, on: &Tensor, samples: usize, stream: Stream) -> Result<Option<Tensor>> {
        let Some(variance) = self.config.gradient_noise else { return Ok(None) };
        Ok(Some(Tensor::normal(on.gpu(), &[samples], stream, 1.0, variance.sqrt())?))
    }
}
