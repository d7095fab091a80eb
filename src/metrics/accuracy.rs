//! What share of a classifier's answers is right.

use crate::error::{Error, Result};
use crate::metrics::{Scores, argmax};

/// The predicted class of each sample: the largest score's, the lowest index among equals.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let logits = [2.0, -1.0, 0.5, 1.0, 3.0, 3.0];
/// assert_eq!(predictions(Scores::logits(&logits, 3))?, [0, 1]); // of equal ones the lower index
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the scores are no whole number of rows, [`Error::NonFinite`] when one is NaN or infinite.
pub fn predictions(scores: Scores) -> Result<Vec<u32>> {
    let n = scores.values.len().checked_div(scores.classes).unwrap_or(0);
    scores.check("predictions", &vec![0; n])?;
    Ok(scores.rows().map(|row| argmax(row) as u32).collect())
}

/// Accuracy: the part of the samples whose largest score is the label's, `1/n sum_i [argmax_c s_ic = y_i]`, in 0..=1.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let logits = [2.0, -1.0, 0.5, 0.0, 0.0, 1.0, 4.0, 3.0]; // four samples of two classes
/// assert_eq!(accuracy(Scores::logits(&logits, 2), &[0, 0, 1, 1])?, 0.75);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] for lengths that do not fit, [`Error::NonFinite`] for a NaN or infinite score, [`Error::Value`] for
/// a label out of range, rows that are no probabilities, or no samples. So for every measure of [`Scores`].
pub fn accuracy(scores: Scores, labels: &[u32]) -> Result<f64> {
    scores.check("accuracy", labels)?;
    let right = scores.rows().zip(labels).filter(|(row, label)| argmax(row) == **label as usize).count();
    Ok(right as f64 / labels.len() as f64)
}

/// Top-k accuracy: the part of the samples whose label is among the `k` largest scores (Krizhevsky, Sutskever and
/// Hinton, 2012, for k = 5). Of equal scores the lower index counts as larger, so that `top_k(.., 1)` is [`accuracy`].
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let logits = [0.5, 0.3, 0.2, 0.1, 0.2, 0.7];
/// let scores = Scores::logits(&logits, 3);
/// assert_eq!(top_k(scores, &[1, 0], 1)?, 0.0);
/// assert_eq!(top_k(scores, &[1, 0], 2)?, 0.5); // class 1 is second, class 0 last
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`accuracy`], and [`Error::Value`] when `k` is 0 or more than the classes.
pub fn top_k(scores: Scores, labels: &[u32], k: usize) -> Result<f64> {
    scores.check("top_k", labels)?;
    if k == 0 || k > scores.classes {
        return Err(Error::value(
            "top_k",
            format!("k = {k} of {} classes; give a number from 1 to that", scores.classes),
        ));
    }
    let hit = |(row, label): &(&[f32], &u32)| {
        let y = **label as usize;
        let ahead = row.iter().enumerate().filter(|&(c, v)| *v > row[y] || (*v == row[y] && c < y)).count();
        ahead < k
    };
    Ok(scores.rows().zip(labels).filter(hit).count() as f64 / labels.len() as f64)
}
