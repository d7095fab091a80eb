//! Activate-while-pruning: Liu, Ghosh, Tan and Motani, "AP: Selective Activation for De-sparsifying Pruned Neural
//! Networks", 2022, arXiv 2212.06145 (TMLR 2023).
//!
//! In a pruned ReLU network many units are silent, and its capacity is small already. AP goes along with any pruning of
//! single weights in cycles: of the `p` per cent that go in each, a few (`q`) are not the smallest ones but *negative weights
//! that training barely moved* ([`prune_cycle`]). Without a negative weight from a unit that is never negative, a unit's
//! sum can only rise, so it fires for more inputs. [`dead_neuron_rates`] measures that, [`ActivateWhilePruning`] runs the
//! cycles around a training loop of one's own:
//!
//! ```no_run
//! # use shadegrad::{Gpu, Options, Result, data::digits, nn::{Arena, Builder, Cx}, train::{FitOptions, Images, NoHooks}};
//! # use shadegrad_models::{Spec, create};
//! use shadegrad::optim::{Optimizer, Rule};
//! use shadegrad::train::{Trainer, evaluate};
//! use shadegrad_models::papers::activating_while_pruning::{ActivateWhilePruning, Config, dead_neuron_rates};
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
//! # let stats = pair.train.channel_stats()?;
//! # let (train, test) = (Images::upload(&gpu, &pair.train, &stats)?, Images::upload(&gpu, &pair.test, &stats)?);
//! let mut names = Builder::new();
//! let model = create("cnn", &mut names.root(), &spec)?;
//! let mut arena = Arena::new(&gpu, &names, 0)?;
//!
//! // 20 per cent of the weights of matrices and filters in each of ten cycles, a tenth of them chosen by AP.
//! let mut ap = ActivateWhilePruning::new(&arena, Config::default(), |e| e.shape.len() > 1)?;
//! ap.run(&mut arena, 10, |arena, phase| {
//!     // A new optimiser each time: no momentum is left over from before the rewind.
//!     let mut optimizer = Optimizer::new(arena, Rule::sgd(5e-4))?;
//!     let options = FitOptions { epochs: 8, ..FitOptions::default() };
//!     Trainer::new(model.as_ref(), arena, &mut optimizer, |_| 0.05, options).fit(&train, None, &mut NoHooks)?;
//!     let accuracy = evaluate(model.as_ref(), &Cx::eval(arena), &test, 250)?.accuracy;
//!     let dead = dead_neuron_rates(model.as_ref(), arena, &test, 1000)?;
//!     println!("{:.1} % left: accuracy {accuracy:.3}, dynamic rate {:.3}", 100.0 * phase.remaining, dead.dynamic);
//!     Ok(())
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! The sign argument needs inputs that are not negative (pixels in `[0, 1]`, outputs of ReLU). On pictures with their mean
//! taken off it does not hold in the first layer, and batch normalisation by the batch between weights and ReLU undoes it in
//! training.
//!
//! The base method may be any: [`crate::papers::shared::prune`] has magnitude, gradient, LAMP and random scores, globally and
//! by layer, and movement; scores of one's own go in as [`Base::Scores`]. [`GradualAp`] prunes little by little instead of in
//! cycles.

mod dead;
mod recipe;
#[cfg(test)]
mod tests;

pub use dead::{DeadNeuronCounter, DeadNeurons, DeadOptions, LayerDead, dead_neuron_rates};

use shadegrad::nn::{Arena, Entry, Snapshot};
use shadegrad::optim::Optimizer;
use shadegrad::rng::Stream;
use shadegrad::train::Hooks;
use shadegrad::{Error, Result, Tensor};

use super::Paper;
use super::shared::mask::lowest;
use super::shared::prune::{Criterion, Gradual, LayerCount, Pooling, PruneMasks};

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "activating-while-pruning",
    title: "AP: Selective Activation for De-sparsifying Pruned Neural Networks",
    source: "arXiv 2212.06145, TMLR 2023",
    claim: "removing some barely trained negative weights along with the small ones keeps ReLU units alive and pruned networks accurate",
    data: "MNIST",
    seeds: 3,
    recipe: Some(recipe::run),
};

/// Stream of a seed that the random part of [`ApSign::Random`] is drawn from.
const RANDOM: u64 = 0x4150_0000_0000_0000;

/// What the base method removes first.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::activating_while_pruning::{Base, CycleConfig, prune_cycle};
/// use shadegrad_models::papers::shared::prune::PruneMasks;
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // A model with the weights 0.1, -4, 2 and -0.3.
/// let mut masks = PruneMasks::of_matrices(&arena)?;
/// // The base method takes the weight of the lowest score; AP has no part in it.
/// let base = Base::Scores(vec![3.0, 2.0, 1.0, 4.0]);
/// let config = CycleConfig { total: 0.3, ap: 0.0, base, ..CycleConfig::default() };
/// let report = prune_cycle(&mut masks, &arena, &[0.0; 4], &config)?;
/// assert_eq!(report.removed_base, [2]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// The weights that score lowest by this criterion.
    Criterion(Criterion),
    /// The lowest of these scores, one for each weight of the pool.
    Scores(Vec<f32>),
}

/// Which weights AP's part is chosen from. The paper's is the first; the others tell its effect from that of any other
/// choice.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::activating_while_pruning::{ApSign, CycleConfig, prune_cycle};
/// use shadegrad_models::papers::shared::prune::PruneMasks;
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // A model with the weights 0.1, -4, 2 and -0.3.
/// let mut masks = PruneMasks::of_matrices(&arena)?;
/// // The smallest weight, 0.1, goes by the base method; of the rest only 2.0 is positive.
/// let config = CycleConfig { total: 0.5, ap: 0.25, sign: ApSign::Positive, ..CycleConfig::default() };
/// let report = prune_cycle(&mut masks, &arena, &[0.1, -4.0, 2.0, -0.9], &config)?;
/// assert_eq!(report.removed_ap, [2]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApSign {
    /// Negative ones that training barely moved.
    Negative,
    /// Positive ones that training barely moved.
    Positive,
    /// Any, at random with this seed.
    Random(u64),
}

/// What a cycle removes.
///
/// ```
/// use shadegrad_models::papers::activating_while_pruning::{ApSign, CycleConfig};
/// let CycleConfig { total, ap, sign, .. } = CycleConfig::default();
/// assert_eq!((total, ap, sign), (0.2, 0.02, ApSign::Negative));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CycleConfig {
    /// Share of the weights that are left which goes in all; 0.2 in the paper's script.
    pub total: f64,
    /// Share of them that AP chooses, out of `total`; 0.02 in the script. 0 is the base method alone.
    pub ap: f64,
    /// What the rest is chosen by.
    pub base: Base,
    /// Whether the base method works on all layers together.
    pub pooling: Pooling,
    /// Which weights AP takes.
    pub sign: ApSign,
}

impl Default for CycleConfig {
    /// 20 per cent, 18 of them by global magnitude.
    fn default() -> Self {
        Self {
            total: 0.2,
            ap: 0.02,
            base: Base::Criterion(Criterion::Magnitude),
            pooling: Pooling::Global,
            sign: ApSign::Negative,
        }
    }
}

impl CycleConfig {
    fn check(&self) -> Result<()> {
        let (total, ap) = (self.total, self.ap);
        if (0.0..1.0).contains(&total) && (0.0..=total).contains(&ap) {
            return Ok(());
        }
        Err(Error::value(
            "prune_cycle",
            format!("{total} go, {ap} of them by AP; the first must lie in 0..1, the second between 0 and the first"),
        ))
    }
}

/// What a cycle removed.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::activating_while_pruning::{CycleConfig, CycleReport, prune_cycle};
/// use shadegrad_models::papers::shared::prune::PruneMasks;
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // A model with the weights 0.1, -4, 2 and -0.3.
/// let mut masks = PruneMasks::of_matrices(&arena)?;
/// let config = CycleConfig { total: 0.5, ap: 0.25, ..CycleConfig::default() };
/// let report: CycleReport = prune_cycle(&mut masks, &arena, &[0.1, -4.0, 2.0, -0.9], &config)?;
/// assert_eq!((report.removed_base, report.removed_ap, report.alive), (vec![0], vec![1], 2));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CycleReport {
    /// Positions in the pool that the base method chose, rising.
    pub removed_base: Vec<u32>,
    /// Positions that AP chose, rising.
    pub removed_ap: Vec<u32>,
    /// Positions that the base method gave in addition, because AP had too few to choose from.
    pub topped_up: Vec<u32>,
    /// Weights that are left.
    pub alive: usize,
    /// What each layer has left.
    pub layers: Vec<LayerCount>,
}

/// One pruning: the base method's part and then AP's, `K = floor(q n)` of the `n` weights that were left, chosen among
/// the negative ones that survived the base method by the smallest `|W_end - W_start|`. `arena` holds the weights after
/// the cycle's training, `start` those before it ([`PruneMasks::pool`] of the arena's values). The masks change; give
/// them to the arena by [`PruneMasks::apply`] or [`PruneMasks::rewind`].
///
/// However the parts are shared out, exactly [`PruneMasks::share`] of `total` go, so that all choices are at equal sparsity.
/// (The script takes the percentile of each part by itself, which differs by at most a weight.) Where fewer weights of
/// AP's kind exist than it is to choose, all of them go and the base method makes up for the rest.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::activating_while_pruning::{CycleConfig, prune_cycle};
/// use shadegrad_models::papers::shared::prune::PruneMasks;
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // In training only the last one moved.
/// let start = [0.1, -4.0, 2.0, -0.9];
/// let mut masks = PruneMasks::of_matrices(&arena)?;
/// let config = CycleConfig { total: 0.5, ap: 0.25, ..CycleConfig::default() };
/// let report = prune_cycle(&mut masks, &arena, &start, &config)?;
/// assert_eq!(report.removed_base, [0]); // the smallest
/// assert_eq!(report.removed_ap, [1]); // large, but negative, and it did not move
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If a share is out of range, `start` is that of other masks, or a weight is NaN.
pub fn prune_cycle(masks: &mut PruneMasks, arena: &Arena, start: &[f32], config: &CycleConfig) -> Result<CycleReport> {
    config.check()?;
    let alive = masks.alive();
    let total = masks.share(config.total);
    let by_ap = ((alive as f64 * config.ap + 1e-9).floor() as usize).min(total);
    prune_counts(masks, arena, start, config, (total - by_ap, by_ap))
}

/// [`prune_cycle`] by numbers: so many by the base method, so many by AP.
fn prune_counts(
    masks: &mut PruneMasks,
    arena: &Arena,
    start: &[f32],
    config: &CycleConfig,
    (by_base, by_ap): (usize, usize),
) -> Result<CycleReport> {
    let end = masks.pool(arena.values_flat())?;
    if start.len() != end.len() {
        return Err(Error::value(
            "prune_cycle",
            format!("{} first weights for {} masks; take `pool` of the same masks before training", start.len(), end.len()),
        ));
    }
    if let Some(at) = masks.positions().into_iter().find(|&at| end[at as usize].is_nan() || start[at as usize].is_nan()) {
        return Err(Error::NonFinite(format!("the weight at {at} of the pool is NaN; the training diverged")));
    }
    let scores = match &config.base {
        Base::Criterion(criterion) => masks.scores(arena, *criterion)?,
        Base::Scores(scores) => scores.clone(),
    };
    let removed_base = masks.remove_lowest(&scores, by_base, config.pooling)?;
    let left = masks.positions();
    let removed_ap = match config.sign {
        ApSign::Random(seed) => {
            let mut rng = Stream::new(seed, RANDOM).philox();
            let keys: Vec<f32> = (0..masks.len()).map(|_| rng.uniform_f64() as f32).collect();
            lowest(&left, by_ap, |at| keys[at as usize])
        }
        sign => {
            // Neither 0 nor -0 is of either kind.
            let of_kind = |&at: &u32| match sign {
                ApSign::Negative => end[at as usize] < 0.0,
                _ => end[at as usize] > 0.0,
            };
            let candidates: Vec<u32> = left.into_iter().filter(of_kind).collect();
            lowest(&candidates, by_ap, |at| (end[at as usize] - start[at as usize]).abs())
        }
    };
    masks.remove(&removed_ap)?;
    let topped_up = masks.remove_lowest(&scores, by_ap - removed_ap.len(), config.pooling)?;
    Ok(CycleReport { removed_base, removed_ap, topped_up, alive: masks.alive(), layers: masks.layers() })
}

/// AP in gradual pruning: at each pruning of the schedule the share `ap / total` of what goes is chosen by AP, with the weights
/// after the pruning before as `W_start`. A watcher for [`shadegrad::train::Trainer::fit`].
///
/// ```no_run
/// # use shadegrad::{Result, nn::{Arena, Module}, optim::Optimizer, train::{FitOptions, Images, Trainer}};
/// use shadegrad_models::papers::activating_while_pruning::{CycleConfig, GradualAp};
/// use shadegrad_models::papers::shared::prune::{Gradual, PruneMasks};
/// # fn run(model: &dyn Module, arena: &mut Arena, optimizer: &mut Optimizer, train: &Images) -> Result<()> {
/// let schedule = Gradual { first: 0.0, last: 0.9, begin: 500, every: 100, times: 30 };
/// let masks = PruneMasks::of_matrices(arena)?;
/// let mut ap = GradualAp::new(arena, masks, schedule, CycleConfig::default())?;
/// Trainer::new(model, arena, optimizer, |_| 1e-3, FitOptions::default()).fit(train, None, &mut ap)?;
/// # Ok(())
/// # }
/// ```
pub struct GradualAp {
    masks: PruneMasks,
    schedule: Gradual,
    config: CycleConfig,
    start: Vec<f32>,
}

impl GradualAp {
    /// Begins from the arena's present values and these masks. Of `config.total` and `config.ap` only the ratio counts.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::activating_while_pruning::{CycleConfig, GradualAp};
    /// use shadegrad_models::papers::shared::prune::{Gradual, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights 0.1, -4, 2 and -0.3.
    /// let schedule = Gradual { first: 0.0, last: 0.9, begin: 500, every: 100, times: 30 };
    /// let masks = PruneMasks::of_matrices(&arena)?;
    /// assert!(GradualAp::new(&arena, masks.clone(), schedule, CycleConfig::default()).is_ok());
    /// let nothing = CycleConfig { total: 0.0, ap: 0.0, ..CycleConfig::default() };
    /// assert!(GradualAp::new(&arena, masks, schedule, nothing).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gradual::check`]; if `config.total` is 0, or AP's share more than it.
    pub fn new(arena: &Arena, masks: PruneMasks, schedule: Gradual, config: CycleConfig) -> Result<Self> {
        schedule.check()?;
        config.check()?;
        if config.total == 0.0 {
            return Err(Error::value("GradualAp", "a total of 0; AP's share is `ap / total`, so give one above 0"));
        }
        Ok(Self { start: masks.pool(arena.values_flat())?, masks, schedule, config })
    }

    /// The masks as they are.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::activating_while_pruning::{CycleConfig, GradualAp};
    /// use shadegrad_models::papers::shared::prune::{Gradual, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights 0.1, -4, 2 and -0.3.
    /// let schedule = Gradual { first: 0.0, last: 0.9, begin: 500, every: 100, times: 30 };
    /// let masks = PruneMasks::of_matrices(&arena)?;
    /// let ap = GradualAp::new(&arena, masks, schedule, CycleConfig::default())?;
    /// assert_eq!(ap.masks().alive(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn masks(&self) -> &PruneMasks {
        &self.masks
    }

    /// After the update of step `step`, counted from 0: prunes if it is time, and says what went.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::activating_while_pruning::{CycleConfig, GradualAp};
    /// use shadegrad_models::papers::shared::prune::{Gradual, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights 0.1, -4, 2 and -0.3.
    /// let at_once = Gradual { first: 0.5, last: 0.5, begin: 10, every: 1, times: 0 };
    /// let config = CycleConfig { total: 0.2, ap: 0.1, ..CycleConfig::default() }; // half of what goes by AP
    /// let mut ap = GradualAp::new(&arena, PruneMasks::of_matrices(&arena)?, at_once, config)?;
    /// assert_eq!(ap.stepped(9, &mut arena)?, None);
    /// let report = ap.stepped(10, &mut arena)?.map(|r| (r.removed_base, r.removed_ap));
    /// assert_eq!(report, Some((vec![0], vec![1])));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prune_cycle`].
    pub fn stepped(&mut self, step: u64, arena: &mut Arena) -> Result<Option<CycleReport>> {
        if !self.schedule.is_due(step) {
            return Ok(None);
        }
        let due = self.schedule.due(step, &self.masks);
        let by_ap = (due as f64 * self.config.ap / self.config.total + 1e-9).floor() as usize;
        let report = prune_counts(&mut self.masks, arena, &self.start, &self.config, (due - by_ap, by_ap))?;
        self.masks.apply(arena)?;
        self.start = self.masks.pool(arena.values_flat())?;
        Ok(Some(report))
    }
}

impl Hooks for GradualAp {
    fn stepped(&mut self, step: u64, arena: &mut Arena, _: &mut Optimizer) -> Result<()> {
        self.stepped(step, arena).map(|_| ())
    }
}

/// What a cycle after the first begins from.
///
/// ```
/// use shadegrad_models::papers::activating_while_pruning::{Config, Restart};
/// let config = Config { restart: Restart::Reinit(7), ..Config::default() };
/// assert_ne!(config.restart, Config::default().restart); // which rewinds
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The network's first values, statistics and biases included: iterative magnitude pruning with a lottery ticket.
    Rewind,
    /// New random values each cycle, drawn with this seed and the cycle: the default of the paper's script.
    Reinit(u64),
}

/// How the cycles run.
///
/// ```
/// use shadegrad_models::papers::activating_while_pruning::{Config, CycleConfig, Restart};
/// let cycle = CycleConfig { total: 0.5, ap: 0.05, ..CycleConfig::default() };
/// let config = Config { cycle, twice: true, ..Config::default() };
/// assert_eq!(config.restart, Restart::Rewind);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What each removes.
    pub cycle: CycleConfig,
    /// What each begins from.
    pub restart: Restart,
    /// Whether each cycle trains again after its pruning, and prunes nothing after the first (the script's order). Without
    /// it the training of the next cycle is the retraining, at the cost of the base method.
    pub twice: bool,
}

impl Default for Config {
    /// [`CycleConfig::default`], rewound, one training a cycle.
    fn default() -> Self {
        Self { cycle: CycleConfig::default(), restart: Restart::Rewind, twice: false }
    }
}

/// A training that is due.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::activating_while_pruning::{ActivateWhilePruning, Config, Phase};
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // A model with the weights 0.1, -4, 2 and -0.3.
/// let mut ap = ActivateWhilePruning::new(&arena, Config::default(), |e| e.shape.len() > 1)?;
/// let mut seen: Vec<Phase> = Vec::new();
/// ap.run(&mut arena, 2, |_, phase| Ok(seen.push(phase)))?;
/// assert_eq!(seen[1], Phase { cycle: 1, again: false, remaining: 0.75 });
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// The cycle, from 0.
    pub cycle: usize,
    /// Whether it is the second training of the cycle, whose result counts.
    pub again: bool,
    /// Share of the prunable weights that are left.
    pub remaining: f64,
}

/// Trains and prunes a model in cycles.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::activating_while_pruning::{ActivateWhilePruning, Config, CycleConfig};
/// # let mut names = Builder::new();
/// # let w = names.root().param("w", &[2, 2], Init::Zeros);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
/// // A model with the weights 0.1, -4, 2 and -0.3.
/// let cycle = CycleConfig { total: 0.5, ap: 0.25, ..CycleConfig::default() };
/// let config = Config { cycle, ..Config::default() };
/// let mut ap = ActivateWhilePruning::new(&arena, config, |e| e.shape.len() > 1)?;
/// ap.run(&mut arena, 2, |arena, _| arena.set_value(w, &Tensor::ones(&gpu, &[2, 2])?))?;
/// assert_eq!(ap.masks().alive(), 2);
/// # Ok::<(), Error>(())
/// ```
pub struct ActivateWhilePruning {
    config: Config,
    masks: PruneMasks,
    init: Snapshot,
}

impl ActivateWhilePruning {
    /// Takes the arena's present values for the network's first ones; `prunable` chooses the parameters whose weights can
    /// go (biases never do in the paper: `|e| e.shape.len() > 1`).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::activating_while_pruning::{ActivateWhilePruning, Config};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights 0.1, -4, 2 and -0.3.
    /// let ap = ActivateWhilePruning::new(&arena, Config::default(), |e| e.shape.len() > 1)?;
    /// assert_eq!(ap.masks().len(), 4);
    /// assert!(ActivateWhilePruning::new(&arena, Config::default(), |_| false).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a share is out of range, or nothing is chosen.
    pub fn new(arena: &Arena, config: Config, prunable: impl Fn(&Entry) -> bool) -> Result<Self> {
        config.cycle.check()?;
        Ok(Self { masks: PruneMasks::new(arena, prunable)?, init: arena.snapshot()?, config })
    }

    /// The masks as they are.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::activating_while_pruning::{ActivateWhilePruning, Config};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights 0.1, -4, 2 and -0.3.
    /// let ap = ActivateWhilePruning::new(&arena, Config::default(), |_| true)?;
    /// assert_eq!(ap.masks().sparsity(), 0.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn masks(&self) -> &PruneMasks {
        &self.masks
    }

    /// Runs `cycles` cycles. `train` trains the arena from what it holds (with an optimiser of its own) and measures. The
    /// last training is followed by no pruning, so that the arena holds a trained network in the end. Returns what each
    /// pruning removed.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::activating_while_pruning::{ActivateWhilePruning, Config};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights 0.1, -4, 2 and -0.3.
    /// let mut ap = ActivateWhilePruning::new(&arena, Config::default(), |_| true)?;
    /// let mut left = Vec::new();
    /// let reports = ap.run(&mut arena, 3, |_arena, phase| {
    ///     left.push(phase.remaining); // here the arena is trained
    ///     Ok(())
    /// })?;
    /// assert_eq!(left, [1.0, 0.75, 0.5]);
    /// assert_eq!(reports.len(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `train` and of [`prune_cycle`].
    pub fn run(
        &mut self,
        arena: &mut Arena,
        cycles: usize,
        mut train: impl FnMut(&mut Arena, Phase) -> Result<()>,
    ) -> Result<Vec<CycleReport>> {
        let mut reports = Vec::new();
        for cycle in 0..cycles {
            if cycle > 0 {
                self.restart(arena, cycle)?;
            }
            let phase = |masks: &PruneMasks, again| Phase { cycle, again, remaining: 1.0 - masks.sparsity() };
            let start = self.masks.pool(arena.values_flat())?;
            train(arena, phase(&self.masks, false))?;
            let due = if self.config.twice { cycle > 0 } else { cycle + 1 < cycles };
            if !due {
                continue;
            }
            reports.push(prune_cycle(&mut self.masks, arena, &start, &self.config.cycle)?);
            if self.config.twice {
                self.masks.rewind(arena, &self.init)?;
                train(arena, phase(&self.masks, true))?;
            }
        }
        Ok(reports)
    }

    /// The masked first values of a cycle.
    fn restart(&mut self, arena: &mut Arena, cycle: usize) -> Result<()> {
        if let Restart::Reinit(seed) = self.config.restart {
            // Seeds of neighbouring cycles and of neighbouring runs must not meet.
            reinitialise(arena, seed.wrapping_mul(1 << 20).wrapping_add(cycle as u64))?;
            self.init = arena.snapshot()?;
        }
        self.masks.rewind(arena, &self.init)
    }
}

/// Draws all values of the arena anew, as its layers declare, and sets its statistics back.
///
/// # Errors
/// If the device refuses.
fn reinitialise(arena: &Arena, seed: u64) -> Result<()> {
    let draw = |table: &shadegrad::nn::Table| {
        let mut all = vec![0.0; table.floats()];
        for e in table.entries() {
            e.init.fill(&mut all[e.offset..][..e.len], &e.name, &e.shape, seed);
        }
        Tensor::from_slice(arena.gpu(), &all, &[all.len()])
    };
    arena.set_values_flat(&draw(arena.table())?)?;
    if arena.buffer_table().floats() == 0 {
        return Ok(());
    }
    arena.set_buffers_flat(&draw(arena.buffer_table())?)
}
