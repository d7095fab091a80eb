//! Activations in few bits, and the gradients of activation functions straight from them.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::compact::{self as k, CompactParams};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Invocations of one workgroup, a word each.
const GROUP: u64 = 256;

/// How a value becomes a whole number: `round(x 2^frac)`, halves to even, held within `lo..=hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of a value, 4 or 8.
    pub bits: u32,
    /// Bits behind the point.
    pub frac: u32,
    /// The lowest number.
    pub lo: i32,
    /// The highest number.
    pub hi: i32,
}

/// Words that `n` values take.
pub fn words(format: Format, n: usize) -> usize {
    match format.bits {
        4 => n.div_ceil(2).div_ceil(4),
        _ => n.div_ceil(4),
    }
}

/// Functions whose slope comes straight from a packed input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slope {
    /// GELU.
    Gelu,
    /// GELU by tanh.
    GeluTanh,
    /// SiLU.
    Silu,
}

fn params(gpu: &Gpu, format: Format, n: usize) -> Result<(CompactParams, [u32; 3])> {
    let words = words(format, n);
    let (grid, gx) = gpu.grid((words as u64).div_ceil(GROUP))?;
    let scale = (format.frac as f32).exp2();
    let params = CompactParams {
        words: words as u32,
        gx,
        n: n as u32,
        half: n.div_ceil(2) as u32,
        lo: format.lo as f32,
        hi: format.hi as f32,
        scale,
        step: scale.recip(),
    };
    Ok((params, grid))
}

/// `n` floats into [`words`] words.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn quantize(gpu: &Gpu, format: Format, x: &Storage, to: &Storage, n: usize) -> Result<()> {
    let (params, grid) = params(gpu, format, n)?;
    let kernel = if format.bits == 4 { &k::QUANTIZE_4 } else { &k::QUANTIZE_8 };
    gpu.dispatch(kernel, [x], [to], params, grid)
}

/// The `n` floats that [`quantize`] put into words, as far as they are left.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn dequantize(gpu: &Gpu, format: Format, packed: &Storage, y: &Storage, n: usize) -> Result<()> {
    let (params, grid) = params(gpu, format, n)?;
    let kernel = if format.bits == 4 { &k::DEQUANTIZE_4 } else { &k::DEQUANTIZE_8 };
    gpu.dispatch(kernel, [packed], [y], params, grid)
}

/// `dx = dy f'(x)` for `n` packed floats `x`, which are never written out.
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn slope(
    gpu: &Gpu,
    format: Format,
    f: Slope,
    packed: &Storage,
    dy: &Storage,
    dx: &Storage,
    n: usize,
) -> Result<()> {
    let (params, grid) = params(gpu, format, n)?;
    let kernel: &Kernel<CompactParams, 2, 1> = match (format.bits, f) {
        (4, Slope::Gelu) => &k::DQUANTIZED_4_GELU,
        (4, Slope::GeluTanh) => &k::DQUANTIZED_4_GELU_TANH,
        (4, Slope::Silu) => &k::DQUANTIZED_4_SILU,
        (_, Slope::Gelu) => &k::DQUANTIZED_8_GELU,
        (_, Slope::GeluTanh) => &k::DQUANTIZED_8_GELU_TANH,
        (_, Slope::Silu) => &k::DQUANTIZED_8_SILU,
    };
    gpu.dispatch(kernel, [packed, dy], [dx], params, grid)
}
