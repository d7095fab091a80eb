//! Polarization and the price of what is open.

use shadegrad::{Error, Gpu, Result, Tensor};

/// Weights of the terms.
///
/// ```
/// use shadegrad_models::papers::consensus_subnetwork::LossConfig;
/// // Half of the cost is free; whatever remains above it is priced.
/// let config = LossConfig { lambda_act: 4.0, ..LossConfig::default() };
/// assert_eq!((config.lambda_polar, config.target), (1.0, Some(0.5)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossConfig {
    /// Of the polarization `mean of m (1 - m)` over gates, with `m` a gate's mean over the batch.
    pub lambda_polar: f32,
    /// Of the price. Polarization pulls a gate that is open for most samples open with up to `lambda_polar`, the price pulls
    /// it closed with `lambda_act`: gates that start open close only where the latter is larger. Twice as much works.
    pub lambda_act: f32,
    /// The share that may remain for free: the price is `max(0, remaining - target)`, or all that remains if `None`.
    pub target: Option<f32>,
    /// The square of that in its place.
    pub squared: bool,
    /// Share of the training over which the price rises to its full weight. A high price from the first step on can close
    /// everything, and a closed gate hardly opens again.
    pub ramp: f64,
}

impl Default for LossConfig {
    /// Polarization 1, price 2 above a remaining half, rising over the first fifth of the training.
    fn default() -> Self {
        Self { lambda_polar: 1.0, lambda_act: 2.0, target: Some(0.5), squared: false, ramp: 0.2 }
    }
}

/// The terms for one batch, scalars on the device.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::consensus_subnetwork::{ConsensusLoss, LossConfig, Terms};
/// # let half = Tensor::from_slice(&gpu, &[1.0, 0.0], &[2, 1])?;
/// # let gates = [half, Tensor::ones(&gpu, &[2, 1])?];
/// // Two gates for a batch of two inputs: the first is open for one of them, the second for both.
/// let loss = ConsensusLoss::new(&gpu, &[1.0, 1.0], LossConfig::default())?;
/// let terms: Terms = loss.compute(&gates, 1.0)?;
/// assert_eq!((terms.polar.item()?, terms.remaining.item()?), (0.25 / 2.0, 0.75));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Terms {
    /// `R_polar`, from 0 (every gate is the same for the whole batch) to 1/4.
    pub polar: Tensor,
    /// The share of the cost that is open, `rho`.
    pub remaining: Tensor,
    /// What is to be added to the task's loss.
    pub total: Tensor,
}

/// `lambda_polar R_polar + lambda_act R_act` of the gates of a batch.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::consensus_subnetwork::{ConsensusLoss, LossConfig};
/// # let half = Tensor::from_slice(&gpu, &[1.0, 0.0], &[2, 1])?;
/// # let gates = [half, Tensor::ones(&gpu, &[2, 1])?];
/// // Two gates for a batch of two inputs: the first is open for one of them, the second for both.
/// let loss = ConsensusLoss::new(&gpu, &[1.0, 1.0], LossConfig::default())?;
/// // Polarization of 1/8, and twice the quarter that remains above the target.
/// assert_eq!(loss.compute(&gates, 1.0)?.total.item()?, 0.125 + 2.0 * (0.75 - 0.5));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConsensusLoss {
    config: LossConfig,
    /// `[gates]`, summing to 1.
    costs: Tensor,
}

impl ConsensusLoss {
    /// Takes one cost for each gate, in any unit: see [`super::Gated::uniform_costs`] and [`super::Costs::gates`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::consensus_subnetwork::{ConsensusLoss, LossConfig};
    /// // Costs in any unit; only their shares count.
    /// assert!(ConsensusLoss::new(&gpu, &[2e6, 6e6], LossConfig::default()).is_ok());
    /// assert!(ConsensusLoss::new(&gpu, &[0.0, 0.0], LossConfig::default()).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a weight is negative, the target does not lie in `(0, 1]`, the ramp not in `[0, 1]`, or costs are negative or all
    /// zero.
    pub fn new(gpu: &Gpu, costs: &[f64], config: LossConfig) -> Result<Self> {
        let wrong = |what: String| Err(Error::value("ConsensusLoss", what));
        let LossConfig { lambda_polar, lambda_act, target, ramp, .. } = config;
        if ![lambda_polar, lambda_act].iter().all(|l| *l >= 0.0 && l.is_finite()) {
            return wrong(format!("weights {lambda_polar} and {lambda_act}; give numbers from 0 on"));
        }
        if let Some(target) = target.filter(|t| !(*t > 0.0 && *t <= 1.0)) {
            return wrong(format!("target {target}; give the share that is to remain, above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(&ramp) {
            return wrong(format!("ramp {ramp}; give a share of the training, 0 for none"));
        }
        let sum: f64 = costs.iter().sum();
        if !(sum > 0.0 && sum.is_finite() && costs.iter().all(|c| *c >= 0.0)) {
            return wrong(format!("{} costs that sum to {sum}; give one for each gate, none negative", costs.len()));
        }
        let shares: Vec<f32> = costs.iter().map(|c| (c / sum) as f32).collect();
        Ok(Self { config, costs: Tensor::from_slice(gpu, &shares, &[shares.len()])? })
    }

    /// The options.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::consensus_subnetwork::{ConsensusLoss, LossConfig};
    /// let loss = ConsensusLoss::new(&gpu, &[1.0], LossConfig { ramp: 0.0, ..LossConfig::default() })?;
    /// assert_eq!(loss.config().ramp, 0.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn config(&self) -> &LossConfig {
        &self.config
    }

    /// The terms for the gates `[B, C]` of every unit at `progress` (0 to 1) of the training.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::consensus_subnetwork::{ConsensusLoss, LossConfig};
    /// # let half = Tensor::from_slice(&gpu, &[1.0, 0.0], &[2, 1])?;
    /// # let gates = [half, Tensor::ones(&gpu, &[2, 1])?];
    /// // Two gates for a batch of two inputs: the first is open for one of them, the second for both.
    /// let loss = ConsensusLoss::new(&gpu, &[3.0, 1.0], LossConfig::default())?;
    /// assert_eq!(loss.compute(&gates, 1.0)?.remaining.item()?, 0.5 * 0.75 + 0.25);
    /// // At the beginning of the training the price is nothing yet.
    /// assert_eq!(loss.compute(&gates, 0.0)?.total.item()?, 0.125);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are more or fewer gates than costs.
    pub fn compute(&self, gates: &[Tensor], progress: f64) -> Result<Terms> {
        let mean = side_by_side(gates)?.mean(&[0], false)?;
        if mean.shape() != self.costs.shape() {
            return Err(Error::shape(
                "ConsensusLoss",
                format!("{} gates for {} costs; take both from one wrapped model", mean.numel(), self.costs.numel()),
            ));
        }
        let polar = mean.sub(&mean.square()?)?.mean(&[0], false)?;
        let remaining = mean.mul(&self.costs)?.sum(&[0], false)?;
        let LossConfig { lambda_polar, lambda_act, target, squared, ramp } = self.config;
        let mut act = remaining.clone();
        if let Some(target) = target {
            act = act.add_scalar(-target)?;
            act = if squared { act.square()? } else { act.relu()? };
        } else if squared {
            act = act.square()?;
        }
        let risen = if ramp > 0.0 { (progress / ramp).clamp(0.0, 1.0) } else { 1.0 };
        let price = act.mul_scalar((f64::from(lambda_act) * risen) as f32)?;
        let total = if lambda_polar == 0.0 { price } else { price.add(&polar.mul_scalar(lambda_polar)?)? };
        Ok(Terms { polar, remaining, total })
    }
}

/// `[B, all gates]` from the gates `[B, C]` of every unit.
pub(super) fn side_by_side(gates: &[Tensor]) -> Result<Tensor> {
    let rows = gates.first().map(|g| g.shape().first().copied());
    if gates.is_empty() || gates.iter().any(|g| g.rank() != 2 || Some(g.shape().first().copied()) != rows) {
        let shapes: Vec<_> = gates.iter().map(Tensor::shape).collect();
        return Err(Error::shape("gates", format!("{shapes:?}; give those of one batch, [B, C] for every unit")));
    }
    Tensor::concat(&gates.iter().collect::<Vec<_>>(), 1)
}
