//! Recording: one encoder, one pass, submitted in batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::error::GpuError;
use crate::fault::Fault;
use crate::gpu::Inner;
use crate::memory::{Storage, lock};
use crate::pipeline::{BindKey, Cache, PARAM_BYTES, Pipeline};
use crate::plan::{Capture, Command};
use crate::profile::Profiler;
use crate::transfer::Transfers;
use crate::warm::Rehearsal;
use crate::{Gpu, Result};

/// Dispatches recorded before a submission; the first of a batch goes out early so that the device starts.
const SUBMIT_DISPATCHES: u32 = 192;
const FIRST_SUBMIT_DISPATCHES: u32 = 48;
/// Bytes bound by recorded dispatches before a submission: bounds the time of one submission for drivers with a watchdog.
const SUBMIT_BYTES: u64 = 8 << 30;
/// Submissions in flight before the host waits for the oldest.
const MAX_IN_FLIGHT: usize = 6;
/// Parameter slots in the uniform ring of devices without immediates.
const RING_SLOTS: u32 = 256;
/// Distance of two slots: the largest alignment WebGPU asks for.
const RING_STRIDE: u32 = 256;

/// Counts since the device was opened. A warm training step changes only the first three.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let x = gpu.alloc(16, "x")?;
/// # let step = || fill::f32(&gpu, &x, 4, 1.0);
/// step()?; // compiles its pipeline and makes its bind group
/// let warm = gpu.counters();
/// step()?;
/// assert_eq!(gpu.counters(), Counters { dispatches: warm.dispatches + 1, ..warm });
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kernels dispatched.
    pub dispatches: u64,
    /// Command buffers submitted.
    pub submits: u64,
    /// Bytes uploaded.
    pub uploaded: u64,
    /// Read-backs asked for: each one waits, sooner or later, until the device has come that far.
    pub read_backs: u64,
    /// Buffers created on the device.
    pub buffers_created: u64,
    /// Pipelines compiled.
    pub pipelines_created: u64,
    /// Bind groups created.
    pub bind_groups_created: u64,
}

/// Commands on their way to the device.
pub(crate) struct Recorder {
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    /// Pipeline and number of the bind group now set in `pass`.
    current: (u64, Option<u64>),
    pub(crate) cache: Cache,
    pub(crate) transfers: Transfers,
    pub(crate) profiler: Option<Profiler>,
    /// One for devices without immediates, more while commands are gathered; none for the others.
    rings: Vec<Ring>,
    /// The ring that takes the next parameters.
    ring: usize,
    pub(crate) in_flight: VecDeque<wgpu::SubmissionIndex>,
    /// Guards alive: see [`Gathering`].
    pub(crate) gathering: u32,
    pending: u32,
    pending_bytes: u64,
    pub(crate) work: f64,
    idle: bool,
    /// Set while a thread rehearses: see [`Gpu::rehearse`].
    pub(crate) rehearsal: Option<Rehearsal>,
    /// Set while a thread captures: see [`Gpu::capture`].
    pub(crate) capture: Option<Capture>,
    pub(crate) last: VecDeque<Arc<str>>,
    pub(crate) counters: Counters,
}

/// While it lives, commands stay together and nobody waits for older ones: made by [`Gpu::gather`].
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let (x, y) = (gpu.alloc(16, "x")?, gpu.alloc(16, "y")?);
/// {
///     let _together: Gathering = gpu.gather();
///     fill::f32(&gpu, &x, 4, 1.0)?;
///     gpu.copy(&x, 0, &y, 0, 16)?;
/// } // from here on submissions are made as enough commands have come together
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0; 4]);
/// # Ok::<(), GpuError>(())
/// ```
pub struct Gathering {
    pub(crate) gpu: Gpu,
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.gpu.recorder().gathering -= 1;
    }
}

/// Kernel parameters where immediates are missing: one slot a dispatch, written before the submission that uses it.
struct Ring {
    buffer: wgpu::Buffer,
    group: wgpu::BindGroup,
    bytes: Vec<u8>,
    used: u32,
}

impl Recorder {
    pub(crate) fn new(device: &wgpu::Device, immediates: bool) -> Self {
        let mut cache = Cache::default();
        let rings = if immediates { Vec::new() } else { vec![Ring::new(device, &mut cache)] };
        Self {
            encoder: None,
            pass: None,
            current: (0, None),
            cache,
            transfers: Transfers::new(),
            profiler: None,
            rings,
            ring: 0,
            in_flight: VecDeque::new(),
            gathering: 0,
            pending: 0,
            pending_bytes: 0,
            work: 0.0,
            idle: true,
            rehearsal: None,
            capture: None,
            last: VecDeque::with_capacity(8),
            counters: Counters::default(),
        }
    }

    /// Whether this thread rehearses, so that nothing is to be recorded: then `note` may take down what was asked for.
    pub(crate) fn rehearses(&mut self, note: impl FnOnce(&mut Rehearsal)) -> bool {
        // Other threads may work meanwhile.
        match self.rehearsal.as_mut().filter(|r| r.thread == thread::current().id()) {
            Some(rehearsal) => {
                note(rehearsal);
                true
            }
            None => false,
        }
    }

    /// The capture under way on this thread.
    pub(crate) fn capturing(&mut self) -> Option<&mut Capture> {
        self.capture.as_mut().filter(|c| c.thread == thread::current().id())
    }

    /// Records a dispatch, and keeps it where one is captured.
    pub(crate) fn record(
        &mut self,
        inner: &Inner,
        pipeline: &Arc<Pipeline>,
        bound: &[&Storage],
        params: &[u8],
        groups: [u32; 3],
    ) -> Result<()> {
        let bytes: u64 = bound.iter().map(|s| s.bound_bytes()).sum();
        let key = BindKey::new(&pipeline.layout, bound);
        let (number, group) = match self.cache.group(&inner.device, &pipeline.layout, &key, bound) {
            Ok((number, group)) => (number, group.clone()),
            Err(Fault::OutOfMemory) => {
                return Err(GpuError::out_of_memory(0, "bind group", &lock(&inner.pool).report()));
            }
            Err(fault) => {
                return Err(GpuError::Dispatch { kernel: pipeline.name.to_string(), reason: fault.to_string() });
            }
        };
        if let Some(capture) = self.capturing() {
            let (pipeline, group, params) = (pipeline.clone(), (number, group.clone()), capture.keep(params));
            capture.push(Command::Dispatch { pipeline, group, params, groups, bytes }, bound);
        }
        self.issue(inner, pipeline, (number, &group), params, groups, bytes);
        Ok(())
    }

    /// Hands a dispatch to wgpu.
    pub(crate) fn issue(
        &mut self,
        inner: &Inner,
        pipeline: &Arc<Pipeline>,
        (number, group): (u64, &wgpu::BindGroup),
        params: &[u8],
        groups: [u32; 3],
        bytes: u64,
    ) {
        let traced = self.profiler.as_ref().is_some_and(|p| p.trace.is_some()).then(Instant::now);
        if self.rings.get(self.ring).is_some_and(Ring::is_full) {
            if self.gathering == 0 {
                self.submit(inner);
            } else {
                self.ring += 1;
                if self.ring == self.rings.len() {
                    self.rings.push(inner.catching(|| Ring::new(&inner.device, &mut self.cache)));
                }
            }
        }
        if self.profiler.as_ref().is_some_and(Profiler::is_full) {
            self.submit(inner);
        }
        if let Some(profiler) = &mut self.profiler {
            // One pass a kernel: the only timestamps every backend has.
            self.pass = None;
            self.current = (0, None);
            let encoder = self.encoder.get_or_insert_with(|| new_encoder(&inner.device));
            let writes = profiler.begin(&pipeline.name, bytes, std::mem::take(&mut self.work));
            let desc = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) };
            self.pass = Some(encoder.begin_compute_pass(&desc).forget_lifetime());
        } else if self.pass.is_none() {
            let encoder = self.encoder.get_or_insert_with(|| new_encoder(&inner.device));
            self.pass = Some(encoder.begin_compute_pass(&Default::default()).forget_lifetime());
            self.current = (0, None);
        }
        let Some(pass) = &mut self.pass else { return };
        if self.current.0 != pipeline.key {
            pass.set_pipeline(&pipeline.raw);
            self.current.0 = pipeline.key;
        }
        if self.current.1 != Some(number) {
            pass.set_bind_group(0, group, &[]);
            self.current.1 = Some(number);
        }
        match self.rings.get_mut(self.ring) {
            // Every kernel's pipeline layout holds the ring's group, also where the kernel has no parameters.
            Some(ring) => {
                let offset = ring.push(params);
                pass.set_bind_group(1, &ring.group, &[offset]);
            }
            None if pipeline.has_params => pass.set_immediates(0, params),
            None => {}
        }
        pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        if let (Some(since), Some(trace)) = (traced, self.profiler.as_mut().and_then(|p| p.trace.as_mut())) {
            trace.recorded(&pipeline.name, since);
        }
        if self.last.len() == 8 {
            self.last.pop_front();
        }
        self.last.push_back(pipeline.name.clone());
        self.counters.dispatches += 1;
        self.after(inner, bytes);
    }

    /// The encoder, outside any pass.
    pub(crate) fn encoder(&mut self, device: &wgpu::Device) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.current = (0, None);
        self.encoder.get_or_insert_with(|| new_encoder(device))
    }

    /// Counts one recorded command and submits when enough have come together.
    pub(crate) fn after(&mut self, inner: &Inner, bytes: u64) {
        self.pending += 1;
        self.pending_bytes += bytes;
        let enough = match self.gathering {
            0 if self.idle => FIRST_SUBMIT_DISPATCHES,
            0 => SUBMIT_DISPATCHES,
            _ => u32::MAX,
        };
        if self.pending >= enough || self.pending_bytes >= SUBMIT_BYTES {
            self.submit(inner);
            self.idle = false;
        }
    }

    /// Hands everything recorded to the device.
    pub(crate) fn submit(&mut self, inner: &Inner) {
        self.pass = None;
        self.current = (0, None);
        self.pending = 0;
        self.pending_bytes = 0;
        self.idle = true;
        let Some(mut encoder) = self.encoder.take() else { return };
        let index = inner.catching(|| {
            if let Some(profiler) = &mut self.profiler {
                profiler.resolve(&mut encoder);
            }
            self.rings.iter_mut().for_each(|ring| ring.write(&inner.queue));
            self.ring = 0;
            self.transfers.before_submit();
            let index = inner.queue.submit([encoder.finish()]);
            self.transfers.after_submit();
            if let Some(profiler) = &mut self.profiler {
                profiler.collect(inner);
            }
            index
        });
        self.counters.submits += 1;
        self.in_flight.push_back(index);
        // Where nobody waits, submissions are bounded by whoever holds the guard; old ones are forgotten all the same.
        while self.in_flight.len() > MAX_IN_FLIGHT {
            if let Some(oldest) = self.in_flight.pop_front()
                && self.gathering == 0
            {
                inner.poll(wgpu::PollType::Wait { submission_index: Some(oldest), timeout: None });
            }
        }
    }
}

fn new_encoder(device: &wgpu::Device) -> wgpu::CommandEncoder {
    device.create_command_encoder(&Default::default())
}

impl Ring {
    fn new(device: &wgpu::Device, cache: &mut Cache) -> Self {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: u64::from(RING_SLOTS * RING_STRIDE),
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("params"),
            layout: &cache.uniform_layout(device),
            entries: &[wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &buffer,
                    offset: 0,
                    size: wgpu::BufferSize::new(PARAM_BYTES.into()),
                }),
            }],
        });
        Self { buffer, group, bytes: vec![0; (RING_SLOTS * RING_STRIDE) as usize], used: 0 }
    }

    fn is_full(&self) -> bool {
        self.used == RING_SLOTS
    }

    /// The dynamic offset of a slot that holds `params`.
    fn push(&mut self, params: &[u8]) -> u32 {
        let offset = self.used * RING_STRIDE;
        self.bytes[offset as usize..][..params.len()].copy_from_slice(params);
        self.used += 1;
        offset
    }

    /// All slots in one write, which the queue puts before the submission that follows and after the one before.
    fn write(&mut self, queue: &wgpu::Queue) {
        let n = (self.used * RING_STRIDE) as usize;
        if n > 0 {
            queue.write_buffer(&self.buffer, 0, &self.bytes[..n]);
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, fill};

    #[test]
    fn the_device_starts_early_and_the_host_runs_ahead_by_few_submissions() {
        let gpu = Gpu::new(Options::from_env().unwrap()).unwrap();
        let x = gpu.alloc(64, "x").unwrap();
        gpu.wait().unwrap();
        let start = gpu.counters().submits;
        let mut submitted_at = Vec::new();
        for i in 1..=48 + 192 * 20 {
            fill::f32(&gpu, &x, 16, i as f32).unwrap();
            if gpu.counters().submits - start > submitted_at.len() as u64 {
                submitted_at.push(i);
            }
            assert!(gpu.recorder().in_flight.len() <= MAX_IN_FLIGHT, "after {i} dispatches");
        }
        let expected: Vec<u32> = (0..=20).map(|i| FIRST_SUBMIT_DISPATCHES + i * SUBMIT_DISPATCHES).collect();
        assert_eq!(submitted_at, expected);
        gpu.wait().unwrap();
        assert!(gpu.recorder().in_flight.is_empty());
        // After a wait the device is idle and gets its first work early again.
        let start = gpu.counters().submits;
        (0..48).for_each(|_| fill::f32(&gpu, &x, 16, 0.0).unwrap());
        assert_eq!(gpu.counters().submits, start + 1);
        // Many bytes go out however few dispatches they are of.
        let mut rec = gpu.recorder();
        rec.after(&gpu.inner, SUBMIT_BYTES);
        assert_eq!(rec.counters.submits, start + 1, "nothing was recorded, so nothing is submitted");
        drop(rec);
        fill::f32(&gpu, &x, 16, 0.0).unwrap();
        gpu.recorder().after(&gpu.inner, SUBMIT_BYTES);
        assert_eq!(gpu.counters().submits, start + 2);
    }
}
