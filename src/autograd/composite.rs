//! Gradients by running a function again: for checkpoints, and for operations whose fused backward kernels are not
//! differentiable.

use crate::autograd::{Ctx, GradOptions, enable_grad, grad_with};
use crate::error::Result;
use crate::tensor::Tensor;

/// The gradients of an operation on `inputs` by way of `f`, the same function made of tensor operations: differentiable
/// again as far as `f` is. `grad` is the gradient of the result; inputs that `ctx` does not need get `None`.
pub(crate) fn composite_grads<F>(ctx: &Ctx, inputs: &[Tensor], grad: &Tensor, f: F) -> Result<Vec<Option<Tensor>>>
where
    F: FnOnce(&[Tensor]) -> Result<Tensor>,
{
    // The gradients are taken at identities: one input may depend on another, and that path belongs to the graph
    // outside. They are recorded even where no second order is asked for, since the gradients here need a graph.
    let xs: Vec<Tensor> = if ctx.create_graph() {
        inputs.iter().map(Tensor::identity).collect()
    } else {
        inputs.iter().enumerate().map(|(i, t)| if ctx.needs(i) { t.leaf() } else { t.detach() }).collect()
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
}
