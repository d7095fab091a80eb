//! Operations on batches of byte images whose pixels are words.

use shadegrad_shaders::Kernel;
use shadegrad_shaders::pixels as k;
use shadegrad_shaders::pixels::{OperateParams, PackParams, UnpackParams};

use crate::memory::Storage;
use crate::{Gpu, Result};

const GROUP: u64 = 256;

/// Images `chosen[..batch]` of the `images` in `x` (bytes, NHWC, `channels` 1 or 3, `pixels` each) to one word a pixel.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = gpu.alloc_from(&[1u8, 2, 3, 4, 5, 6], "x")?; // two colour images of one pixel
/// let (chosen, y) = (gpu.alloc_from(&[1u32], "chosen")?, gpu.alloc(4, "y")?);
/// pixels::pack(&gpu, &x, [2, 1, 3], &chosen, 1, &y)?;
/// assert_eq!(gpu.read_as::<u32>(&y)?, [0xff06_0504]); // opaque, red in the lowest byte
/// # Ok::<(), GpuError>(())
/// ```
///
/// # Errors
/// As [`Gpu::dispatch`]; so for all functions here.
pub fn pack(
    gpu: &Gpu,
    x: &Storage,
    [images, pixels, channels]: [usize; 3],
    chosen: &Storage,
    batch: usize,
    y: &Storage,
) -> Result<()> {
    let kernel = if channels == 1 { &k::PACK_1 } else { &k::PACK_3 };
    let items = batch * pixels;
    let (grid, gx) = gpu.grid((items as u64).div_ceil(GROUP))?;
    let params = PackParams { items: items as u32, gx, images: images as u32, pixels: pixels as u32 };
    gpu.dispatch(kernel, [x, chosen], [y], params, grid)
}

/// `pixels` words to as many times `channels` bytes: 1 grey, 2 grey and opacity, 3 colour, 4 colour and opacity.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (x, y) = (gpu.alloc_from(&[0xff03_0201u32], "x")?, gpu.alloc(3, "y")?);
/// pixels::unpack(&gpu, &x, 1, 3, &y)?;
/// assert_eq!(gpu.read(&y)?, [1, 2, 3]);
/// # Ok::<(), GpuError>(())
/// ```
pub fn unpack(gpu: &Gpu, x: &Storage, pixels: usize, channels: usize, y: &Storage) -> Result<()> {
    let kernels: [&Kernel<UnpackParams, 1, 1>; 4] = [&k::UNPACK_1, &k::UNPACK_2, &k::UNPACK_3, &k::UNPACK_4];
    let bytes = pixels * channels;
    let items = bytes.div_ceil(4);
    let (grid, gx) = gpu.grid((items as u64).div_ceil(GROUP))?;
    gpu.dispatch(kernels[channels - 1], [x], [y], UnpackParams { items: items as u32, gx, bytes: bytes as u32 }, grid)
}

/// What happens to one image: eight words on the device.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::pixels::{Record, operate};
/// // One column to the left: output column 0 takes column 1.
/// let moved = Record { kind: 1, map: [1 << 16, 1 << 16, 0, 0, 0, 1 << 16], ..Record::default() };
/// let (x, y) = (gpu.alloc_from(&[0xff00_0001u32, 0xff00_0002], "x")?, gpu.alloc(8, "y")?); // 1 x 2
/// let (records, short) = (gpu.alloc_from(&[moved.words()], "records")?, gpu.alloc(16, "short")?);
/// operate(&gpu, &x, [1, 1, 2], (&records, &short), 0xff00_0000, &y)?;
/// assert_eq!(gpu.read_as::<u32>(&y)?, [0xff00_0002, 0xff00_0000]);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// 0 nothing, 1 affine, 2 stretched values, 3 equalised values, 4 inverted from a threshold on, 5 fewer bits,
    /// 6 colour, 7 contrast, 8 brightness, 9 sharpness.
    pub kind: u32,
    /// Threshold, mask, or the bits of the blending factor.
    pub number: u32,
    /// Column and row of the input for output column 0, and their change with column and row, in 16.16 bits:
    /// `[u0, du/dx, du/dy, w0, dw/dx, dw/dy]`.
    pub map: [i32; 6],
}

impl Record {
    /// As the device reads it.
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// let solarize = pixels::Record { kind: 4, number: 128, ..Default::default() };
    /// assert_eq!(solarize.words(), [4, 128, 0, 0, 0, 0, 0, 0]);
    /// ```
    pub fn words(&self) -> [u32; 8] {
        let m = self.map.map(|v| v as u32);
        [self.kind, self.number, m[0], m[1], m[2], m[3], m[4], m[5]]
    }
}

/// Words of the table that [`operate`] takes for kind 2: one for each lowest and highest value, `256 low + high`. Bit
/// `j - 1` is set where the `j`-th whole value of the stretch comes out one lower.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let short = gpu.alloc_from(&vec![0u32; pixels::SHORT], "short")?; // no stretch falls short anywhere
/// assert_eq!(short.bytes(), 1 << 18);
/// # Ok::<(), GpuError>(())
/// ```
pub const SHORT: usize = 256 * 256;

/// One operation for each of `batch` images of `h x w` words, by the [`Record`]s in `records`; `fill` is what lies beyond
/// the edge.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_kernels::pixels::{Record, operate};
/// let invert = Record { kind: 4, number: 128, ..Record::default() }; // values from 128 on
/// let (x, y) = (gpu.alloc_from(&[0xff64_64c8u32], "x")?, gpu.alloc(4, "y")?); // one pixel: 200, 100, 100
/// let records = gpu.alloc_from(&[invert.words()], "records")?;
/// let short = gpu.alloc(16, "short")?; // the table is for kind 2 alone
/// operate(&gpu, &x, [1, 1, 1], (&records, &short), 0, &y)?;
/// assert_eq!(gpu.read_as::<u32>(&y)?, [0xff64_6437]); // 55, 100, 100
/// # Ok::<(), GpuError>(())
/// ```
pub fn operate(
    gpu: &Gpu,
    x: &Storage,
    [batch, h, w]: [usize; 3],
    (records, short): (&Storage, &Storage),
    fill: u32,
    y: &Storage,
) -> Result<()> {
    let (grid, gx) = gpu.grid(batch as u64)?;
    let params = OperateParams { images: batch as u32, gx, w: w as u32, h: h as u32, fill, none: 0 };
    gpu.dispatch(&k::OPERATE, [x, records, short], [y], params, grid)
}
