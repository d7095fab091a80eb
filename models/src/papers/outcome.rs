//! What a recipe brings back: figures for every arm and seed, charts, pictures, and what they say about the claim.

use serde::{Deserialize, Serialize};
use shadegrad::{Error, Result};

/// Which way a figure is good.
///
/// ```
/// use shadegrad_models::papers::{Better, Outcome};
/// let outcome = Outcome::new("digits", "two layers").metric("loss", "", Better::Lower, 3);
/// assert_eq!(outcome.metrics[0].better, Better::Lower);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither: a description, such as a number of parameters at equal size.
    Neither,
}

/// A quantity that is measured for every arm and seed.
///
/// ```
/// use shadegrad_models::papers::{Better, Metric, Outcome};
/// let outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// let Metric { unit, decimals, .. } = &outcome.metrics[0];
/// assert_eq!(format!("{:.*} {unit}", *decimals, 97.5), "97.5 %");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What it is, such as `test accuracy`.
    pub name: String,
    /// Its unit, such as `%`; empty for a count.
    pub unit: String,
    /// Which way is good.
    pub better: Better,
    /// Decimals to print.
    pub decimals: usize,
}

/// What an arm is in the experiment.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::{Better, Outcome, Role};
/// let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// outcome.record("without the gate", Role::Ablation, 0, &[("accuracy", 96.0)])?;
/// assert_eq!(outcome.arms[0].role, Role::Ablation);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// What the paper improves on.
    Baseline,
    /// The paper's method.
    Method,
    /// The method with a part taken out or changed.
    Ablation,
    /// Something simpler that might explain the effect as well.
    Control,
}

impl Role {
    /// In a word.
    ///
    /// ```
    /// use shadegrad_models::papers::Role;
    /// assert_eq!(Role::Baseline.name(), "baseline");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Method => "method",
            Self::Ablation => "ablation",
            Self::Control => "control",
        }
    }
}

/// The figures of one seed, one for each metric that was measured.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::{Better, Outcome, Role, Run};
/// let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// outcome.record("plain", Role::Baseline, 4, &[("accuracy", 96.0)])?;
/// assert_eq!(outcome.arms[0].runs, [Run { seed: 4, values: vec![Some(96.0)] }]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// One value for each of [`Outcome::metrics`], in their order.
    pub values: Vec<Option<f64>>,
}

/// One variant of the experiment.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::{Better, Outcome, Role};
/// use shadegrad_models::papers::Arm;
/// # let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// # for (seed, (a, b)) in [(90.0, 93.0), (91.0, 95.0), (92.0, 97.0)].into_iter().enumerate() {
/// #     outcome.record("plain", Role::Baseline, seed as u64, &[("accuracy", a)])?;
/// #     outcome.record("ours", Role::Method, seed as u64, &[("accuracy", b)])?;
/// # }
/// let ours: &Arm = &outcome.arms[1];
/// assert_eq!((ours.name.as_str(), ours.runs.len()), ("ours", 3));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Its name in tables and charts.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// Its figures.
    pub runs: Vec<Run>,
}

/// What the paper leads one to expect of a difference.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::{Better, Expect, Outcome, Role, Verdict};
/// let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// for seed in [0, 1] {
///     outcome.record("plain", Role::Baseline, seed, &[("accuracy", 96.0)])?;
///     outcome.record("pruned", Role::Method, seed, &[("accuracy", 95.5)])?;
/// }
/// outcome.compare("costs nothing", "accuracy", ("pruned", "plain"), Expect::Within(1.0), "none given");
/// let found = outcome.judge(&outcome.comparisons[0]).map(|f| f.verdict);
/// assert_eq!(found, Some(Verdict::Shown));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// The method's figure is higher than the baseline's.
    Higher,
    /// It is lower.
    Lower,
    /// They differ by no more than this.
    Within(f64),
}

/// A statement of the paper as a difference between two arms.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::{Better, Outcome, Role};
/// use shadegrad_models::papers::{Comparison, Expect};
/// # let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// # for (seed, (a, b)) in [(90.0, 93.0), (91.0, 95.0), (92.0, 97.0)].into_iter().enumerate() {
/// #     outcome.record("plain", Role::Baseline, seed as u64, &[("accuracy", a)])?;
/// #     outcome.record("ours", Role::Method, seed as u64, &[("accuracy", b)])?;
/// # }
/// let comparison = Comparison {
///     claim: "ours is better".into(),
///     metric: "accuracy".into(),
///     method: "ours".into(),
///     baseline: "plain".into(),
///     expect: Expect::Higher,
///     paper: "+2 points (table 1)".into(),
/// };
/// assert_eq!(outcome.judge(&comparison).map(|f| f.difference), Some(4.0));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The statement, such as `the convolution branch helps`.
    pub claim: String,
    /// The metric it is about.
    pub metric: String,
    /// The arm of the method.
    pub method: String,
    /// The arm it is compared with.
    pub baseline: String,
    /// What is expected.
    pub expect: Expect,
    /// The paper's own figure and where it stands, or that it gives none.
    pub paper: String,
}

/// What the runs say about a [`Comparison`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::{Better, Outcome, Role};
/// use shadegrad_models::papers::{Expect, Verdict};
/// # let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// # for (seed, (a, b)) in [(90.0, 93.0), (91.0, 95.0), (92.0, 97.0)].into_iter().enumerate() {
/// #     outcome.record("plain", Role::Baseline, seed as u64, &[("accuracy", a)])?;
/// #     outcome.record("ours", Role::Method, seed as u64, &[("accuracy", b)])?;
/// # }
/// outcome.compare("it is worse", "accuracy", ("ours", "plain"), Expect::Lower, "none given");
/// let found = outcome.judge(&outcome.comparisons[0]).map(|f| f.verdict);
/// assert_eq!(found, Some(Verdict::Opposite));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As expected, by more than two standard errors.
    Shown,
    /// In the expected direction or within the margin, but within two standard errors.
    Undecided,
    /// The opposite, by more than two standard errors.
    Opposite,
    /// One seed: the spread is not known.
    OneSeed,
}

/// The difference `method - baseline` over the seeds that both arms have.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::{Better, Outcome, Role};
/// use shadegrad_models::papers::{Expect, Finding, Verdict};
/// # let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// # for (seed, (a, b)) in [(90.0, 93.0), (91.0, 95.0), (92.0, 97.0)].into_iter().enumerate() {
/// #     outcome.record("plain", Role::Baseline, seed as u64, &[("accuracy", a)])?;
/// #     outcome.record("ours", Role::Method, seed as u64, &[("accuracy", b)])?;
/// # }
/// outcome.compare("ours is better", "accuracy", ("ours", "plain"), Expect::Higher, "+2 points");
/// // Of 3, 4 and 5 points.
/// let want = Finding { difference: 4.0, spread: Some(1.0), seeds: 3, verdict: Verdict::Shown };
/// assert_eq!(outcome.judge(&outcome.comparisons[0]), Some(want));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Mean difference.
    pub difference: f64,
    /// Standard deviation of the differences between seeds; `None` with one seed.
    pub spread: Option<f64>,
    /// Seeds.
    pub seeds: usize,
    /// What it means.
    pub verdict: Verdict,
}

/// A line or a cloud of points.
///
/// ```
/// use shadegrad_models::papers::{Chart, Series};
/// let mut chart = Chart::lines("Training", "epoch", "loss");
/// let band = Some(vec![(0.9, 1.1), (0.4, 0.6)]);
/// chart.series.push(Series { name: "ours".into(), points: vec![(1.0, 1.0), (2.0, 0.5)], band });
/// assert_eq!(chart.series[0].points.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// The points.
    pub points: Vec<(f64, f64)>,
    /// Lowest and highest value at each point, where several seeds were run.
    pub band: Option<Vec<(f64, f64)>>,
}

/// How a chart is drawn.
///
/// ```
/// use shadegrad_models::papers::{Chart, Style};
/// assert_eq!(Chart::default().style, Style::Line);
/// assert_eq!(Chart::scatter("Size", "parameters", "accuracy").style, Style::Scatter);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Points joined by lines.
    #[default]
    Line,
    /// Points alone.
    Scatter,
}

/// A chart to be drawn.
///
/// ```
/// use shadegrad_models::papers::Chart;
/// let mut chart = Chart::lines("Training", "epoch", "loss");
/// chart.push("plain", vec![(1.0, 0.9), (2.0, 0.4)]);
/// chart.push("ours", vec![(1.0, 0.8), (2.0, 0.3)]);
/// assert_eq!(chart.series.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["plain", "ours"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// Its title.
    pub title: String,
    /// What the horizontal axis shows.
    pub x: String,
    /// What the vertical axis shows.
    pub y: String,
    /// How it is drawn.
    pub style: Style,
    /// What is drawn.
    pub series: Vec<Series>,
}

impl Chart {
    /// A chart of lines without any yet.
    ///
    /// ```
    /// use shadegrad_models::papers::Chart;
    /// let chart = Chart::lines("Training", "epoch", "loss");
    /// assert_eq!((chart.x.as_str(), chart.y.as_str(), chart.series.len()), ("epoch", "loss", 0));
    /// ```
    pub fn lines(title: &str, x: &str, y: &str) -> Self {
        Self { title: title.into(), x: x.into(), y: y.into(), ..Self::default() }
    }

    /// A chart of points without any yet.
    ///
    /// ```
    /// use shadegrad_models::papers::{Chart, Style};
    /// let mut chart = Chart::scatter("Candidates", "parameters", "accuracy in %");
    /// chart.push("found", vec![(2.1e6, 91.0), (3.3e6, 92.5)]);
    /// assert_eq!(chart.style, Style::Scatter);
    /// ```
    pub fn scatter(title: &str, x: &str, y: &str) -> Self {
        Self { style: Style::Scatter, ..Self::lines(title, x, y) }
    }

    /// Adds a series.
    ///
    /// ```
    /// use shadegrad_models::papers::Chart;
    /// let mut chart = Chart::lines("Training", "epoch", "loss");
    /// chart.push("plain", vec![(1.0, 0.9)]);
    /// assert_eq!(chart.series[0].band, None);
    /// ```
    pub fn push(&mut self, name: &str, points: Vec<(f64, f64)>) {
        self.series.push(Series { name: name.into(), points, band: None });
    }
}

/// A picture to be shown.
///
/// ```
/// use shadegrad_models::papers::Picture;
/// let picture = Picture { title: "a red pixel".into(), width: 1, height: 1, rgb: vec![255, 0, 0] };
/// assert_eq!(picture.rgb.len(), 3 * picture.width * picture.height);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Its caption.
    pub title: String,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Rows of red, green and blue bytes.
    pub rgb: Vec<u8>,
}

/// All that a recipe found.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::{Better, Expect, Outcome, Role, Verdict};
/// let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
/// outcome.record("plain", Role::Baseline, 0, &[("accuracy", 95.0)])?;
/// outcome.record("ours", Role::Method, 0, &[("accuracy", 96.5)])?;
/// outcome.compare("ours is better", "accuracy", ("ours", "plain"), Expect::Higher, "+2 points");
/// let finding = outcome.judge(&outcome.comparisons[0]).map(|f| (f.difference, f.verdict));
/// assert_eq!(finding, Some((1.5, Verdict::OneSeed)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What it ran on, such as `CIFAR-10: 5,000 training and 2,000 test images`.
    pub data: String,
    /// Model and training in a line.
    pub setting: String,
    /// What was measured; the first is the one that the lists show.
    pub metrics: Vec<Metric>,
    /// The variants.
    pub arms: Vec<Arm>,
    /// What is to be compared; the first is the paper's main claim.
    pub comparisons: Vec<Comparison>,
    /// What a reader must know to judge the figures.
    pub notes: Vec<String>,
    /// Curves.
    #[serde(skip)]
    pub charts: Vec<Chart>,
    /// Pictures.
    #[serde(skip)]
    pub pictures: Vec<Picture>,
}

impl Outcome {
    /// An outcome without figures yet.
    ///
    /// ```
    /// use shadegrad_models::papers::Outcome;
    /// let outcome = Outcome::new("digits: 1437 training pictures", "one layer, SGD, 3 epochs");
    /// assert!(outcome.arms.is_empty() && outcome.metrics.is_empty());
    /// ```
    pub fn new(data: impl Into<String>, setting: impl Into<String>) -> Self {
        Self {
            data: data.into(),
            setting: setting.into(),
            metrics: Vec::new(),
            arms: Vec::new(),
            comparisons: Vec::new(),
            notes: Vec::new(),
            charts: Vec::new(),
            pictures: Vec::new(),
        }
    }

    /// Declares a quantity. All are declared before the first [`Outcome::record`].
    ///
    /// ```
    /// use shadegrad_models::papers::{Better, Outcome};
    /// let outcome = Outcome::new("digits", "two layers")
    ///     .metric("accuracy", "%", Better::Higher, 1)
    ///     .metric("parameters", "", Better::Neither, 0);
    /// assert_eq!(outcome.metrics.len(), 2);
    /// ```
    #[must_use]
    pub fn metric(mut self, name: &str, unit: &str, better: Better, decimals: usize) -> Self {
        self.metrics.push(Metric { name: name.into(), unit: unit.into(), better, decimals });
        self
    }

    /// Records the figures of one arm and seed.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::{Better, Outcome, Role};
    /// let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
    /// outcome.record("plain", Role::Baseline, 0, &[("accuracy", 95.0)])?;
    /// let misspelt = outcome.record("plain", Role::Baseline, 1, &[("acuracy", 95.0)]);
    /// assert!(misspelt.is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a metric was not declared, or the arm has this seed already.
    pub fn record(&mut self, arm: &str, role: Role, seed: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut row = vec![None; self.metrics.len()];
        for &(name, value) in values {
            row[self.index(name)?] = Some(value);
        }
        let at = self.arms.iter().position(|a| a.name == arm).unwrap_or_else(|| {
            self.arms.push(Arm { name: arm.into(), role, runs: Vec::new() });
            self.arms.len() - 1
        });
        if self.arms[at].runs.iter().any(|r| r.seed == seed) {
            return Err(Error::value("Outcome", format!("arm `{arm}` has figures of seed {seed} already")));
        }
        self.arms[at].runs.push(Run { seed, values: row });
        Ok(())
    }

    /// Adds a statement to be judged.
    ///
    /// ```
    /// use shadegrad_models::papers::{Better, Expect, Outcome};
    /// let mut outcome = Outcome::new("digits", "two layers").metric("loss", "", Better::Lower, 3);
    /// outcome.compare("ours learns faster", "loss", ("ours", "plain"), Expect::Lower, "figure 2");
    /// assert_eq!(outcome.comparisons[0].method, "ours");
    /// ```
    pub fn compare(
        &mut self,
        claim: &str,
        metric: &str,
        (method, baseline): (&str, &str),
        expect: Expect,
        paper: &str,
    ) {
        self.comparisons.push(Comparison {
            claim: claim.into(),
            metric: metric.into(),
            method: method.into(),
            baseline: baseline.into(),
            expect,
            paper: paper.into(),
        });
    }

    /// Adds a note.
    ///
    /// ```
    /// use shadegrad_models::papers::Outcome;
    /// let mut outcome = Outcome::new("digits", "two layers");
    /// outcome.note("A tenth of the paper's epochs.");
    /// assert_eq!(outcome.notes.len(), 1);
    /// ```
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Mean and standard deviation (`None` with one seed) of `metric` over the seeds of `arm`; `None` if it was never
    /// measured there.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::{Better, Outcome, Role};
    /// # let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
    /// # for (seed, (a, b)) in [(90.0, 93.0), (91.0, 95.0), (92.0, 97.0)].into_iter().enumerate() {
    /// #     outcome.record("plain", Role::Baseline, seed as u64, &[("accuracy", a)])?;
    /// #     outcome.record("ours", Role::Method, seed as u64, &[("accuracy", b)])?;
    /// # }
    /// assert_eq!(outcome.mean("plain", "accuracy"), Some((91.0, Some(1.0)))); // of 90, 91 and 92
    /// assert_eq!(outcome.mean("plain", "loss"), None);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mean(&self, arm: &str, metric: &str) -> Option<(f64, Option<f64>)> {
        let m = self.index(metric).ok()?;
        let values: Vec<f64> =
            self.arms.iter().find(|a| a.name == arm)?.runs.iter().filter_map(|r| r.values[m]).collect();
        mean_and_deviation(&values)
    }

    /// What the runs say about `comparison`; `None` if the two arms share no seed with that figure.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::{Better, Outcome, Role};
    /// use shadegrad_models::papers::{Expect, Verdict};
    /// # let mut outcome = Outcome::new("digits", "two layers").metric("accuracy", "%", Better::Higher, 1);
    /// # for (seed, (a, b)) in [(90.0, 93.0), (91.0, 95.0), (92.0, 97.0)].into_iter().enumerate() {
    /// #     outcome.record("plain", Role::Baseline, seed as u64, &[("accuracy", a)])?;
    /// #     outcome.record("ours", Role::Method, seed as u64, &[("accuracy", b)])?;
    /// # }
    /// outcome.compare("ours is better", "accuracy", ("ours", "plain"), Expect::Higher, "+2 points");
    /// // Seed by seed 3, 4 and 5 points: two standard errors are 1.15.
    /// let finding = outcome.judge(&outcome.comparisons[0]).map(|f| (f.difference, f.spread, f.verdict));
    /// assert_eq!(finding, Some((4.0, Some(1.0), Verdict::Shown)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn judge(&self, comparison: &Comparison) -> Option<Finding> {
        let m = self.index(&comparison.metric).ok()?;
        let arm = |name: &str| self.arms.iter().find(|a| a.name == name);
        let (method, baseline) = (arm(&comparison.method)?, arm(&comparison.baseline)?);
        let differences: Vec<f64> = method
            .runs
            .iter()
            .filter_map(|r| {
                let other = baseline.runs.iter().find(|b| b.seed == r.seed)?;
                Some(r.values[m]? - other.values[m]?)
            })
            .collect();
        let (difference, spread) = mean_and_deviation(&differences)?;
        let seeds = differences.len();
        let verdict = match spread {
            None => Verdict::OneSeed,
            Some(s) => verdict(comparison.expect, difference, 2.0 * s / (seeds as f64).sqrt()),
        };
        Some(Finding { difference, spread, seeds, verdict })
    }

    fn index(&self, metric: &str) -> Result<usize> {
        self.metrics.iter().position(|m| m.name == metric).ok_or_else(|| {
            let known: Vec<&str> = self.metrics.iter().map(|m| m.name.as_str()).collect();
            Error::value("Outcome", format!("no metric `{metric}` was declared; there are {}", known.join(", ")))
        })
    }
}

/// `doubt` is two standard errors of `difference`.
fn verdict(expect: Expect, difference: f64, doubt: f64) -> Verdict {
    let (lead, decided) = match expect {
        Expect::Higher => (difference, difference.abs() > doubt),
        Expect::Lower => (-difference, difference.abs() > doubt),
        Expect::Within(margin) => {
            let room = margin - difference.abs();
            (room, room.abs() > doubt || (room == 0.0 && doubt == 0.0))
        }
    };
    match (decided, lead >= 0.0) {
        (true, true) => Verdict::Shown,
        (true, false) => Verdict::Opposite,
        (false, _) => Verdict::Undecided,
    }
}

fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let deviation =
        (values.len() > 1).then(|| (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
    Some((mean, deviation))
}

/// Gathers a curve for each arm and seed and draws the mean of each arm with the range over its seeds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curves {
    arms: Vec<(String, Vec<Vec<f64>>)>,
}

impl Curves {
    /// Adds the values of one seed, the first at 1.
    pub(crate) fn push(&mut self, arm: &str, values: Vec<f64>) {
        match self.arms.iter_mut().find(|a| a.0 == arm) {
            Some((_, seeds)) => seeds.push(values),
            None => self.arms.push((arm.into(), vec![values])),
        }
    }

    /// The chart: as far as all seeds of an arm go.
    pub(crate) fn chart(&self, title: &str, x: &str, y: &str) -> Chart {
        let mut chart = Chart::lines(title, x, y);
        for (name, seeds) in &self.arms {
            let len = seeds.iter().map(Vec::len).min().unwrap_or(0);
            let at = |i: usize| seeds.iter().map(move |s| s[i]);
            let points = (0..len).map(|i| ((i + 1) as f64, at(i).sum::<f64>() / seeds.len() as f64)).collect();
            let band = (seeds.len() > 1).then(|| {
                (0..len)
                    .map(|i| (at(i).fold(f64::INFINITY, f64::min), at(i).fold(f64::NEG_INFINITY, f64::max)))
                    .collect()
            });
            chart.series.push(Series { name: name.clone(), points, band });
        }
        chart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let mut o = Outcome::new("data", "setting").metric("accuracy", "%", Better::Higher, 1);
        for (seed, (a, b)) in [(50.0, 53.0), (51.0, 54.5), (52.0, 54.9)].into_iter().enumerate() {
            o.record("base", Role::Baseline, seed as u64, &[("accuracy", a)]).unwrap();
            o.record("method", Role::Method, seed as u64, &[("accuracy", b)]).unwrap();
        }
        o
    }

    #[test]
    fn differences_are_paired_by_seed() {
        let mut o = outcome();
        o.compare("helps", "accuracy", ("method", "base"), Expect::Higher, "+2");
        let f = o.judge(&o.comparisons[0]).unwrap();
        // Differences 3.0, 3.5, 2.9.
        assert!((f.difference - 9.4 / 3.0).abs() < 1e-12);
        assert!((f.spread.unwrap() - 0.321455).abs() < 1e-5);
        assert_eq!((f.seeds, f.verdict), (3, Verdict::Shown));
        assert_eq!(o.mean("base", "accuracy"), Some((51.0, Some(1.0))));
        assert_eq!(o.mean("none", "accuracy"), None);
    }

    #[test]
    fn verdicts() {
        use Verdict::{Opposite, Shown, Undecided};
        for (expect, difference, doubt, want) in [
            (Expect::Higher, 1.0, 0.5, Shown),
            (Expect::Higher, 1.0, 1.5, Undecided),
            (Expect::Higher, -1.0, 0.5, Opposite),
            (Expect::Lower, -1.0, 0.5, Shown),
            (Expect::Lower, 1.0, 0.5, Opposite),
            (Expect::Within(2.0), 0.5, 1.0, Shown),
            (Expect::Within(2.0), -1.5, 1.0, Undecided),
            (Expect::Within(2.0), -4.0, 1.0, Opposite),
            (Expect::Within(0.0), 0.0, 0.0, Shown),
        ] {
            assert_eq!(verdict(expect, difference, doubt), want, "{expect:?} {difference} {doubt}");
        }
    }

    #[test]
    fn mistakes_in_a_recipe_are_errors() {
        let mut o = outcome();
        let unknown = o.record("base", Role::Baseline, 9, &[("accurracy", 1.0)]).unwrap_err().to_string();
        assert!(unknown.contains("accurracy") && unknown.contains("there are accuracy"), "{unknown}");
        let twice = o.record("base", Role::Baseline, 0, &[]).unwrap_err().to_string();
        assert!(twice.contains("seed 0 already"), "{twice}");
    }

    #[test]
    fn curves_show_mean_and_range() {
        let mut c = Curves::default();
        c.push("a", vec![1.0, 2.0, 9.0]);
        c.push("a", vec![3.0, 6.0]);
        let chart = c.chart("t", "epoch", "y");
        assert_eq!(chart.series[0].points, [(1.0, 2.0), (2.0, 4.0)]);
        assert_eq!(chart.series[0].band.as_deref(), Some(&[(1.0, 3.0), (2.0, 6.0)][..]));
    }
}
