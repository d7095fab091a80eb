//! What the dashboard shows: figures and curves, without a terminal.

use shadegrad::kernels::Profile;
use shadegrad::train::{EpochEnd, Progress};

use crate::runs::Log;

/// Points of a curve; beyond them every second one goes.
const POINTS: usize = 1024;
/// Lines that are kept for when the terminal is given back.
const LINES: usize = 1000;

/// A curve that stays short however long the run is.
#[derive(Clone, Debug)]
pub struct Curve {
    pub points: Vec<(f64, f64)>,
    /// One of so many points is taken.
    every: usize,
    seen: usize,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), every: 1, seen: 0 }
    }
}

impl Curve {
    /// The next point, if it is finite.
    pub fn push(&mut self, x: f64, y: f64) {
        if !(x.is_finite() && y.is_finite()) {
            return;
        }
        if self.seen.is_multiple_of(self.every) {
            self.points.push((x, y));
        }
        self.seen += 1;
        if self.points.len() >= POINTS {
            let mut i = 0;
            self.points.retain(|_| {
                i += 1;
                i % 2 == 1
            });
            self.every *= 2;
        }
    }
}

/// A kernel in the step that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub count: u64,
    pub ms: f64,
    /// Share of all kernels.
    pub share: f64,
}

/// What is known of the kernels' times.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Kernels {
    /// Nothing yet.
    #[default]
    Waiting,
    /// The device measures no times.
    Never,
    /// Those of a step, slowest first.
    Step { step: u64, ms: f64, rows: Vec<Row> },
}

/// The last progress.
#[derive(Clone, Debug, Default)]
pub struct Now {
    pub step: u64,
    pub epoch: u64,
    pub epochs: u64,
    pub loss: f64,
    pub lr: f64,
    pub rate: f64,
    pub seconds: f64,
    pub left: f64,
    pub data_wait: f64,
    pub live: u64,
    pub peak: u64,
}

/// All that is shown.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub title: String,
    pub steps: u64,
    pub now: Option<Now>,
    pub loss: Curve,
    pub test_loss: Curve,
    pub accuracy: Curve,
    pub rate: Curve,
    /// Highest test accuracy and its epoch.
    pub best: Option<(f64, u64)>,
    pub kernels: Kernels,
    /// What would have been printed.
    pub lines: Vec<String>,
    /// Grows with every change.
    pub version: u64,
}

impl State {
    /// A run of `steps` steps, with what it recorded before it was interrupted.
    pub fn new(title: String, steps: u64, log: &Log) -> Self {
        let mut state = Self { title, steps, ..Self::default() };
        for s in &log.steps {
            state.loss.push(s.step as f64, s.loss);
        }
        for e in &log.epochs {
            state.tested(e.epoch, e.step, e.test_loss, e.accuracy);
        }
        state
    }

    fn tested(&mut self, epoch: u64, step: u64, loss: f64, accuracy: f64) {
        self.test_loss.push(step as f64, loss);
        self.accuracy.push(epoch as f64, 100.0 * accuracy);
        if accuracy.is_finite() && self.best.is_none_or(|(best, _)| accuracy > best) {
            self.best = Some((accuracy, epoch));
        }
    }

    pub fn progress(&mut self, p: &Progress, live: u64) {
        self.version += 1;
        self.steps = p.steps;
        self.loss.push(p.step as f64, p.loss);
        self.rate.push(p.step as f64, p.rate);
        self.now = Some(Now {
            step: p.step,
            epoch: p.epoch,
            epochs: p.epochs,
            loss: p.loss,
            lr: f64::from(p.lr),
            rate: p.rate,
            seconds: p.seconds,
            left: p.left,
            data_wait: p.data_wait,
            live,
            peak: p.memory,
        });
    }

    pub fn epoch(&mut self, end: &EpochEnd) {
        self.version += 1;
        if let Some(test) = &end.test {
            self.tested(end.epoch, end.step, test.loss, test.accuracy);
        }
    }

    pub fn kernels(&mut self, step: u64, profile: Option<&Profile>) {
        self.version += 1;
        let Some(profile) = profile else {
            self.kernels = Kernels::Never;
            return;
        };
        let total = profile.seconds();
        let row = |k: &shadegrad::kernels::KernelTime| Row {
            name: k.name.clone(),
            count: k.count,
            ms: 1e3 * k.seconds,
            share: k.seconds / total.max(f64::MIN_POSITIVE),
        };
        let rows = profile.kernels.iter().map(row).collect();
        self.kernels = Kernels::Step { step, ms: 1e3 * total, rows };
    }

    pub fn line(&mut self, text: &str) {
        self.version += 1;
        if self.lines.len() >= LINES {
            self.lines.remove(0);
        }
        self.lines.extend(text.lines().map(String::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_stay_short_and_keep_their_shape() {
        let mut curve = Curve::default();
        for i in 0..100_000 {
            curve.push(f64::from(i), 2.0 * f64::from(i));
        }
        curve.push(f64::NAN, 1.0);
        assert!((POINTS / 2 - 1..POINTS).contains(&curve.points.len()), "{}", curve.points.len());
        assert_eq!(curve.points[0], (0.0, 0.0));
        assert!(curve.points.last().is_some_and(|p| p.0 > 99_000.0));
        assert!(curve.points.windows(2).all(|w| w[0].0 < w[1].0 && w[1].1 == 2.0 * w[1].0));
        let gap = curve.points[1].0;
        assert!(curve.points.windows(2).all(|w| w[1].0 - w[0].0 == gap), "the points stand at equal distances");
    }

    #[test]
    fn lines_are_kept_up_to_a_number() {
        let mut state = State::default();
        for i in 0..LINES + 10 {
            state.line(&i.to_string());
        }
        assert_eq!((state.lines.len(), state.lines[0].as_str()), (LINES, "10"));
    }
}
