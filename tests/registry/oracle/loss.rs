//! Cross-entropy of logits `[N, C]`.

use super::{A, array, softmax::log_softmax};

/// From the `N` losses of the samples to the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// `[N]`.
    None,
    Sum,
    /// The sum over `N`. Weights do not enter the divisor, so the loss stays linear in them and a batch
    /// may be split at will.
    Mean,
}

fn reduce(losses: Vec<f64>, reduction: Reduction) -> A {
    let sum: f64 = losses.iter().sum();
    match reduction {
        Reduction::None => array(&[losses.len()], &losses),
        Reduction::Sum => array(&[], &[sum]),
        Reduction::Mean => array(&[], &[sum / losses.len() as f64]),
    }
}

/// Sample `i` loses `weights[i] ((1 - e) (-log p[label]) + e / C sum_c (-log p[c]))` with smoothing `e`
/// (the target is the one-hot label mixed with the uniform distribution) and weight 1 without `weights [N]`.
pub fn cross_entropy(logits: &A, labels: &[usize], smoothing: f64, weights: Option<&A>, reduction: Reduction) -> A {
    let log_p = log_softmax(logits, 1);
    let losses = log_p.rows().into_iter().zip(labels).enumerate().map(|(i, (row, &label))| {
        let loss = (1.0 - smoothing) * -row[label] + smoothing / row.len() as f64 * -row.sum();
        weights.map_or(1.0, |w| w[i]) * loss
    });
    reduce(losses.collect(), reduction)
}

/// `-sum_c probs[i, c] log p[i, c]` with targets `probs [N, C]`, which need not sum to one.
pub fn cross_entropy_soft(logits: &A, probs: &A, reduction: Reduction) -> A {
    let log_p = log_softmax(logits, 1);
    reduce(log_p.rows().into_iter().zip(probs.rows()).map(|(l, p)| -l.dot(&p)).collect(), reduction)
}
