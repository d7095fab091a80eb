//! What a run tells its watcher.

use crate::error::Result;
use crate::nn::Arena;
use crate::optim::Optimizer;
use crate::train::{Evaluation, Pause};

/// How a run stands after a step.
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
/// struct Curve(Vec<(u64, f64)>);
/// impl Hooks for Curve {
///     fn record(&mut self, now: &Progress) -> Result<()> {
///         self.0.push((now.step, now.loss));
///         Ok(())
///     }
/// }
/// # let mut curve = Curve(Vec::new());
/// # let options = FitOptions { epochs: 2, batch: 4, record_every: 2, ..FitOptions::default() };
/// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).fit(&images, None, &mut curve)?;
/// # assert_eq!(curve.0.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 4]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Progress {
    /// The epoch, from 1.
    pub epoch: u64,
    /// All epochs.
    pub epochs: u64,
    /// Steps taken.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Mean loss over the last steps, at most [`crate::train::FitOptions::record_every`].
    pub loss: f64,
    /// Rate of the last step.
    pub lr: f32,
    /// Seconds since the start, evaluation included.
    pub seconds: f64,
    /// Samples per second since the last report.
    pub rate: f64,
    /// Seconds left at the mean speed so far.
    pub left: f64,
    /// Share of the training time in which the host prepared batches.
    pub data_wait: f64,
    /// The most bytes that were in use on the device at once.
    pub memory: u64,
}

/// What an epoch brought.
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
/// let options = FitOptions { epochs: 1, ..FitOptions::default() };
/// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options);
/// let end: EpochEnd = trainer.fit(&images, Some(&images), &mut NoHooks)?.last;
/// assert_eq!((end.epoch, end.step, end.lr), (1, 1, 0.1)); // eight pictures are one batch
/// assert!(end.test.is_some_and(|test| test.loss < end.train_loss)); // one step later
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EpochEnd {
    /// The epoch, from 1.
    pub epoch: u64,
    /// All epochs.
    pub epochs: u64,
    /// Steps taken.
    pub step: u64,
    /// Mean loss over the epoch's samples, as they were trained on.
    pub train_loss: f64,
    /// Rate of the last step.
    pub lr: f32,
    /// Measured on the test set, where one was given.
    pub test: Option<Evaluation>,
    /// Seconds since the start.
    pub seconds: f64,
    /// Samples trained on per second over the epoch, without evaluation.
    pub rate: f64,
}

/// Whether a run goes on.
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
/// struct Short;
/// impl Hooks for Short {
///     fn epoch(&mut self, end: &EpochEnd, _: &mut Arena) -> Result<Flow> {
///         Ok(if end.epoch == 2 { Flow::Stop } else { Flow::Continue })
///     }
/// }
/// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, FitOptions::default()); // ten epochs
/// assert_eq!(trainer.fit(&images, None, &mut Short)?.last.epoch, 2);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It ends after this epoch, as a whole run would.
    Stop,
}

/// What a run tells its watcher. An error ends the run.
///
/// ```
/// # use shadegrad::*;
/// use shadegrad::nn::Arena;
/// use shadegrad::train::{EpochEnd, Flow, Hooks, Progress};
///
/// struct Patience(f64, u64);
///
/// impl Hooks for Patience {
///     fn progress(&mut self, now: &Progress) -> Result<()> {
///         println!("step {} of {}: loss {:.3}", now.step, now.steps, now.loss);
///         Ok(())
///     }
///
///     /// Ends the run after five epochs that were no better.
///     fn epoch(&mut self, end: &EpochEnd, _arena: &mut Arena) -> Result<Flow> {
///         let accuracy = end.test.as_ref().map_or(0.0, |t| t.accuracy);
///         if accuracy > self.0 {
///             *self = Patience(accuracy, end.epoch);
///         }
///         Ok(if end.epoch >= self.1 + 5 { Flow::Stop } else { Flow::Continue })
///     }
/// }
/// # Ok::<(), Error>(())
/// ```
pub trait Hooks {
    /// After the first step, and then about twice a second.
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
    /// struct Bar(u64);
    /// impl Hooks for Bar {
    ///     fn progress(&mut self, now: &Progress) -> Result<()> {
    ///         eprint!("\rstep {}/{}, {:.0} s left", now.step, now.steps, now.left);
    ///         self.0 = now.step;
    ///         Ok(())
    ///     }
    /// }
    /// # let mut bar = Bar(0);
    /// # let options = FitOptions { epochs: 1, ..FitOptions::default() };
    /// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).fit(&images, None, &mut bar)?;
    /// # assert_eq!(bar.0, 1);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The watcher's own.
    fn progress(&mut self, now: &Progress) -> Result<()> {
        let _ = now;
        Ok(())
    }

    /// After every [`crate::train::FitOptions::record_every`] steps: the same steps in every run.
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
    /// struct Losses(Vec<f64>);
    /// impl Hooks for Losses {
    ///     fn record(&mut self, now: &Progress) -> Result<()> {
    ///         self.0.push(now.loss);
    ///         Ok(())
    ///     }
    /// }
    /// # let mut losses = Losses(Vec::new());
    /// # let options = FitOptions { epochs: 4, record_every: 2, ..FitOptions::default() };
    /// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).fit(&images, None, &mut losses)?;
    /// # assert!(losses.0.len() == 2 && losses.0[1] < losses.0[0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The watcher's own.
    fn record(&mut self, now: &Progress) -> Result<()> {
        let _ = now;
        Ok(())
    }

    /// After the update of every step, counted from 0: masks that change, averages of the weights. Gradients are still
    /// those of the step.
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
    /// struct Average(Ema);
    /// impl Hooks for Average {
    ///     fn stepped(&mut self, _step: u64, arena: &mut Arena, _: &mut Optimizer) -> Result<()> {
    ///         self.0.update(arena, 0.9) // after every step
    ///     }
    /// }
    /// # let mut average = Average(Ema::new(&arena)?);
    /// # let options = FitOptions { epochs: 1, ..FitOptions::default() };
    /// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).fit(&images, None, &mut average)?;
    /// # assert!(average.0.params().tensors()[0].to_vec()?.iter().any(|v| *v != 0.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The watcher's own.
    fn stepped(&mut self, step: u64, arena: &mut Arena, optimizer: &mut Optimizer) -> Result<()> {
        let _ = (step, arena, optimizer);
        Ok(())
    }

    /// Before the first step, after every step and after every epoch: the time to save, or to end the run between two
    /// steps with [`crate::Error::Interrupted`].
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
    /// struct Once;
    /// impl Hooks for Once {
    ///     fn pause(&mut self, now: &mut Pause) -> Result<()> {
    ///         let over = now.place == Place::Step && now.step == 2;
    ///         if over { Err(Error::Interrupted("enough for now".into())) } else { Ok(()) }
    ///     }
    /// }
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, FitOptions::default());
    /// assert!(matches!(trainer.fit(&images, None, &mut Once), Err(Error::Interrupted(_))));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The watcher's own.
    fn pause(&mut self, now: &mut Pause) -> Result<()> {
        let _ = now;
        Ok(())
    }

    /// After every epoch, with the arena as it is then.
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
    /// struct Best(f64, Option<Snapshot>);
    /// impl Hooks for Best {
    ///     fn epoch(&mut self, end: &EpochEnd, arena: &mut Arena) -> Result<Flow> {
    ///         if let Some(test) = end.test.as_ref().filter(|test| test.accuracy > self.0) {
    ///             *self = Best(test.accuracy, Some(arena.snapshot()?));
    ///         }
    ///         Ok(Flow::Continue)
    ///     }
    /// }
    /// # let mut best = Best(0.0, None);
    /// # let options = FitOptions { epochs: 2, ..FitOptions::default() };
    /// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).fit(&images, Some(&images), &mut best)?;
    /// # assert!(best.1.is_some());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The watcher's own.
    fn epoch(&mut self, end: &EpochEnd, arena: &mut Arena) -> Result<Flow> {
        let _ = (end, arena);
        Ok(Flow::Continue)
    }
}

/// A watcher that does nothing.
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
/// let options = FitOptions { epochs: 2, ..FitOptions::default() };
/// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options);
/// assert_eq!(trainer.fit(&images, None, &mut NoHooks)?.last.epoch, 2); // nobody watches
/// # Ok::<(), Error>(())
/// ```
pub struct NoHooks;

impl Hooks for NoHooks {}
