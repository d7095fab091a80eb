//! The wrapper: gates around a model's own forward pass, by hooks on the names of its layers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shadegrad::autograd::{GradOptions, enable_grad, grad_with, no_grad, recording};
use shadegrad::nn::{Arena, Builder, Cx, Module, Scope};
use shadegrad::train::Images;
use shadegrad::{Error, Result, Tensor};

use super::flops::flops;
use super::gate::{Gate, GateConfig};
use super::unit::{Place, Shape, Unit};
use super::vote::{Consensus, GateMeter, Keep};

/// The names of the gates' parameters, for [`Arena::group`], [`Arena::freeze`] and their like.
pub const GATES: &str = "gates.*";

type Make<M> = dyn Fn(&mut Scope<'_>, &Shape) -> Result<M> + Send + Sync;

/// A model with gates.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::consensus_subnetwork::{GateConfig, Gated, ResidualMlp, Shape};
/// let mut names = Builder::new();
/// let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
/// let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), GateConfig::default())?;
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let out = gated.run(&Cx::train(&arena), &Tensor::ones(&gpu, &[4, 8, 8, 1])?)?;
/// assert_eq!((out.logits.shape(), out.gates[1].shape()), (&[4, 3][..], &[4, 1][..]));
/// # Ok::<(), Error>(())
/// ```
pub struct Gated<M> {
    model: M,
    pub(super) make: Box<Make<M>>,
    pub(super) wiring: Arc<Wiring>,
}

/// Units by the name of a layer.
type Layers = HashMap<String, Vec<usize>>;

/// Which unit has what to do at which layer.
pub(super) struct Wiring {
    pub(super) units: Vec<Unit>,
    gates: Vec<Gate>,
    /// Gates of each unit.
    pub(super) widths: Vec<usize>,
    reads: Layers,
    by_input: Layers,
    by_output: Layers,
}

/// Where gates come from.
enum Drive {
    Learned,
    Fixed(Vec<Fixed>),
}

/// One unit of a static network.
enum Fixed {
    Open,
    Closed,
    /// `[channels]`.
    Mask(Tensor),
}

/// What a forward pass saw of one unit.
#[derive(Clone, Default)]
struct Seen {
    input: Option<Tensor>,
    gates: Option<Tensor>,
    applied: bool,
}

/// What a gated network gives.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
/// use shadegrad_models::papers::consensus_subnetwork::GatedOutput;
/// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
/// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
/// # let mut names = Builder::new();
/// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
/// // Two residual blocks of width 8, with a gate each that is open at first.
/// let out: GatedOutput = gated.run(&Cx::train(&arena), &x)?;
/// assert_eq!(out.gates[0].to_vec()?, [1.0; 4]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GatedOutput {
    /// The model's own result.
    pub logits: Tensor,
    /// For each unit `[B, 1]` (a branch) or `[B, channels]`: ones and zeros, with the gradient of the gate's step.
    pub gates: Vec<Tensor>,
}

/// Multiply-adds times two of what is gated, for one sample.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
/// use shadegrad_models::papers::consensus_subnetwork::Costs;
/// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
/// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
/// # let mut names = Builder::new();
/// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
/// // Two residual blocks of width 8, with a gate each that is open at first.
/// let costs: Costs = gated.costs(&arena, &x)?;
/// let block = 2.0 * 2.0 * 64.0; // two layers of 8 x 8 weights
/// assert_eq!(costs.units, [(block, 1), (block, 1)]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// For each unit what one of its gates decides about, and how many it has. Of a channel: its share of the layer that
    /// makes it and of the layer that takes it.
    pub units: Vec<(f64, usize)>,
    /// The whole model without gates.
    pub total: f64,
}

impl Costs {
    /// One cost for each gate, for [`super::ConsensusLoss::new`].
    ///
    /// ```
    /// use shadegrad_models::papers::consensus_subnetwork::Costs;
    /// // A branch, and a layer with three channels.
    /// let costs = Costs { units: vec![(100.0, 1), (20.0, 3)], total: 200.0 };
    /// assert_eq!(costs.gates(), [100.0, 20.0, 20.0, 20.0]);
    /// ```
    pub fn gates(&self) -> Vec<f64> {
        self.units.iter().flat_map(|&(cost, n)| std::iter::repeat_n(cost, n)).collect()
    }
}

impl<M: Module> Gated<M> {
    /// Builds the whole model by `make` in the root of `names`, and gates for `units` beside it under `gates`. The
    /// constructor asks the [`Shape`] it is given what to build: [`Gated::extract`] calls it again with less.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::consensus_subnetwork::{GateConfig, Gated, ResidualMlp, Shape, Unit};
    /// let mut names = Builder::new();
    /// let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// let misspelt = [Unit::layer("blocks.0", "nrom", "fc2")];
    /// assert!(Gated::new(&mut names, make, &misspelt, GateConfig::default()).is_err());
    /// let mut names = Builder::new();
    /// let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), GateConfig::default())?;
    /// assert_eq!(gated.units().len(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no units or one comes twice, a layer's name is unknown, channels do not fit, or `make` fails.
    pub fn new(
        names: &mut Builder,
        make: impl Fn(&mut Scope<'_>, &Shape) -> Result<M> + Send + Sync + 'static,
        units: &[Unit],
        config: GateConfig,
    ) -> Result<Self> {
        let wrong = |what: String| Err(Error::value("Gated", what));
        if units.is_empty() {
            return wrong("there is no unit; name the residual branches or channels that may go".into());
        }
        let model = make(&mut names.root(), &Shape::full())?;
        let (params, _) = names.tables()?;
        if params.entries().iter().any(|e| e.name.starts_with("gates.")) {
            return wrong("the model has a scope `gates`, which is that of the gates; call its own something else".into());
        }
        let (mut gates, mut widths) = (Vec::new(), Vec::new());
        let (mut reads, mut by_input, mut by_output) = (Layers::new(), Layers::new(), Layers::new());
        for (i, unit) in units.iter().enumerate() {
            if units[..i].iter().any(|u| u.name == unit.name && u.place == unit.place) {
                return wrong(format!("unit `{}` comes twice", unit.name));
            }
            let (inputs, outputs) = unit.sizes(&params)?;
            // A branch and its first convolution may both be units: what is gated tells them apart.
            let kind = if matches!(unit.place, Place::Branch { .. }) { "branch" } else { "channels" };
            gates.push(Gate::new(&mut names.root().sub("gates").sub(&unit.name).sub(kind), inputs, outputs, config));
            widths.push(outputs);
            reads.entry(unit.reads.clone()).or_default().push(i);
            match &unit.place {
                Place::Branch { last, .. } => by_output.entry(last.clone()).or_default().push(i),
                Place::Channels { next, .. } => by_input.entry(next.clone()).or_default().push(i),
            }
        }
        let wiring = Wiring { units: units.to_vec(), gates, widths, reads, by_input, by_output };
        Ok(Self { model, make: Box::new(make), wiring: Arc::new(wiring) })
    }

    /// The model without its gates: what it computes with all of them open, as in a warm-up. The gates then get no gradient:
    /// say so with [`Arena::allow_missing`] and [`GATES`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
    /// // Two residual blocks of width 8, with a gate each that is open at first.
    /// let plain = gated.model().forward(&Cx::eval(&arena), &x)?;
    /// assert_eq!(plain.to_vec()?, gated.run(&Cx::eval(&arena), &x)?.logits.to_vec()?); // all gates are open
    /// # Ok::<(), Error>(())
    /// ```
    pub fn model(&self) -> &M {
        &self.model
    }

    /// What is gated, in the order of the gates.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
    /// // Two residual blocks of width 8, with a gate each that is open at first.
    /// assert_eq!(gated.units()[1].name(), "blocks.1");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn units(&self) -> &[Unit] {
        &self.wiring.units
    }

    /// The model's result with every unit multiplied by its gate, and the gates. A unit may not lie in a segment that is
    /// computed twice ([`Cx::checkpoint`]) while it is trained.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
    /// // Two residual blocks of width 8, with a gate each that is open at first.
    /// let out = gated.run(&Cx::train(&arena), &x)?;
    /// assert_eq!(out.logits.shape(), [4, 3]);
    /// assert!(out.gates.iter().all(|g| g.shape() == [4, 1] && g.requires_grad()));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the model; if a unit's layers did not come by in order, or a branch has not the shape of what goes around.
    pub fn run(&self, cx: &Cx, x: &Tensor) -> Result<GatedOutput> {
        let (logits, seen) = self.drive(cx, x, Drive::Learned)?;
        let mut gates = Vec::with_capacity(seen.len());
        for (i, s) in seen.into_iter().enumerate() {
            let gate = s.gates.ok_or_else(|| self.wiring.missed(i, &self.wiring.units[i].reads))?;
            if recording() && !gate.requires_grad() && cx.param(self.wiring.gates[i].last()).requires_grad() {
                return Err(Error::Gradient(format!(
                    "unit `{}` lies in a segment that is computed twice, where its gate has no gradient; train without the \
                     checkpoint around it",
                    self.wiring.units[i].name
                )));
            }
            gates.push(gate);
        }
        Ok(GatedOutput { logits, gates })
    }

    /// The static network that `keep` leaves, computed by the whole one: for a look at it while training goes on.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, Keep, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
    /// // Two residual blocks of width 8, with a gate each that is open at first.
    /// # let keep = Keep { units: vec!["blocks.0".into(), "blocks.1".into()], open: vec![vec![true], vec![false]] };
    /// // `keep` closes the second block.
    /// let logits = gated.frozen(&keep)?.forward(&Cx::eval(&arena), &x)?;
    /// let small = gated.extract(&arena, &keep, &x)?;
    /// assert_eq!(logits.to_vec()?, small.model.forward(&Cx::eval(&small.arena), &x)?.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `keep` is that of another model.
    pub fn frozen(&self, keep: &Keep) -> Result<Frozen<'_, M>> {
        self.check(keep)?;
        Ok(Frozen { gated: self, keep: keep.clone() })
    }

    /// A meter for this model's gates.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
    /// // Two residual blocks of width 8, with a gate each that is open at first.
    /// let mut meter = gated.meter();
    /// meter.push(&gated.run(&Cx::eval(&arena), &x)?.gates)?;
    /// assert_eq!(meter.read()?.mean, [[1.0], [1.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn meter(&self) -> GateMeter {
        GateMeter::new(self.wiring.units.iter().map(Unit::name).map(String::from).zip(self.wiring.widths.clone()).collect())
    }

    /// The mean of every gate over `data`, in inference mode.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::train::Images;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
    /// // Two residual blocks of width 8, with a gate each that is open at first.
    /// # let pair = shadegrad::data::digits();
    /// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
    /// # let images = Images::upload(&gpu, &few, &stats)?;
    /// let consensus = gated.consensus(&arena, &images, 16)?;
    /// assert_eq!((consensus.samples, consensus.agreement()), (20, (1.0, 1.0)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gated::run`]; if the batch is 0.
    pub fn consensus(&self, arena: &Arena, data: &Images, batch: usize) -> Result<Consensus> {
        let (cx, mut meter) = (Cx::eval(arena), self.meter());
        for indices in batches(data, batch)? {
            meter.push(&no_grad(|| self.run(&cx, &data.plain(&indices)?.images))?.gates)?;
        }
        meter.read()
    }

    /// The same cost for each gate: what remains is then the share of gates.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
    /// // Two residual blocks of width 8, with a gate each that is open at first.
    /// assert_eq!(gated.uniform_costs(), [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn uniform_costs(&self) -> Vec<f64> {
        vec![1.0; self.wiring.widths.iter().sum()]
    }

    /// What the units cost on samples like `x` `[B, ..]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
    /// // Two residual blocks of width 8, with a gate each that is open at first.
    /// let costs = gated.costs(&arena, &x)?;
    /// let (stem, blocks, head) = (2.0 * 64.0 * 8.0, 2.0 * 256.0, 2.0 * 8.0 * 3.0);
    /// assert_eq!(costs.total, stem + blocks + head);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the model.
    pub fn costs(&self, arena: &Arena, x: &Tensor) -> Result<Costs> {
        let layers = flops(&self.model, &Cx::eval(arena), x)?;
        let of = |wanted: &dyn Fn(&str) -> bool| layers.iter().filter(|l| wanted(&l.0)).map(|l| l.1).sum::<f64>();
        let unit = |(unit, &n): (&Unit, &usize)| match &unit.place {
            Place::Branch { scope, .. } => {
                (of(&|l| l.strip_prefix(scope.as_str()).is_some_and(|rest| rest.starts_with('.'))), 1)
            }
            Place::Channels { conv, next, .. } => ((of(&|l| l == conv) + of(&|l| l == next)) / n as f64, n),
        };
        let units = self.wiring.units.iter().zip(&self.wiring.widths).map(unit).collect();
        Ok(Costs { units, total: of(&|_| true) })
    }

    /// Refuses what belongs to another model.
    pub(super) fn check(&self, keep: &Keep) -> Result<()> {
        let theirs: Vec<usize> = keep.open.iter().map(Vec::len).collect();
        if theirs == self.wiring.widths && self.wiring.units.iter().map(Unit::name).eq(keep.units.iter()) {
            return Ok(());
        }
        Err(Error::value(
            "Gated",
            format!("gates {theirs:?} for units with {:?}; take the consensus of this model", self.wiring.widths),
        ))
    }

    /// Finds a branch that `keep` closes although nothing goes around it: what is behind would no longer depend on what is
    /// in front.
    pub(super) fn refuse_disconnection(&self, arena: &Arena, keep: &Keep, x: &Tensor) -> Result<()> {
        let (output, seen) = enable_grad(|| self.drive(&Cx::eval(arena), &x.leaf(), Drive::Fixed(fixed(x, keep)?)))?;
        let closed = |i: usize| keep.open[i] == [false] && matches!(self.wiring.units[i].place, Place::Branch { .. });
        // What a unit reads within a segment that is computed twice is a constant here, which says nothing.
        let input = |i: usize| seen[i].input.as_ref().filter(|t| t.requires_grad());
        let asked: Vec<(usize, &Tensor)> =
            (0..seen.len()).filter(|&i| closed(i)).filter_map(|i| Some((i, input(i)?))).collect();
        let inputs: Vec<&Tensor> = asked.iter().map(|a| a.1).collect();
        let options = GradOptions { allow_unused: true, ..GradOptions::default() };
        let reached = grad_with(&[&output.sum_all()?], &inputs, None, options)?;
        // In front of a gap nothing reaches the output: the last unit that does not is the gap.
        if let Some(((i, _), _)) = asked.iter().zip(reached).rfind(|(_, gradient)| gradient.is_none()) {
            return Err(Error::value(
                "Gated",
                format!(
                    "closing unit `{}` would cut the network in two: nothing goes around it. Only branches with an identity \
                     shortcut can be closed",
                    self.wiring.units[*i].name
                ),
            ));
        }
        Ok(())
    }

    fn drive(&self, cx: &Cx, x: &Tensor, drive: Drive) -> Result<(Tensor, Vec<Seen>)> {
        let seen = Arc::new(Mutex::new(vec![Seen::default(); self.wiring.units.len()]));
        let shared = Arc::new((cx.clone(), drive));
        let (wiring, sink, with) = (self.wiring.clone(), seen.clone(), shared.clone());
        let hooked = cx.replace_input("*", move |layer, x| {
            let mut seen = sink.lock().unwrap_or_else(PoisonError::into_inner);
            wiring.enter(&with, layer, x, &mut seen)
        });
        let (wiring, sink) = (self.wiring.clone(), seen.clone());
        let hooked = hooked.replace("*", move |layer, f| {
            let mut seen = sink.lock().unwrap_or_else(PoisonError::into_inner);
            wiring.leave(&shared.1, layer, f, &mut seen)
        });
        let out = self.model.forward(&hooked, x)?;
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((i, s)) = seen.iter().enumerate().find(|(_, s)| !s.applied) {
            let place = match &self.wiring.units[i].place {
                _ if s.input.is_none() => &self.wiring.units[i].reads,
                Place::Branch { last, .. } => last,
                Place::Channels { next, .. } => next,
            };
            return Err(self.wiring.missed(i, place));
        }
        Ok((out, seen))
    }
}

impl Wiring {
    /// At the input of a layer: multiplies channels by their gates, then lets the units decide that read here.
    fn enter(&self, (cx, drive): &(Cx, Drive), layer: &str, x: &Tensor, seen: &mut [Seen]) -> Result<Option<Tensor>> {
        let mut gated = None;
        for &i in self.by_input.get(layer).into_iter().flatten() {
            let x = gated.as_ref().unwrap_or(x);
            gated = Some(match drive {
                Drive::Learned => self.multiply(i, x, seen[i].gates.as_ref())?,
                Drive::Fixed(fixed) => match &fixed[i] {
                    Fixed::Mask(mask) => x.mul(mask)?,
                    Fixed::Open | Fixed::Closed => x.clone(),
                },
            });
            seen[i].applied = true;
        }
        let x = gated.as_ref().unwrap_or(x);
        for &i in self.reads.get(layer).into_iter().flatten() {
            if matches!(drive, Drive::Learned) {
                seen[i].gates = Some(self.gates[i].decide(cx, x)?);
            }
            seen[i].input = Some(x.clone());
        }
        Ok(gated)
    }

    /// At the result of a layer: multiplies branches by their gates.
    fn leave(&self, drive: &Drive, layer: &str, f: &Tensor, seen: &mut [Seen]) -> Result<Option<Tensor>> {
        let mut gated = None;
        for &i in self.by_output.get(layer).into_iter().flatten() {
            let f = gated.as_ref().unwrap_or(f);
            let Some(input) = &seen[i].input else { return Err(self.missed(i, &self.units[i].reads)) };
            let ends = |t: &Tensor| (t.shape().first().copied(), t.shape().last().copied(), t.numel());
            if ends(input) != ends(f) {
                return Err(Error::shape(
                    "Gated",
                    format!(
                        "unit `{}` takes {:?} and gives {:?}: nothing can go around it unchanged, so it must exist; leave it \
                         out of the units",
                        self.units[i].name,
                        input.shape(),
                        f.shape()
                    ),
                ));
            }
            gated = Some(match drive {
                Drive::Learned => self.multiply(i, f, seen[i].gates.as_ref())?,
                Drive::Fixed(fixed) => match &fixed[i] {
                    Fixed::Closed => Tensor::zeros(f.gpu(), f.shape())?,
                    Fixed::Open | Fixed::Mask(_) => f.clone(),
                },
            });
            seen[i].applied = true;
        }
        Ok(gated)
    }

    /// `t [B, .., C]` times the gates `[B, 1]` or `[B, C]` of unit `i`.
    fn multiply(&self, i: usize, t: &Tensor, gates: Option<&Tensor>) -> Result<Tensor> {
        let Some(g) = gates else { return Err(self.missed(i, &self.units[i].reads)) };
        let mut shape = vec![1; t.rank()];
        (shape[0], shape[t.rank() - 1]) = (g.dim(0), g.dim(1));
        if t.dim(0) != g.dim(0) {
            return Err(Error::shape(
                "Gated",
                format!(
                    "unit `{}` decided about {} samples, what it gates is {:?}; samples must come first in both",
                    self.units[i].name,
                    g.dim(0),
                    t.shape()
                ),
            ));
        }
        t.mul(&g.reshape(&shape)?)
    }

    fn missed(&self, i: usize, place: &str) -> Error {
        let name = &self.units[i].name;
        Error::value(
            "Gated",
            format!("unit `{name}`: `{place}` did not come by in time; the gate's layer must run before what it gates"),
        )
    }
}

impl<M: Module> Module for Gated<M> {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        Ok(self.drive(cx, x, Drive::Learned)?.0)
    }
}

/// A static network within the gated one: see [`Gated::frozen`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, Keep, Shape};
/// use shadegrad_models::papers::consensus_subnetwork::{Frozen, ResidualMlp};
/// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
/// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
/// # let mut names = Builder::new();
/// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
/// // Two residual blocks of width 8, with a gate each that is open at first.
/// # let keep = Keep { units: vec!["blocks.0".into(), "blocks.1".into()], open: vec![vec![true], vec![false]] };
/// // A model as any other, for an evaluation while training goes on.
/// let frozen: Frozen<'_, ResidualMlp> = gated.frozen(&keep)?;
/// assert_eq!(frozen.forward(&Cx::eval(&arena), &x)?.shape(), [4, 3]);
/// # Ok::<(), Error>(())
/// ```
pub struct Frozen<'g, M> {
    gated: &'g Gated<M>,
    keep: Keep,
}

impl<M: Module> Module for Frozen<'_, M> {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        Ok(self.gated.drive(cx, x, Drive::Fixed(fixed(x, &self.keep)?))?.0)
    }
}

/// What `keep` says to each unit.
fn fixed(x: &Tensor, keep: &Keep) -> Result<Vec<Fixed>> {
    let unit = |open: &Vec<bool>| match &open[..] {
        _ if !open.contains(&false) => Ok(Fixed::Open),
        [_] => Ok(Fixed::Closed),
        _ => {
            let ones: Vec<f32> = open.iter().map(|&o| f32::from(u8::from(o))).collect();
            Ok(Fixed::Mask(Tensor::from_slice(x.gpu(), &ones, &[ones.len()])?))
        }
    };
    keep.open.iter().map(unit).collect()
}

/// All samples in their order.
pub(super) fn batches(data: &Images, batch: usize) -> Result<impl Iterator<Item = Vec<u32>> + use<>> {
    let n = data.len();
    if batch == 0 {
        return Err(Error::value("Gated", "a batch of 0 samples; give at least 1"));
    }
    Ok((0..n).step_by(batch).map(move |start| (start as u32..(start + batch).min(n) as u32).collect()))
}
