//! Pooled device memory: size classes, free lists, accounting by label.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustc_hash::FxHashMap;

/// Storage offsets of views are multiples of this, which satisfies every device's alignment.
pub(crate) const VIEW_ALIGN: u64 = 256;

/// Locks `m`; a panic elsewhere while it was held does not make the data unusable here.
pub(crate) fn lock<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of the guard zone behind each buffer of a device opened with sentinels.
pub(crate) const GUARD: u64 = 256;
/// What fills fresh memory there: a quiet NaN that no computation makes.
pub(crate) const FRESH_WORD: u32 = 0x7fc5_e171;

/// The words of a buffer's guard zone. Every other one is NaN, for reads past the end to show; those between are numbers that
/// belong to this buffer, for a kernel that copies or computes past the end would write NaN for NaN, and not be seen. Buffers made
/// one after the other begin with one and the other, so that one element past the end is seen too.
pub(crate) fn guard_words(id: u64) -> impl Iterator<Item = u32> {
    (0..GUARD / 4).map(move |i| match (i + id) % 2 {
        0 => FRESH_WORD,
        _ => 0x4b00_0000 | (id.wrapping_mul(40_503).wrapping_add(97 * i) & 0x7f_ffff) as u32,
    })
}

/// Rounds up to the size classes 256 bytes x {1, 1.25, 1.5, 1.75} x 2^k.
pub(crate) fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(256);
    let power = 1u64 << (63 - bytes.leading_zeros());
    let step = power / 4;
    power + (bytes - power).div_ceil(step) * step
}

/// What the pool holds at one moment.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (x, y) = (gpu.alloc(512, "weights")?, gpu.alloc(256, "gradients")?);
/// drop(y);
/// let MemoryReport { live, cached, peak, .. } = gpu.memory();
/// assert_eq!((live, cached, peak), (512, 256, 768));
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryReport {
    /// Bytes in use.
    pub live: u64,
    /// Bytes kept for reuse.
    pub cached: u64,
    /// The most bytes that were in use at once.
    pub peak: u64,
    /// Buffers in use.
    pub live_buffers: usize,
    /// Bytes in use by label, largest first.
    pub by_label: Vec<(&'static str, u64)>,
}

#[derive(Default)]
pub(crate) struct Pool {
    /// Free buffers by size class. The lowest id is taken first, so that what a training step receives depends only on
    /// which buffers are free and not on the order of their return: warm steps then see the same buffers, and their
    /// cached bind groups.
    free: FxHashMap<u64, BinaryHeap<Free>>,
    live: u64,
    cached: u64,
    peak: u64,
    live_buffers: usize,
    by_label: FxHashMap<&'static str, u64>,
    next_id: u64,
    /// Guard zones to check, on a device opened with sentinels.
    pub(crate) guarded: Vec<Guarded>,
    /// Allocations until the one that fails: see [`Gpu::fail_allocation`](crate::Gpu::fail_allocation).
    pub(crate) fail_after: Option<u64>,
    /// The application's own buffers in use here.
    imported: Vec<Weak<Block>>,
}

/// A free buffer and its number; in a heap the lowest number comes first.
struct Free(u64, wgpu::Buffer);

impl Ord for Free {
    fn cmp(&self, other: &Self) -> Order {
        other.0.cmp(&self.0)
    }
}

impl PartialOrd for Free {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Free {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Free {}

/// A guard zone: the buffer, where the zone starts, and whether anybody still uses the buffer.
pub(crate) struct Guarded {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) id: u64,
    pub(crate) start: u64,
    pub(crate) label: &'static str,
    block: Weak<Block>,
}

impl Guarded {
    pub(crate) fn is_live(&self) -> bool {
        self.block.strong_count() > 0
    }
}

impl Pool {
    /// Whether this allocation is the one that was asked to fail.
    pub(crate) fn fails(&mut self) -> bool {
        let now = self.fail_after == Some(0);
        self.fail_after = self.fail_after.and_then(|left| left.checked_sub(1));
        now
    }

    /// A free buffer of exactly this class.
    pub(crate) fn take(&mut self, class: u64) -> Option<(u64, wgpu::Buffer)> {
        let Free(id, buffer) = self.free.get_mut(&class)?.pop()?;
        self.cached -= class;
        Some((id, buffer))
    }

    /// The free buffer of this number, lent to a plan.
    pub(crate) fn reserve(&mut self, home: &Arc<Mutex<Pool>>, id: u64, class: u64) -> Option<Storage> {
        let free = self.free.get_mut(&class)?;
        let (mut found, all) = (None, std::mem::take(free));
        free.extend(all.into_iter().filter_map(|f| {
            if f.0 != id {
                return Some(f);
            }
            found = Some(f.1);
            None
        }));
        let buffer = found?;
        self.cached -= class;
        Some(Storage::pooled(home, self, id, class, "plan", buffer, class))
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A storage over an application's buffer. All that lie in one buffer share their number, so that a kernel that would
    /// read one and write another is refused here and not by the driver.
    pub(crate) fn import(&mut self, buffer: wgpu::Buffer, offset: u64, bytes: u64) -> Storage {
        self.imported.retain(|block| block.strong_count() > 0);
        let known = self.imported.iter().filter_map(Weak::upgrade).find(|block| block.buffer == buffer);
        if let Some(block) = known {
            return Storage { block, offset, bytes, guard: 0 };
        }
        let storage = Storage::external(self.new_id(), buffer, offset, bytes);
        self.imported.push(Arc::downgrade(&storage.block));
        storage
    }

    fn count_in(&mut self, bytes: u64, label: &'static str) {
        self.live += bytes;
        self.live_buffers += 1;
        self.peak = self.peak.max(self.live);
        *self.by_label.entry(label).or_default() += bytes;
    }

    fn give_back(&mut self, id: u64, class: u64, label: &'static str, buffer: wgpu::Buffer) {
        self.live -= class;
        self.live_buffers -= 1;
        if let Some(n) = self.by_label.get_mut(label) {
            *n -= class;
        }
        self.cached += class;
        self.free.entry(class).or_default().push(Free(id, buffer));
    }

    /// Lets go of every cached buffer.
    pub(crate) fn trim(&mut self) {
        self.free.clear();
        self.cached = 0;
    }

    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    pub(crate) fn report(&self) -> MemoryReport {
        let mut by_label: Vec<_> = self.by_label.iter().filter(|(_, n)| **n > 0).map(|(l, n)| (*l, *n)).collect();
        by_label.sort_by_key(|&(label, n)| (Reverse(n), label));
        MemoryReport {
            live: self.live,
            cached: self.cached,
            peak: self.peak,
            live_buffers: self.live_buffers,
            by_label,
        }
    }

    pub(crate) fn reset_peak(&mut self) {
        self.peak = self.live;
    }
}

/// One buffer on loan from the pool, or one that belongs to the embedding application.
pub(crate) struct Block {
    buffer: wgpu::Buffer,
    id: u64,
    /// Number of the loan. Unlike that of the buffer it does not come back.
    serial: u64,
    class: u64,
    label: &'static str,
    /// `None` for an application's own buffer, which is not ours to reuse.
    pool: Option<Arc<Mutex<Pool>>>,
}

fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            lock(pool).give_back(self.id, self.class, self.label, self.buffer.clone());
        }
    }
}

/// A range of device memory. Clones share it; the last drop returns it to the pool.
///
/// The bytes behind a storage reach at least to the next multiple of 16, so kernels may read and write whole `vec4`s.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc(1000, "x")?;
/// assert!(x.bytes() >= 1000);
/// drop(x); // back to the pool at once; the next of its size takes it
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone)]
pub struct Storage {
    block: Arc<Block>,
    offset: u64,
    bytes: u64,
    /// Bytes bound beyond the padding: the guard zone, if there is one.
    guard: u64,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Storage({} #{}, {}+{})", self.block.label, self.block.id, self.offset, self.bytes)
    }
}

impl Storage {
    /// A buffer on loan. `pool` is what `home` guards.
    pub(crate) fn pooled(
        home: &Arc<Mutex<Pool>>,
        pool: &mut Pool,
        id: u64,
        class: u64,
        label: &'static str,
        buffer: wgpu::Buffer,
        bytes: u64,
    ) -> Self {
        pool.count_in(class, label);
        let serial = next_serial();
        let block = Block { buffer, id, serial, class, label, pool: Some(home.clone()) };
        Self { block: Arc::new(block), offset: 0, bytes, guard: 0 }
    }

    /// Notes the guard zone behind this storage.
    pub(crate) fn guarded(mut self) -> (Self, Guarded) {
        let start = self.bound_bytes();
        let block = Arc::downgrade(&self.block);
        let zone = Guarded { buffer: self.buffer().clone(), id: self.id(), start, label: self.block.label, block };
        self.guard = GUARD;
        (self, zone)
    }

    pub(crate) fn external(id: u64, buffer: wgpu::Buffer, offset: u64, bytes: u64) -> Self {
        let (class, serial) = (buffer.size(), next_serial());
        let block = Block { class, buffer, id, serial, label: "external", pool: None };
        Self { block: Arc::new(block), offset, bytes, guard: 0 }
    }

    /// All of a buffer on loan.
    pub(crate) fn whole(block: Arc<Block>) -> Self {
        let bytes = block.class;
        Self { block, offset: 0, bytes, guard: 0 }
    }

    /// The loan itself, without prolonging it.
    pub(crate) fn loan(&self) -> Weak<Block> {
        Arc::downgrade(&self.block)
    }

    /// Length in bytes.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(gpu.alloc(100, "x")?.bytes(), 100); // as asked for
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// First byte within the buffer.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(1024, "x")?;
    /// let half = x.view(512, 512).expect("within x");
    /// assert_eq!((x.offset(), half.offset()), (0, 512));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The buffer itself, for an embedding application. Flush before using it there, and keep this storage alive
    /// while you do: afterwards the pool hands the buffer to someone else.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[1.0f32; 64], "x")?;
    /// gpu.flush()?;
    /// // The application may bind or copy from it now.
    /// assert!(x.buffer().usage().contains(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.block.buffer
    }

    pub(crate) fn id(&self) -> u64 {
        self.block.id
    }

    /// Bytes bound to a kernel: up to the next multiple of 16, and the guard zone.
    pub(crate) fn bound_bytes(&self) -> u64 {
        self.bytes.max(1).next_multiple_of(16) + self.guard
    }

    /// Number of this loan of memory: that of all views and clones, and of no other memory before or after.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(256, "x")?;
    /// let first = x.serial();
    /// assert_eq!(x.clone().serial(), first);
    /// drop(x);
    /// assert_ne!(gpu.alloc(256, "y")?.serial(), first); // the same buffer, lent again
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn serial(&self) -> u64 {
        self.block.serial
    }

    /// Bytes of the whole buffer that this storage lies in, as the pool counts them.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(1000, "x")?;
    /// assert_eq!((x.bytes(), x.buffer_bytes()), (1000, 1024));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn buffer_bytes(&self) -> u64 {
        self.block.class
    }

    /// True if both lie in one buffer, so that one kernel cannot read the one and write the other.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc(1024, "x")?;
    /// let tail = x.view(768, 256).expect("within x");
    /// assert!(x.same_buffer(&tail));
    /// assert!(gpu.copy(&x, 0, &tail, 0, 16).is_err()); // it would read and write one buffer
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn same_buffer(&self, other: &Self) -> bool {
        self.block.id == other.block.id
    }

    /// A view of `bytes` bytes from `offset`, relative to this storage. `None` if it reaches past the end, or if the
    /// offset is not a multiple of 256, which satisfies every device's alignment.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = gpu.alloc_from(&[2.0f32; 128], "x")?;
    /// let second = x.view(256, 256).expect("within x, at a multiple of 256");
    /// fill::f32(&gpu, &second, 64, 3.0)?;
    /// assert_eq!(gpu.read_as::<f32>(&x)?[62..66], [2.0, 2.0, 3.0, 3.0]);
    /// assert!(x.view(4, 4).is_none() && x.view(512, 1).is_none());
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn view(&self, offset: u64, bytes: u64) -> Option<Self> {
        let fits = offset.checked_add(bytes)? <= self.bytes && offset.is_multiple_of(VIEW_ALIGN);
        fits.then(|| Self { block: self.block.clone(), offset: self.offset + offset, bytes, guard: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_waste_at_most_a_quarter() {
        assert_eq!(size_class(0), 256);
        assert_eq!(size_class(256), 256);
        assert_eq!(size_class(257), 320);
        assert_eq!(size_class(448), 448);
        assert_eq!(size_class(449), 512);
        assert_eq!(size_class(1 << 20), 1 << 20);
        for n in 1..5000u64 {
            let c = size_class(n);
            assert!(c >= n && c.is_multiple_of(16) && (n <= 256 || c <= n + n / 4), "{n} -> {c}");
        }
    }
}
