//! Supervised training: a data set on the device, a loop that a program can watch and stop, and evaluation.
//!
//! [`Trainer::fit`] is a plain loop over public parts of the engine. A method with another loss gives its own with
//! [`Trainer::loss`]; one with another loop builds it from [`Images`], [`LossMeter`] and [`evaluate`]. A program that may
//! not wait for the device drives the same steps from its own loop, with [`Trainer::advance`] or, whatever a step is, with
//! [`Pace`].

mod evaluate;
mod fit;
mod hooks;
mod images;
mod meter;
mod options;
mod pace;
mod session;
mod state;

pub use evaluate::{Evaluation, evaluate};
pub use fit::{Step, Summary, Trainer};
pub use hooks::{EpochEnd, Flow, Hooks, NoHooks, Progress};
pub use images::{Images, Minibatch};
pub use meter::{LossMeter, MeterState};
pub use options::{FitOptions, Mixing};
pub use pace::{Budget, News, Pace};
pub use session::{Advance, Evaluator, Session};
pub use state::{Pause, Place, TrainState};
