//! Where a run stands between two steps.

use crate::data::Position;
use crate::error::{Error, Result};
use crate::nn::Arena;
use crate::optim::Optimizer;
use crate::train::{FitOptions, LossMeter, MeterState};

/// Where a run stands between two steps. With the arena's values and statistics and the optimiser's state this is all that
/// [`crate::train::Trainer::resume`] needs to go on as if the run had never stopped: order, augmentation, mixing and dropout are functions
/// of the seed and of these numbers, and the learning rate is one of the step.
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
    /// # Errors
    /// [`Error::NonFinite`] with the step when a loss since the last reading is NaN or infinite.
    pub fn state(&mut self) -> Result<TrainState> {
        Ok((self.rest)(self.meter.state()?))
    }
}
