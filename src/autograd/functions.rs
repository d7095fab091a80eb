//! Custom functions, vector-Jacobian and Hessian-vector products.

use crate::autograd::{Ctx, GradOptions, grad_with, no_grad};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A function with a gradient of the caller's own: `forward` runs unrecorded; `backward` gets the context and the
/// gradient of the result and returns one gradient per input. Made of tensor operations, it can be differentiated again.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::{custom, grad};
/// // A gradient that is clipped on its way back.
/// let clipped = |x: &Tensor| custom("clipped", &[x], |x| Ok(x[0].clone()), |_, g| Ok(vec![Some(g.clamp(-1.0, 1.0)?)]));
/// let x = Tensor::ones(&gpu, &[2])?.leaf();
/// assert_eq!(grad(&clipped(&x)?.mul_scalar(5.0)?.sum_all()?, &[&x])?[0].to_vec()?, [1.0, 1.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of `forward`.
pub fn custom<F, B>(name: &'static str, inputs: &[&Tensor], forward: F, backward: B) -> Result<Tensor>
where
    F: FnOnce(&[&Tensor]) -> Result<Tensor>,
    B: Fn(&Ctx, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
{
    let out = no_grad(|| forward(inputs))?;
    Ok(out.detach().record(name, inputs, backward))
}

/// Vector-Jacobian product: the gradients of `<cotangent, output>` with respect to `inputs`; the graph stays.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::vjp;
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?.leaf();
/// let y = x.square()?;
/// // One row of the Jacobian [[2, 0], [0, 4]] at a time.
/// let row = |i: usize| vjp(&y, &[&x], &Tensor::eye(&gpu, 2)?.select_at(0, i)?)?[0].to_vec();
/// assert_eq!((row(0)?, row(1)?), (vec![2.0, 0.0], vec![0.0, 4.0]));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`grad_with`].
pub fn vjp(output: &Tensor, inputs: &[&Tensor], cotangent: &Tensor) -> Result<Vec<Tensor>> {
    let options = GradOptions { retain_graph: true, ..GradOptions::default() };
    super::all(grad_with(&[output], inputs, Some(&[cotangent]), options)?)
}

/// Hessian-vector product of the scalar `output`: `d/dx <grad(output), v>` for the inputs and vectors given
/// (Pearlmutter, "Fast exact multiplication by the Hessian", 1994). Zero where the gradient is constant.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::autograd::hvp;
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?.leaf();
/// let v = Tensor::from_slice(&gpu, &[1.0, 0.0], &[2])?;
/// let cubes = x.square()?.mul(&x)?.sum_all()?; // its Hessian is diag(6 x)
/// assert_eq!(hvp(&cubes, &[&x], &[&v])?[0].to_vec()?, [6.0, 0.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`grad_with`]; also if the vectors have not the inputs' shapes.
pub fn hvp(output: &Tensor, inputs: &[&Tensor], vectors: &[&Tensor]) -> Result<Vec<Tensor>> {
    let options = GradOptions { create_graph: true, ..GradOptions::default() };
    let grads = super::all(grad_with(&[output], inputs, None, options)?)?;
    if vectors.len() != inputs.len() {
        return Err(Error::Gradient(format!("hvp: {} inputs, {} vectors", inputs.len(), vectors.len())));
    }
    let grads: Vec<&Tensor> = grads.iter().collect();
    let options = GradOptions { allow_unused: true, ..GradOptions::default() };
    let products = grad_with(&grads, inputs, Some(vectors), options)?;
    inputs.iter().zip(products).map(|(x, p)| p.map_or_else(|| Tensor::zeros(x.gpu(), x.shape()), Ok)).collect()
}

impl Tensor {
    /// The same values as a new step of the graph.
    pub(crate) fn identity(&self) -> Tensor {
        self.detach().record("identity", &[self], |_, grad| Ok(vec![Some(grad.clone())]))
    }

    /// Straight-through estimator: the values of `hard`, the gradient of `self` (Bengio et al., 2013).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[0.2, 0.7], &[2])?.leaf();
    /// let hard = x.straight_through(&x.round()?)?;
    /// assert_eq!(hard.to_vec()?, [0.0, 1.0]);
    /// assert_eq!(grad(&hard.sum_all()?, &[&x])?[0].to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn straight_through(&self, hard: &Tensor) -> Result<Tensor> {
        if self.shape() != hard.shape() {
            return Err(Error::shape(
                "straight_through",
                format!("{:?} and {:?} must be equal", self.shape(), hard.shape()),
            ));
        }
        Ok(hard.detach().record("straight_through", &[self], |_, grad| Ok(vec![Some(grad.clone())])))
    }
}
