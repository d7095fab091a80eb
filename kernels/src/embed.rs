//! Sharing a device with an application that has one already.

use crate::adapter::{self, AdapterDescription, Options};
use crate::error::GpuError;
use crate::fault::Fault;
use crate::memory::{Storage, VIEW_ALIGN};
use crate::{Gpu, Result};

impl Gpu {
    /// The features and limits that make kernels fast, of those that `adapter` has and `options` allow: what an application
    /// asks for, beside its own, when it opens the device that it will share. `max_immediate_size` is the one limit that
    /// WebGPU's defaults leave at nothing.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    /// # let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    /// let (required_features, required_limits) = Gpu::wanted(&adapter, &Options::default());
    /// let asked = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
    /// let (device, queue) = pollster::block_on(adapter.request_device(&asked)).expect("the adapter has all of it");
    /// let gpu = Gpu::from_wgpu(device, queue, &Options::default());
    /// assert_eq!(gpu.caps().immediates, required_features.contains(wgpu::Features::IMMEDIATES));
    /// ```
    pub fn wanted(adapter: &wgpu::Adapter, options: &Options) -> (wgpu::Features, wgpu::Limits) {
        adapter::wanted(adapter, options)
    }

    /// Shares the device of the program this is embedded in. Its error and device-lost callbacks stay as they are and hear
    /// nothing of the engine's mistakes, which are errors here; what the device-lost callback hears, [`Gpu::report_lost`]
    /// passes on. (The engine finds out by itself at its next read-back or upload.)
    ///
    /// Kernels use what the device was opened with; subgroups, f16, timestamps and immediates help and are not needed:
    /// [`Gpu::wanted`] says what to ask for. Everything goes to `queue`, in order with the application's own submissions.
    ///
    /// The application's callbacks (of `map_async`, `on_submitted_work_done`) run inside the engine's calls as inside any
    /// of wgpu's; they must not call the engine, which may be in the middle of a submission.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let theirs = Gpu::new(Options::from_env()?)?;
    /// # let (device, queue) = (theirs.device().clone(), theirs.queue().clone());
    /// // `device` and `queue` are the application's.
    /// let gpu = Gpu::from_wgpu(device.clone(), queue.clone(), &Options::default());
    /// let x = gpu.alloc_from(&[1.0f32, 2.0], "x")?;
    /// assert_eq!(gpu.read_as::<f32>(&x)?, [1.0, 2.0]);
    /// assert!(gpu.device() == &device && gpu.queue() == &queue);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, options: &Options) -> Self {
        let info = device.adapter_info();
        let features = device.features();
        let class = adapter::caps(&device, options).class;
        let description = AdapterDescription {
            index: 0,
            backend: format!("{:?}", info.backend),
            driver: format!("{} {}", info.driver, info.driver_info),
            class,
            subgroups: features
                .contains(wgpu::Features::SUBGROUP)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            f16: features.contains(wgpu::Features::SHADER_F16),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            max_binding: device.limits().max_storage_buffer_binding_size,
            name: info.name,
        };
        Self::build(device, queue, description, options)
    }

    /// A storage over `bytes` bytes of an application's own buffer, without a copy. It needs the usages STORAGE,
    /// COPY_SRC and COPY_DST, an offset that is a multiple of 256, and room up to the next multiple of 16 bytes.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use wgpu::BufferUsages as Usage;
    /// let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
    /// let descriptor = wgpu::BufferDescriptor { label: Some("mine"), size: 1024, usage, mapped_at_creation: false };
    /// let mine = gpu.device().create_buffer(&descriptor);
    /// let x = gpu.import(mine.clone(), 256, 4 * 10)?; // ten floats from byte 256 on
    /// fill::f32(&gpu, &x, 10, 3.0)?;
    /// assert_eq!(gpu.read_as::<f32>(&x)?, [3.0; 10]);
    /// assert!(gpu.import(mine, 100, 4).is_err());
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If any of these is not so.
    pub fn import(&self, buffer: wgpu::Buffer, offset: u64, bytes: u64) -> Result<Storage> {
        let usages = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        if !buffer.usage().contains(usages) {
            return Err(GpuError::Transfer(
                "an imported buffer needs the usages STORAGE, COPY_SRC and COPY_DST".into(),
            ));
        }
        let end = offset.saturating_add(bytes.max(1).next_multiple_of(16));
        if !offset.is_multiple_of(VIEW_ALIGN) || end > buffer.size() {
            return Err(GpuError::Transfer(format!(
                "cannot import bytes {offset}..{end} of a buffer of {}: the offset must be a multiple of 256 and the \
                 length, rounded up to 16, must fit",
                buffer.size()
            )));
        }
        Ok(self.pool().import(buffer, offset, bytes))
    }

    /// The device itself, for an embedding application.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let limits = gpu.device().limits();
    /// assert_eq!(limits.max_storage_buffers_per_shader_stage, gpu.caps().storage_bindings);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue itself, for an embedding application.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1.0f32; 4], "x")?;
    /// gpu.flush()?; // what was recorded so far comes first
    /// let mut commands = gpu.device().create_command_encoder(&Default::default());
    /// commands.clear_buffer(x.buffer(), x.offset(), Some(8));
    /// gpu.queue().submit([commands.finish()]);
    /// assert_eq!(gpu.read_as::<f32>(&x)?, [0.0, 0.0, 1.0, 1.0]);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// Tells the engine that the application's device was lost (see [`Gpu::from_wgpu`]): every later call fails.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(16, "x")?;
    /// gpu.report_lost("the driver was updated");
    /// let err = fill::f32(&gpu, &x, 4, 1.0).unwrap_err();
    /// assert!(err.to_string().contains("the driver was updated"));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn report_lost(&self, reason: &str) {
        self.inner.faults.set(Fault::Lost(reason.to_string()));
    }
}
