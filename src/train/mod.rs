//! Supervised training: a data set on the device, a loop that a program can watch and stop, and evaluation.
//!
//! [`Trainer::fit`] is a plain loop over public parts of the engine. A method with another loss gives its own with
//! [`Trainer::loss`]; one with another loop builds it from [`Images`], [`LossMeter`] and [`evaluate`]. A program that may
//! not wait for the device drives the same steps from its own loop, with [`Trainer::advance`] or, whatever a step is, with
//! [`Pace`].
//!
//! ```
//! # use shadegrad::{CrossEntropy, Error, Gpu, Options, data::*, optim::{Optimizer, Rule}};
//! use shadegrad::nn::{Arena, Builder, Cx, Flatten, Linear, Module, Sequential};
//! use shadegrad::train::{Images, LossMeter, evaluate};
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let set = synthetic::blobs(8, 2, 2, 2, 1, 0)?;
//! # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
//! # let mut names = Builder::new();
//! # let model = Sequential::new().then(Flatten).then(Linear::new(&mut names.root(), 4, 2, true));
//! # let arena = Arena::new(&gpu, &names, 0)?;
//! # let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
//! let (mut sampler, mut meter) = (Sampler::new(images.len(), 4)?, LossMeter::new(&gpu, 20)?);
//! while let Some(drawn) = sampler.next_batch() {
//!     let batch = images.plain(&drawn.indices)?;
//!     let y = model.forward(&Cx::train(&arena).seeded(0, drawn.step), &batch.images)?;
//!     let loss = y.cross_entropy(&batch.labels, CrossEntropy::default())?;
//!     arena.backward(&loss)?;
//!     optimizer.step(&arena, 0.1)?;
//!     meter.push(&loss, drawn.indices.len())?; // read once, at the end
//! }
//! let before = meter.end_epoch()?;
//! let after = evaluate(&model, &Cx::eval(&arena), &images, 8)?;
//! assert!(before.is_some_and(|loss| after.loss < loss));
//! # Ok::<(), Error>(())
//! ```

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
