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
/// let mut session = Session::new(&images, &options)?;
/// let mut frame = || {
///     let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options.clone());
///     trainer.advance(&mut session, &images, Budget::default())
/// };
/// while !frame()?.done {} // an application draws between the calls
/// assert_eq!((session.step(), session.steps()), (4, 4));
/// # Ok::<(), Error>(())
/// ```
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
/// # let options = FitOptions { epochs: 2, ..FitOptions::default() };
/// # let mut session = Session::new(&images, &options)?;
/// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, options);
/// let mut ended = Vec::new();
/// while ended.len() < 2 {
///     let now: Advance = trainer.advance(&mut session, &images, Budget::default())?;
///     ended.extend(now.epochs); // epoch and mean loss
/// }
/// assert!(ended[0].0 == 1 && ended[1].1 < ended[0].1);
/// # Ok::<(), Error>(())
/// ```
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
    /// ```
    /// # use shadegrad::{data::*, nn::*, optim::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let set = synthetic::blobs(8, 2, 2, 2, 1, 0)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// let options = FitOptions { epochs: 3, batch: 4, ..FitOptions::default() };
    /// let session = Session::new(&images, &options)?;
    /// assert_eq!((session.step(), session.steps()), (0, 6));
    /// # Ok::<(), Error>(())
    /// ```
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
    /// let mut session = Session::new(&images, &FitOptions::default())?;
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, FitOptions::default());
    /// trainer.advance(&mut session, &images, Budget { steps: 1, ..Budget::default() })?;
    /// assert_eq!(session.step(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn step(&self) -> u64 {
        self.pace.step()
    }

    /// Steps of the whole run.
    ///
    /// ```
    /// # use shadegrad::{data::*, nn::*, optim::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let set = synthetic::blobs(8, 2, 2, 2, 1, 0)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// let options = FitOptions { epochs: 5, batch: 3, ..FitOptions::default() }; // batches of 3, 3 and 2 pictures
    /// assert_eq!(Session::new(&images, &options)?.steps(), 15);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn steps(&self) -> u64 {
        self.sampler.batches_per_epoch().saturating_mul(self.epochs)
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
    /// ```
    /// # use shadegrad::{data::*, nn::*, optim::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let set = synthetic::blobs(8, 2, 2, 2, 1, 0)?;
    /// # let train = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// # let mut names = Builder::new();
    /// # let net = Sequential::new().then(Flatten).then(Linear::new(&mut names.root(), 4, 2, true));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
    /// # let options = FitOptions { epochs: 2, ..FitOptions::default() };
    /// # let session = Session::new(&train, &options)?;
    /// # struct App {
    /// #     session: Session,
    /// #     net: Sequential,
    /// #     arena: Arena,
    /// #     optimizer: Optimizer,
    /// #     train: Images,
    /// #     options: FitOptions,
    /// # }
    /// # impl App {
    /// fn frame(&mut self) -> Result<bool> {
    ///     let now = Trainer::new(&self.net, &mut self.arena, &mut self.optimizer, |_| 0.01, self.options.clone())
    ///         .advance(&mut self.session, &self.train, Budget::default())?;
    ///     for (epoch, loss) in now.epochs {
    ///         println!("epoch {epoch}: {loss:.4}");
    ///     }
    ///     Ok(now.done)
    /// }
    /// # }
    /// # let mut app = App { session, net, arena, optimizer, train, options };
    /// # while !app.frame()? {}
    /// # assert_eq!(app.session.step(), 2);
    /// # Ok::<(), Error>(())
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
    /// let mut session = Session::new(&images, &FitOptions::default())?;
    /// let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.1, FitOptions::default());
    /// let begun = trainer.advance(&mut session, &images, Budget::default())?.news.begun;
    /// assert_eq!(trainer.settle(&mut session)?.news.losses.len(), begun); // now the parameters may be saved
    /// # Ok::<(), Error>(())
    /// ```
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
/// let mut evaluator = Evaluator::new(&images, 4)?;
/// let found = loop {
///     match evaluator.advance(&model, &Cx::eval(&arena), &images, Budget::default())? {
///         Some(found) => break found,
///         None => {} // the application draws its next frame
///     }
/// };
/// assert_eq!(found, evaluate(&model, &Cx::eval(&arena), &images, 4)?);
/// # Ok::<(), Error>(())
/// ```
pub struct Evaluator {
    flight: Flight<usize>,
    batch: usize,
    next: usize,
    logits: Vec<f32>,
}

impl Evaluator {
    /// One evaluation of `data`, `batch` samples at a time.
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
    /// let mut evaluator = Evaluator::new(&images, 4)?; // two batches of four
    /// let first = evaluator.advance(&model, &Cx::eval(&arena), &images, Budget::default())?;
    /// assert!(first.is_none()); // nothing has arrived
    /// assert!(Evaluator::new(&images, 0).is_err());
    /// # Ok::<(), Error>(())
    /// ```
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
    /// let mut evaluator = Evaluator::new(&images, 8)?;
    /// let mut result = None;
    /// while result.is_none() {
    ///     result = evaluator.advance(&model, &Cx::eval(&arena), &images, Budget::default())?;
    /// }
    /// assert_eq!(result.map(|found| found.count), Some(8));
    /// # Ok::<(), Error>(())
    /// ```
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
