//! Recompute instead of store.

use std::sync::Arc;

use crate::autograd::{composite_grads, no_grad};
use crate::error::Result;
use crate::precision::Precision;
use crate::tensor::Tensor;

/// Runs `f` on `inputs` without keeping what it saves for its backward pass; that pass runs `f` again (Chen et al.,
/// "Training deep nets with sublinear memory cost", 2016). Whatever needs a gradient, parameters included, must be among
/// the inputs; `f` must do the same both times.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{checkpoint, grad};
/// let x = Tensor::from_slice(&gpu, &[2.0], &[1])?.leaf();
/// // Keeps the input, computes what lies between again.
/// let y = checkpoint(&[&x], |v| v[0].square()?.square())?;
/// assert_eq!(grad(&y.sum_all()?, &[&x])?[0].to_vec()?, [32.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of `f`.
pub fn checkpoint<F>(inputs: &[&Tensor], f: F) -> Result<Tensor>
where
    F: Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
{
    let constants: Vec<Tensor> = inputs.iter().map(|t| t.detach()).collect();
    let out = no_grad(|| f(&constants))?;
    Ok(record_checkpoint(&out, inputs, f))
}

/// The second half of [`checkpoint`]: gives `out`, which `f` made of constants, its backward rule.
pub(crate) fn record_checkpoint<F>(out: &Tensor, inputs: &[&Tensor], f: F) -> Tensor
where
    F: Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
{
    let owned: Arc<[Tensor]> = inputs.iter().map(|t| (*t).clone()).collect();
    let precision = Precision::now();
    out.detach().record("checkpoint", inputs, move |ctx, grad| {
        composite_grads(ctx, &owned, grad, |xs| precision.scope(|| f(xs)))
    })
}
