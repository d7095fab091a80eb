//! Activations in few bits, and the gradients of activation functions straight from them.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::compact::{self as k, CompactParams};

use crate::memory::Storage;
use crate::{Gpu, Result};

/// Invocations of one workgroup, a word each.
const GROUP: u64 = 256;

/// How a value becomes a whole number: `round(x 2^frac)`, halves to even, held within `lo..=hi`.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// // Four bits with one behind the point: -4, -3.5, .. 3.5.
/// let format = compact::Format { bits: 4, frac: 1, lo: -8, hi: 7 };
/// let x = gpu.alloc_from(&[1.0f32, -0.5, 100.0, -100.0], "x")?;
/// let (packed, y) = (gpu.alloc(4, "packed")?, gpu.alloc(16, "y")?);
/// compact::quantize(&gpu, format, &x, &packed, 4)?;
/// compact::dequantize(&gpu, format, &packed, &y, 4)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, -0.5, 3.5, -4.0]);
/// # Ok::<(), GpuError>(())
/// ```
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
///
/// ```
/// # use shadegrad_kernels::*;
/// use shadegrad_kernels::compact::{Format, words};
/// let bytes = Format { bits: 8, frac: 4, lo: -128, hi: 127 };
/// assert_eq!(words(bytes, 100), 25);
/// assert_eq!(words(Format { bits: 4, frac: 1, lo: -8, hi: 7 }, 100), 13); // 50 bytes
/// ```
pub fn words(format: Format, n: usize) -> usize {
    match format.bits {
        4 => n.div_ceil(2).div_ceil(4),
        _ => n.div_ceil(4),
    }
}

/// Functions whose slope comes straight from a packed input.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let format = compact::Format { bits: 8, frac: 4, lo: -128, hi: 127 };
/// let packed = gpu.alloc_from(&[0u8; 4], "packed")?; // four zeros
/// let (dy, dx) = (gpu.alloc_from(&[2.0f32; 4], "dy")?, gpu.alloc(16, "dx")?);
/// for f in [compact::Slope::Gelu, compact::Slope::GeluTanh, compact::Slope::Silu] {
///     compact::slope(&gpu, format, f, &packed, &dy, &dx, 4)?;
///     assert_eq!(gpu.read_as::<f32>(&dx)?, [1.0; 4]); // each has the slope 1/2 there
/// }
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let format = compact::Format { bits: 8, frac: 4, lo: -128, hi: 127 }; // in sixteenths
/// let x = gpu.alloc_from(&[1.0f32, -0.5, 0.03125, 100.0], "x")?;
/// let packed = gpu.alloc(4, "packed")?;
/// compact::quantize(&gpu, format, &x, &packed, 4)?;
/// assert_eq!(gpu.read_as::<i8>(&packed)?, [16, -8, 0, 127]);
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let format = compact::Format { bits: 8, frac: 4, lo: -128, hi: 127 }; // in sixteenths
/// let packed = gpu.alloc_from(&[16i8, -8, 0, 127], "packed")?;
/// let y = gpu.alloc(16, "y")?;
/// compact::dequantize(&gpu, format, &packed, &y, 4)?;
/// assert_eq!(gpu.read_as::<f32>(&y)?, [1.0, -0.5, 0.0, 7.9375]);
/// # Ok::<(), GpuError>(())
/// ```
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
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let format = compact::Format { bits: 8, frac: 4, lo: -128, hi: 127 };
/// let packed = gpu.alloc_from(&[0i8, 127, 0, 0], "packed")?; // 0 and about 8
/// let (dy, dx) = (gpu.alloc_from(&[2.0f32; 2], "dy")?, gpu.alloc(8, "dx")?);
/// compact::slope(&gpu, format, compact::Slope::Gelu, &packed, &dy, &dx, 2)?;
/// assert_eq!(gpu.read_as::<f32>(&dx)?, [1.0, 2.0]);
/// # Ok::<(), GpuError>(())
/// ```
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
