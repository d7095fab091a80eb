//! The same training steps on shadegrad and on burn, one after the other in one process, by processor time and by the clock.
//!
//! `cargo run --manifest-path benches/peers/Cargo.toml -- [STEP..]` with the names of `models/benches/training`; all without
//! any. With `--features vulkan` burn compiles to SPIR-V. On a GPU the clock counts, on a software driver processor time.

#[path = "../../../models/benches/training/mod.rs"]
mod training;

mod networks;
mod windows;

use std::error::Error;
use std::time::Instant;

use cpu_time::ProcessTime;
use shadegrad::{Gpu, Options};

/// Seconds of one call.
#[derive(Clone, Copy)]
struct Seconds {
    cpu: f64,
    wall: f64,
}

impl Seconds {
    fn of(call: impl FnOnce()) -> Self {
        let (cpu, wall) = (ProcessTime::now(), Instant::now());
        call();
        Self { cpu: cpu.elapsed().as_secs_f64(), wall: wall.elapsed().as_secs_f64() }
    }
}

/// The first step, with all that is compiled and tuned in it; the least of the warm ones, since other work only adds; the
/// median of the warm ones.
struct Times {
    first: Seconds,
    least: Seconds,
    median: Seconds,
}

const WARM: usize = 9;

/// Times a step, which returns when the device has done it.
fn times(mut step: impl FnMut()) -> Times {
    let first = Seconds::of(&mut step);
    // The second may still fill caches or tune.
    step();
    let warm: Vec<Seconds> = (0..WARM).map(|_| Seconds::of(&mut step)).collect();
    let nth = |n: usize, of: fn(&Seconds) -> f64| {
        let mut all: Vec<f64> = warm.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[n]
    };
    let at = |n| Seconds { cpu: nth(n, |s| s.cpu), wall: nth(n, |s| s.wall) };
    Times { first, least: at(0), median: at(WARM / 2) }
}

fn print(name: &str, engine: &str, flop: f64, t: &Times) {
    println!(
        "{name:<18} {engine:<10} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.2} {:>9.2}",
        t.first.cpu,
        t.least.cpu,
        t.median.cpu,
        t.median.wall,
        1e-9 * flop / t.least.cpu,
        1e-9 * flop / t.least.wall
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|w| !training::NAMES.contains(&w.as_str())) {
        return Err(format!("`{unknown}` is none of {}", training::NAMES.join(", ")).into());
    }
    let gpu = Gpu::new(Options { checked: Some(false), ..Options::from_env()? })?;
    let device = networks::device();
    println!("shadegrad on {}; burn 0.22.1 on {device:?}", gpu.description().name);
    println!(
        "{:<18} {:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "step", "engine", "first cpu", "least cpu", "median", "wall", "GF/cpu s", "GF/s"
    );
    for name in training::NAMES.into_iter().filter(|n| wanted.is_empty() || wanted.iter().any(|w| w == n)) {
        let mut step = training::step(&gpu, name)?;
        let flop = step.flop;
        let ours = times(|| step.run().and_then(|()| Ok(gpu.wait()?)).expect("the step runs"));
        print(name, "shadegrad", flop, &ours);
        let mut step = networks::step(name, &device);
        let theirs = times(|| {
            step();
            device.sync().expect("the step runs");
        });
        print(name, "burn", flop, &theirs);
        println!(
            "{name:<18} burn/shadegrad: first {:.1}, least {:.1}, median {:.1} by processor time; {:.1} by the clock",
            theirs.first.cpu / ours.first.cpu,
            theirs.least.cpu / ours.least.cpu,
            theirs.median.cpu / ours.median.cpu,
            theirs.median.wall / ours.median.wall
        );
    }
    Ok(())
}
