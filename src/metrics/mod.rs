//! Measures of a classifier, computed on the host in double precision from what it put out: accuracy, top-k, confusion
//! matrix, calibration error, negative log-likelihood, Brier score; and the means of runs.
//!
//! ```
//! use shadegrad::metrics::{ConfusionMatrix, Scores, accuracy, nll};
//! let logits = [2.0, 0.0, 0.0, 3.0, 1.0, 0.0, 4.0, 1.0]; // four samples of two classes
//! let (scores, labels) = (Scores::logits(&logits, 2), [0, 1, 1, 0]);
//! assert_eq!(accuracy(scores, &labels)?, 0.75);
//! let mut matrix = ConfusionMatrix::of(2);
//! matrix.add(scores, &labels)?;
//! println!("{matrix}, mean loss {:.3}", nll(scores, &labels)?);
//! # Ok::<(), shadegrad::Error>(())
//! ```

mod accuracy;
mod calibration;
mod confusion;
mod likelihood;
mod means;
#[cfg(test)]
mod tests;

pub use accuracy::{accuracy, predictions, top_k};
pub use calibration::{ReliabilityBin, ece, reliability_bins};
pub use confusion::ConfusionMatrix;
pub use likelihood::{brier, nll, nll_per_sample};
pub use means::{MeanStd, RunningMean};

use crate::error::{Error, Result};

/// A classifier's outputs for `n` samples: `n * classes` numbers, one row a sample.
///
/// ```
/// # use shadegrad::metrics::{Scores, accuracy};
/// let logits = [2.0, -1.0, 0.5, 0.0, 3.0, 1.0];
/// assert_eq!(accuracy(Scores::logits(&logits, 3), &[0, 2])?, 0.5);
/// # Ok::<(), shadegrad::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Scores<'a> {
    values: &'a [f32],
    classes: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Logits,
    Probabilities,
}

/// How far a row of probabilities may be from a sum of 1: what single precision over a thousand classes leaves.
const SUM_TOLERANCE: f64 = 1e-3;

impl<'a> Scores<'a> {
    /// Unnormalised scores; probabilities are their softmax.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let logits = [2.0, -1.0, 0.5, 0.0, 3.0, 1.0]; // two samples of three classes
    /// assert_eq!(predictions(Scores::logits(&logits, 3))?, [0, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn logits(values: &'a [f32], classes: usize) -> Self {
        Self { values, classes, kind: Kind::Logits }
    }

    /// Probabilities: each row sums to 1 (to 1e-3).
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let rows = [0.75, 0.25, 0.5, 0.5]; // two samples of two classes
    /// assert_eq!(brier(Scores::probabilities(&rows, 2), &[0, 1])?, 0.3125); // (2 * 0.0625 + 2 * 0.25) / 2
    /// assert!(brier(Scores::probabilities(&[2.0, 1.0], 2), &[0]).is_err()); // logits
    /// # Ok::<(), Error>(())
    /// ```
    pub fn probabilities(values: &'a [f32], classes: usize) -> Self {
        Self { values, classes, kind: Kind::Probabilities }
    }

    fn rows(&self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.classes)
    }

    /// Everything that a measure takes for granted.
    fn check(&self, op: &'static str, labels: &[u32]) -> Result<()> {
        let (n, classes) = (labels.len(), self.classes);
        if n == 0 || classes == 0 {
            return Err(Error::value(
                op,
                format!("{n} labels and {classes} classes; there is nothing to measure, give at least one"),
            ));
        }
        if n.checked_mul(classes) != Some(self.values.len()) {
            let detail = format!(
                "{} scores for {n} labels and {classes} classes; give labels x classes scores",
                self.values.len()
            );
            return Err(Error::shape(op, detail));
        }
        check_labels(op, labels, classes)?;
        for (i, row) in self.rows().enumerate() {
            if let Some(c) = row.iter().position(|v| !v.is_finite()) {
                let detail = format!(
                    "{op}: the score of sample {i} for class {c} is {}; use a large negative number to rule a class \
                     out",
                    row[c]
                );
                return Err(Error::NonFinite(detail));
            }
            if self.kind == Kind::Probabilities {
                let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
                let outside = row.iter().any(|&v| !(0.0..=1.0 + SUM_TOLERANCE as f32).contains(&v));
                if outside || (sum - 1.0).abs() > SUM_TOLERANCE {
                    let detail = format!(
                        "the row of sample {i} (sum {sum:.4}) is no probability distribution; pass logits as \
                         `Scores::logits`"
                    );
                    return Err(Error::value(op, detail));
                }
            }
        }
        Ok(())
    }

    /// Each row's probabilities, in double precision, handed to `f` with its label.
    fn each_distribution(&self, labels: &[u32], mut f: impl FnMut(&[f64], usize)) {
        let mut p = vec![0.0; self.classes];
        for (row, &label) in self.rows().zip(labels) {
            p.iter_mut().zip(row).for_each(|(p, &v)| *p = f64::from(v));
            if self.kind == Kind::Logits {
                let top = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                p.iter_mut().for_each(|v| *v = (*v - top).exp());
                let sum: f64 = p.iter().sum();
                p.iter_mut().for_each(|v| *v /= sum);
            }
            f(&p, label as usize);
        }
    }
}

fn check_labels(op: &'static str, labels: &[u32], classes: usize) -> Result<()> {
    match labels.iter().position(|&l| l as usize >= classes) {
        None => Ok(()),
        Some(i) => {
            let detail =
                format!("label {} of sample {i}, but there are {classes} classes; labels count from 0", labels[i]);
            Err(Error::value(op, detail))
        }
    }
}

/// The largest score's class, the lowest one where several are equal, as the engine's `argmax`.
fn argmax<T: PartialOrd>(row: &[T]) -> usize {
    (1..row.len()).fold(0, |best, c| if row[c] > row[best] { c } else { best })
}
