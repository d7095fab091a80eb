//! The operations, a file per family: shape rule, forward kernel and backward rule side by side. `docs/add-an-op.md` says
//! how to add one.

mod attention;
pub mod augment;
mod binary;
mod compact;
mod conv;
mod elementwise;
mod fft;
mod gather;
mod index;
mod linalg;
mod loss;
mod matmul;
mod norm;
mod parametric;
pub mod pixels;
mod pool;
mod random;
mod reduce;
mod resize;
mod scan;
mod softmax;
mod sparse;
mod spiking;
pub mod window;

pub use attention::Attention;
pub use compact::Quantizer;
pub use conv::Conv2d;
pub use fft::FftNorm;
pub use loss::{CrossEntropy, Reduction};
pub use norm::BatchNorm;
pub use pool::Pool2d;
pub use resize::Outside;
pub use sparse::SparsePattern;
pub use spiking::{LifOptions, Reset, Surrogate};
