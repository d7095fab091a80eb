//! How far a classifier's confidence is what its accuracy deserves, and what a single temperature repairs afterwards.

use shadegrad::metrics::{self, ReliabilityBin, Scores};
use shadegrad::{Error, Result};

/// Measures of calibration of a set of scores. All in double precision on the host.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::bd_kd::Calibration;
/// // Four samples with 75 per cent for the first class, of which two are of it.
/// let p = [0.75, 0.25].repeat(4);
/// let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
/// assert_eq!((calibration.accuracy(), calibration.ece()), (0.5, 0.25));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Calibration {
    classes: usize,
    labels: Vec<u32>,
    /// Rows of probabilities.
    probabilities: Vec<f64>,
    /// Confidence and whether it was right, of each sample.
    confident: Vec<(f64, bool)>,
    accuracy: f64,
    nll: f64,
    brier: f64,
    bins: Vec<ReliabilityBin>,
}

impl Calibration {
    /// Of logits `[n][classes]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::bd_kd::Calibration;
    /// let calibration = Calibration::from_logits(&[2.0, 0.0, 0.0, 2.0], 2, &[0, 1], 15)?;
    /// assert_eq!(calibration.accuracy(), 1.0);
    /// let confidence = 1.0 / (1.0 + (-2f64).exp());
    /// assert!((calibration.ece() - (1.0 - confidence)).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the lengths do not fit, a label is out of range, a logit is not finite, or there are no bins or samples.
    pub fn from_logits(logits: &[f32], classes: usize, labels: &[u32], bins: usize) -> Result<Self> {
        let probabilities = if classes == 0 { Vec::new() } else { logits.chunks(classes).flat_map(softmax).collect() };
        Self::of(Scores::logits(logits, classes), probabilities, classes, labels, bins)
    }

    /// Of probabilities `[n][classes]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::bd_kd::Calibration;
    /// let sure = Calibration::from_probabilities(&[1.0, 0.0, 1.0, 0.0], 2, &[0, 1], 10)?;
    /// assert_eq!(sure.ece(), 0.5);
    /// assert!(Calibration::from_probabilities(&[0.5, 0.2], 2, &[0], 10).is_err()); // no distribution
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Calibration::from_logits`], and if a row does not sum to 1.
    pub fn from_probabilities(p: &[f32], classes: usize, labels: &[u32], bins: usize) -> Result<Self> {
        let probabilities = p.iter().map(|&p| f64::from(p)).collect();
        Self::of(Scores::probabilities(p, classes), probabilities, classes, labels, bins)
    }

    fn of(scores: Scores, probabilities: Vec<f64>, classes: usize, labels: &[u32], bins: usize) -> Result<Self> {
        let accuracy = metrics::accuracy(scores, labels)?;
        let predicted = metrics::predictions(scores)?;
        let confident = probabilities
            .chunks(classes)
            .zip(predicted.iter().zip(labels))
            .map(|(row, (&guess, &label))| (row[guess as usize], guess == label))
            .collect();
        Ok(Self {
            classes,
            labels: labels.to_vec(),
            confident,
            probabilities,
            accuracy,
            nll: metrics::nll(scores, labels)?,
            brier: metrics::brier(scores, labels)?,
            bins: metrics::reliability_bins(scores, labels, bins)?,
        })
    }

    /// Share of samples that are right.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// assert_eq!(calibration.accuracy(), 0.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn accuracy(&self) -> f64 {
        self.accuracy
    }

    /// Mean negative log-likelihood in nats.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// let nats = -(0.75f64.ln() + 0.25f64.ln()) / 2.0;
    /// assert!((calibration.nll() - nats).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn nll(&self) -> f64 {
        self.nll
    }

    /// Brier score, the sum over all classes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// let (right, wrong) = (0.25 * 0.25 + 0.25 * 0.25, 0.75 * 0.75 + 0.75 * 0.75);
    /// assert_eq!(calibration.brier(), (right + wrong) / 2.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn brier(&self) -> f64 {
        self.brier
    }

    /// The rows of a reliability diagram.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// assert_eq!(calibration.bins().iter().map(|b| b.count).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn bins(&self) -> &[ReliabilityBin] {
        &self.bins
    }

    /// Expected calibration error over the bins.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// assert_eq!(calibration.ece(), 0.75 - 0.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn ece(&self) -> f64 {
        let bins = self.confident.iter().map(|&(c, right)| (equal_width(c, self.bins.len()), c, right));
        gaps(bins, self.bins.len()).iter().map(|g| g.share(self.confident.len())).sum()
    }

    /// The largest gap of a bin that holds samples.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// assert_eq!(calibration.mce(), 0.75 - 0.5); // there is but one bin with samples
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mce(&self) -> f64 {
        let bins = self.confident.iter().map(|&(c, right)| (equal_width(c, self.bins.len()), c, right));
        gaps(bins, self.bins.len()).iter().filter(|g| g.count > 0.0).map(Gap::size).fold(0.0, f64::max)
    }

    /// Expected calibration error over `bins` bins of equal numbers of samples by rising confidence; the first ones hold
    /// one more where the numbers do not divide.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// // In the first half all are right, in the second none: gaps of 0.25 and 0.75.
    /// assert_eq!(calibration.adaptive_ece(2)?, 0.5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no bins.
    pub fn adaptive_ece(&self, bins: usize) -> Result<f64> {
        if bins == 0 {
            return Err(Error::value("Calibration", "no bins; give at least 1"));
        }
        let mut sorted = self.confident.clone();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (each, more) = (sorted.len() / bins, sorted.len() % bins);
        let bin = |i: usize| if i < more * (each + 1) { i / (each + 1) } else { more + (i - more * (each + 1)) / each };
        let rows = sorted.iter().enumerate().map(|(i, &(c, right))| (bin(i), c, right));
        Ok(gaps(rows, bins).iter().map(|g| g.share(sorted.len())).sum())
    }

    /// Calibration error of each class's probability over all samples in `bins` equal intervals, averaged over the classes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// assert_eq!(calibration.classwise_ece(10)?, 0.25);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no bins.
    pub fn classwise_ece(&self, bins: usize) -> Result<f64> {
        if bins == 0 {
            return Err(Error::value("Calibration", "no bins; give at least 1"));
        }
        let of_class = |class: usize| -> f64 {
            let rows = self.probabilities.chunks(self.classes).zip(&self.labels);
            let rows = rows.map(|(row, &label)| (equal_width(row[class], bins), row[class], label as usize == class));
            gaps(rows, bins).iter().map(|g| g.share(self.labels.len())).sum()
        };
        Ok((0..self.classes).map(of_class).sum::<f64>() / self.classes as f64)
    }

    /// Mean confidence less accuracy: positive where the classifier promises too much.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::bd_kd::Calibration;
    /// // Four samples with 75 per cent for the first class, of which two are of it.
    /// # let p = [0.75, 0.25].repeat(4);
    /// # let calibration = Calibration::from_probabilities(&p, 2, &[0, 0, 1, 1], 10)?;
    /// assert_eq!(calibration.overconfidence(), 0.25);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn overconfidence(&self) -> f64 {
        self.confident.iter().map(|c| c.0).sum::<f64>() / self.confident.len() as f64 - self.accuracy
    }
}

/// The interval `((k - 1) / bins, k / bins]` that holds `p`, from 0; 0 lies in the first.
fn equal_width(p: f64, bins: usize) -> usize {
    (0..bins).find(|&k| p <= (k + 1) as f64 / bins as f64).unwrap_or(bins - 1)
}

/// Sums of a bin.
#[derive(Clone, Copy, Default)]
struct Gap {
    count: f64,
    confidence: f64,
    right: f64,
}

impl Gap {
    /// Distance of mean confidence and accuracy.
    fn size(&self) -> f64 {
        (self.confidence - self.right).abs() / self.count.max(1.0)
    }

    /// The part of an error over `n` samples.
    fn share(&self, n: usize) -> f64 {
        (self.confidence - self.right).abs() / n as f64
    }
}

fn gaps(rows: impl Iterator<Item = (usize, f64, bool)>, bins: usize) -> Vec<Gap> {
    let mut gaps = vec![Gap::default(); bins];
    for (bin, p, right) in rows {
        gaps[bin].count += 1.0;
        gaps[bin].confidence += p;
        gaps[bin].right += f64::from(right);
    }
    gaps
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = row.iter().map(|&z| f64::from(z - most).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|v| v / sum).collect()
}

/// A temperature that all logits are divided by (Guo et al., 2017).
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::bd_kd::{Calibration, TemperatureScaler};
/// // Logits that say 90 per cent, where 75 are right.
/// let logits = [9f32.ln(), 0.0].repeat(4);
/// let scaler = TemperatureScaler::fit(&logits, 2, &[0, 0, 0, 1])?;
/// let calibrated = Calibration::from_logits(&scaler.apply(&logits), 2, &[0, 0, 0, 1], 10)?;
/// assert!(calibrated.ece() < 1e-4);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TemperatureScaler {
    temperature: f64,
}

impl TemperatureScaler {
    /// The temperature between `e^-3` and `e^3` of least negative log-likelihood on held-out logits `[n][classes]`, by golden
    /// section on its logarithm to 1e-6.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::bd_kd::TemperatureScaler;
    /// // 9 to 1 where 3 to 1 is right: the logarithm must be halved.
    /// let scaler = TemperatureScaler::fit(&[9f32.ln(), 0.0].repeat(4), 2, &[0, 0, 0, 1])?;
    /// assert!((scaler.temperature() - 2.0).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Calibration::from_logits`].
    pub fn fit(logits: &[f32], classes: usize, labels: &[u32]) -> Result<Self> {
        // Checks once what the search below relies on.
        metrics::nll(Scores::logits(logits, classes), labels)?;
        let nll = |log_t: f64| -> f64 {
            let scale = (-log_t).exp();
            let row = |(row, &label): (&[f32], &u32)| {
                let z = |i: usize| f64::from(row[i]) * scale;
                let most = (0..row.len()).map(z).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = (0..row.len()).map(|i| (z(i) - most).exp()).sum();
                most + sum.ln() - z(label as usize)
            };
            logits.chunks(classes).zip(labels).map(row).sum()
        };
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        let (mut low, mut high) = (-3.0f64, 3.0f64);
        let inner = |low: f64, high: f64| (high - golden * (high - low), low + golden * (high - low));
        let (mut a, mut b) = inner(low, high);
        let (mut fa, mut fb) = (nll(a), nll(b));
        while high - low > 1e-6 {
            if fa <= fb {
                (high, b, fb) = (b, a, fa);
                a = inner(low, high).0;
                fa = nll(a);
            } else {
                (low, a, fa) = (a, b, fb);
                b = inner(low, high).1;
                fb = nll(b);
            }
        }
        Ok(Self { temperature: (0.5 * (low + high)).exp() })
    }

    /// The temperature: above 1 where the classifier was too confident.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::bd_kd::TemperatureScaler;
    /// // 2 to 1 where 3 to 1 is right: not confident enough.
    /// let scaler = TemperatureScaler::fit(&[2f32.ln(), 0.0].repeat(4), 2, &[0, 0, 0, 1])?;
    /// assert!((scaler.temperature() - 2f64.ln() / 3f64.ln()).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The logits divided by the temperature.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::bd_kd::TemperatureScaler;
    /// let scaler = TemperatureScaler::fit(&[9f32.ln(), 0.0].repeat(4), 2, &[0, 0, 0, 1])?;
    /// let logits = scaler.apply(&[4.0, 0.0]);
    /// assert!((logits[0] - 2.0).abs() < 1e-3 && logits[1] == 0.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn apply(&self, logits: &[f32]) -> Vec<f32> {
        logits.iter().map(|&z| (f64::from(z) / self.temperature) as f32).collect()
    }
}
