//! Faults on demand: how the tests are tested, and how the handling of what seldom happens is.

use crate::gpu::Gpu;

impl Gpu {
    /// From now on the kernel of this name is compiled from `text`, or from its own text again if that is `None`. For tests of
    /// the tests: a suite that does not notice a changed kernel does not check it. Bindings and parameters must stay as they
    /// were; a text that does not compile is an error of the dispatch.
    pub fn replace_kernel(&self, name: &str, text: Option<String>) {
        self.recorder().cache.replace(name, text);
    }

    /// The allocation that comes after `after` others finds no memory; the ones behind it do. `None` takes that back. For tests:
    /// memory may run out at any of them.
    pub fn fail_allocation(&self, after: Option<u64>) {
        self.pool().fail_after = after;
    }
}
