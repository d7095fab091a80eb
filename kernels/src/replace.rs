//! Other text for a built-in kernel: how the tests are tested.

use crate::gpu::Gpu;

impl Gpu {
    /// From now on the kernel of this name is compiled from `text`, or from its own text again if that is `None`. For tests of
    /// the tests: a suite that does not notice a changed kernel does not check it. Bindings and parameters must stay as they
    /// were; a text that does not compile is an error of the dispatch.
    pub fn replace_kernel(&self, name: &str, text: Option<String>) {
        self.recorder().cache.replace(name, text);
    }
}
