//! A recorded sequence of commands that runs again without being computed on the host again.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use rustc_hash::FxHashMap;

use crate::error::GpuError;
use crate::memory::{Block, Storage, lock};
use crate::pipeline::Pipeline;
use crate::{Gpu, Result};

/// A command as it was recorded.
pub(crate) enum Command {
    Dispatch {
        pipeline: Arc<Pipeline>,
        /// The bind group and its number.
        group: (u64, wgpu::BindGroup),
        /// First byte and length of the parameters.
        params: (usize, usize),
        groups: [u32; 3],
        bytes: u64,
    },
    Copy {
        from: wgpu::Buffer,
        to: wgpu::Buffer,
        /// Where from, where to, and how much.
        range: [u64; 3],
    },
    Clear {
        buffer: wgpu::Buffer,
        /// From where, and how much.
        range: [u64; 2],
    },
}

/// A capture under way: whose it is, and what was recorded.
pub(crate) struct Capture {
    pub(crate) thread: ThreadId,
    commands: Vec<Command>,
    params: Vec<u8>,
    /// The last loan of each buffer that a command names, and its class.
    loans: FxHashMap<u64, (Weak<Block>, u64)>,
    refused: Option<&'static str>,
}

impl Capture {
    pub(crate) fn push(&mut self, command: Command, storages: &[&Storage]) {
        self.commands.push(command);
        for s in storages {
            let loan = (s.loan(), s.buffer_bytes());
            match self.loans.entry(s.id()) {
                Entry::Occupied(mut known) if !known.get().0.ptr_eq(&loan.0) => {
                    known.insert(loan);
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(place) => {
                    place.insert(loan);
                }
            }
        }
    }

    /// Keeps the parameters of a dispatch.
    pub(crate) fn keep(&mut self, params: &[u8]) -> (usize, usize) {
        let at = self.params.len();
        self.params.extend(params);
        (at, params.len())
    }

    /// Notes that something happened that cannot happen again by itself.
    pub(crate) fn refuse(&mut self, what: &'static str) {
        self.refused = self.refused.or(Some(what));
    }
}

/// The commands of some work on the device, a training step say, with the memory they use: made by [`Gpu::capture`], run again
/// by [`Plan::replay`]. A replay costs the host what wgpu takes, and allocates nothing of its own.
///
/// A replay is the same commands on the same memory with the same parameters. So numbers that come from the host (a learning
/// rate, the position in a random stream) are those of the capture, and inputs are changed by writing to their memory. Results
/// are overwritten by the next replay. The plan keeps all memory that the work used between its commands, too, which nobody
/// else gets as long as it lives.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (x, y) = (gpu.alloc(16, "x")?, gpu.alloc(16, "y")?);
/// fill::f32(&gpu, &x, 4, 1.0)?;
/// let (done, plan) = gpu.capture(|| elementwise::unary(&gpu, elementwise::Unary::MulScalar, &x, &y, 4, 2.0, 0.0))?;
/// done?; // it has run once by now
/// gpu.upload(&x, bytemuck::bytes_of(&[1.0f32, 2.0, 3.0, 4.0]))?;
/// plan.replay()?;
/// assert_eq!(gpu.read(&y)?, bytemuck::bytes_of(&[2.0f32, 4.0, 6.0, 8.0]));
/// # Ok::<(), GpuError>(())
/// ```
pub struct Plan {
    gpu: Gpu,
    commands: Vec<Command>,
    params: Vec<u8>,
    /// Nobody else may get this memory.
    held: Vec<Storage>,
}

impl Plan {
    /// Records the commands again; the device runs them in order with everything else.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(16, "x")?;
    /// let (done, plan) = gpu.capture(|| fill::f32(&gpu, &x, 4, 3.0))?;
    /// done?;
    /// gpu.zero(&x)?;
    /// plan.replay()?;
    /// assert_eq!(gpu.read(&x)?[..4], 3.0f32.to_le_bytes());
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn replay(&self) -> Result<()> {
        self.gpu.check()?;
        let inner = &*self.gpu.inner;
        let mut rec = self.gpu.recorder();
        for command in &self.commands {
            match command {
                Command::Dispatch { pipeline, group, params: (at, len), groups, bytes } => {
                    let params = &self.params[*at..at + len];
                    rec.issue(inner, pipeline, (group.0, &group.1), params, *groups, *bytes);
                }
                Command::Copy { from, to, range: [from_offset, to_offset, bytes] } => {
                    let encoder = rec.encoder(&inner.device);
                    encoder.copy_buffer_to_buffer(from, *from_offset, to, *to_offset, *bytes);
                    rec.after(inner, 2 * bytes);
                }
                Command::Clear { buffer, range: [offset, bytes] } => {
                    rec.encoder(&inner.device).clear_buffer(buffer, *offset, Some(*bytes));
                    rec.after(inner, *bytes);
                }
            }
        }
        Ok(())
    }

    /// How many commands there are.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(16, "x")?;
    /// let (_, plan) = gpu.capture(|| fill::f32(&gpu, &x, 4, 3.0).and(gpu.zero(&x)))?;
    /// assert_eq!(plan.commands(), 2);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn commands(&self) -> usize {
        self.commands.len()
    }

    /// Bytes of memory that the plan keeps to itself or shares with those who hold its inputs and results.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(1024, "x")?;
    /// let (_, plan) = gpu.capture(|| fill::f32(&gpu, &x, 256, 3.0))?;
    /// assert_eq!(plan.memory(), 1024);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn memory(&self) -> u64 {
        self.held.iter().map(Storage::buffer_bytes).sum()
    }
}

impl Gpu {
    /// Runs `f` as always and keeps what this thread recorded meanwhile, for [`Plan::replay`].
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(16, "x")?;
    /// // An upload takes its bytes from the host, and would only repeat them.
    /// let refused = gpu.capture(|| gpu.upload(&x, &[0; 16]));
    /// assert!(refused.is_err_and(|e| e.to_string().contains("upload")));
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// If something was uploaded or read back meanwhile, if another thread was lent memory in between that the work had used,
    /// or within another capture. `f` has run all the same.
    pub fn capture<T>(&self, f: impl FnOnce() -> T) -> Result<(T, Plan)> {
        /// Ends the capture, also when `f` panics.
        struct Guard<'a>(&'a Gpu);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.recorder().capture = None;
            }
        }
        let refuse = |reason: String| GpuError::Dispatch { kernel: "capture".into(), reason };
        {
            let mut rec = self.recorder();
            if rec.capture.is_some() {
                return Err(refuse("another capture is under way; end it first".into()));
            }
            rec.capture = Some(Capture {
                thread: thread::current().id(),
                commands: Vec::new(),
                params: Vec::new(),
                loans: FxHashMap::default(),
                refused: None,
            });
        }
        let guard = Guard(self);
        let out = f();
        let Some(capture) = self.recorder().capture.take() else {
            return Err(refuse("it was ended by another one".into()));
        };
        drop(guard);
        if let Some(what) = capture.refused {
            return Err(refuse(format!("{what} cannot be captured; do it before or after, in memory made outside")));
        }
        // What is still lent is held with its holders; what came back to the pool is taken out of it.
        let mut held = Vec::with_capacity(capture.loans.len());
        let mut lost = 0;
        let mut pool = lock(&self.inner.pool);
        for (id, (loan, class)) in capture.loans {
            match loan.upgrade().map(Storage::whole).or_else(|| pool.reserve(&self.inner.pool, id, class)) {
                Some(storage) => held.push(storage),
                None => lost += 1,
            }
        }
        drop(pool);
        if lost > 0 {
            return Err(refuse(format!(
                "{lost} buffers that the work had let go of were lent to others meanwhile; capture on one thread, and let \
                 nothing of the work's own go on living but its results"
            )));
        }
        Ok((out, Plan { gpu: self.clone(), commands: capture.commands, params: capture.params, held }))
    }
}
