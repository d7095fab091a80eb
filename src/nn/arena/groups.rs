//! What is trained, and what the optimiser does differently with some parameters.

use crate::error::{Error, Result};
use crate::nn::build::glob;
use crate::nn::{Arena, Group, Params};

impl Arena {
    /// Stops training the parameters that match: constants in forward passes, untouched by optimisers.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let mut root = names.root();
    /// let body = Linear::new(&mut root.sub("body"), 1, 1, false);
    /// let head = Linear::new(&mut root.sub("head"), 1, 1, false);
    /// let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.freeze("body.*")?; // the head alone is trained
    /// assert!(arena.is_frozen("body.weight")? && !arena.is_frozen("head.weight")?);
    /// assert!(!arena.params().get(body.weight()).requires_grad());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing matches.
    pub fn freeze(&mut self, pattern: &str) -> Result<()> {
        self.set_frozen(pattern, true)
    }

    /// Trains the parameters that match again.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.freeze("*")?;
    /// arena.unfreeze("*.bias")?;
    /// assert!(arena.is_frozen("fc.weight")? && !arena.is_frozen("fc.bias")?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing matches.
    pub fn unfreeze(&mut self, pattern: &str) -> Result<()> {
        self.set_frozen(pattern, false)
    }

    fn set_frozen(&mut self, pattern: &str, frozen: bool) -> Result<()> {
        let mut now = self.frozen.clone();
        for i in self.table.matching(pattern)? {
            now[i] = frozen;
        }
        self.refreeze(now)
    }

    /// Freezes exactly the parameters that `frozen` names, and trains all others: for schedules that change them from step
    /// to step, before the forward pass.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// for step in 0..4 {
    ///     let resting: &[ParamId] = if step % 2 == 0 { &[layer.weight()] } else { &[] };
    ///     arena.freeze_only(resting)?; // before the forward pass
    ///     assert_eq!(arena.is_frozen("fc.weight")?, step % 2 == 0);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If an id is that of another, larger model, or the device refuses.
    pub fn freeze_only(&mut self, frozen: &[crate::nn::ParamId]) -> Result<()> {
        let mut now = vec![false; self.table.len()];
        for id in frozen {
            let Some(row) = now.get_mut(id.index()) else {
                return Err(Error::Params(format!(
                    "parameter {} of {}; take ids of this model",
                    id.index(),
                    self.table.len()
                )));
            };
            *row = true;
        }
        self.refreeze(now)
    }

    fn refreeze(&mut self, frozen: Vec<bool>) -> Result<()> {
        if frozen == self.frozen {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.frozen, frozen);
        // A gradient of old counts in no norm and moves nothing; it is set to zero so that nobody takes it for one of now.
        for ((g, &now), was) in self.grad_views.tensors().iter().zip(&self.frozen).zip(before) {
            if now && !was {
                self.gpu.zero(g.storage())?;
            }
        }
        self.renew()
    }

    /// Makes views and the optimiser's table follow `frozen` and `groups`. What was trained stays the same leaf.
    pub(super) fn renew(&mut self) -> Result<()> {
        let frozen = &self.frozen;
        let tensors = self.params.tensors().iter().zip(frozen).map(|(t, &f)| match (f, t.requires_grad()) {
            (true, true) => t.detach(),
            (false, false) => t.leaf(),
            _ => t.clone(),
        });
        self.params = Params::new(self.table.clone(), tensors.collect())?;
        self.write_rows()
    }

    /// Whether a parameter is frozen.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.freeze("fc.bias")?;
    /// assert!(arena.is_frozen("fc.bias")? && !arena.is_frozen("fc.weight")?);
    /// assert!(arena.is_frozen("conv.weight").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn is_frozen(&self, name: &str) -> Result<bool> {
        Ok(self.frozen[self.params.id(name)?.index()])
    }

    /// Puts the parameters that match into a group, in place of the one they were in.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.group("*.bias", Group { lr: 2.0, ..Group::default() })?;
    /// arena.backward(&layer.forward(&Cx::train(&arena), &Tensor::ones(&gpu, &[1, 1])?)?.sum_all()?)?;
    /// Optimizer::new(&arena, Rule::sgd(0.0))?.step(&arena, 0.25)?;
    /// assert_eq!(arena.params().by_name("fc.weight")?.to_vec()?, [0.75]);
    /// assert_eq!(arena.params().by_name("fc.bias")?.to_vec()?, [-0.5]); // at twice the rate
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing matches.
    pub fn group(&mut self, pattern: &str, group: Group) -> Result<()> {
        for i in self.table.matching(pattern)? {
            self.groups[i] = group;
        }
        self.write_rows()
    }

    /// The usual recipe: no weight decay and no LARS or LAMB scaling for parameters of one dimension (biases and
    /// normalisation), besides those that match one of `patterns`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, optim::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, Some(Init::Const(1.0)));
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.no_decay_for_vectors(&["pos_embed"])?;
    /// arena.zero_grad()?;
    /// Optimizer::new(&arena, Rule::adamw(0.5))?.step(&arena, 0.5)?; // no gradient, only decay
    /// assert_eq!(arena.params().by_name("fc.weight")?.to_vec()?, [0.75]);
    /// assert_eq!(arena.params().by_name("fc.bias")?.to_vec()?, [1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn no_decay_for_vectors(&mut self, patterns: &[&str]) -> Result<()> {
        for (e, group) in self.table.entries().iter().zip(&mut self.groups) {
            if e.shape.len() <= 1 || patterns.iter().any(|p| glob(p, &e.name)) {
                (group.weight_decay, group.adapt) = (0.0, false);
            }
        }
        self.write_rows()
    }

    pub(super) fn write_rows(&mut self) -> Result<()> {
        let rows: Vec<[f32; 4]> = (self.groups.iter().zip(&self.frozen))
            .map(|(g, &frozen)| {
                [g.lr, g.weight_decay, if frozen { 0.0 } else { 1.0 + f32::from(u8::from(g.adapt)) }, 1.0]
            })
            .collect();
        Ok(self.gpu.upload(&self.rows, bytemuck::cast_slice(&rows))?)
    }
}
