//! Compiling before the first step: finding out what a step needs without computing it, then all of it on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, ThreadId};

use rustc_hash::FxHashSet;
use shadegrad_shaders::KernelInfo;

use crate::error::GpuError;
use crate::memory::lock;
use crate::pipeline::{Order, Pipeline};
use crate::{Gpu, Result};

/// naga goes deep into unrolled expressions.
const STACK: usize = 16 << 20;

/// A rehearsal under way: whose it is, and what it asked for.
pub(crate) struct Rehearsal {
    pub(crate) thread: ThreadId,
    seen: FxHashSet<u64>,
    kernels: Vec<KernelInfo>,
}

impl Rehearsal {
    pub(crate) fn note(&mut self, info: &KernelInfo) {
        if self.seen.insert(info.hash) {
            self.kernels.push(info.clone());
        }
    }
}

/// Kernels that [`Gpu::rehearse`] found: for [`Gpu::compile`].
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let ((), none) = gpu.rehearse(|| ());
/// assert_eq!(gpu.compile(&none, |_, _| ())?, 0);
/// # Ok::<(), GpuError>(())
/// ```
pub struct Kernels(Vec<KernelInfo>);

impl Kernels {
    /// Their names in the order in which they were first asked for.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(64, "x")?;
    /// let (_, kernels) = gpu.rehearse(|| fill::f32(&gpu, &x, 16, 1.0).and(fill::arange(&gpu, &x, 16, 0, 1)));
    /// assert_eq!(kernels.names().collect::<Vec<_>>(), ["fill_f32", "fill_arange"]);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|k| &*k.name)
    }
}

impl Gpu {
    /// Runs `f` with nothing of it reaching the device: kernels, copies and uploads of this thread are dropped, and the
    /// kernels noted. Memory is handed out as always, with undefined content; reading it back gives that. Other threads work
    /// on. A rehearsal within a rehearsal takes over until it ends.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(64, "x")?;
    /// let (done, kernels) = gpu.rehearse(|| fill::f32(&gpu, &x, 16, 1.0));
    /// done?;
    /// assert_eq!(kernels.names().collect::<Vec<_>>(), ["fill_f32"]);
    /// gpu.compile(&kernels, |made, all| println!("{made} of {all} kernels compiled"))?;
    /// let before = gpu.counters();
    /// fill::f32(&gpu, &x, 16, 1.0)?;
    /// assert_eq!(gpu.counters().pipelines_created, before.pipelines_created);
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn rehearse<T>(&self, f: impl FnOnce() -> T) -> (T, Kernels) {
        /// Puts back what was there, also when `f` panics.
        struct Guard<'a>(&'a Gpu, Option<Rehearsal>);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.recorder().rehearsal = self.1.take();
            }
        }
        let new = Rehearsal { thread: thread::current().id(), seen: FxHashSet::default(), kernels: Vec::new() };
        let before = self.recorder().rehearsal.replace(new);
        let guard = Guard(self, before);
        let out = f();
        let kernels = self.recorder().rehearsal.take().map_or_else(Vec::new, |r| r.kernels);
        drop(guard);
        (out, Kernels(kernels))
    }

    /// Compiles those of `kernels` that are not yet, on as many threads as there are processors; `progress` hears how many
    /// of how many are done. Returns how many there were to compile.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(64, "x")?;
    /// let (done, kernels) = gpu.rehearse(|| fill::f32(&gpu, &x, 16, 1.0));
    /// done?;
    /// assert_eq!(gpu.compile(&kernels, |made, all| println!("{made} of {all}"))?, 1);
    /// assert_eq!(gpu.compile(&kernels, |_, _| ())?, 0); // nothing is left
    /// # Ok::<(), GpuError>(())
    /// ```
    ///
    /// # Errors
    /// A kernel that the device cannot run or the driver refuses; the others are compiled all the same.
    pub fn compile(&self, kernels: &Kernels, mut progress: impl FnMut(usize, usize)) -> Result<usize> {
        self.check()?;
        let inner = &*self.inner;
        let mut failed: Option<GpuError> = None;
        let mut orders: Vec<Order> = Vec::new();
        {
            let mut rec = self.recorder();
            for info in &kernels.0 {
                if rec.cache.find(info.hash).is_none() {
                    match rec.cache.order(&inner.device, &inner.caps, info) {
                        Ok(order) => orders.push(order),
                        Err(e) => failed = failed.or(Some(e)),
                    }
                }
            }
        }
        let all = orders.len();
        let threads = thread::available_parallelism().map_or(1, usize::from).min(16).min(all);
        let orders: Vec<_> = orders.into_iter().map(|order| Mutex::new(Some(order))).collect();
        let next = AtomicUsize::new(0);
        let work = |send: mpsc::Sender<Result<Arc<Pipeline>>>| {
            while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Some(order) = lock(order).take() else { continue };
                // Nobody listens any more if the caller's `progress` panicked.
                let _ = send.send(order.compile(&inner.device, inner.caps.checked));
            }
        };
        let work = &work;
        thread::scope(|scope| {
            let (send, done) = mpsc::channel();
            let mut started = 0;
            for _ in 0..threads {
                let send = send.clone();
                let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || work(send));
                started += usize::from(thread.is_ok());
            }
            // The channel ends with the last thread, also if one of them panics.
            if started == 0 {
                work(send)
            } else {
                drop(send)
            }
            for (made, result) in done.iter().enumerate() {
                match result {
                    Ok(pipeline) => self.recorder().cache.insert(pipeline),
                    Err(e) => failed = failed.take().or(Some(e)),
                }
                progress(made + 1, all);
            }
        });
        self.recorder().cache.save();
        failed.map_or(Ok(all), Err)
    }
}
