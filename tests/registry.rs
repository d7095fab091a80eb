//! The conformance suite as tests, one per check: `cargo test --test registry -- conv` runs a family. The checks themselves are
//! the crate in `tests/registry/`, which `shadegrad verify` runs on a user's own device.

use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use shadegrad_conformance::{operations_without_a_row, rows, suite};

fn main() {
    let args = Arguments::from_args();
    let filtered = args.filter.is_some() || !args.skip.is_empty() || args.list;
    // What a device refuses is a failure here: the drivers that the tests are run on have all that is asked for.
    let trials = suite()
        .into_iter()
        .map(|check| Trial::test(check.name().to_string(), || check.run().map_err(|e| Failed::from(e.to_string()))))
        .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if !args.list {
        println!("registry rows: {}", rows().len());
    }
    if !filtered {
        let missing = operations_without_a_row(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops"));
        if !missing.is_empty() {
            println!("operations without a row: {}", missing.join(", "));
            std::process::exit(101);
        }
    }
    conclusion.exit();
}
