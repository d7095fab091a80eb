//! Supervised training: a data set on the device, a loop that a program can watch and stop, and evaluation.
//!
//! [`Trainer::fit`] is a plain loop over public parts of the engine. A method with another loss gives its own with
//! [`Trainer::loss`]; one with another loop builds it from [`Images`], [`LossMeter`] and [`evaluate`].

mod evaluate;
mod fit;
mod images;
mod meter;
mod state;

pub use evaluate::{Evaluation, evaluate};
pub use fit::{EpochEnd, FitOptions, Flow, Hooks, Mixing, NoHooks, Progress, Step, Summary, Trainer};
pub use images::{Images, Minibatch};
pub use meter::{LossMeter, MeterState};
pub use state::{Pause, Place, TrainState};
