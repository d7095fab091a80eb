//! The engine's one error type. Every message names the operation, the shapes (or file) and the remedy.

use std::path::PathBuf;

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the engine. Match on the variant; print it for a person.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes, axes or sizes that do not fit the operation.
    #[error("{op}: {detail}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shapes found, those wanted, and what to do.
        detail: String,
    },
    /// An operand of the wrong element type.
    #[error("{op}: {detail}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The type found, the one wanted, and what to do.
        detail: String,
    },
    /// A value outside what the operation takes (a probability above one, a negative rate).
    #[error("{op}: {detail}")]
    Value {
        /// The operation.
        op: &'static str,
        /// The value found, the range wanted, and what to do.
        detail: String,
    },
    /// A gradient was asked for that does not exist.
    #[error("gradient: {0}")]
    Gradient(String),
    /// A parameter, buffer or layer name that is unknown, missing or given twice.
    #[error("parameters: {0}")]
    Params(String),
    /// A run that was asked to stop between two steps, and did.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// NaN or infinity where a finite number was needed.
    #[error("not finite: {0}")]
    NonFinite(String),
    /// The device: none found, lost, out of memory, or a shader it refused.
    #[error(transparent)]
    Gpu(#[from] shadegrad_kernels::GpuError),
    /// A data file that is missing, truncated, mislabelled or of another format.
    #[error("{}: {detail}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        detail: String,
    },
    /// A file that could not be read or written.
    #[error("{}: {detail}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason and the remedy.
        detail: String,
    },
}

impl Error {
    /// A shape error of `op`.
    pub fn shape(op: &'static str, detail: impl Into<String>) -> Self {
        Self::Shape { op, detail: detail.into() }
    }
    /// A value error of `op`.
    pub fn value(op: &'static str, detail: impl Into<String>) -> Self {
        Self::Value { op, detail: detail.into() }
    }
    /// A data error at `path`.
    pub fn data(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Data { path: path.into(), detail: detail.into() }
    }
    /// An input or output error at `path`.
    pub fn io(path: impl Into<PathBuf>, err: &std::io::Error) -> Self {
        Self::Io { path: path.into(), detail: err.to_string() }
    }
}
