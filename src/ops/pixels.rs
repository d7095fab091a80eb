//! Operations on byte images on the device, another one for each image of a batch, after the definitions of the Pillow
//! library: what augmentation policies such as RandAugment are made of.
//!
//! Everything is in whole numbers but for blending, whose product is rounded to single precision before the sum: the same
//! bytes come on every device, and they are those of Pillow.

use shadegrad_kernels::Gpu;
use shadegrad_kernels::augment as a;
use shadegrad_kernels::pixels::{self as k, Record};
use shadegrad_kernels::random::Source;

use crate::augment::Augment;
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::tensor::{DType, Tensor};

const OP: &str = "pixels";

/// Most pixels of an image: sums over its values fit 32 bits.
const MAX_PIXELS: usize = 1 << 22;

/// What happens to an image.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::pixels::{PixelOp, PixelOps};
/// let images = Tensor::from_bytes(&gpu, &[10, 200, 10, 200, 100, 151], &[3, 1, 2, 1])?;
/// let ops = PixelOps::new(&gpu)?;
/// let batch = ops.gather(&images, &Tensor::arange(&gpu, 0, 3)?)?;
/// let how = [PixelOp::Solarize(128), PixelOp::Posterize(1), PixelOp::AutoContrast]; // one for each image
/// let changed = ops.apply(&batch, &how, [0, 0, 0, 255])?.bytes(false)?;
/// assert_eq!(changed.to_bytes()?, [10, 55, 0, 128, 0, 255]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PixelOp {
    /// Nothing.
    Identity,
    /// Output pixel (column x, row y) takes the nearest input pixel to `(a X + b Y + c, d X + e Y + f)` for
    /// `[a, b, c, d, e, f]`, with `X = x + 1/2` and `Y = y + 1/2`, in fixed point of 16 bits behind the point.
    Affine([f64; 6]),
    /// Each channel stretched to 0..=255. Makes the image opaque.
    AutoContrast,
    /// Each channel's histogram flattened. Makes the image opaque.
    Equalize,
    /// Values from this one on inverted (256: none). Makes the image opaque.
    Solarize(u32),
    /// Only this many of the highest bits kept (0: black). Makes the image opaque.
    Posterize(u32),
    /// Blended with its grey version: 0 gives that, 1 the image.
    Color(f32),
    /// Blended with its mean grey value.
    Contrast(f32),
    /// Blended with black.
    Brightness(f32),
    /// Blended with a smoothed version.
    Sharpness(f32),
}

impl PixelOp {
    fn record(self, [h, w]: [usize; 2]) -> Result<Record> {
        let blend = |kind: u32, factor: f32| {
            if factor.is_finite() {
                return Ok(Record { kind, number: factor.to_bits(), ..Record::default() });
            }
            Err(Error::value(OP, format!("{self:?}: the factor must be finite")))
        };
        Ok(match self {
            Self::Identity => Record::default(),
            Self::Affine(m) => return affine(m, [h, w]),
            Self::AutoContrast => Record { kind: 2, ..Record::default() },
            Self::Equalize => Record { kind: 3, ..Record::default() },
            Self::Solarize(threshold) => Record { kind: 4, number: threshold, ..Record::default() },
            Self::Posterize(bits) => {
                let number = if bits >= 8 { 255 } else { 255 & !((1 << (8 - bits)) - 1) };
                Record { kind: 5, number, ..Record::default() }
            }
            Self::Color(f) => blend(6, f)?,
            Self::Contrast(f) => blend(7, f)?,
            Self::Brightness(f) => blend(8, f)?,
            Self::Sharpness(f) => blend(9, f)?,
        })
    }
}

fn affine(m: [f64; 6], [h, w]: [usize; 2]) -> Result<Record> {
    let [a, b, c, d, e, f] = m;
    let fix = |v: f64| (65536.0 * v + 0.5).floor();
    let map = [c + 0.5 * a + 0.5 * b, a, b, f + 0.5 * d + 0.5 * e, d, e].map(fix);
    // Every place an output pixel may ask for must fit the 32 bits it is computed in.
    let reach = |v: &[f64]| v[0].abs() + v[1].abs() * w as f64 + v[2].abs() * h as f64;
    if !(reach(&map[..3]) < f64::from(i32::MAX) && reach(&map[3..]) < f64::from(i32::MAX)) {
        return Err(Error::value(OP, format!("{m:?} leads too far out of an image of {h}x{w}: beyond 2^15 pixels")));
    }
    Ok(Record { kind: 1, number: 0, map: map.map(|v| v as i32) })
}

/// Pillow stretches a channel by `trunc(p s - low s)` with `s = 255 / (high - low)` in double precision. Where the exact
/// value is whole the rounded one may lie just below: those cases, for each lowest and highest value, as the kernel looks
/// them up.
fn short_of_whole() -> Vec<u32> {
    let mut table = vec![0u32; k::SHORT];
    for low in 0..256u32 {
        for high in low + 1..256 {
            let distance = high - low;
            let parts = [3, 5, 17].iter().filter(|&d| distance.is_multiple_of(*d)).product::<u32>();
            let scale = 255.0 / f64::from(distance);
            let offset = -f64::from(low) * scale;
            // With more parts than 17 the scale is a multiple of a third at most in the cases that occur; none falls short.
            for j in 1..=parts.min(17) {
                let p = low + j * distance / parts;
                let whole = 255 * (p - low) / distance;
                if ((f64::from(p) * scale + offset) as u32) < whole {
                    table[(256 * low + high) as usize] |= 1 << (j - 1);
                }
            }
        }
    }
    table
}

/// Runs [`PixelOp`]s on one device: holds the table that they need.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::pixels::{PixelOp, PixelOps};
/// let image = Tensor::from_bytes(&gpu, &[40, 80], &[1, 1, 2, 1])?;
/// let ops = PixelOps::new(&gpu)?; // once a program
/// let batch = ops.gather(&image, &Tensor::arange(&gpu, 0, 1)?)?;
/// let dark = ops.apply(&batch, &[PixelOp::Brightness(0.5)], [0, 0, 0, 255])?;
/// assert_eq!(dark.bytes(false)?.to_bytes()?, [20, 40]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct PixelOps {
    short: Tensor,
}

/// A batch of images on the device with one word a pixel: red, green, blue, opacity. [`PixelOps::gather`] makes it.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::pixels::{PixelOps, Pixels};
/// let images = Tensor::from_bytes(&gpu, &[1, 2, 3, 4, 5, 6], &[2, 1, 1, 3])?;
/// let pixels: Pixels = PixelOps::new(&gpu)?.gather(&images, &Tensor::from_u32(&gpu, &[1], &[1])?)?;
/// assert_eq!(pixels.bytes(true)?.to_bytes()?, [4, 5, 6, 255]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Pixels {
    words: Tensor,
    channels: usize,
}

impl PixelOps {
    /// For this device.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::pixels::PixelOps;
    /// let (ops, image) = (PixelOps::new(&gpu)?, Tensor::from_bytes(&gpu, &[7], &[1, 1, 1, 1])?);
    /// assert_eq!(ops.gather(&image, &Tensor::arange(&gpu, 0, 1)?)?.size(), [1, 1, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { short: Tensor::from_u32(gpu, &short_of_whole(), &[k::SHORT])? })
    }

    /// The images (`U8`, `[N, H, W, C]`, 1 or 3 channels) that `indices` (`U32`, `[B]`) name, opaque.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::pixels::PixelOps;
    /// let images = Tensor::from_bytes(&gpu, &[1, 2, 3, 4, 5, 6], &[3, 1, 2, 1])?;
    /// let chosen = Tensor::from_u32(&gpu, &[2, 0], &[2])?;
    /// let batch = PixelOps::new(&gpu)?.gather(&images, &chosen)?;
    /// assert_eq!(batch.bytes(false)?.to_bytes()?, [5, 6, 1, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If types or shapes differ from these, or an image has more than 2^22 pixels.
    pub fn gather(&self, images: &Tensor, indices: &Tensor) -> Result<Pixels> {
        images.want(OP, DType::U8)?;
        indices.want(OP, DType::U32)?;
        images.same_gpu(OP, indices)?;
        images.same_gpu(OP, &self.short)?;
        let (&[n, h, w, channels @ (1 | 3)], &[batch]) = (images.shape(), indices.shape()) else {
            return Err(Error::shape(
                OP,
                format!(
                    "images {:?}, indices {:?}; takes bytes [N, H, W, C] with 1 or 3 channels and indices [B]",
                    images.shape(),
                    indices.shape()
                ),
            ));
        };
        if h * w > MAX_PIXELS || (n == 0 && batch > 0) {
            return Err(Error::shape(
                OP,
                format!("{batch} of {:?}: at least one image, 2^22 pixels at most", images.shape()),
            ));
        }
        let words = Tensor::empty(images.gpu(), &[batch, h, w], DType::U32, OP)?;
        if words.numel() > 0 {
            let (x, chosen) = (images.storage(), indices.storage());
            k::pack(images.gpu(), x, [n, h * w, channels], chosen, batch, words.storage())?;
        }
        Ok(Pixels { words, channels })
    }

    /// One operation for each image. `fill` is what an [`PixelOp::Affine`] uncovers: red, green, blue, opacity.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::pixels::{PixelOp, PixelOps};
    /// let ops = PixelOps::new(&gpu)?;
    /// let image = Tensor::from_bytes(&gpu, &[1, 2, 3, 4], &[1, 1, 4, 1])?;
    /// let batch = ops.gather(&image, &Tensor::arange(&gpu, 0, 1)?)?;
    /// // One pixel to the left; what comes in from the right is grey.
    /// let moved = ops.apply(&batch, &[PixelOp::Affine([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])], [128, 128, 128, 255])?;
    /// assert_eq!(moved.bytes(false)?.to_bytes()?, [2, 3, 4, 128]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are not as many operations as images, or a number is out of range.
    pub fn apply(&self, x: &Pixels, ops: &[PixelOp], fill: [u8; 4]) -> Result<Pixels> {
        x.words.same_gpu(OP, &self.short)?;
        let [batch, h, w] = x.size();
        if ops.len() != batch {
            return Err(Error::shape(OP, format!("{} operations for {batch} images; one for each", ops.len())));
        }
        let mut records = Vec::with_capacity(8 * batch);
        for op in ops {
            records.extend(op.record([h, w])?.words());
        }
        let words = Tensor::empty(x.words.gpu(), &[batch, h, w], DType::U32, OP)?;
        if words.numel() > 0 {
            let records = Tensor::from_u32(x.words.gpu(), &records, &[batch, 8])?;
            let tables = (records.storage(), self.short.storage());
            let fill = u32::from_le_bytes(fill);
            k::operate(x.words.gpu(), x.words.storage(), [batch, h, w], tables, fill, words.storage())?;
        }
        Ok(Pixels { words, channels: x.channels })
    }
}

impl Pixels {
    /// Images, height, width.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::pixels::PixelOps;
    /// let images = Tensor::from_bytes(&gpu, &[0; 36], &[2, 2, 3, 3])?;
    /// let batch = PixelOps::new(&gpu)?.gather(&images, &Tensor::from_u32(&gpu, &[0, 1, 1], &[3])?)?;
    /// assert_eq!(batch.size(), [3, 2, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn size(&self) -> [usize; 3] {
        [self.words.dim(0), self.words.dim(1), self.words.dim(2)]
    }

    /// Channels of the images that it was made from.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::pixels::PixelOps;
    /// let images = Tensor::from_bytes(&gpu, &[0; 12], &[1, 2, 2, 3])?;
    /// let batch = PixelOps::new(&gpu)?.gather(&images, &Tensor::arange(&gpu, 0, 1)?)?;
    /// assert_eq!((batch.channels(), batch.bytes(true)?.dim(3)), (3, 4)); // with opacity one more
    /// # Ok::<(), Error>(())
    /// ```
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// As bytes (`U8`, `[B, H, W, C]`), with the opacity as one more channel if asked for.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::pixels::{PixelOp, PixelOps};
    /// let ops = PixelOps::new(&gpu)?;
    /// let batch = ops.gather(&Tensor::from_bytes(&gpu, &[1, 2], &[1, 1, 2, 1])?, &Tensor::arange(&gpu, 0, 1)?)?;
    /// let moved = ops.apply(&batch, &[PixelOp::Affine([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])], [0; 4])?;
    /// assert_eq!(moved.bytes(false)?.to_bytes()?, [2, 0]);
    /// assert_eq!(moved.bytes(true)?.to_bytes()?, [2, 255, 0, 0]); // what was uncovered is transparent
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn bytes(&self, opacity: bool) -> Result<Tensor> {
        let ([batch, h, w], c) = (self.size(), self.channels + usize::from(opacity));
        let out = Tensor::empty(self.words.gpu(), &[batch, h, w, c], DType::U8, OP)?;
        if out.numel() > 0 {
            k::unpack(self.words.gpu(), self.words.storage(), batch * h * w, c, out.storage())?;
        }
        Ok(out)
    }

    /// [`Augment::apply`] on these images: normalised floats `[B, H, W, C]` with crop, mirror image and cutout. Transparent
    /// pixels become 0, the mean colour. `indices` (`U32`, `[B]`) are those that the batch was gathered by: an image is
    /// cropped and mirrored by its own number, as there.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::augment::Augment;
    /// use shadegrad::pixels::PixelOps;
    /// use shadegrad::rng::Stream;
    /// let (images, index) = (Tensor::from_bytes(&gpu, &[0, 255], &[1, 1, 2, 1])?, Tensor::arange(&gpu, 0, 1)?);
    /// let (how, stream) = (Augment::none(&[0.5], &[0.5]), Stream::new(7, 0));
    /// let batch = PixelOps::new(&gpu)?.gather(&images, &index)?.augment(&how, &index, stream)?;
    /// assert!(batch.to_vec()?.iter().zip([-1.0, 1.0]).all(|(v, want)| (v - want).abs() < 1e-5));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are not as many indices as images, or the settings do not fit the images.
    pub fn augment(&self, how: &Augment, indices: &Tensor, s: Stream) -> Result<Tensor> {
        indices.want(OP, DType::U32)?;
        self.words.same_gpu(OP, indices)?;
        let [batch, h, w] = self.size();
        if indices.shape() != [batch] {
            return Err(Error::shape(OP, format!("indices {:?} for {batch} images; one for each", indices.shape())));
        }
        let recipe = how.recipe(&[batch, h, w, self.channels])?;
        let [oh, ow] = recipe.crop;
        let out = Tensor::empty(self.words.gpu(), &[batch, oh, ow, self.channels], DType::F32, OP)?;
        if out.numel() > 0 {
            let source = Source { seed: s.seed, stream: s.stream };
            let (x, chosen) = (self.words.storage(), indices.storage());
            a::augment_packed(self.words.gpu(), x, chosen, batch, out.storage(), &recipe, source)?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_every_shortfall() {
        let table = short_of_whole();
        let mut found = 0;
        for low in 0..256u32 {
            for high in low + 1..256 {
                let d = high - low;
                let parts = [3, 5, 17].iter().filter(|&k| d.is_multiple_of(*k)).product::<u32>();
                let scale = 255.0 / f64::from(d);
                for p in low..=high {
                    let exact = 255 * (p - low) / d;
                    let rounded = (f64::from(p) * scale - f64::from(low) * scale) as u32;
                    let whole = 255 * (p - low) % d == 0 && exact > 0 && parts <= 17;
                    let bit =
                        if whole { table[(256 * low + high) as usize] >> (exact * parts / 255 - 1) & 1 } else { 0 };
                    assert_eq!(rounded, exact - bit, "{low} {high} {p}");
                    found += bit;
                }
            }
        }
        assert_eq!(found, 12_094);
    }
}
