//! Losses of many steps, kept on the device and read together: reading each one would stall the device at every step.

use std::collections::VecDeque;

use shadegrad_kernels::{Gpu, Storage};

use crate::error::{Error, Result};
use crate::metrics::RunningMean;
use crate::tensor::{DType, Tensor};

/// What a [`LossMeter`] holds between two steps, all of it read from the device.
///
/// ```
/// # use shadegrad::{train::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut meter = LossMeter::new(&gpu, 2)?;
/// meter.push(&Tensor::scalar(&gpu, 0.5)?, 64)?;
/// assert_eq!(meter.state()?, MeterState { recent: vec![(0.5, 64)], sum: 32.0, weight: 64.0 });
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeterState {
    /// The last losses with their numbers of samples, the newest last.
    pub recent: Vec<(f64, usize)>,
    /// The epoch's losses times their samples, summed.
    pub sum: f64,
    /// The epoch's samples.
    pub weight: f64,
}

/// Collects the loss of every step on the device and reads them back in batches of at most `window`.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::train::LossMeter;
/// let mut meter = LossMeter::new(&gpu, 20)?;
/// for loss in [3.0, 1.0] {
///     meter.push(&Tensor::scalar(&gpu, loss)?, 64)?; // stays on the device
/// }
/// meter.read()?;
/// assert_eq!(meter.mean(), Some(2.0));
/// # Ok::<(), Error>(())
/// ```
pub struct LossMeter {
    gpu: Gpu,
    ring: Storage,
    window: usize,
    /// Samples of each step whose loss is on the device only.
    pending: Vec<usize>,
    /// Step of the first pending loss, from 1.
    first: u64,
    /// The last `window` losses on the host with their numbers of samples.
    recent: VecDeque<(f64, usize)>,
    epoch: RunningMean,
}

impl LossMeter {
    /// A meter that reads back after `window` steps at the latest, and whose [`LossMeter::mean`] is over as many.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut meter = LossMeter::new(&gpu, 2)?;
    /// for loss in [9.0, 1.0, 2.0] {
    ///     meter.push(&Tensor::scalar(&gpu, loss)?, 64)?;
    /// }
    /// meter.read()?;
    /// assert_eq!(meter.mean(), Some(1.5)); // of the last two
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `window` is 0, or the device refuses.
    pub fn new(gpu: &Gpu, window: usize) -> Result<Self> {
        if window == 0 {
            return Err(Error::value("LossMeter", "a window of 0 steps; give at least 1"));
        }
        Ok(Self {
            gpu: gpu.clone(),
            ring: gpu.alloc(window as u64 * 4, "losses")?,
            window,
            pending: Vec::with_capacity(window),
            first: 1,
            recent: VecDeque::with_capacity(window),
            epoch: RunningMean::new(),
        })
    }

    /// Notes the scalar loss of the next step, the mean over `samples`; does not wait for the device unless the window
    /// is full.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut meter = LossMeter::new(&gpu, 10)?;
    /// meter.push(&Tensor::scalar(&gpu, 1.0)?, 64)?;
    /// meter.push(&Tensor::scalar(&gpu, 4.0)?, 32)?; // the short last batch
    /// assert_eq!(meter.end_epoch()?, Some(2.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the loss is not one float; as [`LossMeter::read`].
    pub fn push(&mut self, loss: &Tensor, samples: usize) -> Result<()> {
        if loss.numel() != 1 || loss.dtype() != DType::F32 {
            return Err(Error::shape("LossMeter", format!("{loss:?} is not one float; reduce it with `mean` first")));
        }
        self.gpu.copy(loss.storage(), 0, &self.ring, self.pending.len() as u64 * 4, 4)?;
        self.pending.push(samples);
        if self.pending.len() == self.window {
            self.read()?;
        }
        Ok(())
    }

    /// Reads what is pending; waits for the device.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut meter = LossMeter::new(&gpu, 10)?;
    /// meter.push(&Tensor::scalar(&gpu, f32::NAN)?, 64)?; // nothing is known of it yet
    /// assert!(matches!(meter.read(), Err(Error::NonFinite(_))));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the step when a loss is NaN or infinite; or the device reported a fault.
    pub fn read(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let losses = self.gpu.read_as::<f32>(&self.ring)?;
        for (i, (loss, &samples)) in losses.into_iter().zip(&self.pending).enumerate() {
            let loss = f64::from(loss);
            finite(self.first + i as u64, loss)?;
            if self.recent.len() == self.window {
                self.recent.pop_front();
            }
            self.recent.push_back((loss, samples));
            self.epoch.push(loss, samples as f64)?;
        }
        self.first += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// What there is to save, with what is pending.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut meter = LossMeter::new(&gpu, 10)?;
    /// meter.push(&Tensor::scalar(&gpu, 0.5)?, 64)?;
    /// let state = meter.state()?; // with what was pending
    /// assert_eq!((state.recent, state.weight), (vec![(0.5, 64)], 64.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`LossMeter::read`].
    pub fn state(&mut self) -> Result<MeterState> {
        self.read()?;
        Ok(MeterState {
            recent: self.recent.iter().copied().collect(),
            sum: self.epoch.sum(),
            weight: self.epoch.weight(),
        })
    }

    /// Goes on from a saved state after `step` steps.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut meter = LossMeter::new(&gpu, 10)?;
    /// meter.push(&Tensor::scalar(&gpu, 1.0)?, 64)?;
    /// let state = meter.state()?;
    /// let mut resumed = LossMeter::new(&gpu, 10)?;
    /// resumed.restore(&state, 1)?; // after one step
    /// resumed.push(&Tensor::scalar(&gpu, 2.0)?, 64)?;
    /// assert_eq!(resumed.end_epoch()?, Some(1.5));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] if the state is of a longer window, [`Error::NonFinite`] if it holds a NaN or an infinity.
    pub fn restore(&mut self, state: &MeterState, step: u64) -> Result<()> {
        if state.recent.len() > self.window {
            let detail =
                format!("{} losses for a window of {}; resume with the saved one", state.recent.len(), self.window);
            return Err(Error::value("LossMeter", detail));
        }
        self.epoch = RunningMean::resumed(state.sum, state.weight)?;
        self.recent = state.recent.iter().copied().collect();
        self.pending.clear();
        self.first = step + 1;
        Ok(())
    }

    /// Mean loss per sample over the last steps read, at most the window; `None` before the first.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut meter = LossMeter::new(&gpu, 10)?;
    /// meter.push(&Tensor::scalar(&gpu, 3.0)?, 64)?;
    /// assert_eq!(meter.mean(), None); // not read yet
    /// meter.read()?;
    /// assert_eq!(meter.mean(), Some(3.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mean(&self) -> Option<f64> {
        let samples: usize = self.recent.iter().map(|r| r.1).sum();
        let sum: f64 = self.recent.iter().map(|&(loss, n)| loss * n as f64).sum();
        (samples > 0).then(|| sum / samples as f64)
    }

    /// The last loss read; `None` before the first.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut meter = LossMeter::new(&gpu, 2)?;
    /// for loss in [3.0, 1.0] {
    ///     meter.push(&Tensor::scalar(&gpu, loss)?, 64)?;
    /// }
    /// assert_eq!(meter.last(), Some(1.0)); // read, since the window was full
    /// # Ok::<(), Error>(())
    /// ```
    pub fn last(&self) -> Option<f64> {
        self.recent.back().map(|r| r.0)
    }

    /// Mean loss per sample since the last call, with what is pending; `None` if there were no steps.
    ///
    /// ```
    /// # use shadegrad::{train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut meter = LossMeter::new(&gpu, 10)?;
    /// for (epoch, loss) in [3.0, 1.0].into_iter().enumerate() {
    ///     meter.push(&Tensor::scalar(&gpu, loss)?, 64)?;
    ///     println!("epoch {epoch}: {:?}", meter.end_epoch()?); // Some(3.0), Some(1.0)
    /// }
    /// assert_eq!(meter.end_epoch()?, None); // no steps since
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`LossMeter::read`].
    pub fn end_epoch(&mut self) -> Result<Option<f64>> {
        self.read()?;
        let mean = self.epoch.mean();
        self.epoch.reset();
        Ok(mean)
    }
}

/// Refuses a loss that is not finite; `step` counts from 1.
pub(super) fn finite(step: u64, loss: f64) -> Result<()> {
    if loss.is_finite() {
        return Ok(());
    }
    Err(Error::NonFinite(format!(
        "the loss of step {step} is {loss}; use a lower learning rate, warm it up, or clip the gradient's norm"
    )))
}
