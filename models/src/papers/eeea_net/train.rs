//! Training of a network: the proxy of a candidate, and the network that was found.

use std::time::Instant;

use shadegrad::augment::Augment;
use shadegrad::nn::{Arena, Builder, Cx, Stats};
use shadegrad::optim::{Optimizer, Rule, schedule};
use shadegrad::train::{Evaluation, FitOptions, Hooks, Images, Mixing, NoHooks, Trainer, evaluate};
use shadegrad::{Gpu, Result};

use super::net::UNREAD;
use super::{CellNet, Genotype, NetCfg};

/// Steps after which running statistics with momentum 0.1 have seen enough to be evaluated with.
const SETTLED: u64 = 20;

/// How a network is trained: SGD with momentum 0.9 on the mean cross-entropy, plus that of the auxiliary head.
///
/// ```
/// use shadegrad_models::papers::eeea_net::TrainCfg;
/// let cfg = TrainCfg { epochs: 5, cutout: 0, ..TrainCfg::proxy(0) };
/// assert_eq!((cfg.lr, cfg.batch, cfg.pad), (0.025, 128, 4));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TrainCfg {
    /// Passes over the training set.
    pub epochs: u64,
    /// Samples of a step.
    pub batch: usize,
    /// Learning rate of the first epoch.
    pub lr: f32,
    /// Whether the rate of epoch `e` of `n` is `lr (1 + cos(pi e / n)) / 2`; otherwise it stays.
    pub cosine: bool,
    /// Whether the momentum looks ahead.
    pub nesterov: bool,
    /// L2 penalty.
    pub weight_decay: f32,
    /// Largest norm of the gradient.
    pub clip: f32,
    /// Weight of the auxiliary head's loss, where the network has one.
    pub aux_weight: f32,
    /// Drop-path of epoch `e` of `n` is `drop_path e / n`.
    pub drop_path: f32,
    /// Pixels of padding before a random crop; 0 for none.
    pub pad: usize,
    /// Probability of the mirror image.
    pub flip: f32,
    /// Side of the square that is cut out; 0 for none.
    pub cutout: usize,
    /// Mixing of samples, which the published code has as an option.
    pub mixing: Mixing,
    /// Decides first values, order and augmentation. Candidates of one search have the same.
    pub seed: u64,
}

impl TrainCfg {
    /// That of a candidate in the search: one epoch.
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::TrainCfg;
    /// let cfg = TrainCfg::proxy(7);
    /// assert_eq!((cfg.epochs, cfg.drop_path, cfg.seed), (1, 0.3, 7));
    /// ```
    pub fn proxy(seed: u64) -> Self {
        Self {
            epochs: 1,
            batch: 128,
            lr: 0.025,
            cosine: true,
            nesterov: true,
            weight_decay: 5e-4,
            clip: 5.0,
            aux_weight: 0.4,
            drop_path: 0.3,
            pad: 4,
            flip: 0.5,
            cutout: 16,
            mixing: Mixing::Off,
            seed,
        }
    }

    /// That of the network that was found: 600 epochs.
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::TrainCfg;
    /// let cfg = TrainCfg::found(0);
    /// assert_eq!((cfg.epochs, cfg.batch, cfg.aux_weight), (600, 96, 0.4));
    /// ```
    pub fn found(seed: u64) -> Self {
        Self { epochs: 600, batch: 96, nesterov: false, weight_decay: 3e-4, drop_path: 0.2, ..Self::proxy(seed) }
    }

    /// That of a candidate in minutes on a processor: constant rate, no augmentation, no drop-path.
    ///
    /// ```
    /// use shadegrad_models::papers::eeea_net::TrainCfg;
    /// let cfg = TrainCfg::plain(2, 32, 0);
    /// assert_eq!((cfg.epochs, cfg.batch, cfg.pad, cfg.flip), (2, 32, 0, 0.0));
    /// ```
    pub fn plain(epochs: u64, batch: usize, seed: u64) -> Self {
        let proxy = Self::proxy(seed);
        Self { epochs, batch, cosine: false, drop_path: 0.0, pad: 0, flip: 0.0, cutout: 0, ..proxy }
    }
}

/// A trained network.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::{Images, NoHooks};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::eeea_net::{Genotype, NetCfg};
/// use shadegrad_models::papers::eeea_net::{TrainCfg, Trained, param_count, train_cells};
/// # let genotype: Genotype = "skip.0 max3.0 ; avg3.0 max3.0".parse()?;
/// # let net = NetCfg { c0: 2, layers: 3, classes: 10, aux: false, in_chans: 1 };
/// // Three cells of one block each, and twenty digits.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let done: Trained = train_cells(&gpu, &genotype, net, &TrainCfg::plain(1, 20, 0), (&images, &images), &mut NoHooks)?;
/// assert_eq!(done.arena.table().numel(), param_count(&genotype, &net)?);
/// assert!(done.train_loss.is_finite());
/// # Ok::<(), Error>(())
/// ```
pub struct Trained {
    /// The network.
    pub net: CellNet,
    /// Its parameters.
    pub arena: Arena,
    /// Its figures on the validation set.
    pub valid: Evaluation,
    /// Mean loss of the last epoch.
    pub train_loss: f64,
    /// Seconds, evaluation included.
    pub seconds: f64,
}

/// Builds the network of `genotype`, trains it on `train` and measures it on `valid`, after the last epoch only. With fewer
/// than 20 steps in all the evaluation normalises by its batches, since running statistics are not settled yet.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::{Images, NoHooks};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::eeea_net::{Genotype, NetCfg};
/// use shadegrad_models::papers::eeea_net::{TrainCfg, train_cells};
/// # let genotype: Genotype = "skip.0 max3.0 ; avg3.0 max3.0".parse()?;
/// # let net = NetCfg { c0: 2, layers: 3, classes: 10, aux: false, in_chans: 1 };
/// // Three cells of one block each, and twenty digits.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let cfg = TrainCfg::plain(1, 10, 0);
/// let done = train_cells(&gpu, &genotype, net, &cfg, (&images, &images), &mut NoHooks)?;
/// assert_eq!(done.valid.logits.len(), 20 * 10);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of [`CellNet::new`] and [`Trainer::fit`].
pub fn train_cells(
    gpu: &Gpu,
    genotype: &Genotype,
    net: NetCfg,
    cfg: &TrainCfg,
    (train, valid): (&Images, &Images),
    hooks: &mut dyn Hooks,
) -> Result<Trained> {
    let began = Instant::now();
    let mut builder = Builder::new();
    let cells = CellNet::new(&mut builder.root(), genotype, net)?;
    let mut arena = Arena::new(gpu, &builder, cfg.seed)?;
    arena.allow_missing(UNREAD);
    let rule = Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: cfg.nesterov, weight_decay: cfg.weight_decay };
    let mut optimizer = Optimizer::new(&arena, rule)?.clip_norm(cfg.clip);
    let per_epoch = (train.len() as u64).div_ceil(cfg.batch.max(1) as u64).max(1);
    let rate = |step: u64| {
        let epoch = step / per_epoch;
        if cfg.cosine { schedule::cosine(epoch, cfg.epochs, cfg.lr, 0.0) } else { cfg.lr }
    };
    let augment =
        Augment { pad: cfg.pad, flip: cfg.flip, cutout: cfg.cutout, ..train.normalise().clone() };
    let options = FitOptions {
        epochs: cfg.epochs,
        batch: cfg.batch,
        seed: cfg.seed,
        augment: Some(augment),
        mixing: cfg.mixing,
        ..FitOptions::default()
    };
    let eval_batch = options.eval_batch;
    let mut trainer = Trainer::new(&cells, &mut arena, &mut optimizer, rate, options).loss(|step| {
        let drop = cfg.drop_path * step.epoch as f32 / cfg.epochs as f32;
        let out = cells.outputs(step.cx, &step.batch.images, drop)?;
        let loss = step.cross_entropy(&out.logits)?;
        match &out.aux {
            Some(aux) => loss.add(&step.cross_entropy(aux)?.mul_scalar(cfg.aux_weight)?),
            None => Ok(loss),
        }
    });
    let summary = trainer.fit(train, None, hooks)?;
    drop(trainer);
    let stats = if summary.steps < SETTLED { Stats::Batch } else { Stats::Running };
    let valid = evaluate(&cells, &Cx::eval(&arena).with_stats(stats), valid, eval_batch)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Trained { net: cells, arena, valid, train_loss: summary.last.train_loss, seconds })
}

/// The validation accuracy (0 to 1) of a candidate's proxy: what [`super::Search::run`] asks for.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::eeea_net::{Genotype, NetCfg};
/// use shadegrad_models::papers::eeea_net::{TrainCfg, proxy_accuracy};
/// # let genotype: Genotype = "skip.0 max3.0 ; avg3.0 max3.0".parse()?;
/// # let net = NetCfg { c0: 2, layers: 3, classes: 10, aux: false, in_chans: 1 };
/// // Three cells of one block each, and twenty digits.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let accuracy = proxy_accuracy(&gpu, &genotype, net, &TrainCfg::plain(1, 20, 0), (&images, &images))?;
/// assert!((0.0..=1.0).contains(&accuracy));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`train_cells`].
pub fn proxy_accuracy(
    gpu: &Gpu,
    genotype: &Genotype,
    net: NetCfg,
    cfg: &TrainCfg,
    data: (&Images, &Images),
) -> Result<f64> {
    Ok(train_cells(gpu, genotype, net, cfg, data, &mut NoHooks)?.valid.accuracy)
}
