//! Reductions over any axes.

use shadegrad_kernels::reduce::{self as k, Reduce};

use crate::error::{Error, Result};
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

    /// The same elements under another shape.
    fn view(&self, shape: &[usize]) -> Tensor {
        let back = self.shape().to_vec();
        self.with(shape, None, None).record("reshape", &[self], move |_, grad| Ok(vec![Some(grad.view(&back))]))
    }

    /// Repeats the dimensions of length 1 up to `shape`.
    fn stretch(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        self.add(&Tensor::zeros(self.gpu(), shape)?)
    }

    /// Sum over `axes`; with `keepdim` they stay, with length 1. An empty sum is 0; no axes leave the tensor as it is.
    ///
    /// # Errors
    /// If an axis does not exist or comes twice, or the element type is not `F32`; so for all reductions.
    pub fn sum(&self, axes: &[usize], keepdim: bool) -> Result<Tensor> {
        self.scaled_sum("sum", axes, keepdim, |_| 1.0)
    }

    /// Mean over `axes`, as [`Tensor::sum`].
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
            return Ok(self.view(&out));
        }
        let scale = scale(len);
        Ok(self.reduced(op, Reduce::Sum, &mask, &out, scale)?.record(op, &[self], move |_, grad| {
            let each = if scale == 1.0 { grad.clone() } else { grad.mul_scalar(scale)? };
            Ok(vec![Some(each.view(&kept).stretch(&full)?)])
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
    /// # Errors
    /// As [`Tensor::sum`].
    pub fn sum_all(&self) -> Result<Tensor> {
        self.sum(&(0..self.rank()).collect::<Vec<_>>(), false)
    }

    /// Mean of all elements, without dimensions.
    ///
    /// # Errors
    /// As [`Tensor::mean`].
    pub fn mean_all(&self) -> Result<Tensor> {
        self.mean(&(0..self.rank()).collect::<Vec<_>>(), false)
    }

    /// Sums over the dimensions that broadcasting from `shape` would repeat: the adjoint of broadcasting.
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
            .record("sum_to", &[self], move |_, grad| Ok(vec![Some(grad.stretch(&full)?)])))
    }
}
