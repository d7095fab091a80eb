//! A tensor as it lies in a file.

use std::sync::Arc;

use half::{bf16, f16};

/// Element types of files.
///
/// ```
/// # use shadegrad::{io::*, *};
/// let weight = Saved::f32("fc.weight", &[1, 2], &[1.0, 2.0])?;
/// assert_eq!(weight.dtype(), FileType::F32);
/// assert_eq!((FileType::BF16.name(), FileType::BF16.size()), ("BF16", 2));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FileType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

/// Names as safetensors has them, and bytes of an element.
const TYPES: &[(FileType, &str, usize)] = &[
    (FileType::Bool, "BOOL", 1),
    (FileType::U8, "U8", 1),
    (FileType::I8, "I8", 1),
    (FileType::U16, "U16", 2),
    (FileType::I16, "I16", 2),
    (FileType::U32, "U32", 4),
    (FileType::I32, "I32", 4),
    (FileType::U64, "U64", 8),
    (FileType::I64, "I64", 8),
    (FileType::F16, "F16", 2),
    (FileType::BF16, "BF16", 2),
    (FileType::F32, "F32", 4),
    (FileType::F64, "F64", 8),
];

impl FileType {
    /// Its name in a safetensors file.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// assert_eq!([FileType::F32.name(), FileType::I64.name(), FileType::Bool.name()], ["F32", "I64", "BOOL"]);
    /// ```
    pub fn name(self) -> &'static str {
        TYPES[self as usize].1
    }

    /// Bytes of one element.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// assert_eq!([FileType::F16.size(), FileType::F32.size(), FileType::F64.size()], [2, 4, 8]);
    /// ```
    pub fn size(self) -> usize {
        TYPES[self as usize].2
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        TYPES.iter().find(|t| t.1 == name).map(|t| t.0)
    }
}

/// A tensor of a file: name, type, shape, and its elements as bytes. Clones share the bytes.
///
/// ```
/// # use shadegrad::*;
/// use shadegrad::io::Saved;
/// let bias = Saved::f32("fc.bias", &[2], &[0.5, -0.5])?;
/// assert_eq!((bias.name(), bias.shape(), bias.to_f32()), ("fc.bias", &[2][..], vec![0.5, -0.5]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Saved {
    name: String,
    dtype: FileType,
    shape: Vec<usize>,
    bytes: Arc<Vec<u8>>,
    /// First byte.
    start: usize,
    /// Elements from one index to the next, for each dimension.
    strides: Vec<usize>,
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    strides
}

impl Saved {
    /// A tensor over a part of `bytes`, little-endian; row-major without strides. Whatever the numbers are, nothing is
    /// read outside the bytes, and no more elements than lie there are ever made of them.
    pub(crate) fn over(
        name: String,
        dtype: FileType,
        shape: Vec<usize>,
        bytes: Arc<Vec<u8>>,
        start: usize,
        strides: Option<Vec<usize>>,
    ) -> Result<Self, String> {
        if shape.len() > 32 || strides.as_ref().is_some_and(|s| s.len() != shape.len()) {
            return Err(format!("has {} dimensions and strides {strides:?}", shape.len()));
        }
        let strides = strides.unwrap_or_else(|| row_major(&shape));
        let numel = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(0usize, |at, (&d, &s)| at.checked_add(d.saturating_sub(1).checked_mul(s)?));
        let end = last.and_then(|l| l.checked_add(1)?.checked_mul(dtype.size())?.checked_add(start));
        match (numel, end) {
            (Some(0), _) => {}
            // More elements than bytes: repeated by strides of zero.
            (Some(n), Some(end)) if end <= bytes.len() && n <= (bytes.len() - start) / dtype.size() => {}
            (Some(_), Some(end)) if end <= bytes.len() => {
                return Err(format!("of shape {shape:?} repeats its elements; save a contiguous copy"));
            }
            _ => return Err(format!("of shape {shape:?} reaches beyond its {} bytes", bytes.len())),
        }
        Ok(Self { name, dtype, shape, bytes, start, strides })
    }

    fn own<T: bytemuck::Pod>(name: String, dtype: FileType, shape: &[usize], data: &[T]) -> Self {
        let bytes: Vec<u8> = bytemuck::cast_slice(data).to_vec();
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { name, dtype, strides: row_major(shape), shape: shape.to_vec(), bytes: Arc::new(bytes), start: 0 }
    }

    /// A tensor of floats, row-major.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// let weight = Saved::f32("fc.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0])?;
    /// assert_eq!((weight.shape(), weight.to_f32()), (&[2, 2][..], vec![1.0, 2.0, 3.0, 4.0]));
    /// assert!(Saved::f32("fc.weight", &[2, 2], &[1.0]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shape has another number of elements.
    pub fn f32(name: impl Into<String>, shape: &[usize], data: &[f32]) -> crate::Result<Self> {
        let name = name.into();
        if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(data.len()) {
            let detail = format!("`{name}` of shape {shape:?} is given {} values; they must agree", data.len());
            return Err(crate::Error::shape("Saved", detail));
        }
        Ok(Self::own(name, FileType::F32, shape, data))
    }

    pub(crate) fn f64(name: &str, data: &[f64]) -> Self {
        Self::own(name.to_string(), FileType::F64, &[data.len()], data)
    }

    /// Its name.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// let weights = Weights::new(vec![Saved::f32("fc.bias", &[1], &[0.5])?], Meta::new());
    /// assert_eq!(weights.tensors()[0].name(), "fc.bias");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same tensor under another name.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// let bias = Saved::f32("module.fc.bias", &[1], &[0.5])?;
    /// let short = bias.name().trim_start_matches("module.").to_string();
    /// assert_eq!(bias.renamed(short).name(), "fc.bias");
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn renamed(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Element type.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// let bias = Saved::f32("fc.bias", &[1], &[0.5])?;
    /// assert_eq!(bias.dtype(), FileType::F32);
    /// assert_eq!(bias.to_bytes().len(), bias.numel() * bias.dtype().size());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dtype(&self) -> FileType {
        self.dtype
    }

    /// Lengths of its dimensions.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// let conv = Saved::f32("conv.weight", &[2, 1, 1, 3], &[0.0; 6])?; // [out, in, height, width], as PyTorch has it
    /// assert_eq!(conv.shape(), [2, 1, 1, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// assert_eq!(Saved::f32("conv.weight", &[2, 1, 1, 3], &[0.0; 6])?.numel(), 6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    fn contiguous(&self) -> bool {
        self.numel() == 0
            || (self.shape.iter().zip(&self.strides).zip(row_major(&self.shape)))
                .all(|((&d, &s), wanted)| d == 1 || s == wanted)
    }

    /// The elements in row-major order as bytes, little-endian.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// let bias = Saved::f32("fc.bias", &[2], &[1.0, -2.0])?;
    /// assert_eq!(bias.to_bytes(), [1f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let (n, size) = (self.numel(), self.dtype.size());
        if self.contiguous() {
            return self.bytes[self.start..][..n * size].to_vec();
        }
        let mut out = Vec::with_capacity(n * size);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..n {
            let at: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
            out.extend_from_slice(&self.bytes[self.start + at * size..][..size]);
            for (i, d) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *d {
                    break;
                }
                *i = 0;
            }
        }
        out
    }

    /// The elements in row-major order, rounded to floats where they are of another type.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// let bias = Saved::f32("fc.bias", &[2], &[1.0, -2.0])?;
    /// assert_eq!(bias.to_f32(), [1.0, -2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_f32(&self) -> Vec<f32> {
        let bytes = self.to_bytes();
        match self.dtype {
            FileType::Bool => bytes.iter().map(|&b| f32::from(u8::from(b != 0))).collect(),
            FileType::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
            FileType::I8 => bytes.iter().map(|&b| f32::from(b as i8)).collect(),
            FileType::U16 => each(&bytes, |b| f32::from(u16::from_le_bytes(b))),
            FileType::I16 => each(&bytes, |b| f32::from(i16::from_le_bytes(b))),
            FileType::U32 => each(&bytes, |b| u32::from_le_bytes(b) as f32),
            FileType::I32 => each(&bytes, |b| i32::from_le_bytes(b) as f32),
            FileType::U64 => each(&bytes, |b| u64::from_le_bytes(b) as f32),
            FileType::I64 => each(&bytes, |b| i64::from_le_bytes(b) as f32),
            FileType::F16 => each(&bytes, |b| f16::from_le_bytes(b).to_f32()),
            FileType::BF16 => each(&bytes, |b| bf16::from_le_bytes(b).to_f32()),
            FileType::F32 => each(&bytes, f32::from_le_bytes),
            FileType::F64 => each(&bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }

    /// The elements in double precision.
    pub(crate) fn to_f64(&self) -> Vec<f64> {
        match self.dtype {
            FileType::F64 => {
                let bytes = self.to_bytes();
                bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
            }
            _ => self.to_f32().into_iter().map(f64::from).collect(),
        }
    }

    /// The same elements in another shape.
    ///
    /// ```
    /// # use shadegrad::{io::*, *};
    /// let patches = Saved::f32("proj.weight", &[4, 6], &[0.5; 24])?; // a linear layer over patches of 3 x 1 x 2
    /// let conv = patches.reshaped(&[4, 3, 1, 2])?;
    /// assert_eq!((conv.name(), conv.shape()), ("proj.weight", &[4, 3, 1, 2][..]));
    /// assert!(patches.reshaped(&[5, 5]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it has another number of elements.
    pub fn reshaped(&self, shape: &[usize]) -> crate::Result<Self> {
        if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(self.numel()) {
            let detail = format!("`{}` is {:?}, which does not fit into {shape:?}", self.name, self.shape);
            return Err(crate::Error::shape("reshaped", detail));
        }
        let bytes = Arc::new(self.to_bytes());
        let strides = row_major(shape);
        Ok(Self { name: self.name.clone(), dtype: self.dtype, shape: shape.to_vec(), bytes, start: 0, strides })
    }
}

fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(shape: &[usize], start: usize, strides: Option<&[usize]>) -> Result<Saved, String> {
        let bytes: Vec<u8> = (0..12u8).collect();
        Saved::over("t".into(), FileType::U8, shape.into(), Arc::new(bytes), start, strides.map(Into::into))
    }

    #[test]
    fn strides_are_followed_and_bounds_held() {
        assert_eq!(over(&[3, 4], 0, None).unwrap().to_f32(), (0..12).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(over(&[2, 3], 1, Some(&[1, 4])).unwrap().to_bytes(), [1, 5, 9, 2, 6, 10]);
        assert_eq!(over(&[0, 9], 0, None).unwrap().to_bytes(), [0u8; 0]);
        assert_eq!(over(&[], 11, None).unwrap().to_bytes(), [11]);
        for (shape, start, strides) in [
            (&[13][..], 0, None),
            (&[12], 1, None),
            (&[usize::MAX, 2], 0, None),
            (&[usize::MAX], 0, Some(&[0][..])),
            (&[13], 0, Some(&[0])),
            (&[2], 0, Some(&[12])),
            (&[2], 0, Some(&[usize::MAX])),
            (&[2, 2], 0, Some(&[1])),
            (&[1], usize::MAX, None),
        ] {
            assert!(over(shape, start, strides).is_err(), "{shape:?} {start} {strides:?}");
        }
    }

    #[test]
    fn every_type_becomes_floats() {
        for (i, &(dtype, name, size)) in TYPES.iter().enumerate() {
            assert_eq!((dtype as usize, FileType::named(name), dtype.size()), (i, Some(dtype), size));
        }
        let of = |dtype, bytes: &[u8]| {
            let n = bytes.len() / FileType::size(dtype);
            Saved::over("t".into(), dtype, vec![n], Arc::new(bytes.into()), 0, None).unwrap().to_f32()
        };
        assert_eq!(of(FileType::BF16, &[0x80, 0x3f, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(of(FileType::F16, &[0x00, 0x3c, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(of(FileType::F64, &1.5f64.to_le_bytes()), [1.5]);
        assert_eq!(of(FileType::I64, &(-7i64).to_le_bytes()), [-7.0]);
        assert_eq!(of(FileType::I8, &[255]), [-1.0]);
        assert_eq!(of(FileType::Bool, &[2, 0]), [1.0, 0.0]);
    }
}
