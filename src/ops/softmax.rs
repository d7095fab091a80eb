//! Softmax along one axis.

use shadegrad_kernels::softmax::{self as k, Lanes};

use crate::autograd::{Keeper, Saved};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// What the rule of a softmax keeps of its result: few bits, if `weights` are asked to be kept so; then the result carries
/// them along, for a product that keeps it too.
pub(super) fn keep_result(op: &'static str, inputs: &[&Tensor], out: Tensor, weights: bool) -> Result<(Tensor, Saved)> {
    let keep = Keeper::new(op, inputs);
    match keep.compact().and_then(|c| c.probability).filter(|_| weights) {
        Some(how) => {
            let saved = keep.packed("result", &out.detach(), how)?;
            Ok((out.with_packed(saved.pack()), saved))
        }
        None => {
            let saved = keep.whole("result", &out.detach());
            Ok((out, saved))
        }
    }
}

impl Tensor {
    /// `e^x / sum(e^x)` along `axis`, shifted by the largest element so that nothing overflows. Elements below -3e38,
    /// minus infinity among them, count as -3e38: a row of nothing else is uniform, not NaN.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::zeros(&gpu, &[1, 4])?.softmax(1)?.to_vec()?, [0.25; 4]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the axis does not exist or has no elements while others have, or the element type is not `F32`.
    pub fn softmax(&self, axis: usize) -> Result<Tensor> {
        self.softmax_of("softmax", axis, false)
    }

    /// `x - log(sum(e^x))` along `axis`: the logarithm of [`Tensor::softmax`] without its rounding to zero.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[0.0, -200.0], &[1, 2])?;
    /// assert!((x.log_softmax(1)?.to_vec()?[1] + 200.0).abs() < 1e-3);
    /// assert_eq!(x.softmax(1)?.to_vec()?[1], 0.0); // the logarithm of this would be infinite
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::softmax`].
    pub fn log_softmax(&self, axis: usize) -> Result<Tensor> {
        self.softmax_of("log_softmax", axis, true)
    }

    fn softmax_of(&self, op: &'static str, axis: usize, log: bool) -> Result<Tensor> {
        self.want(op, DType::F32)?;
        let axis = self.axis(op, axis)?;
        let shape = self.shape();
        let (outer, len, inner): (usize, usize, usize) =
            (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product());
        if len == 0 && outer * inner > 0 {
            return Err(Error::shape(op, format!("axis {axis} of {shape:?} is empty; there is nothing to normalise")));
        }
        let lanes = Lanes { outer, len, inner };
        let out = Tensor::empty(self.gpu(), shape, DType::F32, op)?;
        if out.numel() > 0 {
            k::softmax(self.gpu(), log, self.storage(), out.storage(), lanes)?;
        }
        let (out, saved) = keep_result(op, &[self], out, !log)?;
        Ok(out.record(op, &[self], move |ctx, grad| {
            if grad.numel() == 0 {
                return Ok(vec![Some(grad.clone())]);
            }
            let saved = saved.get(ctx)?;
            if !ctx.create_graph() {
                let dx = Tensor::empty(grad.gpu(), grad.shape(), DType::F32, op)?;
                k::softmax_grad(grad.gpu(), log, saved.storage(), grad.storage(), dx.storage(), lanes)?;
                return Ok(vec![Some(dx)]);
            }
            let y = ctx.output(&saved);
            let mut row = grad.shape().to_vec();
            row[axis] = 1;
            let dx = if log {
                grad.sub(&y.exp()?.mul(&grad.sum_to(&row)?)?)?
            } else {
                y.mul(&grad.sub(&y.mul(grad)?.sum_to(&row)?)?)?
            };
            Ok(vec![Some(dx)])
        }))
    }
}
