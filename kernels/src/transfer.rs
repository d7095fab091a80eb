//! Bytes to the device and back.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use crate::error::GpuError;
use crate::memory::{Storage, lock, size_class};
use crate::{Gpu, Result};

/// Uploads up to this size go through the recycled staging chunks; larger ones are rare and get a buffer of their own.
const CHUNK: u64 = 1 << 20;
/// How long a finished read-back may take to be reported.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Staging memory in both directions, recycled.
pub(crate) struct Transfers {
    belt: wgpu::util::StagingBelt,
    belt_used: bool,
    /// Read-back buffers by size class, not in use.
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
    pub(crate) uploaded: u64,
    pub(crate) buffers_created: u64,
}

impl Transfers {
    pub(crate) fn new(device: &wgpu::Device) -> Self {
        Self {
            belt: wgpu::util::StagingBelt::new(device.clone(), CHUNK),
            belt_used: false,
            free: Arc::default(),
            uploaded: 0,
            buffers_created: 0,
        }
    }

    pub(crate) fn before_submit(&mut self) {
        if self.belt_used {
            self.belt.finish();
        }
    }

    pub(crate) fn after_submit(&mut self) {
        if std::mem::take(&mut self.belt_used) {
            self.belt.recall();
        }
    }

    fn staging(&mut self, device: &wgpu::Device, bytes: u64) -> wgpu::Buffer {
        let class = size_class(bytes);
        let mut free = lock(&self.free);
        if let Some(i) = free.iter().position(|b| b.size() == class) {
            return free.swap_remove(i);
        }
        self.buffers_created += 1;
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: class,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }
}

/// A read-back under way: the copy is recorded, the bytes arrive once the device has come that far.
pub struct PendingRead {
    gpu: Gpu,
    buffer: Option<wgpu::Buffer>,
    bytes: usize,
    done: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    free: Arc<Mutex<Vec<wgpu::Buffer>>>,
}

impl PendingRead {
    /// The bytes if they have arrived, `None` if not yet. Never blocks; call [`Gpu::flush`] once so that they can come.
    ///
    /// # Errors
    /// If the device reported a fault, or the bytes were taken already.
    pub fn try_take(&mut self) -> Result<Option<Vec<u8>>> {
        // The only error of a poll without waiting is a time-out, and it has none.
        let _ = self.gpu.inner.device.poll(wgpu::PollType::Poll);
        match self.done.try_recv() {
            Ok(Ok(())) => self.take().map(Some),
            Err(mpsc::TryRecvError::Empty) => {
                self.gpu.check()?;
                Ok(None)
            }
            Ok(Err(_)) | Err(mpsc::TryRecvError::Disconnected) => {
                self.gpu.check()?;
                Err(GpuError::Transfer("the read-back was cancelled".into()))
            }
        }
    }

    /// The bytes, after waiting for them.
    ///
    /// # Errors
    /// If the device reported a fault, or the bytes were taken already.
    pub fn wait(mut self) -> Result<Vec<u8>> {
        self.gpu.wait()?;
        // Another thread's wait may have collected this read-back and be about to report it.
        match self.done.recv_timeout(REPORT_TIMEOUT) {
            Ok(Ok(())) => self.take(),
            _ => {
                self.gpu.check()?;
                Err(GpuError::Transfer("the read-back was cancelled".into()))
            }
        }
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
    /// # Errors
    /// If it does not fit, or the device reported a fault.
    pub fn upload(&self, to: &Storage, data: &[u8]) -> Result<()> {
        self.upload_at(to, 0, data)
    }

    /// Writes `data` to `to` from byte `offset`, a multiple of four. A length that is not a multiple of four is
    /// filled up with zeros.
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
        let (whole, rest) = data.split_at(data.len() & !3);
        let mut tail = [0u8; 4];
        tail[..rest.len()].copy_from_slice(rest);
        let device = &self.inner.device;
        let mut guard = self.recorder();
        let rec = &mut *guard;
        rec.transfers.uploaded += n;
        if n > CHUNK {
            // The queue's own write comes before whatever is submitted next: submit what must come before it.
            rec.submit(&self.inner);
            self.inner.queue.write_buffer(to.buffer(), to.offset() + offset, whole);
            if !rest.is_empty() {
                self.inner.queue.write_buffer(to.buffer(), to.offset() + offset + whole.len() as u64, &tail);
            }
            return Ok(());
        }
        let padded = n.next_multiple_of(4);
        if let Some(size) = wgpu::BufferSize::new(padded) {
            let (transfers, encoder) = rec.transfers_and_encoder(device);
            let mut view = transfers.belt.write_buffer(encoder, to.buffer(), to.offset() + offset, size);
            view.slice(..whole.len()).copy_from_slice(whole);
            if !rest.is_empty() {
                view.slice(whole.len()..).copy_from_slice(&tail);
            }
        }
        rec.transfers.belt_used = true;
        rec.after(&self.inner, 2 * n);
        Ok(())
    }

    /// The content of `from`, after everything recorded so far; waits for the device.
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn read(&self, from: &Storage) -> Result<Vec<u8>> {
        self.read_async(from)?.wait()
    }

    /// Records a read-back of `from` as it is at this point, without waiting.
    ///
    /// # Errors
    /// If the device reported a fault earlier.
    pub fn read_async(&self, from: &Storage) -> Result<PendingRead> {
        self.check()?;
        let (send, done) = mpsc::channel();
        let mut rec = self.recorder();
        let padded = from.bytes().max(1).next_multiple_of(4);
        let buffer = rec.transfers.staging(&self.inner.device, padded);
        let free = rec.transfers.free.clone();
        let encoder = rec.encoder(&self.inner.device);
        encoder.copy_buffer_to_buffer(from.buffer(), from.offset(), &buffer, 0, padded);
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, .., move |result| {
            // Nobody listens any more when the pending read was dropped.
            let _ = send.send(result);
        });
        rec.after(&self.inner, 2 * padded);
        drop(rec);
        Ok(PendingRead { gpu: self.clone(), buffer: Some(buffer), bytes: from.bytes() as usize, done, free })
    }
}
