//! More random programs than the suite has: `cargo run --release -p shadegrad-conformance --example programs -- FIRST COUNT`.
//! `guarded` behind that puts sentinels behind every buffer and NaN into fresh memory, as the suite does, and takes longer.

use std::time::Instant;

use shadegrad::{Gpu, Options};
use shadegrad_conformance::{Compared, run_programs};

/// Programs between two lines of a report.
const REPORT: u64 = 1600;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [first, count, rest @ ..] = &args[..] else {
        return Err("give the first program's number and how many".into());
    };
    let (first, count): (u64, u64) = (first.parse()?, count.parse()?);
    let sentinels = rest.iter().any(|a| a == "guarded");
    let gpu = Gpu::new(Options { sentinels, checked: Some(true), ..Options::from_env()? })?;
    let (start, mut failures, mut all) = (Instant::now(), 0, Compared::default());
    for from in (first..first + count).step_by(REPORT as usize) {
        let some = REPORT.min(first + count - from);
        all.add(&run_programs(&gpu, from, some, |e| {
            failures += 1;
            println!("{e}");
        })?);
        if sentinels {
            gpu.check_sentinels()?;
        }
        println!(
            "{} programs, {} operations forward, {} back, {failures} failed, {:.0} s",
            from + some - first,
            all.forward,
            all.backward,
            start.elapsed().as_secs_f64()
        );
    }
    let names: Vec<String> = all.by_name.iter().map(|(name, n)| format!("{name} {n}")).collect();
    println!("{} kinds of operations: {}", names.len(), names.join(", "));
    println!(
        "{count} programs from {first} on, {} operations forward, {} of them back, {failures} failed",
        all.forward, all.backward
    );
    if failures > 0 { Err("programs failed".into()) } else { Ok(()) }
}
