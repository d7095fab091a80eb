//! Recompute instead of store.

use std::sync::Arc;

use crate::autograd::{GradOptions, enable_grad, grad_with, no_grad};
use crate::error::Result;
use crate::tensor::Tensor;

/// Runs `f` on `inputs` without keeping what it saves for its backward pass; that pass runs `f` again (Chen et al.,
/// "Training deep nets with sublinear memory cost", 2016). Whatever needs a gradient, parameters included, must be among
/// the inputs; `f` must do the same both times.
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
    out.detach().record("checkpoint", inputs, move |ctx, grad| {
        // With a graph asked for, the second run hangs on the true inputs by identities: its gradients are taken at the
        // identities (one input may depend on another, and that path is not ours) and can be differentiated beyond them.
        // Otherwise it works on leaves of its own, whose graph ends here and is freed at once.
        let xs: Vec<Tensor> = if ctx.create_graph() {
            owned.iter().map(Tensor::identity).collect()
        } else {
            owned.iter().map(|t| if t.requires_grad() { t.leaf() } else { t.clone() }).collect()
        };
        let out = enable_grad(|| f(&xs))?;
        let wanted: Vec<usize> = (0..xs.len()).filter(|&i| ctx.needs(i)).collect();
        let targets: Vec<&Tensor> = wanted.iter().map(|&i| &xs[i]).collect();
        let options = GradOptions { create_graph: ctx.create_graph(), allow_unused: true, ..GradOptions::default() };
        let mut grads = vec![None; xs.len()];
        for (i, g) in wanted.iter().zip(grad_with(&[&out], &targets, Some(&[grad]), options)?) {
            grads[*i] = Some(g.map_or_else(|| Tensor::zeros(grad.gpu(), xs[*i].shape()), Ok)?);
        }
        Ok(grads)
    })
}
