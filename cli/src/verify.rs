//! `shadegrad verify`: the conformance suite on the user's own device.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use shadegrad::{Gpu, Options};
use shadegrad_conformance::{Check, Failed, open, suite};

use crate::report::say;
use crate::{date, devices, folder};

/// Failures beyond this many are only in the file.
const SHOWN: usize = 20;

#[derive(clap::Args)]
pub struct Args {
    /// Only checks whose name contains this, such as `conv` or `hazards`.
    filter: Option<String>,
    /// Device by index or part of its name [default: the best]
    #[arg(long, value_name = "DEVICE")]
    adapter: Option<String>,
    /// Search OpenGL devices, too.
    #[arg(long)]
    gl: bool,
    /// Write all results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Checks at a time [default: one per core, up to 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

/// A check that has run.
struct Row {
    name: String,
    family: String,
    outcome: Result<(), Failed>,
    seconds: f64,
}

impl Row {
    fn state(&self) -> &'static str {
        match self.outcome {
            Ok(()) => "passed",
            Err(Failed::Wrong(_)) => "failed",
            Err(Failed::Refused(_)) => "skipped",
        }
    }

    fn reason(&self) -> Option<&str> {
        match &self.outcome {
            Ok(()) => None,
            Err(Failed::Wrong(text) | Failed::Refused(text)) => Some(text),
        }
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut options = Options::from_env()?;
    if args.adapter.is_some() {
        options.adapter.clone_from(&args.adapter);
    }
    options.gl |= args.gl;
    let gpu = open(options)?;
    let filter = args.filter.as_deref().unwrap_or_default();
    let checks: Vec<Check> = suite().into_iter().filter(|c| c.name().contains(filter)).collect();
    anyhow::ensure!(!checks.is_empty(), "no check's name contains {filter:?}; `shadegrad verify` runs all");
    if let Some(path) = &args.json {
        // Before the minutes that the suite takes, not after.
        folder::write(path, b"{}").with_context(|| format!("results cannot be written to {}", path.display()))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores.min(8), usize::from);
    devices::announce(&gpu);
    say(format!("{} checks, {threads} at a time; environment: {}", checks.len(), environment()));
    let start = Instant::now();
    let mut rows = run_all(checks, threads);
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let seconds = start.elapsed().as_secs_f64();

    let count = |state| rows.iter().filter(|r| r.state() == state).count();
    let (passed, failed, skipped) = (count("passed"), count("failed"), count("skipped"));
    print_table(&gpu, &rows, seconds);
    if let Some(path) = &args.json {
        let list: Vec<_> = rows
            .iter()
            .map(|r| json!({ "name": r.name, "state": r.state(), "reason": r.reason(), "seconds": r.seconds }))
            .collect();
        let object = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "date": date::now(),
            "device": devices::json(gpu.description()),
            "environment": environment(),
            "seconds": seconds,
            "passed": passed,
            "failed": failed,
            "skipped": skipped,
            "rows": list,
        });
        folder::write(path, serde_json::to_string_pretty(&object)?.as_bytes())?;
        say(format!("all results: {}", path.display()));
    }
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} checks failed: on this device and driver, results of these operations cannot be trusted. Update the \
         driver, and if they still fail, open an issue with the table above",
        rows.len()
    );
    Ok(())
}

/// The variables that change what is run, as `NAME=value`.
fn environment() -> String {
    let set: Vec<String> = ["DISABLE", "LIMITS", "CLASS", "MEMORY_LIMIT", "MAX_GRID"]
        .iter()
        .map(|name| format!("SHADEGRAD_{name}"))
        .filter_map(|name| std::env::var(&name).ok().filter(|v| !v.is_empty()).map(|v| format!("{name}={v}")))
        .collect();
    if set.is_empty() { "as the device offers".into() } else { set.join(" ") }
}

/// Runs the checks on several threads: a device's work is quick, the references in double precision take the time.
fn run_all(checks: Vec<Check>, threads: usize) -> Vec<Row> {
    let bar = if std::io::stderr().is_terminal() {
        let bar = ProgressBar::new(checks.len() as u64);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {eta}");
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    } else {
        ProgressBar::hidden()
    };
    // Assertions that fail are results here, not panics to be printed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let (all, failed) = (checks.len(), AtomicUsize::new(0));
    let queue = Mutex::new(checks.into_iter());
    let rows = Mutex::new(Vec::with_capacity(all));
    let said = Mutex::new(Instant::now());
    let work = || {
        while let Some(check) = lock(&queue).next() {
            let (name, family) = (check.name().to_string(), check.family().to_string());
            let start = Instant::now();
            let outcome = check.run();
            let row = Row { name, family, outcome, seconds: start.elapsed().as_secs_f64() };
            if row.state() == "failed" {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            bar.inc(1);
            bar.set_message(format!("{} failed", failed.load(Ordering::Relaxed)));
            lock(&rows).push(row);
            let mut said = lock(&said);
            if bar.is_hidden() && said.elapsed() > Duration::from_secs(10) {
                *said = Instant::now();
                say(format!("{} of {all} done, {} failed", lock(&rows).len(), failed.load(Ordering::Relaxed)));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    std::panic::set_hook(hook);
    bar.finish_and_clear();
    rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A table by families, fit to be pasted into a bug report, and what failed.
fn print_table(gpu: &Gpu, rows: &[Row], seconds: f64) {
    let mut families: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for row in rows {
        let at = ["passed", "failed", "skipped"].iter().position(|s| *s == row.state()).unwrap_or_default();
        families.entry(&row.family).or_default()[at] += 1;
    }
    say(format!("\nshadegrad {} verify, {}", env!("CARGO_PKG_VERSION"), date::now()));
    say(format!("{}\n", gpu.description()));
    say("| family | passed | failed | skipped |\n|---|---:|---:|---:|");
    let mut total = [0; 3];
    for (family, counts) in families {
        say(format!("| {family} | {} | {} | {} |", counts[0], counts[1], counts[2]));
        total.iter_mut().zip(counts).for_each(|(t, c)| *t += c);
    }
    say(format!("| **all** | {} | {} | {} |\n\n{seconds:.0} s", total[0], total[1], total[2]));
    for (state, title) in [("failed", "failed"), ("skipped", "refused by this device")] {
        let these: Vec<&Row> = rows.iter().filter(|r| r.state() == state).collect();
        if these.is_empty() {
            continue;
        }
        say(format!("\n{title}:"));
        for row in these.iter().take(SHOWN) {
            say(format!("- {}: {}", row.name, row.reason().unwrap_or_default()));
        }
        if these.len() > SHOWN {
            say(format!("- and {} more (`--json FILE` keeps all)", these.len() - SHOWN));
        }
    }
}
