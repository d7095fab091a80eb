//! Setting values, statistics and gradients from tensors.

use crate::error::{Error, Result};
use crate::nn::{Arena, Params, flat};
use crate::tensor::{DType, Tensor};

impl Arena {
    fn copy_flat(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        if from.shape() != to.shape() || from.dtype() != DType::F32 {
            return Err(Error::Params(format!(
                "{from:?} against the arena's flat {to:?}; take that of the same model"
            )));
        }
        from.same_gpu("set_flat", to)?;
        flat::copy_into(from, to.storage(), 0)
    }

    /// Sets all values from a flat tensor: an average of clients, say. Its padding must be zero, as that of
    /// [`Arena::values_flat`] and of sums of such is.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let other = arena.fork()?;
    /// other.set_values_flat(&arena.values_flat().mul_scalar(3.0)?)?;
    /// let middle = arena.values_flat().add(other.values_flat())?.mul_scalar(0.5)?; // of two models
    /// arena.set_values_flat(&middle)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [2.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If its length is not [`crate::nn::Table::floats`].
    pub fn set_values_flat(&self, flat: &Tensor) -> Result<()> {
        self.copy_flat(flat, &self.values)
    }

    /// Sets all gradients from a flat tensor: clipped or noisy ones, say.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_grads_flat(&Tensor::ones(&gpu, &[arena.table().floats()])?)?; // another's gradients
    /// Optimizer::new(&arena, Rule::sgd(0.0))?.step(&arena, 0.25)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.75, 0.75]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Arena::set_values_flat`].
    pub fn set_grads_flat(&self, flat: &Tensor) -> Result<()> {
        self.copy_flat(flat, &self.grads)
    }

    /// Sets all buffers from a flat tensor.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # BatchNorm2d::new(&mut names.root(), 2);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let other = arena.fork()?;
    /// other.set_buffers_flat(&arena.buffers_flat().mul_scalar(2.0)?)?;
    /// assert_eq!(other.buffers().by_name("running_var")?.to_vec()?, [2.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Arena::set_values_flat`].
    pub fn set_buffers_flat(&self, flat: &Tensor) -> Result<()> {
        self.copy_flat(flat, &self.stats)
    }

    /// Sets all values from tensors.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let pruned = arena.params().map(|e, t| if e.shape.len() > 1 { t.mul_scalar(0.5) } else { Ok(t.clone()) })?;
    /// arena.set_values(&pruned)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [0.5, 0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If they belong to another model.
    pub fn set_values(&self, params: &Params) -> Result<()> {
        self.write(&self.params, params.tensors(), &self.values)
    }

    /// Sets the values of one parameter: to keep it within bounds after an optimiser's step, say.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_value(layer.weight(), &Tensor::from_slice(&gpu, &[2.0, 3.0], &[1, 2])?)?;
    /// assert_eq!(layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 2])?)?.item()?, 5.0);
    /// assert!(arena.set_value(layer.weight(), &Tensor::ones(&gpu, &[2])?).is_err()); // of another shape
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If shape or type differ.
    pub fn set_value(&self, id: crate::nn::ParamId, value: &Tensor) -> Result<()> {
        let e = self.table.entries().get(id.index()).filter(|e| e.shape == value.shape());
        let Some(e) = e.filter(|_| value.dtype() == DType::F32) else {
            let own = self.table.entries().get(id.index()).map(|e| (&e.name, &e.shape));
            return Err(Error::Params(format!("{value:?} for the parameter {own:?}; give one of its shape, F32")));
        };
        self.values.same_gpu("set_value", value)?;
        flat::copy_into(value, self.values.storage(), e.offset)
    }

    /// Sets all gradients from tensors.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let y = layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 1], 8.0)?)?;
    /// let grads = arena.params().grad(&y.sum_all()?, false, &[])?;
    /// arena.set_grads(&grads.map(|_, g| g.clamp(-1.0, 1.0))?)?; // changed on the way to the optimiser
    /// assert_eq!(arena.grads().get(layer.weight()).to_vec()?, [1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If they belong to another model.
    pub fn set_grads(&self, grads: &Params) -> Result<()> {
        self.write(&self.params, grads.tensors(), &self.grads)
    }

    fn write(&self, like: &Params, tensors: &[Tensor], to: &Tensor) -> Result<()> {
        let all = Params::new(like.table().clone(), tensors.to_vec())?;
        all.tensors().iter().zip(self.table.entries()).try_for_each(|(t, e)| flat::copy_into(t, to.storage(), e.offset))
    }
}
