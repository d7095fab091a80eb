//! Measures of a classifier, computed on the host in double precision from what it put out: accuracy, top-k, confusion
//! matrix, calibration error, negative log-likelihood, Brier score; and the means of runs.

use std::fmt;

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
    pub fn logits(values: &'a [f32], classes: usize) -> Self {
        Self { values, classes, kind: Kind::Logits }
    }

    /// Probabilities: each row sums to 1 (to 1e-3).
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

/// The predicted class of each sample: the largest score's, the lowest index among equals.
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

/// Negative log-likelihood in nats, `-1/n sum_i ln p_i(y_i)`; the cross-entropy loss. From logits it is computed with
/// log-sum-exp and always finite; a probability of exactly 0 for a label gives infinity, as the formula says.
///
/// # Errors
/// As [`accuracy`].
pub fn nll(scores: Scores, labels: &[u32]) -> Result<f64> {
    let each = nll_per_sample(scores, labels)?;
    Ok(each.iter().sum::<f64>() / each.len() as f64)
}

/// The negative log-likelihood of each sample, `-ln p_i(y_i)`.
///
/// # Errors
/// As [`accuracy`].
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
/// # Errors
/// As [`accuracy`].
pub fn brier(scores: Scores, labels: &[u32]) -> Result<f64> {
    scores.check("brier", labels)?;
    let mut total = 0.0;
    scores.each_distribution(labels, |p, y| {
        total += p.iter().enumerate().map(|(c, v)| (v - f64::from(u8::from(c == y))).powi(2)).sum::<f64>();
    });
    Ok(total / labels.len() as f64)
}

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
/// As [`accuracy`], and [`Error::Value`] when `bins` is 0.
pub fn ece(scores: Scores, labels: &[u32], bins: usize) -> Result<f64> {
    let bins = reliability("ece", scores, labels, bins)?;
    let n = labels.len() as f64;
    Ok(bins.iter().map(|b| b.count as f64 / n * (b.accuracy - b.confidence).abs()).sum())
}

/// One interval of a reliability diagram.
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

/// Counts of (true class, predicted class), and what follows from them. Printing it gives the matrix (to 20 classes)
/// and a table per class.
///
/// ```
/// # use shadegrad::{metrics::*, *};
/// let mut matrix = ConfusionMatrix::of(2);
/// matrix.add_predictions(&[0, 1, 1], &[0, 0, 1])?; // predicted, true
/// assert_eq!((matrix.count(0, 1), matrix.recall(0)), (1, Some(0.5)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    names: Vec<String>,
    /// Row: the true class; column: the predicted one.
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// An empty matrix for classes with these names.
    pub fn new(names: Vec<String>) -> Self {
        Self { counts: vec![0; names.len() * names.len()], names }
    }

    /// An empty matrix for `classes` classes, named by their numbers.
    pub fn of(classes: usize) -> Self {
        Self::new((0..classes).map(|c| c.to_string()).collect())
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.names.len()
    }

    /// Counts the samples of a batch by their largest score.
    ///
    /// # Errors
    /// As [`accuracy`], and [`Error::Shape`] when the scores have another number of classes. Nothing is counted then.
    pub fn add(&mut self, scores: Scores, labels: &[u32]) -> Result<()> {
        const OP: &str = "ConfusionMatrix::add";
        scores.check(OP, labels)?;
        if scores.classes != self.classes() {
            let detail = format!(
                "scores for {} classes in a matrix of {}; make the matrix of as many",
                scores.classes,
                self.classes()
            );
            return Err(Error::shape(OP, detail));
        }
        self.add_predictions(&scores.rows().map(|row| argmax(row) as u32).collect::<Vec<_>>(), labels)
    }

    /// Counts samples by their predicted class.
    ///
    /// # Errors
    /// [`Error::Shape`] for different lengths, [`Error::Value`] for a class out of range. Nothing is counted then.
    pub fn add_predictions(&mut self, predicted: &[u32], labels: &[u32]) -> Result<()> {
        const OP: &str = "ConfusionMatrix::add_predictions";
        if predicted.len() != labels.len() {
            let detail = format!("{} predictions for {} labels; give one each", predicted.len(), labels.len());
            return Err(Error::shape(OP, detail));
        }
        check_labels(OP, labels, self.classes())?;
        check_labels(OP, predicted, self.classes())?;
        for (&p, &y) in predicted.iter().zip(labels) {
            let at = y as usize * self.classes() + p as usize;
            self.counts[at] += 1;
        }
        Ok(())
    }

    /// How many samples of class `truth` were taken for class `predicted`; 0 for classes out of range.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        let n = self.classes();
        if truth < n && predicted < n { self.counts[truth * n + predicted] } else { 0 }
    }

    /// Samples counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Samples whose true class is `c`.
    pub fn support(&self, c: usize) -> u64 {
        (0..self.classes()).map(|p| self.count(c, p)).sum()
    }

    /// Samples that were taken for class `c`.
    pub fn predicted(&self, c: usize) -> u64 {
        (0..self.classes()).map(|y| self.count(y, c)).sum()
    }

    /// The part of all samples on the diagonal; `None` when nothing was counted.
    pub fn accuracy(&self) -> Option<f64> {
        ratio((0..self.classes()).map(|c| self.count(c, c)).sum(), self.total())
    }

    /// Precision of class `c`, TP / (TP + FP): how often a prediction of it is right. `None` when it was never
    /// predicted.
    pub fn precision(&self, c: usize) -> Option<f64> {
        ratio(self.count(c, c), self.predicted(c))
    }

    /// Recall of class `c`, TP / (TP + FN): the part of it that was found. `None` when there were none.
    pub fn recall(&self, c: usize) -> Option<f64> {
        ratio(self.count(c, c), self.support(c))
    }

    /// F1 of class `c`, 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall (van Rijsbergen, 1979).
    /// `None` when the class was neither there nor predicted.
    pub fn f1(&self, c: usize) -> Option<f64> {
        ratio(2 * self.count(c, c), self.support(c) + self.predicted(c))
    }

    /// The mean F1 of the classes that were there or predicted (macro F1).
    pub fn macro_f1(&self) -> Option<f64> {
        mean_of((0..self.classes()).filter_map(|c| self.f1(c)))
    }

    /// The mean recall of the classes that were there (balanced accuracy).
    pub fn balanced_accuracy(&self) -> Option<f64> {
        mean_of((0..self.classes()).filter_map(|c| self.recall(c)))
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0u32), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// The most classes for which the matrix itself is printed.
const PRINTED: usize = 20;

impl fmt::Display for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let n = self.classes();
        let name = self.names.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(5);
        let show = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.4}"));
        if n <= PRINTED {
            let digits = self.counts.iter().max().map_or(1, |m| m.to_string().len()).max(n.to_string().len()) + 1;
            writeln!(f, "rows: true class, columns: predicted class")?;
            let columns: String = (0..n).map(|c| format!("{c:>digits$}")).collect();
            writeln!(f, "{:name$}    {columns}", "")?;
            for y in 0..n {
                let row: String = (0..n).map(|p| format!("{:>digits$}", self.count(y, p))).collect();
                writeln!(f, "{:name$} {y:>2} {row}", self.names[y])?;
            }
            writeln!(f)?;
        }
        writeln!(f, "{:name$}  precision   recall       F1   samples", "class")?;
        for c in 0..n {
            let [p, r, f1] = [self.precision(c), self.recall(c), self.f1(c)].map(show);
            writeln!(f, "{:name$}  {p:>9} {r:>8} {f1:>8} {:>9}", self.names[c], self.support(c))?;
        }
        let [acc, bal, f1] = [self.accuracy(), self.balanced_accuracy(), self.macro_f1()].map(show);
        write!(f, "accuracy {acc}, balanced accuracy {bal}, macro F1 {f1}, {} samples", self.total())
    }
}

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
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value that stands for `weight` samples (the mean loss of a batch, with the batch's size).
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
    pub fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// The weights' sum: how many samples were seen.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// The sum of the values times their weights: with [`RunningMean::weight`], all there is to save.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// A mean that goes on from a saved sum and weight.
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
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The mean of repeated runs and their spread. Prints as `0.9123 ± 0.0045 (n = 3)`; `{:.2}` sets the decimals.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Six samples of three classes, with a tie in the fourth.
    const LOGITS: [f32; 18] =
        [2.0, -1.0, 0.5, 0.0, 3.0, 1.0, -0.5, 0.25, 0.125, 1.5, 1.5, -2.0, 0.1, 0.2, 4.0, 1.0, -3.0, 0.75];
    const LABELS: [u32; 6] = [0, 2, 1, 1, 2, 2];

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-7, "{got} is not {want}");
    }

    fn probabilities() -> Vec<f32> {
        let mut out = Vec::new();
        Scores::logits(&LOGITS, 3).each_distribution(&LABELS, |p, _| out.extend(p.iter().map(|&v| v as f32)));
        out
    }

    #[test]
    fn values_of_an_independent_implementation() {
        // scikit-learn 1.9 (accuracy_score, top_k_accuracy_score, log_loss) and numpy for the Brier score and the
        // calibration error, in double precision, on the same six samples.
        let p = probabilities();
        for s in [Scores::logits(&LOGITS, 3), Scores::probabilities(&p, 3)] {
            assert_eq!(accuracy(s, &LABELS).unwrap(), 0.5);
            assert_eq!(top_k(s, &LABELS, 1).unwrap(), 0.5);
            assert_eq!(top_k(s, &LABELS, 2).unwrap(), 1.0);
            near(nll(s, &LABELS).unwrap(), 0.808_947_705_6);
            near(brier(s, &LABELS).unwrap(), 0.536_998_050_7);
            near(ece(s, &LABELS, 15).unwrap(), 0.453_904_267_8);
            near(ece(s, &LABELS, 5).unwrap(), 0.248_498_272_4);
            assert_eq!(predictions(s).unwrap(), [0, 1, 1, 0, 2, 0]);
        }
    }

    #[test]
    fn extremes() {
        // Certain and right, certain and wrong.
        let certain = [1.0, 0.0, 1.0, 0.0];
        let s = Scores::probabilities(&certain, 2);
        assert_eq!(brier(s, &[0, 0]).unwrap(), 0.0);
        assert_eq!(brier(s, &[1, 1]).unwrap(), 2.0);
        assert_eq!((ece(s, &[0, 0], 15).unwrap(), ece(s, &[1, 1], 15).unwrap()), (0.0, 1.0));
        assert_eq!(nll_per_sample(s, &[0, 1]).unwrap(), [0.0, f64::INFINITY]);
        assert!(nll(s, &[0, 0]).unwrap().is_sign_positive());
        // Large logits neither overflow nor lose the answer.
        let large = [3e38, -3e38, -3e38, 3e38];
        let s = Scores::logits(&large, 2);
        assert_eq!(nll_per_sample(s, &[0, 1]).unwrap(), [0.0, 0.0]);
        near(nll_per_sample(s, &[1, 1]).unwrap()[0] / 6e38, 1.0);
        assert_eq!(brier(s, &[0, 1]).unwrap(), 0.0);
        // All equal: the lowest index wins, everywhere alike.
        let s = Scores::logits(&[1.0; 4], 4);
        assert_eq!((accuracy(s, &[0]).unwrap(), accuracy(s, &[3]).unwrap()), (1.0, 0.0));
        assert_eq!((top_k(s, &[2], 2).unwrap(), top_k(s, &[2], 3).unwrap()), (0.0, 1.0));
        near(nll(s, &[3]).unwrap(), 4f64.ln());
    }

    #[test]
    fn bins_are_open_below_and_closed_above() {
        let p = [0.5, 0.5, 0.75, 0.25, 1.0, 0.0];
        let bins = reliability_bins(Scores::probabilities(&p, 2), &[1, 0, 0], 4).unwrap();
        let counts: Vec<usize> = bins.iter().map(|b| b.count).collect();
        assert_eq!(counts, [0, 1, 1, 1]);
        assert_eq!(bins[1], ReliabilityBin { count: 1, accuracy: 0.0, confidence: 0.5 });
        assert_eq!(bins[3], ReliabilityBin { count: 1, accuracy: 1.0, confidence: 1.0 });
        // One class: its probability is 1 and lies in the last bin.
        assert_eq!(ece(Scores::logits(&[-4.0], 1), &[0], 15).unwrap(), 0.0);
    }

    type Measure = fn(Scores, &[u32]) -> Result<f64>;
    const MEASURES: [(&str, Measure); 5] = [
        ("accuracy", accuracy),
        ("top_k", |s, l| top_k(s, l, 1)),
        ("nll", nll),
        ("brier", brier),
        ("ece", |s, l| ece(s, l, 15)),
    ];

    #[test]
    fn every_measure_checks_what_it_is_given() {
        for (name, measure) in MEASURES {
            let fails = |s: Scores, labels: &[u32], part: &str| {
                let text = measure(s, labels).unwrap_err().to_string();
                assert!(text.contains(name) && text.contains(part), "{name}: {text:?} lacks {part:?}");
            };
            fails(Scores::logits(&LOGITS[..17], 3), &LABELS, "17 scores for 6 labels and 3 classes");
            fails(Scores::logits(&LOGITS, 3), &LABELS[..5], "18 scores for 5 labels");
            fails(Scores::logits(&[], 3), &[], "nothing to measure");
            fails(Scores::logits(&[], 0), &[0], "nothing to measure");
            fails(Scores::logits(&LOGITS, 3), &[0, 0, 0, 3, 0, 0], "label 3 of sample 3");
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut v = LOGITS;
                v[7] = bad;
                fails(Scores::logits(&v, 3), &LABELS, "the score of sample 2 for class 1");
                assert!(matches!(measure(Scores::logits(&v, 3), &LABELS), Err(Error::NonFinite(_))));
            }
            fails(Scores::probabilities(&LOGITS, 3), &LABELS, "sample 0 (sum 1.5000)");
            fails(Scores::probabilities(&[1.5, -0.5], 2), &[0], "no probability distribution");
            fails(Scores::probabilities(&[0.5, 0.49], 2), &[0], "pass logits as");
            assert!(measure(Scores::probabilities(&[0.5, 0.4995], 2), &[0]).is_ok());
        }
        let s = Scores::logits(&LOGITS, 3);
        assert!(top_k(s, &LABELS, 0).unwrap_err().to_string().contains("k = 0 of 3"));
        assert!(top_k(s, &LABELS, 4).is_err());
        assert!(ece(s, &LABELS, 0).unwrap_err().to_string().contains("0 bins"));
        assert!(predictions(Scores::logits(&LOGITS[..17], 3)).is_err());
        assert!(predictions(Scores::logits(&[], 0)).is_err());
    }

    #[test]
    fn confusion_of_an_independent_implementation() {
        // scikit-learn's confusion_matrix and precision_recall_fscore_support.
        let mut m = ConfusionMatrix::of(3);
        m.add_predictions(&[0, 0, 1, 1, 1, 0, 1, 1, 2, 0], &[0, 0, 0, 1, 1, 1, 1, 2, 2, 0]).unwrap();
        let rows: Vec<Vec<u64>> = (0..3).map(|y| (0..3).map(|p| m.count(y, p)).collect()).collect();
        assert_eq!(rows, [[3, 1, 0], [1, 3, 0], [0, 1, 1]]);
        let of = |f: fn(&ConfusionMatrix, usize) -> Option<f64>| (0..3).map(|c| f(&m, c).unwrap()).collect::<Vec<_>>();
        assert_eq!(of(ConfusionMatrix::precision), [0.75, 0.6, 1.0]);
        assert_eq!(of(ConfusionMatrix::recall), [0.75, 0.75, 0.5]);
        near(m.macro_f1().unwrap(), 0.694_444_444_4);
        near(m.balanced_accuracy().unwrap(), 0.666_666_666_7);
        assert_eq!((m.accuracy(), m.total(), m.support(2)), (Some(0.7), 10, 2));
        assert_eq!(m.count(3, 0), 0);
        // A class that is predicted but not there, and one that is neither.
        let mut m = ConfusionMatrix::of(4);
        m.add_predictions(&[0, 1, 3, 0], &[0, 0, 3, 3]).unwrap();
        assert_eq!((m.precision(1), m.recall(1), m.f1(1)), (Some(0.0), None, Some(0.0)));
        assert_eq!((m.precision(2), m.recall(2), m.f1(2)), (None, None, None));
        near(m.macro_f1().unwrap(), 0.388_888_888_9);
        near(m.balanced_accuracy().unwrap(), 0.5);
    }

    #[test]
    fn confusion_counts_scores_and_checks() {
        let mut m = ConfusionMatrix::of(3);
        assert_eq!((m.accuracy(), m.macro_f1(), m.balanced_accuracy()), (None, None, None));
        m.add(Scores::logits(&LOGITS, 3), &LABELS).unwrap();
        assert_eq!(m.accuracy(), Some(0.5));
        let before = m.clone();
        assert!(
            m.add(Scores::logits(&LOGITS, 2), &[0; 9]).unwrap_err().to_string().contains("2 classes in a matrix of 3")
        );
        assert!(m.add(Scores::logits(&[f32::NAN; 3], 3), &[0]).is_err());
        assert!(m.add_predictions(&[0], &[0, 1]).unwrap_err().to_string().contains("1 predictions for 2 labels"));
        assert!(m.add_predictions(&[0, 3], &[0, 1]).unwrap_err().to_string().contains("label 3"));
        assert!(m.add_predictions(&[0, 1], &[0, 3]).is_err());
        assert_eq!(m, before, "a refused batch leaves the counts alone");
    }

    #[test]
    fn confusion_prints() {
        let mut m = ConfusionMatrix::new(vec!["cat".into(), "dog".into()]);
        m.add_predictions(&[0, 1, 1], &[0, 0, 1]).unwrap();
        let want = "\
rows: true class, columns: predicted class
          0 1
cat    0  1 1
dog    1  0 1

class  precision   recall       F1   samples
cat       1.0000   0.5000   0.6667         2
dog       0.5000   1.0000   0.6667         1
accuracy 0.6667, balanced accuracy 0.7500, macro F1 0.6667, 3 samples";
        assert_eq!(m.to_string(), want);
        let many = ConfusionMatrix::of(100).to_string();
        assert!(!many.contains("columns") && many.contains("accuracy -"));
    }

    #[test]
    fn running_mean_weighs_batches() {
        let mut m = RunningMean::new();
        assert_eq!(m.mean(), None);
        m.push(1.0, 3.0).unwrap();
        m.push(5.0, 1.0).unwrap();
        m.push(7.0, 0.0).unwrap();
        assert_eq!((m.mean(), m.weight()), (Some(2.0), 4.0));
        assert!(matches!(m.push(f64::NAN, 1.0), Err(Error::NonFinite(_))));
        assert!(m.push(1.0, -1.0).unwrap_err().to_string().contains("weight of -1"));
        assert!(m.push(1.0, f64::INFINITY).is_err());
        assert_eq!(m.mean(), Some(2.0));
        m.reset();
        assert_eq!(m.mean(), None);
    }

    #[test]
    fn mean_and_spread_of_runs() {
        let m = MeanStd::of(&[0.91, 0.92, 0.95]).unwrap();
        near(m.mean, 0.926_666_666_7);
        near(m.std.unwrap(), 0.020_816_66);
        assert_eq!(
            (m.to_string(), format!("{m:.2}")),
            ("0.9267 ± 0.0208 (n = 3)".into(), "0.93 ± 0.02 (n = 3)".into())
        );
        let one = MeanStd::of(&[0.5]).unwrap();
        assert_eq!((one.std, one.to_string()), (None, "0.5000 (n = 1)".into()));
        assert!(MeanStd::of(&[]).unwrap_err().to_string().contains("no runs"));
        assert!(MeanStd::of(&[1.0, f64::NAN]).unwrap_err().to_string().contains("run 1 gave NaN"));
    }
}
