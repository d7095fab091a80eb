//! Whether a classifier is right as often as it says.

use crate::error::{Error, Result};
use crate::metrics::{Scores, argmax};

/// Expected calibration error, `sum_m |B_m|/n |acc(B_m) - conf(B_m)|`: samples are put into `bins` equal intervals
/// `((m-1)/M, m/M]` by their largest probability, and each interval's accuracy is compared with its mean largest
/// probability (Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017; 15 bins there
/// and usually).
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let sure = [0.9, 0.1, 0.9, 0.1]; // twice 90 % for class 0, right once
/// let gap = ece(Scores::probabilities(&sure, 2), &[0, 1], 15)?;
/// assert!((gap - 0.4).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`accuracy`](crate::metrics::accuracy), and [`Error::Value`] when `bins` is 0.
pub fn ece(scores: Scores, labels: &[u32], bins: usize) -> Result<f64> {
    let bins = reliability("ece", scores, labels, bins)?;
    let n = labels.len() as f64;
    Ok(bins.iter().map(|b| b.count as f64 / n * (b.accuracy - b.confidence).abs()).sum())
}

/// One interval of a reliability diagram.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let rows = [0.75, 0.25, 0.75, 0.25]; // twice 75 % for class 0, right once
/// let bins = reliability_bins(Scores::probabilities(&rows, 2), &[0, 1], 2)?;
/// assert_eq!(bins[1], ReliabilityBin { count: 2, accuracy: 0.5, confidence: 0.75 });
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReliabilityBin {
    /// Samples in it.
    pub count: usize,
    /// The part of them that is right; 0 when there are none.
    pub accuracy: f64,
    /// Their mean largest probability; 0 when there are none.
    pub confidence: f64,
}

/// The intervals that [`ece`] sums over, for a reliability diagram.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let rows = [0.5, 0.5, 0.875, 0.125, 1.0, 0.0];
/// let bins = reliability_bins(Scores::probabilities(&rows, 2), &[0, 1, 0], 4)?;
/// for (i, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.count > 0) {
///     println!("{:.2} to {:.2}: {:.2} right", i as f64 / 4.0, (i + 1) as f64 / 4.0, bin.accuracy);
/// }
/// assert_eq!(bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [0, 1, 0, 2]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`ece`].
pub fn reliability_bins(scores: Scores, labels: &[u32], bins: usize) -> Result<Vec<ReliabilityBin>> {
    reliability("reliability_bins", scores, labels, bins)
}

fn reliability(op: &'static str, scores: Scores, labels: &[u32], bins: usize) -> Result<Vec<ReliabilityBin>> {
    scores.check(op, labels)?;
    if bins == 0 {
        return Err(Error::value(op, "0 bins; give at least 1, usually 15"));
    }
    let mut out = vec![ReliabilityBin::default(); bins];
    scores.each_distribution(labels, |p, y| {
        let best = argmax(p);
        // Intervals are open below and closed above.
        let bin = &mut out[((p[best] * bins as f64).ceil() as usize).clamp(1, bins) - 1];
        bin.count += 1;
        bin.accuracy += f64::from(u8::from(best == y));
        bin.confidence += p[best];
    });
    for bin in out.iter_mut().filter(|b| b.count > 0) {
        bin.accuracy /= bin.count as f64;
        bin.confidence /= bin.count as f64;
    }
    Ok(out)
}
