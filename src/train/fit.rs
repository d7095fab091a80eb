//! The training loop.

use std::time::Instant;

use crate::augment::Mix;
use crate::autograd::detect_anomaly;
use crate::data::{Position, Sampler};
use crate::error::{Error, Result};
use crate::nn::{Arena, Cx, Module};
use crate::optim::Optimizer;
use crate::rng::Stream;
use crate::tensor::Tensor;
use crate::train::{EpochEnd, FitOptions, Flow, Hooks, Mixing, Progress};
use crate::train::{Images, LossMeter, MeterState, Minibatch, Pause, Place, TrainState, evaluate};
use crate::{CrossEntropy, Precision, Reduction};

/// Streams of the run's seed that the loop draws from; the epoch or the step is added.
const AUGMENT: u64 = 0x5452_4100_0000_0000;
const MIX: u64 = 0x5452_4101_0000_0000;

/// A watcher is told how things stand at most this often, and once after the first step.
const PROGRESS_SECONDS: f64 = 0.5;

/// What a loss is computed from.
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
/// # let options = FitOptions { epochs: 1, ..FitOptions::default() };
/// let penalised = |step: &Step| {
///     let weights = step.cx.params().by_name("head.weight")?.square()?.sum_all()?;
///     step.cross_entropy(&step.logits()?)?.add(&weights.mul_scalar(1e-3)?)
/// };
/// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).loss(penalised);
/// trainer.fit(&images, None, &mut NoHooks)?;
/// # Ok::<(), Error>(())
/// ```
pub struct Step<'a> {
    /// The model.
    pub model: &'a dyn Module,
    /// Its parameters, in training, at this step's random stream.
    pub cx: &'a Cx,
    /// The samples.
    pub batch: &'a Minibatch,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The step of the run, from 0.
    pub step: u64,
    /// The options of the run.
    pub options: &'a FitOptions,
}

impl Step<'_> {
    /// The model's result for the samples.
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
    /// # let options = FitOptions { epochs: 1, ..FitOptions::default() };
    /// let loss = |step: &Step| {
    ///     let logits = step.logits()?;
    ///     assert_eq!(logits.shape(), [8, 2]); // of eight pictures, for two classes
    ///     logits.cross_entropy(&step.batch.labels, CrossEntropy::default())
    /// };
    /// Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).loss(loss).fit(&images, None, &mut NoHooks)?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the model.
    pub fn logits(&self) -> Result<Tensor> {
        self.model.forward(self.cx, &self.batch.images)
    }

    /// Mean cross-entropy of `logits` with the labels, or with the mixed targets; with the smoothing of the options.
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
    /// # let options = FitOptions { epochs: 1, ..FitOptions::default() };
    /// let sharper = |step: &Step| step.cross_entropy(&step.logits()?.mul_scalar(2.0)?);
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).loss(sharper);
    /// let first = trainer.fit(&images, None, &mut NoHooks)?.last.train_loss;
    /// assert!((first - std::f64::consts::LN_2).abs() < 1e-6); // all weights were zero
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the logits are not `[batch, classes]`.
    pub fn cross_entropy(&self, logits: &Tensor) -> Result<Tensor> {
        let smoothing = self.options.smoothing;
        let Some(soft) = &self.batch.soft else {
            return logits.cross_entropy(&self.batch.labels, CrossEntropy { smoothing, ..CrossEntropy::default() });
        };
        let uniform = smoothing / soft.dim(1) as f32;
        let targets = if smoothing > 0.0 { &soft.mul_scalar(1.0 - smoothing)?.add_scalar(uniform)? } else { soft };
        logits.cross_entropy_soft(targets, Reduction::Mean)
    }
}

/// What a run came to.
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
/// let options = FitOptions { epochs: 2, batch: 4, ..FitOptions::default() };
/// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.5, options);
/// let Summary { last, best, steps, seconds: _ } = trainer.fit(&images, Some(&images), &mut NoHooks)?;
/// assert_eq!((last.epoch, steps), (2, 4));
/// assert!(best.is_some_and(|(epoch, accuracy)| epoch <= 2 && accuracy >= 0.5));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Summary {
    /// The last epoch.
    pub last: EpochEnd,
    /// The epoch of the highest test accuracy, from 1, and that accuracy.
    pub best: Option<(u64, f64)>,
    /// Steps taken.
    pub steps: u64,
    /// Seconds in all.
    pub seconds: f64,
}

type RateFn<'a> = Box<dyn Fn(u64) -> f32 + 'a>;
type LossFn<'a> = Box<dyn FnMut(&Step) -> Result<Tensor> + 'a>;

/// A model and what it is trained with.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::data::digits;
/// use shadegrad::nn::{Arena, Builder, Flatten, Linear, Sequential};
/// use shadegrad::optim::{Optimizer, Rule};
/// use shadegrad::train::{FitOptions, Images, NoHooks, Trainer};
/// let data = digits();
/// let stats = data.train.channel_stats()?;
/// let (train, test) = (Images::upload(&gpu, &data.train, &stats)?, Images::upload(&gpu, &data.test, &stats)?);
/// let mut names = Builder::new();
/// let model = Sequential::new().then(Flatten).then(Linear::new(&mut names.root(), 64, 10, true));
/// let mut arena = Arena::new(&gpu, &names, 0)?;
/// let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?;
/// let options = FitOptions { epochs: 2, ..FitOptions::default() };
/// let summary = Trainer::new(&model, &mut arena, &mut optimizer, |_step| 0.01, options)
///     .fit(&train, Some(&test), &mut NoHooks)?;
/// assert!(summary.best.is_some_and(|(_, accuracy)| accuracy > 0.8));
/// # Ok::<(), Error>(())
/// ```
pub struct Trainer<'a> {
    model: &'a dyn Module,
    arena: &'a mut Arena,
    optimizer: &'a mut Optimizer,
    rate: RateFn<'a>,
    options: FitOptions,
    loss: LossFn<'a>,
    from: Option<TrainState>,
    anomaly: bool,
}

impl<'a> Trainer<'a> {
    /// Trains `model` with the parameters in `arena` by cross-entropy. `rate` gives the learning rate of each step, from
    /// 0 (see [`crate::optim::schedule`]).
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
    /// let rate = |step| schedule::cosine(step, 20, 0.5, 0.0);
    /// let options = FitOptions { epochs: 5, batch: 2, ..FitOptions::default() }; // eight pictures: 20 steps
    /// let summary =
    ///     Trainer::new(&model, &mut arena, &mut optimizer, rate, options).fit(&images, None, &mut NoHooks)?;
    /// assert_eq!((summary.steps, summary.last.lr), (20, rate(19)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(
        model: &'a dyn Module,
        arena: &'a mut Arena,
        optimizer: &'a mut Optimizer,
        rate: impl Fn(u64) -> f32 + 'a,
        options: FitOptions,
    ) -> Self {
        let loss = Box::new(|step: &Step| step.cross_entropy(&step.logits()?));
        Self { model, arena, optimizer, rate: Box::new(rate), options, loss, from: None, anomaly: false }
    }

    /// Another loss: a scalar, the mean over the samples of the step.
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
    /// # let options = FitOptions { epochs: 1, ..FitOptions::default() };
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).loss(|step| {
    ///     let targets = step.batch.labels.one_hot(2)?;
    ///     step.logits()?.mse_loss(&targets, Reduction::Mean)
    /// });
    /// assert_eq!(trainer.fit(&images, None, &mut NoHooks)?.last.train_loss, 0.5); // of 0 from 0 and from 1
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn loss(mut self, loss: impl FnMut(&Step) -> Result<Tensor> + 'a) -> Self {
        self.loss = Box::new(loss);
        self
    }

    /// Goes on from where a run stood (see [`crate::io::Checkpoint::restore`], which also sets arena and optimiser). With the same model,
    /// data, options and loss, on the same device, the numbers are those of a run that was not interrupted, to the last
    /// bit. A loss that draws on state of its own must bring it along.
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
    /// struct Stop(Option<TrainState>);
    /// impl Hooks for Stop {
    ///     fn pause(&mut self, now: &mut Pause) -> Result<()> {
    ///         self.0 = Some(now.state()?);
    ///         if now.step == 3 { Err(Error::Interrupted("at step 3".into())) } else { Ok(()) }
    ///     }
    /// }
    /// let (mut stop, options) = (Stop(None), FitOptions { epochs: 5, ..FitOptions::default() });
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options);
    /// assert!(trainer.fit(&images, None, &mut stop).is_err());
    /// let mut trainer = trainer.resume(stop.0.expect("a state"));
    /// assert_eq!(trainer.fit(&images, None, &mut NoHooks)?.steps, 5);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn resume(mut self, from: TrainState) -> Self {
        self.from = Some(from);
        self
    }

    /// Looks at the result of every operation, and at every gradient and parameter: the run ends with
    /// [`Error::NonFinite`] at the first NaN or infinity, naming the operation that made it (see
    /// [`detect_anomaly`]). Many times slower. In mixed precision that includes overflows that the step would only have
    /// been left out for.
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
    /// # let options = FitOptions { epochs: 1, ..FitOptions::default() };
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options)
    ///     .loss(|step| step.logits()?.log()?.mean_all()) // all logits are zero
    ///     .detect_anomaly(true);
    /// let error = trainer.fit(&images, None, &mut NoHooks).err().map(|e| e.to_string());
    /// assert!(error.is_some_and(|text| text.contains("step 1") && text.contains("log")));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn detect_anomaly(mut self, on: bool) -> Self {
        self.anomaly = on;
        self
    }

    /// Trains for the epochs of the options, evaluating after each where there is a test set.
    ///
    /// The same model, data, options and first values give the same numbers every time on one device.
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
    /// let options = FitOptions { epochs: 3, ..FitOptions::default() };
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.5, options);
    /// let summary = trainer.fit(&images, Some(&images), &mut NoHooks)?; // trained on, and measured after each epoch
    /// assert_eq!((summary.last.epoch, summary.last.test.map(|t| t.count)), (3, Some(8)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step when a loss is NaN or infinite; [`Error::Value`] for options out of range;
    /// whatever model, device or watcher report.
    pub fn fit(&mut self, train: &Images, test: Option<&Images>, hooks: &mut dyn Hooks) -> Result<Summary> {
        let options = &self.options;
        if options.epochs == 0 || options.record_every == 0 {
            return Err(Error::value(
                "fit",
                format!(
                    "{} epochs, a record every {} steps; both must be at least 1",
                    options.epochs, options.record_every
                ),
            ));
        }
        let gpu = self.arena.gpu().clone();
        self.choose_precision(true)?;
        let options = &self.options;
        let mut sampler = Sampler::new(train.len(), options.batch)?.seed(options.seed).shuffle(options.shuffle);
        let per_epoch = sampler.batches_per_epoch();
        let Some(steps) = per_epoch.checked_mul(options.epochs) else {
            return Err(Error::value("fit", format!("{} epochs of {per_epoch} steps; give fewer", options.epochs)));
        };
        let mut meter = LossMeter::new(&gpu, options.record_every as usize)?;
        let mut clock = Clock::new(self.from.as_ref().map_or(0.0, |f| f.seconds));
        let (mut step, mut best): (u64, Option<(u64, f64)>) = (0, None);
        if let Some(from) = self.from.take() {
            from.check(options, train.len())?;
            sampler.seek(from.position)?;
            meter.restore(&from.meter, from.step)?;
            (step, best) = (from.step, from.best);
        }
        let first_step = step + 1;
        self.pause(Place::Start, sampler.position(), step, best, &mut meter, &clock, train.len(), hooks)?;
        let mut last = None;
        for epoch in sampler.position().epoch..self.options.epochs {
            let (epoch_start, epoch_samples) = (clock.training, clock.samples);
            while let Some(drawn) = sampler.next_batch() {
                clock.start();
                let batch = self.minibatch(train, &drawn.indices, epoch, step)?;
                clock.prepared();
                let loss = self.step(&batch, epoch, step)?;
                hooks.stepped(step, self.arena, self.optimizer)?;
                meter.push(&loss, drawn.indices.len())?;
                step += 1;
                clock.samples += drawn.indices.len() as u64;
                let recorded = step % self.options.record_every == 0;
                let shown = step == first_step || clock.since_report() > PROGRESS_SECONDS;
                if recorded || shown {
                    meter.read()?;
                }
                clock.stop();
                if recorded || shown {
                    let now = clock.report(Progress {
                        epoch: epoch + 1,
                        epochs: self.options.epochs,
                        step,
                        steps,
                        loss: meter.mean().unwrap_or(f64::NAN),
                        lr: self.last_rate(step),
                        seconds: 0.0,
                        rate: 0.0,
                        left: 0.0,
                        data_wait: 0.0,
                        memory: gpu.memory().peak,
                    });
                    if recorded {
                        hooks.record(&now)?;
                    }
                    if shown {
                        hooks.progress(&now)?;
                    }
                }
                // A checkpoint waits for the steps before it: its time is theirs.
                clock.start();
                self.pause(Place::Step, sampler.position(), step, best, &mut meter, &clock, train.len(), hooks)?;
                clock.stop();
            }
            clock.start();
            let train_loss = meter.end_epoch()?.unwrap_or(f64::NAN);
            clock.stop();
            let rate = (clock.samples - epoch_samples) as f64 / (clock.training - epoch_start).max(1e-9);
            let test = match test {
                Some(data) => Some(evaluate(self.model, &Cx::eval(self.arena), data, self.options.eval_batch.max(1))?),
                None => None,
            };
            let accuracy = test.as_ref().map(|t| t.accuracy);
            let better = accuracy.filter(|&a| best.is_none_or(|(_, b)| a > b));
            if let Some(accuracy) = better {
                best = Some((epoch + 1, accuracy));
            }
            let end = EpochEnd {
                epoch: epoch + 1,
                epochs: self.options.epochs,
                step,
                train_loss,
                lr: self.last_rate(step),
                test,
                seconds: clock.seconds(),
                rate,
            };
            let flow = hooks.epoch(&end, self.arena)?;
            last = Some(end);
            let place = Place::EpochEnd { best: better.is_some() };
            self.pause(place, sampler.position(), step, best, &mut meter, &clock, train.len(), hooks)?;
            if flow == Flow::Stop {
                break;
            }
        }
        let last = last.ok_or_else(|| Error::value("fit", "no epoch was run"))?;
        Ok(Summary { last, best, steps: step, seconds: clock.seconds() })
    }

    /// Compiles the kernels of a step on several threads before the first one needs them: rehearses a step, which changes
    /// neither parameters nor anything else of the run, and compiles what it asked for (see
    /// [`Gpu::rehearse`](shadegrad_kernels::Gpu::rehearse)). `progress` hears how many of how many are compiled; returns how
    /// many there were. A loss of one's own is called once more for it; what model or loss read back meanwhile is undefined.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad::data::digits;
    /// # use shadegrad::nn::{Arena, Builder, Flatten, Linear, Sequential};
    /// # use shadegrad::optim::{Optimizer, Rule};
    /// # use shadegrad::train::{FitOptions, Images, Trainer};
    /// # let data = digits();
    /// # let images = Images::upload(&gpu, &data.train, &data.train.channel_stats()?)?;
    /// # let mut names = Builder::new();
    /// # let model = Sequential::new().then(Flatten).then(Linear::new(&mut names.root(), 64, 10, true));
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?;
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_step| 0.01, FitOptions::default());
    /// let kernels = trainer.warm_up(&images, |made, all| println!("{made} of {all} kernels compiled"))?;
    /// assert!(kernels > 5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A kernel that the device refuses; those of a step.
    pub fn warm_up(&mut self, train: &Images, progress: impl FnMut(usize, usize)) -> Result<usize> {
        let gpu = self.arena.gpu().clone();
        self.choose_precision(true)?;
        let indices: Vec<u32> = (0..self.options.batch.min(train.len()) as u32).collect();
        let step = self.from.as_ref().map_or(0, |f| f.step);
        let (done, kernels) = gpu.rehearse(|| {
            let batch = self.minibatch(train, &indices, 0, step)?;
            self.step_unwatched(&batch, 0, step).map(drop)
        });
        done?;
        Ok(gpu.compile(&kernels, progress)?)
    }

    /// Settles what the options' precision is on this device; `say` where it is less than asked for.
    pub(super) fn choose_precision(&mut self, say: bool) -> Result<()> {
        let (precision, note) = self.options.precision.on(self.arena.gpu());
        if let Some(note) = note.filter(|_| say) {
            log::warn!("{note}");
        }
        if precision == Precision::Mixed && !self.optimizer.scales_loss() {
            return Err(Error::value(
                "fit",
                "mixed precision needs an optimiser that scales the loss; make it with `loss_scaling`",
            ));
        }
        self.options.precision = precision;
        Ok(())
    }

    /// The rate of the last of `step` steps.
    fn last_rate(&self, step: u64) -> f32 {
        step.checked_sub(1).map_or(0.0, &self.rate)
    }

    /// Forward pass, backward pass and optimiser; the loss.
    pub(super) fn step(&mut self, batch: &Minibatch, epoch: u64, step: u64) -> Result<Tensor> {
        if !self.anomaly {
            return self.step_unwatched(batch, epoch, step);
        }
        let at = |e| match e {
            Error::NonFinite(text) => Error::NonFinite(format!("step {}: {text}", step + 1)),
            other => other,
        };
        if let Some(text) = self.arena.nonfinite()? {
            return Err(at(Error::NonFinite(format!("{text} before it"))));
        }
        let loss = detect_anomaly(|| self.step_unwatched(batch, epoch, step)).map_err(at)?;
        match self.arena.nonfinite()? {
            Some(text) => Err(at(Error::NonFinite(format!("the optimiser made of {text}; use a lower learning rate")))),
            None => Ok(loss),
        }
    }

    fn step_unwatched(&mut self, batch: &Minibatch, epoch: u64, step: u64) -> Result<Tensor> {
        let options = &self.options;
        let mut cx = Cx::train(self.arena).seeded(options.seed, step);
        if options.precision == Precision::Mixed {
            cx = cx.with_params(&self.arena.params_with_halves()?);
        }
        let now = Step { model: self.model, cx: &cx, batch, epoch, step, options };
        let loss = options.precision.scope(|| (self.loss)(&now))?;
        self.arena.backward(&self.optimizer.scale_loss(&loss)?)?;
        self.optimizer.step(self.arena, (self.rate)(step))?;
        Ok(loss)
    }

    fn pause(
        &self,
        place: Place,
        position: Position,
        step: u64,
        best: Option<(u64, f64)>,
        meter: &mut LossMeter,
        clock: &Clock,
        samples: usize,
        hooks: &mut dyn Hooks,
    ) -> Result<()> {
        let FitOptions { seed, batch, .. } = self.options;
        let seconds = clock.seconds();
        let rest = |meter: MeterState| TrainState { position, step, best, meter, seconds, seed, batch, samples };
        hooks.pause(&mut Pause { place, step, arena: self.arena, optimizer: self.optimizer, meter, rest: &rest })
    }

    pub(super) fn minibatch(&self, train: &Images, indices: &[u32], epoch: u64, step: u64) -> Result<Minibatch> {
        let seed = self.options.seed;
        let augment = self.options.augment.as_ref().unwrap_or(train.normalise());
        let mut batch = train.batch(indices, augment, Stream::new(seed, AUGMENT + epoch))?;
        let stream = Stream::new(seed, MIX + step);
        let mix = match self.options.mixing {
            Mixing::Off => return Ok(batch),
            Mixing::Mixup(alpha) => Mix::mixup(indices.len(), alpha, stream)?,
            Mixing::Cutmix(alpha) => {
                Mix::cutmix(indices.len(), [batch.images.dim(1), batch.images.dim(2)], alpha, stream)?
            }
        };
        batch.images = mix.apply(&batch.images)?;
        batch.soft = Some(mix.targets(&batch.labels, train.classes())?);
        Ok(batch)
    }
}

/// Where the time went.
struct Clock {
    began: Instant,
    /// Seconds that the run took before.
    before: f64,
    /// Start of the step that runs.
    mark: Instant,
    /// Seconds in steps and in preparing their batches.
    training: f64,
    preparing: f64,
    samples: u64,
    /// Time of the last report, training seconds and samples then.
    reported: (Instant, f64, u64),
}

impl Clock {
    fn new(before: f64) -> Self {
        let now = Instant::now();
        Self { began: now, before, mark: now, training: 0.0, preparing: 0.0, samples: 0, reported: (now, 0.0, 0) }
    }

    fn start(&mut self) {
        self.mark = Instant::now();
    }

    fn prepared(&mut self) {
        self.preparing += self.mark.elapsed().as_secs_f64();
    }

    fn stop(&mut self) {
        self.training += self.mark.elapsed().as_secs_f64();
    }

    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    fn since_report(&self) -> f64 {
        self.reported.0.elapsed().as_secs_f64()
    }

    /// Fills in what a report says about time.
    fn report(&mut self, mut now: Progress) -> Progress {
        let (_, training, samples) = self.reported;
        now.seconds = self.seconds();
        now.rate = (self.samples - samples) as f64 / (self.training - training).max(1e-9);
        now.left = now.seconds / now.step as f64 * (now.steps - now.step) as f64;
        now.data_wait = self.preparing / self.training.max(1e-9);
        self.reported = (Instant::now(), self.training, self.samples);
        now
    }
}
