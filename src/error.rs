//! The engine's one error type. Every message names the operation, the shapes (or file) and the remedy.

use std::path::PathBuf;

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the engine. Match on the variant; print it for a person.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (a, b) = (Tensor::zeros(&gpu, &[2, 3])?, Tensor::zeros(&gpu, &[4, 5])?);
/// match a.matmul(&b) {
///     Err(Error::Shape { op, detail }) => assert!(op == "matmul" && detail.contains("[2, 3]")),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Error>(())
/// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// let err = Error::shape("interleave", "[2, 3] and [3, 2]; they must be equal");
    /// assert_eq!(err.to_string(), "interleave: [2, 3] and [3, 2]; they must be equal");
    /// ```
    pub fn shape(op: &'static str, detail: impl Into<String>) -> Self {
        Self::Shape { op, detail: detail.into() }
    }
    /// A value error of `op`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// fn check(rate: f32) -> Result<()> {
    ///     if rate < 0.0 { Err(Error::value("decay", format!("rate {rate}; give 0 or more"))) } else { Ok(()) }
    /// }
    /// assert!(check(0.1).is_ok());
    /// assert_eq!(check(-1.0).map_err(|e| e.to_string()), Err("decay: rate -1; give 0 or more".into()));
    /// ```
    pub fn value(op: &'static str, detail: impl Into<String>) -> Self {
        Self::Value { op, detail: detail.into() }
    }
    /// A data error at `path`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// let err = Error::data("labels.bin", "7 bytes, not a multiple of 4; fetch it again");
    /// assert_eq!(err.to_string(), "labels.bin: 7 bytes, not a multiple of 4; fetch it again");
    /// ```
    pub fn data(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Data { path: path.into(), detail: detail.into() }
    }
    /// An input or output error at `path`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// let read = |path: &str| std::fs::read(path).map_err(|e| Error::io(path, &e));
    /// let err = read("no/such/file").unwrap_err();
    /// assert!(matches!(&err, Error::Io { path, .. } if path.ends_with("file")), "{err}");
    /// ```
    pub fn io(path: impl Into<PathBuf>, err: &std::io::Error) -> Self {
        Self::Io { path: path.into(), detail: err.to_string() }
    }
}
