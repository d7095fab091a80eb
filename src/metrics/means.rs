//! Means over batches and over runs.

use std::fmt;

use crate::error::{Error, Result};

/// A mean over batches of different sizes, `sum_i w_i v_i / sum_i w_i`, in double precision.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let mut mean = RunningMean::new();
/// mean.push(1.0, 3.0)?; // a value and its weight
/// mean.push(5.0, 1.0)?;
/// assert_eq!(mean.mean(), Some(2.0));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RunningMean {
    sum: f64,
    weight: f64,
}

impl RunningMean {
    /// Nothing yet.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut loss = RunningMean::new();
    /// assert_eq!(loss.mean(), None);
    /// loss.push(0.5, 64.0)?; // the mean of a batch, and its size
    /// assert_eq!(loss.mean(), Some(0.5));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value that stands for `weight` samples (the mean loss of a batch, with the batch's size).
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut loss = RunningMean::new();
    /// loss.push(1.0, 64.0)?;
    /// loss.push(2.0, 32.0)?; // the short last batch
    /// loss.push(4.0, 32.0)?;
    /// assert_eq!(loss.mean(), Some(2.0));
    /// assert!(loss.push(f64::NAN, 64.0).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] when the value is NaN or infinite, [`Error::Value`] when the weight is negative or not
    /// finite. Nothing is added then.
    pub fn push(&mut self, value: f64, weight: f64) -> Result<()> {
        if !value.is_finite() {
            return Err(Error::NonFinite(format!(
                "RunningMean: a value of {value}; look at the step that produced it"
            )));
        }
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(Error::value(
                "RunningMean",
                format!("a weight of {weight}; give the number of samples, 0 or more"),
            ));
        }
        self.sum += value * weight;
        self.weight += weight;
        Ok(())
    }

    /// The mean so far; `None` before anything of a positive weight was added.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut mean = RunningMean::new();
    /// mean.push(3.0, 0.0)?;
    /// assert_eq!(mean.mean(), None); // of no weight yet
    /// mean.push(3.0, 2.0)?;
    /// assert_eq!(mean.mean(), Some(3.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// The weights' sum: how many samples were seen.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut loss = RunningMean::new();
    /// loss.push(1.0, 64.0)?;
    /// loss.push(2.0, 32.0)?;
    /// assert_eq!(loss.weight(), 96.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// The sum of the values times their weights: with [`RunningMean::weight`], all there is to save.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut loss = RunningMean::new();
    /// loss.push(1.0, 64.0)?;
    /// loss.push(2.0, 32.0)?;
    /// assert_eq!((loss.sum(), loss.weight()), (128.0, 96.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// A mean that goes on from a saved sum and weight.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut loss = RunningMean::new();
    /// loss.push(1.0, 64.0)?;
    /// let (sum, weight) = (loss.sum(), loss.weight()); // to a file and back
    /// let mut loss = RunningMean::resumed(sum, weight)?;
    /// loss.push(2.0, 64.0)?;
    /// assert_eq!(loss.mean(), Some(1.5));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] when one is NaN or infinite, [`Error::Value`] when the weight is negative.
    pub fn resumed(sum: f64, weight: f64) -> Result<Self> {
        if !(sum.is_finite() && weight.is_finite()) {
            return Err(Error::NonFinite(format!("RunningMean: a saved sum of {sum} over a weight of {weight}")));
        }
        if weight < 0.0 {
            return Err(Error::value("RunningMean", format!("a saved weight of {weight}; give 0 or more")));
        }
        Ok(Self { sum, weight })
    }

    /// Begins again.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut loss = RunningMean::new();
    /// loss.push(1.0, 64.0)?;
    /// loss.reset(); // at the end of an epoch
    /// assert_eq!((loss.mean(), loss.weight()), (None, 0.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The mean of repeated runs and their spread. Prints as `0.9123 ± 0.0045 (n = 3)`; `{:.2}` sets the decimals.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let runs = MeanStd::of(&[1.0, 2.0, 3.0])?;
/// assert_eq!((runs.mean, runs.std, runs.n), (2.0, Some(1.0), 3));
/// assert_eq!(format!("{runs:.1}"), "2.0 ± 1.0 (n = 3)");
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanStd {
    /// `1/n sum_i x_i`.
    pub mean: f64,
    /// Sample standard deviation, `sqrt(sum_i (x_i - mean)^2 / (n - 1))`; `None` for one run, which has no spread.
    pub std: Option<f64>,
    /// Number of runs.
    pub n: usize,
}

impl MeanStd {
    /// Of the results of runs, one a seed.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// assert_eq!(MeanStd::of(&[0.5, 1.5])?.mean, 1.0);
    /// assert_eq!(MeanStd::of(&[0.5])?.to_string(), "0.5000 (n = 1)"); // one run has no spread
    /// assert!(MeanStd::of(&[]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when there are none, [`Error::NonFinite`] when one is NaN or infinite.
    pub fn of(runs: &[f64]) -> Result<Self> {
        if runs.is_empty() {
            return Err(Error::value("MeanStd::of", "no runs; give at least one result"));
        }
        if let Some(i) = runs.iter().position(|v| !v.is_finite()) {
            return Err(Error::NonFinite(format!(
                "MeanStd: run {i} gave {}; leave failed runs out and say so",
                runs[i]
            )));
        }
        let n = runs.len();
        let mean = runs.iter().sum::<f64>() / n as f64;
        let squares: f64 = runs.iter().map(|v| (v - mean).powi(2)).sum();
        Ok(Self { mean, std: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()), n })
    }
}

impl fmt::Display for MeanStd {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let digits = f.precision().unwrap_or(4);
        write!(f, "{:.digits$}", self.mean)?;
        if let Some(std) = self.std {
            write!(f, " ± {std:.digits$}")?;
        }
        write!(f, " (n = {})", self.n)
    }
}
