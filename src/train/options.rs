//! How to train.

use crate::Precision;
use crate::augment::Augment;

/// Mixing of the samples of a batch in pairs.
///
/// ```
/// # use shadegrad::{data::*, nn::*, optim::*, train::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let set = synthetic::blobs(8, 2, 2, 2, 1, 0)?;
/// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
/// # let mut names = Builder::new();
/// # let head = Linear::with_init(&mut names.root().sub("head"), 4, 2, Init::Zeros, None);
/// # let model = Sequential::new().then(Flatten).then(head);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
/// let options = FitOptions { epochs: 1, mixing: Mixing::Mixup(0.2), ..FitOptions::default() };
/// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).loss(|step| {
///     assert!(step.batch.soft.as_ref().is_some_and(|targets| targets.shape() == [8, 2])); // in place of labels
///     step.cross_entropy(&step.logits()?)
/// });
/// trainer.fit(&images, None, &mut NoHooks)?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mixing {
    /// None.
    #[default]
    Off,
    /// Blended, with shares from `Beta(alpha, alpha)` (Zhang et al., 2018).
    Mixup(f64),
    /// A rectangle of the partner pasted in, its area from `Beta(alpha, alpha)` (Yun et al., 2019).
    Cutmix(f64),
}

/// How to train.
///
/// ```
/// # use shadegrad::{data::*, nn::*, optim::*, train::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let set = synthetic::blobs(8, 2, 2, 2, 1, 0)?;
/// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
/// # let mut names = Builder::new();
/// # let head = Linear::with_init(&mut names.root().sub("head"), 4, 2, Init::Zeros, None);
/// # let model = Sequential::new().then(Flatten).then(head);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
/// let options = FitOptions { epochs: 3, batch: 4, smoothing: 0.1, ..FitOptions::default() };
/// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options);
/// let summary = trainer.fit(&images, None, &mut NoHooks)?; // eight pictures
/// assert_eq!(summary.steps, 6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// Passes over the training set.
    pub epochs: u64,
    /// Samples of a step; the last batch of an epoch may be shorter.
    pub batch: usize,
    /// Samples of a batch when evaluating.
    pub eval_batch: usize,
    /// Decides order, augmentation and dropout.
    pub seed: u64,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// What happens to the pictures; only normalised if `None`. See [`crate::train::Images::normalise`].
    pub augment: Option<Augment>,
    /// Whether samples are mixed.
    pub mixing: Mixing,
    /// Share of the uniform distribution in the targets (Szegedy et al., 2016).
    pub smoothing: f32,
    /// Steps between two records, and over which the loss that is shown is averaged.
    pub record_every: u64,
    /// Number formats of the steps; evaluation is in f32. [`Precision::Mixed`] needs an optimiser with
    /// [`crate::optim::Optimizer::loss_scaling`], and is [`Precision::F32`] with a warning in the log on a device without f16.
    pub precision: Precision,
}

impl Default for FitOptions {
    /// Ten epochs of batches of 64, shuffled by seed 0, without augmentation.
    fn default() -> Self {
        Self {
            epochs: 10,
            batch: 64,
            eval_batch: 256,
            seed: 0,
            shuffle: true,
            augment: None,
            mixing: Mixing::Off,
            smoothing: 0.0,
            record_every: 20,
            precision: Precision::F32,
        }
    }
}
