//! Whole units (neurons of linear layers, channels of convolutions): masked, or taken out of the network.
//!
//! Which rows, columns, biases and statistics belong to one unit is found by running the model once under a trace
//! ([`shadegrad::autograd::trace`]): a unit can go if all that reads it is a linear layer or a convolution, with nothing
//! between but batch norm, functions of single elements, pooling and flattening. Channels that meet others in an addition
//! (the stream of a residual network) and the model's outputs stay.
//!
//! A masked unit costs what it did. [`Units::remove`] makes an arena with smaller parameters under the same names, and the
//! same model runs with it: layers take their sizes from their parameters.
//!
//! ```no_run
//! # use shadegrad::{Result, Tensor, nn::{Arena, Cx, Module}};
//! use shadegrad_models::papers::shared::prune::Pooling;
//! use shadegrad_models::papers::shared::prune::units::Units;
//! # fn run(model: &dyn Module, arena: &Arena, x: &Tensor) -> Result<()> {
//! let units = Units::find(model, arena, x)?;
//! let keep = units.strongest(arena, 0.5, Pooling::Layer)?;
//! let small = units.remove(model, arena, &keep, x)?;
//! println!("{} of {} parameters", small.table().numel(), arena.table().numel());
//! let logits = model.forward(&Cx::eval(&small), x)?;
//! # let _ = logits;
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::time::Instant;

use shadegrad::autograd::{Traced, no_grad, trace};
use shadegrad::nn::{Arena, Builder, Cx, Entry, Layout, Module};
use shadegrad::{Error, Result, Tensor};

use super::{Pooling, removal};
use crate::papers::shared::mask::lowest;

/// Functions of single elements, and pooling: the last axis of what they give is the last axis of what they get.
const THROUGH: &[&str] = &[
    "relu",
    "leaky_relu",
    "elu",
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "tanh",
    "sigmoid",
    "softplus",
    "clamp",
    "square",
    "mul_scalar",
    "dropout",
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "mean",
    "batch_norm",
    "batch_norm_relu",
    "batch_norm_eval",
];

/// Units of one layer and all that belongs to them.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::shared::prune::units::{UnitGroup, Units};
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 1, width: 2, channels: 1, classes: 2 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[3]);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let rows = Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0, 0.5, 0.0], &[3, 2])?;
/// # arena.set_value(arena.params().id("layers.0.weight")?, &rows)?;
/// # let x = Tensor::ones(&gpu, &[1, 1, 2, 1])?;
/// // A model with three hidden units, whose incoming weights are [3, 4], [0, 1] and [0.5, 0].
/// let units = Units::find(&model, &arena, &x)?;
/// let UnitGroup { name, units, .. } = &units.groups()[0];
/// assert_eq!((name.as_str(), *units), ("layers.0.weight", 3));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitGroup {
    /// Full name of the weight whose rows make the units.
    pub name: String,
    /// Their number.
    pub units: usize,
    /// Rows of the parameters' table whose first axis is the units: weight, bias, scale and shift of a norm.
    made_by: Vec<usize>,
    /// Rows of the buffers' table: running statistics.
    buffers: Vec<usize>,
    /// Rows of the parameters' table whose last axis reads the units, this many positions of each side by side.
    read_by: Vec<(usize, usize)>,
}

/// The units of a model that can go.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::shared::prune::Pooling;
/// use shadegrad_models::papers::shared::prune::units::Units;
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 1, width: 2, channels: 1, classes: 2 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[3]);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let rows = Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0, 0.5, 0.0], &[3, 2])?;
/// # arena.set_value(arena.params().id("layers.0.weight")?, &rows)?;
/// # let x = Tensor::ones(&gpu, &[1, 1, 2, 1])?;
/// // A model with three hidden units, whose incoming weights are [3, 4], [0, 1] and [0.5, 0].
/// let units = Units::find(&model, &arena, &x)?;
/// let keep = units.strongest(&arena, 0.5, Pooling::Layer)?;
/// let small = units.remove(&model, &arena, &keep, &x)?;
/// assert_eq!((arena.table().numel(), small.table().numel()), (17, 12));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Units {
    groups: Vec<UnitGroup>,
}

/// What a tensor's last axis is: the units of a group, repeated.
#[derive(Clone, Copy)]
struct Label {
    group: usize,
    repeat: usize,
}

/// Same memory and shape.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a.shape() == b.shape() && same_memory(a, b)
}

fn same_memory(a: &Tensor, b: &Tensor) -> bool {
    a.storage().same_buffer(b.storage()) && a.storage().offset() == b.storage().offset()
}

/// Follows units through the operations of a forward pass.
struct Finder<'a> {
    arena: &'a Arena,
    groups: Vec<UnitGroup>,
    /// Whether a group must stay.
    pinned: Vec<bool>,
    labels: Vec<(Tensor, Label)>,
    /// How many operations use each parameter.
    uses: HashMap<usize, usize>,
}

impl<'a> Finder<'a> {
    fn parameter(&self, t: &Tensor) -> Option<usize> {
        self.arena.params().tensors().iter().position(|p| same_memory(p, t))
    }

    fn entry(&self, row: usize) -> &'a Entry {
        &self.arena.table().entries()[row]
    }

    fn label(&self, t: &Tensor) -> Option<Label> {
        self.labels.iter().rev().find(|(of, _)| same(of, t)).map(|(_, label)| *label)
    }

    fn pin(&mut self, t: &Tensor) {
        if let Some(label) = self.label(t) {
            self.pinned[label.group] = true;
        }
    }

    fn operation(&mut self, op: &Traced) {
        let rows: Vec<usize> = op.inputs.iter().filter_map(|t| self.parameter(t)).collect();
        for row in rows {
            *self.uses.entry(row).or_default() += 1;
        }
        let Some(x) = op.inputs.first() else { return };
        let last = |t: &Tensor| t.shape().last().copied().unwrap_or(1);
        let same_last = last(x) == last(&op.output);
        let label = self.label(x);
        match (op.op, label) {
            ("linear" | "conv2d", _) => self.layer(op, label),
            ("reshape", Some(label)) => match repeats(x.shape(), op.output.shape()) {
                Some(times) => {
                    let repeat = label.repeat * times;
                    self.labels.push((op.output.clone(), Label { repeat, ..label }));
                }
                None => self.pinned[label.group] = true,
            },
            ("add", _) if op.inputs.len() == 2 && same_last => self.addition(op, label),
            (name, Some(label)) if THROUGH.contains(&name) && same_last => {
                for t in &op.inputs[1..] {
                    self.along(label, t);
                }
                self.labels.push((op.output.clone(), label));
            }
            _ => op.inputs.iter().for_each(|t| self.pin(t)),
        }
    }

    /// A linear layer or convolution reads the units of its input and makes new ones.
    fn layer(&mut self, op: &Traced, label: Option<Label>) {
        let Some(row) = op.inputs.get(1).and_then(|w| self.parameter(w)) else {
            return op.inputs.iter().for_each(|t| self.pin(t));
        };
        let e = self.entry(row);
        let (outputs, inputs) = (e.shape[0], e.shape.last().copied().unwrap_or(1));
        if let Some(label) = label {
            // A convolution in groups reads a part of the channels with each of its outputs.
            if inputs == self.groups[label.group].units * label.repeat {
                self.groups[label.group].read_by.push((row, label.repeat));
            } else {
                self.pinned[label.group] = true;
            }
        }
        let grouped = op.inputs[0].shape().last() != Some(&inputs);
        let mut group = UnitGroup {
            name: e.name.clone(),
            units: outputs,
            made_by: vec![row],
            buffers: Vec::new(),
            read_by: Vec::new(),
        };
        group.made_by.extend(op.inputs.get(2).and_then(|b| self.parameter(b)));
        self.groups.push(group);
        self.pinned.push(grouped);
        self.labels.push((op.output.clone(), Label { group: self.groups.len() - 1, repeat: 1 }));
    }

    /// A bias keeps the units apart, anything else ties them to what is added.
    fn addition(&mut self, op: &Traced, first: Option<Label>) {
        let (label, other) = match (first, self.label(&op.inputs[1])) {
            (Some(label), None) => (label, &op.inputs[1]),
            (None, Some(label)) => (label, &op.inputs[0]),
            _ => return op.inputs.iter().for_each(|t| self.pin(t)),
        };
        let own = label.repeat == 1 && other.shape() == [self.groups[label.group].units];
        if own && self.parameter(other).is_some() {
            self.along(label, other);
            self.labels.push((op.output.clone(), label));
        } else {
            self.pinned[label.group] = true;
        }
    }

    /// A parameter or running statistic with an element for each unit.
    fn along(&mut self, label: Label, t: &Tensor) {
        let buffer = self.arena.buffers().tensors().iter().position(|b| same_memory(b, t));
        let (parameter, group) = (self.parameter(t), &mut self.groups[label.group]);
        if label.repeat != 1 || t.shape() != [group.units] {
            self.pinned[label.group] = true;
        } else if let Some(row) = parameter {
            group.made_by.push(row);
        } else if let Some(row) = buffer {
            group.buffers.push(row);
        } else {
            // Statistics from elsewhere would not follow.
            self.pinned[label.group] = true;
        }
    }
}

/// How many times the last axis of `from` lies in that of `to`, if `to` joins axes of `from`.
fn repeats(from: &[usize], to: &[usize]) -> Option<usize> {
    let (&inner, &outer) = (from.last()?, to.last()?);
    let joined = (0..from.len()).any(|i| from[i..].iter().product::<usize>() == outer);
    (inner > 0 && outer >= inner && joined).then(|| outer / inner)
}

impl Units {
    /// Runs `model` in evaluation on `x`, a sample or two, and finds the units that can go.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::shared::prune::units::Units;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 1, width: 2, channels: 1, classes: 2 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[3]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let rows = Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0, 0.5, 0.0], &[3, 2])?;
    /// # arena.set_value(arena.params().id("layers.0.weight")?, &rows)?;
    /// # let x = Tensor::ones(&gpu, &[1, 1, 2, 1])?;
    /// // A model with three hidden units, whose incoming weights are [3, 4], [0, 1] and [0.5, 0].
    /// let units = Units::find(&model, &arena, &x)?;
    /// assert_eq!(units.groups().len(), 1); // the outputs stay
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the model; if there is no unit that could go.
    pub fn find(model: &dyn Module, arena: &Arena, x: &Tensor) -> Result<Self> {
        let (out, seen) = no_grad(|| trace(&[], || model.forward(&Cx::eval(arena), x)))?;
        let mut finder =
            Finder { arena, groups: Vec::new(), pinned: Vec::new(), labels: Vec::new(), uses: HashMap::new() };
        seen.iter().for_each(|op| finder.operation(op));
        finder.pin(&out);
        let Finder { groups, pinned, uses, .. } = finder;
        // A weight that is used twice has units in two places.
        let once = |row: &usize| uses.get(row).copied().unwrap_or(0) == 1;
        let free = |g: &UnitGroup| {
            !g.read_by.is_empty() && g.made_by.iter().all(once) && g.read_by.iter().all(|(row, _)| once(row))
        };
        let groups: Vec<UnitGroup> =
            groups.into_iter().zip(pinned).filter(|(g, pinned)| !pinned && free(g)).map(|(g, _)| g).collect();
        if groups.is_empty() {
            return Err(Error::value(
                "Units",
                "no layer's units are read by linear layers and convolutions alone; nothing can be taken out",
            ));
        }
        Ok(Self { groups })
    }

    /// The groups, in the order in which the model runs them.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::shared::prune::units::Units;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 1, width: 2, channels: 1, classes: 2 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[3]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let rows = Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0, 0.5, 0.0], &[3, 2])?;
    /// # arena.set_value(arena.params().id("layers.0.weight")?, &rows)?;
    /// # let x = Tensor::ones(&gpu, &[1, 1, 2, 1])?;
    /// // A model with three hidden units, whose incoming weights are [3, 4], [0, 1] and [0.5, 0].
    /// let units = Units::find(&model, &arena, &x)?;
    /// assert_eq!(units.groups()[0].name, "layers.0.weight");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn groups(&self) -> &[UnitGroup] {
        &self.groups
    }

    /// The norm of each unit's incoming weights, by group.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::shared::prune::units::Units;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 1, width: 2, channels: 1, classes: 2 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[3]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let rows = Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0, 0.5, 0.0], &[3, 2])?;
    /// # arena.set_value(arena.params().id("layers.0.weight")?, &rows)?;
    /// # let x = Tensor::ones(&gpu, &[1, 1, 2, 1])?;
    /// // A model with three hidden units, whose incoming weights are [3, 4], [0, 1] and [0.5, 0].
    /// let units = Units::find(&model, &arena, &x)?;
    /// assert_eq!(units.norms(&arena)?, [[5.0, 1.0, 0.5]]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the arena is that of another model.
    pub fn norms(&self, arena: &Arena) -> Result<Vec<Vec<f32>>> {
        (self.groups.iter())
            .map(|g| {
                let weights = arena.params().by_name(&g.name)?.to_vec()?;
                let rows = weights.chunks(weights.len() / g.units.max(1));
                Ok(rows.map(|r| r.iter().map(|w| w * w).sum::<f32>().sqrt()).collect())
            })
            .collect()
    }

    /// Which units stay when this share goes, those of the smallest norm first: of each group, or of all of them together
    /// by the norm over the mean of its group. Every group keeps a unit.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::shared::prune::Pooling;
    /// use shadegrad_models::papers::shared::prune::units::Units;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 1, width: 2, channels: 1, classes: 2 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[3]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let rows = Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0, 0.5, 0.0], &[3, 2])?;
    /// # arena.set_value(arena.params().id("layers.0.weight")?, &rows)?;
    /// # let x = Tensor::ones(&gpu, &[1, 1, 2, 1])?;
    /// // A model with three hidden units, whose incoming weights are [3, 4], [0, 1] and [0.5, 0].
    /// let units = Units::find(&model, &arena, &x)?;
    /// assert_eq!(units.strongest(&arena, 0.5, Pooling::Layer)?, [[true, true, false]]);
    /// assert_eq!(units.strongest(&arena, 0.9, Pooling::Layer)?, [[true, false, false]]); // one always stays
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the share does not lie in `0..1`.
    pub fn strongest(&self, arena: &Arena, remove: f64, pooling: Pooling) -> Result<Vec<Vec<bool>>> {
        if !(0.0..1.0).contains(&remove) {
            return Err(Error::value("Units", format!("a share of {remove} is to go; it must lie in 0..1")));
        }
        let mut norms = self.norms(arena)?;
        if norms.iter().flatten().any(|n| !n.is_finite()) {
            return Err(Error::NonFinite("a unit's norm; did the training diverge?".into()));
        }
        let mut keep: Vec<Vec<bool>> = self.groups.iter().map(|g| vec![true; g.units]).collect();
        let lowest_of =
            |norms: &[f32], count| lowest(&(0..norms.len() as u32).collect::<Vec<_>>(), count, |i| norms[i as usize]);
        match pooling {
            Pooling::Layer => {
                for (norms, keep) in norms.iter().zip(&mut keep) {
                    let count = removal(norms.len(), remove).min(norms.len().saturating_sub(1));
                    lowest_of(norms, count).into_iter().for_each(|i| keep[i as usize] = false);
                }
            }
            Pooling::Global => {
                for norms in &mut norms {
                    let mean = (norms.iter().sum::<f32>() / norms.len().max(1) as f32).max(f32::MIN_POSITIVE);
                    norms.iter_mut().for_each(|n| *n /= mean);
                    // The strongest of a group stays whatever the others are.
                    if let Some(most) = norms.iter_mut().max_by(|a, b| a.total_cmp(b)) {
                        *most = f32::INFINITY;
                    }
                }
                let all: Vec<f32> = norms.concat();
                let count = removal(all.len(), remove).min(all.len() - norms.len());
                let gone = lowest_of(&all, count);
                let mut flat: Vec<&mut bool> = keep.iter_mut().flatten().collect();
                gone.into_iter().for_each(|i| *flat[i as usize] = false);
            }
        }
        Ok(keep)
    }

    fn check(&self, keep: &[Vec<bool>]) -> Result<()> {
        let fits = keep.len() == self.groups.len() && self.groups.iter().zip(keep).all(|(g, k)| g.units == k.len());
        if !fits || keep.iter().any(|k| !k.contains(&true)) {
            let units: Vec<usize> = self.groups.iter().map(|g| g.units).collect();
            let kept: Vec<String> =
                keep.iter().map(|k| format!("{} of {}", k.iter().filter(|k| **k).count(), k.len())).collect();
            return Err(Error::value(
                "Units",
                format!(
                    "keep [{}] of groups of {units:?}; give a choice for each unit and keep one of each group",
                    kept.join(", ")
                ),
            ));
        }
        Ok(())
    }

    /// For each parameter, which of its rows (first axis) and columns (last axis) stay; `None` for all.
    fn cuts(&self, keep: &[Vec<bool>], parameters: usize) -> Vec<[Option<Vec<bool>>; 2]> {
        let mut cuts: Vec<[Option<Vec<bool>>; 2]> = vec![[None, None]; parameters];
        for (g, keep) in self.groups.iter().zip(keep) {
            for &row in &g.made_by {
                cuts[row][0] = Some(keep.clone());
            }
            for &(row, repeat) in &g.read_by {
                cuts[row][1] = Some(keep.repeat(repeat));
            }
        }
        cuts
    }

    /// Masks all that belongs to units that do not stay: what makes them and what reads them. The network computes as much
    /// as before, but as if they were not there.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::shared::prune::units::Units;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 1, width: 2, channels: 1, classes: 2 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[3]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let rows = Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0, 0.5, 0.0], &[3, 2])?;
    /// # arena.set_value(arena.params().id("layers.0.weight")?, &rows)?;
    /// # let x = Tensor::ones(&gpu, &[1, 1, 2, 1])?;
    /// // A model with three hidden units, whose incoming weights are [3, 4], [0, 1] and [0.5, 0].
    /// let units = Units::find(&model, &arena, &x)?;
    /// units.mask(&mut arena, &[vec![true, false, true]])?;
    /// assert_eq!(arena.params().by_name("layers.0.weight")?.to_vec()?, [3.0, 4.0, 0.0, 0.0, 0.5, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the choice does not fit the groups, or would empty one.
    pub fn mask(&self, arena: &mut Arena, keep: &[Vec<bool>]) -> Result<()> {
        self.check(keep)?;
        let floats = arena.table().floats();
        let mut flat = arena.mask_flat().map_or_else(|| Ok(vec![1.0; floats]), Tensor::to_vec)?;
        for (e, cut) in arena.table().entries().iter().zip(self.cuts(keep, arena.table().len())) {
            let stays = stays(&e.shape, &cut);
            let to = &mut flat[e.offset..][..e.len];
            to.iter_mut().zip(stays).filter(|(_, stays)| !stays).for_each(|(m, _)| *m = 0.0);
        }
        arena.set_mask_flat(&Tensor::from_slice(arena.gpu(), &flat, &[floats])?)
    }

    /// A smaller arena without the units that do not stay, for the same model: values, running statistics, masks and what is
    /// frozen come along, groups of the optimiser do not. On `x` the result is held against that of the masked network:
    /// a model with a step that the trace misjudged is refused.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::shared::prune::units::Units;
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 1, width: 2, channels: 1, classes: 2 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[3]);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # let rows = Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0, 0.5, 0.0], &[3, 2])?;
    /// # arena.set_value(arena.params().id("layers.0.weight")?, &rows)?;
    /// # let x = Tensor::ones(&gpu, &[1, 1, 2, 1])?;
    /// // A model with three hidden units, whose incoming weights are [3, 4], [0, 1] and [0.5, 0].
    /// let units = Units::find(&model, &arena, &x)?;
    /// let small = units.remove(&model, &arena, &[vec![true, false, true]], &x)?;
    /// assert_eq!(small.params().by_name("layers.0.weight")?.to_vec()?, [3.0, 4.0, 0.5, 0.0]);
    /// assert_eq!(model.forward(&Cx::eval(&small), &x)?.shape(), [1, 2]); // the same model runs with it
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the choice does not fit the groups, the model does not run with smaller parameters, or gives something else.
    pub fn remove(&self, model: &dyn Module, arena: &Arena, keep: &[Vec<bool>], x: &Tensor) -> Result<Arena> {
        self.check(keep)?;
        let (table, buffers) = (arena.table(), arena.buffer_table());
        let cuts = self.cuts(keep, table.len());
        let mut buffer_cuts: Vec<[Option<Vec<bool>>; 2]> = vec![[None, None]; buffers.len()];
        for (g, keep) in self.groups.iter().zip(keep) {
            g.buffers.iter().for_each(|&row| buffer_cuts[row][0] = Some(keep.clone()));
        }
        let mut names = Builder::new();
        let mut root = names.root();
        for (e, cut) in table.entries().iter().zip(&cuts) {
            let shape = cut_shape(&e.shape, cut);
            let id = if e.decay {
                root.param(&e.name, &shape, e.init)
            } else {
                root.param_without_decay(&e.name, &shape, e.init)
            };
            root.layout(
                id,
                match (e.layout, shape.last()) {
                    (Layout::Flattened([h, w, _]), Some(last)) => Layout::Flattened([h, w, last / (h * w).max(1)]),
                    (layout, _) => layout,
                },
            );
        }
        for (e, cut) in buffers.entries().iter().zip(&buffer_cuts) {
            root.buffer(&e.name, &cut_shape(&e.shape, cut), 0.0);
        }
        let mut small = Arena::new(arena.gpu(), &names, 0)?;
        let all_cuts = || cuts.iter().chain(&buffer_cuts);
        let state = arena.state()?.into_iter().zip(all_cuts());
        let state: Vec<_> = state
            .map(|((name, shape, data), cut)| (name, cut_shape(&shape, cut), cut_data(&shape, cut, &data)))
            .collect();
        small.load(&state)?;
        if let Some(mask) = arena.mask_flat() {
            let mask = mask.to_vec()?;
            let mut flat = vec![1.0; small.table().floats()];
            for ((from, to), cut) in table.entries().iter().zip(small.table().entries()).zip(&cuts) {
                let kept = cut_data(&from.shape, cut, &mask[from.offset..][..from.len]);
                flat[to.offset..][..to.len].copy_from_slice(&kept);
            }
            small.set_mask_flat(&Tensor::from_slice(arena.gpu(), &flat, &[flat.len()])?)?;
        }
        for e in table.entries() {
            if arena.is_frozen(&e.name)? {
                small.freeze(&e.name)?;
            }
        }
        let mut masked = arena.fork()?;
        self.mask(&mut masked, keep)?;
        let run = |arena: &Arena| no_grad(|| model.forward(&Cx::eval(arena), x)?.to_vec());
        let (want, got) = (run(&masked)?, run(&small)?);
        let scale = want.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        let apart = want.iter().zip(&got).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        if want.len() != got.len() || apart.is_nan() || apart > 1e-3 * scale {
            return Err(Error::value(
                "Units",
                format!(
                    "without the units the model's result is off by {apart}; it does something with them that was not seen"
                ),
            ));
        }
        Ok(small)
    }
}

/// Whether each element stays.
fn stays<'a>(shape: &[usize], [rows, columns]: &'a [Option<Vec<bool>>; 2]) -> impl Iterator<Item = bool> + 'a {
    let len: usize = shape.iter().product();
    let last = shape.last().copied().unwrap_or(1).max(1);
    let per_row = len / shape.first().copied().unwrap_or(1).max(1);
    (0..len).map(move |i| {
        rows.as_ref().is_none_or(|keep| keep[i / per_row]) && columns.as_ref().is_none_or(|keep| keep[i % last])
    })
}

fn cut_shape(shape: &[usize], [rows, columns]: &[Option<Vec<bool>>; 2]) -> Vec<usize> {
    let mut shape = shape.to_vec();
    let count = |keep: &[bool]| keep.iter().filter(|k| **k).count();
    if let (Some(keep), Some(first)) = (rows, shape.first_mut()) {
        *first = count(keep);
    }
    if let (Some(keep), Some(last)) = (columns, shape.last_mut()) {
        *last = count(keep);
    }
    shape
}

fn cut_data(shape: &[usize], cut: &[Option<Vec<bool>>; 2], data: &[f32]) -> Vec<f32> {
    data.iter().zip(stays(shape, cut)).filter(|(_, stays)| *stays).map(|(v, _)| *v).collect()
}

/// Seconds of a forward pass in evaluation with each of the arenas, the fastest of `times` after one that warms up; the device
/// is waited for. They take turns, and the fastest is what a machine that is busy with other things disturbs least.
///
/// # Errors
/// Those of the model.
pub(crate) fn seconds_per_pass(model: &dyn Module, arenas: &[&Arena], x: &Tensor, times: usize) -> Result<Vec<f64>> {
    let run = |arena: &Arena| no_grad(|| model.forward(&Cx::eval(arena), x)?.to_vec());
    let mut seconds = vec![f64::INFINITY; arenas.len()];
    for turn in 0..=times.max(1) {
        for (arena, seconds) in arenas.iter().zip(&mut seconds) {
            let start = Instant::now();
            run(arena)?;
            if turn > 0 {
                *seconds = seconds.min(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(seconds)
}
