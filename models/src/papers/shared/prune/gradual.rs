//! Pruning little by little while the network trains.

use shadegrad::nn::Arena;
use shadegrad::optim::Optimizer;
use shadegrad::train::Hooks;
use shadegrad::{Error, Result};

use super::{Criterion, Pooling, PruneMasks};

/// The sparsity at every step: `s = last + (first - last) (1 - (t - begin) / (every times))^3` (Zhu and Gupta, "To prune,
/// or not to prune", 2017, eq. 1), changed every `every` steps.
///
/// ```
/// use shadegrad_models::papers::shared::prune::Gradual;
/// // Nothing before step 100, then up to one half in two prunings, the larger one first.
/// let schedule = Gradual { first: 0.0, last: 0.5, begin: 100, every: 10, times: 2 };
/// assert_eq!([99, 100, 110, 120, 500].map(|step| schedule.sparsity(step)), [0.0, 0.0, 0.4375, 0.5, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradual {
    /// Sparsity at the beginning.
    pub first: f64,
    /// Sparsity at the end.
    pub last: f64,
    /// The step after which the first weights go.
    pub begin: u64,
    /// Steps between two prunings.
    pub every: u64,
    /// Prunings after the first.
    pub times: u64,
}

impl Gradual {
    /// The sparsity that holds from step `step` on; 0 before the beginning.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::prune::Gradual;
    /// let schedule = Gradual { first: 0.5, last: 1.0, begin: 0, every: 1, times: 2 };
    /// assert_eq!(schedule.sparsity(1), 1.0 - 0.5 * 0.5f64.powi(3));
    /// ```
    pub fn sparsity(&self, step: u64) -> f64 {
        if step < self.begin {
            return 0.0;
        }
        let done = ((step - self.begin) / self.every.max(1)).min(self.times) as f64 / self.times.max(1) as f64;
        self.last + (self.first - self.last) * (1.0 - done).powi(3)
    }

    /// How many weights must go from `masks` to reach the sparsity of a step.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Gradual, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights [[0.1, -4.0], [2.0, -0.3]].
    /// let mut masks = PruneMasks::of_matrices(&arena)?;
    /// let schedule = Gradual { first: 0.0, last: 0.75, begin: 0, every: 1, times: 1 };
    /// assert_eq!(schedule.due(1, &masks), 3);
    /// masks.remove(&[0])?;
    /// assert_eq!(schedule.due(1, &masks), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn due(&self, step: u64, masks: &PruneMasks) -> usize {
        let target = (self.sparsity(step) * masks.len() as f64).round() as usize;
        target.saturating_sub(masks.len() - masks.alive())
    }

    /// Checks the numbers.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::prune::Gradual;
    /// let schedule = Gradual { first: 0.0, last: 0.9, begin: 500, every: 100, times: 30 };
    /// assert!(schedule.check().is_ok());
    /// assert!(Gradual { first: 0.95, ..schedule }.check().is_err());
    /// ```
    ///
    /// # Errors
    /// If a sparsity does not lie in `0..=1`, the last is below the first, or there are 0 steps between prunings.
    pub fn check(&self) -> Result<()> {
        let Self { first, last, every, .. } = *self;
        if (0.0..=1.0).contains(&first) && (first..=1.0).contains(&last) && every > 0 {
            return Ok(());
        }
        Err(Error::value(
            "Gradual",
            format!(
                "sparsity from {first} to {last} every {every} steps; it must rise within 0..=1, by at least a step"
            ),
        ))
    }

    /// Whether weights go after step `step`.
    ///
    /// ```
    /// use shadegrad_models::papers::shared::prune::Gradual;
    /// let schedule = Gradual { first: 0.0, last: 0.9, begin: 500, every: 100, times: 1 };
    /// assert_eq!([400, 500, 550, 600, 700].map(|s| schedule.is_due(s)), [false, true, false, true, false]);
    /// ```
    pub fn is_due(&self, step: u64) -> bool {
        step >= self.begin
            && (step - self.begin).is_multiple_of(self.every.max(1))
            && (step - self.begin) / self.every.max(1) <= self.times
    }
}

/// Prunes while a [`shadegrad::train::Trainer`] runs: hand it over as the watcher, or call [`GradualPruner::stepped`] from
/// a watcher of one's own.
///
/// ```no_run
/// # use shadegrad::{Result, nn::{Arena, Module}, optim::Optimizer, train::{FitOptions, Images, Trainer}};
/// use shadegrad_models::papers::shared::prune::{Criterion, Gradual, GradualPruner, Pooling, PruneMasks};
/// # fn run(model: &dyn Module, arena: &mut Arena, optimizer: &mut Optimizer, train: &Images) -> Result<()> {
/// let schedule = Gradual { first: 0.0, last: 0.9, begin: 500, every: 100, times: 30 };
/// let masks = PruneMasks::of_matrices(arena)?;
/// let mut pruner = GradualPruner::new(masks, schedule, Criterion::Magnitude, Pooling::Global)?;
/// Trainer::new(model, arena, optimizer, |_| 1e-3, FitOptions::default()).fit(train, None, &mut pruner)?;
/// println!("{:.1} % of the weights are gone", 100.0 * pruner.masks().sparsity());
/// # Ok(())
/// # }
/// ```
pub struct GradualPruner {
    masks: PruneMasks,
    schedule: Gradual,
    criterion: Criterion,
    pooling: Pooling,
}

impl GradualPruner {
    /// A pruner that begins from these masks.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Criterion, Gradual, GradualPruner, Pooling, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights [[0.1, -4.0], [2.0, -0.3]].
    /// let masks = PruneMasks::of_matrices(&arena)?;
    /// let schedule = Gradual { first: 0.25, last: 0.5, begin: 0, every: 100, times: 10 };
    /// let pruner = GradualPruner::new(masks, schedule, Criterion::Magnitude, Pooling::Global)?;
    /// assert_eq!(pruner.masks().alive(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gradual::check`].
    pub fn new(masks: PruneMasks, schedule: Gradual, criterion: Criterion, pooling: Pooling) -> Result<Self> {
        schedule.check()?;
        Ok(Self { masks, schedule, criterion, pooling })
    }

    /// The masks as they are.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Criterion, Gradual, GradualPruner, Pooling, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights [[0.1, -4.0], [2.0, -0.3]].
    /// let masks = PruneMasks::of_matrices(&arena)?;
    /// let at_once = Gradual { first: 0.5, last: 0.5, begin: 0, every: 1, times: 0 };
    /// let mut pruner = GradualPruner::new(masks, at_once, Criterion::Magnitude, Pooling::Global)?;
    /// pruner.stepped(0, &mut arena)?;
    /// assert_eq!(pruner.masks().positions(), [1, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn masks(&self) -> &PruneMasks {
        &self.masks
    }

    /// After the update of step `step`, counted from 0: prunes if it is time, and says whether it was.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::shared::prune::{Criterion, Gradual, GradualPruner, Pooling, PruneMasks};
    /// # let mut names = Builder::new();
    /// # let w = names.root().param("w", &[2, 2], Init::Zeros);
    /// # let mut arena = Arena::new(&gpu, &names, 0)?;
    /// # arena.set_value(w, &Tensor::from_slice(&gpu, &[0.1, -4.0, 2.0, -0.3], &[2, 2])?)?;
    /// // A model with the weights [[0.1, -4.0], [2.0, -0.3]].
    /// let schedule = Gradual { first: 0.25, last: 0.75, begin: 10, every: 10, times: 1 };
    /// let masks = PruneMasks::of_matrices(&arena)?;
    /// let mut pruner = GradualPruner::new(masks, schedule, Criterion::Magnitude, Pooling::Global)?;
    /// assert!(!pruner.stepped(9, &mut arena)?);
    /// assert!(pruner.stepped(10, &mut arena)? && pruner.stepped(20, &mut arena)?);
    /// assert_eq!(arena.params().get(w).to_vec()?, [0.0, -4.0, 0.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`PruneMasks::remove_lowest`].
    pub fn stepped(&mut self, step: u64, arena: &mut Arena) -> Result<bool> {
        if !self.schedule.is_due(step) {
            return Ok(false);
        }
        let due = self.schedule.due(step, &self.masks);
        if due > 0 {
            let scores = self.masks.scores(arena, self.criterion)?;
            self.masks.remove_lowest(&scores, due, self.pooling)?;
        }
        self.masks.apply(arena)?;
        Ok(true)
    }
}

impl Hooks for GradualPruner {
    fn stepped(&mut self, step: u64, arena: &mut Arena, _: &mut Optimizer) -> Result<()> {
        self.stepped(step, arena).map(|_| ())
    }
}
