//! Running sums, sorting and the k best, along any axis.

use shadegrad_kernels::scan::{self as k, Direction};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// `[outer, len, inner]` around an axis.
pub(super) fn around(shape: &[usize], axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}

/// Elements of `[outer][len][inner]` picked by their places in the lanes, `count` a lane.
#[derive(Clone)]
pub(super) struct Picks {
    /// `U32`, of the result's shape; no place comes twice in a lane.
    pub places: Tensor,
    pub dims: [usize; 3],
    pub count: usize,
    /// Shape of the tensor picked from.
    pub full: Vec<usize>,
}

impl Picks {
    /// The picked elements of `x`.
    fn take(&self, x: &Tensor) -> Result<Tensor> {
        let out = Tensor::empty(x.gpu(), self.places.shape(), DType::F32, "take")?;
        if out.numel() > 0 {
            k::take(x.gpu(), x.storage(), self.places.storage(), out.storage(), self.dims, self.count)?;
        }
        let picks = self.clone();
        Ok(out.record("take", &[x], move |_, grad| Ok(vec![Some(picks.put(grad)?)])))
    }

    /// The elements of `y` at the picked places, 0 elsewhere: the adjoint of [`Picks::take`].
    pub(super) fn put(&self, y: &Tensor) -> Result<Tensor> {
        let out = Tensor::empty(y.gpu(), &self.full, DType::F32, "put")?;
        if out.numel() > 0 {
            k::put(y.gpu(), y.storage(), self.places.storage(), out.storage(), self.dims, self.count)?;
        }
        let picks = self.clone();
        Ok(out.record("put", &[y], move |_, grad| Ok(vec![Some(picks.take(grad)?)])))
    }
}

impl Tensor {
    /// Sums of the elements up to and including each one along `axis`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::ones(&gpu, &[4])?.cumsum(0)?.to_vec()?, [1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such axis or the element type is not `F32`.
    pub fn cumsum(&self, axis: usize) -> Result<Tensor> {
        self.running_sum(axis, false)
    }

    fn running_sum(&self, axis: usize, reverse: bool) -> Result<Tensor> {
        self.want("cumsum", DType::F32)?;
        self.axis("cumsum", axis)?;
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, "cumsum")?;
        if out.numel() > 0 {
            let direction = Direction { reverse, exclusive: false };
            k::cumsum(self.gpu(), self.storage(), out.storage(), around(self.shape(), axis), direction)?;
        }
        Ok(out.record("cumsum", &[self], move |_, grad| Ok(vec![Some(grad.running_sum(axis, !reverse)?)])))
    }

    /// The elements along `axis` in order, and the index (`U32`) that each came from. Equal elements keep their order,
    /// descending too; NaN counts as the largest.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[3.0, 1.0, 2.0], &[3])?;
    /// let (sorted, from) = x.sort(0, false)?;
    /// assert_eq!((sorted.to_vec()?, from.to_vec_u32()?), (vec![1.0, 2.0, 3.0], vec![1, 2, 0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::cumsum`].
    pub fn sort(&self, axis: usize, descending: bool) -> Result<(Tensor, Tensor)> {
        self.axis("sort", axis)?;
        self.ordered("sort", axis, self.dim(axis), descending)
    }

    /// The indices (`U32`) that would sort along `axis`, as [`Tensor::sort`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let scores = Tensor::from_slice(&gpu, &[3.0, 1.0, 2.0], &[3])?;
    /// let order = scores.argsort(0, true)?;
    /// assert_eq!(order.to_vec_u32()?, [0, 2, 1]);
    /// assert_eq!(scores.index_select(0, &order)?.to_vec()?, [3.0, 2.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::cumsum`].
    pub fn argsort(&self, axis: usize, descending: bool) -> Result<Tensor> {
        self.axis("argsort", axis)?;
        Ok(self.ordered("argsort", axis, self.dim(axis), descending)?.1)
    }

    /// The `count` largest (or smallest) elements along `axis`, best first, and the index (`U32`) that each came from;
    /// ties go to the lowest index. NaN counts as the largest.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[3.0, 1.0, 2.0], &[3])?;
    /// assert_eq!(x.topk(2, 0, true)?.0.to_vec()?, [3.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Also if the axis is shorter than `count`.
    pub fn topk(&self, count: usize, axis: usize, largest: bool) -> Result<(Tensor, Tensor)> {
        self.axis("topk", axis)?;
        if count > self.dim(axis) {
            return Err(Error::shape(
                "topk",
                format!(
                    "{count} of {} elements along axis {axis} of {:?}; ask for fewer",
                    self.dim(axis),
                    self.shape()
                ),
            ));
        }
        self.ordered("topk", axis, count, largest)
    }

    fn ordered(&self, op: &'static str, axis: usize, count: usize, descending: bool) -> Result<(Tensor, Tensor)> {
        self.want(op, DType::F32)?;
        let dims = around(self.shape(), axis);
        let mut shape = self.shape().to_vec();
        shape[axis] = count;
        let values = Tensor::empty(self.gpu(), &shape, DType::F32, op)?;
        let places = Tensor::empty(self.gpu(), &shape, DType::U32, op)?;
        if values.numel() > 0 {
            k::sort(self.gpu(), self.storage(), [values.storage(), places.storage()], dims, count, descending)?;
        }
        let picks = Picks { places: places.clone(), dims, count, full: self.shape().to_vec() };
        let values = values.record(op, &[self], move |_, grad| Ok(vec![Some(picks.put(grad)?)]));
        Ok((values, places.record_cut(op, &[self])))
    }
}
