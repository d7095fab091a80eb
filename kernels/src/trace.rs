//! What happened when, on host and device: the events behind a profile, and their file for a viewer.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

/// Something that took time.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// if gpu.caps().timestamps {
///     let x = gpu.alloc(4096, "x")?;
///     gpu.start_trace()?;
///     fill::f32(&gpu, &x, 1024, 0.0)?;
///     let ran = gpu.profile()?.events.into_iter().find(|event| event.device);
///     println!("{:?}", ran); // fill_f32, when and how long
/// }
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The kernel's name; `submit and wait` for what the host does between two batches of them.
    pub name: Arc<str>,
    /// Whether the device was at work, or the host.
    pub device: bool,
    /// Seconds since the trace began.
    pub start: f64,
    /// Seconds.
    pub seconds: f64,
}

/// Events as they are collected.
pub(crate) struct Trace {
    began: Instant,
    submitting: Arc<str>,
    host: Vec<Event>,
    /// With the device's clock, in seconds.
    device: Vec<Event>,
    /// By how much the host's clock is ahead of the device's at least: no kernel runs before it was submitted.
    ahead: f64,
}

impl Trace {
    pub(crate) fn new() -> Self {
        let (began, ahead) = (Instant::now(), f64::NEG_INFINITY);
        Self { began, submitting: "submit and wait".into(), host: Vec::new(), device: Vec::new(), ahead }
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.began).as_secs_f64()
    }

    /// The host recorded `name` from `since` until now.
    pub(crate) fn recorded(&mut self, name: &Arc<str>, since: Instant) {
        let (start, seconds) = (self.seconds(since), since.elapsed().as_secs_f64());
        self.host.push(Event { name: name.clone(), device: false, start, seconds });
    }

    /// The host submitted at `since` and has waited until now for kernels, the first of which began at `first` of the
    /// device's clock.
    pub(crate) fn submitted(&mut self, since: Instant, first: f64) {
        self.ahead = self.ahead.max(self.seconds(since) - first);
        let name = self.submitting.clone();
        self.recorded(&name, since);
    }

    /// The device ran `name` from `start` of its clock.
    pub(crate) fn ran(&mut self, name: &Arc<str>, start: f64, seconds: f64) {
        self.device.push(Event { name: name.clone(), device: true, start, seconds });
    }

    /// All events, those of the device by the host's clock.
    pub(crate) fn finish(mut self) -> Vec<Event> {
        self.device.iter_mut().for_each(|e| e.start += self.ahead);
        self.host.extend(self.device);
        self.host
    }
}

/// Writes events in the format of `chrome://tracing`, which Perfetto and other viewers read too: times in microseconds, the
/// host and the device as two rows.
pub(crate) fn write_chrome(events: &[Event], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    for (row, name) in [(1, "host: recording"), (2, "device: kernels")] {
        write!(
            out,
            "{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":{row},\"args\":{{\"name\":\"{name}\"}}}}"
        )?;
        writeln!(out, "{}", if row == 1 || !events.is_empty() { "," } else { "" })?;
    }
    for (i, e) in events.iter().enumerate() {
        write!(out, "{{\"name\":")?;
        write_string(&e.name, out)?;
        write!(
            out,
            ",\"ph\":\"X\",\"pid\":1,\"tid\":{},\"ts\":{:.3},\"dur\":{:.3}}}",
            1 + u8::from(e.device),
            1e6 * e.start,
            1e6 * e.seconds
        )?;
        writeln!(out, "{}", if i + 1 < events.len() { "," } else { "" })?;
    }
    writeln!(out, "]}}")
}

/// A string of JSON; a user's kernel may have any name.
fn write_string(text: &str, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c))?,
            c => write!(out, "{c}")?,
        }
    }
    write!(out, "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_json_with_one_line_an_event() {
        let event = |name: &str, device| Event { name: name.into(), device, start: 0.001, seconds: 2.5e-6 };
        for n in 0..3 {
            let all = [event("a \"b\"\n\\", false), event("gemm", true)];
            let mut file = Vec::new();
            write_chrome(&all[..n.min(2)], &mut file).unwrap();
            let text = String::from_utf8(file).unwrap();
            assert_eq!(text.lines().count(), 4 + n.min(2), "{text}");
            assert!(!text.contains(",\n]") && !text.contains("}\n{"), "{text}");
            if n == 2 {
                let line = r#"{"name":"a \"b\"\u000a\\","ph":"X","pid":1,"tid":1,"ts":1000.000,"dur":2.500},"#;
                assert!(text.contains(line) && text.contains(r#""gemm","ph":"X","pid":1,"tid":2"#), "{text}");
            }
        }
    }

    #[test]
    fn no_kernel_runs_before_it_was_submitted() {
        let mut trace = Trace::new();
        let name: Arc<str> = "k".into();
        let (first, second) = (Instant::now(), Instant::now() + std::time::Duration::from_millis(5));
        trace.ran(&name, 100.0, 0.001);
        trace.submitted(first, 100.0);
        trace.ran(&name, 100.002, 0.001);
        trace.submitted(second, 100.002);
        let events = trace.finish();
        let starts = |device| events.iter().filter(|e| e.device == device).map(|e| e.start).collect::<Vec<_>>();
        for (host, device) in starts(false).iter().zip(starts(true)) {
            assert!(device >= host - 1e-12, "{events:?}");
        }
    }
}
