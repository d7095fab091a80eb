//! More random networks than the suite has: `cargo run --release -p shadegrad-conformance --example networks -- FIRST COUNT`.

use shadegrad::Options;
use shadegrad_conformance::{open, run_architecture};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let &[first, count] = &numbers[..] else { return Err("give the first network's number and how many".into()) };
    open(Options::from_env()?)?;
    let (mut failed, mut compared) = (0, 0);
    for n in first..first + count {
        match run_architecture(n) {
            Ok(steps) => compared += steps,
            Err(e) => {
                failed += 1;
                println!("{e}");
            }
        }
        if (n + 1 - first).is_multiple_of(100) {
            println!("{} networks, {compared} steps compared, {failed} failed", n + 1 - first);
        }
    }
    println!(
        "{count} networks from {first} on, three steps each, gradients of {compared} steps compared, {failed} failed"
    );
    if failed > 0 { Err("networks failed".into()) } else { Ok(()) }
}
