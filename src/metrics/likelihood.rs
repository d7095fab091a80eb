//! How probable the labels are to a classifier.

use crate::error::Result;
use crate::metrics::{Kind, Scores};

/// Negative log-likelihood in nats, `-1/n sum_i ln p_i(y_i)`; the cross-entropy loss. From logits it is computed with
/// log-sum-exp and always finite; a probability of exactly 0 for a label gives infinity, as the formula says.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let even = [0.0; 4]; // two samples of two classes, both as likely
/// let loss = nll(Scores::logits(&even, 2), &[0, 1])?;
/// assert!((loss - std::f64::consts::LN_2).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`accuracy`](crate::metrics::accuracy).
pub fn nll(scores: Scores, labels: &[u32]) -> Result<f64> {
    let each = nll_per_sample(scores, labels)?;
    Ok(each.iter().sum::<f64>() / each.len() as f64)
}

/// The negative log-likelihood of each sample, `-ln p_i(y_i)`.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let rows = [1.0, 0.0, 0.5, 0.5];
/// let each = nll_per_sample(Scores::probabilities(&rows, 2), &[0, 1])?;
/// assert_eq!(each[0], 0.0); // certain, and right
/// assert!((each[1] - std::f64::consts::LN_2).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`accuracy`](crate::metrics::accuracy).
pub fn nll_per_sample(scores: Scores, labels: &[u32]) -> Result<Vec<f64>> {
    scores.check("nll", labels)?;
    let of = |(row, &label): (&[f32], &u32)| {
        let at_label = f64::from(row[label as usize]);
        if scores.kind == Kind::Probabilities {
            // The minus zero of a certain answer is made a plain one.
            return 0.0 - at_label.min(1.0).ln();
        }
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&v| (f64::from(v) - f64::from(top)).exp()).sum();
        sum.ln() + f64::from(top) - at_label
    };
    Ok(scores.rows().zip(labels).map(of).collect())
}

/// Brier score, `1/n sum_i sum_c (p_ic - [c = y_i])^2`, in 0..=2 (Brier, "Verification of forecasts expressed in terms
/// of probability", 1950: the sum over all classes, not halved).
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let rows = [1.0, 0.0, 0.5, 0.5];
/// assert_eq!(brier(Scores::probabilities(&rows, 2), &[0, 1])?, 0.25); // the mean of 0 and 1/4 + 1/4
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`accuracy`](crate::metrics::accuracy).
pub fn brier(scores: Scores, labels: &[u32]) -> Result<f64> {
    scores.check("brier", labels)?;
    let mut total = 0.0;
    scores.each_distribution(labels, |p, y| {
        total += p.iter().enumerate().map(|(c, v)| (v - f64::from(u8::from(c == y))).powi(2)).sum::<f64>();
    });
    Ok(total / labels.len() as f64)
}
