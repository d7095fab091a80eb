//! How many neurons are silent, and how often: counted on the device, for any model.
//!
//! A neuron is one scalar output of a ReLU as the model executes it: in a residual block that is after the addition, in a
//! convolution every channel at every pixel. With `r` the share of inputs for which it is exactly 0:
//!
//! - *weight-dead*: all its incoming weights are masked (for a channel, its whole filter);
//! - *statically dead*: not weight-dead, and `r = 1`;
//! - the *dynamic* dead-neuron rate is the mean of `r` over all other neurons, those of all layers together; the static one
//!   the share of statically dead neurons among those that are not weight-dead.

use shadegrad::autograd::{Traced, no_grad, trace};
use shadegrad::nn::{Arena, Cx, Module};
use shadegrad::train::Images;
use shadegrad::{Error, Result, Tensor};

/// What counts as a neuron.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::activating_while_pruning::{DeadNeuronCounter, DeadOptions};
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let set = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
/// #     arena.set_value(arena.params().id(name)?, &Tensor::from_slice(&gpu, values, shape)?)
/// # };
/// # set("layers.0.weight", &[0.0; 256], &[4, 64])?;
/// # set("layers.0.bias", &[1.0, -1.0, 1.0, 1.0], &[4])?;
/// // A model with four hidden units, of which the second is 0 for every input.
/// let x = Tensor::ones(&gpu, &[1, 8, 8, 1])?;
/// // The model has no such operation: an error that says so.
/// let gelu = DeadOptions { op: "gelu".into(), zero_tol: 1e-3 };
/// assert!(DeadNeuronCounter::new(&arena, gelu, || model.forward(&Cx::eval(&arena), &x)).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DeadOptions {
    /// The operation whose outputs are looked at: `relu`, or another one's name, such as `gelu`.
    pub op: String,
    /// The largest size of an output that counts as zero. Must be positive for all but ReLU, whose zeros are exact.
    pub zero_tol: f32,
}

impl Default for DeadOptions {
    /// ReLU with exact zeros.
    fn default() -> Self {
        Self { op: "relu".into(), zero_tol: 0.0 }
    }
}

/// The rates of one activation.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::activating_while_pruning::{LayerDead, dead_neuron_rates};
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let set = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
/// #     arena.set_value(arena.params().id(name)?, &Tensor::from_slice(&gpu, values, shape)?)
/// # };
/// # set("layers.0.weight", &[0.0; 256], &[4, 64])?;
/// # set("layers.0.bias", &[1.0, -1.0, 1.0, 1.0], &[4])?;
/// // A model with four hidden units, of which the second is 0 for every input.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let layer: &LayerDead = &dead_neuron_rates(&model, &arena, &images, 20)?.layers[0];
/// assert_eq!((layer.name.as_str(), layer.units, layer.static_dead), ("layers.0.weight", 4, 1));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LayerDead {
    /// The parameter that makes the units, such as `conv1.weight`; `relu 3` for one that none makes alone.
    pub name: String,
    /// Neurons.
    pub units: usize,
    /// Those without a weight.
    pub weight_dead: usize,
    /// Those with weights that are 0 for all inputs.
    pub static_dead: usize,
    /// Mean share of zeros of the others; 0 if there are none.
    pub dynamic: f64,
}

/// The rates of a network.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::activating_while_pruning::{DeadNeurons, dead_neuron_rates};
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let set = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
/// #     arena.set_value(arena.params().id(name)?, &Tensor::from_slice(&gpu, values, shape)?)
/// # };
/// # set("layers.0.weight", &[0.0; 256], &[4, 64])?;
/// # set("layers.0.bias", &[1.0, -1.0, 1.0, 1.0], &[4])?;
/// // A model with four hidden units, of which the second is 0 for every input.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let dead: DeadNeurons = dead_neuron_rates(&model, &arena, &images, 20)?;
/// assert_eq!((dead.static_dead, dead.weight_dead, dead.dynamic), (0.25, 0.0, 0.0));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DeadNeurons {
    /// Mean share of zeros over the neurons that are neither weight-dead nor statically dead.
    pub dynamic: f64,
    /// Share of the statically dead among the neurons that are not weight-dead.
    pub static_dead: f64,
    /// Share of the weight-dead among all neurons.
    pub weight_dead: f64,
    /// Inputs that were counted over. Which neurons are static depends on it.
    pub inputs: usize,
    /// By activation, in the order in which the model runs them.
    pub layers: Vec<LayerDead>,
}

/// The rates of `model` on the first `inputs` pictures of `data`, without augmentation, in evaluation.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::train::Images;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::activating_while_pruning::dead_neuron_rates;
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let set = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
/// #     arena.set_value(arena.params().id(name)?, &Tensor::from_slice(&gpu, values, shape)?)
/// # };
/// # set("layers.0.weight", &[0.0; 256], &[4, 64])?;
/// # set("layers.0.bias", &[1.0, -1.0, 1.0, 1.0], &[4])?;
/// // A model with four hidden units, of which the second is 0 for every input.
/// # let pair = shadegrad::data::digits();
/// # let (few, stats) = (pair.train.first_per_class(2)?, pair.train.channel_stats()?);
/// # let images = Images::upload(&gpu, &few, &stats)?;
/// let dead = dead_neuron_rates(&model, &arena, &images, 1000)?;
/// assert_eq!(dead.static_dead, 0.25);
/// assert_eq!(dead.inputs, images.len()); // there are no more than 20
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If the model has no ReLU, or those of the model.
pub fn dead_neuron_rates(model: &dyn Module, arena: &Arena, data: &Images, inputs: usize) -> Result<DeadNeurons> {
    const BATCH: usize = 250;
    let cx = Cx::eval(arena);
    let pictures = |from: usize, to: usize| data.plain(&(from as u32..to as u32).collect::<Vec<_>>());
    let n = inputs.min(data.len());
    let one = pictures(0, n.min(1))?.images;
    let mut counter = DeadNeuronCounter::new(arena, DeadOptions::default(), || model.forward(&cx, &one))?;
    for from in (0..n).step_by(BATCH) {
        let to = (from + BATCH).min(n);
        let images = pictures(from, to)?.images;
        counter.add(to - from, || model.forward(&cx, &images))?;
    }
    counter.finish()
}

/// One activation of the model.
struct Tap {
    name: String,
    /// Whether each channel (last axis) has no weight.
    weight_dead: Vec<bool>,
    /// Zeros of each neuron so far, on the device.
    zeros: Option<Tensor>,
}

/// Counts zeros batch by batch, whatever the forward pass takes.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::Spec;
/// use shadegrad_models::papers::activating_while_pruning::{DeadNeuronCounter, DeadOptions};
/// # use shadegrad_models::Mlp;
/// # let mut names = Builder::new();
/// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
/// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let set = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
/// #     arena.set_value(arena.params().id(name)?, &Tensor::from_slice(&gpu, values, shape)?)
/// # };
/// # set("layers.0.weight", &[0.0; 256], &[4, 64])?;
/// # set("layers.0.bias", &[1.0, -1.0, 1.0, 1.0], &[4])?;
/// // A model with four hidden units, of which the second is 0 for every input.
/// let cx = Cx::eval(&arena);
/// let x = Tensor::ones(&gpu, &[2, 8, 8, 1])?;
/// let mut counter = DeadNeuronCounter::new(&arena, DeadOptions::default(), || model.forward(&cx, &x))?;
/// let logits = counter.add(2, || model.forward(&cx, &x))?;
/// assert_eq!(logits.shape(), [2, 10]); // what the forward pass gives
/// assert_eq!(counter.finish()?.layers[0].static_dead, 1);
/// # Ok::<(), Error>(())
/// ```
pub struct DeadNeuronCounter {
    options: DeadOptions,
    taps: Vec<Tap>,
    inputs: usize,
}

impl DeadNeuronCounter {
    /// Runs `probe`, a forward pass of a sample or two in evaluation, to find the activations and the weights that feed each,
    /// and takes the arena's masks.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::activating_while_pruning::{DeadNeuronCounter, DeadOptions};
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let set = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
    /// #     arena.set_value(arena.params().id(name)?, &Tensor::from_slice(&gpu, values, shape)?)
    /// # };
    /// # set("layers.0.weight", &[0.0; 256], &[4, 64])?;
    /// # set("layers.0.bias", &[1.0, -1.0, 1.0, 1.0], &[4])?;
    /// // A model with four hidden units, of which the second is 0 for every input.
    /// let x = Tensor::ones(&gpu, &[1, 8, 8, 1])?;
    /// let probe = || model.forward(&Cx::eval(&arena), &x);
    /// // Outputs of ReLU up to a thousandth count as 0.
    /// let options = DeadOptions { zero_tol: 1e-3, ..DeadOptions::default() };
    /// assert!(DeadNeuronCounter::new(&arena, options, probe).is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such activation; if outputs other than ReLU's are to be exactly 0; those of `probe`.
    pub fn new<T>(arena: &Arena, options: DeadOptions, probe: impl FnOnce() -> Result<T>) -> Result<Self> {
        let DeadOptions { op, zero_tol } = &options;
        if !zero_tol.is_finite() || *zero_tol < 0.0 || (*zero_tol == 0.0 && op != "relu") {
            return Err(Error::value(
                "dead_neuron_rates",
                format!("outputs of `{op}` within {zero_tol} count as zero; it has no exact zeros, so give a threshold above 0"),
            ));
        }
        let (_, seen) = no_grad(|| trace(&[], probe))?;
        let mask = arena.mask_flat().map(Tensor::to_vec).transpose()?;
        let lineage = Lineage { arena, mask, seen: &seen };
        let mut taps = Vec::new();
        for (i, t) in seen.iter().enumerate().filter(|(_, t)| t.op == op) {
            let name = lineage.maker(&t.inputs[0], i);
            let channels = t.output.shape().last().copied().unwrap_or(1);
            let dead = lineage.dead(&t.inputs[0], i).filter(|d| d.len() == channels);
            taps.push(Tap {
                name: name.unwrap_or_else(|| format!("{op} {}", taps.len())),
                weight_dead: dead.unwrap_or_else(|| vec![false; channels]),
                zeros: None,
            });
        }
        if taps.is_empty() {
            return Err(Error::value(
                "dead_neuron_rates",
                format!("the model runs no `{op}`; name the operation it uses, with a threshold where it has no exact zeros"),
            ));
        }
        Ok(Self { options, taps, inputs: 0 })
    }

    /// Runs `forward` on `inputs` samples and counts. The counts stay on the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::activating_while_pruning::{DeadNeuronCounter, DeadOptions};
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let set = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
    /// #     arena.set_value(arena.params().id(name)?, &Tensor::from_slice(&gpu, values, shape)?)
    /// # };
    /// # set("layers.0.weight", &[0.0; 256], &[4, 64])?;
    /// # set("layers.0.bias", &[1.0, -1.0, 1.0, 1.0], &[4])?;
    /// // A model with four hidden units, of which the second is 0 for every input.
    /// let cx = Cx::eval(&arena);
    /// let x = Tensor::ones(&gpu, &[3, 8, 8, 1])?;
    /// let mut counter = DeadNeuronCounter::new(&arena, DeadOptions::default(), || model.forward(&cx, &x))?;
    /// counter.add(3, || model.forward(&cx, &x))?;
    /// counter.add(3, || model.forward(&cx, &x))?;
    /// assert_eq!(counter.finish()?.inputs, 6);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the activations are not those of the probe, or their first axis is not made of the samples; those of `forward`.
    pub fn add<T>(&mut self, inputs: usize, forward: impl FnOnce() -> Result<T>) -> Result<T> {
        const OP: &str = "dead_neuron_rates";
        let (out, seen) = no_grad(|| trace(&[self.options.op.as_str()], forward))?;
        if seen.len() != self.taps.len() {
            let (now, probed) = (seen.len(), self.taps.len());
            return Err(Error::value(OP, format!("{now} activations against {probed} of the probe; run the same model")));
        }
        for (tap, t) in self.taps.iter_mut().zip(&seen) {
            let h = &t.output;
            let rows = h.shape().first().copied().unwrap_or(0);
            if inputs == 0 || rows == 0 || !rows.is_multiple_of(inputs) {
                let shape = h.shape();
                return Err(Error::shape(OP, format!("an activation {shape:?} for {inputs} samples; its first axis must be theirs")));
            }
            let units = h.numel() / inputs;
            let h = h.detach().reshape(&[inputs, units])?;
            let tol = self.options.zero_tol;
            let zero = if tol == 0.0 { h.eq_scalar(0.0)? } else { h.abs()?.le_scalar(tol)? };
            let zeros = zero.sum(&[0], false)?;
            tap.zeros = Some(match &tap.zeros {
                Some(before) => before.add(&zeros)?,
                None => zeros,
            });
        }
        self.inputs += inputs;
        Ok(out)
    }

    /// Reads the counts and works out the rates.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::Spec;
    /// use shadegrad_models::papers::activating_while_pruning::{DeadNeuronCounter, DeadOptions};
    /// # use shadegrad_models::Mlp;
    /// # let mut names = Builder::new();
    /// # let spec = Spec { height: 8, width: 8, channels: 1, classes: 10 };
    /// # let model = Mlp::new(&mut names.root(), &spec, &[4]);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let set = |name: &str, values: &[f32], shape: &[usize]| -> Result<()> {
    /// #     arena.set_value(arena.params().id(name)?, &Tensor::from_slice(&gpu, values, shape)?)
    /// # };
    /// # set("layers.0.weight", &[0.0; 256], &[4, 64])?;
    /// # set("layers.0.bias", &[1.0, -1.0, 1.0, 1.0], &[4])?;
    /// // A model with four hidden units, of which the second is 0 for every input.
    /// let cx = Cx::eval(&arena);
    /// let x = Tensor::ones(&gpu, &[1, 8, 8, 1])?;
    /// let counter = DeadNeuronCounter::new(&arena, DeadOptions::default(), || model.forward(&cx, &x))?;
    /// assert!(counter.finish().is_err()); // the probe does not count
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If nothing was counted.
    pub fn finish(self) -> Result<DeadNeurons> {
        if self.inputs == 0 {
            return Err(Error::value("dead_neuron_rates", "no inputs were counted; give at least 1000 for steady rates"));
        }
        let mut counts = Vec::new();
        for tap in self.taps {
            let zeros = tap.zeros.map_or_else(|| Ok(Vec::new()), |z| z.to_vec())?;
            counts.push((tap.name, zeros, tap.weight_dead));
        }
        Ok(pool(&counts, self.inputs))
    }
}

/// The rates from each activation's name, zeros of each neuron, and dead channels (which the neurons repeat).
pub(super) fn pool(layers: &[(String, Vec<f32>, Vec<bool>)], inputs: usize) -> DeadNeurons {
    let n = inputs as f64;
    let (mut all, mut weight_dead, mut static_dead, mut rest, mut sum) = (0usize, 0usize, 0usize, 0usize, 0.0f64);
    let mut out = Vec::new();
    for (name, zeros, dead) in layers {
        let mut layer =
            LayerDead { name: name.clone(), units: zeros.len(), weight_dead: 0, static_dead: 0, dynamic: 0.0 };
        let (mut own, mut own_sum) = (0usize, 0.0f64);
        for (unit, &z) in zeros.iter().enumerate() {
            if dead[unit % dead.len().max(1)] {
                layer.weight_dead += 1;
            } else if f64::from(z) >= n {
                layer.static_dead += 1;
            } else {
                own += 1;
                own_sum += f64::from(z) / n;
            }
        }
        layer.dynamic = own_sum / own.max(1) as f64;
        all += layer.units;
        weight_dead += layer.weight_dead;
        static_dead += layer.static_dead;
        rest += own;
        sum += own_sum;
        out.push(layer);
    }
    let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
    DeadNeurons {
        dynamic: sum / rest.max(1) as f64,
        static_dead: share(static_dead, all - weight_dead),
        weight_dead: share(weight_dead, all),
        inputs,
        layers: out,
    }
}

/// Where a tensor of a traced forward pass comes from.
struct Lineage<'a> {
    arena: &'a Arena,
    mask: Option<Vec<f32>>,
    seen: &'a [Traced],
}

impl Lineage<'_> {
    /// The operation before the `before`th that made `t`.
    fn source(&self, t: &Tensor, before: usize) -> Option<(usize, &Traced)> {
        let same = |a: &Tensor| {
            let (a, b) = (a.storage(), t.storage());
            a.same_buffer(b) && a.offset() == b.offset()
        };
        let found = self.seen[..before].iter().enumerate().rev();
        found.into_iter().find(|(_, op)| op.output.shape() == t.shape() && same(&op.output))
    }

    /// Row of the table of the parameter that `t` is.
    fn parameter(&self, t: &Tensor) -> Option<usize> {
        let s = t.storage();
        let same = |p: &Tensor| p.storage().same_buffer(s) && p.storage().offset() == s.offset();
        self.arena.params().tensors().iter().position(same)
    }

    /// The weight of the layer that made `t`, batch norm and biases in between looked through.
    fn maker(&self, t: &Tensor, before: usize) -> Option<String> {
        let (at, op) = self.source(t, before)?;
        match op.op {
            "linear" | "conv2d" => {
                let row = self.parameter(op.inputs.get(1)?)?;
                Some(self.arena.table().entries()[row].name.clone())
            }
            "add" if self.parameter(op.inputs.get(1)?).is_none() => None,
            "add" | "batch_norm" | "batch_norm_eval" | "mul_scalar" => self.maker(&op.inputs[0], at),
            _ => None,
        }
    }

    /// Which channels of `t` get nothing through weights; `None` if all may get something.
    fn dead(&self, t: &Tensor, before: usize) -> Option<Vec<bool>> {
        let mask = self.mask.as_ref()?;
        let (at, op) = self.source(t, before)?;
        match op.op {
            "linear" | "conv2d" => {
                let e = &self.arena.table().entries()[self.parameter(op.inputs.get(1)?)?];
                let rows = mask[e.offset..][..e.len].chunks(e.len / e.shape[0].max(1));
                Some(rows.map(|row| row.iter().all(|m| *m == 0.0)).collect())
            }
            "add" if self.parameter(op.inputs.get(1)?).is_none() => {
                // Both sides of a residual block must be silent.
                let [a, b] = [self.dead(&op.inputs[0], at)?, self.dead(&op.inputs[1], at)?];
                (a.len() == b.len()).then(|| a.iter().zip(b).map(|(a, b)| *a && b).collect())
            }
            "add" | "batch_norm" | "batch_norm_eval" | "mul_scalar" | "relu" => self.dead(&op.inputs[0], at),
            _ => None,
        }
    }
}
