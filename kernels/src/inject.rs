//! Faults on demand: how the tests are tested, and how the handling of what seldom happens is.

use crate::gpu::Gpu;

impl Gpu {
    /// From now on the kernel of this name is compiled from `text`, or from its own text again if that is `None`. For tests of
    /// the tests: a suite that does not notice a changed kernel does not check it. Bindings and parameters must stay as they
    /// were; a text that does not compile is an error of the dispatch.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let x = gpu.alloc(16, "x")?;
    /// let text = &shadegrad_shaders::fill::FILL_F32.info.source;
    /// let wrong = text.replace("vec4<f32>(p.value)", "vec4<f32>(p.value + 1.0)");
    /// gpu.replace_kernel("fill_f32", Some(wrong));
    /// fill::f32(&gpu, &x, 4, 1.0)?;
    /// assert_eq!(gpu.read_as::<f32>(&x)?, [2.0; 4]);
    /// gpu.replace_kernel("fill_f32", None);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn replace_kernel(&self, name: &str, text: Option<String>) {
        self.recorder().cache.replace(name, text);
    }

    /// The allocation that comes after `after` others finds no memory; the ones behind it do. `None` takes that back. For tests:
    /// memory may run out at any of them.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// gpu.fail_allocation(Some(1));
    /// assert!(gpu.alloc(16, "first").is_ok());
    /// assert!(matches!(gpu.alloc(16, "second"), Err(GpuError::OutOfMemory { .. })));
    /// assert!(gpu.alloc(16, "third").is_ok());
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn fail_allocation(&self, after: Option<u64>) {
        self.pool().fail_after = after;
    }
}
