//! `shadegrad bench`: the kernels that training time is made of, by processor time and by the clock.

mod cases;
pub mod ceilings;

use std::time::Instant;

use anyhow::Result;
use cpu_time::ProcessTime;
use serde_json::{Value, json};
use shadegrad::{Class, Gpu, Options};

use crate::devices;
use crate::report::say;
use cases::{Case, cases};
use ceilings::Ceilings;

#[derive(clap::Args)]
pub struct Args {
    /// Products and convolutions and a few seconds instead of all families.
    #[arg(long)]
    quick: bool,
    /// First measure what the device can do at most in copies and in multiply-adds, and say how near each kernel comes.
    #[arg(long)]
    roofline: bool,
    /// A JSON array instead of a table.
    #[arg(long)]
    json: bool,
    /// Device by index or part of its name [default: the best]
    #[arg(long, value_name = "DEVICE")]
    adapter: Option<String>,
}

/// Measurements of each kernel, of which the fastest counts: the others were disturbed.
const ROUNDS: usize = 3;

pub fn run(args: &Args) -> Result<()> {
    let mut options = Options::from_env()?;
    // What is measured is what a release build runs.
    options.checked = options.checked.or(Some(false));
    if args.adapter.is_some() {
        options.adapter.clone_from(&args.adapter);
    }
    let gpu = Gpu::new(options)?;
    if !args.json {
        devices::announce(&gpu);
    }
    let seconds = if args.quick { 0.4 } else { 1.0 };
    let ceilings = if args.roofline { Some(Ceilings::measure(&gpu, seconds)?) } else { None };
    if !args.json {
        if let Some(ceilings) = &ceilings {
            say(ceilings.to_string());
        }
        let roof = if ceilings.is_some() { "  % of roofline" } else { "" };
        say(format!(
            "{:<28} {:>8} {:>8} {:>10} {:>9} {:>8} {:>16} {:>12}{roof}",
            "kernel", "GFLOP", "MB", "ms", "GFLOP/s", "GB/s", "GFLOP per CPU s", "GB per CPU s"
        ));
    }
    let mut rows = Vec::new();
    for case in cases(&gpu, args.quick)? {
        let times = measure(&gpu, seconds, &*case.run)?;
        let row = row(&gpu, &case, &times, ceilings.as_ref());
        if !args.json {
            let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
            let roof = match row["bound"].as_str() {
                Some(bound) => format!("  {:>4.0} of {bound}", 100.0 * number("share_of_roofline")),
                None => String::new(),
            };
            say(format!(
                "{:<28} {:>8.3} {:>8.2} {:>10.3} {:>9.1} {:>8.1} {:>16.2} {:>12.2}{roof}",
                case.name,
                number("gflop"),
                1e3 * number("gb"),
                1e3 * times.wall,
                number("gflop_per_s"),
                number("gb_per_s"),
                number("gflop_per_cpu_s"),
                number("gb_per_cpu_s")
            ));
        }
        rows.push(row);
    }
    if args.json {
        say(serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

/// What one call of a kernel takes: the least of several rounds of about `seconds` each.
struct Times {
    calls: usize,
    wall: f64,
    cpu: f64,
}

impl Times {
    /// What counts on this device: a software driver computes on the processor, whose time other programs share.
    fn counted(&self, gpu: &Gpu) -> f64 {
        if gpu.caps().class == Class::Software { self.cpu } else { self.wall }
    }
}

fn measure(gpu: &Gpu, seconds: f64, call: &dyn Fn() -> Result<()>) -> Result<Times> {
    // The first call compiles, the second fills the caches.
    for _ in 0..2 {
        call()?;
    }
    gpu.wait()?;
    let start = Instant::now();
    call()?;
    gpu.wait()?;
    let calls = (seconds / start.elapsed().as_secs_f64().max(1e-6)).clamp(1.0, 1e5) as usize;
    let (mut wall, mut cpu) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (clock, process) = (Instant::now(), ProcessTime::now());
        for _ in 0..calls {
            call()?;
        }
        gpu.wait()?;
        wall = wall.min(clock.elapsed().as_secs_f64() / calls as f64);
        cpu = cpu.min(process.elapsed().as_secs_f64() / calls as f64);
    }
    Ok(Times { calls: calls * ROUNDS, wall, cpu })
}

fn row(gpu: &Gpu, case: &Case, times: &Times, ceilings: Option<&Ceilings>) -> Value {
    let (gflop, gb) = (1e-9 * case.flop, 1e-9 * case.bytes);
    let mut row = json!({
        "name": case.name,
        "gflop": gflop,
        "gb": gb,
        "calls": times.calls,
        "wall_s": times.wall,
        "cpu_s": times.cpu,
        "gflop_per_s": gflop / times.wall,
        "gflop_per_cpu_s": gflop / times.cpu,
        "gb_per_s": gb / times.wall,
        "gb_per_cpu_s": gb / times.cpu,
        "device": gpu.description().name,
    });
    if let Some(ceilings) = ceilings {
        let (share, bound) = ceilings.share(case.flop, case.bytes, times.counted(gpu));
        row["share_of_roofline"] = share.into();
        row["bound"] = bound.into();
    }
    row
}
