//! Thresholds from the currents of training images, layer by layer.

use shadegrad::autograd::no_grad;
use shadegrad::nn::Cx;
use shadegrad::{Error, Result, Tensor};

use super::lif::with_time;
use super::net::{SpikingNet, Stage, Weights, reshaping};

const OP: &str = "balance_thresholds";

/// The threshold of a layer whose currents are nowhere positive enough.
const FALLBACK: f32 = 0.1;
/// Floats of currents and spikes that a piece of time may have.
const PIECE_FLOATS: usize = 16 << 20;
/// Steps of a piece, at most: those of one word of packed spikes.
const PIECE_STEPS: usize = 32;

/// How thresholds are found.
///
/// ```
/// use shadegrad_models::papers::iir_snn::{Balance, percentile};
/// let how = Balance { percentile: 99.7, steps: 100, ..Balance::default() };
/// assert!(!how.rescale_bias && how.scale == 1.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// Which percentile of the currents of a timestep: 90 in the paper, since T is tiny. Conversion without training wants
    /// more.
    pub percentile: f64,
    /// Timesteps that are looked at.
    pub steps: usize,
    /// Multiplies all thresholds at the end.
    pub scale: f32,
    /// Divides each bias by the product of the thresholds before it. Spikes are 1 rather than V, so every layer sees its
    /// input divided by that product; without this the biases are too large by it. The paper's code leaves it out, and
    /// training makes up for it; a network that is not trained after the conversion needs it.
    pub rescale_bias: bool,
}

impl Default for Balance {
    /// As the paper: 90th percentile, 500 steps, biases as they are.
    fn default() -> Self {
        Self { percentile: 90.0, steps: 500, scale: 1.0, rescale_bias: false }
    }
}

impl Balance {
    /// For a network that is used without further training: 99th percentile, 500 steps, biases rescaled.
    ///
    /// ```
    /// use shadegrad_models::papers::iir_snn::Balance;
    /// let how = Balance::conversion_only();
    /// assert_eq!((how.percentile, how.rescale_bias), (99.0, true));
    /// ```
    pub fn conversion_only() -> Self {
        Self { percentile: 99.0, rescale_bias: true, ..Self::default() }
    }
}

/// The `q`-th percentile by rank: the `k`-th smallest of `n`, `k = 1 + round(q (n - 1) / 100)`, halves to even.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::iir_snn::percentile;
/// let values = Tensor::from_slice(&gpu, &[5.0, 1.0, 3.0], &[3])?;
/// assert_eq!((percentile(&values, 50.0)?, percentile(&values, 100.0)?), (3.0, 5.0));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If there are no values, or `q` lies outside 0..=100.
pub fn percentile(values: &Tensor, q: f64) -> Result<f32> {
    let mut values = values.to_vec()?;
    if values.is_empty() || !(0.0..=100.0).contains(&q) {
        return Err(Error::value(
            "percentile",
            format!("percentile {q} of {} values; takes 0 to 100 of at least one", values.len()),
        ));
    }
    Ok(ranked(&mut values, q))
}

/// [`percentile`] of values there are, which end up in another order.
fn ranked(values: &mut [f32], q: f64) -> f32 {
    let k = (0.01 * q * (values.len() - 1) as f64).round_ties_even() as usize;
    *values.select_nth_unstable_by(k.min(values.len() - 1), f32::total_cmp).1
}

/// What feeds a layer over all steps.
enum Source {
    /// The same at every step.
    Constant(Tensor),
    /// Spikes of the layer before, a piece of time each: packed, number of steps.
    Pieces(Vec<(Tensor, usize)>),
}

impl SpikingNet {
    /// Finds the thresholds, first layer to last: all leaks are set to 1, the network so far runs on `data` (a batch of
    /// training images, normalised), and the threshold of a layer is the largest over time of the percentile of its
    /// currents. Returns the thresholds. Cost: two forward passes of `steps` timesteps.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// use shadegrad_models::papers::iir_snn::{Balance, percentile};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 2, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Neurons that add up two inputs; the largest current of these two samples is 1 + 2.
    /// let data = Tensor::from_slice(&gpu, &[0.5, 0.25, 1.0, 2.0], &[2, 2])?;
    /// let how = Balance { percentile: 100.0, steps: 4, ..Balance::default() };
    /// assert_eq!(net.balance_thresholds(&data, &how)?, [3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no data, a number is out of range, or a shape does not fit.
    pub fn balance_thresholds(&self, data: &Tensor, how: &Balance) -> Result<Vec<f32>> {
        let Balance { percentile, steps, scale, rescale_bias } = *how;
        let positive = scale > 0.0 && scale.is_finite();
        if steps == 0 || data.numel() == 0 || !positive || !(0.0..=100.0).contains(&percentile) {
            return Err(Error::value(
                OP,
                format!(
                    "{how:?} on {:?}: steps and scale must be positive, the percentile lie in 0..=100, data not be empty",
                    data.shape()
                ),
            ));
        }
        for (_, lif) in self.structure().neurons() {
            self.set_scalar(lif.leak(), 1.0)?;
        }
        let thresholds = no_grad(|| self.find(data, how))?;
        let mut divisor = 1.0;
        for (weights, _) in self.structure().neurons() {
            if rescale_bias && divisor != 1.0 {
                self.divide_bias(weights, divisor)?;
            }
            divisor *= scale;
        }
        let thresholds: Vec<f32> = thresholds.into_iter().map(|v| v * scale).collect();
        self.set_thresholds(&thresholds)?;
        Ok(thresholds)
    }

    fn divide_bias(&self, weights: &Weights, by: f32) -> Result<()> {
        let Some(id) = weights.bias() else { return Ok(()) };
        let scaled = no_grad(|| self.arena().params().get(id).mul_scalar(1.0 / by))?;
        self.arena().set_value(id, &scaled)
    }

    fn find(&self, data: &Tensor, how: &Balance) -> Result<Vec<f32>> {
        let cx = Cx::eval(self.arena());
        let mut source = Source::Constant(data.clone());
        // Poolings and the like between the source and the weights.
        let mut between: Vec<&Stage> = Vec::new();
        let (mut thresholds, mut product) = (Vec::new(), 1.0);
        let layers = self.structure().neurons().count();
        for stage in &self.structure().stages {
            let Stage::Fire(weights, lif) = stage else {
                between.push(stage);
                continue;
            };
            if how.rescale_bias && product != 1.0 {
                self.divide_bias(weights, product)?;
            }
            let through = |x: &Tensor| -> Result<Tensor> {
                let x = between.iter().try_fold(x.clone(), |x, stage| reshaping(stage, &x))?;
                weights.forward(&cx, &x)
            };
            let constant = if let Source::Constant(x) = &source { Some(through(x)?) } else { None };
            // Currents `[steps, batch, ..]` of a piece.
            let currents = |(spikes, steps): (Option<&Tensor>, usize)| -> Result<Tensor> {
                match (&constant, spikes) {
                    (Some(a), _) => a.reshape(&with_time(1, a.shape()))?.broadcast_to(&with_time(steps, a.shape())),
                    (None, Some(words)) => {
                        let spikes = words.unpack_spikes(steps)?;
                        let a = through(&spikes.flatten(0, 1)?)?;
                        a.reshape(&[&[steps, a.dim(0) / steps], &a.shape()[1..]].concat())
                    }
                    (None, None) => Err(Error::value(OP, "a piece without spikes")),
                }
            };
            let mut highest = f32::NEG_INFINITY;
            match (&constant, &source) {
                (Some(a), _) => highest = ranked(&mut a.to_vec()?, how.percentile),
                (None, Source::Pieces(pieces)) => {
                    for (words, steps) in pieces {
                        let mut values = currents((Some(words), *steps))?.to_vec()?;
                        let step = values.len() / steps;
                        for values in values.chunks_exact_mut(step) {
                            highest = highest.max(ranked(values, how.percentile));
                        }
                    }
                }
                (None, Source::Constant(_)) => {}
            }
            let threshold = if highest > 0.0 && highest.is_finite() { highest } else { FALLBACK };
            self.set_scalar(lif.threshold(), threshold)?;
            thresholds.push(threshold);
            product *= threshold;
            if thresholds.len() == layers {
                break;
            }
            // The spikes of this layer, for the next one.
            let lengths = match (&constant, &source) {
                (None, Source::Pieces(pieces)) => pieces.iter().map(|p| p.1).collect(),
                (a, _) => pieces(how.steps, a.as_ref().map_or(1, Tensor::numel).max(data.numel())),
            };
            let (mut membrane, mut packed) = (None, Vec::new());
            for (i, steps) in lengths.into_iter().enumerate() {
                let words = if let Source::Pieces(p) = &source { p.get(i).map(|p| &p.0) } else { None };
                let a = currents((words, steps))?;
                let start = match membrane {
                    Some(m) => m,
                    None => Tensor::zeros(a.gpu(), &a.shape()[1..])?,
                };
                let (spikes, last) = lif.steps(&cx, &a, &start)?;
                membrane = Some(last);
                packed.push((spikes.pack_spikes()?, steps));
            }
            source = Source::Pieces(packed);
            between.clear();
        }
        Ok(thresholds)
    }
}

/// Lengths of pieces of time that make up `steps`, for layers of about so many floats a step.
fn pieces(steps: usize, floats: usize) -> Vec<usize> {
    let most = (PIECE_FLOATS / floats.max(1)).clamp(1, PIECE_STEPS);
    (0..steps).step_by(most).map(|first| most.min(steps - first)).collect()
}
