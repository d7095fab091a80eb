//! Training on the mini-batches of highest loss: Sahayam, Zakkam and Jayaraman, "Can we learn better with hard samples?",
//! 2023, arXiv 2304.03486.
//!
//! Mini-batches are cut once ([`BatchPlan`]). After one pass over all of them, each round trains only on the share
//! `delta` whose last recorded losses are highest ([`HardBatches`]), until as many updates were made as ordinary training
//! makes. Losses stay on the device and are read back once a round.
//!
//! On a model and data of one's own:
//!
//! ```
//! # use shadegrad::{Gpu, Options, data::digits, train::Images};
//! use shadegrad::nn::{Arena, Builder, Cx, Linear, Module};
//! use shadegrad::optim::{Optimizer, Rule};
//! use shadegrad::{CrossEntropy, Result, Tensor};
//! use shadegrad_models::papers::hard_samples::{BatchPlan, HardBatches, HardBatchesConfig, Policy};
//! struct Net(Linear, Linear);
//! impl Module for Net {
//!     fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
//!         self.1.forward(cx, &self.0.forward(cx, &x.flatten(1, 3)?)?.relu()?)
//!     }
//! }
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let images = Images::upload(&gpu, &pair.train, &pair.train.channel_stats()?)?;
//! # let epochs = 3;
//! let (mut names, width) = (Builder::new(), 32);
//! let hidden = Linear::new(&mut names.root().sub("hidden"), 64, width, true);
//! let model = Net(hidden, Linear::new(&mut names.root().sub("out"), width, 10, true));
//! let arena = Arena::new(&gpu, &names, 0)?;
//! let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
//! let plan = BatchPlan::new(images.len(), 64, Some(0))?;
//! let mut hard = HardBatches::new(HardBatchesConfig {
//!     batches: plan.len(),
//!     delta: 0.5,
//!     policy: Policy::Highest,
//!     budget: epochs * plan.len() as u64,
//!     refresh_every: None,
//! })?;
//! while hard.updates() < hard.budget() {
//!     for i in hard.next_round()? {
//!         let batch = images.plain(plan.batch(i)?)?;
//!         let logits = model.forward(&Cx::train(&arena).seeded(0, hard.updates()), &batch.images)?;
//!         let loss = logits.cross_entropy(&batch.labels, CrossEntropy::default())?;
//!         arena.backward(&loss)?;
//!         optimizer.step(&arena, 0.005)?;
//!         hard.record(i, &loss)?;
//!     }
//! }
//! println!("visits of each batch: {:?}", hard.stats()?.visits);
//! # Ok(())
//! # }
//! ```

mod recipe;
#[cfg(test)]
mod tests;

use shadegrad::rng::Philox;
use shadegrad::{CrossEntropy, Error, Reduction, Result, Tensor};

use super::Paper;

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "hard-samples",
    title: "Can we learn better with hard samples?",
    source: "arXiv 2304.03486",
    claim: "training on the mini-batches of highest loss reaches the same accuracy in fewer epochs",
    data: "CIFAR-10",
    seeds: 3,
    recipe: Some(recipe::run),
};

/// Streams of a seed that this module draws from.
const PLAN: u64 = 0x4842_0000_0000_0000;
const ROUNDS: u64 = 0x4842_0001_0000_0000;

/// A fixed list of mini-batches of equal size. Samples that do not fill a batch are left out.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::hard_samples::BatchPlan;
/// let plan = BatchPlan::new(10, 4, None)?;
/// assert_eq!((plan.len(), plan.batch(1)?), (2, &[4, 5, 6, 7][..])); // 8 and 9 fill no batch
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    indices: Vec<u32>,
    batch: usize,
}

impl BatchPlan {
    /// Cuts the indices `0..samples` into batches of `batch`, after shuffling them once with the seed, if one is given. A
    /// set that is sorted by class must be shuffled: losses belong to batches.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::hard_samples::BatchPlan;
    /// let plan = BatchPlan::new(8, 4, Some(0))?;
    /// let mut all = [plan.batch(0)?, plan.batch(1)?].concat();
    /// all.sort();
    /// assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
    /// assert!(BatchPlan::new(3, 4, None).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `batch` is 0 or not even one batch can be filled.
    pub fn new(samples: usize, batch: usize, shuffle: Option<u64>) -> Result<Self> {
        let Some(n) = u32::try_from(samples).ok().filter(|_| batch > 0 && samples >= batch) else {
            return Err(Error::value(
                "BatchPlan",
                format!("batches of {batch} from {samples} samples; take at least 1 and at most all of them"),
            ));
        };
        let mut indices: Vec<u32> = match shuffle {
            Some(seed) => Philox::new(seed, PLAN).permutation(n),
            None => (0..n).collect(),
        };
        indices.truncate(samples / batch * batch);
        Ok(Self { indices, batch })
    }

    /// Number of batches.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::hard_samples::BatchPlan;
    /// assert_eq!(BatchPlan::new(100, 8, None)?.len(), 12);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.indices.len() / self.batch
    }

    /// Never: an empty plan is refused.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::hard_samples::BatchPlan;
    /// assert!(!BatchPlan::new(4, 4, None)?.is_empty());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The samples of batch `i`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::hard_samples::BatchPlan;
    /// let plan = BatchPlan::new(6, 3, None)?;
    /// assert_eq!(plan.batch(0)?, [0, 1, 2]);
    /// assert!(plan.batch(2).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such batch.
    pub fn batch(&self, i: usize) -> Result<&[u32]> {
        self.indices.chunks_exact(self.batch).nth(i).ok_or_else(|| {
            Error::value("BatchPlan", format!("batch {i} of {}; batches count from 0", self.len()))
        })
    }
}

/// Which batches a round trains on.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
/// let (batches, delta, budget, refresh_every) = (4, 0.5, 100, None);
/// let config = HardBatchesConfig { batches, delta, policy: Policy::Lowest, budget, refresh_every };
/// let mut easy = HardBatches::new(config)?;
/// for i in easy.next_round()? {
///     easy.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
/// }
/// assert_eq!(easy.next_round()?, [0, 3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Those of the highest last losses: the paper's.
    Highest,
    /// Those of the lowest: a control, which never comes back to the others.
    Lowest,
    /// Distinct ones at random, by this seed: a control.
    Random(u64),
    /// All: ordinary training in a fixed order.
    All,
}

/// Options of [`HardBatches`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
/// // Three epochs' worth of updates, a quarter of 20 batches in each round.
/// let config = HardBatchesConfig {
///     batches: 20,
///     delta: 0.25,
///     policy: Policy::Highest,
///     budget: 3 * 20,
///     refresh_every: None,
/// };
/// assert_eq!(HardBatches::new(config)?.budget(), 60);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HardBatchesConfig {
    /// Number of batches, `b`.
    pub batches: usize,
    /// Share of them in a round, above 0 and at most 1; a round has `max(1, floor(delta * b))`.
    pub delta: f64,
    /// Which ones.
    pub policy: Policy,
    /// Updates in all; `epochs * b` for as many as ordinary training makes. The last round is cut to it.
    pub budget: u64,
    /// Rounds after which [`HardBatches::wants_refresh`] asks for fresh losses of all batches; never if `None`, as in the
    /// paper.
    pub refresh_every: Option<u64>,
}

/// What happened so far.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
/// use shadegrad_models::papers::hard_samples::Stats;
/// # let mut hard = HardBatches::new(HardBatchesConfig {
/// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
/// # })?;
/// # for i in hard.next_round()? {
/// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
/// # }
/// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
/// let stats: Stats = hard.stats()?;
/// assert_eq!((stats.rounds, stats.visits), (1, vec![1; 4]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// How often each batch was trained on.
    pub visits: Vec<u32>,
    /// The last recorded loss of each batch.
    pub losses: Vec<f32>,
    /// Rounds begun, the first pass included.
    pub rounds: u64,
}

impl Stats {
    /// Gini coefficient of the visits: 0 when all batches had as many, towards 1 when few had all.
    ///
    /// ```
    /// use shadegrad_models::papers::hard_samples::Stats;
    /// let stats = Stats { visits: vec![4, 0, 0, 0], losses: vec![0.0; 4], rounds: 4 };
    /// assert_eq!(stats.gini(), 0.75);
    /// assert_eq!(Stats { visits: vec![2; 4], ..stats }.gini(), 0.0);
    /// ```
    pub fn gini(&self) -> f64 {
        let mut v: Vec<f64> = self.visits.iter().map(|&v| f64::from(v)).collect();
        v.sort_by(f64::total_cmp);
        let (n, sum) = (v.len() as f64, v.iter().sum::<f64>());
        if sum == 0.0 {
            return 0.0;
        }
        let weighted: f64 = v.iter().enumerate().map(|(i, x)| (2.0 * (i + 1) as f64 - n - 1.0) * x).sum();
        weighted / (n * sum)
    }
}

/// Chooses the batches of every round by their recorded losses.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
/// # let mut hard = HardBatches::new(HardBatchesConfig {
/// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
/// # })?;
/// # for i in hard.next_round()? {
/// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
/// # }
/// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
/// assert_eq!(hard.next_round()?, [1, 2]); // the half of highest loss
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HardBatches {
    config: HardBatchesConfig,
    /// Batches by falling (or rising) loss as of the last selection; ties keep this order at the next.
    order: Vec<usize>,
    losses: Vec<f32>,
    visits: Vec<u32>,
    /// Batches of the round that were not recorded yet.
    open: Vec<usize>,
    /// Losses of the round that are on the device.
    pending: Vec<(usize, Tensor)>,
    updates: u64,
    rounds: u64,
}

impl HardBatches {
    /// A schedule at its beginning.
    ///
    /// ```
    /// use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
    /// let (policy, budget, refresh_every) = (Policy::Highest, 100, None);
    /// assert!(HardBatches::new(HardBatchesConfig { batches: 4, delta: 0.5, policy, budget, refresh_every }).is_ok());
    /// assert!(HardBatches::new(HardBatchesConfig { batches: 4, delta: 1.5, policy, budget, refresh_every }).is_err());
    /// ```
    ///
    /// # Errors
    /// If there are no batches, `delta` is not in `(0, 1]`, or `refresh_every` is 0.
    pub fn new(config: HardBatchesConfig) -> Result<Self> {
        let HardBatchesConfig { batches, delta, refresh_every, .. } = config;
        if batches == 0 || !(delta > 0.0 && delta <= 1.0) || refresh_every == Some(0) {
            return Err(Error::value(
                "HardBatches",
                format!(
                    "{batches} batches, delta {delta}, refreshed every {refresh_every:?} rounds; give at least one batch, \
                     delta above 0 and at most 1, and at least 1 round"
                ),
            ));
        }
        Ok(Self {
            config,
            order: (0..batches).collect(),
            losses: vec![0.0; batches],
            visits: vec![0; batches],
            open: Vec::new(),
            pending: Vec::new(),
            updates: 0,
            rounds: 0,
        })
    }

    /// Updates recorded.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
    /// # let mut hard = HardBatches::new(HardBatchesConfig {
    /// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
    /// # })?;
    /// # for i in hard.next_round()? {
    /// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
    /// # }
    /// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
    /// assert_eq!(hard.updates(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Updates in all.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
    /// # let mut hard = HardBatches::new(HardBatchesConfig {
    /// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
    /// # })?;
    /// # for i in hard.next_round()? {
    /// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
    /// # }
    /// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
    /// assert_eq!(hard.budget(), 8);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn budget(&self) -> u64 {
        self.config.budget
    }

    /// Batches of the next round in the order in which they are to be trained on: all of them first, then the chosen ones
    /// by rising index. Empty when the budget is spent. Reads the losses of the round before from the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
    /// # let mut hard = HardBatches::new(HardBatchesConfig {
    /// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
    /// # })?;
    /// # for i in hard.next_round()? {
    /// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
    /// # }
    /// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
    /// assert_eq!(hard.next_round()?, [1, 2]);
    /// assert!(hard.next_round().is_err()); // these were not recorded yet
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] if one is NaN; [`Error::Value`] if a batch of the round before was not recorded.
    pub fn next_round(&mut self) -> Result<Vec<usize>> {
        if let Some(i) = self.open.first() {
            return Err(Error::value("HardBatches", format!("batch {i} of this round was not recorded yet; do so first")));
        }
        self.settle()?;
        let left = usize::try_from(self.config.budget - self.updates).unwrap_or(usize::MAX);
        let b = self.config.batches;
        let mut round: Vec<usize> = if self.rounds == 0 {
            (0..b).collect()
        } else {
            let k = ((self.config.delta * b as f64).floor() as usize).max(1);
            self.choose(k)
        };
        round.truncate(left);
        if !round.is_empty() {
            self.rounds += 1;
        }
        self.open.clone_from(&round);
        Ok(round)
    }

    fn choose(&mut self, k: usize) -> Vec<usize> {
        let b = self.config.batches;
        let losses = &self.losses;
        let mut chosen: Vec<usize> = match self.config.policy {
            Policy::All => (0..b).collect(),
            Policy::Random(seed) => {
                let all = Philox::new(seed, ROUNDS + self.rounds).permutation(b as u32);
                all[..k].iter().map(|&i| i as usize).collect()
            }
            // Both sorts are stable.
            Policy::Highest => {
                self.order.sort_by(|&i, &j| losses[j].total_cmp(&losses[i]));
                self.order[..k].to_vec()
            }
            Policy::Lowest => {
                self.order.sort_by(|&i, &j| losses[i].total_cmp(&losses[j]));
                self.order[..k].to_vec()
            }
        };
        chosen.sort_unstable();
        chosen
    }

    /// Notes the mean loss of batch `i`, taken before its update. It stays on the device until the round ends.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::hard_samples::{HardBatchesConfig, Policy};
    /// use shadegrad_models::papers::hard_samples::HardBatches;
    /// # let (batches, delta, budget, refresh_every) = (2, 0.5, 10, None);
    /// # let config = HardBatchesConfig { batches, delta, policy: Policy::Highest, budget, refresh_every };
    /// let mut hard = HardBatches::new(config)?;
    /// for i in hard.next_round()? {
    ///     let loss = Tensor::scalar(&gpu, [0.25, 0.75][i])?; // in place of a model's
    ///     hard.record(i, &loss)?;
    /// }
    /// assert_eq!(hard.stats()?.losses, [0.25, 0.75]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If batch `i` is not in the round or was recorded already, or the loss is not one number.
    pub fn record(&mut self, i: usize, loss: &Tensor) -> Result<()> {
        if loss.numel() != 1 {
            return Err(Error::shape("HardBatches", format!("{loss:?} is not one number; reduce it with `mean` first")));
        }
        self.visit(i)?;
        self.pending.push((i, loss.detach().reshape(&[1])?));
        Ok(())
    }

    /// [`HardBatches::record`] with a loss that is on the host.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
    /// # let mut hard = HardBatches::new(HardBatchesConfig {
    /// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
    /// # })?;
    /// # for i in hard.next_round()? {
    /// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
    /// # }
    /// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
    /// for i in hard.next_round()? {
    ///     hard.record_value(i, 0.2)?;
    /// }
    /// assert_eq!(hard.stats()?.losses, [0.1, 0.2, 0.2, 0.3]);
    /// assert!(hard.record_value(0, 0.2).is_err()); // not in this round
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HardBatches::record`]; [`Error::NonFinite`] if the loss is NaN.
    pub fn record_value(&mut self, i: usize, loss: f32) -> Result<()> {
        self.visit(i)?;
        self.set(i, loss)
    }

    fn visit(&mut self, i: usize) -> Result<()> {
        let Some(at) = self.open.iter().position(|&o| o == i) else {
            return Err(Error::value(
                "HardBatches",
                format!("batch {i} is not in this round, or was recorded already; left are {:?}", self.open),
            ));
        };
        self.open.remove(at);
        self.visits[i] += 1;
        self.updates += 1;
        Ok(())
    }

    fn set(&mut self, i: usize, loss: f32) -> Result<()> {
        if loss.is_nan() {
            return Err(Error::NonFinite(format!(
                "HardBatches: the loss of batch {i} is NaN after {} updates; lower the learning rate",
                self.updates
            )));
        }
        self.losses[i] = loss;
        Ok(())
    }

    /// Reads the pending losses, all at once.
    fn settle(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let values = Tensor::concat(&pending.iter().map(|p| &p.1).collect::<Vec<_>>(), 0)?.to_vec()?;
        pending.iter().zip(values).try_for_each(|((i, _), loss)| self.set(*i, loss))
    }

    /// Whether the losses of all batches are to be measured anew and given to [`HardBatches::refresh`] before the next
    /// round. Such measurements are not updates.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
    /// # let mut hard = HardBatches::new(HardBatchesConfig {
    /// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
    /// # })?;
    /// # for i in hard.next_round()? {
    /// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
    /// # }
    /// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
    /// assert!(!hard.wants_refresh()); // the losses of the first pass are fresh
    /// for i in hard.next_round()? {
    ///     hard.record_value(i, 0.2)?;
    /// }
    /// assert!(hard.wants_refresh()); // here after every round
    /// # Ok::<(), Error>(())
    /// ```
    pub fn wants_refresh(&self) -> bool {
        let rounds = self.rounds.saturating_sub(1);
        self.config.refresh_every.is_some_and(|r| rounds > 0 && rounds.is_multiple_of(r)) && self.open.is_empty()
    }

    /// Replaces the recorded losses of all batches.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
    /// # let mut hard = HardBatches::new(HardBatchesConfig {
    /// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
    /// # })?;
    /// # for i in hard.next_round()? {
    /// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
    /// # }
    /// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
    /// hard.refresh(&[0.7, 0.1, 0.2, 0.8])?;
    /// assert_eq!(hard.next_round()?, [0, 3]);
    /// assert_eq!(hard.updates(), 4); // measuring is no update
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is not one for each batch, or one is NaN.
    pub fn refresh(&mut self, losses: &[f32]) -> Result<()> {
        if losses.len() != self.losses.len() {
            return Err(Error::shape("HardBatches", format!("{} losses for {} batches", losses.len(), self.losses.len())));
        }
        self.settle()?;
        losses.iter().enumerate().try_for_each(|(i, &loss)| self.set(i, loss))
    }

    /// What happened so far. Reads pending losses from the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::hard_samples::{HardBatches, HardBatchesConfig, Policy};
    /// # let mut hard = HardBatches::new(HardBatchesConfig {
    /// #     batches: 4, delta: 0.5, policy: Policy::Highest, budget: 8, refresh_every: Some(1),
    /// # })?;
    /// # for i in hard.next_round()? {
    /// #     hard.record_value(i, [0.1, 0.9, 0.5, 0.3][i])?;
    /// # }
    /// // After the first pass over four batches, with losses 0.1, 0.9, 0.5 and 0.3.
    /// assert_eq!(hard.stats()?.losses, [0.1, 0.9, 0.5, 0.3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] if one is NaN.
    pub fn stats(&mut self) -> Result<Stats> {
        self.settle()?;
        Ok(Stats { visits: self.visits.clone(), losses: self.losses.clone(), rounds: self.rounds })
    }
}

/// Hard examples inside a batch, another method, for comparison: the mean cross-entropy of the `k` samples whose loss is
/// highest. The others get no gradient. Logits `[N, C]`, labels `[N]`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::hard_samples::top_k_in_batch;
/// let logits = Tensor::from_slice(&gpu, &[0.0, 0.0, 90.0, 0.0], &[2, 2])?;
/// let labels = Tensor::labels(&gpu, &[0, 0], 2)?;
/// // The first sample is undecided, the second right.
/// assert!((top_k_in_batch(&logits, &labels, 1)?.item()? - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If `k` is 0 or more than `N`, or the shapes do not fit.
pub fn top_k_in_batch(logits: &Tensor, labels: &Tensor, k: usize) -> Result<Tensor> {
    if k == 0 {
        return Err(Error::value("top_k_in_batch", "k is 0; keep at least one sample"));
    }
    let each = logits.cross_entropy(labels, CrossEntropy { reduction: Reduction::None, ..CrossEntropy::default() })?;
    each.topk(k, 0, true)?.0.mean(&[0], false)
}
