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
/// # Errors
/// As [`Gpu::dispatch`]; so for all functions here.
pub fn bits(gpu: &Gpu, s: Source, to: &Storage, n: usize) -> Result<()> {
    draw(gpu, &k::RANDOM_BITS, s, to, n, |_| {})
}

/// Uniform floats in `[lo, hi)`, 24 bits of randomness each; exact for 0 and 1.
pub fn uniform(gpu: &Gpu, s: Source, to: &Storage, n: usize, lo: f32, hi: f32) -> Result<()> {
    draw(gpu, &k::RANDOM_UNIFORM, s, to, n, |p| {
        (p.a, p.b, p.c) = (lo, hi - lo, if hi > lo { hi.next_down() } else { lo });
    })
}

/// Normal floats.
pub fn normal(gpu: &Gpu, s: Source, to: &Storage, n: usize, mean: f32, std: f32) -> Result<()> {
    draw(gpu, &k::RANDOM_NORMAL, s, to, n, |p| (p.a, p.b) = (mean, std))
}

/// 1 with probability `p`, else 0.
pub fn bernoulli(gpu: &Gpu, s: Source, to: &Storage, n: usize, p: f32) -> Result<()> {
    draw(gpu, &k::RANDOM_BERNOULLI, s, to, n, |params| params.threshold = threshold(p))
}

/// `y = 0` with probability `p`, else `x / (1 - p)`, for `n` elements; one decision for each run of `inner` elements.
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
