//! Gradients into the arena.

use shadegrad_kernels::Storage;
use shadegrad_kernels::optim as k;
use smallvec::SmallVec;

use crate::error::Result;
use crate::nn::{Arena, Entry, flat};
use crate::tensor::Tensor;

impl Arena {
    /// Gradients of the scalar `loss` into the gradient buffer, in place of what was there.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// for value in [1.0, 3.0] {
    ///     let x = Tensor::full(&gpu, &[1, 2], value)?;
    ///     arena.backward(&layer.forward(&Cx::train(&arena), &x)?.sum_all()?)?;
    ///     assert_eq!(arena.grads().get(layer.weight()).to_vec()?, [value; 2]); // the old ones are gone
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a parameter that is trained gets no gradient: the text names all of them. [`Arena::freeze`] it, or allow it
    /// with [`Arena::allow_missing`].
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        self.collect(loss, None)
    }

    /// Adds `scale` times the gradients of `loss` to the gradient buffer: batches too large for one pass.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut names = Builder::new();
    /// let layer = Linear::new(&mut names.root(), 1, 1, false);
    /// let arena = Arena::new(&gpu, &names, 0)?;
    /// arena.zero_grad()?;
    /// for part in [1.0, 3.0] {
    ///     let loss = layer.forward(&Cx::train(&arena), &Tensor::full(&gpu, &[1, 1], part)?)?.sum_all()?;
    ///     arena.backward_add(&loss, 0.5)?;
    /// }
    /// assert_eq!(arena.grads().get(layer.weight()).to_vec()?, [2.0]); // the mean of both
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Arena::backward`].
    pub fn backward_add(&self, loss: &Tensor, scale: f32) -> Result<()> {
        self.collect(loss, Some(scale))
    }

    fn collect(&self, loss: &Tensor, add: Option<f32>) -> Result<()> {
        let allowed: Vec<&str> = self.allowed.iter().map(String::as_str).collect();
        let grads = self.params.try_grad(loss, false, &allowed)?;
        let to = self.grads.storage();
        let limit = k::worth_collecting(&self.gpu);
        // The small ones by a few kernels, before the copies, which end a pass.
        let small = |e: &Entry, g: &Tensor| add.is_none() && e.len <= limit && !g.storage().same_buffer(to);
        let mut parts: SmallVec<[(&Storage, usize, usize); k::PARTS]> = SmallVec::new();
        for (e, g) in self.table.entries().iter().zip(&grads) {
            if let Some(g) = g.as_ref().filter(|g| small(e, g)) {
                parts.push((g.storage(), e.len, e.offset));
                if parts.len() == k::PARTS {
                    k::collect(&self.gpu, &parts, to)?;
                    parts.clear();
                }
            }
        }
        k::collect(&self.gpu, &parts, to)?;
        let rows = self.table.entries().iter().zip(self.grad_views.tensors()).zip(&self.frozen);
        for (((e, view), &frozen), grad) in rows.zip(&grads) {
            match (grad, add) {
                (Some(g), None) if small(e, g) => {}
                (Some(g), None) => flat::copy_into(g, to, e.offset)?,
                (Some(g), Some(scale)) if !g.storage().same_buffer(view.storage()) => {
                    k::accumulate(&self.gpu, g.storage(), view.storage(), e.len, scale)?;
                }
                (Some(g), Some(scale)) => {
                    flat::copy_into(&view.add(&g.mul_scalar(scale)?)?, to, e.offset)?;
                }
                // Those of frozen parameters were set to zero when they were frozen.
                (None, None) if !frozen => self.gpu.zero(view.storage())?,
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Sets all gradients to zero; needed only before [`Arena::backward_add`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::train(&arena);
    /// arena.backward(&layer.forward(&cx, &Tensor::ones(&gpu, &[1, 1])?)?.sum_all()?)?;
    /// arena.zero_grad()?;
    /// assert_eq!(arena.grads().get(layer.weight()).to_vec()?, [0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn zero_grad(&self) -> Result<()> {
        Ok(self.gpu.zero(self.grads.storage())?)
    }

    /// Parameters that match may go without a gradient, which is then zero: branches that are not always taken.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let mut root = names.root();
    /// let spare = Linear::new(&mut root.sub("spare"), 1, 1, false); // a branch that is not taken today
    /// let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.allow_missing("spare.*");
    /// arena.backward(&layer.forward(&Cx::train(&arena), &Tensor::ones(&gpu, &[1, 1])?)?.sum_all()?)?;
    /// assert_eq!(arena.grads().get(spare.weight()).to_vec()?, [0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn allow_missing(&mut self, pattern: &str) {
        self.allowed.push(pattern.to_string());
    }
}
