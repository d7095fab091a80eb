//! Reading and adding at places that an index tensor names.
//!
//! The device cannot report a bad index: indices past the end are clamped to the last element everywhere here.

use shadegrad_kernels::gather as k;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

impl Tensor {
    /// Checks an index tensor for [`Tensor::gather`] and [`Tensor::scatter_add`].
    fn want_index(&self, op: &'static str, axis: usize, index: &Tensor) -> Result<()> {
        self.axis(op, axis)?;
        index.want(op, DType::U32)?;
        self.same_gpu(op, index)?;
        let fits = index.rank() == self.rank()
            && index.shape().iter().zip(self.shape()).enumerate().all(|(d, (i, s))| d == axis || i <= s);
        if !fits {
            return Err(Error::shape(
                op,
                format!(
                    "an index of {:?} for {:?}; it needs the same rank, and no dimension but {axis} may be longer",
                    index.shape(),
                    self.shape()
                ),
            ));
        }
        self.want_targets(op, axis, index)
    }

    /// Checks that the indices, if there are any, have something to point at.
    fn want_targets(&self, op: &'static str, axis: usize, index: &Tensor) -> Result<()> {
        if index.numel() == 0 || self.dim(axis) > 0 {
            return Ok(());
        }
        Err(Error::shape(
            op,
            format!("{} indices into dimension {axis} of {:?}, which has no elements", index.numel(), self.shape()),
        ))
    }

    /// `out[i] = x[i with i[axis] = index[i]]`, of the index's shape. The index (U32) may be shorter than the tensor in
    /// the other dimensions; indices past the end are clamped.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let scores = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
    /// let labels = Tensor::from_u32(&gpu, &[1, 0], &[2, 1])?;
    /// assert_eq!(scores.gather(1, &labels)?.to_vec()?, [2.0, 3.0]); // each row's own
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the index has another rank, is longer in another dimension, or is not `U32`.
    pub fn gather(&self, axis: usize, index: &Tensor) -> Result<Tensor> {
        self.want_words("gather")?;
        self.want_index("gather", axis, index)?;
        let out = Tensor::empty(self.gpu(), index.shape(), self.dtype(), "gather")?;
        if out.numel() > 0 {
            let (x, i) = ((self.storage(), self.shape()), (index.storage(), index.shape()));
            k::gather(self.gpu(), x, i, out.storage(), axis)?;
        }
        let (index, full) = (index.clone(), self.shape().to_vec());
        Ok(out.record("gather", &[self], move |_, grad| Ok(vec![Some(grad.scattered(&full, axis, &index)?)])))
    }

    /// [`Tensor::scatter_add`] of this tensor to zeros of shape `full`: the gradient of [`Tensor::gather`].
    fn scattered(&self, full: &[usize], axis: usize, index: &Tensor) -> Result<Tensor> {
        const OP: &str = "gather";
        let out = Tensor::zeros(self.gpu(), full)?;
        if self.numel() > 0 {
            let (s, y) = ((self.storage(), self.shape()), (out.storage(), out.shape()));
            k::scatter_add(self.gpu(), index.storage(), s, y, axis)?;
        }
        let index = index.clone();
        Ok(out.record(OP, &[self], move |_, grad| Ok(vec![Some(grad.gather(axis, &index)?)])))
    }

    /// [`Tensor::index_add`] of this tensor to zeros of shape `full`: the gradient of [`Tensor::index_select`].
    fn scattered_rows(&self, full: &[usize], axis: usize, index: &Tensor) -> Result<Tensor> {
        const OP: &str = "index_select";
        let out = Tensor::zeros(self.gpu(), full)?;
        if self.numel() > 0 {
            let sizes = out.around(axis, index.numel());
            k::add_rows(self.gpu(), index.storage(), self.storage(), out.storage(), sizes)?;
        }
        let index = index.clone();
        Ok(out.record(OP, &[self], move |_, grad| Ok(vec![Some(grad.index_select(axis, &index)?)])))
    }

    /// A copy of this tensor to write into.
    fn duplicate(&self, op: &'static str) -> Result<Tensor> {
        let out = Tensor::empty(self.gpu(), self.shape(), self.dtype(), op)?;
        if self.numel() > 0 {
            let words = (self.numel() * self.dtype().size()).div_ceil(4);
            let dim = shadegrad_kernels::index::Dim { len: words, from: 1, to: 1 };
            shadegrad_kernels::index::copy(self.gpu(), self.storage(), 0, out.storage(), 0, &[dim])?;
        }
        Ok(out)
    }

    /// This tensor with `src[i]` added at `i with i[axis] = index[i]`, for every `i` of the index's shape: the adjoint of
    /// [`Tensor::gather`]. Indices that meet are added in the order of the sources, so that results repeat bit for bit.
    ///
    /// The sources along `axis` are taken one after the other; the work is that of one pass over them, or of a few on
    /// large devices, where up to 256 invocations share the targets of one sequence.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let places = Tensor::from_u32(&gpu, &[2, 0, 2], &[3])?;
    /// let values = Tensor::from_slice(&gpu, &[1.0, 10.0, 100.0], &[3])?;
    /// assert_eq!(Tensor::zeros(&gpu, &[3])?.scatter_add(0, &places, &values)?.to_vec()?, [10.0, 0.0, 101.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes of index and `src` differ, or the index does not fit as for [`Tensor::gather`].
    pub fn scatter_add(&self, axis: usize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        self.want("scatter_add", DType::F32)?;
        src.want("scatter_add", DType::F32)?;
        self.same_gpu("scatter_add", src)?;
        self.want_index("scatter_add", axis, index)?;
        if src.shape() != index.shape() {
            return Err(Error::shape(
                "scatter_add",
                format!("sources of {:?} with an index of {:?}; they must be equal", src.shape(), index.shape()),
            ));
        }
        let out = self.duplicate("scatter_add")?;
        if src.numel() > 0 {
            let (s, y) = ((src.storage(), src.shape()), (out.storage(), out.shape()));
            k::scatter_add(self.gpu(), index.storage(), s, y, axis)?;
        }
        let index = index.clone();
        Ok(out.record("scatter_add", &[self, src], move |ctx, grad| {
            Ok(vec![Some(grad.clone()), ctx.needs(1).then(|| grad.gather(axis, &index)).transpose()?])
        }))
    }

    /// Checks the index of [`Tensor::index_select`] and [`Tensor::index_add`].
    fn want_rows(&self, op: &'static str, axis: usize, index: &Tensor) -> Result<()> {
        self.axis(op, axis)?;
        index.want(op, DType::U32)?;
        self.same_gpu(op, index)?;
        if index.rank() != 1 {
            return Err(Error::shape(
                op,
                format!("an index of {:?}; it needs one dimension, flatten it first", index.shape()),
            ));
        }
        self.want_targets(op, axis, index)
    }

    /// Lengths before `axis`, along it, of the index, and after it.
    fn around(&self, axis: usize, len: usize) -> [usize; 4] {
        let shape = self.shape();
        [shape[..axis].iter().product(), shape[axis], len, shape[axis + 1..].iter().product()]
    }

    /// The slices `index[0], index[1], ..` along `axis`. The index is a `U32` tensor of one dimension; indices past the
    /// end are clamped. For `U8` and `F16` tensors `axis` must be 0: that picks the samples of a batch.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let images = Tensor::from_bytes(&gpu, &[1, 2, 3, 4, 5, 6], &[3, 2])?; // three samples
    /// let batch = images.index_select(0, &Tensor::from_u32(&gpu, &[2, 0], &[2])?)?;
    /// assert_eq!(batch.to_bytes()?, [5, 6, 1, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the index has not one dimension, or the element type does not allow the axis.
    pub fn index_select(&self, axis: usize, index: &Tensor) -> Result<Tensor> {
        self.want_rows("index_select", axis, index)?;
        if axis > 0 {
            self.want_words("index_select")?;
        }
        let mut shape = self.shape().to_vec();
        shape[axis] = index.numel();
        let out = Tensor::empty(self.gpu(), &shape, self.dtype(), "index_select")?;
        if out.numel() > 0 {
            let sizes = self.around(axis, index.numel());
            if self.dtype().size() == 4 {
                k::rows(self.gpu(), self.storage(), index.storage(), out.storage(), sizes)?;
            } else {
                let sizes = [sizes[1], sizes[2], sizes[3] * self.dtype().size()];
                k::byte_rows(self.gpu(), self.storage(), index.storage(), out.storage(), sizes)?;
            }
        }
        let (index, full) = (index.clone(), self.shape().to_vec());
        Ok(out
            .record("index_select", &[self], move |_, grad| Ok(vec![Some(grad.scattered_rows(&full, axis, &index)?)])))
    }

    /// This tensor with slice `j` of `src` added to slice `index[j]` along `axis`: the adjoint of
    /// [`Tensor::index_select`]. Order and cost are those of [`Tensor::scatter_add`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let sums = Tensor::zeros(&gpu, &[2, 2])?; // for two classes
    /// let classes = Tensor::from_u32(&gpu, &[1, 0, 1], &[3])?;
    /// let samples = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2])?;
    /// assert_eq!(sums.index_add(0, &classes, &samples)?.to_vec()?, [3.0, 4.0, 6.0, 8.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the index has not one dimension, or `src` has not as many slices of this tensor's shape.
    pub fn index_add(&self, axis: usize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        self.want("index_add", DType::F32)?;
        src.want("index_add", DType::F32)?;
        self.same_gpu("index_add", src)?;
        self.want_rows("index_add", axis, index)?;
        let mut shape = self.shape().to_vec();
        shape[axis] = index.numel();
        if src.shape() != shape {
            return Err(Error::shape(
                "index_add",
                format!(
                    "sources of {:?} for {} slices of {:?} along dimension {axis}; they must be {shape:?}",
                    src.shape(),
                    index.numel(),
                    self.shape()
                ),
            ));
        }
        let out = self.duplicate("index_add")?;
        if src.numel() > 0 {
            let sizes = self.around(axis, index.numel());
            k::add_rows(self.gpu(), index.storage(), src.storage(), out.storage(), sizes)?;
        }
        let index = index.clone();
        Ok(out.record("index_add", &[self, src], move |ctx, grad| {
            Ok(vec![Some(grad.clone()), ctx.needs(1).then(|| grad.index_select(axis, &index)).transpose()?])
        }))
    }

    /// Rows of a table `[n, d]` for an index (U32) of any shape: `[.., d]`. The gradient adds the rows that meet in the
    /// order of the index.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let table = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?.leaf();
    /// let words = Tensor::from_u32(&gpu, &[1, 0, 1], &[1, 3])?; // one sentence of three
    /// let y = table.embedding(&words)?;
    /// assert_eq!((y.shape(), y.to_vec()?), (&[1, 3, 2][..], vec![3.0, 4.0, 1.0, 2.0, 3.0, 4.0]));
    /// assert_eq!(grad(&y.sum_all()?, &[&table])?[0].to_vec()?, [1.0, 1.0, 2.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the table has not two dimensions, or the index is not `U32`.
    pub fn embedding(&self, index: &Tensor) -> Result<Tensor> {
        let &[_, d] = self.shape() else {
            return Err(Error::shape(
                "embedding",
                format!("a table of {:?}; it needs two dimensions [rows, d]", self.shape()),
            ));
        };
        index.want("embedding", DType::U32)?;
        let mut shape = index.shape().to_vec();
        shape.push(d);
        self.index_select(0, &index.reshape(&[index.numel()])?)?.reshape(&shape)
    }

    /// `[.., n]`: 1 where the last index equals the element of this `U32` tensor, 0 elsewhere (also where it is `n` or
    /// more). No gradient.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let labels = Tensor::from_u32(&gpu, &[2, 0], &[2])?;
    /// assert_eq!(labels.one_hot(3)?.to_vec()?, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the element type is not `U32`.
    pub fn one_hot(&self, n: usize) -> Result<Tensor> {
        self.want("one_hot", DType::U32)?;
        let mut shape = self.shape().to_vec();
        shape.push(n);
        let out = Tensor::empty(self.gpu(), &shape, DType::F32, "one_hot")?;
        if out.numel() > 0 {
            k::one_hot(self.gpu(), self.storage(), out.storage(), self.numel(), n)?;
        }
        Ok(out.record_cut("one_hot", &[self]))
    }
}
