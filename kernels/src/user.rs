//! A user's own WGSL kernel.

use std::sync::Arc;

use shadegrad_shaders::KernelInfo;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// A kernel from WGSL text that the user hands in. It follows the conventions of the built-in ones: read-only buffers
/// at `@group(0) @binding(0..R)`, then writable ones, parameters in `var<immediate>` of at most 128 bytes (scalars and
/// `vec4`s), entry point `main`. The preprocessor's `#import`, `#define`, `#if` and `#for` are available.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let text = "
/// @group(0) @binding(0) var<storage, read> x: array<f32>;
/// @group(0) @binding(1) var<storage, read_write> y: array<f32>;
/// @compute @workgroup_size(64)
/// fn main(@builtin(global_invocation_id) id: vec3<u32>) {
///   if (id.x < arrayLength(&x)) {
///     y[id.x] = 2.0 * x[id.x];
///   }
/// }";
/// let kernel = UserKernel::new("double", text)?;
/// let (x, y) = (gpu.alloc(16, "x")?, gpu.alloc(16, "y")?);
/// fill::f32(&gpu, &x, 4, 1.5)?;
/// kernel.dispatch(&gpu, &[&x], &[&y], &[], [1, 1, 1])?;
/// assert_eq!(gpu.read(&y)?[..4], 3.0f32.to_le_bytes());
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Debug)]
pub struct UserKernel {
    info: Arc<KernelInfo>,
    reads: usize,
}

impl UserKernel {
    /// Preprocesses, parses, validates and reflects `wgsl`. Needs no device.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// let text = "
    /// @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    /// @compute @workgroup_size(1)
    /// fn main() { y[0] = 1.0; }";
    /// assert_eq!(UserKernel::new("one", text)?.info().writes(), 1);
    /// let err = UserKernel::new("two", "// Two.\nfn main() { y[0] = 2.0; }").unwrap_err();
    /// assert!(err.to_string().contains("two: line 2"), "{err}");
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// With the line and the reason.
    pub fn new(name: &str, wgsl: &str) -> Result<Self> {
        Self::with_defines(name, wgsl, &[])
    }

    /// [`UserKernel::new`] with preprocessor definitions.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// let text = "
    /// @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    /// @compute @workgroup_size($GROUP)
    /// fn main(@builtin(local_invocation_index) i: u32) { y[i] = 1.0; }";
    /// let kernel = UserKernel::with_defines("ones", text, &[("GROUP", "64")])?;
    /// assert_eq!(kernel.info().workgroup_size, [64, 1, 1]);
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// With the line and the reason.
    pub fn with_defines(name: &str, wgsl: &str, defines: &[(&str, &str)]) -> Result<Self> {
        let info = shadegrad_shaders::user_kernel(name, wgsl, defines)?;
        let reads = info.reads();
        Ok(Self { info: Arc::new(info), reads })
    }

    /// What reflection found: buffers, workgroup size, parameters.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let text = "
    /// # struct Params { value: f32, }
    /// # var<immediate> p: Params;
    /// # @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    /// # @compute @workgroup_size(1)
    /// # fn main() { y[0] = p.value; }";
    /// let kernel = UserKernel::new("set", text)?; // a struct Params { value: f32 }
    /// let info = kernel.info();
    /// assert_eq!((info.reads(), info.writes(), info.params_size), (0, 1, 4));
    /// assert_eq!((&info.fields[0].name[..], &info.fields[0].ty[..]), ("value", "f32"));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn info(&self) -> &KernelInfo {
        &self.info
    }

    /// Records the kernel over `groups` workgroups. `params` are the bytes of its parameter struct.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let text = "
    /// struct Params { value: f32, }
    /// var<immediate> p: Params;
    /// @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    /// @compute @workgroup_size(4)
    /// fn main(@builtin(local_invocation_index) i: u32) { y[i] = p.value; }";
    /// let (set, y) = (UserKernel::new("set", text)?, gpu.alloc(16, "y")?);
    /// set.dispatch(&gpu, &[], &[&y], bytemuck::bytes_of(&2.5f32), [1, 1, 1])?;
    /// assert_eq!(gpu.read_as::<f32>(&y)?, [2.5; 4]);
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the number of buffers or the size of the parameters differs from the text's, or the driver refuses it.
    pub fn dispatch(
        &self,
        gpu: &Gpu,
        reads: &[&Storage],
        writes: &[&Storage],
        params: &[u8],
        groups: [u32; 3],
    ) -> Result<()> {
        if reads.len() != self.reads {
            return Err(crate::GpuError::Dispatch {
                kernel: self.info.name.to_string(),
                reason: format!("reads {} buffers, got {}", self.reads, reads.len()),
            });
        }
        gpu.dispatch_any(&self.info, reads, writes, params, groups)
    }
}
