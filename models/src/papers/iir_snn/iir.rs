//! Training at many timesteps, then at ever fewer.

use shadegrad::augment::Augment;
use shadegrad::data::Sampler;
use shadegrad::nn::{Arena, Cx};
use shadegrad::optim::{Optimizer, Rule, schedule};
use shadegrad::rng::Stream;
use shadegrad::train::{Images, LossMeter, evaluate};
use shadegrad::{CrossEntropy, Error, Result};

use super::net::SpikingNet;

const OP: &str = "iir";

/// Streams of the seed for augmentation; the epoch of the whole run is added.
const AUGMENT: u64 = 0x4949_5200_0000_0000;

/// How a network is trained down to few timesteps.
///
/// ```
/// use shadegrad_models::papers::iir_snn::IirSchedule;
/// let schedule = IirSchedule { steps: vec![3, 1], epochs: vec![10, 20], ..IirSchedule::default() };
/// assert_eq!((schedule.lr, schedule.batch), (1e-4, 64));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct IirSchedule {
    /// Timesteps of each stage, falling.
    pub steps: Vec<usize>,
    /// Epochs of each stage.
    pub epochs: Vec<usize>,
    /// First learning rate of each stage (Adam with AMSGrad, made anew for each).
    pub lr: f32,
    /// Shares of a stage's epochs after which the rate drops: at epoch `floor(share epochs)`.
    pub lr_drops: Vec<f64>,
    /// What the rate is divided by at a drop.
    pub drop_factor: f32,
    /// Samples of a step.
    pub batch: usize,
    /// Decides order, augmentation and dropout.
    pub seed: u64,
    /// What happens to the pictures; only normalised if `None`.
    pub augment: Option<Augment>,
    /// Ends each stage with the parameters of its best epoch on the validation set, which is then measured after every
    /// epoch. Without it a stage ends with its last parameters.
    pub keep_best: bool,
}

impl Default for IirSchedule {
    /// The paper's on small images: 5 to 1, rate 1e-4 divided by 5 at 60, 80 and 90 %, batches of 64. The epochs, 40 a
    /// stage, are ours: the published default is "up to 500".
    fn default() -> Self {
        Self {
            steps: vec![5, 4, 3, 2, 1],
            epochs: vec![40; 5],
            lr: 1e-4,
            lr_drops: vec![0.6, 0.8, 0.9],
            drop_factor: 5.0,
            batch: 64,
            seed: 0,
            augment: None,
            keep_best: true,
        }
    }
}

impl IirSchedule {
    fn check(&self) -> Result<()> {
        let rates = [self.lr, self.drop_factor].iter().all(|v| *v > 0.0 && v.is_finite());
        if self.steps.is_empty() || self.steps.len() != self.epochs.len() || self.steps.contains(&0) || !rates {
            return Err(Error::value(
                OP,
                format!(
                    "timesteps {:?}, epochs {:?}, rate {}, drop factor {}: as many epochs as stages, at least one stage, \
                     everything positive",
                    self.steps, self.epochs, self.lr, self.drop_factor
                ),
            ));
        }
        Ok(())
    }

    /// The learning rate of epoch `epoch` (from 0) of a stage of `epochs`.
    ///
    /// ```
    /// use shadegrad_models::papers::iir_snn::IirSchedule;
    /// let schedule = IirSchedule { lr: 1.0, drop_factor: 5.0, ..IirSchedule::default() };
    /// let rates = [5, 6, 8].map(|epoch| schedule.rate(epoch, 10));
    /// assert!((rates[0] - 1.0).abs() < 1e-6 && (rates[1] - 0.2).abs() < 1e-6 && (rates[2] - 0.04).abs() < 1e-6);
    /// ```
    pub fn rate(&self, epoch: usize, epochs: usize) -> f32 {
        let milestones: Vec<u64> = self.lr_drops.iter().map(|share| (share * epochs as f64).floor() as u64).collect();
        schedule::multi_step(epoch as u64, &milestones, self.lr, 1.0 / self.drop_factor)
    }
}

/// An epoch of a stage, for whoever watches.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
/// use shadegrad_models::papers::iir_snn::{IirSchedule, StageEpoch, run};
/// # let mut names = Builder::new();
/// # let hidden = Linear::new(&mut names.root().sub("hidden"), 64, 4, false);
/// # let out = Linear::new(&mut names.root().sub("out"), 4, 10, false);
/// # let ann = Ann::new(vec![Layer::Flatten, hidden.into(), Layer::Relu, out.into()]);
/// # let net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// // A network with four neurons, and twenty digits.
/// let schedule = IirSchedule { steps: vec![1], epochs: vec![2], ..IirSchedule::default() };
/// let mut seen: Vec<StageEpoch> = Vec::new();
/// run(&net, &images, &images, &schedule, &mut |epoch| Ok(seen.push(epoch.clone())))?;
/// assert_eq!((seen[1].epoch, seen[1].epochs, seen[1].timesteps), (2, 2, 1));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StageEpoch {
    /// Timesteps of the stage.
    pub timesteps: usize,
    /// The epoch, from 1.
    pub epoch: usize,
    /// Epochs of the stage.
    pub epochs: usize,
    /// Mean loss over the epoch's samples, as they were trained on.
    pub loss: f64,
    /// Accuracy on the validation set, if it was measured.
    pub accuracy: Option<f64>,
}

/// What a stage brought.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
/// use shadegrad_models::papers::iir_snn::{IirSchedule, StageReport, run};
/// # let mut names = Builder::new();
/// # let hidden = Linear::new(&mut names.root().sub("hidden"), 64, 4, false);
/// # let out = Linear::new(&mut names.root().sub("out"), 4, 10, false);
/// # let ann = Ann::new(vec![Layer::Flatten, hidden.into(), Layer::Relu, out.into()]);
/// # let net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// // A network with four neurons, and twenty digits.
/// let schedule = IirSchedule { steps: vec![2], epochs: vec![1], ..IirSchedule::default() };
/// let reports: Vec<StageReport> = run(&net, &images, &images, &schedule, &mut |_| Ok(()))?;
/// assert_eq!((reports[0].timesteps, reports[0].losses.len(), reports[0].rates.len()), (2, 1, 1));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StageReport {
    /// Timesteps of the stage.
    pub timesteps: usize,
    /// Validation accuracy at so many timesteps before the stage, with the parameters of the stage before.
    pub before: f64,
    /// The same after the stage.
    pub after: f64,
    /// Mean training loss of each epoch.
    pub losses: Vec<f64>,
    /// Spikes of a neuron in a timestep by layer, on the first validation images.
    pub rates: Vec<f32>,
    /// Thresholds after the stage.
    pub thresholds: Vec<f32>,
    /// Leaks after the stage. Nothing keeps them above 0.
    pub leaks: Vec<f32>,
}

/// Samples of an evaluation batch.
const EVAL_BATCH: usize = 250;

/// Accuracy of `net` at `timesteps` on `data`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
/// use shadegrad_models::papers::iir_snn::accuracy;
/// # let mut names = Builder::new();
/// # let hidden = Linear::new(&mut names.root().sub("hidden"), 64, 4, false);
/// # let out = Linear::new(&mut names.root().sub("out"), 4, 10, false);
/// # let ann = Ann::new(vec![Layer::Flatten, hidden.into(), Layer::Relu, out.into()]);
/// # let net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// // A network with four neurons, and twenty digits.
/// assert!((0.0..=1.0).contains(&accuracy(&net, &images, 1)?));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`evaluate`].
pub fn accuracy(net: &SpikingNet, data: &Images, timesteps: usize) -> Result<f64> {
    Ok(evaluate(&net.at(timesteps), &Cx::eval(net.arena()), data, EVAL_BATCH)?.accuracy)
}

/// Trains `net` through all stages of `schedule`, each from the parameters of the one before (weights, biases, thresholds
/// and leaks) with a fresh optimiser, and measures it on `val` before and after each. `watch` sees every epoch.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
/// use shadegrad_models::papers::iir_snn::{IirSchedule, run};
/// # let mut names = Builder::new();
/// # let hidden = Linear::new(&mut names.root().sub("hidden"), 64, 4, false);
/// # let out = Linear::new(&mut names.root().sub("out"), 4, 10, false);
/// # let ann = Ann::new(vec![Layer::Flatten, hidden.into(), Layer::Relu, out.into()]);
/// # let net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// // Two timesteps, and then one from where that ended.
/// let schedule = IirSchedule { steps: vec![2, 1], epochs: vec![1, 1], ..IirSchedule::default() };
/// let reports = run(&net, &images, &images, &schedule, &mut |_| Ok(()))?;
/// assert_eq!(reports.iter().map(|r| r.timesteps).collect::<Vec<_>>(), [2, 1]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the schedule is not consistent, a loss is not finite, or the device or the watcher reports an error.
pub fn run(
    net: &SpikingNet,
    train: &Images,
    val: &Images,
    schedule: &IirSchedule,
    watch: &mut dyn FnMut(&StageEpoch) -> Result<()>,
) -> Result<Vec<StageReport>> {
    schedule.check()?;
    let (mut reports, mut run) = (Vec::new(), Run { epoch: 0, step: 0 });
    for (&timesteps, &epochs) in schedule.steps.iter().zip(&schedule.epochs) {
        let before = accuracy(net, val, timesteps)?;
        let losses = stage(net, train, val, schedule, (timesteps, epochs), &mut run, watch)?;
        let first: Vec<u32> = (0..val.len().min(EVAL_BATCH) as u32).collect();
        reports.push(StageReport {
            timesteps,
            before,
            after: accuracy(net, val, timesteps)?,
            losses,
            rates: net.firing_rates(&val.plain(&first)?.images, timesteps)?,
            thresholds: net.thresholds()?,
            leaks: net.leaks()?,
        });
    }
    Ok(reports)
}

/// Epochs and steps of all stages so far: random streams go on through them.
struct Run {
    epoch: u64,
    step: u64,
}

fn stage(
    net: &SpikingNet,
    train: &Images,
    val: &Images,
    schedule: &IirSchedule,
    (timesteps, epochs): (usize, usize),
    run: &mut Run,
    watch: &mut dyn FnMut(&StageEpoch) -> Result<()>,
) -> Result<Vec<f64>> {
    let arena: &Arena = net.arena();
    let mut optimizer = Optimizer::new(arena, Rule::amsgrad())?;
    let mut sampler = Sampler::new(train.len(), schedule.batch)?.seed(schedule.seed ^ run.epoch).shuffle(true);
    let mut meter = LossMeter::new(arena.gpu(), sampler.batches_per_epoch() as usize)?;
    let augment = schedule.augment.as_ref().unwrap_or(train.normalise());
    let mut best = None;
    let mut losses = Vec::new();
    for epoch in 0..epochs {
        let lr = schedule.rate(epoch, epochs);
        while let Some(drawn) = sampler.next_batch() {
            let batch = train.batch(&drawn.indices, augment, Stream::new(schedule.seed, AUGMENT + run.epoch))?;
            let cx = Cx::train(arena).seeded(schedule.seed, run.step);
            let loss =
                net.forward(&cx, &batch.images, timesteps)?.cross_entropy(&batch.labels, CrossEntropy::default())?;
            arena.backward(&loss)?;
            optimizer.step(arena, lr)?;
            net.clamp()?;
            meter.push(&loss, drawn.indices.len())?;
            run.step += 1;
        }
        run.epoch += 1;
        let loss = meter.end_epoch()?.unwrap_or(f64::NAN);
        losses.push(loss);
        let measured = schedule.keep_best.then(|| accuracy(net, val, timesteps)).transpose()?;
        if let Some(accuracy) = measured
            && best.as_ref().is_none_or(|(most, _)| accuracy > *most)
        {
            best = Some((accuracy, arena.snapshot()?));
        }
        watch(&StageEpoch { timesteps, epoch: epoch + 1, epochs, loss, accuracy: measured })?;
    }
    if let Some((_, snapshot)) = best {
        arena.restore(&snapshot)?;
    }
    Ok(losses)
}
