//! The device handle: allocation, dispatch, submission.

use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use shadegrad_shaders::{Kernel, KernelInfo};

use crate::adapter::{self, AdapterDescription, Caps, Options};
use crate::disk::Shelf;
use crate::error::GpuError;
use crate::fault::{Fault, Faults};
use crate::memory::{FRESH_WORD, GUARD, MemoryReport, Pool, Storage, guard_words, lock, size_class};
use crate::pipeline::MAX_BINDINGS;
use crate::plan::Command;
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

impl Drop for Inner {
    fn drop(&mut self) {
        self.recorder.get_mut().unwrap_or_else(PoisonError::into_inner).cache.save();
    }
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
    /// ```
    /// # use shadegrad_kernels::*;
    /// let gpu = Gpu::new(Options::from_env()?)?;
    /// println!("{gpu:?} binds up to {} bytes", gpu.caps().max_binding);
    /// let err = Gpu::new(Options { adapter: Some("no such card".into()), ..Options::default() }).unwrap_err();
    /// assert!(matches!(err, GpuError::NoAdapter(_)), "{err}");
    /// # Ok::<(), GpuError>(())
    /// ```
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

    pub(crate) fn build(
        device: wgpu::Device,
        queue: wgpu::Queue,
        description: AdapterDescription,
        options: &Options,
    ) -> Self {
        let caps = adapter::caps(&device, options);
        let mut recorder = Recorder::new(&device, caps.immediates);
        recorder.cache.shelf = options.cache.as_deref().and_then(|folder| Shelf::open(&device, folder));
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

    /// All adapters, best first. Empty where there is no driver.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// let found = Gpu::list(false);
    /// for adapter in &found {
    ///     println!("{adapter}"); // a line each: name, driver, class, what it can do
    /// }
    /// assert!(found.iter().enumerate().all(|(i, adapter)| adapter.index == i));
    /// ```
    pub fn list(gl: bool) -> Vec<AdapterDescription> {
        let instance = adapter::instance(gl);
        adapter::adapters(&instance).iter().enumerate().map(|(i, a)| adapter::describe(i, a)).collect()
    }

    /// The one command that brings a software driver on this platform.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// if Gpu::list(false).is_empty() {
    ///     println!("{}", Gpu::driver_remedy());
    /// }
    /// assert!(!Gpu::driver_remedy().is_empty());
    /// ```
    pub fn driver_remedy() -> &'static str {
        adapter::driver_remedy()
    }

    /// What this device can do.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let caps = gpu.caps();
    /// println!("{:?}, subgroups of {:?}", caps.class, caps.subgroup);
    /// assert!(caps.storage_bindings >= 8 && caps.workgroup_bytes >= 16 << 10);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// The adapter behind this device.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let it = gpu.description();
    /// println!("{} with {}", it.name, it.driver);
    /// assert!(["Vulkan", "Metal", "Dx12", "Gl"].contains(&it.backend.as_str()));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn description(&self) -> &AdapterDescription {
        &self.inner.description
    }

    /// Whether both handles are the same device.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert!(gpu.same_device(&gpu.clone()));
    /// let second = Gpu::new(Options::from_env()?)?; // opened for itself, even if on the same card
    /// assert!(!gpu.same_device(&second));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn same_device(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Counts since the device was opened.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let x = gpu.alloc(16, "x")?;
    /// let before = gpu.counters();
    /// fill::f32(&gpu, &x, 4, 1.0)?;
    /// gpu.read(&x)?;
    /// let after = gpu.counters();
    /// assert_eq!((after.dispatches - before.dispatches, after.read_backs - before.read_backs), (1, 1));
    /// # Ok::<(), GpuError>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(1000, "activations")?;
    /// let memory = gpu.memory();
    /// assert_eq!(memory.by_label, [("activations", 1024)]); // rounded up to a size class
    /// assert_eq!((memory.live, memory.live_buffers), (1024, 1));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn memory(&self) -> MemoryReport {
        lock(&self.inner.pool).report()
    }

    /// Starts a new measurement of the peak.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// drop(gpu.alloc(1 << 16, "large")?);
    /// assert_eq!(gpu.memory().peak, 1 << 16);
    /// gpu.reset_peak();
    /// assert_eq!(gpu.memory().peak, 0); // nothing is in use now
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn reset_peak(&self) {
        lock(&self.inner.pool).reset_peak();
    }

    /// Returns every cached buffer to the driver.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// drop(gpu.alloc(1024, "x")?);
    /// assert_eq!(gpu.memory().cached, 1024); // kept for the next one
    /// gpu.trim();
    /// assert_eq!(gpu.memory().cached, 0);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn trim(&self) {
        let mut rec = lock(&self.inner.recorder);
        rec.cache.drop_groups();
        lock(&self.inner.pool).trim();
    }

    /// `bytes` bytes of device memory with undefined content. `label` names the use in the memory report.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(4 * 3, "x")?; // three floats
    /// fill::f32(&gpu, &x, 3, 0.5)?;
    /// assert_eq!(gpu.read_as::<f32>(&x)?, [0.5; 3]);
    /// assert!(gpu.alloc(u64::MAX / 2, "too much").is_err());
    /// # Ok::<(), GpuError>(())
    /// ```
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
                return Ok(Storage::pooled(&inner.pool, &mut pool, id, class, label, buffer, bytes));
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
        let storage = Storage::pooled(&inner.pool, &mut lock(&inner.pool), id, class, label, buffer, bytes);
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
    /// ```
    /// # use shadegrad_kernels::*;
    /// let gpu = Gpu::new(Options { sentinels: true, ..Options::from_env()? })?;
    /// let x = gpu.alloc(4 * 5, "x")?;
    /// fill::f32(&gpu, &x, 5, 1.0)?;
    /// assert_eq!(gpu.check_sentinels()?, 1); // one buffer, and nothing was written behind its end
    /// # Ok::<(), GpuError>(())
    /// ```
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

    /// Records one kernel over `groups` workgroups. Buffers in `reads` must differ from those in `writes`.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_shaders::fill::{FILL_F32, FillF32Params};
    /// let y = gpu.alloc(4 * 6, "y")?;
    /// let params = FillF32Params { n4: 2, gx: 1, value: 7.0, ..Default::default() };
    /// gpu.dispatch(&FILL_F32, [], [&y], params, [1, 1, 1])?; // reads nothing, writes y
    /// assert_eq!(gpu.read_as::<f32>(&y)?, [7.0; 6]);
    /// # Ok::<(), GpuError>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let x = gpu.alloc(16, "x")?;
    /// if gpu.caps().timestamps {
    ///     gpu.start_profile()?;
    ///     gpu.note_flops(4e6); // the fill does not compute that much, but the table says so
    ///     fill::f32(&gpu, &x, 4, 1.0)?;
    ///     assert_eq!(gpu.profile()?.kernels[0].flops, 4e6);
    /// }
    /// # Ok::<(), GpuError>(())
    /// ```
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
        if rec.rehearses(|kernels| kernels.note(info)) {
            return Ok(());
        }
        let pipeline = match rec.cache.find(info.hash) {
            Some(found) => found.clone(),
            None => rec.cache.make(&inner.device, &inner.caps, info)?,
        };
        rec.record(inner, &pipeline, &bound[..n], params, groups)
    }

    /// Copies `bytes` bytes between storages; offsets and length are multiples of four.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "x")?;
    /// let y = gpu.alloc_from(&[0.0f32; 3], "y")?;
    /// gpu.copy(&x, 4, &y, 0, 8)?; // two floats from the second on
    /// assert_eq!(gpu.read_as::<f32>(&y)?, [2.0, 3.0, 0.0]);
    /// # Ok::<(), GpuError>(())
    /// ```
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
        if rec.rehearses(|_| ()) {
            return Ok(());
        }
        let range = [from.offset() + from_offset, to.offset() + to_offset, bytes];
        if let Some(capture) = rec.capturing() {
            let (source, target) = (from.buffer().clone(), to.buffer().clone());
            capture.push(Command::Copy { from: source, to: target, range }, &[from, to]);
        }
        let encoder = rec.encoder(&self.inner.device);
        encoder.copy_buffer_to_buffer(from.buffer(), range[0], to.buffer(), range[1], bytes);
        rec.after(&self.inner, 2 * bytes);
        Ok(())
    }

    /// Fills a storage with zero bytes.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1u32, 2, 3], "x")?;
    /// gpu.zero(&x)?;
    /// assert_eq!(gpu.read_as::<u32>(&x)?, [0, 0, 0]);
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault earlier.
    pub fn zero(&self, storage: &Storage) -> Result<()> {
        self.check()?;
        let mut rec = lock(&self.inner.recorder);
        if rec.rehearses(|_| ()) {
            return Ok(());
        }
        let range = [storage.offset(), storage.bytes().max(1).next_multiple_of(4)];
        if let Some(capture) = rec.capturing() {
            capture.push(Command::Clear { buffer: storage.buffer().clone(), range }, &[storage]);
        }
        rec.encoder(&self.inner.device).clear_buffer(storage.buffer(), range[0], Some(range[1]));
        rec.after(&self.inner, storage.bytes());
        Ok(())
    }

    /// Submits what is recorded without waiting for it.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let x = gpu.alloc(16, "x")?;
    /// fill::f32(&gpu, &x, 4, 1.0)?; // recorded
    /// assert_eq!(gpu.counters().submits, 0);
    /// gpu.flush()?; // the device begins
    /// assert_eq!(gpu.counters().submits, 1);
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn flush(&self) -> Result<()> {
        lock(&self.inner.recorder).submit(&self.inner);
        self.check()
    }

    /// Submits what is recorded and waits until the device has done it all.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let x = gpu.alloc(16, "x")?;
    /// let start = std::time::Instant::now();
    /// fill::f32(&gpu, &x, 4, 1.0)?;
    /// gpu.wait()?;
    /// println!("{:?} from recording to the end", start.elapsed());
    /// # Ok::<(), GpuError>(())
    /// ```
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
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[5u32], "x")?;
    /// let mut pending = gpu.read_async(&x)?;
    /// let bytes = loop {
    ///     gpu.poll()?; // a frame loop draws here
    ///     let Some(bytes) = pending.try_take()? else { continue };
    ///     break bytes;
    /// };
    /// assert_eq!(bytes, [5, 0, 0, 0]);
    /// # Ok::<(), GpuError>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let x = gpu.alloc(16, "x")?;
    /// let together = gpu.gather();
    /// for i in 0..300 {
    ///     fill::u32(&gpu, &x, 4, i)?;
    /// }
    /// assert_eq!(gpu.counters().submits, 0); // without the guard some of them would be under way
    /// drop(together);
    /// # Ok::<(), GpuError>(())
    /// ```
    #[must_use]
    pub fn gather(&self) -> Gathering {
        self.recorder().gathering += 1;
        Gathering { gpu: self.clone() }
    }

    /// The fault reported since the last call, if any. A lost device stays lost.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert!(gpu.check().is_ok());
    /// gpu.report_lost("unplugged");
    /// assert!(matches!(gpu.check(), Err(GpuError::Lost { .. })));
    /// # Ok::<(), GpuError>(())
    /// ```
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
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let x = gpu.alloc(16, "x")?;
    /// match gpu.start_profile() {
    ///     Ok(()) => fill::f32(&gpu, &x, 4, 1.0)?, // measured
    ///     Err(err) => println!("{err}"),          // no timestamps on this device
    /// }
    /// assert_eq!(gpu.profile()?.kernels.len(), usize::from(gpu.caps().timestamps));
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the device has no timestamps.
    pub fn start_profile(&self) -> Result<()> {
        self.measure(false)
    }

    /// [`Gpu::start_profile`] that also keeps every dispatch, when the host recorded it and when the device ran it:
    /// [`Profile::events`], some hundred bytes for each.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// if gpu.caps().timestamps {
    ///     let x = gpu.alloc(4096, "x")?;
    ///     gpu.start_trace()?;
    ///     fill::f32(&gpu, &x, 1024, 0.0)?;
    ///     let profile = gpu.profile()?;
    ///     // Recorded, submitted, run.
    ///     assert_eq!(profile.events.len(), 3);
    /// }
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::start_profile`].
    pub fn start_trace(&self) -> Result<()> {
        self.measure(true)
    }

    fn measure(&self, traced: bool) -> Result<()> {
        if !self.inner.caps.timestamps {
            return Err(GpuError::Option(
                "profiling needs timestamp queries, which this device does not have or which are switched off".into(),
            ));
        }
        self.wait()?;
        lock(&self.inner.recorder).profiler = Some(Profiler::new(&self.inner.device, &self.inner.queue, traced));
        Ok(())
    }

    /// Ends the measurement and returns its table; empty if none was started.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let x = gpu.alloc(16, "x")?;
    /// assert!(gpu.profile()?.kernels.is_empty()); // none was started
    /// if gpu.start_profile().is_ok() {
    ///     fill::f32(&gpu, &x, 4, 1.0)?;
    ///     fill::f32(&gpu, &x, 4, 2.0)?;
    ///     let profile = gpu.profile()?;
    ///     assert_eq!((profile.kernels[0].name.as_str(), profile.kernels[0].count), ("fill_f32", 2));
    /// }
    /// # Ok::<(), GpuError>(())
    /// ```
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
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(gpu.grid(10)?, ([10, 1, 1], 10));
    /// let (groups, gx) = gpu.grid(1 << 20)?; // more than one dimension takes
    /// assert_eq!(groups[0], gx);
    /// assert!(u64::from(groups[0]) * u64::from(groups[1]) >= 1 << 20);
    /// # Ok::<(), GpuError>(())
    /// ```
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
