//! Time, bytes and operations per kernel, from timestamp queries.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use crate::gpu::Inner;
use crate::trace::{Event, Trace, write_chrome};

/// Kernels measured between two submissions: two queries each, within the 4096 a query set may have.
const SLOTS: u32 = 2048;

/// Measured time of one kernel over all its dispatches.
///
/// ```
/// # use shadegrad_kernels::*;
/// let row = KernelTime { name: "gemm".into(), count: 2, seconds: 0.5, bytes: 3e9, flops: 8e9 };
/// println!("{}: {} GB/s, {} GFLOP/s", row.name, 1e-9 * row.bytes / row.seconds, 1e-9 * row.flops / row.seconds);
/// assert_eq!(row.flops / row.seconds, 16e9);
/// ```
#[derive(Clone, Debug, Default)]
pub struct KernelTime {
    /// The kernel's name.
    pub name: String,
    /// Dispatches.
    pub count: u64,
    /// Seconds in all.
    pub seconds: f64,
    /// Bytes bound, in all: a lower bound of the traffic for kernels that read all they bind.
    pub bytes: f64,
    /// Floating-point operations announced by the caller, in all; 0 where none were.
    pub flops: f64,
}

/// A table of kernels, slowest first.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// if gpu.caps().timestamps {
///     let x = gpu.alloc(4096, "x")?;
///     gpu.start_profile()?;
///     fill::f32(&gpu, &x, 1024, 0.0)?;
///     for kernel in gpu.profile()?.kernels {
///         println!("{}: {} times, {:.1} us", kernel.name, kernel.count, 1e6 * kernel.seconds);
///     }
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// One row a kernel.
    pub kernels: Vec<KernelTime>,
    /// Every dispatch on host and device; empty unless it was asked for by [`Gpu::start_trace`](crate::Gpu::start_trace).
    pub events: Vec<Event>,
}

impl Profile {
    /// Seconds in all kernels together.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// let row = |seconds| KernelTime { seconds, ..KernelTime::default() };
    /// let profile = Profile { kernels: vec![row(0.5), row(0.25)], ..Profile::default() };
    /// assert_eq!(profile.seconds(), 0.75);
    /// ```
    pub fn seconds(&self) -> f64 {
        self.kernels.iter().map(|k| k.seconds).sum()
    }

    /// Writes [`Profile::events`] for `chrome://tracing`, Perfetto and other viewers of that format: a row for the host and
    /// one for the device. Where the device's clock cannot be compared with the host's, its row is as early as it can be
    /// without a kernel before its submission.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// if gpu.caps().timestamps {
    ///     let x = gpu.alloc(4096, "x")?;
    ///     gpu.start_trace()?;
    ///     fill::f32(&gpu, &x, 1024, 0.0)?;
    ///     let mut file = Vec::new(); // or a std::fs::File
    ///     gpu.profile()?.write_chrome(&mut file).expect("written");
    ///     assert!(String::from_utf8_lossy(&file).contains("fill_f32"));
    /// }
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_chrome(&self, out: &mut dyn Write) -> io::Result<()> {
        write_chrome(&self.events, out)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.seconds().max(f64::MIN_POSITIVE);
        writeln!(
            f,
            "{:<36} {:>7} {:>10} {:>9} {:>6} {:>8} {:>9}",
            "kernel", "count", "total ms", "mean us", "%", "GB/s", "GFLOP/s"
        )?;
        for k in &self.kernels {
            let s = k.seconds.max(f64::MIN_POSITIVE);
            writeln!(
                f,
                "{:<36} {:>7} {:>10.3} {:>9.1} {:>6.1} {:>8.2} {:>9.2}",
                k.name,
                k.count,
                k.seconds * 1e3,
                k.seconds * 1e6 / k.count.max(1) as f64,
                100.0 * k.seconds / total,
                k.bytes / s * 1e-9,
                k.flops / s * 1e-9
            )?;
        }
        Ok(())
    }
}

struct Sample {
    name: Arc<str>,
    bytes: u64,
    flops: f64,
}

pub(crate) struct Profiler {
    queries: wgpu::QuerySet,
    resolve: wgpu::Buffer,
    read: wgpu::Buffer,
    period_ns: f64,
    samples: Vec<Sample>,
    resolved: u32,
    table: BTreeMap<Arc<str>, KernelTime>,
    pub(crate) trace: Option<Trace>,
    /// When the submission under way began.
    submitting: Instant,
}

impl Profiler {
    pub(crate) fn new(device: &wgpu::Device, queue: &wgpu::Queue, traced: bool) -> Self {
        let bytes = u64::from(2 * SLOTS) * 8;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("profile"),
                size: bytes,
                usage,
                mapped_at_creation: false,
            })
        };
        Self {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * SLOTS,
            }),
            resolve: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            read: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            period_ns: queue.get_timestamp_period().into(),
            samples: Vec::new(),
            resolved: 0,
            table: BTreeMap::new(),
            trace: traced.then(Trace::new),
            submitting: Instant::now(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.samples.len() >= SLOTS as usize
    }

    /// The two queries around the next kernel.
    pub(crate) fn begin(&mut self, name: &Arc<str>, bytes: u64, flops: f64) -> wgpu::ComputePassTimestampWrites<'_> {
        let i = 2 * self.samples.len() as u32;
        self.samples.push(Sample { name: name.clone(), bytes, flops });
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(i),
            end_of_pass_write_index: Some(i + 1),
        }
    }

    pub(crate) fn resolve(&mut self, encoder: &mut wgpu::CommandEncoder) {
        self.submitting = Instant::now();
        self.resolved = 2 * self.samples.len() as u32;
        if self.resolved > 0 {
            encoder.resolve_query_set(&self.queries, 0..self.resolved, &self.resolve, 0);
            encoder.copy_buffer_to_buffer(&self.resolve, 0, &self.read, 0, u64::from(self.resolved) * 8);
        }
    }

    /// Reads the queries of the submission just made.
    pub(crate) fn collect(&mut self, inner: &Inner) {
        if std::mem::take(&mut self.resolved) == 0 {
            return;
        }
        self.read.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        inner.poll(wgpu::PollType::wait_indefinitely());
        let samples = std::mem::take(&mut self.samples);
        if let Ok(view) = self.read.slice(..).get_mapped_range() {
            let stamp = |j: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&view[8 * j..8 * j + 8]);
                u64::from_le_bytes(word)
            };
            let second = self.period_ns * 1e-9;
            if let Some(trace) = &mut self.trace {
                trace.submitted(self.submitting, stamp(0) as f64 * second);
            }
            for (i, s) in samples.into_iter().enumerate() {
                let ticks = stamp(2 * i + 1).saturating_sub(stamp(2 * i));
                if let Some(trace) = &mut self.trace {
                    trace.ran(&s.name, stamp(2 * i) as f64 * second, ticks as f64 * second);
                }
                let row = self.table.entry(s.name.clone()).or_default();
                row.name = s.name.to_string();
                row.count += 1;
                row.seconds += ticks as f64 * second;
                row.bytes += s.bytes as f64;
                row.flops += s.flops;
            }
        }
        self.read.unmap();
    }

    pub(crate) fn finish(self) -> Profile {
        let mut kernels: Vec<_> = self.table.into_values().collect();
        kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Profile { kernels, events: self.trace.map_or_else(Vec::new, Trace::finish) }
    }
}
