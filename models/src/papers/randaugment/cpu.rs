//! The operations on the processor, in plain loops by the definitions of the Pillow library: what the kernels are held
//! against, and all that a program without a device needs.

use shadegrad::{Error, Result};

use super::{Fill, Op, Param};

/// An image of bytes with an opacity for each pixel.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::randaugment::{Fill, ImageU8, Op, op_apply};
/// let image = ImageU8::new(1, 2, 1, vec![10, 20])?;
/// let moved = op_apply(Op::TranslateX, 1.0, &image, Fill::Mean)?;
/// assert_eq!((moved.data, moved.opacity), (vec![20, 0], vec![255, 0]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageU8 {
    height: usize,
    width: usize,
    channels: usize,
    /// Rows of pixels, channels innermost.
    pub data: Vec<u8>,
    /// 255 for each pixel at first; 0 where geometry uncovered one under [`Fill::Mean`].
    pub opacity: Vec<u8>,
}

impl ImageU8 {
    /// An opaque image.
    ///
    /// ```
    /// use shadegrad_models::papers::randaugment::ImageU8;
    /// assert!(ImageU8::new(2, 2, 3, vec![0; 12]).is_ok());
    /// assert!(ImageU8::new(2, 2, 3, vec![0; 4]).is_err());
    /// ```
    ///
    /// # Errors
    /// If there are not 1 or 3 channels, or the bytes are not `height * width * channels`.
    pub fn new(height: usize, width: usize, channels: usize, data: Vec<u8>) -> Result<Self> {
        if !matches!(channels, 1 | 3) || data.len() != height * width * channels {
            return Err(Error::shape(
                "ImageU8",
                format!("{} bytes for {height}x{width}x{channels}; takes 1 or 3 channels, a byte for each", data.len()),
            ));
        }
        Ok(Self { height, width, channels, data, opacity: vec![255; height * width] })
    }

    /// Rows, columns, channels.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::ImageU8;
    /// assert_eq!(ImageU8::new(1, 2, 1, vec![10, 20])?.size(), [1, 2, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn size(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }

    /// The bytes with the opacity as one more channel.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::ImageU8;
    /// assert_eq!(ImageU8::new(1, 2, 1, vec![10, 20])?.with_opacity(), [10, 255, 20, 255]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_opacity(&self) -> Vec<u8> {
        let pixels = self.data.chunks(self.channels).zip(&self.opacity);
        pixels.flat_map(|(p, o)| p.iter().copied().chain([*o])).collect()
    }

    /// Grey values of all pixels: `(19595 R + 38470 G + 7471 B + 32768) >> 16`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::randaugment::ImageU8;
    /// let pixels = vec![255, 0, 0, 255, 255, 255]; // red and white
    /// assert_eq!(ImageU8::new(1, 2, 3, pixels)?.grey(), [76, 255]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn grey(&self) -> Vec<u8> {
        match self.channels {
            1 => self.data.clone(),
            _ => self
                .data
                .chunks(3)
                .map(|p| {
                    let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
                    ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16) as u8
                })
                .collect(),
        }
    }

    /// Each channel's values replaced by a table of its own; the result is opaque.
    fn by_tables(&self, table: impl Fn(&[usize; 256]) -> [u8; 256]) -> Self {
        let mut out = Self { opacity: vec![255; self.opacity.len()], ..self.clone() };
        for c in 0..self.channels {
            let mut histogram = [0; 256];
            for p in self.data.iter().skip(c).step_by(self.channels) {
                histogram[usize::from(*p)] += 1;
            }
            let table = table(&histogram);
            for p in out.data.iter_mut().skip(c).step_by(self.channels) {
                *p = table[usize::from(*p)];
            }
        }
        out
    }

    fn by_value(&self, f: impl Fn(u8) -> u8) -> Self {
        self.by_tables(|_| std::array::from_fn(|i| f(i as u8)))
    }

    /// `d + factor (x - d)` for the bytes of `d`; the opacity stays.
    fn blended(&self, d: impl Fn(usize) -> u8, factor: f32) -> Self {
        let mut out = self.clone();
        for (i, p) in out.data.iter_mut().enumerate() {
            let (d, x) = (f32::from(d(i)), f32::from(*p));
            *p = (d + factor * (x - d)).clamp(0.0, 255.0) as u8;
        }
        out
    }

    fn smoothed(&self) -> Vec<u8> {
        let Self { height, width, channels, .. } = *self;
        let mut out = self.data.clone();
        for y in 1..height.saturating_sub(1) {
            for x in 1..width.saturating_sub(1) {
                for c in 0..channels {
                    let at = |y: usize, x: usize| u32::from(self.data[(y * width + x) * channels + c]);
                    let around: u32 = (y - 1..=y + 1).flat_map(|j| (x - 1..=x + 1).map(move |i| at(j, i))).sum();
                    let sum = f64::from(around + 4 * at(y, x));
                    out[(y * width + x) * channels + c] = (sum / 13.0 + 0.5).floor() as u8;
                }
            }
        }
        out
    }

    fn moved(&self, matrix: [f64; 6], fill: Fill) -> Self {
        let Self { height, width, channels, .. } = *self;
        let (colour, opacity) = match fill {
            Fill::Mean => ([0; 3], 0),
            Fill::Colour(colour) => (colour, 255),
        };
        let fix = |v: f64| (65536.0 * v + 0.5).floor() as i64;
        let [a, b, c, d, e, g] = matrix;
        let (u0, w0) = (fix(c + 0.5 * a + 0.5 * b), fix(g + 0.5 * d + 0.5 * e));
        let mut out = self.clone();
        for y in 0..height {
            for x in 0..width {
                let (i, j) = (x as i64, y as i64);
                let u = (u0 + fix(a) * i + fix(b) * j) >> 16;
                let w = (w0 + fix(d) * i + fix(e) * j) >> 16;
                let to = y * width + x;
                let inside = (0..width as i64).contains(&u) && (0..height as i64).contains(&w);
                let from = if inside { w as usize * width + u as usize } else { 0 };
                out.opacity[to] = if inside { self.opacity[from] } else { opacity };
                let pixel = if inside { &self.data[from * channels..][..channels] } else { &colour[..channels] };
                out.data[to * channels..][..channels].copy_from_slice(pixel);
            }
        }
        out
    }
}

/// One operation with its number, on the processor.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::randaugment::{Fill, ImageU8, Op, op_apply};
/// let image = ImageU8::new(1, 3, 1, vec![0, 51, 102])?;
/// assert_eq!(op_apply(Op::AutoContrast, 0.0, &image, Fill::Mean)?.data, [0, 127, 255]);
/// assert_eq!(op_apply(Op::Brightness, 0.5, &image, Fill::Mean)?.data, [0, 25, 51]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the number is not finite.
pub fn op_apply(op: Op, param: Param, image: &ImageU8, fill: Fill) -> Result<ImageU8> {
    op.check(param)?;
    Ok(match op {
        Op::Identity => image.clone(),
        Op::AutoContrast => image.by_tables(stretch),
        Op::Equalize => image.by_tables(flatten),
        Op::Solarize => image.by_value(|p| if f64::from(p) < param { p } else { 255 - p }),
        Op::Posterize => {
            let dropped = 8 - (param.clamp(0.0, 8.0) as u32);
            image.by_value(|p| ((u32::from(p) >> dropped) << dropped) as u8)
        }
        Op::Color => {
            let grey = image.grey();
            image.blended(|i| grey[i / image.channels], param as f32)
        }
        Op::Contrast => {
            let grey = image.grey();
            let sum: u64 = grey.iter().map(|&v| u64::from(v)).sum();
            let mean = (sum as f64 / grey.len().max(1) as f64 + 0.5) as u8;
            image.blended(|_| mean, param as f32)
        }
        Op::Brightness => image.blended(|_| 0, param as f32),
        Op::Sharpness => {
            let smooth = image.smoothed();
            image.blended(|i| smooth[i], param as f32)
        }
        Op::Rotate | Op::ShearX | Op::ShearY | Op::TranslateX | Op::TranslateY => {
            let matrix = op.matrix(param, [image.height, image.width]);
            image.moved(matrix.unwrap_or([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]), fill)
        }
    })
}

/// The table that spreads a channel's values over 0..=255, cut and not rounded, in double precision.
fn stretch(histogram: &[usize; 256]) -> [u8; 256] {
    let first = histogram.iter().position(|&n| n > 0);
    let last = histogram.iter().rposition(|&n| n > 0);
    let (Some(low), Some(high)) = (first, last) else { return std::array::from_fn(|i| i as u8) };
    if high <= low {
        return std::array::from_fn(|i| i as u8);
    }
    let scale = 255.0 / (high - low) as f64;
    let offset = -(low as f64) * scale;
    std::array::from_fn(|i| (i as f64 * scale + offset).trunc().clamp(0.0, 255.0) as u8)
}

/// The table that flattens a channel's histogram.
fn flatten(histogram: &[usize; 256]) -> [u8; 256] {
    let same = std::array::from_fn(|i| i as u8);
    let Some(last) = histogram.iter().rposition(|&n| n > 0) else { return same };
    let pixels: usize = histogram.iter().sum();
    let step = (pixels - histogram[last]) / 255;
    if step == 0 {
        return same;
    }
    let mut sum = step / 2;
    std::array::from_fn(|i| {
        let v = (sum / step).min(255) as u8;
        sum += histogram[i];
        v
    })
}
