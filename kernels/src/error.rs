//! What the device layer can refuse, and why.

use std::fmt::Write as _;

use crate::memory::MemoryReport;

/// An error of the device layer. The text always ends in what to do.
///
/// ```
/// # use shadegrad_kernels::*;
/// let gpu = Gpu::new(Options { memory_limit: Some(4096), ..Options::from_env()? })?;
/// match gpu.alloc(1 << 20, "activations") {
///     Err(GpuError::OutOfMemory { asked, label, .. }) => assert_eq!((asked, label), (1 << 20, "activations")),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No adapter at all, or none that matches the request.
    #[error("{0}")]
    NoAdapter(String),
    /// The adapter refused to give a device.
    #[error(
        "adapter {adapter:?} gave no device: {reason}; update its driver, or choose another with SHADEGRAD_ADAPTER"
    )]
    NoDevice {
        /// Its name.
        adapter: String,
        /// The driver's reason.
        reason: String,
    },
    /// An option or environment variable that cannot be understood.
    #[error("{0}")]
    Option(String),
    /// Memory ran out, on the device or under the limit set in the options.
    #[error(
        "out of GPU memory: {asked} bytes asked for `{label}`, {live} bytes live{holders}; use a smaller batch, or checkpoint activations"
    )]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// What they were for.
        label: &'static str,
        /// Bytes live at that moment.
        live: u64,
        /// The labels that hold the most, as text.
        holders: String,
    },
    /// A single buffer larger than the device can bind or allocate.
    #[error(
        "`{label}` needs {asked} bytes in one buffer, the device takes {limit}; split it along its first dimension"
    )]
    TooLarge {
        /// Bytes asked for.
        asked: u64,
        /// What they were for.
        label: &'static str,
        /// The device's limit in bytes.
        limit: u64,
    },
    /// A shader that did not compile on this driver, or does not fit its limits.
    #[error("kernel `{kernel}`: {reason}")]
    Shader {
        /// The kernel's name.
        kernel: String,
        /// The compiler's or driver's reason.
        reason: String,
    },
    /// A call that does not fit the kernel: too few bytes, an offset that is not aligned, too many workgroups.
    #[error("kernel `{kernel}`: {reason}")]
    Dispatch {
        /// The kernel's name.
        kernel: String,
        /// What does not fit.
        reason: String,
    },
    /// A transfer that does not fit its buffer.
    #[error("transfer: {0}")]
    Transfer(String),
    /// The device is gone: reset by its watchdog, unplugged, or its driver crashed.
    #[error(
        "the GPU was lost: {reason}; last kernels submitted: {last}; lower the batch size if its watchdog ended a long kernel, then start again from the last checkpoint"
    )]
    Lost {
        /// The driver's reason.
        reason: String,
        /// Names of the last kernels recorded.
        last: String,
    },
    /// The driver reported an error outside any call, attributed to what was recorded last.
    #[error("the driver reported: {reason}; last kernels recorded: {last}")]
    Driver {
        /// The driver's text.
        reason: String,
        /// Names of the last kernels recorded.
        last: String,
    },
}

impl From<shadegrad_shaders::ShaderError> for GpuError {
    fn from(err: shadegrad_shaders::ShaderError) -> Self {
        Self::Shader { kernel: "user kernel".into(), reason: err.to_string() }
    }
}

impl GpuError {
    /// The out-of-memory error for `asked` bytes, naming who holds what.
    pub(crate) fn out_of_memory(asked: u64, label: &'static str, report: &MemoryReport) -> Self {
        let mut holders = String::new();
        for (name, bytes) in report.by_label.iter().take(3) {
            let sep = if holders.is_empty() { " (most: " } else { ", " };
            let _ = write!(holders, "{sep}{name} {bytes}");
        }
        if !holders.is_empty() {
            holders.push(')');
        }
        Self::OutOfMemory { asked, label, live: report.live, holders }
    }
}
