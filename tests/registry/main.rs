//! The op registry: every operation at every row is held against its f64 oracle (values, sentinels, determinism), its
//! gradients against central differences of the oracle, and the gradients of its gradients against mixed differences.
//!
//! One test per row and aspect, named `family/row/aspect`; `cargo test --test registry -- conv` runs a family.

mod attention;
mod case;
mod conv;
mod elementwise;
mod fft;
mod index;
mod linalg;
mod loss;
mod matmul;
mod norm;
// Shared with `tests/oracles`, which uses all of it.
#[allow(dead_code)]
mod oracle;
mod parametric;
mod pool;
mod random;
mod reduce;
mod resize;
mod scan;
mod softmax;
mod sparse;
mod spiking;

use libtest_mimic::Arguments;

fn main() {
    let args = Arguments::from_args();
    let cases: Vec<case::Case> = [
        attention::cases(),
        conv::cases(),
        elementwise::cases(),
        fft::cases(),
        index::cases(),
        linalg::cases(),
        loss::cases(),
        matmul::cases(),
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
    .collect();
    let rows: Vec<String> = cases.iter().map(|c| c.name().to_string()).collect();
    let filtered = args.filter.is_some() || !args.skip.is_empty() || args.list;
    let trials = cases.into_iter().flat_map(case::Case::trials).collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if !args.list {
        println!("registry rows: {}", rows.len());
    }
    if !filtered && !case::all_ops_covered(&rows) {
        std::process::exit(101);
    }
    conclusion.exit();
}
