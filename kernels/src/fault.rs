//! What the driver reports outside any call: it becomes the next call's error, and never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::gpu::Inner;
use crate::memory::lock;

/// What the driver reported outside any call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    Driver(String),
    OutOfMemory,
    Lost(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("out of memory"),
            // wgpu's texts are trees of several lines.
            Self::Driver(text) | Self::Lost(text) => {
                f.write_str(&text.split_whitespace().collect::<Vec<_>>().join(" "))
            }
        }
    }
}

impl From<wgpu::Error> for Fault {
    fn from(err: wgpu::Error) -> Self {
        match err {
            wgpu::Error::OutOfMemory { .. } => Self::OutOfMemory,
            other => Self::Driver(other.to_string()),
        }
    }
}

/// The first fault that nobody was told of yet.
#[derive(Default)]
pub(crate) struct Faults {
    any: AtomicBool,
    first: Mutex<Option<Fault>>,
}

impl Faults {
    pub(crate) fn set(&self, fault: Fault) {
        let mut first = lock(&self.first);
        // A lost device outranks whatever was reported before it.
        if first.is_none() || matches!(fault, Fault::Lost(_)) {
            *first = Some(fault);
        }
        self.any.store(true, Ordering::Release);
    }

    /// The fault to tell of. A lost device stays lost; everything else is told once.
    pub(crate) fn take(&self) -> Option<Fault> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut first = lock(&self.first);
        if matches!(*first, Some(Fault::Lost(_))) {
            return first.clone();
        }
        self.any.store(false, Ordering::Release);
        first.take()
    }
}

impl Inner {
    /// Runs `f` and takes down what wgpu reports meanwhile, for the next call to tell. On an application's device it would
    /// otherwise reach the application's handler, and the one that wgpu has by default panics.
    pub(crate) fn catching<T>(&self, f: impl FnOnce() -> T) -> T {
        let (out, fault) = attempt(&self.device, f);
        if let Some(fault) = fault {
            self.faults.set(fault);
        }
        out
    }

    /// `wgpu::Device::poll`, without its panic: where the driver answers that the device is lost, wgpu 30 has no error to
    /// return. (In a program built with `panic = "abort"` nothing can be caught, and it ends.)
    pub(crate) fn poll(&self, how: wgpu::PollType) {
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(how))) {
            // The only errors of a poll are a time-out, which none has that is made here, and a submission that was refused,
            // which its error scope reported.
            Ok(_) => {}
            Err(panic) => match lost_text(panic.as_ref()) {
                Some(text) => self.faults.set(Fault::Lost(text)),
                // A poll also runs the application's own callbacks: their panics are not ours to hide.
                None => resume_unwind(panic),
            },
        }
    }
}

/// Runs `f`; the first report that wgpu makes meanwhile on this thread.
pub(crate) fn attempt<T>(device: &wgpu::Device, f: impl FnOnce() -> T) -> (T, Option<Fault>) {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let scopes = [Validation, OutOfMemory, Internal].map(|filter| device.push_error_scope(filter));
    let out = f();
    // All are popped, innermost first, as wgpu wants it.
    let errors: Vec<_> = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
    (out, errors.into_iter().next().map(Fault::from))
}

/// What wgpu says when it panics in a poll.
fn lost_text(panic: &(dyn std::any::Any + Send)) -> Option<String> {
    let text = panic.downcast_ref::<String>()?;
    text.starts_with("Error in Device::poll").then(|| text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_is_told_every_time_and_before_all_else() {
        let faults = Faults::default();
        assert_eq!(faults.take(), None);
        faults.set(Fault::Driver("first".into()));
        faults.set(Fault::OutOfMemory);
        assert_eq!((faults.take(), faults.take()), (Some(Fault::Driver("first".into())), None));
        faults.set(Fault::OutOfMemory);
        faults.set(Fault::Lost("gone".into()));
        faults.set(Fault::Driver("later".into()));
        assert_eq!(
            (faults.take(), faults.take()),
            (Some(Fault::Lost("gone".into())), Some(Fault::Lost("gone".into())))
        );
    }

    #[test]
    fn only_the_panic_of_a_poll_means_a_lost_device() {
        let of = |text: &str| lost_text(&text.to_string());
        assert_eq!(
            of("Error in Device::poll: Validation Error\n\n  lost"),
            Some("Error in Device::poll: Validation Error lost".into())
        );
        assert_eq!((of("index out of bounds"), lost_text(&"Error in Device::poll")), (None, None));
    }
}
