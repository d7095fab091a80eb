//! Operations that only move elements: shapes, slices, padding, joining.

use shadegrad_kernels::index::{self as k, Dim, strides};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, numel_of};

/// A regular part of a tensor: along every dimension `len` elements from `start`, `step` apart (backwards if negative).
#[derive(Clone, Debug)]
struct Region {
    start: Vec<usize>,
    len: Vec<usize>,
    step: Vec<isize>,
}

impl Region {
    /// All of `shape`.
    fn whole(shape: &[usize]) -> Self {
        Self { start: vec![0; shape.len()], len: shape.to_vec(), step: vec![1; shape.len()] }
    }

    /// First element in a tensor of `shape`, and the strides of the part.
    fn layout(&self, shape: &[usize]) -> (usize, Vec<isize>) {
        let full = strides(shape);
        let first: isize = self.start.iter().zip(&full).map(|(&s, &f)| s as isize * f).sum();
        (first as usize, full.iter().zip(&self.step).map(|(f, s)| f * s).collect())
    }
}

/// Dimensions of a copy between two layouts of `len`.
fn dims(len: &[usize], from: &[isize], to: &[isize]) -> Vec<Dim> {
    len.iter().zip(from).zip(to).map(|((&len, &from), &to)| Dim { len, from, to }).collect()
}

impl Tensor {
    /// Checks that elements have the four bytes that the copying kernels move.
    pub(crate) fn want_words(&self, op: &'static str) -> Result<()> {
        if self.dtype().size() == 4 {
            return Ok(());
        }
        Err(Error::DType {
            op,
            detail: format!(
                "takes F32 or U32, got {:?} of shape {:?}; cast it first, or pick rows with index_select",
                self.dtype(),
                self.shape()
            ),
        })
    }

    /// A copy in which the strides `from` of this tensor, starting at element `first`, become those of `shape`.
    fn gathered(&self, op: &'static str, shape: &[usize], first: usize, from: &[isize]) -> Result<Tensor> {
        self.want_words(op)?;
        let out = Tensor::empty(self.gpu(), shape, self.dtype(), op)?;
        if out.numel() > 0 {
            k::copy(self.gpu(), self.storage(), first, out.storage(), 0, &dims(shape, from, &strides(shape)))?;
        }
        Ok(out)
    }

    /// Writes this tensor into `region` of `to`.
    fn write_into(&self, to: &Tensor, region: &Region) -> Result<()> {
        if self.numel() > 0 {
            let (first, steps) = region.layout(to.shape());
            let dims = dims(&region.len, &strides(self.shape()), &steps);
            k::copy(self.gpu(), self.storage(), 0, to.storage(), first, &dims)?;
        }
        Ok(())
    }

    /// The part `region`.
    fn extract(&self, op: &'static str, region: Region) -> Result<Tensor> {
        let (first, steps) = region.layout(self.shape());
        let out = self.gathered(op, &region.len, first, &steps)?;
        let full = self.shape().to_vec();
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.place(op, &full, region.clone(), 0.0)?)])))
    }

    /// A tensor of shape `full` that has these elements in `region` and `value` elsewhere: the adjoint of `extract`.
    fn place(&self, op: &'static str, full: &[usize], region: Region, value: f32) -> Result<Tensor> {
        self.want_words(op)?;
        let out = Tensor::empty(self.gpu(), full, self.dtype(), op)?;
        if out.numel() > 0 {
            let bits = if self.dtype() == DType::U32 { value as u32 } else { value.to_bits() };
            if self.numel() < out.numel() {
                shadegrad_kernels::fill::u32(self.gpu(), out.storage(), out.numel(), bits)?;
            }
            self.write_into(&out, &region)?;
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.extract(op, region.clone())?)])))
    }

    /// The same elements in row-major order under another shape, without a copy.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::zeros(&gpu, &[2, 6])?.reshape(&[3, 4])?;
    /// assert_eq!(x.shape(), [3, 4]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if numel_of("reshape", shape)? != self.numel() {
            return Err(Error::shape(
                "reshape",
                format!(
                    "{:?} has {} elements, {shape:?} has {}; the products must agree",
                    self.shape(),
                    self.numel(),
                    shape.iter().product::<usize>()
                ),
            ));
        }
        let before = self.shape().to_vec();
        let out = self.with(shape, None, None);
        Ok(out.record("reshape", &[self], move |_, grad| Ok(vec![Some(grad.reshape(&before)?)])))
    }

    /// Joins the dimensions `start..=end` into one, without a copy: `[N, H, W, C].flatten(1, 3)` is `[N, H W C]`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let images = Tensor::zeros(&gpu, &[8, 4, 4, 3])?;
    /// assert_eq!(images.flatten(1, 3)?.shape(), [8, 48]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `end` is before `start` or not a dimension.
    pub fn flatten(&self, start: usize, end: usize) -> Result<Tensor> {
        self.axis("flatten", end)?;
        if start > end {
            return Err(Error::shape(
                "flatten",
                format!("dimensions {start}..={end} of {:?}; swap them", self.shape()),
            ));
        }
        let mut shape = self.shape()[..start].to_vec();
        shape.push(self.shape()[start..=end].iter().product());
        shape.extend_from_slice(&self.shape()[end + 1..]);
        self.reshape(&shape)
    }

    /// Adds a dimension of length one before dimension `axis` (or at the end), without a copy.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::zeros(&gpu, &[2, 3])?;
    /// assert_eq!(x.unsqueeze(0)?.shape(), [1, 2, 3]);
    /// assert_eq!(x.unsqueeze(2)?.shape(), [2, 3, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `axis` is more than the rank, or the rank already is [`crate::MAX_RANK`].
    pub fn unsqueeze(&self, axis: usize) -> Result<Tensor> {
        if axis > self.rank() {
            return Err(Error::shape(
                "unsqueeze",
                format!("position {axis} in {:?}; the last one possible is {}", self.shape(), self.rank()),
            ));
        }
        let mut shape = self.shape().to_vec();
        shape.insert(axis, 1);
        self.reshape(&shape)
    }

    /// Removes dimension `axis`, whose length must be one, without a copy.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::zeros(&gpu, &[2, 1, 3])?;
    /// assert_eq!(x.squeeze(1)?.shape(), [2, 3]);
    /// assert!(x.squeeze(0).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If its length is not one.
    pub fn squeeze(&self, axis: usize) -> Result<Tensor> {
        self.axis("squeeze", axis)?;
        if self.dim(axis) != 1 {
            return Err(Error::shape(
                "squeeze",
                format!(
                    "dimension {axis} of {:?} has length {}, only 1 can go; slice it first",
                    self.shape(),
                    self.dim(axis)
                ),
            ));
        }
        let mut shape = self.shape().to_vec();
        shape.remove(axis);
        self.reshape(&shape)
    }

    /// Reorders the dimensions: dimension `d` of the result is dimension `order[d]` of this tensor.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// assert_eq!(x.permute(&[1, 0])?.to_vec()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `order` does not name every dimension once.
    pub fn permute(&self, order: &[usize]) -> Result<Tensor> {
        let mut inverse = vec![usize::MAX; self.rank()];
        for (to, &from) in order.iter().enumerate() {
            if let Some(slot) = inverse.get_mut(from) {
                *slot = to;
            }
        }
        if order.len() != self.rank() || inverse.contains(&usize::MAX) {
            return Err(Error::shape(
                "permute",
                format!("{order:?} does not name each dimension of {:?} once", self.shape()),
            ));
        }
        let full = strides(self.shape());
        let shape: Vec<usize> = order.iter().map(|&d| self.dim(d)).collect();
        let from: Vec<isize> = order.iter().map(|&d| full[d]).collect();
        // Where only dimensions of length one move, the elements stay where they are.
        let moving: Vec<usize> = order.iter().copied().filter(|&d| self.dim(d) != 1).collect();
        let out = if moving.is_sorted() {
            self.with(&shape, None, None)
        } else {
            self.gathered("permute", &shape, 0, &from)?
        };
        Ok(out.record("permute", &[self], move |_, grad| Ok(vec![Some(grad.permute(&inverse)?)])))
    }

    /// Exchanges dimensions `a` and `b`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// let t = x.transpose(0, 1)?;
    /// assert_eq!((t.shape(), t.to_vec()?), (&[3, 2][..], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no such dimensions.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        self.axis("transpose", a)?;
        self.axis("transpose", b)?;
        let mut order: Vec<usize> = (0..self.rank()).collect();
        order.swap(a, b);
        self.permute(&order)
    }

    /// The elements `start, start + step, ..` below `end` along `axis`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[0.0, 1.0, 2.0, 3.0, 4.0], &[5])?;
    /// assert_eq!(x.slice(0, 1, 5, 2)?.to_vec()?, [1.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the range does not lie within the dimension, or `step` is 0.
    pub fn slice(&self, axis: usize, start: usize, end: usize, step: usize) -> Result<Tensor> {
        self.axis("slice", axis)?;
        if start > end || end > self.dim(axis) || step == 0 {
            return Err(Error::shape(
                "slice",
                format!(
                    "{start}..{end} in steps of {step} of dimension {axis} of {:?}; it needs start <= end <= {} and a step \
                     of at least 1",
                    self.shape(),
                    self.dim(axis)
                ),
            ));
        }
        if (start, end, step) == (0, self.dim(axis), 1) {
            return Ok(self.clone());
        }
        let mut region = Region::whole(self.shape());
        region.start[axis] = start;
        region.len[axis] = (end - start).div_ceil(step);
        region.step[axis] = step as isize;
        self.extract("slice", region)
    }

    /// `len` elements from `start` along `axis`: [`Tensor::slice`] without a step.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// assert_eq!(x.narrow(1, 1, 2)?.to_vec()?, [2.0, 3.0, 5.0, 6.0]); // the last two columns
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If they do not lie within the dimension.
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Tensor> {
        self.slice(axis, start, start.saturating_add(len), 1)
    }

    /// Element `i` along `axis`, without that dimension.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
    /// assert_eq!(x.select_at(0, 1)?.to_vec()?, [3.0, 4.0]); // a row
    /// assert_eq!(x.select_at(1, 1)?.to_vec()?, [2.0, 4.0]); // a column
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such element.
    pub fn select_at(&self, axis: usize, i: usize) -> Result<Tensor> {
        self.narrow(axis, i, 1)?.squeeze(axis)
    }

    /// Adds `(before, after)` elements of `value` around each dimension; `widths` has one pair for each.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?;
    /// assert_eq!(x.pad(&[(1, 2)], 9.0)?.to_vec()?, [9.0, 1.0, 2.0, 9.0, 9.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If their number is not the rank.
    pub fn pad(&self, widths: &[(usize, usize)], value: f32) -> Result<Tensor> {
        if widths.len() != self.rank() {
            return Err(Error::shape(
                "pad",
                format!(
                    "{} pairs of widths for {:?}; give one (before, after) per dimension",
                    widths.len(),
                    self.shape()
                ),
            ));
        }
        if widths.iter().all(|&w| w == (0, 0)) {
            return Ok(self.clone());
        }
        let full: Vec<usize> = self.shape().iter().zip(widths).map(|(d, (b, a))| d + b + a).collect();
        let start = widths.iter().map(|w| w.0).collect();
        self.place("pad", &full, Region { start, ..Region::whole(self.shape()) }, value)
    }

    /// Repeats dimensions of length one, and adds dimensions in front, to reach `shape` (numpy's rules).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2, 1])?.leaf();
    /// let y = x.broadcast_to(&[2, 3])?;
    /// assert_eq!(y.to_vec()?, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    /// assert_eq!(grad(&y.sum_all()?, &[&x])?[0].to_vec()?, [3.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a dimension is neither one nor already right.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        let lead = shape.len().checked_sub(self.rank());
        let fits = lead.is_some_and(|l| self.shape().iter().zip(&shape[l..]).all(|(&s, &t)| s == t || s == 1));
        let Some(lead) = lead.filter(|_| fits) else {
            return Err(Error::shape(
                "broadcast_to",
                format!(
                    "{:?} does not broadcast to {shape:?}: aligned to the right, each length must be equal or one",
                    self.shape()
                ),
            ));
        };
        let full = strides(self.shape());
        let mut from = vec![0; lead];
        from.extend(self.shape().iter().zip(full).map(|(&d, f)| if d == 1 { 0 } else { f }));
        let before = self.shape().to_vec();
        let out = if self.numel() == numel_of("broadcast_to", shape)? {
            self.want_words("broadcast_to")?;
            self.with(shape, None, None)
        } else if let Some(out) = self.repeated(shape)? {
            out
        } else {
            self.gathered("broadcast_to", shape, 0, &from)?
        };
        Ok(out.record("broadcast_to", &[self], move |_, grad| Ok(vec![Some(grad.sum_to(&before)?)])))
    }

    /// [`Tensor::broadcast_to`] by vectors, for the shapes that allow it. Words that are no floats go the other way: their
    /// bits might not survive.
    fn repeated(&self, shape: &[usize]) -> Result<Option<Tensor>> {
        if self.dtype() != DType::F32 || shape.contains(&0) {
            return Ok(None);
        }
        let out = Tensor::empty(self.gpu(), shape, DType::F32, "broadcast_to")?;
        let source = (self.storage(), self.shape());
        Ok(shadegrad_kernels::elementwise::broadcast(self.gpu(), source, out.storage(), shape)?.then_some(out))
    }

    /// Reverses the order along each of `axes`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let image = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 2, 1])?;
    /// assert_eq!(image.flip(&[2])?.to_vec()?, [2.0, 1.0, 4.0, 3.0]); // its mirror image
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If one of them is not a dimension.
    pub fn flip(&self, axes: &[usize]) -> Result<Tensor> {
        let mut region = Region::whole(self.shape());
        for &axis in axes {
            self.axis("flip", axis)?;
            if self.dim(axis) > 1 {
                // Naming an axis twice reverses it twice.
                region.start[axis] = self.dim(axis) - 1 - region.start[axis];
                region.step[axis] *= -1;
            }
        }
        self.extract("flip", region)
    }

    /// Moves every element `shift` places up along `axis`, around the end.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[4])?;
    /// assert_eq!(x.roll(0, 1)?.to_vec()?, [4.0, 1.0, 2.0, 3.0]);
    /// assert_eq!(x.roll(0, -1)?.to_vec()?, [2.0, 3.0, 4.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `axis` is not a dimension.
    pub fn roll(&self, axis: usize, shift: isize) -> Result<Tensor> {
        self.axis("roll", axis)?;
        self.want_words("roll")?;
        let len = self.dim(axis);
        let by = if len == 0 { 0 } else { shift.rem_euclid(len as isize) as usize };
        if by == 0 {
            return Ok(self.clone());
        }
        let out = Tensor::empty(self.gpu(), self.shape(), self.dtype(), "roll")?;
        let full = strides(self.shape());
        // The last `by` elements come to the front, the others behind them.
        for (from, to, n) in [(len - by, 0, by), (0, by, len - by)] {
            let mut shape = self.shape().to_vec();
            shape[axis] = n;
            let at = |i: usize| i * full[axis] as usize;
            k::copy(self.gpu(), self.storage(), at(from), out.storage(), at(to), &dims(&shape, &full, &full))?;
        }
        Ok(out.record("roll", &[self], move |_, grad| Ok(vec![Some(grad.roll(axis, -shift)?)])))
    }

    /// Joins tensors that agree in all other dimensions along `axis`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (a, b) = (Tensor::zeros(&gpu, &[2, 1])?, Tensor::ones(&gpu, &[2, 2])?);
    /// assert_eq!(Tensor::concat(&[&a, &b], 1)?.to_vec()?, [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none, or they differ elsewhere, in element type or device.
    pub fn concat(parts: &[&Tensor], axis: usize) -> Result<Tensor> {
        let Some(&first) = parts.first() else {
            return Err(Error::shape("concat", "no tensors; give at least one"));
        };
        first.axis("concat", axis)?;
        let mut shape = first.shape().to_vec();
        shape[axis] = 0;
        for (i, part) in parts.iter().enumerate() {
            first.same_gpu("concat", part)?;
            part.want_words("concat")?;
            part.want("concat", first.dtype())?;
            let agrees = part.rank() == first.rank()
                && part.shape().iter().zip(first.shape()).enumerate().all(|(d, (a, b))| d == axis || a == b);
            if !agrees {
                return Err(Error::shape(
                    "concat",
                    format!(
                        "part {i} is {:?}, part 0 is {:?}; they must agree in all dimensions but {axis}",
                        part.shape(),
                        first.shape()
                    ),
                ));
            }
            shape[axis] += part.dim(axis);
        }
        let out = Tensor::empty(first.gpu(), &shape, first.dtype(), "concat")?;
        let mut start = 0;
        let mut ranges = Vec::with_capacity(parts.len());
        for part in parts {
            let mut region = Region::whole(part.shape());
            region.start[axis] = start;
            part.write_into(&out, &region)?;
            ranges.push((start, part.dim(axis)));
            start += part.dim(axis);
        }
        Ok(out.record("concat", parts, move |ctx, grad| {
            let piece = |(i, &(start, len)): (usize, &(usize, usize))| {
                ctx.needs(i).then(|| grad.narrow(axis, start, len)).transpose()
            };
            ranges.iter().enumerate().map(piece).collect()
        }))
    }

    /// Joins tensors of one shape along a new dimension `axis`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (a, b) = (Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?, Tensor::from_slice(&gpu, &[3.0, 4.0], &[2])?);
    /// assert_eq!(Tensor::stack(&[&a, &b], 0)?.to_vec()?, [1.0, 2.0, 3.0, 4.0]); // as rows
    /// assert_eq!(Tensor::stack(&[&a, &b], 1)?.to_vec()?, [1.0, 3.0, 2.0, 4.0]); // as columns
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none, or their shapes, element types or devices differ.
    pub fn stack(parts: &[&Tensor], axis: usize) -> Result<Tensor> {
        if let Some((i, part)) = parts.iter().enumerate().find(|(_, p)| p.shape() != parts[0].shape()) {
            return Err(Error::shape(
                "stack",
                format!("part {i} is {:?}, part 0 is {:?}; they must be equal", part.shape(), parts[0].shape()),
            ));
        }
        let parts = parts.iter().map(|p| p.unsqueeze(axis)).collect::<Result<Vec<_>>>()?;
        Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)
    }

    /// Cuts the tensor along `axis` into pieces of the given lengths, which must add up to its length.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// let parts = x.split(1, &[1, 2])?;
    /// assert_eq!((parts[0].to_vec()?, parts[1].to_vec()?), (vec![1.0, 4.0], vec![2.0, 3.0, 5.0, 6.0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If they do not.
    pub fn split(&self, axis: usize, lengths: &[usize]) -> Result<Vec<Tensor>> {
        self.axis("split", axis)?;
        if lengths.iter().sum::<usize>() != self.dim(axis) {
            return Err(Error::shape(
                "split",
                format!(
                    "{lengths:?} add up to {}, dimension {axis} of {:?} has {}",
                    lengths.iter().sum::<usize>(),
                    self.shape(),
                    self.dim(axis)
                ),
            ));
        }
        let mut start = 0;
        lengths
            .iter()
            .map(|&len| {
                start += len;
                self.narrow(axis, start - len, len)
            })
            .collect()
    }

    /// The diagonal of the last two dimensions, which must be equal: `[.., n, n]` -> `[.., n]`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
    /// assert_eq!(x.diagonal()?.to_vec()?, [1.0, 4.0]);
    /// assert_eq!(x.diagonal()?.sum_all()?.item()?, 5.0); // the trace
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If they are not.
    pub fn diagonal(&self) -> Result<Tensor> {
        let shape = self.shape();
        let [batch @ .., m, n] = shape else {
            return Err(Error::shape("diagonal", format!("{shape:?} is no matrix; it needs two dimensions")));
        };
        if m != n {
            return Err(Error::shape("diagonal", format!("{shape:?} is not square; slice it first")));
        }
        // Every (n + 1)-th element of the matrix, which has room for one row more.
        let mut to = batch.to_vec();
        to.push(*n);
        let mut from = strides(shape);
        from.truncate(batch.len());
        from.push(*n as isize + 1);
        let out = self.gathered("diagonal", &to, 0, &from)?;
        Ok(out.record("diagonal", &[self], |_, grad| Ok(vec![Some(grad.diagonal_matrix()?)])))
    }

    /// Matrices with this tensor's last dimension on their diagonal, zeros elsewhere: `[.., n]` -> `[.., n, n]`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let scales = Tensor::from_slice(&gpu, &[2.0, 3.0], &[2])?;
    /// assert_eq!(scales.diagonal_matrix()?.to_vec()?, [2.0, 0.0, 0.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the tensor has no dimensions.
    pub fn diagonal_matrix(&self) -> Result<Tensor> {
        let shape = self.shape();
        let Some(&n) = shape.last() else {
            return Err(Error::shape("diagonal_matrix", "a scalar has no last dimension; unsqueeze it first"));
        };
        self.want("diagonal_matrix", DType::F32)?;
        let mut full = shape.to_vec();
        full.push(n);
        let out = Tensor::zeros(self.gpu(), &full)?;
        if self.numel() > 0 {
            let mut to = strides(&full);
            to.truncate(shape.len() - 1);
            to.push(n as isize + 1);
            k::copy(self.gpu(), self.storage(), 0, out.storage(), 0, &dims(shape, &strides(shape), &to))?;
        }
        Ok(out.record("diagonal_matrix", &[self], |_, grad| Ok(vec![Some(grad.diagonal()?)])))
    }

    /// The `n x n` identity matrix.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
    /// assert_eq!(Tensor::eye(&gpu, 2)?.to_vec()?, [1.0, 0.0, 0.0, 1.0]);
    /// assert_eq!(Tensor::eye(&gpu, 2)?.matmul(&x)?.to_vec()?, x.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn eye(gpu: &shadegrad_kernels::Gpu, n: usize) -> Result<Tensor> {
        Tensor::ones(gpu, &[n])?.diagonal_matrix()
    }

    fn triangle(&self, op: &'static str, diagonal: i32, upper: bool) -> Result<Tensor> {
        self.want(op, DType::F32)?;
        let [batch @ .., m, n] = self.shape() else {
            return Err(Error::shape(op, format!("{:?} is no matrix; it needs two dimensions", self.shape())));
        };
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, op)?;
        if out.numel() > 0 {
            let size = (batch.iter().product(), *m, *n);
            k::triangle(self.gpu(), self.storage(), out.storage(), size, diagonal, upper)?;
        }
        Ok(out.record(op, &[self], move |_, grad| Ok(vec![Some(grad.triangle(op, diagonal, upper)?)])))
    }

    /// Zeros above diagonal `diagonal` of the last two dimensions (0: the main one, 1: the next above it).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let visible = Tensor::ones(&gpu, &[3, 3])?.tril(0)?; // the mask of causal attention
    /// assert_eq!(visible.to_vec()?, [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are fewer than two dimensions.
    pub fn tril(&self, diagonal: i32) -> Result<Tensor> {
        self.triangle("tril", diagonal, false)
    }

    /// Zeros below diagonal `diagonal` of the last two dimensions.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
    /// assert_eq!(x.triu(0)?.to_vec()?, [1.0, 2.0, 0.0, 4.0]);
    /// assert_eq!(x.triu(1)?.to_vec()?, [0.0, 2.0, 0.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are fewer than two dimensions.
    pub fn triu(&self, diagonal: i32) -> Result<Tensor> {
        self.triangle("triu", diagonal, true)
    }
}
