//! The static network: built anew without what is closed, with the trained values.

use std::collections::HashMap;

use shadegrad::autograd::no_grad;
use shadegrad::nn::{Arena, Builder, Cx, Module, Stats, Table, Weight};
use shadegrad::train::Images;
use shadegrad::{Error, Result, Tensor};

use super::flops::flops;
use super::gated::{Gated, batches};
use super::unit::{Place, Shape};
use super::vote::Keep;

/// A network without gates and without what they closed.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, Keep, ResidualMlp, Shape};
/// use shadegrad_models::papers::consensus_subnetwork::Extracted;
/// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
/// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
/// # let mut names = Builder::new();
/// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
/// # let keep = Keep { units: vec!["blocks.0".into(), "blocks.1".into()], open: vec![vec![true], vec![false]] };
/// // Two residual blocks with gates; `keep` closes the second one.
/// let Extracted { model, arena: small, .. } = gated.extract(&arena, &keep, &x)?;
/// let gone = |e: &Entry| e.name.starts_with("gates.") || e.name.starts_with("blocks.1.");
/// assert!(!small.table().entries().iter().any(gone));
/// assert_eq!(model.forward(&Cx::eval(&small), &x)?.shape(), [4, 3]);
/// # Ok::<(), Error>(())
/// ```
pub struct Extracted<M> {
    /// The network.
    pub model: M,
    /// Its values.
    pub arena: Arena,
    /// What was saved.
    pub report: Report,
}

/// What an extraction saved. Operations are those of convolutions and linear layers for one sample, two for a multiply-add.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, GateForm, Gated, Keep, ResidualMlp, Shape};
/// use shadegrad_models::papers::consensus_subnetwork::Report;
/// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
/// # let config = GateConfig { form: GateForm::Free, ..GateConfig::default() };
/// # let mut names = Builder::new();
/// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), config)?;
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let x = Tensor::ones(&gpu, &[4, 8, 8, 1])?;
/// # let keep = Keep { units: vec!["blocks.0".into(), "blocks.1".into()], open: vec![vec![true], vec![false]] };
/// // Two residual blocks with gates; `keep` closes the second one.
/// let report: Report = gated.extract(&arena, &keep, &x)?.report;
/// assert_eq!(report.parameters, (867, 707)); // a block has 160
/// assert_eq!((report.gate_parameters, report.removed), (2, vec!["blocks.1".to_string()]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Operations of the whole network without gates, and of what is left.
    pub flops: (f64, f64),
    /// Parameters of the whole network without gates, and of what is left.
    pub parameters: (usize, usize),
    /// Parameters of the gates, which are gone.
    pub gate_parameters: usize,
    /// Branches that are gone, and units that lost channels.
    pub removed: Vec<String>,
}

impl<M: Module> Gated<M> {
    /// The shape that `keep` leaves.
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
    /// # let keep = Keep { units: vec!["blocks.0".into(), "blocks.1".into()], open: vec![vec![true], vec![false]] };
    /// // Two residual blocks with gates; `keep` closes the second one.
    /// let shape = gated.shape(&keep)?;
    /// assert!(shape.has("blocks.0") && !shape.has("blocks.1"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `keep` is that of another model.
    pub fn shape(&self, keep: &Keep) -> Result<Shape> {
        self.check(keep)?;
        let mut shape = Shape::full();
        for (unit, open) in self.wiring.units.iter().zip(&keep.open).filter(|(_, open)| open.contains(&false)) {
            match &unit.place {
                Place::Branch { scope, .. } => _ = shape.closed.insert(scope.clone()),
                Place::Channels { conv, .. } => {
                    _ = shape.widths.insert(conv.clone(), open.iter().filter(|o| **o).count());
                }
            }
        }
        Ok(shape)
    }

    /// Builds the network that `keep` leaves and gives it the values in `arena`: closed branches are gone, layers are cut to
    /// the open channels, and there are no gates. `x` is a batch of samples to count operations on.
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
    /// # let keep = Keep { units: vec!["blocks.0".into(), "blocks.1".into()], open: vec![vec![true], vec![false]] };
    /// // Two residual blocks with gates; `keep` closes the second one.
    /// let small = gated.extract(&arena, &keep, &x)?;
    /// assert_eq!(small.report.flops, (1584.0, 1584.0 - 256.0));
    /// let (all, left) = (gated.frozen(&keep)?.forward(&Cx::eval(&arena), &x)?, Cx::eval(&small.arena));
    /// assert_eq!(all.to_vec()?, small.model.forward(&left, &x)?.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `keep` is that of another model, a closed branch has no shortcut around it, or the constructor built something
    /// else than its shape said.
    pub fn extract(&self, arena: &Arena, keep: &Keep, x: &Tensor) -> Result<Extracted<M>> {
        let shape = self.shape(keep)?;
        self.refuse_disconnection(arena, keep, x)?;
        let mut names = Builder::new();
        let model = (self.make)(&mut names.root(), &shape)?;
        let small = Arena::new(arena.gpu(), &names, 0)?;
        let cuts = self.cuts(keep);
        let old: HashMap<String, Weight> = arena.state()?.into_iter().map(|w| (w.0.clone(), w)).collect();
        let gone = |name: &str| {
            let within = |scope: &String| name.strip_prefix(scope.as_str()).is_some_and(|rest| rest.starts_with('.'));
            name.starts_with("gates.") || shape.closed.iter().any(within)
        };
        let tables = [small.table(), small.buffer_table()];
        let known = |name: &str| tables.iter().any(|t| t.find(name).is_some());
        if let Some(extra) = old.keys().filter(|n| !gone(n) && !known(n)).min() {
            return Err(Error::value("extract", format!("the network that was built lacks `{extra}`, which is not closed")));
        }
        let mut state = Vec::new();
        for e in tables.iter().flat_map(|t: &&std::sync::Arc<Table>| t.entries()) {
            let Some(whole) = old.get(&e.name).filter(|_| !gone(&e.name)) else {
                return Err(Error::value(
                    "extract",
                    format!("the network that was built has `{}`, which is closed; ask `Shape::has` for its branch", e.name),
                ));
            };
            let weight = cut(whole, &cuts);
            if weight.1 != e.shape {
                return Err(Error::shape(
                    "extract",
                    format!(
                        "`{}` is {:?} in the network that was built, {:?} is left; ask `Shape::width` how wide a layer is",
                        e.name, e.shape, weight.1
                    ),
                ));
            }
            state.push(weight);
        }
        small.load(&state)?;
        let count = |model: &M, arena: &Arena| {
            Ok::<_, Error>(flops(model, &Cx::eval(arena), x)?.iter().map(|l| l.1).sum::<f64>())
        };
        let of_gates = |e: &&shadegrad::nn::Entry| e.name.starts_with("gates.");
        let gate_parameters = arena.table().entries().iter().filter(of_gates).map(|e| e.len).sum();
        let units = self.wiring.units.iter().zip(&keep.open);
        let report = Report {
            flops: (count(self.model(), arena)?, count(&model, &small)?),
            parameters: (arena.table().numel() - gate_parameters, small.table().numel()),
            gate_parameters,
            removed: units.filter(|(_, open)| open.contains(&false)).map(|(u, _)| u.name().to_string()).collect(),
        };
        Ok(Extracted { model, arena: small, report })
    }

    /// Which elements stay along the first (`true`) or last dimension of which parameter or buffer.
    fn cuts(&self, keep: &Keep) -> HashMap<String, Vec<(bool, Vec<usize>)>> {
        let mut cuts: HashMap<String, Vec<(bool, Vec<usize>)>> = HashMap::new();
        for (unit, open) in self.wiring.units.iter().zip(&keep.open) {
            let Place::Channels { conv, norm, next } = &unit.place else { continue };
            let kept: Vec<usize> = (0..open.len()).filter(|&c| open[c]).collect();
            let mut add = |name: String, first| cuts.entry(name).or_default().push((first, kept.clone()));
            for part in ["weight", "bias"] {
                add(format!("{conv}.{part}"), true);
            }
            for part in ["weight", "bias", "running_mean", "running_var"] {
                norm.iter().for_each(|norm| add(format!("{norm}.{part}"), true));
            }
            add(format!("{next}.weight"), false);
        }
        cuts
    }
}

/// What is left of a parameter.
fn cut(whole: &Weight, cuts: &HashMap<String, Vec<(bool, Vec<usize>)>>) -> Weight {
    let (name, mut shape, mut data) = whole.clone();
    for (first, kept) in cuts.get(&name).into_iter().flatten() {
        let axis = if *first { 0 } else { shape.len() - 1 };
        let inner: usize = shape[axis + 1..].iter().product();
        let row = shape[axis] * inner;
        let pick = |row: &[f32]| kept.iter().flat_map(|&c| row[c * inner..][..inner].to_vec()).collect::<Vec<_>>();
        data = data.chunks(row.max(1)).flat_map(pick).collect();
        shape[axis] = kept.len();
    }
    (name, shape, data)
}

/// Runs `model` over `data` once in training's normalisation without training, so that running statistics follow what is
/// left of the network. Not part of the paper.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::consensus_subnetwork::refresh_statistics;
/// let mut names = Builder::new();
/// let norm = BatchNorm2d::new(&mut names.root().sub("norm"), 64);
/// let model = Sequential::new().then(Flatten).then(norm);
/// let arena = Arena::new(&gpu, &names, 0)?;
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// refresh_statistics(&model, &arena, &images, 10)?;
/// assert!(arena.buffers().by_name("norm.running_mean")?.to_vec()?.iter().any(|m| *m != 0.0));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of the model; if the batch is 0.
pub fn refresh_statistics(model: &dyn Module, arena: &Arena, data: &Images, batch: usize) -> Result<()> {
    let cx = Cx::eval(arena).with_stats(Stats::Update);
    for indices in batches(data, batch)? {
        no_grad(|| model.forward(&cx, &data.plain(&indices)?.images))?;
    }
    Ok(())
}
