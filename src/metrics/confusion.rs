//! Which classes are taken for which.

use std::fmt;

use crate::error::{Error, Result};
use crate::metrics::{Scores, argmax, check_labels};

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
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::new(vec!["cat".into(), "dog".into()]);
    /// matrix.add_predictions(&[0, 1, 1], &[0, 0, 1])?;
    /// assert!(matrix.to_string().contains("cat       1.0000   0.5000   0.6667         2"));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(names: Vec<String>) -> Self {
        Self { counts: vec![0; names.len() * names.len()], names }
    }

    /// An empty matrix for `classes` classes, named by their numbers.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(3);
    /// matrix.add_predictions(&[2], &[0])?;
    /// assert_eq!((matrix.classes(), matrix.count(0, 2)), (3, 1));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of(classes: usize) -> Self {
        Self::new((0..classes).map(|c| c.to_string()).collect())
    }

    /// Number of classes.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// assert_eq!(ConfusionMatrix::new(vec!["cat".into(), "dog".into()]).classes(), 2);
    /// ```
    pub fn classes(&self) -> usize {
        self.names.len()
    }

    /// Counts the samples of a batch by their largest score.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// for (logits, labels) in [([2.0, 1.0, 0.0, 1.0], [0, 0]), ([0.0, 1.0, 3.0, 0.0], [1, 0])] {
    ///     matrix.add(Scores::logits(&logits, 2), &labels)?; // batch by batch
    /// }
    /// assert_eq!((matrix.count(0, 0), matrix.count(0, 1), matrix.count(1, 1)), (2, 1, 1));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`accuracy`](crate::metrics::accuracy), and [`Error::Shape`] when the scores have another number of classes. Nothing is counted then.
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
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// matrix.add_predictions(&[0, 1, 1], &[0, 0, 1])?; // predicted, true
    /// assert_eq!(matrix.count(0, 1), 1);
    /// assert!(matrix.add_predictions(&[2], &[0]).is_err()); // no such class
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// matrix.add_predictions(&[0, 1, 1, 1], &[0, 0, 1, 1])?;
    /// assert_eq!([matrix.count(0, 0), matrix.count(0, 1), matrix.count(1, 0), matrix.count(1, 1)], [1, 1, 0, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        let n = self.classes();
        if truth < n && predicted < n { self.counts[truth * n + predicted] } else { 0 }
    }

    /// Samples counted.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// matrix.add_predictions(&[0, 1, 1, 1], &[0, 0, 1, 1])?;
    /// matrix.add_predictions(&[0], &[1])?;
    /// assert_eq!(matrix.total(), 5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Samples whose true class is `c`.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// matrix.add_predictions(&[0, 1, 1], &[0, 0, 0])?;
    /// assert_eq!((matrix.support(0), matrix.support(1)), (3, 0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn support(&self, c: usize) -> u64 {
        (0..self.classes()).map(|p| self.count(c, p)).sum()
    }

    /// Samples that were taken for class `c`.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// matrix.add_predictions(&[0, 1, 1], &[0, 0, 0])?;
    /// assert_eq!((matrix.predicted(0), matrix.predicted(1)), (1, 2));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn predicted(&self, c: usize) -> u64 {
        (0..self.classes()).map(|y| self.count(y, c)).sum()
    }

    /// The part of all samples on the diagonal; `None` when nothing was counted.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// assert_eq!(matrix.accuracy(), None);
    /// matrix.add_predictions(&[0, 1, 1, 1], &[0, 0, 1, 1])?;
    /// assert_eq!(matrix.accuracy(), Some(0.75));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn accuracy(&self) -> Option<f64> {
        ratio((0..self.classes()).map(|c| self.count(c, c)).sum(), self.total())
    }

    /// Precision of class `c`, TP / (TP + FP): how often a prediction of it is right. `None` when it was never
    /// predicted.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(3);
    /// matrix.add_predictions(&[0, 1, 1, 0], &[0, 0, 1, 0])?;
    /// assert_eq!((matrix.precision(0), matrix.precision(1)), (Some(1.0), Some(0.5)));
    /// assert_eq!(matrix.precision(2), None); // never predicted
    /// # Ok::<(), Error>(())
    /// ```
    pub fn precision(&self, c: usize) -> Option<f64> {
        ratio(self.count(c, c), self.predicted(c))
    }

    /// Recall of class `c`, TP / (TP + FN): the part of it that was found. `None` when there were none.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(3);
    /// matrix.add_predictions(&[0, 1, 1, 0], &[0, 0, 1, 0])?;
    /// assert_eq!((matrix.recall(1), matrix.recall(2)), (Some(1.0), None)); // class 2 was not there
    /// # Ok::<(), Error>(())
    /// ```
    pub fn recall(&self, c: usize) -> Option<f64> {
        ratio(self.count(c, c), self.support(c))
    }

    /// F1 of class `c`, 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall (van Rijsbergen, 1979).
    /// `None` when the class was neither there nor predicted.
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// matrix.add_predictions(&[0, 1, 1, 1], &[0, 0, 1, 1])?;
    /// assert_eq!((matrix.precision(1), matrix.recall(1)), (Some(2.0 / 3.0), Some(1.0)));
    /// assert_eq!(matrix.f1(1), Some(0.8));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn f1(&self, c: usize) -> Option<f64> {
        ratio(2 * self.count(c, c), self.support(c) + self.predicted(c))
    }

    /// The mean F1 of the classes that were there or predicted (macro F1).
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// matrix.add_predictions(&[0, 1, 0, 1], &[0, 0, 1, 1])?;
    /// assert_eq!((matrix.f1(0), matrix.f1(1)), (Some(0.5), Some(0.5)));
    /// assert_eq!(matrix.macro_f1(), Some(0.5));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn macro_f1(&self) -> Option<f64> {
        mean_of((0..self.classes()).filter_map(|c| self.f1(c)))
    }

    /// The mean recall of the classes that were there (balanced accuracy).
    ///
    /// ```
    /// # use shadegrad::{metrics::*, *};
    /// let mut matrix = ConfusionMatrix::of(2);
    /// matrix.add_predictions(&[0, 0, 0, 0], &[0, 0, 0, 1])?; // always class 0
    /// assert_eq!((matrix.accuracy(), matrix.balanced_accuracy()), (Some(0.75), Some(0.5)));
    /// # Ok::<(), Error>(())
    /// ```
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
