//! What the benchmarks share: processor time as criterion's measurement, and its settings.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput};
use shadegrad::Gpu;

/// Processor time of all threads of this process, the driver's included, where the system tells it (Linux); wall time
/// elsewhere. On a software driver it is the figure that a busy machine leaves standing. `SHADEGRAD_BENCH_WALL=1`
/// measures wall time everywhere, which is what counts on a GPU.
pub struct CpuTime {
    cpu: bool,
    wall: WallTime,
}

impl Default for CpuTime {
    fn default() -> Self {
        let wall = std::env::var_os("SHADEGRAD_BENCH_WALL").is_some();
        Self { cpu: !wall && cpu_nanoseconds().is_some(), wall: WallTime }
    }
}

/// Ten samples by processor time, after warming up; both times in milliseconds.
pub fn settings(warm_up: u64, measure: u64) -> Criterion<CpuTime> {
    Criterion::default()
        .with_measurement(CpuTime::default())
        .sample_size(10)
        .warm_up_time(Duration::from_millis(warm_up))
        .measurement_time(Duration::from_millis(measure))
}

/// What `run` takes `times` times over, what the device does of it included.
pub fn spent(gpu: &Gpu, times: u64, mut run: impl FnMut()) -> Duration {
    let clock = CpuTime::default();
    gpu.wait().expect("device");
    let start = clock.start();
    (0..times).for_each(|_| run());
    gpu.wait().expect("device");
    clock.end(start)
}

/// Sum over the threads alive; none of the driver's workers ends between two readings.
fn cpu_nanoseconds() -> Option<u64> {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(total)
}

/// The start of a measurement on either clock.
pub enum Start {
    Cpu(u64),
    Wall(std::time::Instant),
}

impl Measurement for CpuTime {
    type Intermediate = Start;
    type Value = Duration;

    fn start(&self) -> Start {
        match self.cpu.then(cpu_nanoseconds).flatten() {
            Some(ns) => Start::Cpu(ns),
            None => Start::Wall(self.wall.start()),
        }
    }

    fn end(&self, start: Start) -> Duration {
        match start {
            Start::Cpu(ns) => Duration::from_nanos(cpu_nanoseconds().unwrap_or(ns).saturating_sub(ns).max(1)),
            Start::Wall(at) => self.wall.end(at),
        }
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Figures
    }
}

/// Formats nanoseconds, and elements over them as floating-point operations.
struct Figures;

impl ValueFormatter for Figures {
    fn scale_values(&self, _typical: f64, values: &mut [f64]) -> &'static str {
        values.iter_mut().for_each(|v| *v *= 1e-3);
        "us"
    }

    fn scale_throughputs(&self, _typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let (amount, unit) = match *throughput {
            Throughput::Bytes(n) | Throughput::BytesDecimal(n) => (n, "GB/s"),
            Throughput::Elements(n) => (n, "GFLOP/s"),
            _ => (0, "/ns"),
        };
        values.iter_mut().for_each(|v| *v = amount as f64 / *v);
        unit
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "ns"
    }
}
