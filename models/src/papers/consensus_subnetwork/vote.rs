//! What the inputs agree on: means of gates over a data set, and which units stay.

use shadegrad::{Error, Result, Tensor};

use super::loss::side_by_side;

/// Sums gates on the device, to be read once: over an epoch of training, or over a data set.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, Gated, ResidualMlp, Shape};
/// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
/// # let mut names = Builder::new();
/// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), GateConfig::default())?;
/// // A model with two gated branches.
/// let mut meter = gated.meter();
/// meter.push(&[Tensor::ones(&gpu, &[2, 1])?, Tensor::zeros(&gpu, &[2, 1])?])?;
/// assert_eq!(meter.read()?.mean, [[1.0], [0.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GateMeter {
    /// Name and gates of every unit.
    units: Vec<(String, usize)>,
    sum: Option<Tensor>,
    samples: u64,
}

impl GateMeter {
    pub(super) fn new(units: Vec<(String, usize)>) -> Self {
        Self { units, sum: None, samples: 0 }
    }

    /// Adds the gates `[B, C]` of a batch.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), GateConfig::default())?;
    /// // A model with two gated branches.
    /// let mut meter = gated.meter();
    /// // Of two batches, the second of which opens the second gate for one input.
    /// meter.push(&[Tensor::ones(&gpu, &[2, 1])?, Tensor::zeros(&gpu, &[2, 1])?])?;
    /// meter.push(&[Tensor::ones(&gpu, &[2, 1])?, Tensor::from_slice(&gpu, &[1.0, 0.0], &[2, 1])?])?;
    /// assert_eq!(meter.read()?.mean, [[1.0], [0.25]]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If they are not those of the model's units.
    pub fn push(&mut self, gates: &[Tensor]) -> Result<()> {
        let all = side_by_side(gates)?.detach();
        let width: usize = self.units.iter().map(|u| u.1).sum();
        if all.dim(1) != width {
            return Err(Error::shape("GateMeter", format!("{:?} for {width} gates; take those of one model", all.shape())));
        }
        let sum = all.sum(&[0], false)?;
        self.sum = Some(match &self.sum {
            Some(before) => before.add(&sum)?,
            None => sum,
        });
        self.samples += all.dim(0) as u64;
        Ok(())
    }

    /// Reads the means and starts anew.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::consensus_subnetwork::{GateConfig, Gated, ResidualMlp, Shape};
    /// # let make = |s: &mut Scope<'_>, shape: &Shape| Ok(ResidualMlp::new(s, shape, 64, 8, 2, 3));
    /// # let mut names = Builder::new();
    /// # let gated = Gated::new(&mut names, make, &ResidualMlp::units(2), GateConfig::default())?;
    /// // A model with two gated branches.
    /// let mut meter = gated.meter();
    /// meter.push(&[Tensor::ones(&gpu, &[2, 1])?, Tensor::zeros(&gpu, &[2, 1])?])?;
    /// assert_eq!(meter.read()?.samples, 2);
    /// assert!(meter.read().is_err()); // it started anew
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing was added.
    pub fn read(&mut self) -> Result<Consensus> {
        let Some(sum) = self.sum.take() else {
            return Err(Error::value("GateMeter", "no gates were added; push those of at least one batch"));
        };
        let samples = std::mem::take(&mut self.samples);
        let mut sums = sum.to_vec()?.into_iter().map(|s| f64::from(s) / samples as f64);
        let mean = self.units.iter().map(|u| sums.by_ref().take(u.1).collect()).collect();
        Ok(Consensus { units: self.units.iter().map(|u| u.0.clone()).collect(), mean, samples })
    }
}

/// The share of inputs for which each gate is open.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::consensus_subnetwork::Consensus;
/// let mean = vec![vec![1.0], vec![0.25]];
/// let consensus = Consensus { units: vec!["a".into(), "b".into()], mean, samples: 4 };
/// assert_eq!(consensus.keep(0.5)?.open, [[true], [false]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Consensus {
    /// Names of the units.
    pub units: Vec<String>,
    /// For each unit the mean of each of its gates: one for a branch, one a channel otherwise.
    pub mean: Vec<Vec<f64>>,
    /// Inputs that were asked.
    pub samples: u64,
}

impl Consensus {
    /// All gates' means.
    fn all(&self) -> impl Iterator<Item = f64> + '_ {
        self.mean.iter().flatten().copied()
    }

    fn gates(&self) -> f64 {
        self.mean.iter().map(Vec::len).sum::<usize>().max(1) as f64
    }

    /// Lowest and mean share of inputs that agree with the majority about a gate. Where it is 1, the static network is the
    /// same function as the gated one.
    ///
    /// ```
    /// # use shadegrad_models::papers::consensus_subnetwork::Consensus;
    /// # let units = vec!["a".into(), "b".into()];
    /// # let consensus = Consensus { units, mean: vec![vec![1.0], vec![0.25]], samples: 4 };
    /// // Two branches, open for all of four inputs and for one of them.
    /// assert_eq!(consensus.agreement(), (0.75, 0.875));
    /// ```
    pub fn agreement(&self) -> (f64, f64) {
        let each = || self.all().map(|m| m.max(1.0 - m));
        (each().fold(1.0, f64::min), each().sum::<f64>() / self.gates())
    }

    /// Gates whose mean lies strictly between `margin` and `1 - margin`.
    ///
    /// ```
    /// # use shadegrad_models::papers::consensus_subnetwork::Consensus;
    /// # let units = vec!["a".into(), "b".into()];
    /// # let consensus = Consensus { units, mean: vec![vec![1.0], vec![0.25]], samples: 4 };
    /// // Two branches, open for all of four inputs and for one of them.
    /// assert_eq!((consensus.undecided(0.1), consensus.undecided(0.3)), (1, 0));
    /// ```
    pub fn undecided(&self, margin: f64) -> usize {
        self.all().filter(|m| *m > margin && *m < 1.0 - margin).count()
    }

    /// Mean of `m (1 - m)`.
    ///
    /// ```
    /// # use shadegrad_models::papers::consensus_subnetwork::Consensus;
    /// # let units = vec!["a".into(), "b".into()];
    /// # let consensus = Consensus { units, mean: vec![vec![1.0], vec![0.25]], samples: 4 };
    /// // Two branches, open for all of four inputs and for one of them.
    /// assert_eq!(consensus.polar(), 0.25 * 0.75 / 2.0);
    /// ```
    pub fn polar(&self) -> f64 {
        self.all().map(|m| m * (1.0 - m)).sum::<f64>() / self.gates()
    }

    /// The share of `costs` (one for each gate) that is open on average.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::consensus_subnetwork::Consensus;
    /// # let units = vec!["a".into(), "b".into()];
    /// # let consensus = Consensus { units, mean: vec![vec![1.0], vec![0.25]], samples: 4 };
    /// // Two branches, open for all of four inputs and for one of them.
    /// // The second one costs three times as much.
    /// assert_eq!(consensus.remaining(&[1.0, 3.0])?, (1.0 + 0.25 * 3.0) / 4.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are more or fewer costs than gates.
    pub fn remaining(&self, costs: &[f64]) -> Result<f64> {
        if costs.len() as f64 != self.gates() {
            return Err(Error::shape("Consensus", format!("{} costs for {} gates", costs.len(), self.gates())));
        }
        Ok(self.all().zip(costs).map(|(m, c)| m * c).sum::<f64>() / costs.iter().sum::<f64>())
    }

    /// Keeps gates whose mean is `threshold` or more: 0.5 is the majority. A unit of channels keeps at least the one that is
    /// open most often, so that no layer is left without any.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::consensus_subnetwork::Consensus;
    /// # let units = vec!["a".into(), "b".into()];
    /// # let consensus = Consensus { units, mean: vec![vec![1.0], vec![0.25]], samples: 4 };
    /// // Two branches, open for all of four inputs and for one of them.
    /// assert_eq!(consensus.keep(0.5)?.kept_units(), 1);
    /// assert_eq!(consensus.keep(0.2)?.kept_units(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the threshold does not lie in `(0, 1]`.
    pub fn keep(&self, threshold: f64) -> Result<Keep> {
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(Error::value("Consensus", format!("threshold {threshold}; give a share such as 0.5")));
        }
        let open = |means: &Vec<f64>| {
            let mut open: Vec<bool> = means.iter().map(|m| *m >= threshold).collect();
            if means.len() > 1 && !open.contains(&true) {
                // The first of those that are open most often.
                let most = means.iter().copied().fold(0.0, f64::max);
                open[means.iter().position(|m| *m == most).unwrap_or(0)] = true;
            }
            open
        };
        Ok(Keep { units: self.units.clone(), open: self.mean.iter().map(open).collect() })
    }
}

/// Which gates stay open for good.
///
/// ```
/// use shadegrad_models::papers::consensus_subnetwork::Keep;
/// let keep = Keep { units: vec!["conv1".into()], open: vec![vec![true, false, true]] };
/// assert_eq!(keep.gates(), (2, 3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Names of the units.
    pub units: Vec<String>,
    /// For each unit whether each of its gates is open.
    pub open: Vec<Vec<bool>>,
}

impl Keep {
    /// Units of which anything is left.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::consensus_subnetwork::Consensus;
    /// # let units = vec!["a".into(), "b".into()];
    /// # let consensus = Consensus { units, mean: vec![vec![1.0], vec![0.25]], samples: 4 };
    /// // Two branches, open for all of four inputs and for one of them.
    /// assert_eq!(consensus.keep(0.5)?.kept_units(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn kept_units(&self) -> usize {
        self.open.iter().filter(|o| o.contains(&true)).count()
    }

    /// Gates that are open, and all.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::consensus_subnetwork::Consensus;
    /// # let units = vec!["a".into(), "b".into()];
    /// # let consensus = Consensus { units, mean: vec![vec![1.0], vec![0.25]], samples: 4 };
    /// // Two branches, open for all of four inputs and for one of them.
    /// assert_eq!(consensus.keep(0.5)?.gates(), (1, 2));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gates(&self) -> (usize, usize) {
        (self.open.iter().flatten().filter(|o| **o).count(), self.open.iter().map(Vec::len).sum())
    }

    /// Whether nothing is pruned.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::consensus_subnetwork::Consensus;
    /// # let units = vec!["a".into(), "b".into()];
    /// # let consensus = Consensus { units, mean: vec![vec![1.0], vec![0.25]], samples: 4 };
    /// // Two branches, open for all of four inputs and for one of them.
    /// assert!(consensus.keep(0.25)?.is_full() && !consensus.keep(0.5)?.is_full());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_full(&self) -> bool {
        self.open.iter().flatten().all(|o| *o)
    }
}
