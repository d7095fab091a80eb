//! Host side of shadegrad's kernels: the device, its memory, pipelines, dispatch and profiling, and one module of plain
//! functions per kernel family. There is no autograd here and no tensor: functions take [`Storage`]s and sizes.
//!
//! ```
//! use shadegrad_kernels::{Gpu, Options, reduce};
//! let gpu = Gpu::new(Options::from_env()?)?;
//! let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0], "x")?;
//! let sum = gpu.alloc(4, "sum")?;
//! reduce::reduce(&gpu, reduce::Reduce::Sum, &x, &sum, [1, 3, 1], 1.0)?;
//! assert_eq!(gpu.read_as::<f32>(&sum)?, [6.0]);
//! # Ok::<(), shadegrad_kernels::GpuError>(())
//! ```
#![deny(missing_docs, unsafe_code)]
// Bad input is an error, never a panic: what could panic is refused by the compiler. Tests may.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)
)]

mod adapter;
mod disk;
mod embed;
mod error;
mod fault;
mod gpu;
mod inject;
mod memory;
mod pipeline;
mod plan;
mod profile;
mod recorder;
mod team;
mod trace;
mod transfer;
mod user;
mod warm;

pub mod attention;
pub mod augment;
pub mod cast;
pub mod change;
pub mod compact;
pub mod conv;
pub mod elementwise;
pub mod fft;
pub mod fill;
pub mod gather;
pub mod index;
pub mod linalg;
pub mod loss;
pub mod magnitude;
pub mod matmul;
pub mod mixed;
pub mod norm;
pub mod optim;
pub mod parametric;
pub mod pixels;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod resize;
pub mod scan;
pub mod softmax;
pub mod sparse;
pub mod spiking;
pub mod window;

pub use adapter::{AdapterDescription, Caps, Class, Disabled, Options};
pub use error::GpuError;
pub use gpu::Gpu;
pub use memory::{MemoryReport, Storage};
pub use plan::Plan;
pub use profile::{KernelTime, Profile};
pub use recorder::{Counters, Gathering};
pub use trace::Event;
pub use transfer::PendingRead;
pub use user::UserKernel;
pub use warm::Kernels;
pub use wgpu;

/// `Result` with this crate's [`GpuError`].
///
/// ```
/// # use shadegrad_kernels::{Gpu, Options, fill};
/// fn ones(gpu: &Gpu, n: usize) -> shadegrad_kernels::Result<Vec<f32>> {
///     let x = gpu.alloc(4 * n as u64, "ones")?;
///     fill::f32(gpu, &x, n, 1.0)?;
///     gpu.read_as(&x)
/// }
/// assert_eq!(ones(&Gpu::new(Options::from_env()?)?, 3)?, [1.0; 3]);
/// # Ok::<(), shadegrad_kernels::GpuError>(())
/// ```
pub type Result<T, E = GpuError> = std::result::Result<T, E>;
