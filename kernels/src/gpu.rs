//! The device handle: allocation, dispatch, submission.

use std::sync::{Arc, Mutex};

use bytemuck::Pod;
use shadegrad_shaders::{Kernel, KernelInfo};

use crate::adapter::{self, AdapterDescription, Caps, Options};
use crate::error::GpuError;
use crate::fault::{Fault, Faults};
use crate::memory::{FRESH_WORD, GUARD, MemoryReport, Pool, Storage, guard_words, lock, size_class};
use crate::pipeline::MAX_BINDINGS;
use crate::profile::Profiler;
use crate::recorder::{Counters, Gathering, Recorder};
use crate::{Profile, Result};

pub(crate) struct Inner {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) caps: Caps,
    description: AdapterDescription,
    memory_limit: Option<u64>,
    sentinels: bool,
    pub(crate) pool: Arc<Mutex<Pool>>,
    recorder: Mutex<Recorder>,
    pub(crate) faults: Arc<Faults>,
}

/// A device, its memory and its kernels. Cheap to clone; clones share everything.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// println!("{}", gpu.description());
/// let x = gpu.alloc(4 * 256, "x")?;
/// fill::f32(&gpu, &x, 256, 1.0)?; // recorded
/// gpu.wait()?;
/// assert!(gpu.memory().live >= 1024);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone)]
pub struct Gpu {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.inner.description)
    }
}

impl Gpu {
    /// Opens the best adapter, or the one that the options name.
    ///
    /// # Errors
    /// No adapter (the text says how to get a driver), none that matches, or one that refuses.
    pub fn new(options: Options) -> Result<Self> {
        let instance = adapter::instance(options.gl);
        let chosen = adapter::choose(adapter::adapters(&instance), options.adapter.as_deref())?;
        let (device, queue) = adapter::open(&chosen, &options)?;
        let description = adapter::describe(0, &chosen);
        let gpu = Self::build(device, queue, description, &options);
        let faults = gpu.inner.faults.clone();
        gpu.inner.device.on_uncaptured_error(Arc::new(move |err: wgpu::Error| faults.set(err.into())));
        let faults = gpu.inner.faults.clone();
        gpu.inner.device.set_device_lost_callback(move |reason, text| {
            faults.set(Fault::Lost(format!("{reason:?}: {text}")));
        });
        Ok(gpu)
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

    fn build(device: wgpu::Device, queue: wgpu::Queue, description: AdapterDescription, options: &Options) -> Self {
        let caps = adapter::caps(&device, options);
        let recorder = Recorder::new(&device, caps.immediates);
        Self {
            inner: Arc::new(Inner {
                device,
                queue,
                caps,
                description,
                memory_limit: options.memory_limit,
                sentinels: options.sentinels,
                pool: Arc::default(),
                recorder: Mutex::new(recorder),
                faults: Arc::default(),
            }),
        }
    }

    /// The features and limits that make kernels fast, of those that `adapter` has and `options` allow: what an application
    /// asks for, beside its own, when it opens the device that it will share. `max_immediate_size` is the one limit that
    /// WebGPU's defaults leave at nothing.
    pub fn wanted(adapter: &wgpu::Adapter, options: &Options) -> (wgpu::Features, wgpu::Limits) {
        adapter::wanted(adapter, options)
    }

    /// All adapters, best first. Empty where there is no driver.
    pub fn list(gl: bool) -> Vec<AdapterDescription> {
        let instance = adapter::instance(gl);
        adapter::adapters(&instance).iter().enumerate().map(|(i, a)| adapter::describe(i, a)).collect()
    }

    /// The one command that brings a software driver on this platform.
    pub fn driver_remedy() -> &'static str {
        adapter::driver_remedy()
    }

    /// What this device can do.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// The adapter behind this device.
    pub fn description(&self) -> &AdapterDescription {
        &self.inner.description
    }

    /// The device itself, for an embedding application.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue itself, for an embedding application.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// Whether both handles are the same device.
    pub fn same_device(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Tells the engine that the application's device was lost (see [`Gpu::from_wgpu`]): every later call fails.
    pub fn report_lost(&self, reason: &str) {
        self.inner.faults.set(Fault::Lost(reason.to_string()));
    }

    /// Counts since the device was opened.
    pub fn counters(&self) -> Counters {
        let rec = lock(&self.inner.recorder);
        Counters {
            pipelines_created: rec.cache.pipelines_made,
            bind_groups_created: rec.cache.groups_made,
            uploaded: rec.transfers.uploaded,
            buffers_created: rec.counters.buffers_created + rec.transfers.buffers_created,
            ..rec.counters
        }
    }

    /// Memory in use, cached, at its peak, and by label.
    pub fn memory(&self) -> MemoryReport {
        lock(&self.inner.pool).report()
    }

    /// Starts a new measurement of the peak.
    pub fn reset_peak(&self) {
        lock(&self.inner.pool).reset_peak();
    }

    /// Returns every cached buffer to the driver.
    pub fn trim(&self) {
        let mut rec = lock(&self.inner.recorder);
        rec.cache.drop_groups();
        lock(&self.inner.pool).trim();
    }

    /// `bytes` bytes of device memory with undefined content. `label` names the use in the memory report.
    ///
    /// # Errors
    /// Beyond the device's limit for one buffer, or out of memory.
    pub fn alloc(&self, bytes: u64, label: &'static str) -> Result<Storage> {
        let inner = &*self.inner;
        let guard = if inner.sentinels { GUARD } else { 0 };
        let class = size_class(bytes.max(1).next_multiple_of(16) + guard);
        if bytes.next_multiple_of(16) > inner.caps.max_binding {
            return Err(GpuError::TooLarge { asked: bytes, label, limit: inner.caps.max_binding });
        }
        let class = class.min(inner.caps.max_binding.max(256));
        let full = |pool: &Pool| GpuError::out_of_memory(bytes, label, &pool.report());
        let id = {
            let mut pool = lock(&inner.pool);
            if pool.fails() || inner.memory_limit.is_some_and(|limit| pool.live() + class > limit) {
                return Err(full(&pool));
            }
            // With sentinels every buffer is fresh, so that its guard zone stays where it is.
            if let Some((id, buffer)) = if inner.sentinels { None } else { pool.take(class) } {
                drop(pool);
                return Ok(Storage::pooled(&inner.pool, id, class, label, buffer, bytes));
            }
            pool.new_id()
        };
        let create = || {
            // The scope of its own tells this call's lack of memory from other reports.
            let scope = inner.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let buffer = inner.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: class,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            pollster::block_on(scope.pop()).is_none().then_some(buffer)
        };
        let buffer = match create() {
            Some(buffer) => buffer,
            None => {
                // Other size classes may hold what is missing.
                self.flush()?;
                self.trim();
                self.wait()?;
                create().ok_or_else(|| full(&lock(&inner.pool)))?
            }
        };
        lock(&inner.recorder).counters.buffers_created += 1;
        let storage = Storage::pooled(&inner.pool, id, class, label, buffer, bytes);
        if !inner.sentinels {
            return Ok(storage);
        }
        let mut fill = vec![FRESH_WORD; class as usize / 4];
        let (storage, zone) = storage.guarded();
        fill.iter_mut().skip(zone.start as usize / 4).zip(guard_words(storage.id())).for_each(|(f, w)| *f = w);
        inner.queue.write_buffer(storage.buffer(), 0, bytemuck::cast_slice(&fill));
        lock(&inner.pool).guarded.push(zone);
        Ok(storage)
    }

    /// Checks every guard zone of a device opened with [`Options::sentinels`]; returns how many there were.
    ///
    /// # Errors
    /// If a kernel wrote behind the end of a buffer: its label.
    pub fn check_sentinels(&self) -> Result<usize> {
        let zones = std::mem::take(&mut lock(&self.inner.pool).guarded);
        let mut reads = Vec::with_capacity(zones.len());
        for zone in &zones {
            let view = Storage::external(0, zone.buffer.clone(), zone.start, GUARD);
            reads.push(self.read_async(&view)?);
        }
        for (zone, read) in zones.iter().zip(reads) {
            let bytes = read.wait()?;
            if bytes.chunks_exact(4).zip(guard_words(zone.id)).any(|(found, w)| found != w.to_le_bytes()) {
                return Err(GpuError::Dispatch {
                    kernel: zone.label.into(),
                    reason: "a kernel wrote behind the end of this buffer".into(),
                });
            }
        }
        let count = zones.len();
        lock(&self.inner.pool).guarded.extend(zones.into_iter().filter(|z| z.is_live()));
        Ok(count)
    }

    /// A storage over `bytes` bytes of an application's own buffer, without a copy. It needs the usages STORAGE,
    /// COPY_SRC and COPY_DST, an offset that is a multiple of 256, and room up to the next multiple of 16 bytes.
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
        if !offset.is_multiple_of(crate::memory::VIEW_ALIGN) || end > buffer.size() {
            return Err(GpuError::Transfer(format!(
                "cannot import bytes {offset}..{end} of a buffer of {}: the offset must be a multiple of 256 and the \
                 length, rounded up to 16, must fit",
                buffer.size()
            )));
        }
        Ok(lock(&self.inner.pool).import(buffer, offset, bytes))
    }

    /// Records one kernel over `groups` workgroups. Buffers in `reads` must differ from those in `writes`.
    ///
    /// # Errors
    /// A kernel the driver refuses, a grid beyond the device's limit, or a device that reported a fault earlier.
    pub fn dispatch<P: Pod, const R: usize, const W: usize>(
        &self,
        kernel: &Kernel<P, R, W>,
        reads: [&Storage; R],
        writes: [&Storage; W],
        params: P,
        groups: [u32; 3],
    ) -> Result<()> {
        self.dispatch_any(&kernel.info, &reads, &writes, bytemuck::bytes_of(&params), groups)
    }

    /// Announces the floating-point operations of the next dispatch, for the profiler's table.
    pub fn note_flops(&self, flops: f64) {
        let mut rec = lock(&self.inner.recorder);
        if rec.profiler.is_some() {
            rec.work = flops;
        }
    }

    /// [`Gpu::dispatch`] without the types: parameters as bytes, buffers as slices.
    pub(crate) fn dispatch_any(
        &self,
        info: &KernelInfo,
        reads: &[&Storage],
        writes: &[&Storage],
        params: &[u8],
        groups: [u32; 3],
    ) -> Result<()> {
        if groups.contains(&0) {
            return Ok(());
        }
        let inner = &*self.inner;
        let fail = |reason: String| GpuError::Dispatch { kernel: info.name.to_string(), reason };
        if groups.iter().any(|&g| g > inner.caps.max_grid) {
            return Err(fail(format!(
                "grid {groups:?} is beyond the device's {} in one dimension",
                inner.caps.max_grid
            )));
        }
        let n = reads.len() + writes.len();
        if n != info.access.len() || params.len() < info.params_size as usize || n > MAX_BINDINGS {
            return Err(fail(format!(
                "takes {} buffers and {} bytes of parameters, got {n} and {}",
                info.access.len(),
                info.params_size,
                params.len()
            )));
        }
        let Some(first) = reads.first().or(writes.first()) else {
            return Err(fail("has no buffers".into()));
        };
        let mut bound = [*first; MAX_BINDINGS];
        for (slot, s) in bound.iter_mut().zip(reads.iter().chain(writes)) {
            if s.bound_bytes() > inner.caps.max_binding {
                return Err(fail(format!("{s:?} is beyond the {} bytes one binding may have", inner.caps.max_binding)));
            }
            *slot = s;
        }
        if let Some((r, w)) =
            reads.iter().flat_map(|r| writes.iter().map(move |w| (r, w))).find(|(r, w)| r.same_buffer(w))
        {
            return Err(fail(format!("reads {r:?} and writes {w:?}, which share one buffer; copy one of them first")));
        }
        self.check()?;
        let mut guard = lock(&inner.recorder);
        let rec = &mut *guard;
        let pipeline = match rec.cache.find(info.hash) {
            Some(found) => found.clone(),
            None => rec.cache.make(&inner.device, &inner.caps, info)?,
        };
        rec.record(inner, &pipeline, &bound[..n], params, groups)
    }

    /// Copies `bytes` bytes between storages; offsets and length are multiples of four.
    ///
    /// # Errors
    /// If a range does not fit or is not aligned.
    pub fn copy(&self, from: &Storage, from_offset: u64, to: &Storage, to_offset: u64, bytes: u64) -> Result<()> {
        let fits = |s: &Storage, o: u64| o.checked_add(bytes).is_some_and(|end| end <= s.bytes().next_multiple_of(4));
        if !fits(from, from_offset) || !fits(to, to_offset) || !(from_offset | to_offset | bytes).is_multiple_of(4) {
            return Err(GpuError::Transfer(format!(
                "cannot copy {bytes} bytes from {from:?} at {from_offset} to {to:?} at {to_offset}: \
                 ranges must fit and be multiples of four"
            )));
        }
        if bytes == 0 {
            return Ok(());
        }
        if from.same_buffer(to) {
            return Err(GpuError::Transfer(format!("{from:?} and {to:?} share one buffer; copy through a third")));
        }
        self.check()?;
        let mut rec = lock(&self.inner.recorder);
        rec.encoder(&self.inner.device).copy_buffer_to_buffer(
            from.buffer(),
            from.offset() + from_offset,
            to.buffer(),
            to.offset() + to_offset,
            bytes,
        );
        rec.after(&self.inner, 2 * bytes);
        Ok(())
    }

    /// Fills a storage with zero bytes.
    ///
    /// # Errors
    /// If the device reported a fault earlier.
    pub fn zero(&self, storage: &Storage) -> Result<()> {
        self.check()?;
        let mut rec = lock(&self.inner.recorder);
        rec.encoder(&self.inner.device).clear_buffer(
            storage.buffer(),
            storage.offset(),
            Some(storage.bytes().max(1).next_multiple_of(4)),
        );
        rec.after(&self.inner, storage.bytes());
        Ok(())
    }

    /// Submits what is recorded without waiting for it.
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn flush(&self) -> Result<()> {
        lock(&self.inner.recorder).submit(&self.inner);
        self.check()
    }

    /// Submits what is recorded and waits until the device has done it all.
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn wait(&self) -> Result<()> {
        lock(&self.inner.recorder).submit(&self.inner);
        self.inner.poll(wgpu::PollType::wait_indefinitely());
        lock(&self.inner.recorder).in_flight.clear();
        self.check()
    }

    /// Asks the device what it has done, without waiting: read-backs that are complete arrive. On an application's device
    /// this also runs the application's callbacks that are due.
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn poll(&self) -> Result<()> {
        self.inner.poll(wgpu::PollType::Poll);
        self.check()
    }

    /// While the guard lives, commands stay together until something is flushed or read (or their buffers come to 8 GiB), and
    /// no call waits because many submissions are in flight: who holds it bounds their number by other means, as
    /// `shadegrad::train::Pace` does. One submission matters where drivers let each wait for the one before, as Mesa's
    /// software driver does. What has to wait still does: reading back, profiling, and running out of memory.
    #[must_use]
    pub fn gather(&self) -> Gathering {
        self.recorder().gathering += 1;
        Gathering { gpu: self.clone() }
    }

    /// The fault reported since the last call, if any. A lost device stays lost.
    pub fn check(&self) -> Result<()> {
        let Some(fault) = self.inner.faults.take() else { return Ok(()) };
        let last = self.last_kernels();
        Err(match fault {
            Fault::Lost(reason) => GpuError::Lost { reason, last },
            Fault::Driver(reason) => GpuError::Driver { reason, last },
            Fault::OutOfMemory => GpuError::out_of_memory(0, "driver", &lock(&self.inner.pool).report()),
        })
    }

    fn last_kernels(&self) -> String {
        // `try_lock`: a fault may be reported from inside a submission, which holds the recorder.
        match self.inner.recorder.try_lock() {
            Ok(rec) => rec.last.iter().map(|n| n.as_ref()).collect::<Vec<_>>().join(", "),
            Err(_) => String::new(),
        }
    }

    pub(crate) fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        lock(&self.inner.pool)
    }

    pub(crate) fn recorder(&self) -> std::sync::MutexGuard<'_, Recorder> {
        lock(&self.inner.recorder)
    }

    /// Measures every kernel from now on: see [`Gpu::profile`]. Slower while it lasts.
    ///
    /// # Errors
    /// If the device has no timestamps.
    pub fn start_profile(&self) -> Result<()> {
        if !self.inner.caps.timestamps {
            return Err(GpuError::Option(
                "profiling needs timestamp queries, which this device does not have or which are switched off".into(),
            ));
        }
        self.wait()?;
        lock(&self.inner.recorder).profiler = Some(Profiler::new(&self.inner.device, &self.inner.queue));
        Ok(())
    }

    /// Ends the measurement and returns its table; empty if none was started.
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn profile(&self) -> Result<Profile> {
        self.wait()?;
        let profiler = lock(&self.inner.recorder).profiler.take();
        Ok(profiler.map(Profiler::finish).unwrap_or_default())
    }

    /// Splits `count` workgroups over two grid dimensions where one is too few: the grid, and its width, which the
    /// kernel needs as `gx` (`group = y * gx + x`). The last row may reach past `count`.
    ///
    /// # Errors
    /// If not even two dimensions hold that many.
    pub fn grid(&self, count: u64) -> Result<([u32; 3], u32)> {
        let max = u64::from(self.inner.caps.max_grid);
        // Tests take the second dimension long before they must, for no other test would see it.
        let wide = if self.inner.sentinels && count <= 3 * max { max.min(3) } else { max };
        if count <= wide {
            return Ok(([count as u32, 1, 1], count as u32));
        }
        // Rows of nearly equal length leave few idle workgroups in the last.
        let rows = count.div_ceil(wide);
        if rows > max {
            return Err(GpuError::Dispatch {
                kernel: "grid".into(),
                reason: format!("{count} workgroups are more than the device takes; split the tensor"),
            });
        }
        let gx = count.div_ceil(rows);
        Ok(([gx as u32, rows as u32, 1], gx as u32))
    }
}
