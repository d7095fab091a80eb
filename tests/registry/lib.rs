//! What a device must compute to be trusted, as a list of checks by name.
//!
//! The registry: every operation at every row is held against its f64 oracle (values, sentinels, determinism), its gradients
//! against central differences of the oracle, and the gradients of its gradients against mixed differences, named
//! `family/row/aspect`. Beside it the hazards of drivers, the device's memory, repeatability, and a short training.
//!
//! `cargo test --test registry` runs them as tests, `shadegrad verify` on the device of whoever asks.
#![deny(unsafe_code)]

mod architectures;
mod attention;
mod case;
mod check;
mod compact;
mod conv;
mod device;
mod elementwise;
mod faults;
mod fft;
mod hazards;
mod index;
mod linalg;
mod loss;
mod matmul;
mod mixed;
mod norm;
pub mod oracle;
mod parametric;
mod pool;
mod programs;
mod random;
mod reduce;
mod resize;
mod scan;
mod softmax;
mod sparse;
mod spiking;
mod training;

pub use architectures::run as run_architecture;
pub use case::open;
pub use check::{Check, Failed, Outcome};
pub use programs::{Compared, run_programs};
pub use training::soak;

fn cases() -> Vec<case::Case> {
    [
        attention::cases(),
        compact::cases(),
        conv::cases(),
        elementwise::cases(),
        fft::cases(),
        index::cases(),
        linalg::cases(),
        loss::cases(),
        matmul::cases(),
        mixed::cases(),
        norm::cases(),
        parametric::cases(),
        pool::cases(),
        random::cases(),
        reduce::cases(),
        resize::cases(),
        scan::cases(),
        softmax::cases(),
        sparse::cases(),
        spiking::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The names of the registry's rows.
pub fn rows() -> Vec<String> {
    cases().iter().map(|c| c.name().to_string()).collect()
}

/// Names and texts of the kernels that checks bring along.
pub fn user_kernels() -> Vec<(&'static str, &'static str)> {
    vec![hazards::DIVIDE]
}

/// All checks: those of the registry's rows, then those of the device and of training.
pub fn suite() -> Vec<Check> {
    let mut all: Vec<Check> = cases().into_iter().flat_map(case::Case::checks).collect();
    all.extend(programs::checks());
    all.extend(architectures::checks());
    all.extend(hazards::checks());
    all.extend(device::checks());
    all.extend(faults::checks());
    all.extend(training::checks());
    all
}

/// The operations recorded by the sources in `folder` (the engine's `src/ops`) that came out of none of the checks run so far.
///
/// # Panics
/// If the folder cannot be read.
pub fn operations_without_a_row(folder: &std::path::Path) -> Vec<String> {
    case::uncovered(folder, &rows())
}
