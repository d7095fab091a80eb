//! One loss over the parameters of several arenas.

use shadegrad::autograd::{GradOptions, grad_with};
use shadegrad::nn::{Arena, Params};
use shadegrad::{Error, Result, Tensor};

/// Gradients of the scalar `loss` into the gradient buffers of all of `arenas`, by one walk over its graph, in place of what was
/// there. ([`Arena::backward`] frees the graph as it goes, so calling it for one arena after the other works only where
/// their parts of the graph do not meet.)
///
/// # Errors
/// If a parameter that is trained gets no gradient; the text names all of them.
pub(crate) fn backward_into(loss: &Tensor, arenas: &[&Arena]) -> Result<()> {
    let leaves: Vec<&Tensor> = arenas.iter().flat_map(|a| a.params().tensors()).filter(|t| t.requires_grad()).collect();
    let options = GradOptions { allow_unused: loss.requires_grad(), ..GradOptions::default() };
    let mut found = grad_with(&[loss], &leaves, None, options)?.into_iter();
    let mut missing = Vec::new();
    let mut grads = Vec::with_capacity(arenas.len());
    for arena in arenas {
        let mut tensors = Vec::with_capacity(arena.table().len());
        for (name, value) in arena.params().iter() {
            let grad = if value.requires_grad() { found.next().flatten() } else { None };
            if grad.is_none() && value.requires_grad() {
                missing.push(name);
            }
            tensors.push(grad.map_or_else(|| Tensor::zeros(value.gpu(), value.shape()), Ok)?);
        }
        grads.push(tensors);
    }
    if !missing.is_empty() {
        let names = missing.join(", ");
        return Err(Error::Gradient(format!("no gradient reaches {names}; use them in the loss, or leave them out")));
    }
    arenas.iter().zip(grads).try_for_each(|(a, g)| a.set_grads(&Params::new(a.table().clone(), g)?))
}

#[cfg(test)]
mod tests {
    use shadegrad::nn::{Builder, Init};

    use super::*;
    use crate::papers::testing::gpu;

    #[test]
    fn a_product_of_two_arenas_gives_each_its_gradient_and_a_missing_one_is_named() {
        let gpu = gpu();
        let arena = |name: &str, value: f32| {
            let mut names = Builder::new();
            names.root().param(name, &[1], Init::Const(value));
            Arena::new(&gpu, &names, 0).unwrap()
        };
        let (a, b) = (arena("a", 3.0), arena("b", 5.0));
        let of = |x: &Arena| x.params().tensors()[0].clone();
        let loss = of(&a).mul(&of(&b)).unwrap().sum_all().unwrap();
        backward_into(&loss, &[&a, &b]).unwrap();
        let grad = |x: &Arena| x.grads().tensors()[0].to_vec().unwrap();
        assert_eq!((grad(&a), grad(&b)), (vec![5.0], vec![3.0]));
        let loss = of(&a).square().unwrap().sum_all().unwrap();
        let err = backward_into(&loss, &[&a, &b]).unwrap_err().to_string();
        assert!(err.contains("no gradient reaches b"), "{err}");
    }
}
