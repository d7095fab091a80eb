//! Where a run stands between two steps.

use crate::data::Position;
use crate::error::{Error, Result};
use crate::nn::Arena;
use crate::optim::Optimizer;
use crate::train::{FitOptions, LossMeter, MeterState};

/// Where a run stands between two steps. With the arena's values and statistics and the optimiser's state this is all that
/// [`crate::train::Trainer::resume`] needs to go on as if the run had never stopped: order, augmentation, mixing and dropout are functions
/// of the seed and of these numbers, and the learning rate is one of the step.
///
/// ```
/// # use shadegrad::{data::*, nn::*, optim::*, train::*, *};
/// let state = TrainState {
///     position: Position { epoch: 2, step: 0 },
///     step: 20,
///     best: Some((1, 0.9)),
///     meter: MeterState::default(),
///     seconds: 3.5,
///     seed: 0,
///     batch: 64,
///     samples: 640,
/// };
/// assert_eq!(state.step, state.position.epoch * 10); // ten batches an epoch
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// The batch that comes next. Behind an epoch's last batch it is not evaluated yet.
    pub position: Position,
    /// Steps taken.
    pub step: u64,
    /// The epoch of the highest test accuracy so far, from 1, and that accuracy.
    pub best: Option<(u64, f64)>,
    /// Losses that later records average over.
    pub meter: MeterState,
    /// Seconds that the run has taken.
    pub seconds: f64,
    /// The seed of the run.
    pub seed: u64,
    /// Samples of a step.
    pub batch: usize,
    /// Samples of the training set.
    pub samples: usize,
}

impl TrainState {
    /// Refuses to go on with other data or another seed or batch size: the run would be neither the old nor a new one.
    ///
    /// ```
    /// # use shadegrad::{data::*, nn::*, optim::*, train::*, *};
    /// # let state = TrainState {
    /// #     position: Position { epoch: 2, step: 0 },
    /// #     step: 20,
    /// #     best: Some((1, 0.9)),
    /// #     meter: MeterState::default(),
    /// #     seconds: 3.5,
    /// #     seed: 0,
    /// #     batch: 64,
    /// #     samples: 640,
    /// # };
    /// let options = FitOptions { epochs: 10, batch: 64, ..FitOptions::default() };
    /// state.check(&options, 640)?; // it stopped behind epoch 2
    /// assert!(state.check(&FitOptions { seed: 1, ..options.clone() }, 640).is_err());
    /// assert!(state.check(&FitOptions { epochs: 2, ..options }, 640).is_err()); // nothing is left to do
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] with what differs, or if the run has ended.
    pub fn check(&self, options: &FitOptions, samples: usize) -> Result<()> {
        let &FitOptions { seed, batch, epochs, .. } = options;
        for (what, saved, now) in [
            ("seed", self.seed, seed),
            ("batch size", self.batch as u64, batch as u64),
            ("number of training samples", self.samples as u64, samples as u64),
        ] {
            if saved != now {
                return Err(Error::value(
                    "resume",
                    format!("the saved run has the {what} {saved}, this one {now}; resume with the same"),
                ));
            }
        }
        if self.position.epoch >= epochs {
            return Err(Error::value(
                "resume",
                format!(
                    "the saved run has ended after {} of {epochs} epochs; nothing is left to do",
                    self.position.epoch
                ),
            ));
        }
        Ok(())
    }
}

/// Where in the loop a [`Pause`] is.
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
/// struct Places(Vec<Place>);
/// impl Hooks for Places {
///     fn pause(&mut self, now: &mut Pause) -> Result<()> {
///         self.0.push(now.place);
///         Ok(())
///     }
/// }
/// # let mut places = Places(Vec::new());
/// # let options = FitOptions { epochs: 1, batch: 4, ..FitOptions::default() };
/// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).fit(&images, None, &mut places)?;
/// // After an epoch of two steps without a test set:
/// assert_eq!(places.0, [Place::Start, Place::Step, Place::Step, Place::EpochEnd { best: false }]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the first step that this process takes.
    Start,
    /// After a step.
    Step,
    /// After the evaluation that ends an epoch; `best` says whether its test accuracy is the highest so far.
    EpochEnd {
        /// Whether it is.
        best: bool,
    },
}

/// A moment between two steps: the time to save. Nothing is read from the device unless it is asked for.
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
/// struct Saver(Option<Snapshot>);
/// impl Hooks for Saver {
///     fn pause(&mut self, now: &mut Pause) -> Result<()> {
///         if now.step == 2 {
///             self.0 = Some(now.arena.snapshot()?);
///         }
///         Ok(())
///     }
/// }
/// # let mut saver = Saver(None);
/// # let options = FitOptions { epochs: 3, ..FitOptions::default() };
/// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).fit(&images, None, &mut saver)?;
/// # assert!(saver.0.is_some());
/// # Ok::<(), Error>(())
/// ```
pub struct Pause<'a> {
    /// Where in the loop.
    pub place: Place,
    /// Steps taken.
    pub step: u64,
    /// The parameters.
    pub arena: &'a Arena,
    /// The optimiser.
    pub optimizer: &'a Optimizer,
    pub(crate) meter: &'a mut LossMeter,
    /// All of the state but the meter's.
    pub(crate) rest: &'a dyn Fn(MeterState) -> TrainState,
}

impl Pause<'_> {
    /// Where the run stands; waits for the device.
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
    /// struct Last(Option<TrainState>);
    /// impl Hooks for Last {
    ///     fn pause(&mut self, now: &mut Pause) -> Result<()> {
    ///         self.0 = Some(now.state()?);
    ///         Ok(())
    ///     }
    /// }
    /// # let mut last = Last(None);
    /// # let options = FitOptions { epochs: 2, ..FitOptions::default() };
    /// # Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options).fit(&images, None, &mut last)?;
    /// assert_eq!(last.0.map(|state| (state.step, state.samples)), Some((2, 8))); // after two epochs of one batch
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the step when a loss since the last reading is NaN or infinite.
    pub fn state(&mut self) -> Result<TrainState> {
        Ok((self.rest)(self.meter.state()?))
    }
}
