//! What a run shows and writes: a bar or a dashboard on a terminal, plain lines elsewhere, and metrics.jsonl.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use shadegrad::nn::Arena;
use shadegrad::train::{EpochEnd, Flow, Hooks, Pause, Place, Progress};
use shadegrad::{Error, Gpu, Result};

use crate::dashboard::Dashboard;
use crate::journal::Journal;

/// Lines in a file come at most this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The kernels of a step are measured for the dashboard at most this often, and so seldom that it takes less than one part
/// in [`SHARE`] of the time: a measured step waits for the device and gives every kernel a pass of its own.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
const SHARE: u32 = 50;
/// Steps before the first measurement: those compile kernels.
const WARM: u32 = 3;

/// Records that end a run.
const LAST: [&str; 3] = ["end", "error", "interrupted"];

/// Prints a line. A closed pipe does not end a run that may have lasted for days.
pub fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Shows and records a run.
pub struct Reporter<'a> {
    gpu: Gpu,
    file: File,
    path: PathBuf,
    bar: Option<ProgressBar>,
    dashboard: Option<Dashboard>,
    measuring: Measuring,
    said: Option<Instant>,
    /// Whether the time of the first step was said.
    compiled: bool,
    journal: Journal<'a>,
}

/// When the kernels of a step are measured.
enum Measuring {
    /// After so many steps.
    Steps(u32),
    /// From then on.
    At(Instant),
    /// Since then.
    Since(Instant),
    /// Not: the device has no timestamps.
    Never,
}

impl<'a> Reporter<'a> {
    /// Makes metrics.jsonl in `out`, or goes on with the one that is there, besides what `journal` writes. Shows the run on
    /// the dashboard, if there is one.
    pub fn new(gpu: &Gpu, out: &Path, journal: Journal<'a>, dashboard: Option<Dashboard>) -> anyhow::Result<Self> {
        let path = out.join("metrics.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, &e))?;
        let bar = (dashboard.is_none() && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let measuring = if gpu.caps().timestamps { Measuring::Steps(WARM) } else { Measuring::Never };
        if let (Measuring::Never, Some(dashboard)) = (&measuring, &dashboard) {
            dashboard.kernels(0, None);
        }
        Ok(Self { gpu: gpu.clone(), file, path, bar, dashboard, measuring, said: None, compiled: false, journal })
    }

    /// The dashboard, while it has the terminal.
    fn attached(&self) -> Option<&Dashboard> {
        self.dashboard.as_ref().filter(|d| d.attached())
    }

    /// Measures the kernels of a step now and then, from one pause to the next.
    fn measure(&mut self, place: Place, step: u64) -> Result<()> {
        self.measuring = match self.measuring {
            Measuring::Since(start) => {
                let profile = self.gpu.profile()?;
                if let (Place::Step, Some(dashboard)) = (place, self.attached()) {
                    dashboard.kernels(step, Some(&profile));
                }
                Measuring::At(Instant::now() + MEASURE_EVERY.max(start.elapsed() * SHARE))
            }
            _ if place != Place::Step || self.attached().is_none() => return Ok(()),
            Measuring::Steps(n @ 1..) => Measuring::Steps(n - 1),
            Measuring::At(due) if due > Instant::now() => return Ok(()),
            Measuring::Steps(0) | Measuring::At(_) => {
                self.gpu.start_profile()?;
                Measuring::Since(Instant::now())
            }
            Measuring::Never => return Ok(()),
        };
        Ok(())
    }

    /// One line of metrics.jsonl. The report follows when it is the run's last one.
    pub fn write(&mut self, record: &Value) -> Result<()> {
        writeln!(self.file, "{record}").map_err(|e| Error::Io {
            path: self.path.clone(),
            detail: format!("{e}; make room, or choose another folder with --out"),
        })?;
        if record["event"].as_str().is_some_and(|e| LAST.contains(&e)) { self.journal.refresh() } else { Ok(()) }
    }

    /// A line that stays, above the bar.
    fn line(&self, text: &str) {
        match (&self.bar, &self.dashboard) {
            (Some(bar), _) => bar.suspend(|| say(text)),
            (None, Some(dashboard)) => dashboard.line(text),
            (None, None) => say(text),
        }
    }

    /// Shows how far `compile` is, which gets what it is to tell it to, and how long it took.
    pub fn warm_up(&self, compile: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<usize>) -> Result<()> {
        let start = Instant::now();
        let kernels = compile(&mut |made, all| {
            if let Some(bar) = &self.bar {
                bar.set_length(all as u64);
                bar.set_position(made as u64);
                bar.set_message("kernels compiled");
            }
        })?;
        if let Some(bar) = &self.bar {
            bar.reset();
        }
        self.line(&format!("{kernels} kernels compiled: {:.1} s", start.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Removes the bar or the dashboard.
    pub fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(dashboard) = &mut self.dashboard {
            dashboard.close();
        }
    }
}

impl Hooks for Reporter<'_> {
    fn progress(&mut self, now: &Progress) -> Result<()> {
        if !self.compiled {
            self.compiled = true;
            self.line(&format!("first step: {:.1} s", now.seconds));
        }
        let text = format!(
            "epoch {}/{}  loss {:.4}  lr {:.3e}  {:.0} images/s  left {}  data wait {:.0} %  memory {}",
            now.epoch,
            now.epochs,
            now.loss,
            now.lr,
            now.rate,
            duration(now.left),
            100.0 * now.data_wait,
            bytes(now.memory)
        );
        if let Some(bar) = &self.bar {
            bar.set_length(now.steps);
            bar.set_position(now.step);
            bar.set_message(text);
        } else if let Some(dashboard) = self.attached() {
            dashboard.progress(now, self.gpu.memory().live);
        } else if self.said.is_none_or(|t| t.elapsed() > LINE_EVERY) {
            say(format!("step {}/{}  {text}", now.step, now.steps));
            self.said = Some(Instant::now());
        }
        Ok(())
    }

    fn record(&mut self, now: &Progress) -> Result<()> {
        self.write(&json!({
            "event": "step",
            "step": now.step,
            "epoch": now.epoch,
            "loss": now.loss,
            "lr": now.lr,
            "time": {
                "seconds": now.seconds,
                "images_per_s": now.rate,
                "data_wait": now.data_wait,
                "memory_bytes": now.memory,
            },
        }))
    }

    fn pause(&mut self, now: &mut Pause) -> Result<()> {
        if self.dashboard.is_some() {
            self.measure(now.place, now.step)?;
        }
        Ok(())
    }

    fn epoch(&mut self, end: &EpochEnd, arena: &mut Arena) -> Result<Flow> {
        let mut text = format!("epoch {}/{}  train loss {:.4}", end.epoch, end.epochs, end.train_loss);
        let mut record = json!({
            "event": "epoch",
            "epoch": end.epoch,
            "step": end.step,
            "train_loss": end.train_loss,
            "time": { "seconds": end.seconds, "images_per_s": end.rate },
        });
        if let Some(test) = &end.test {
            text += &format!("  test loss {:.4}  test accuracy {:.2} %", test.loss, 100.0 * test.accuracy);
            record["test"] = json!({
                "count": test.count,
                "loss": test.loss,
                "accuracy": test.accuracy,
                "top5": test.top5,
                "ece": test.ece,
                "brier": test.brier,
            });
        }
        text += &format!("  {:.0} images/s  {}", end.rate, duration(end.seconds));
        self.line(&text);
        if let Some(dashboard) = self.attached() {
            dashboard.epoch(end);
        }
        self.said = Some(Instant::now());
        self.write(&record)?;
        self.journal.epoch(end, arena)?;
        Ok(Flow::Continue)
    }
}

/// `12.3 s`, `4:05` or `2:04:05`.
pub fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let s = seconds.round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// `640 KiB`, `12 MiB` or `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..0x10_0000 => format!("{} KiB", n.div_ceil(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{} MiB", n.div_ceil(1 << 20)),
        _ => format!("{:.1} GiB", n as f64 / f64::from(1 << 30)),
    }
}

/// `1,234,567`.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([duration(3.21), duration(65.0), duration(7445.0)], ["3.2 s", "1:05", "2:04:05"]);
        assert_eq!([bytes(1), bytes(5 << 20), bytes(3 << 29)], ["1 KiB", "5 MiB", "1.5 GiB"]);
        assert_eq!(
            [thousands(7), thousands(999), thousands(1000), thousands(272_474)],
            ["7", "999", "1,000", "272,474"]
        );
    }
}
