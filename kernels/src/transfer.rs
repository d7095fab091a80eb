//! Bytes to the device and back.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use bytemuck::{AnyBitPattern, NoUninit};

use crate::error::GpuError;
use crate::gpu::Inner;
use crate::memory::{Storage, lock, size_class};
use crate::{Gpu, Result};

/// Uploads up to this size go through the recycled staging chunks; larger ones are rare and get a buffer of their own.
const CHUNK: u64 = 1 << 20;
/// How long a finished read-back may take to be reported.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Staging memory in both directions, recycled.
pub(crate) struct Transfers {
    belt: Belt,
    /// Read-back buffers by size class, not in use.
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
    pub(crate) uploaded: u64,
    pub(crate) buffers_created: u64,
}

/// Mapped memory that uploads are written to and that the device copies from. A chunk is unmapped by the submission that
/// uses it and comes back, mapped again, once the device is done with it. (wgpu's own `StagingBelt` does the same and
/// panics when the device was lost.)
struct Belt {
    open: Option<wgpu::Buffer>,
    /// Bytes used of the open chunk.
    used: u64,
    /// Full chunks that the recorded commands read.
    full: Vec<wgpu::Buffer>,
    send: mpsc::Sender<wgpu::Buffer>,
    back: mpsc::Receiver<wgpu::Buffer>,
}

impl Belt {
    fn new() -> Self {
        let (send, back) = mpsc::channel();
        Self { open: None, used: 0, full: Vec::new(), send, back }
    }

    /// A chunk with room for `bytes`, at most [`CHUNK`], and the place in it; whether it is new.
    fn room(&mut self, inner: &Inner, bytes: u64) -> (wgpu::Buffer, u64, bool) {
        // Mapped ranges start at multiples of eight.
        let at = self.used.next_multiple_of(wgpu::MAP_ALIGNMENT);
        if let Some(open) = self.open.as_ref().filter(|_| at + bytes <= CHUNK) {
            self.used = at + bytes;
            return (open.clone(), at, false);
        }
        self.full.extend(self.open.take());
        let recycled = self.back.try_recv().ok();
        let new = recycled.is_none();
        let chunk = recycled.unwrap_or_else(|| {
            let descriptor = wgpu::BufferDescriptor {
                label: Some("upload"),
                size: CHUNK,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            };
            inner.catching(|| inner.device.create_buffer(&descriptor))
        });
        self.open = Some(chunk.clone());
        self.used = bytes;
        (chunk, 0, new)
    }
}

impl Transfers {
    pub(crate) fn new() -> Self {
        Self { belt: Belt::new(), free: Arc::default(), uploaded: 0, buffers_created: 0 }
    }

    /// Ends the writing to the chunks that the recorded commands read.
    pub(crate) fn before_submit(&mut self) {
        let belt = &mut self.belt;
        belt.full.extend(belt.open.take());
        belt.full.iter().for_each(wgpu::Buffer::unmap);
    }

    /// Asks for the chunks back.
    pub(crate) fn after_submit(&mut self) {
        for chunk in self.belt.full.drain(..) {
            let (send, buffer) = (self.belt.send.clone(), chunk.clone());
            chunk.map_async(wgpu::MapMode::Write, .., move |mapped| {
                if mapped.is_ok() {
                    // Nobody listens any more when the device was dropped.
                    let _ = send.send(buffer);
                }
            });
        }
    }

    fn staging(&mut self, inner: &Inner, bytes: u64) -> wgpu::Buffer {
        let class = size_class(bytes);
        let mut free = lock(&self.free);
        if let Some(i) = free.iter().position(|b| b.size() == class) {
            return free.swap_remove(i);
        }
        self.buffers_created += 1;
        let descriptor = wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: class,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        inner.catching(|| inner.device.create_buffer(&descriptor))
    }
}

/// A read-back under way: the copy is recorded, the bytes arrive once the device has come that far.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc_from(&[1u32], "x")?;
/// let pending: PendingRead = gpu.read_async(&x)?;
/// fill::u32(&gpu, &x, 1, 2)?; // comes after the read-back
/// assert_eq!(pending.wait()?, [1, 0, 0, 0]);
/// # Ok::<(), GpuError>(())
/// ```
pub struct PendingRead {
    gpu: Gpu,
    buffer: Option<wgpu::Buffer>,
    bytes: usize,
    done: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
    /// Submissions when the copy was recorded: as long as there are no more, it was not submitted.
    submits: u64,
}

impl PendingRead {
    /// The bytes if they have arrived, `None` if not yet. Never blocks; the first call submits what is recorded, if nobody
    /// did, so that they can come.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[7u32], "x")?;
    /// let mut pending = gpu.read_async(&x)?;
    /// let bytes = loop {
    ///     if let Some(bytes) = pending.try_take()? {
    ///         break bytes;
    ///     } // otherwise do something else meanwhile
    /// };
    /// assert_eq!(bytes, [7, 0, 0, 0]);
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault, or the bytes were taken already.
    pub fn try_take(&mut self) -> Result<Option<Vec<u8>>> {
        {
            let mut rec = self.gpu.recorder();
            if rec.counters.submits == self.submits {
                rec.submit(&self.gpu.inner);
            }
        }
        self.gpu.inner.poll(wgpu::PollType::Poll);
        match self.done.try_recv() {
            Ok(Ok(())) => self.take().map(Some),
            Err(mpsc::TryRecvError::Empty) => {
                self.gpu.check()?;
                Ok(None)
            }
            Ok(Err(_)) | Err(mpsc::TryRecvError::Disconnected) => Err(self.cancelled()),
        }
    }

    /// The bytes, after waiting for them.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1.5f32], "x")?;
    /// let bytes = gpu.read_async(&x)?.wait()?;
    /// assert_eq!(bytes, 1.5f32.to_le_bytes());
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault, or the bytes were taken already.
    pub fn wait(mut self) -> Result<Vec<u8>> {
        if self.buffer.is_none() {
            return self.take();
        }
        self.gpu.wait()?;
        // Another thread's wait may have collected this read-back and be about to report it.
        match self.done.recv_timeout(REPORT_TIMEOUT) {
            Ok(Ok(())) => self.take(),
            _ => Err(self.cancelled()),
        }
    }

    /// Why the bytes will not come.
    fn cancelled(&self) -> GpuError {
        if let Err(err) = self.gpu.check() {
            return err;
        }
        if self.buffer.is_none() {
            return GpuError::Transfer("the bytes of this read-back were taken already".into());
        }
        // The copy was accepted, and nobody but us can destroy its buffer.
        self.gpu.report_lost("a read-back was cancelled: the device was destroyed or dropped by its owner");
        self.gpu.check().err().unwrap_or_else(|| GpuError::Transfer("the read-back was cancelled".into()))
    }

    fn take(&mut self) -> Result<Vec<u8>> {
        let Some(buffer) = self.buffer.take() else {
            return Err(GpuError::Transfer("the bytes of this read-back were taken already".into()));
        };
        let bytes = match buffer.slice(..).get_mapped_range() {
            Ok(view) => view[..self.bytes].to_vec(),
            Err(err) => return Err(GpuError::Transfer(err.to_string())),
        };
        buffer.unmap();
        lock(&self.free).push(buffer);
        Ok(bytes)
    }
}

impl Gpu {
    /// Writes `data` to the start of `to`, after everything recorded so far.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(4 * 3, "x")?;
    /// gpu.zero(&x)?;
    /// gpu.upload(&x, bytemuck::cast_slice(&[1.0f32, 2.0]))?;
    /// assert_eq!(gpu.read_as::<f32>(&x)?, [1.0, 2.0, 0.0]);
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If it does not fit, or the device reported a fault.
    pub fn upload(&self, to: &Storage, data: &[u8]) -> Result<()> {
        self.upload_at(to, 0, data)
    }

    /// Writes `data` to `to` from byte `offset`, a multiple of four. A length that is not a multiple of four is
    /// filled up with zeros.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1u32, 2, 3], "x")?;
    /// gpu.upload_at(&x, 4, bytemuck::bytes_of(&9u32))?;
    /// assert_eq!(gpu.read_as::<u32>(&x)?, [1, 9, 3]);
    /// assert!(gpu.upload_at(&x, 12, &[1]).is_err());
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If it does not fit, or the device reported a fault.
    pub fn upload_at(&self, to: &Storage, offset: u64, data: &[u8]) -> Result<()> {
        let n = data.len() as u64;
        if !offset.is_multiple_of(4) || offset.checked_add(n).is_none_or(|end| end > to.bytes()) {
            return Err(GpuError::Transfer(format!("{n} bytes at {offset} do not fit {to:?}")));
        }
        if n == 0 {
            return Ok(());
        }
        self.check()?;
        let inner = &*self.inner;
        let (whole, rest) = data.split_at(data.len() & !3);
        let mut tail = [0u8; 4];
        tail[..rest.len()].copy_from_slice(rest);
        let mut guard = self.recorder();
        let rec = &mut *guard;
        if rec.rehearses(|_| ()) {
            return Ok(());
        }
        if let Some(capture) = rec.capturing() {
            capture.refuse("an upload");
        }
        rec.transfers.uploaded += n;
        if n > CHUNK {
            // The queue's own write comes before whatever is submitted next: submit what must come before it.
            rec.submit(inner);
            inner.catching(|| {
                inner.queue.write_buffer(to.buffer(), to.offset() + offset, whole);
                if !rest.is_empty() {
                    inner.queue.write_buffer(to.buffer(), to.offset() + offset + whole.len() as u64, &tail);
                }
            });
            return Ok(());
        }
        let padded = n.next_multiple_of(4);
        let (chunk, at, new) = rec.transfers.belt.room(inner, padded);
        rec.transfers.buffers_created += u64::from(new);
        match chunk.slice(at..at + padded).get_mapped_range_mut() {
            Ok(mut view) => {
                view.slice(..whole.len()).copy_from_slice(whole);
                if !rest.is_empty() {
                    view.slice(whole.len()..).copy_from_slice(&tail);
                }
            }
            Err(err) => {
                drop(guard);
                // Memory that was asked for already mapped is not, or did not come back so.
                self.check()?;
                self.report_lost(&format!("memory for an upload cannot be reached: {err}"));
                return self.check();
            }
        }
        rec.encoder(&inner.device).copy_buffer_to_buffer(&chunk, at, to.buffer(), to.offset() + offset, padded);
        rec.after(inner, 2 * n);
        Ok(())
    }

    /// Memory of its own for `data`: [`Gpu::alloc`], then [`Gpu::upload`].
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0], "x")?;
    /// let pairs = gpu.alloc_from(&[[1u32, 2], [3, 4]], "pairs")?;
    /// assert_eq!((x.bytes(), pairs.bytes()), (12, 16));
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// Beyond the device's limit for one buffer, out of memory, or the device reported a fault.
    pub fn alloc_from<T: NoUninit>(&self, data: &[T], label: &'static str) -> Result<Storage> {
        let to = self.alloc(size_of_val(data) as u64, label)?;
        self.upload(&to, bytemuck::cast_slice(data))?;
        Ok(to)
    }

    /// [`Gpu::read`] as numbers.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1.0f32, -2.0], "x")?;
    /// assert_eq!(gpu.read_as::<f32>(&x)?, [1.0, -2.0]);
    /// assert_eq!(gpu.read_as::<u32>(&x)?, [0x3f80_0000, 0xc000_0000]); // the same bits
    /// assert!(gpu.read_as::<[f32; 3]>(&x).is_err());
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the storage does not hold a whole number of them, or the device reported a fault.
    pub fn read_as<T: NoUninit + AnyBitPattern>(&self, from: &Storage) -> Result<Vec<T>> {
        if from.bytes().checked_rem(size_of::<T>() as u64) != Some(0) {
            return Err(GpuError::Transfer(format!(
                "{from:?} is not a whole number of {} of {} bytes; read it as bytes",
                std::any::type_name::<T>(),
                size_of::<T>()
            )));
        }
        Ok(bytemuck::pod_collect_to_vec(&self.read(from)?))
    }

    /// The content of `from`, after everything recorded so far; waits for the device.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1u8, 2, 3], "x")?;
    /// assert_eq!(gpu.read(&x)?, [1, 2, 3]);
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn read(&self, from: &Storage) -> Result<Vec<u8>> {
        self.read_async(from)?.wait()
    }

    /// Records a read-back of `from` as it is at this point, without waiting.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let loss = gpu.alloc(4, "loss")?;
    /// fill::f32(&gpu, &loss, 1, 0.25)?;
    /// let pending = gpu.read_async(&loss)?; // does not wait
    /// fill::f32(&gpu, &loss, 1, 0.125)?; // the next step
    /// assert_eq!(pending.wait()?, 0.25f32.to_le_bytes());
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault earlier.
    pub fn read_async(&self, from: &Storage) -> Result<PendingRead> {
        self.check()?;
        let (send, done) = mpsc::channel();
        let mut rec = self.recorder();
        if let Some(capture) = rec.capturing() {
            capture.refuse("a read-back");
        }
        let padded = from.bytes().max(1).next_multiple_of(4);
        let buffer = rec.transfers.staging(&self.inner, padded);
        let free = rec.transfers.free.clone();
        rec.counters.read_backs += 1;
        let submits = rec.counters.submits;
        let encoder = rec.encoder(&self.inner.device);
        encoder.copy_buffer_to_buffer(from.buffer(), from.offset(), &buffer, 0, padded);
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, .., move |result| {
            // Nobody listens any more when the pending read was dropped.
            let _ = send.send(result);
        });
        rec.after(&self.inner, 2 * padded);
        drop(rec);
        Ok(PendingRead { gpu: self.clone(), buffer: Some(buffer), bytes: from.bytes() as usize, done, free, submits })
    }
}
