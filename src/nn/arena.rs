//! A model's parameters, gradients and running statistics, each in one buffer on the device.

use std::sync::Arc;

use shadegrad_kernels::mixed::halves;
use shadegrad_kernels::optim as k;
use shadegrad_kernels::{Gpu, Storage};

use crate::autograd::nonfinite;
use crate::error::{Error, Result};
use crate::nn::build::{SLOT, glob};
use crate::nn::{Builder, Params, Table, flat};
use crate::tensor::{DType, Tensor};

const F32: u64 = 4;

/// What the optimiser does differently with some parameters.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// Linear::new(&mut names.root().sub("head"), 3, 2, true);
/// let mut arena = Arena::new(&gpu, &names, 0)?;
/// arena.group("head.*", Group { lr: 10.0, weight_decay: 0.0, ..Group::default() })?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Multiplies the learning rate.
    pub lr: f32,
    /// Multiplies the weight decay: 0 for biases and normalisation in many recipes.
    pub weight_decay: f32,
    /// Whether LARS and LAMB scale the step by the tensor's own norm.
    pub adapt: bool,
}

impl Default for Group {
    fn default() -> Self {
        Self { lr: 1.0, weight_decay: 1.0, adapt: true }
    }
}

/// A parameter or buffer on the host: full name, shape, values.
pub type Weight = (String, Vec<usize>, Vec<f32>);

/// Values and running statistics at one moment, on the device.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// Linear::new(&mut names.root(), 3, 2, true);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let before = arena.snapshot()?;
/// arena.set_values_flat(&arena.values_flat().mul_scalar(2.0)?)?;
/// arena.restore(&before)?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    values: Tensor,
    buffers: Tensor,
}

/// The parameters of one model: values, gradients and buffers in three flat buffers with tables of names.
///
/// [`Arena::params`] and [`Arena::grads`] are views: what the optimiser writes shows through them at once, so a graph
/// recorded before a step must not be walked backward after it.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let mut names = Builder::new();
/// let layer = Linear::new(&mut names.root().sub("fc"), 3, 2, true);
/// let mut arena = Arena::new(&gpu, &names, 7)?; // first values from seed 7
/// assert_eq!(arena.table().numel(), 3 * 2 + 2);
/// arena.freeze("*.bias")?;
/// let loss = layer.forward(&Cx::train(&arena), &Tensor::ones(&gpu, &[1, 3])?)?.sum_all()?;
/// arena.backward(&loss)?;
/// assert_eq!(arena.grads().get(layer.weight()).to_vec()?, [1.0; 6]);
/// # Ok::<(), Error>(())
/// ```
pub struct Arena {
    gpu: Gpu,
    seed: u64,
    table: Arc<Table>,
    buffer_table: Arc<Table>,
    values: Tensor,
    grads: Tensor,
    stats: Tensor,
    /// Views, made once: leaves where trained, constants where frozen.
    params: Params,
    grad_views: Params,
    buffers: Params,
    groups: Vec<Group>,
    frozen: Vec<bool>,
    allowed: Vec<String>,
    mask: Option<Tensor>,
    /// For the optimiser: the parameter of each block of 64 floats, and each parameter's row of multipliers.
    owners: Storage,
    rows: Storage,
    /// First block of each parameter.
    firsts: Storage,
}

fn zeros(gpu: &Gpu, floats: usize, label: &'static str) -> Result<Tensor> {
    let t = Tensor::empty(gpu, &[floats], DType::F32, label)?;
    gpu.zero(t.storage())?;
    Ok(t)
}

fn views(table: &Arc<Table>, flat: &Tensor) -> Result<Params> {
    let tensors = table.entries().iter().map(|e| flat::view(flat, e.offset, &e.shape)).collect::<Result<_>>()?;
    Params::new(table.clone(), tensors)
}

fn first_values(table: &Table, seed: u64) -> Vec<f32> {
    let mut all = vec![0.0; table.floats()];
    for e in table.entries() {
        e.init.fill(&mut all[e.offset..][..e.len], &e.name, &e.shape, seed);
    }
    all
}

impl Arena {
    /// Draws a model's first values. The same builder makes any number of arenas.
    ///
    /// # Errors
    /// If a name was given twice, there are no parameters, or the device refuses.
    pub fn new(gpu: &Gpu, builder: &Builder, seed: u64) -> Result<Self> {
        let (table, buffer_table) = builder.tables()?;
        let arena = Self::from_tables(gpu, table, buffer_table, seed)?;
        arena.reset()?;
        Ok(arena)
    }

    fn from_tables(gpu: &Gpu, table: Arc<Table>, buffer_table: Arc<Table>, seed: u64) -> Result<Self> {
        if table.is_empty() {
            return Err(Error::Params("the model has no parameters; build it in the builder's scope first".into()));
        }
        let values = zeros(gpu, table.floats(), "parameters")?;
        let grads = zeros(gpu, table.floats(), "gradients")?;
        let stats = zeros(gpu, buffer_table.floats(), "running statistics")?;
        let mut owners = vec![0u32; table.floats() / SLOT];
        for (i, e) in table.entries().iter().enumerate() {
            owners[e.offset / SLOT..][..e.len.max(1).div_ceil(SLOT)].fill(i as u32);
        }
        let owner_store = gpu.alloc_from(&owners, "parameter table")?;
        let firsts: Vec<u32> = table.entries().iter().map(|e| (e.offset / SLOT) as u32).collect();
        let first_store = gpu.alloc_from(&firsts, "parameter table")?;
        let mut arena = Self {
            seed,
            params: views(&table, &values)?.leaves(),
            grad_views: views(&table, &grads)?,
            buffers: views(&buffer_table, &stats)?,
            groups: (table.entries().iter())
                .map(|e| Group { weight_decay: f32::from(u8::from(e.decay)), ..Group::default() })
                .collect(),
            frozen: vec![false; table.len()],
            allowed: Vec::new(),
            mask: None,
            owners: owner_store,
            firsts: first_store,
            rows: gpu.alloc(table.len() as u64 * 16, "parameter table")?,
            gpu: gpu.clone(),
            table,
            buffer_table,
            values,
            grads,
            stats,
        };
        arena.write_rows()?;
        Ok(arena)
    }

    /// Another arena of the same model with the same values, statistics, groups, frozen parameters and mask. Gradients
    /// start at zero.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn fork(&self) -> Result<Self> {
        let mut new = Self::from_tables(&self.gpu, self.table.clone(), self.buffer_table.clone(), self.seed)?;
        new.restore(&Snapshot { values: self.values.clone(), buffers: self.stats.clone() })?;
        new.groups.clone_from(&self.groups);
        new.allowed.clone_from(&self.allowed);
        new.frozen.clone_from(&self.frozen);
        new.mask.clone_from(&self.mask);
        new.renew()?;
        Ok(new)
    }

    /// Draws the first values again and resets the buffers.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn reset(&self) -> Result<()> {
        self.gpu.upload(self.values.storage(), bytemuck::cast_slice(&first_values(&self.table, self.seed)))?;
        let stats = first_values(&self.buffer_table, self.seed);
        Ok(self.gpu.upload(self.stats.storage(), bytemuck::cast_slice(&stats))?)
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Names, shapes and places of the parameters.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Names, shapes and places of the buffers.
    pub fn buffer_table(&self) -> &Arc<Table> {
        &self.buffer_table
    }

    /// The parameters: leaves where they are trained, constants where frozen. The same leaves on every call.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// [`Arena::params`] with a copy of each as halves at hand, for the products of one step of mixed precision
    /// ([`crate::Precision::Mixed`]); one dispatch makes all of them. Gradients flow to the parameters. The copies are of
    /// the values as they are now: take new ones after each step.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn params_with_halves(&self) -> Result<Params> {
        // Each parameter's halves begin at the byte at which its floats do, and leave a gap: half of its size would not be
        // a place at which every device binds a buffer.
        let floats = self.table.floats();
        let flat = self.gpu.alloc(floats as u64 * F32, "parameters as halves")?;
        halves(&self.gpu, self.values.storage(), &self.owners, &self.firsts, &flat, floats)?;
        self.params.map(|e, t| {
            let at = flat.view(e.offset as u64 * F32, e.len as u64 * DType::F16.size() as u64);
            let at = at.ok_or_else(|| Error::Params(format!("`{}` reaches past the end of the arena", e.name)))?;
            Ok(t.with_half(&Tensor::from_storage(&self.gpu, at, &e.shape, DType::F16)?))
        })
    }

    /// The gradients of the last [`Arena::backward`].
    pub fn grads(&self) -> &Params {
        &self.grad_views
    }

    /// The running statistics.
    pub fn buffers(&self) -> &Params {
        &self.buffers
    }

    /// All values as one constant tensor of [`Table::floats`] floats: a view, not a copy.
    pub fn values_flat(&self) -> &Tensor {
        &self.values
    }

    /// All gradients as one constant tensor: a view.
    pub fn grads_flat(&self) -> &Tensor {
        &self.grads
    }

    /// All buffers as one constant tensor: a view.
    pub fn buffers_flat(&self) -> &Tensor {
        &self.stats
    }

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
    /// # Errors
    /// If its length is not [`Table::floats`].
    pub fn set_values_flat(&self, flat: &Tensor) -> Result<()> {
        self.copy_flat(flat, &self.values)
    }

    /// Sets all gradients from a flat tensor: clipped or noisy ones, say.
    ///
    /// # Errors
    /// As [`Arena::set_values_flat`].
    pub fn set_grads_flat(&self, flat: &Tensor) -> Result<()> {
        self.copy_flat(flat, &self.grads)
    }

    /// Sets all buffers from a flat tensor.
    ///
    /// # Errors
    /// As [`Arena::set_values_flat`].
    pub fn set_buffers_flat(&self, flat: &Tensor) -> Result<()> {
        self.copy_flat(flat, &self.stats)
    }

    /// Sets all values from tensors.
    ///
    /// # Errors
    /// If they belong to another model.
    pub fn set_values(&self, params: &Params) -> Result<()> {
        self.write(&self.params, params.tensors(), &self.values)
    }

    /// Sets the values of one parameter: to keep it within bounds after an optimiser's step, say.
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
    /// # Errors
    /// If they belong to another model.
    pub fn set_grads(&self, grads: &Params) -> Result<()> {
        self.write(&self.params, grads.tensors(), &self.grads)
    }

    fn write(&self, like: &Params, tensors: &[Tensor], to: &Tensor) -> Result<()> {
        let all = Params::new(like.table().clone(), tensors.to_vec())?;
        all.tensors().iter().zip(self.table.entries()).try_for_each(|(t, e)| flat::copy_into(t, to.storage(), e.offset))
    }

    /// Gradients of the scalar `loss` into the gradient buffer, in place of what was there.
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
        let rows = self.table.entries().iter().zip(self.grad_views.tensors()).zip(&self.frozen);
        for (((e, view), &frozen), grad) in rows.zip(grads) {
            match (grad, add) {
                (Some(g), None) => flat::copy_into(&g, self.grads.storage(), e.offset)?,
                (Some(g), Some(scale)) if !g.storage().same_buffer(view.storage()) => {
                    k::accumulate(&self.gpu, g.storage(), view.storage(), e.len, scale)?;
                }
                (Some(g), Some(scale)) => {
                    flat::copy_into(&view.add(&g.mul_scalar(scale)?)?, self.grads.storage(), e.offset)?;
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
    /// # Errors
    /// If the device refuses.
    pub fn zero_grad(&self) -> Result<()> {
        Ok(self.gpu.zero(self.grads.storage())?)
    }

    /// Parameters that match may go without a gradient, which is then zero: branches that are not always taken.
    pub fn allow_missing(&mut self, pattern: &str) {
        self.allowed.push(pattern.to_string());
    }

    /// Stops training the parameters that match: constants in forward passes, untouched by optimisers.
    ///
    /// # Errors
    /// If nothing matches.
    pub fn freeze(&mut self, pattern: &str) -> Result<()> {
        self.set_frozen(pattern, true)
    }

    /// Trains the parameters that match again.
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
    fn renew(&mut self) -> Result<()> {
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
    /// # Errors
    /// If there is none of that name.
    pub fn is_frozen(&self, name: &str) -> Result<bool> {
        Ok(self.frozen[self.params.id(name)?.index()])
    }

    /// Puts the parameters that match into a group, in place of the one they were in.
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

    fn write_rows(&mut self) -> Result<()> {
        let rows: Vec<[f32; 4]> = (self.groups.iter().zip(&self.frozen))
            .map(|(g, &frozen)| {
                [g.lr, g.weight_decay, if frozen { 0.0 } else { 1.0 + f32::from(u8::from(g.adapt)) }, 1.0]
            })
            .collect();
        Ok(self.gpu.upload(&self.rows, bytemuck::cast_slice(&rows))?)
    }

    /// Holds the parameters that match to a mask of their shape: elements where it is 0 are set to 0 now and stay 0 in
    /// every optimiser step; their gradients count as 0.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let mut names = Builder::new();
    /// let layer = Linear::new(&mut names.root().sub("fc"), 2, 2, false);
    /// let mut arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_mask("fc.weight", &Tensor::eye(&gpu, 2)?)?;
    /// let w = arena.params().get(layer.weight()).to_vec()?;
    /// assert_eq!((w[1], w[2]), (0.0, 0.0)); // and they stay 0 in every step of an optimiser
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing matches, or a shape differs.
    pub fn set_mask(&mut self, pattern: &str, mask: &Tensor) -> Result<()> {
        let rows = self.table.matching(pattern)?;
        for &i in &rows {
            let e = &self.table.entries()[i];
            if e.shape != mask.shape() || mask.dtype() != DType::F32 {
                return Err(Error::Params(format!(
                    "the mask for `{}` {:?} is {mask:?}; it must be alike",
                    e.name, e.shape
                )));
            }
        }
        let all = match &self.mask {
            // A mask may be shared with a fork: each change makes a new one.
            Some(old) => {
                let new = Tensor::empty(&self.gpu, &[self.table.floats()], DType::F32, "mask")?;
                flat::copy_into(old, new.storage(), 0)?;
                new
            }
            None => Tensor::ones(&self.gpu, &[self.table.floats()])?,
        };
        for i in rows {
            flat::copy_into(mask, all.storage(), self.table.entries()[i].offset)?;
        }
        self.mask = Some(all);
        self.apply_mask()
    }

    /// Lifts all masks.
    pub fn clear_masks(&mut self) {
        self.mask = None;
    }

    /// All masks as one flat tensor of zeros and ones, if there are any.
    pub fn mask_flat(&self) -> Option<&Tensor> {
        self.mask.as_ref()
    }

    /// Sets all masks from what [`Arena::mask_flat`] gave: from a checkpoint.
    ///
    /// # Errors
    /// If its length is not [`Table::floats`].
    pub fn set_mask_flat(&mut self, mask: &Tensor) -> Result<()> {
        if mask.shape() != self.values.shape() || mask.dtype() != DType::F32 {
            return Err(Error::Params(format!("the mask is {mask:?}, the arena {:?}", self.values)));
        }
        mask.same_gpu("set_mask_flat", &self.values)?;
        self.mask = Some(mask.detach());
        self.apply_mask()
    }

    /// Sets masked elements to zero: after values were written by anything but an optimiser.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn apply_mask(&self) -> Result<()> {
        match &self.mask {
            Some(mask) => Ok(k::mask(&self.gpu, mask.storage(), self.values.storage(), self.table.floats())?),
            None => Ok(()),
        }
    }

    /// The first parameter or buffer that holds a NaN or an infinity, and how many; `None` if all are finite. Reads
    /// everything from the device.
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn nonfinite(&self) -> Result<Option<String>> {
        let found = |(name, _, data): Weight| nonfinite(&data).map(|count| format!("`{name}` {count}"));
        Ok(self.state()?.into_iter().find_map(found))
    }

    /// A copy of the values and running statistics.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let copy = |t: &Tensor| {
            let new = Tensor::empty(&self.gpu, t.shape(), DType::F32, "snapshot")?;
            flat::copy_into(t, new.storage(), 0)?;
            Ok::<_, Error>(new)
        };
        Ok(Snapshot { values: copy(&self.values)?, buffers: copy(&self.stats)? })
    }

    /// Sets values and running statistics back to a copy, of this arena or another of the same model.
    ///
    /// # Errors
    /// If it is that of another model.
    pub fn restore(&self, snapshot: &Snapshot) -> Result<()> {
        self.set_values_flat(&snapshot.values)?;
        self.set_buffers_flat(&snapshot.buffers)
    }

    /// Names, shapes and values of all parameters and then all buffers, read from the device.
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn state(&self) -> Result<Vec<Weight>> {
        let mut out = Vec::with_capacity(self.table.len() + self.buffer_table.len());
        for (table, flat) in [(&self.table, &self.values), (&self.buffer_table, &self.stats)] {
            let all = flat.to_vec()?;
            out.extend(
                table.entries().iter().map(|e| (e.name.clone(), e.shape.clone(), all[e.offset..][..e.len].to_vec())),
            );
        }
        Ok(out)
    }

    /// Sets parameters and buffers by name. Strict: nothing may be missing, left over or of another shape; then nothing
    /// is changed.
    ///
    /// # Errors
    /// The names that are missing, those that the model does not have, and those whose shapes differ.
    pub fn load(&self, state: &[Weight]) -> Result<()> {
        let (mut unexpected, mut misshaped, mut seen) = (Vec::new(), Vec::new(), std::collections::HashSet::new());
        let tables = [&self.table, &self.buffer_table];
        let find = |name: &str| tables.iter().find_map(|t| Some(&t.entries()[t.find(name)?]));
        for (name, shape, data) in state {
            match find(name) {
                None => unexpected.push(name.clone()),
                Some(e) if e.shape != *shape || e.len != data.len() => {
                    misshaped.push(format!("{name} is {:?}, given {shape:?} of {} values", e.shape, data.len()));
                }
                Some(_) => {}
            }
            if !seen.insert(name.as_str()) {
                misshaped.push(format!("{name} is given twice"));
            }
        }
        let all = self.table.entries().iter().chain(self.buffer_table.entries());
        let missing: Vec<&str> = all.map(|e| e.name.as_str()).filter(|n| !seen.contains(n)).collect();
        let problems: Vec<String> =
            [("missing", missing.join(", ")), ("unexpected", unexpected.join(", ")), ("wrong", misshaped.join(", "))]
                .into_iter()
                .filter(|(_, names)| !names.is_empty())
                .map(|(what, names)| format!("{what}: {names}"))
                .collect();
        if !problems.is_empty() {
            return Err(Error::Params(format!("cannot load; {}", problems.join("; "))));
        }
        self.set_named(state)
    }

    /// Uploads the parameters and buffers that are given; their names and shapes are right.
    pub(crate) fn set_named(&self, values: &[Weight]) -> Result<()> {
        for (name, _, data) in values {
            for (table, flat) in [(&self.table, &self.values), (&self.buffer_table, &self.stats)] {
                if let Some(i) = table.find(name) {
                    let at = table.entries()[i].offset as u64 * F32;
                    self.gpu.upload_at(flat.storage(), at, bytemuck::cast_slice(data))?;
                }
            }
        }
        Ok(())
    }

    /// For the optimiser: the parameter of each block of 64 floats.
    pub(crate) fn owners(&self) -> &Storage {
        &self.owners
    }

    /// For the optimiser: `[rate multiplier, decay multiplier, 0 frozen | 1 trained | 2 and adapted, trust ratio]` by
    /// parameter.
    pub(crate) fn rows(&self) -> &Storage {
        &self.rows
    }
}
