//! Element types.

use shadegrad_shaders::cast as k;
use shadegrad_shaders::cast::CastParams;

use crate::memory::Storage;
use crate::{Gpu, Result};

/// From one element type to another.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::cast::{Cast, cast};
/// let x = gpu.alloc_from(&[-3.0f32, 1.75, 254.5, 300.0], "x")?;
/// let bytes = gpu.alloc(4, "bytes")?;
/// cast(&gpu, Cast::F32ToU8, &x, &bytes, 4)?;
/// assert_eq!(gpu.read(&bytes)?, [0, 1, 254, 255]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cast {
    /// Rounds to the nearest half; beyond the largest, infinity.
    F32ToF16,
    /// Exact.
    F16ToF32,
    /// Cuts off the fraction, held within `0..=255`.
    F32ToU8,
    /// Exact.
    U8ToF32,
    /// Cuts off the fraction, held within the range.
    F32ToU32,
    /// Rounds above 2^24.
    U32ToF32,
    /// Exact.
    U8ToU32,
    /// Held within `0..=255`.
    U32ToU8,
}

/// `y = x` in another element type, `n` elements.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::cast::{Cast, cast};
/// let (x, y) = (gpu.alloc_from(&[1.0f32, 2.0], "x")?, gpu.alloc(4, "y")?);
/// cast(&gpu, Cast::F32ToF16, &x, &y, 2)?;
/// assert_eq!(gpu.read_as::<u16>(&y)?, [0x3c00, 0x4000]); // the halves 1 and 2
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`].
pub fn cast(gpu: &Gpu, how: Cast, x: &Storage, y: &Storage, n: usize) -> Result<()> {
    let kernel = match how {
        Cast::F32ToF16 => &k::CAST_F32_F16,
        Cast::F16ToF32 => &k::CAST_F16_F32,
        Cast::F32ToU8 => &k::CAST_F32_U8,
        Cast::U8ToF32 => &k::CAST_U8_F32,
        Cast::F32ToU32 => &k::CAST_F32_U32,
        Cast::U32ToF32 => &k::CAST_U32_F32,
        Cast::U8ToU32 => &k::CAST_U8_U32,
        Cast::U32ToU8 => &k::CAST_U32_U8,
    };
    let n4 = (n as u64).div_ceil(4);
    let (grid, gx) = gpu.grid(n4.div_ceil(256))?;
    gpu.dispatch(kernel, [x], [y], CastParams { n4: n4 as u32, gx }, grid)
}
