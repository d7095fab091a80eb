//! Random numbers made on the device, and operations that drop by chance. All take word `i` of a Philox stream for
//! element `i`, so the same seed and stream give the same numbers on every device, and a backward pass can draw the
//! same ones again instead of having them stored.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::random as k;
use shadegrad_shaders::random::RandomParams;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Elements of one workgroup.
const GROUP: u64 = 256 * 4;

/// A random sequence: Philox key and upper half of its counter.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::random::{Source, bits};
/// let (x, y) = (gpu.alloc(16, "x")?, gpu.alloc(16, "y")?);
/// bits(&gpu, Source { seed: 1, stream: 0 }, &x, 4)?;
/// bits(&gpu, Source { seed: 1, stream: 0 }, &y, 4)?;
/// assert_eq!(gpu.read(&x)?, gpu.read(&y)?);
/// bits(&gpu, Source { seed: 1, stream: 1 }, &y, 4)?;
/// assert_ne!(gpu.read(&x)?, gpu.read(&y)?);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The key.
    pub seed: u64,
    /// The upper half of the counter.
    pub stream: u64,
}

/// How many of the 2^24 values of a word's upper 24 bits are an event of probability `p`.
fn threshold(p: f32) -> u32 {
    (f64::from(p) * f64::from(1 << 24)).ceil() as u32
}

fn params(n: usize, gx: u32, s: Source) -> RandomParams {
    RandomParams {
        n4: n.div_ceil(4) as u32,
        gx,
        seed_lo: s.seed as u32,
        seed_hi: (s.seed >> 32) as u32,
        stream_lo: s.stream as u32,
        stream_hi: (s.stream >> 32) as u32,
        ..RandomParams::default()
    }
}

fn draw(
    gpu: &Gpu,
    kernel: &Kernel<RandomParams, 0, 1>,
    s: Source,
    to: &Storage,
    n: usize,
    set: impl FnOnce(&mut RandomParams),
) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let mut params = params(n, gx, s);
    set(&mut params);
    gpu.dispatch(kernel, [], [to], params, grid)
}

/// The words themselves, `n` of them, as `u32`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::random::{Source, bits};
/// let x = gpu.alloc(16, "x")?;
/// bits(&gpu, Source { seed: 0, stream: 0 }, &x, 4)?;
/// // Philox4x32-10 for key and counter 0.
/// assert_eq!(gpu.read_as::<u32>(&x)?, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`]; so for all functions here.
pub fn bits(gpu: &Gpu, s: Source, to: &Storage, n: usize) -> Result<()> {
    draw(gpu, &k::RANDOM_BITS, s, to, n, |_| {})
}

/// Uniform floats in `[lo, hi)`, 24 bits of randomness each; exact for 0 and 1.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::random::{Source, uniform};
/// let x = gpu.alloc(4 * 100, "x")?;
/// uniform(&gpu, Source { seed: 0, stream: 0 }, &x, 100, 0.0, 1.0)?;
/// let x = gpu.read_as::<f32>(&x)?;
/// assert!(x.iter().all(|v| (0.0..1.0).contains(v)));
/// assert_eq!(x[0], 0x0066_27e8 as f32 / 16_777_216.0); // 24 bits of the first word
/// # Ok::<(), GpuError>(())
/// ```
pub fn uniform(gpu: &Gpu, s: Source, to: &Storage, n: usize, lo: f32, hi: f32) -> Result<()> {
    draw(gpu, &k::RANDOM_UNIFORM, s, to, n, |p| {
        (p.a, p.b, p.c) = (lo, hi - lo, if hi > lo { hi.next_down() } else { lo });
    })
}

/// Normal floats.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::random::{Source, normal};
/// let x = gpu.alloc(4 * 4096, "x")?;
/// normal(&gpu, Source { seed: 1, stream: 0 }, &x, 4096, 10.0, 2.0)?;
/// let x = gpu.read_as::<f32>(&x)?;
/// assert!((x.iter().sum::<f32>() / 4096.0 - 10.0).abs() < 0.15);
/// # Ok::<(), GpuError>(())
/// ```
pub fn normal(gpu: &Gpu, s: Source, to: &Storage, n: usize, mean: f32, std: f32) -> Result<()> {
    draw(gpu, &k::RANDOM_NORMAL, s, to, n, |p| (p.a, p.b) = (mean, std))
}

/// 1 with probability `p`, else 0.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::random::{Source, bernoulli};
/// let x = gpu.alloc(16, "x")?;
/// bernoulli(&gpu, Source { seed: 0, stream: 0 }, &x, 4, 0.5)?;
/// assert_eq!(gpu.read_as::<f32>(&x)?, [1.0, 0.0, 0.0, 0.0]); // of the words the first alone is below 2^31
/// # Ok::<(), GpuError>(())
/// ```
pub fn bernoulli(gpu: &Gpu, s: Source, to: &Storage, n: usize, p: f32) -> Result<()> {
    draw(gpu, &k::RANDOM_BERNOULLI, s, to, n, |params| params.threshold = threshold(p))
}

/// `y = 0` with probability `p`, else `x / (1 - p)`, for `n` elements; one decision for each run of `inner` elements.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let source = random::Source { seed: 0, stream: 0 };
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0, 3.0, 4.0], "x")?, gpu.alloc(16, "y")?);
/// random::drop(&gpu, source, &x, &y, 4, 1, 0.5)?; // element by element
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.0, 4.0, 6.0, 8.0]);
/// random::drop(&gpu, source, &x, &y, 4, 2, 0.5)?; // by pairs
/// assert_eq!(gpu.read_as::<f32>(&y)?, [0.0, 0.0, 6.0, 8.0]);
/// # Ok::<(), GpuError>(())
/// ```
pub fn drop(gpu: &Gpu, s: Source, x: &Storage, y: &Storage, n: usize, inner: usize, p: f32) -> Result<()> {
    let (grid, gx) = gpu.grid((n as u64).div_ceil(GROUP))?;
    let a = if p < 1.0 { (1.0 / (1.0 - f64::from(p))) as f32 } else { 0.0 };
    let params = RandomParams { threshold: threshold(p), inner: inner as u32, a, ..params(n, gx, s) };
    let kernel = match inner {
        1 => &k::DROP_ELEMENT,
        _ if inner.is_multiple_of(4) => &k::DROP_PATH_4,
        _ => &k::DROP_PATH_1,
    };
    gpu.dispatch(kernel, [x], [y], params, grid)
}
