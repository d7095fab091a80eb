//! Work on the device in portions, for programs that may not wait for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shadegrad_kernels::{Gpu, PendingRead};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use crate::train::meter::finite;

/// What one call of [`Pace::drive`] may do.
///
/// ```
/// # use shadegrad::{train::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut pace = Pace::new(&gpu);
/// let careful = Budget { steps: 1, ..Budget::default() };
/// let news = pace.drive(careful, |_| Tensor::scalar(&gpu, 0.5))?;
/// assert_eq!(news.begun, 1);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Steps that a call begins at most. With 0 it begins none and only collects what has arrived.
    pub steps: usize,
    /// Once a call has recorded for this long it begins no further step. (One step is always recorded whole.)
    pub host: Duration,
    /// Calls that come farther apart than this say that frames suffer: fewer steps are begun, down to one a call.
    pub frame: Duration,
}

impl Default for Budget {
    /// Sixteen steps, four milliseconds of recording, 34 milliseconds (30 frames a second).
    fn default() -> Self {
        Self { steps: 16, host: Duration::from_millis(4), frame: Duration::from_millis(34) }
    }
}

/// What one call of [`Pace::drive`] did and learnt.
///
/// ```
/// # use shadegrad::{train::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut pace = Pace::new(&gpu);
/// let first = pace.drive(Budget::default(), |_| Tensor::scalar(&gpu, 0.5))?;
/// assert_eq!(first, News { begun: 1, losses: vec![], under_way: 1 }); // its loss comes with a later call
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// Steps that this call recorded and submitted.
    pub begun: usize,
    /// The losses that have arrived since the last call: the step, counted from 0, and its loss.
    pub losses: Vec<(u64, f32)>,
    /// Steps that the device has not done yet.
    pub under_way: usize,
}

/// Work under way on the device: what each piece was, and the read-back that shows that it is done.
///
/// A call begins pieces only once the device has done all that older calls began, and submits them together. How many
/// follows the device: where all is done by the next call, and that comes soon enough, the device may have stood idle, and
/// the number rises by a quarter; where it is not, or the next call is late, it is halved. So the device has work until
/// about the next frame and no longer. (Both signs are needed: a frame may itself wait for the device, and with it the call.)
pub(crate) struct Flight<T> {
    gpu: Gpu,
    under_way: VecDeque<(T, PendingRead)>,
    window: usize,
    /// Whether what the last pieces showed is still to be taken into account.
    learn: bool,
    called: Option<Instant>,
}

impl<T> Flight<T> {
    pub(crate) fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), under_way: VecDeque::new(), window: 1, learn: false, called: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Collects what has arrived, then begins pieces within the budget; how many. `begin` says what it began and which
    /// tensor is to be read back, or that nothing is left to begin.
    pub(crate) fn advance(
        &mut self,
        budget: Budget,
        arrived: impl FnMut(T, Vec<u8>) -> Result<()>,
        begin: impl FnMut() -> Result<Option<(T, Tensor)>>,
    ) -> Result<usize> {
        let now = Instant::now();
        let apart = self.called.replace(now).map_or(Duration::ZERO, |before| now - before);
        self.collect(arrived)?;
        let idle = self.under_way.is_empty();
        if std::mem::take(&mut self.learn) {
            let more = idle && apart <= budget.frame;
            self.window = if more { self.window + (self.window / 4).max(1) } else { (self.window / 2).max(1) };
        }
        if !idle || budget.steps == 0 {
            return Ok(0);
        }
        self.window = self.window.min(budget.steps);
        let result = self.begin(now, budget.host, begin);
        // What was begun before an error goes to the device all the same.
        self.gpu.flush()?;
        result.map(|()| self.under_way.len())
    }

    fn begin(
        &mut self,
        started: Instant,
        host: Duration,
        mut begin: impl FnMut() -> Result<Option<(T, Tensor)>>,
    ) -> Result<()> {
        let _together = self.gpu.gather();
        for n in 0..self.window {
            if n > 0 && started.elapsed() >= host {
                self.window = n;
                break;
            }
            let Some((what, result)) = begin()? else { return Ok(()) };
            self.under_way.push_back((what, result.read_async()?));
        }
        self.learn = true;
        Ok(())
    }

    /// Hands over what has arrived, in order, without waiting.
    fn collect(&mut self, mut arrived: impl FnMut(T, Vec<u8>) -> Result<()>) -> Result<()> {
        while let Some((_, read)) = self.under_way.front_mut() {
            let bytes = match read.try_take() {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(err) => {
                    // What cannot arrive any more must not be asked for again.
                    self.under_way.clear();
                    return Err(err.into());
                }
            };
            if let Some((what, _)) = self.under_way.pop_front() {
                arrived(what, bytes)?;
            }
        }
        Ok(())
    }

    /// Waits for everything that is under way.
    pub(crate) fn finish(&mut self, mut arrived: impl FnMut(T, Vec<u8>) -> Result<()>) -> Result<()> {
        while let Some((what, read)) = self.under_way.pop_front() {
            // After an error the rest cannot arrive either, or nobody wants it.
            let done = read.wait().map_err(Error::from).and_then(|bytes| arrived(what, bytes));
            done.inspect_err(|_| self.under_way.clear())?;
        }
        Ok(())
    }
}

/// Training steps from an application's own frame loop: each call records a bounded number of steps, hands them to the
/// device in one submission and returns without waiting for it; their losses arrive with later calls. A call that finds
/// the device still busy with older steps begins none.
///
/// A step is any function that records one and returns its loss. The numbers are those of a plain loop over the same
/// steps: when a call comes decides when a step is taken, never what it computes. The application's own commands come
/// behind the steps under way, about a frame's worth and at least one step: choose a batch whose step takes less than a
/// frame.
///
/// Kernels are compiled by the first step that uses them, which can take a second. An application that minds takes its
/// first step on a thread and moves everything to its loop from there: all of it is [`Send`].
///
/// ```
/// # use shadegrad::{nn::*, optim::*, *};
/// use shadegrad::train::{Budget, Pace};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let net = Linear::new(&mut names.root(), 2, 2, true);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
/// # let (x, y) = (Tensor::ones(&gpu, &[4, 2])?, Tensor::labels(&gpu, &[0, 0, 0, 1], 2)?);
/// # struct App { pace: Pace, net: Linear, arena: Arena, optimizer: Optimizer, x: Tensor, y: Tensor, curve: Vec<f32> }
/// # impl App {
/// fn frame(&mut self) -> Result<()> {
///     let Self { pace, net, arena, optimizer, x, y, curve } = self;
///     let news = pace.drive(Budget::default(), |step| {
///         let loss = net.forward(&Cx::train(arena).seeded(0, step), x)?.cross_entropy(y, CrossEntropy::default())?;
///         arena.backward(&loss)?;
///         optimizer.step(arena, 0.01)?;
///         Ok(loss)
///     })?;
///     curve.extend(news.losses.iter().map(|&(_, loss)| loss));
///     Ok(())
/// }
/// # }
/// # let mut app = App { pace: Pace::new(&gpu), net, arena, optimizer, x, y, curve: Vec::new() };
/// # while app.curve.len() < 2 {
/// #     app.frame()?;
/// # }
/// # assert!(app.curve[1] < app.curve[0]);
/// # Ok::<(), Error>(())
/// ```
pub struct Pace {
    flight: Flight<u64>,
    step: u64,
    /// Losses that arrived and that nobody was told of yet.
    losses: Vec<(u64, f32)>,
}

impl Pace {
    /// Steps on this device, from step 0.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (mut pace, mut losses) = (Pace::new(&gpu), Vec::new());
    /// while losses.len() < 3 {
    ///     losses.extend(pace.drive(Budget::default(), |step| Tensor::scalar(&gpu, step as f32))?.losses);
    /// }
    /// assert_eq!(losses[..3], [(0, 0.0), (1, 1.0), (2, 2.0)]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(gpu: &Gpu) -> Self {
        Self { flight: Flight::new(gpu), step: 0, losses: Vec::new() }
    }

    /// Counts from another step, where a run goes on.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut pace = Pace::new(&gpu).starting_at(100); // of a run that goes on
    /// pace.drive(Budget::default(), |step| Tensor::scalar(&gpu, step as f32))?;
    /// assert_eq!(pace.finish()?, [(100, 100.0)]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn starting_at(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// The number of the step that comes next.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut pace = Pace::new(&gpu);
    /// assert_eq!(pace.step(), 0);
    /// pace.drive(Budget::default(), |_| Tensor::scalar(&gpu, 0.5))?;
    /// assert_eq!(pace.step(), 1); // that one may be under way still
    /// # Ok::<(), Error>(())
    /// ```
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Steps that the device had not done when last asked.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut pace = Pace::new(&gpu);
    /// pace.drive(Budget::default(), |_| Tensor::scalar(&gpu, 0.5))?;
    /// assert_eq!(pace.under_way(), 1);
    /// pace.finish()?;
    /// assert_eq!(pace.under_way(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn under_way(&self) -> usize {
        self.flight.len()
    }

    /// Collects the losses that have arrived and begins steps within the budget. `step` gets the step's number, records
    /// it and returns its loss, one float.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut pace = Pace::new(&gpu);
    /// let w = Tensor::ones(&gpu, &[2])?;
    /// let news = pace.drive(Budget::default(), |_step| w.square()?.sum_all())?; // records, and does not wait
    /// assert_eq!((news.begun, news.losses.len()), (1, 0));
    /// assert_eq!(pace.finish()?, [(0, 2.0)]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step when a loss that arrived is NaN or infinite; if a loss is not one float;
    /// whatever `step` and the device report. Losses that arrived before the error come with the next call.
    pub fn drive(&mut self, budget: Budget, mut step: impl FnMut(u64) -> Result<Tensor>) -> Result<News> {
        self.drive_while(budget, |n| step(n).map(Some))
    }

    /// [`Pace::drive`] for steps that end: `None` where there is none to begin.
    pub(crate) fn drive_while(
        &mut self,
        budget: Budget,
        mut step: impl FnMut(u64) -> Result<Option<Tensor>>,
    ) -> Result<News> {
        let Self { flight, step: next, losses } = self;
        let begun = flight.advance(
            budget,
            |n, bytes| note(losses, n, &bytes),
            || {
                let Some(loss) = step(*next)? else { return Ok(None) };
                if loss.numel() != 1 || loss.dtype() != DType::F32 {
                    let detail = format!("{loss:?} is not one float; reduce it with `mean` first");
                    return Err(Error::shape("Pace", detail));
                }
                *next += 1;
                Ok(Some((*next - 1, loss)))
            },
        )?;
        Ok(News { begun, losses: std::mem::take(losses), under_way: flight.len() })
    }

    /// Waits for the steps under way and returns the losses that nobody was told of: before parameters are saved, or at
    /// the end.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut pace = Pace::new(&gpu);
    /// pace.drive(Budget::default(), |_| Tensor::scalar(&gpu, 0.5))?;
    /// assert_eq!(pace.finish()?, [(0, 0.5)]); // waits
    /// assert_eq!(pace.finish()?, []);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pace::drive`].
    pub fn finish(&mut self) -> Result<Vec<(u64, f32)>> {
        let losses = &mut self.losses;
        self.flight.finish(|n, bytes| note(losses, n, &bytes))?;
        Ok(std::mem::take(losses))
    }
}

/// Notes the loss of step `n`, which its read-back brought.
fn note(losses: &mut Vec<(u64, f32)>, n: u64, bytes: &[u8]) -> Result<()> {
    let loss = bytes.first_chunk().map_or(f32::NAN, |raw| f32::from_le_bytes(*raw));
    finite(n + 1, f64::from(loss))?;
    losses.push((n, loss));
    Ok(())
}
