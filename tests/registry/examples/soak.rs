//! Training for long: `cargo run --release -p shadegrad-conformance --example soak -- 10000`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps = std::env::args().nth(1).map_or(Ok(10_000), |v| v.parse())?;
    shadegrad_conformance::soak(steps, |line| println!("{line}"))?;
    println!("{steps} steps: memory flat, every loss finite");
    Ok(())
}
