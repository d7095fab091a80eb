//! Which layers are trained in a step: the paper's inter-layer scheduling, on the host alone.

use shadegrad::rng::Stream;
use shadegrad::{Error, Result};

/// Streams of the seed: first distances, random choices (the step is added).
const FIRST: u64 = 0x5346_0000_0000_0000;
const CHOICE: u64 = 0x5346_0001_0000_0000;

/// How the layers of a step are chosen.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
/// let mut nothing = Scheduler::new(4, 0.5, Schedule::Nothing, 1e7, 0)?;
/// let mut random = Scheduler::new(4, 0.5, Schedule::Random, 1e7, 0)?;
/// assert_eq!((nothing.plan().len(), random.plan().len()), (0, 2));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Those that moved most, relative to their size, when they were last trained: the paper's.
    #[default]
    Dynamics,
    /// As many, drawn anew in every step: a control.
    Random,
    /// None, so that only what is never frozen is trained: a control.
    Nothing,
}

/// The state of the schedule: a distance for each layer, the last observed mean relative change of its weights.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
/// # let mut scheduler = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![4.0, 3.0, 2.0, 1.0])?;
/// // Four layers at distances 4, 3, 2 and 1, of which two are frozen in each step.
/// assert_eq!(scheduler.plan(), [0, 1]);
/// scheduler.observe(&[0.5, 0.25])?; // how far these two moved
/// assert_eq!(scheduler.plan(), [2, 3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scheduler {
    schedule: Schedule,
    distances: Vec<f64>,
    frozen: usize,
    seed: u64,
    step: u64,
    /// The layers of the step that runs, rising.
    active: Option<Vec<usize>>,
    visits: Vec<u64>,
}

impl Scheduler {
    /// For `layers` layers of which `floor(freeze layers)` are frozen in each step. First distances are uniform in
    /// `0..first`, which is far above any change, so that every layer is trained once early.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// let scheduler = Scheduler::new(10, 0.9, Schedule::Dynamics, 1e7, 0)?;
    /// assert_eq!(scheduler.frozen(), 9);
    /// assert!(Scheduler::new(10, 1.0, Schedule::Dynamics, 1e7, 0).is_err()); // something must be trained
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are no layers, the rate does not lie in `0..1` (1 excluded), or `first` is not positive.
    pub fn new(layers: usize, freeze: f64, schedule: Schedule, first: f64, seed: u64) -> Result<Self> {
        const OP: &str = "SlimFit";
        if layers == 0 {
            return Err(Error::value(OP, "no layer can be scheduled; loosen `schedulable` or `always`"));
        }
        if !(0.0..1.0).contains(&freeze) {
            return Err(Error::value(OP, format!("a freezing rate of {freeze}; give 0 or more and less than 1")));
        }
        if !(first > 0.0 && first.is_finite()) {
            return Err(Error::value(OP, format!("first distances up to {first}; give a large positive number")));
        }
        let mut rng = Stream::new(seed, FIRST).philox();
        Ok(Self {
            schedule,
            distances: (0..layers).map(|_| first * rng.uniform_f64()).collect(),
            // The sliver keeps 0.7 * 10 from being 6.
            frozen: (freeze * layers as f64 + 1e-9).floor() as usize,
            seed,
            step: 0,
            active: None,
            visits: vec![0; layers],
        })
    }

    /// The same schedule from these distances.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// let mut scheduler = Scheduler::new(3, 0.34, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![1.0, 9.0, 5.0])?;
    /// assert_eq!(scheduler.plan(), [1, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is not one for each layer.
    pub fn with_distances(mut self, distances: Vec<f64>) -> Result<Self> {
        if distances.len() != self.distances.len() {
            let (given, layers) = (distances.len(), self.distances.len());
            return Err(Error::value("SlimFit", format!("{given} distances for {layers} layers")));
        }
        self.distances = distances;
        Ok(self)
    }

    /// Chooses the layers of the next step, rising. All others are frozen in it.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// # let mut scheduler = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![4.0, 3.0, 2.0, 1.0])?;
    /// // Four layers at distances 4, 3, 2 and 1, of which two are frozen in each step.
    /// assert_eq!(scheduler.plan(), [0, 1]); // those that moved most
    /// # Ok::<(), Error>(())
    /// ```
    pub fn plan(&mut self) -> &[usize] {
        let layers = self.distances.len();
        let mut order: Vec<usize> = (0..layers).collect();
        let frozen = match self.schedule {
            Schedule::Dynamics => {
                order.sort_by(|&a, &b| self.distances[a].total_cmp(&self.distances[b]));
                self.frozen
            }
            Schedule::Random => {
                Stream::new(self.seed, CHOICE + self.step).philox().shuffle(&mut order);
                self.frozen
            }
            Schedule::Nothing => layers,
        };
        let mut active = order.split_off(frozen);
        active.sort_unstable();
        self.active.insert(active)
    }

    /// Takes the changes of the planned layers, in their order, as their new distances; others keep theirs. A change that
    /// is not finite counts as none at all, so that a layer that broke does not stay active for good.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// # let mut scheduler = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![4.0, 3.0, 2.0, 1.0])?;
    /// // Four layers at distances 4, 3, 2 and 1, of which two are frozen in each step.
    /// assert!(scheduler.observe(&[0.5, 0.25]).is_err()); // nothing was planned
    /// scheduler.plan();
    /// scheduler.observe(&[0.5, 0.25])?;
    /// assert_eq!(scheduler.distances(), [0.5, 0.25, 2.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing was planned, or there is not one change for each of its layers.
    pub fn observe(&mut self, changes: &[f64]) -> Result<()> {
        let Some(active) = self.active.take() else {
            return Err(Error::value("SlimFit", "`observe` without a plan; call `plan` before the forward pass"));
        };
        if changes.len() != active.len() {
            let detail = format!("{} changes for the {} layers of the plan", changes.len(), active.len());
            self.active = Some(active);
            return Err(Error::value("SlimFit", detail));
        }
        for (&layer, &change) in active.iter().zip(changes) {
            self.distances[layer] = if change.is_finite() { change } else { 0.0 };
            self.visits[layer] += 1;
        }
        self.step += 1;
        Ok(())
    }

    /// The layers of the step that was planned and not observed yet.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// # let mut scheduler = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![4.0, 3.0, 2.0, 1.0])?;
    /// // Four layers at distances 4, 3, 2 and 1, of which two are frozen in each step.
    /// scheduler.plan();
    /// assert_eq!(scheduler.active(), Some(&[0, 1][..]));
    /// scheduler.observe(&[0.5, 0.25])?;
    /// assert_eq!(scheduler.active(), None);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn active(&self) -> Option<&[usize]> {
        self.active.as_deref()
    }

    /// Whether anything depends on the distances: not if all layers, none or random ones are trained.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// # let mut scheduler = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![4.0, 3.0, 2.0, 1.0])?;
    /// // Four layers at distances 4, 3, 2 and 1, of which two are frozen in each step.
    /// assert!(scheduler.wants_changes());
    /// assert!(!Scheduler::new(4, 0.0, Schedule::Dynamics, 1e7, 0)?.wants_changes()); // all are trained
    /// # Ok::<(), Error>(())
    /// ```
    pub fn wants_changes(&self) -> bool {
        self.schedule == Schedule::Dynamics && self.frozen > 0
    }

    /// The distance of each layer.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// # let mut scheduler = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![4.0, 3.0, 2.0, 1.0])?;
    /// // Four layers at distances 4, 3, 2 and 1, of which two are frozen in each step.
    /// assert_eq!(scheduler.distances(), [4.0, 3.0, 2.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn distances(&self) -> &[f64] {
        &self.distances
    }

    /// How many steps each layer was trained in.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// # let mut scheduler = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![4.0, 3.0, 2.0, 1.0])?;
    /// // Four layers at distances 4, 3, 2 and 1, of which two are frozen in each step.
    /// scheduler.plan();
    /// scheduler.observe(&[0.5, 0.25])?;
    /// assert_eq!(scheduler.visits(), [1, 1, 0, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn visits(&self) -> &[u64] {
        &self.visits
    }

    /// Layers that a step freezes.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::slimfit::{Schedule, Scheduler};
    /// # let mut scheduler = Scheduler::new(4, 0.5, Schedule::Dynamics, 1e7, 0)?.with_distances(vec![4.0, 3.0, 2.0, 1.0])?;
    /// // Four layers at distances 4, 3, 2 and 1, of which two are frozen in each step.
    /// assert_eq!(scheduler.frozen(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn frozen(&self) -> usize {
        if self.schedule == Schedule::Nothing { self.distances.len() } else { self.frozen }
    }
}
