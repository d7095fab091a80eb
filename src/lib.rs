//! Reverse-mode autograd on handwritten WGSL compute shaders: training on any Vulkan, Metal or DX12 GPU.
#![deny(missing_docs, unreachable_pub, unsafe_code)]
// Bad input is an error, never a panic: what could panic is refused by the compiler. Tests may.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)
)]

mod error;
mod nearest;
mod ops;
mod precision;
mod sharing;
mod tensor;

pub mod autograd;
pub mod data;
#[cfg(feature = "weights")]
pub mod io;
pub mod metrics;
pub mod nn;
pub mod optim;
pub mod rng;
pub mod train;

pub use error::{Error, Result};
pub use nearest::did_you_mean;
pub use ops::{Attention, BatchNorm, CrossEntropy, Quantizer, Reduction, SparsePattern};
pub use ops::{Conv2d, FftNorm, LifOptions, Outside, Pool2d, Reset, Surrogate, augment, pixels, window};
pub use precision::Precision;
pub use shadegrad_kernels as kernels;
pub use shadegrad_kernels::wgpu;
pub use shadegrad_kernels::{Caps, Class, Gpu, Options};
pub use sharing::Readback;
pub use tensor::{DType, MAX_RANK, Tensor};

/// The examples of the README, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// The example of the page on adding an operation, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/add-an-op.md")]
pub struct AddAnOp;

/// The examples of the page on embedding, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
pub struct Embedding;
