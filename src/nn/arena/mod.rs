//! A model's parameters, gradients and running statistics, each in one buffer on the device.

mod gradients;
mod groups;
mod masks;
mod state;
mod values;

use std::sync::Arc;

use shadegrad_kernels::mixed::halves;
use shadegrad_kernels::{Gpu, Storage};

use crate::error::{Error, Result};
use crate::nn::build::SLOT;
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
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let all: Vec<Weight> = arena.state()?;
/// assert_eq!(all, [("fc.weight".to_string(), vec![1, 2], vec![1.0, 1.0])]);
/// # Ok::<(), Error>(())
/// ```
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
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// let layer = Linear::new(&mut names.root().sub("fc"), 2, 2, true);
    /// let (a, b) = (Arena::new(&gpu, &names, 0)?, Arena::new(&gpu, &names, 0)?);
    /// let other = Arena::new(&gpu, &names, 1)?;
    /// let values = |arena: &Arena| arena.params().get(layer.weight()).to_vec();
    /// assert_eq!(values(&a)?, values(&b)?);
    /// assert_ne!(values(&a)?, values(&other)?); // of another seed
    /// # Ok::<(), Error>(())
    /// ```
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
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let client = arena.fork()?;
    /// client.set_value(layer.weight(), &Tensor::zeros(&gpu, &[1, 2])?)?;
    /// assert_eq!(client.params().get(layer.weight()).to_vec()?, [0.0, 0.0]);
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// arena.set_value(layer.weight(), &Tensor::zeros(&gpu, &[1, 2])?)?;
    /// arena.reset()?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn reset(&self) -> Result<()> {
        self.gpu.upload(self.values.storage(), bytemuck::cast_slice(&first_values(&self.table, self.seed)))?;
        let stats = first_values(&self.buffer_table, self.seed);
        Ok(self.gpu.upload(self.stats.storage(), bytemuck::cast_slice(&stats))?)
    }

    /// The device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::ones(arena.gpu(), &[1, 2])?; // where the model is
    /// assert_eq!(layer.forward(&Cx::eval(&arena), &x)?.item()?, 2.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Names, shapes and places of the parameters.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!((arena.table().len(), arena.table().numel()), (2, 3));
    /// assert_eq!(arena.table().entries()[1].name, "fc.bias");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Names, shapes and places of the buffers.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # BatchNorm2d::new(&mut names.root().sub("bn"), 8);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.buffer_table().find("bn.running_var"), Some(1));
    /// assert_eq!(arena.buffer_table().numel(), 16); // of eight channels, mean and variance
    /// # Ok::<(), Error>(())
    /// ```
    pub fn buffer_table(&self) -> &Arc<Table> {
        &self.buffer_table
    }

    /// The parameters: leaves where they are trained, constants where frozen. The same leaves on every call.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// assert!(arena.params().tensors().iter().all(Tensor::requires_grad));
    /// arena.freeze("fc.weight")?;
    /// let trained: Vec<bool> = arena.params().tensors().iter().map(Tensor::requires_grad).collect();
    /// assert_eq!(trained, [false, true]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// [`Arena::params`] with a copy of each as halves at hand, for the products of one step of mixed precision
    /// ([`crate::Precision::Mixed`]); one dispatch makes all of them. Gradients flow to the parameters. The copies are of
    /// the values as they are now: take new ones after each step.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let cx = Cx::train(&arena).with_params(&arena.params_with_halves()?);
    /// let x = Tensor::ones(&gpu, &[4, 2])?;
    /// let loss = Precision::Mixed.scope(|| layer.forward(&cx, &x)?.sum_all())?;
    /// arena.backward(&loss)?;
    /// assert_eq!(arena.grads().get(layer.weight()).to_vec()?, [4.0, 4.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::from_slice(&gpu, &[3.0, 5.0], &[1, 2])?;
    /// arena.backward(&layer.forward(&Cx::train(&arena), &x)?.sum_all()?)?;
    /// assert_eq!(arena.grads().by_name("fc.weight")?.to_vec()?, [3.0, 5.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn grads(&self) -> &Params {
        &self.grad_views
    }

    /// The running statistics.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let norm = BatchNorm2d::new(&mut names.root().sub("bn"), 1).momentum(0.5);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// norm.forward(&Cx::train(&arena), &Tensor::from_slice(&gpu, &[2.0, 6.0], &[2, 1])?)?;
    /// assert_eq!(arena.buffers().by_name("bn.running_mean")?.to_vec()?, [2.0]); // half of the batch's 4
    /// # Ok::<(), Error>(())
    /// ```
    pub fn buffers(&self) -> &Params {
        &self.buffers
    }

    /// All values as one constant tensor of [`Table::floats`] floats: a view, not a copy.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(3.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let flat = arena.values_flat();
    /// assert_eq!(flat.shape(), [arena.table().floats()]); // a slot of 64 each for weight and bias
    /// assert_eq!(flat.square()?.sum_all()?.item()?, 11.0); // 1 + 1 + 9: between the slots are zeros
    /// # Ok::<(), Error>(())
    /// ```
    pub fn values_flat(&self) -> &Tensor {
        &self.values
    }

    /// All gradients as one constant tensor: a view.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let x = Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?;
    /// arena.backward(&layer.forward(&Cx::train(&arena), &x)?.sum_all()?)?;
    /// assert_eq!(arena.grads_flat().square()?.sum_all()?.item()?, 25.0); // the squared norm of all gradients
    /// # Ok::<(), Error>(())
    /// ```
    pub fn grads_flat(&self) -> &Tensor {
        &self.grads
    }

    /// All buffers as one constant tensor: a view.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # BatchNorm2d::new(&mut names.root().sub("bn"), 8);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.buffers_flat().sum_all()?.item()?, 8.0); // eight variances of 1, means of 0
    /// # Ok::<(), Error>(())
    /// ```
    pub fn buffers_flat(&self) -> &Tensor {
        &self.stats
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
