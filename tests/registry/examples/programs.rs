//! More random programs than the suite has: `cargo run --release -p shadegrad-conformance --example programs -- FIRST COUNT`.

use std::time::Instant;

use shadegrad::Options;
use shadegrad_conformance::{open, run_program};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let number = |i| {
        std::env::args()
            .nth(i)
            .ok_or("give the first program's number and how many")?
            .parse::<u64>()
            .map_err(Box::<dyn std::error::Error>::from)
    };
    let (first, count) = (number(1)?, number(2)?);
    open(Options::from_env()?)?;
    let (start, mut failed, mut operations) = (Instant::now(), 0, 0);
    for n in first..first + count {
        match run_program(n) {
            Ok(ran) => operations += ran,
            Err(e) => {
                failed += 1;
                println!("{e}");
            }
        }
        if (n + 1 - first).is_multiple_of(1000) {
            println!(
                "{} programs, {operations} operations, {failed} failed, {:.0} s",
                n + 1 - first,
                start.elapsed().as_secs_f64()
            );
        }
    }
    println!("{count} programs from {first} on, {operations} operations forward and back, {failed} failed");
    if failed > 0 { Err("programs failed".into()) } else { Ok(()) }
}
