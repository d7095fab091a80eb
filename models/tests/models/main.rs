//! The architectures: sizes against the published ones, training against a reference of another framework, warm steps.

mod exchange;
mod sizes;
mod ten_losses;
mod warm;
mod weights_formula;

use std::sync::OnceLock;

use shadegrad::{Gpu, Options};

/// The device of all tests here, chosen by the environment as everywhere.
pub fn gpu() -> Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new(Options::from_env().expect("environment")).expect("a GPU driver")).clone()
}
