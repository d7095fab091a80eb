//! Tensors in 4 or 8 bits, and the largest elements of a tensor: what activations are kept as where a context asks for it
//! (see [`crate::autograd::keep_compactly`]).

use shadegrad_kernels::compact::{self as k, Format, Slope};
use shadegrad_kernels::magnitude;

use super::scan::Picks;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, numel_of};

/// Fixed-point numbers of 4 or 8 bits: `round(x 2^frac)`, halves to even, held within `-2^(int + frac)` (0 if `unsigned`)
/// and `2^(int + frac) - 1`; read as that number over `2^frac`.
///
/// ```
/// # use shadegrad::*;
/// let how = Quantizer { int: 1, frac: 2, unsigned: false }; // a sign, one bit, the point, two bits
/// assert_eq!([0.3, 0.4, 100.0, -100.0].map(|x| how.apply(x)), [0.25, 0.5, 1.75, -2.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantizer {
    /// Bits before the point.
    pub int: u32,
    /// Bits behind it.
    pub frac: u32,
    /// Without a sign.
    pub unsigned: bool,
}

impl Quantizer {
    /// 8 bits, -8 to 7.9375 in steps of 1/16.
    pub const Q8: Self = Self { int: 3, frac: 4, unsigned: false };
    /// 8 bits, 0 to 255/256 in steps of 1/256: probabilities.
    pub const QU8: Self = Self { int: 0, frac: 8, unsigned: true };
    /// 4 bits, -4 to 3.5 in steps of 1/2.
    pub const Q4: Self = Self { int: 2, frac: 1, unsigned: false };

    /// Bits of a number.
    ///
    /// ```
    /// # use shadegrad::*;
    /// assert_eq!((Quantizer::Q8.bits(), Quantizer::QU8.bits(), Quantizer::Q4.bits()), (8, 8, 4));
    /// ```
    pub fn bits(self) -> u32 {
        self.int + self.frac + u32::from(!self.unsigned)
    }

    /// What is left of `x`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// assert_eq!([0.3, 0.25, 5.0].map(|x| Quantizer::Q4.apply(x)), [0.5, 0.0, 3.5]); // steps of 1/2 up to 3.5
    /// assert_eq!([0.3, -1.0].map(|x| Quantizer::QU8.apply(x)), [77.0 / 256.0, 0.0]);
    /// ```
    pub fn apply(self, x: f32) -> f32 {
        let Format { lo, hi, frac, .. } = self.format();
        let scale = (frac as f32).exp2();
        (x * scale).round_ties_even().clamp(lo as f32, hi as f32) / scale
    }

    /// Bytes of `n` numbers: whole words.
    ///
    /// ```
    /// # use shadegrad::*;
    /// assert_eq!((Quantizer::Q8.bytes(1000), Quantizer::Q4.bytes(1000)), (1000, 500)); // of 4000 as floats
    /// assert_eq!(Quantizer::Q8.bytes(5), 8);
    /// ```
    pub fn bytes(self, n: usize) -> u64 {
        4 * k::words(self.format(), n) as u64
    }

    pub(crate) fn check(self, op: &'static str) -> Result<()> {
        if self.int <= 8 && self.frac <= 8 && matches!(self.bits(), 4 | 8) {
            return Ok(());
        }
        Err(Error::value(op, format!("{self:?}: numbers have 4 or 8 bits, sign, int and frac together")))
    }

    fn format(self) -> Format {
        let end = 1 << (self.int + self.frac).min(16);
        let lo = if self.unsigned { 0 } else { -end };
        Format { bits: self.bits(), frac: self.frac, lo, hi: end - 1 }
    }
}

impl Tensor {
    /// The elements as fixed-point numbers, in `U32` words: four of 8 bits each, the first lowest, or eight of 4 bits (byte
    /// `j` holds element `j` of the first half above element `j` of the second, both counted from the lowest number). NaN
    /// becomes 0. No gradient.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[4])?.mul_scalar(1.0 / 16.0)?;
    /// assert_eq!(x.quantize(Quantizer::Q8)?.to_vec_u32()?, [0x04_03_02_01]); // steps of 1/16, the first lowest
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the numbers have not 4 or 8 bits, or the type is not `F32`.
    pub fn quantize(&self, how: Quantizer) -> Result<Tensor> {
        const OP: &str = "quantize";
        how.check(OP)?;
        self.want(OP, DType::F32)?;
        let words = k::words(how.format(), self.numel());
        let out = Tensor::empty(self.gpu(), &[words], DType::U32, OP)?;
        if words > 0 {
            k::quantize(self.gpu(), how.format(), self.storage(), out.storage(), self.numel())?;
        }
        Ok(out.record_cut("quantize", &[self]))
    }

    /// The elements again from what [`Tensor::quantize`] gave, as far as they are left.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[0.3, -1.0, 100.0, 0.02], &[2, 2])?;
    /// let words = x.quantize(Quantizer::Q8)?;
    /// let y = words.dequantize(Quantizer::Q8, x.shape())?;
    /// assert_eq!(y.to_vec()?, x.to_vec()?.into_iter().map(|v| Quantizer::Q8.apply(v)).collect::<Vec<_>>());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are not as many words as the shape takes, or the type is not `U32`.
    pub fn dequantize(&self, how: Quantizer, shape: &[usize]) -> Result<Tensor> {
        const OP: &str = "dequantize";
        how.check(OP)?;
        let n = self.packed_len(OP, how, shape)?;
        let out = Tensor::empty(self.gpu(), shape, DType::F32, OP)?;
        if n > 0 {
            k::dequantize(self.gpu(), how.format(), self.storage(), out.storage(), n)?;
        }
        Ok(out.record_cut("dequantize", &[self]))
    }

    /// Checks that these are the words of a tensor of that shape, and gives its number of elements.
    fn packed_len(&self, op: &'static str, how: Quantizer, shape: &[usize]) -> Result<usize> {
        self.want(op, DType::U32)?;
        let n = numel_of(op, shape)?;
        let words = k::words(how.format(), n);
        if self.numel() == words {
            return Ok(n);
        }
        Err(Error::shape(
            op,
            format!("{:?} words for {shape:?}, which takes {words}; give the shape that was quantised", self.shape()),
        ))
    }

    /// `grad f'(x)` for the packed `x` that these words hold, in one kernel.
    pub(crate) fn packed_slope(&self, how: Quantizer, f: Slope, grad: &Tensor) -> Result<Tensor> {
        let n = self.packed_len("quantized gradient", how, grad.shape())?;
        let out = Tensor::empty(self.gpu(), grad.shape(), DType::F32, "quantized gradient")?;
        if n > 0 {
            k::slope(self.gpu(), how.format(), f, self.storage(), grad.storage(), out.storage(), n)?;
        }
        Ok(out)
    }

    /// The `count` elements of largest magnitude of the whole tensor and their places in it (`U32`, counted row by row),
    /// both `[count]` and in the order of the places. Of equal magnitudes the lowest places are taken; NaN counts as the
    /// largest.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[0.1, -3.0, 2.0, 0.5], &[2, 2])?;
    /// let (values, places) = x.largest_magnitudes(2)?;
    /// assert_eq!((values.to_vec()?, places.to_vec_u32()?), (vec![-3.0, 2.0], vec![1, 2]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are fewer elements, or the type is not `F32`.
    pub fn largest_magnitudes(&self, count: usize) -> Result<(Tensor, Tensor)> {
        const OP: &str = "largest_magnitudes";
        self.want(OP, DType::F32)?;
        let n = self.numel();
        if count > n {
            return Err(Error::shape(OP, format!("{count} of the {n} elements of {:?}; ask for fewer", self.shape())));
        }
        let values = Tensor::empty(self.gpu(), &[count], DType::F32, OP)?;
        let places = Tensor::empty(self.gpu(), &[count], DType::U32, OP)?;
        if count > 0 {
            magnitude::largest(self.gpu(), self.storage(), n, count, [values.storage(), places.storage()])?;
        }
        let picks = flat_picks(&places, self.shape());
        let values = values.record("largest_magnitudes", &[self], move |_, grad| Ok(vec![Some(picks.put(grad)?)]));
        Ok((values, places.record_cut("largest_magnitudes", &[self])))
    }

    /// These elements at `places` of a tensor of that shape, 0 elsewhere: what [`Tensor::largest_magnitudes`] left of one.
    pub(crate) fn put_back(&self, places: &Tensor, shape: &[usize]) -> Result<Tensor> {
        flat_picks(places, shape).put(self)
    }
}

fn flat_picks(places: &Tensor, shape: &[usize]) -> Picks {
    let n = shape.iter().product();
    Picks { places: places.clone(), dims: [1, n, 1], count: places.numel(), full: shape.to_vec() }
}
