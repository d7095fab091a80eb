//! Memory shared with the application that the engine is embedded in, and values that arrive without waiting.

use shadegrad_kernels::{Gpu, PendingRead, wgpu};

use crate::error::Result;
use crate::tensor::{DType, Tensor};

impl Tensor {
    /// A tensor over an application's own buffer, from byte `offset`, without a copy: what the application writes there is
    /// what operations read. The buffer must be of the device given to [`Gpu::from_wgpu`]; see [`Gpu::import`] for its
    /// usages and alignment. Make the tensor once and keep it: bind groups are remembered with it.
    ///
    /// Work of both sides runs in the order in which it is submitted. Before the application writes to the buffer again,
    /// [`Gpu::flush`] submits the operations that are to read what it holds now.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
    ///     label: None,
    ///     size: 16,
    ///     usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
    ///     mapped_at_creation: false,
    /// });
    /// let x = Tensor::from_buffer(&gpu, buffer.clone(), 0, &[3], DType::F32)?;
    /// gpu.queue().write_buffer(&buffer, 0, &2.5f32.to_le_bytes());
    /// assert_eq!(x.mul_scalar(2.0)?.to_vec()?, [5.0, 0.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::import`]; if the shape does not fit.
    pub fn from_buffer(gpu: &Gpu, buffer: wgpu::Buffer, offset: u64, shape: &[usize], dtype: DType) -> Result<Self> {
        let bytes = crate::tensor::numel_of("from_buffer", shape)? * dtype.size();
        Self::from_storage(gpu, gpu.import(buffer, offset, bytes as u64)?, shape, dtype)
    }

    /// The tensor's own memory as a binding for the application's pipelines, without a copy: read-only storage, row-major.
    /// Everything recorded is submitted first, so what the application submits from here on sees the values.
    ///
    /// Keep the tensor for as long as the binding is used: its memory goes back to the pool with it, and the next tensor's
    /// values would be seen there.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::ones(&gpu, &[3])?;
    /// // For an entry of a bind group of the application's own.
    /// let resource = wgpu::BindingResource::Buffer(x.binding()?);
    /// assert!(matches!(resource, wgpu::BindingResource::Buffer(b) if b.size.is_some_and(|s| s.get() == 12)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn binding(&self) -> Result<wgpu::BufferBinding<'_>> {
        self.gpu().flush()?;
        let storage = self.storage();
        // Bound lengths are multiples of four; memory always reaches as far.
        let size = wgpu::BufferSize::new(storage.bytes().max(1).next_multiple_of(4));
        Ok(wgpu::BufferBinding { buffer: storage.buffer(), offset: storage.offset(), size })
    }

    /// Starts reading the elements as they are at this point, without waiting: see [`Readback`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::ones(&gpu, &[2])?;
    /// let (first, second) = (x.read_later()?, x.add_scalar(1.0)?.read_later()?); // nothing waited so far
    /// assert_eq!((first.wait()?, second.wait()?), (vec![1.0; 2], vec![2.0; 2]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the element type is not `F32`, or the device reported a fault.
    pub fn read_later(&self) -> Result<Readback> {
        self.want("read_later", DType::F32)?;
        Ok(Readback(self.read_async()?))
    }
}

/// Floats on their way from the device. Ask once a frame; dropping it gives up.
///
/// ```no_run
/// # fn frame(x: &shadegrad::Tensor) -> shadegrad::Result<()> {
/// let mut values = x.read_later()?;
/// // In this frame and the next ones:
/// if let Some(values) = values.try_get()? {
///     println!("{values:?}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct Readback(PendingRead);

impl Readback {
    /// The values if they have arrived, `None` if not yet. Never waits.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut loss = Tensor::full(&gpu, &[], 0.5)?.read_later()?;
    /// let value = loop {
    ///     // A frame of the application; then:
    ///     if let Some(values) = loss.try_get()? {
    ///         break values[0];
    ///     }
    /// };
    /// assert_eq!(value, 0.5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault, or the values were taken already.
    pub fn try_get(&mut self) -> Result<Option<Vec<f32>>> {
        Ok(self.0.try_take()?.map(|bytes| bytemuck::pod_collect_to_vec(&bytes)))
    }

    /// The values, after waiting for them.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let sum = Tensor::ones(&gpu, &[2, 3])?.sum(&[1], false)?.read_later()?;
    /// assert_eq!(sum.wait()?, [3.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Readback::try_get`].
    pub fn wait(self) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.0.wait()?))
    }
}
