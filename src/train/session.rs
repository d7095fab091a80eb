//! [`Trainer::fit`]'s steps and [`evaluate`](crate::train::evaluate)'s batches, driven call by call.

use crate::autograd::no_grad;
use crate::data::Sampler;
use crate::error::{Error, Result};
use crate::metrics::RunningMean;
use crate::nn::{Cx, Module};
use crate::train::evaluate::{forward, measure};
use crate::train::pace::{Budget, Flight, News, Pace};
use crate::train::{Evaluation, FitOptions, Images, Trainer};

/// Where a run stands that [`Trainer::advance`] drives. It holds none of what is trained, so an application keeps it beside
/// the model, the arena and the optimiser, and makes a [`Trainer`] of those for each call.
pub struct Session {
    pace: Pace,
    sampler: Sampler,
    epochs: u64,
    batch: usize,
    samples: usize,
    /// Mean loss of the epoch whose losses arrive now.
    mean: RunningMean,
    /// Steps up to the last whose loss has arrived.
    arrived: u64,
}

/// What a call of [`Trainer::advance`] did and learnt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advance {
    /// Its steps.
    pub news: News,
    /// Epochs whose last loss has arrived: the epoch, from 1, and the mean loss over its samples.
    pub epochs: Vec<(u64, f64)>,
    /// Whether all epochs are over, with every loss here.
    pub done: bool,
}

impl Session {
    /// A run over `train` from its first step.
    ///
    /// # Errors
    /// [`Error::Value`] for a batch size or a number of epochs of 0.
    pub fn new(train: &Images, options: &FitOptions) -> Result<Self> {
        if options.epochs == 0 {
            return Err(Error::value("Session", "0 epochs; give at least 1"));
        }
        Ok(Self {
            pace: Pace::new(train.pixels().gpu()),
            sampler: Sampler::new(train.len(), options.batch)?.seed(options.seed).shuffle(options.shuffle),
            epochs: options.epochs,
            batch: options.batch,
            samples: train.len(),
            mean: RunningMean::new(),
            arrived: 0,
        })
    }

    /// The step that comes next, from 0.
    pub fn step(&self) -> u64 {
        self.pace.step()
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.sampler.batches_per_epoch() * self.epochs
    }

    /// Notes the losses that arrived.
    fn arrive(&mut self, news: News) -> Result<Advance> {
        let per_epoch = self.sampler.batches_per_epoch();
        let mut epochs = Vec::new();
        for &(step, loss) in &news.losses {
            let last = step % per_epoch == per_epoch - 1;
            let samples = if last { self.samples - (per_epoch as usize - 1) * self.batch } else { self.batch };
            self.mean.push(f64::from(loss), samples as f64)?;
            if last {
                epochs.extend(self.mean.mean().map(|mean| (step / per_epoch + 1, mean)));
                self.mean.reset();
            }
            self.arrived = step + 1;
        }
        Ok(Advance { news, epochs, done: self.arrived >= self.steps() })
    }
}

impl Trainer<'_> {
    /// Takes steps of [`Trainer::fit`] within the budget, without waiting for the device: an application calls this from its
    /// own frame loop. Same model, data, options and first values give the same numbers as `fit`, to the last bit,
    /// however the calls fall. There is no evaluation and no watcher: see [`Evaluator`], and look between the calls.
    ///
    /// ```no_run
    /// # use shadegrad::{Result, nn::{Arena, Module}, optim::Optimizer, train::{FitOptions, Images}};
    /// use shadegrad::train::{Budget, Session, Trainer};
    /// # struct App { session: Session, net: Box<dyn Module>, arena: Arena, optimizer: Optimizer, train: Images, options: FitOptions }
    /// # impl App {
    /// fn frame(&mut self) -> Result<()> {
    ///     let now = Trainer::new(&self.net, &mut self.arena, &mut self.optimizer, |_| 0.01, self.options.clone())
    ///         .advance(&mut self.session, &self.train, Budget::default())?;
    ///     for (epoch, loss) in now.epochs {
    ///         println!("epoch {epoch}: {loss:.4}");
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pace::drive`] and [`Trainer::fit`].
    pub fn advance(&mut self, session: &mut Session, train: &Images, budget: Budget) -> Result<Advance> {
        self.choose_precision(session.step() == 0)?;
        let Session { pace, sampler, epochs, .. } = session;
        let news = pace.drive_while(budget, |step| {
            if sampler.position().step == sampler.batches_per_epoch() {
                // Says that the epoch is over, and nothing else.
                sampler.next_batch();
            }
            if sampler.position().epoch >= *epochs {
                return Ok(None);
            }
            let Some(drawn) = sampler.next_batch() else { return Ok(None) };
            let batch = self.minibatch(train, &drawn.indices, drawn.epoch, step)?;
            self.step(&batch, drawn.epoch, step).map(Some)
        })?;
        session.arrive(news)
    }

    /// Waits for the steps of a session that are under way: before parameters are saved, or at the end.
    ///
    /// # Errors
    /// As [`Pace::finish`].
    pub fn settle(&mut self, session: &mut Session) -> Result<Advance> {
        let losses = session.pace.finish()?;
        session.arrive(News { begun: 0, losses, under_way: 0 })
    }
}

/// [`evaluate`](crate::train::evaluate) in portions, for programs that may not wait: each call runs some batches and returns;
/// the last brings the result.
///
/// Its calls may alternate with steps of training. The model is then measured while it changes; to measure it as it was
/// at one moment, evaluate an [`Arena::fork`](crate::nn::Arena::fork).
pub struct Evaluator {
    flight: Flight<usize>,
    batch: usize,
    next: usize,
    logits: Vec<f32>,
}

impl Evaluator {
    /// One evaluation of `data`, `batch` samples at a time.
    ///
    /// # Errors
    /// [`Error::Value`] for a batch size of 0.
    pub fn new(data: &Images, batch: usize) -> Result<Self> {
        if batch == 0 {
            return Err(Error::value("evaluate", "a batch size of 0; give at least 1"));
        }
        let logits = Vec::with_capacity(data.len() * data.classes());
        Ok(Self { flight: Flight::new(data.pixels().gpu()), batch, next: 0, logits })
    }

    /// Runs batches within the budget (a batch counts as a step), without waiting for the device; the result once the last
    /// has arrived. `model`, `cx` and `data` must be the same in every call.
    ///
    /// # Errors
    /// As [`evaluate`](crate::train::evaluate).
    pub fn advance(
        &mut self,
        model: &dyn Module,
        cx: &Cx,
        data: &Images,
        budget: Budget,
    ) -> Result<Option<Evaluation>> {
        let Self { flight, batch, next, logits } = self;
        flight.advance(
            budget,
            |_, bytes| {
                logits.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
                Ok(())
            },
            || {
                let start = *next;
                if start >= data.len() {
                    return Ok(None);
                }
                let end = (start + *batch).min(data.len());
                let out = no_grad(|| forward(model, cx, data, start..end))?;
                *next = end;
                Ok(Some((start, out)))
            },
        )?;
        if self.next < data.len() || self.flight.len() > 0 {
            return Ok(None);
        }
        measure(data, std::mem::take(&mut self.logits)).map(Some)
    }
}
