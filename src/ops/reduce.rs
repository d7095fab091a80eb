//! Reductions over any axes.

use shadegrad_kernels::reduce::{self as k, ArgReduce, Index, Reduce};

use crate::error::{Error, Result};
use crate::ops::scan::{Picks, around};
use crate::tensor::{DType, Tensor};

/// Runs of neighbouring dimensions that are all reduced or all kept, without those of length 1.
fn runs(shape: &[usize], reduced: &[bool]) -> Vec<(usize, bool)> {
    let mut runs: Vec<(usize, bool)> = Vec::with_capacity(shape.len());
    for (&d, &r) in shape.iter().zip(reduced).filter(|(d, _)| **d != 1) {
        match runs.last_mut() {
            Some((n, before)) if *before == r => *n *= d,
            _ => runs.push((d, r)),
        }
    }
    runs
}

/// `[outer, len, inner]` around the longest reduced run, which is thereby taken out; `None` when none is left.
fn next_run(runs: &mut [(usize, bool)]) -> Option<[usize; 3]> {
    let i = (0..runs.len()).filter(|&i| runs[i].1).max_by_key(|&i| runs[i].0)?;
    let product = |r: &[(usize, bool)]| r.iter().map(|r| r.0).product();
    let around = [product(&runs[..i]), runs[i].0, product(&runs[i + 1..])];
    runs[i] = (1, false);
    Some(around)
}

/// What is reduced, and the shapes that result.
struct Axes {
    mask: Vec<bool>,
    /// With length 1 in place of the reduced axes.
    kept: Vec<usize>,
    /// As asked for.
    out: Vec<usize>,
    /// Elements of a group.
    len: usize,
}

impl Tensor {
    /// Checks `axes`, of which none may come twice.
    fn axes(&self, op: &'static str, axes: &[usize], keepdim: bool) -> Result<Axes> {
        let mut mask = vec![false; self.rank()];
        for &a in axes {
            if std::mem::replace(&mut mask[self.axis(op, a)?], true) {
                return Err(Error::shape(op, format!("axis {a} is given twice in {axes:?}; give each once")));
            }
        }
        let kept: Vec<usize> = self.shape().iter().zip(&mask).map(|(&d, &m)| if m { 1 } else { d }).collect();
        let out = kept.iter().zip(&mask).filter(|(_, m)| keepdim || !**m).map(|(&d, _)| d).collect();
        let len = self.shape().iter().zip(&mask).filter(|(_, m)| **m).map(|(d, _)| d).product();
        Ok(Axes { mask, kept, out, len })
    }

    /// Reduces the axes of `mask` to a constant of the shape `out`; the last pass of a sum multiplies by `scale`.
    fn reduced(&self, op: &'static str, f: Reduce, mask: &[bool], out: &[usize], scale: f32) -> Result<Tensor> {
        self.want(op, DType::F32)?;
        if self.numel() == 0 {
            return Tensor::zeros(self.gpu(), out);
        }
        let mut runs = runs(self.shape(), mask);
        let mut left = runs.iter().filter(|r| r.1).count();
        let mut now = self.detach();
        while let Some([outer, len, inner]) = next_run(&mut runs) {
            left -= 1;
            let scale = if left == 0 { scale } else { 1.0 };
            let next = Tensor::empty(self.gpu(), &[outer * inner], DType::F32, op)?;
            k::reduce(self.gpu(), f, now.storage(), next.storage(), [outer, len, inner], scale)?;
            now = next;
        }
        Ok(now.with(out, None, None))
    }

    /// Sum over `axes`; with `keepdim` they stay, with length 1. An empty sum is 0; no axes leave the tensor as it is.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// assert_eq!(x.sum(&[1], false)?.to_vec()?, [6.0, 15.0]);
    /// assert_eq!(x.sum(&[0], true)?.shape(), [1, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If an axis does not exist or comes twice, or the element type is not `F32`; so for all reductions.
    pub fn sum(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        self.scaled_sum("sum", axes, keepdim, |_| 1.0)
    }

    /// Mean over `axes`, as [`Tensor::sum`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    /// assert_eq!(x.mean(&[1], false)?.to_vec()?, [2.0, 5.0]);
    /// assert_eq!(x.sub(&x.mean(&[1], true)?)?.to_vec()?, [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0]); // centred rows
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Also if there is nothing to take the mean of.
    pub fn mean(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        self.nonempty("mean", axes)?;
        self.scaled_sum("mean", axes, keepdim, |n| 1.0 / n as f32)
    }

    fn scaled_sum(&self, op: &'static str, axes: &[usize], keepdim: bool, scale: fn(usize) -> f32) -> Result<Tensor> {
        let Axes { mask, kept, out, len } = self.axes(op, axes, keepdim)?;
        let full = self.shape().to_vec();
        if len == 1 && self.numel() > 0 {
            self.want(op, DType::F32)?;
            return self.reshape(&out);
        }
        let scale = scale(len);
        Ok(self.reduced(op, Reduce::Sum, &mask, &out, scale)?.record(op, &[self], move |_, grad| {
            let each = if scale == 1.0 { grad.clone() } else { grad.mul_scalar(scale)? };
            Ok(vec![Some(each.reshape(&kept)?.broadcast_to(&full)?)])
        }))
    }

    /// Refuses to reduce no elements at all to something, for reductions that have no neutral result.
    fn nonempty(&self, op: &'static str, axes: &[usize]) -> Result<()> {
        if axes.iter().any(|&a| self.shape().get(a) == Some(&0)) {
            return Err(Error::shape(op, format!("axes {axes:?} of {:?} hold no elements", self.shape())));
        }
        Ok(())
    }

    /// Sum of all elements, without dimensions.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?.leaf();
    /// let total = x.sum_all()?;
    /// assert_eq!((total.rank(), total.item()?), (0, 10.0));
    /// assert_eq!(grad(&total, &[&x])?[0].to_vec()?, [1.0; 4]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::sum`].
    pub fn sum_all(&self) -> Result<Tensor> {
        self.sum(&(0..self.rank()).collect::<Vec<_>>(), false)
    }

    /// Mean of all elements, without dimensions.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 6.0], &[2, 2])?.leaf();
    /// let mean = x.mean_all()?;
    /// assert_eq!((mean.item()?, grad(&mean, &[&x])?[0].to_vec()?), (3.0, vec![0.25; 4]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::mean`].
    pub fn mean_all(&self) -> Result<Tensor> {
        self.mean(&(0..self.rank()).collect::<Vec<_>>(), false)
    }

    /// Sums over the dimensions that broadcasting from `shape` would repeat: the adjoint of broadcasting.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::ones(&gpu, &[4, 3])?;
    /// assert_eq!(x.sum_to(&[3])?.to_vec()?, [4.0; 3]); // undoes a broadcast
    /// assert_eq!(x.sum_to(&[])?.item()?, 12.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `shape` does not broadcast to this tensor's.
    pub fn sum_to(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        let lead = self.rank().checked_sub(shape.len());
        let fits = lead.is_some_and(|l| shape.iter().zip(&self.shape()[l..]).all(|(&t, &s)| t == s || t == 1));
        let Some(lead) = lead.filter(|_| fits) else {
            return Err(Error::shape("sum_to", format!("{shape:?} does not broadcast to {:?}", self.shape())));
        };
        let mask: Vec<bool> = (0..self.rank()).map(|d| d < lead || shape[d - lead] != self.dim(d)).collect();
        let full = self.shape().to_vec();
        Ok(self
            .reduced("sum_to", Reduce::Sum, &mask, shape, 1.0)?
            .record("sum_to", &[self], move |_, grad| Ok(vec![Some(grad.broadcast_to(&full)?)])))
    }

    /// The largest over `axes`, as [`Tensor::sum`]; NaN if there is any. The gradient goes to the first of equals.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 5.0, 5.0, 2.0, 0.0, -1.0], &[2, 3])?.leaf();
    /// let best = x.max(&[1], false)?;
    /// assert_eq!(best.to_vec()?, [5.0, 2.0]);
    /// assert_eq!(grad(&best.sum_all()?, &[&x])?[0].to_vec()?, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Also if there is nothing to choose from.
    pub fn max(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        self.extreme("max", Reduce::Max, ArgReduce::Max, axes, keepdim)
    }

    /// The smallest over `axes`, as [`Tensor::max`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 5.0, 4.0, 2.0], &[2, 2])?;
    /// assert_eq!(x.min(&[0], true)?.to_vec()?, [1.0, 2.0]); // [1, 2]: by column
    /// assert_eq!(x.min(&[0, 1], false)?.item()?, 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::max`].
    pub fn min(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        self.extreme("min", Reduce::Min, ArgReduce::Min, axes, keepdim)
    }

    fn extreme(&self, op: &'static str, f: Reduce, arg: ArgReduce, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        let Axes { mask, out, len, .. } = self.axes(op, axes, keepdim)?;
        self.want(op, DType::F32)?;
        self.nonempty(op, axes)?;
        if len == 1 || self.numel() == 0 {
            return self.reshape(&out);
        }
        if !self.requires_grad() {
            return Ok(self.reduced(op, f, &mask, &out, 1.0)?.record(op, &[self], |_, _| Ok(vec![None])));
        }
        let mut runs = runs(self.shape(), &mask);
        let mut now: (Tensor, Option<Tensor>) = (self.detach(), None);
        while let Some(dims) = next_run(&mut runs) {
            let n = dims[0] * dims[2];
            let next = Tensor::empty(self.gpu(), &[n], DType::F32, op)?;
            let at = Tensor::empty(self.gpu(), &[n], DType::U32, op)?;
            let earlier = now.1.as_ref().map(Tensor::storage);
            k::arg(self.gpu(), arg, now.0.storage(), earlier, (next.storage(), at.storage()), dims, Index::Flat)?;
            now = (next, Some(at));
        }
        let (values, Some(at)) = now else { return self.reshape(&out) };
        let picks = Picks {
            places: at.with(&out, None, None),
            dims: [1, self.numel(), 1],
            count: at.numel(),
            full: self.shape().to_vec(),
        };
        Ok(values.with(&out, None, None).record(op, &[self], move |_, grad| Ok(vec![Some(picks.put(grad)?)])))
    }

    /// The index (`U32`) of the largest along `axis`, the lowest on ties; of the first NaN if there is any. No gradient.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let scores = Tensor::from_slice(&gpu, &[0.1, 0.9, 0.7, 0.2], &[2, 2])?;
    /// assert_eq!(scores.argmax(1, false)?.to_vec_u32()?, [1, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such axis, it is empty, or the element type is not `F32`.
    pub fn argmax(&self, axis: usize, keepdim: bool) -> Result<Tensor> {
        self.arg_extreme("argmax", ArgReduce::Max, axis, keepdim)
    }

    /// The index (`U32`) of the smallest along `axis`, as [`Tensor::argmax`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let distances = Tensor::from_slice(&gpu, &[0.3, 0.1, 0.2, 0.9], &[2, 2])?;
    /// assert_eq!(distances.argmin(1, false)?.to_vec_u32()?, [1, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::argmax`].
    pub fn argmin(&self, axis: usize, keepdim: bool) -> Result<Tensor> {
        self.arg_extreme("argmin", ArgReduce::Min, axis, keepdim)
    }

    fn arg_extreme(&self, op: &'static str, f: ArgReduce, axis: usize, keepdim: bool) -> Result<Tensor> {
        let Axes { out, .. } = self.axes(op, &[axis], keepdim)?;
        self.want(op, DType::F32)?;
        self.nonempty(op, &[axis])?;
        let at = Tensor::empty(self.gpu(), &out, DType::U32, op)?;
        if at.numel() > 0 {
            let dims @ [_, len, inner] = around(self.shape(), axis);
            let best = Tensor::empty(self.gpu(), &out, DType::F32, op)?;
            let index = Index::Along { len, inner };
            k::arg(self.gpu(), f, self.storage(), None, (best.storage(), at.storage()), dims, index)?;
        }
        Ok(at.record_cut(op, &[self]))
    }

    /// `log(sum(e^x))` over `axes`, as [`Tensor::sum`], without overflow: -infinity if all elements are.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1000.0, 1000.0], &[1, 2])?;
    /// let y = x.logsumexp(&[1], false)?.item()?; // e^1000 is no float
    /// assert!((y - (1000.0 + 2f32.ln())).abs() < 1e-2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Also if there is nothing to sum.
    pub fn logsumexp(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        let op = "logsumexp";
        let Axes { kept, out, .. } = self.axes(op, axes, keepdim)?;
        self.nonempty(op, axes)?;
        let x = self.detach();
        // Held in the finite range, so that infinite elements give no difference of infinities.
        let top = x.max(axes, true)?.clamp(f32::MIN, f32::MAX)?;
        let lse = x.sub(&top)?.exp()?.sum(axes, true)?.log()?.add(&top)?;
        let (x, saved) = (self.clone(), lse.with(&out, None, None));
        Ok(saved.clone().record(op, &[self], move |ctx, grad| {
            let y = ctx.output(&saved).reshape(&kept)?;
            let finite = y.detach().clamp(f32::MIN, f32::MAX)?;
            let y = y.is_finite()?.select(&y, &finite)?;
            Ok(vec![Some(x.sub(&y)?.exp()?.mul(&grad.reshape(&kept)?)?)])
        }))
    }

    /// The variance over `axes`, as [`Tensor::sum`]: squared deviations from the mean, summed and divided by the number of
    /// elements less `correction` (0 for the variance of the elements, 1 to estimate that of their population).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 3.0], &[2])?;
    /// assert_eq!((x.var(&[0], 0, false)?.item()?, x.var(&[0], 1, false)?.item()?), (1.0, 2.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Also if no more than `correction` elements are reduced.
    pub fn var(&self, axes: &[usize], correction: usize, keepdim: bool) -> Result<Tensor> {
        let n = self.axes("var", axes, keepdim)?.len;
        if n <= correction {
            return Err(Error::shape(
                "var",
                format!("axes {axes:?} of {:?} hold {n} elements, more than {correction} are needed", self.shape()),
            ));
        }
        let centred = self.sub(&self.mean(axes, true)?)?;
        centred.square()?.sum(axes, keepdim)?.mul_scalar(1.0 / (n - correction) as f32)
    }
}
