//! The tensor: a shared handle on device memory, its shape and element type, and the operation that made it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use shadegrad_kernels::{Gpu, PendingRead, Storage};
use smallvec::SmallVec;

use crate::autograd::Node;
use crate::error::{Error, Result};
use crate::ops::Quantizer;

/// Most dimensions a tensor may have.
pub const MAX_RANK: usize = 8;

/// Lengths of dimensions, in place for the ranks that networks have: every operation makes some.
pub(crate) type Shape = SmallVec<[usize; 5]>;

/// Element types. Arithmetic is on `F32`, products take `F16` too; the others store indices and images.
///
/// ```
/// # use shadegrad::*;
/// assert_eq!((DType::F32.size(), DType::U8.size()), (4, 1));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 32-bit unsigned integer: indices and labels.
    U32,
    /// 16-bit float, for storage and the operands of products.
    F16,
    /// Byte, storage only: images.
    U8,
}

impl DType {
    /// Bytes of one element.
    ///
    /// ```
    /// # use shadegrad::*;
    /// assert_eq!([DType::F32, DType::U32, DType::F16, DType::U8].map(DType::size), [4, 4, 2, 1]);
    /// ```
    pub fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

pub(crate) struct Inner {
    pub(crate) gpu: Gpu,
    pub(crate) storage: Storage,
    shape: Shape,
    dtype: DType,
    /// Where its gradient flows on; `None` for a constant.
    pub(crate) node: Option<Arc<Node>>,
    /// For a constant: the gradient-free operation that it comes from, for error texts.
    pub(crate) cut: Option<&'static str>,
    /// The same values as halves, with the same history, once a product asked for them.
    pub(crate) half: OnceLock<Tensor>,
    /// The same elements in few bits, where the operation that made them keeps them so.
    packed: Option<Arc<(Tensor, Quantizer)>>,
}

/// An array on the device: contiguous, row-major, up to [`MAX_RANK`] dimensions. Clones share memory and history.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
/// let y = x.matmul(&x)?.add_scalar(0.5)?; // recorded; nothing waits for the device
/// assert_eq!(y.shape(), [2, 2]);
/// assert_eq!(y.to_vec()?, [7.5, 10.5, 15.5, 22.5]); // this waits
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor(pub(crate) Arc<Inner>);

/// Elements of a shape, or an error if their number does not fit the address space.
pub(crate) fn numel_of(op: &'static str, shape: &[usize]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(Error::shape(op, format!("{shape:?} has {} dimensions, at most {MAX_RANK} work", shape.len())));
    }
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= u32::MAX as usize / 4)
        .ok_or_else(|| Error::shape(op, format!("{shape:?} has more than 2^30 elements; split it")))
}

impl Tensor {
    /// A new tensor over undefined memory, to be written by one kernel. `label` is its name in the memory report.
    pub(crate) fn empty(gpu: &Gpu, shape: &[usize], dtype: DType, label: &'static str) -> Result<Self> {
        let n = numel_of(label, shape)?;
        let storage = gpu.alloc((n * dtype.size()) as u64, label)?;
        Ok(Self::from_parts(gpu, storage, shape, dtype))
    }

    pub(crate) fn from_parts(gpu: &Gpu, storage: Storage, shape: &[usize], dtype: DType) -> Self {
        Self(Arc::new(Inner {
            gpu: gpu.clone(),
            storage,
            shape: shape.into(),
            dtype,
            node: None,
            cut: None,
            half: OnceLock::new(),
            packed: None,
        }))
    }

    /// The same memory under another shape and history.
    pub(crate) fn with(&self, shape: &[usize], node: Option<Arc<Node>>, cut: Option<&'static str>) -> Self {
        let Inner { gpu, storage, dtype, packed, .. } = &*self.0;
        Self(Arc::new(Inner {
            gpu: gpu.clone(),
            storage: storage.clone(),
            shape: shape.into(),
            dtype: *dtype,
            node,
            cut,
            half: OnceLock::new(),
            packed: packed.clone(),
        }))
    }

    /// This tensor with another history: in place where nobody else holds it, as with a fresh result.
    pub(crate) fn attach(mut self, node: Option<Arc<Node>>, cut: Option<&'static str>) -> Self {
        match Arc::get_mut(&mut self.0) {
            Some(inner) => {
                (inner.node, inner.cut, inner.half) = (node, cut, OnceLock::new());
                self
            }
            None => self.with(self.shape(), node, cut),
        }
    }

    /// The same tensor with a copy in halves at hand, for the products of mixed precision.
    pub(crate) fn with_half(&self, half: &Tensor) -> Self {
        let Inner { gpu, storage, shape, dtype, node, cut, packed, .. } = &*self.0;
        Self(Arc::new(Inner {
            gpu: gpu.clone(),
            storage: storage.clone(),
            shape: shape.clone(),
            dtype: *dtype,
            node: node.clone(),
            cut: *cut,
            half: OnceLock::from(half.with(shape, node.clone(), *cut)),
            packed: packed.clone(),
        }))
    }

    /// The same constant with its elements in few bits beside them.
    pub(crate) fn with_packed(&self, packed: Option<Arc<(Tensor, Quantizer)>>) -> Self {
        let Inner { gpu, storage, shape, dtype, .. } = &*self.0;
        let (gpu, storage, shape) = (gpu.clone(), storage.clone(), shape.clone());
        let (half, cut) = (OnceLock::new(), self.0.cut);
        Self(Arc::new(Inner { gpu, storage, shape, dtype: *dtype, node: None, cut, half, packed }))
    }

    /// Its elements in few bits, where they are kept so.
    pub(crate) fn packed(&self) -> Option<&(Tensor, Quantizer)> {
        self.0.packed.as_deref()
    }

    /// A tensor over memory made elsewhere: an imported buffer, or the result of a user's kernel.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[4])?;
    /// let same = Tensor::from_storage(&gpu, x.storage().clone(), &[2, 2], DType::F32)?;
    /// assert_eq!(same.sum(&[0], false)?.to_vec()?, [4.0, 6.0]);
    /// assert!(Tensor::from_storage(&gpu, x.storage().clone(), &[5], DType::F32).is_err()); // 20 bytes of 16
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the storage is smaller than the shape.
    pub fn from_storage(gpu: &Gpu, storage: Storage, shape: &[usize], dtype: DType) -> Result<Self> {
        let need = numel_of("from_storage", shape)? * dtype.size();
        if (storage.bytes() as usize) < need {
            return Err(Error::shape(
                "from_storage",
                format!("{shape:?} of {dtype:?} needs {need} bytes, the storage has {}", storage.bytes()),
            ));
        }
        Ok(Self::from_parts(gpu, storage, shape, dtype))
    }

    /// Uploads floats.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?; // row by row
    /// assert_eq!(x.select_at(0, 1)?.to_vec()?, [4.0, 5.0, 6.0]);
    /// assert!(Tensor::from_slice(&gpu, &[1.0, 2.0], &[3]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If their number is not that of the shape, or the device refuses.
    pub fn from_slice(gpu: &Gpu, data: &[f32], shape: &[usize]) -> Result<Self> {
        Self::upload(gpu, bytemuck::cast_slice(data), data.len(), shape, DType::F32)
    }

    /// Uploads indices or labels.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let index = Tensor::from_u32(&gpu, &[2, 0], &[2])?;
    /// let rows = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3, 1])?.index_select(0, &index)?;
    /// assert_eq!(rows.to_vec()?, [3.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::from_slice`].
    pub fn from_u32(gpu: &Gpu, data: &[u32], shape: &[usize]) -> Result<Self> {
        Self::upload(gpu, bytemuck::cast_slice(data), data.len(), shape, DType::U32)
    }

    /// Uploads bytes, such as the pixels of images.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pixels = Tensor::from_bytes(&gpu, &[0, 128, 255, 64], &[1, 2, 2, 1])?; // [image, row, column, channel]
    /// assert_eq!(pixels.cast(DType::F32)?.to_vec()?, [0.0, 128.0, 255.0, 64.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::from_slice`].
    pub fn from_bytes(gpu: &Gpu, data: &[u8], shape: &[usize]) -> Result<Self> {
        Self::upload(gpu, data, data.len(), shape, DType::U8)
    }

    fn upload(gpu: &Gpu, bytes: &[u8], len: usize, shape: &[usize], dtype: DType) -> Result<Self> {
        let n = numel_of("from_slice", shape)?;
        if n != len {
            return Err(Error::shape("from_slice", format!("{shape:?} has {n} elements, the data has {len}")));
        }
        let out = Self::empty(gpu, shape, dtype, "upload")?;
        gpu.upload(&out.0.storage, bytes)?;
        Ok(out)
    }

    /// One float without dimensions.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let half = Tensor::scalar(&gpu, 0.5)?;
    /// assert_eq!((half.rank(), half.item()?), (0, 0.5));
    /// assert_eq!(Tensor::ones(&gpu, &[3])?.mul(&half)?.to_vec()?, [0.5; 3]); // broadcasts to any shape
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn scalar(gpu: &Gpu, value: f32) -> Result<Self> {
        Self::full(gpu, &[], value)
    }

    /// All elements `value`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::full(&gpu, &[2, 3], 0.5)?.to_vec()?, [0.5; 6]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn full(gpu: &Gpu, shape: &[usize], value: f32) -> Result<Self> {
        let out = Self::empty(gpu, shape, DType::F32, "full")?;
        if out.numel() > 0 {
            shadegrad_kernels::fill::f32(gpu, &out.0.storage, out.numel(), value)?;
        }
        Ok(out)
    }

    /// All elements 0.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let w = Tensor::zeros(&gpu, &[2, 2])?.leaf();
    /// assert_eq!(w.add_scalar(1.0)?.sum_all()?.item()?, 4.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn zeros(gpu: &Gpu, shape: &[usize]) -> Result<Self> {
        Self::full(gpu, shape, 0.0)
    }

    /// All elements 1.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::ones(&gpu, &[2, 3])?.sum(&[1], false)?.to_vec()?, [3.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn ones(gpu: &Gpu, shape: &[usize]) -> Result<Self> {
        Self::full(gpu, shape, 1.0)
    }

    /// `start, start + 1, ..` as `n` indices.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let index = Tensor::arange(&gpu, 5, 3)?;
    /// assert_eq!((index.dtype(), index.to_vec_u32()?), (DType::U32, vec![5, 6, 7]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn arange(gpu: &Gpu, start: u32, n: usize) -> Result<Self> {
        let out = Self::empty(gpu, &[n], DType::U32, "arange")?;
        if n > 0 {
            shadegrad_kernels::fill::arange(gpu, &out.0.storage, n, start, 1)?;
        }
        Ok(out)
    }

    /// The device it lives on.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::zeros(&gpu, &[2])?;
    /// let noise = Tensor::full(x.gpu(), x.shape(), 0.1)?; // beside `x`, wherever that is
    /// assert!(noise.gpu().same_device(&gpu));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gpu(&self) -> &Gpu {
        &self.0.gpu
    }

    /// Its memory. Flush the device before using the buffer elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::zeros(&gpu, &[2, 3])?;
    /// assert_eq!(x.storage().bytes(), 24);
    /// assert!(x.storage().same_buffer(x.reshape(&[6])?.storage())); // no copy
    /// # Ok::<(), Error>(())
    /// ```
    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// Lengths of its dimensions.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let images = Tensor::zeros(&gpu, &[8, 32, 32, 3])?;
    /// let &[batch, height, width, channels] = images.shape() else { panic!("no images") };
    /// assert_eq!([batch, height, width, channels], [8, 32, 32, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Length of dimension `axis`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let images = Tensor::zeros(&gpu, &[8, 32, 32, 3])?;
    /// assert_eq!(images.reshape(&[images.dim(0), 32 * 32 * 3])?.shape(), [8, 3072]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Panics
    /// If there is no such dimension.
    #[track_caller]
    pub fn dim(&self, axis: usize) -> usize {
        self.0.shape[axis]
    }

    /// Number of dimensions.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::ones(&gpu, &[2, 3])?;
    /// assert_eq!((x.rank(), x.sum(&[0], false)?.rank(), x.sum_all()?.rank()), (2, 1, 0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rank(&self) -> usize {
        self.0.shape.len()
    }

    /// Number of elements.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::zeros(&gpu, &[2, 3])?.numel(), 6);
    /// assert_eq!(Tensor::scalar(&gpu, 1.0)?.numel(), 1);
    /// assert_eq!(Tensor::zeros(&gpu, &[0, 3])?.numel(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn numel(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// Element type.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::ones(&gpu, &[2])?;
    /// assert_eq!((x.dtype(), x.cast(DType::F16)?.dtype()), (DType::F32, DType::F16));
    /// assert_eq!(x.argmax(0, false)?.dtype(), DType::U32);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Whether gradients flow through it.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (w, x) = (Tensor::ones(&gpu, &[2])?.leaf(), Tensor::ones(&gpu, &[2])?);
    /// assert!(w.mul(&x)?.requires_grad() && !x.square()?.requires_grad());
    /// assert!(!w.gt_scalar(0.0)?.requires_grad()); // an operation without a gradient
    /// # Ok::<(), Error>(())
    /// ```
    pub fn requires_grad(&self) -> bool {
        self.0.node.is_some()
    }

    /// The elements as floats; waits for the device.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, -2.0], &[2])?;
    /// assert_eq!(x.abs()?.to_vec()?, [1.0, 2.0]);
    /// assert!(x.cast(DType::F16)?.to_vec().is_err()); // floats only: cast it back first
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the element type is not `F32`, or the device reported a fault.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        self.want("to_vec", DType::F32)?;
        Ok(cast_vec(&self.gpu().read(self.storage())?))
    }

    /// The elements as indices; waits for the device.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let scores = Tensor::from_slice(&gpu, &[0.1, 0.7, 0.2, 0.5, 0.3, 0.2], &[2, 3])?;
    /// assert_eq!(scores.argmax(1, false)?.to_vec_u32()?, [1, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the element type is not `U32`, or the device reported a fault.
    pub fn to_vec_u32(&self) -> Result<Vec<u32>> {
        self.want("to_vec_u32", DType::U32)?;
        Ok(cast_vec(&self.gpu().read(self.storage())?))
    }

    /// The bytes of the elements, whatever their type; waits for the device.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[0.0, 127.6, 300.0], &[3])?;
    /// assert_eq!(x.cast(DType::U8)?.to_bytes()?, [0, 127, 255]);
    /// assert_eq!(x.to_bytes()?.len(), 12);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.gpu().read(self.storage())?)
    }

    /// The only element; waits for the device.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::ones(&gpu, &[10])?.sum_all()?.item()?, 10.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is more than one element, it is not `F32`, or the device reported a fault.
    pub fn item(&self) -> Result<f32> {
        if self.numel() != 1 {
            return Err(Error::shape("item", format!("{:?} has not one element; sum or index it first", self.shape())));
        }
        Ok(self.to_vec()?[0])
    }

    /// Starts reading the elements without waiting (as bytes of the element type).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pending = Tensor::ones(&gpu, &[2])?.read_async()?;
    /// // Something else meanwhile, then:
    /// assert_eq!(pending.wait()?, [1.0f32.to_le_bytes(), 1.0f32.to_le_bytes()].concat());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn read_async(&self) -> Result<PendingRead> {
        Ok(self.gpu().read_async(self.storage())?)
    }

    /// Checks the element type.
    pub(crate) fn want(&self, op: &'static str, dtype: DType) -> Result<()> {
        if self.dtype() == dtype {
            return Ok(());
        }
        Err(Error::DType {
            op,
            detail: format!("takes {dtype:?}, got {:?} of shape {:?}; cast it first", self.dtype(), self.shape()),
        })
    }

    /// Checks that `other` is on the same device.
    pub(crate) fn same_gpu(&self, op: &'static str, other: &Self) -> Result<()> {
        if self.gpu().same_device(other.gpu()) {
            return Ok(());
        }
        Err(Error::value(op, format!("{self:?} and {other:?} are on different devices; read one and upload it there")))
    }

    /// Checks an axis.
    pub(crate) fn axis(&self, op: &'static str, axis: usize) -> Result<usize> {
        if axis < self.rank() {
            return Ok(axis);
        }
        Err(Error::shape(op, format!("axis {axis} of {:?}, which has {} dimensions", self.shape(), self.rank())))
    }
}

/// Elements from little-endian bytes, which are as WGSL stores them on every device wgpu runs on.
fn cast_vec<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {:?}", self.shape(), self.dtype())?;
        if let Some(node) = &self.0.node {
            write!(f, ", {}", node.name())?;
        }
        f.write_str(")")
    }
}
