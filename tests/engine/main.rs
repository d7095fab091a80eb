//! Whole-engine tests: autograd, memory, layers, optimisers, training against references.

mod augment;
mod autograd;
mod checkpoint;
mod embed;
mod linalg;
mod memory;
mod nn;
mod optim;
mod params;
mod precision;
mod saved;
mod shapes;
mod spiking;
mod train;

use std::sync::OnceLock;

use shadegrad::{Gpu, Options};

/// The device of all tests here, chosen by the environment as everywhere.
pub fn gpu() -> Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new(Options::from_env().expect("environment")).expect("a GPU driver")).clone()
}
