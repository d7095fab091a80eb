//! The spiking network: an [`Ann`] with neurons in place of its ReLUs and batch norms folded into the weights.

use std::sync::Arc;

use shadegrad::autograd::no_grad;
use shadegrad::nn::{
    Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, Init, Linear, Module, ParamId, Scope, Table,
};
use shadegrad::{Error, Pool2d, Result, Surrogate, Tensor};

use super::ann::{Ann, Layer};
use super::lif::{Lif, with_time};

const OP: &str = "SpikingNet";

/// Smallest threshold that training leaves: near 0, `u / V` explodes. A guard of ours; the paper has none.
pub const MIN_THRESHOLD: f32 = 1e-3;

/// What turns spikes into currents.
pub(super) enum Weights {
    Conv(Conv2d),
    Linear(Linear),
}

impl Weights {
    pub(super) fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward(cx, x),
            Self::Linear(linear) => linear.forward(cx, x),
        }
    }

    fn weight(&self) -> ParamId {
        match self {
            Self::Conv(conv) => conv.weight(),
            Self::Linear(linear) => linear.weight(),
        }
    }

    pub(super) fn bias(&self) -> Option<ParamId> {
        match self {
            Self::Conv(conv) => conv.bias(),
            Self::Linear(linear) => linear.bias(),
        }
    }
}

/// A part of the network, all timesteps at once.
pub(super) enum Stage {
    /// Currents, and the neurons they flow into.
    Fire(Weights, Lif),
    Pool(Pool2d),
    Dropout(f32),
    Flatten,
}

/// Where the values of converted weights come from: ids of the network before.
struct Origin {
    to: (ParamId, Option<ParamId>),
    from: (ParamId, Option<ParamId>),
    norm: Option<BatchNorm2d>,
}

/// The architecture, without values.
pub(super) struct Structure {
    pub(super) stages: Vec<Stage>,
    output: Linear,
    origins: Vec<Origin>,
}

/// Either the same at every timestep, `[batch, ..]`, or `[T batch, ..]`.
enum Flow {
    Constant(Tensor),
    Steps(Tensor),
}

impl Structure {
    /// Declares the spiking version of `ann`, whose parameters are those of `table`.
    pub(super) fn new(scope: &mut Scope<'_>, ann: &Ann, table: &Table, surrogate: Surrogate) -> Result<Self> {
        let refuse = |detail: String| Err(Error::value(OP, detail));
        let (mut stages, mut origins) = (Vec::new(), Vec::<Origin>::new());
        // Weights whose neurons have not come yet.
        let mut pending: Option<Weights> = None;
        for layer in ann.layers() {
            if pending.is_some() && !matches!(layer, Layer::BatchNorm(_) | Layer::Relu) {
                return refuse(format!(
                    "{} right behind weights; between weights and the next layer stand batch norm, if any, and ReLU",
                    name(layer)
                ));
            }
            match layer {
                Layer::Conv(_) | Layer::Linear(_) => {
                    let (weights, origin) = declare(&mut scope.sub(format!("weights{}", origins.len())), layer, table)?;
                    origins.push(origin);
                    pending = Some(weights);
                }
                Layer::BatchNorm(norm) => match origins.last_mut().filter(|o| pending.is_some() && o.norm.is_none()) {
                    Some(origin) => origin.norm = Some(norm.clone()),
                    None => return refuse("a batch norm that is not right behind weights cannot be folded".into()),
                },
                Layer::Relu => match pending.take() {
                    Some(weights) => {
                        let lif =
                            Lif::new(&mut scope.sub(format!("neurons{}", origins.len() - 1)), 1.0, 1.0, surrogate)?;
                        stages.push(Stage::Fire(weights, lif));
                    }
                    None => return refuse("a ReLU without weights right before it has no current to integrate".into()),
                },
                Layer::Dropout(p) => stages.push(Stage::Dropout(*p)),
                Layer::AvgPool(pool) => stages.push(Stage::Pool(*pool)),
                Layer::MaxPool(_) => {
                    return refuse("max pooling of spikes loses their rate; train with average pooling".into());
                }
                Layer::Flatten => stages.push(Stage::Flatten),
            }
        }
        match pending {
            Some(Weights::Linear(output)) if stages.iter().any(|s| matches!(s, Stage::Fire(..))) => {
                Ok(Self { stages, output, origins })
            }
            _ => refuse("the network must have a ReLU and end in a linear layer, which sums up the logits".into()),
        }
    }

    /// Logits `[batch, classes]`, summed over the timesteps. `see` gets the number of each layer of neurons and its spikes
    /// `[T, batch, ..]`.
    fn walk(
        &self,
        cx: &Cx,
        x: &Tensor,
        timesteps: usize,
        mut see: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        if timesteps == 0 {
            return Err(Error::value(OP, "0 timesteps; give at least 1"));
        }
        let Some(&batch) = x.shape().first() else {
            return Err(Error::shape(OP, "the input is a scalar; takes [batch, ..]"));
        };
        let (mut flow, mut layer) = (Flow::Constant(x.clone()), 0);
        for stage in &self.stages {
            flow = match stage {
                Stage::Fire(weights, lif) => {
                    let spikes = lif.forward(cx, &currents(cx, weights, &flow, timesteps)?)?;
                    see(layer, &spikes)?;
                    layer += 1;
                    let shape = [&[timesteps * batch], &spikes.shape()[2..]].concat();
                    Flow::Steps(spikes.reshape(&shape)?)
                }
                Stage::Dropout(p) if !cx.training() || *p == 0.0 => flow,
                Stage::Dropout(p) => match flow {
                    Flow::Constant(x) => Flow::Constant(x.dropout(*p, cx.draw())?),
                    Flow::Steps(x) => {
                        // One mask for all timesteps.
                        let sample = [&[batch], &x.shape()[1..]].concat();
                        let mask = Tensor::ones(x.gpu(), &sample)?.dropout(*p, cx.draw())?;
                        Flow::Steps(x.reshape(&with_time(timesteps, &sample))?.mul(&mask)?.reshape(x.shape())?)
                    }
                },
                _ => match flow {
                    Flow::Constant(x) => Flow::Constant(reshaping(stage, &x)?),
                    Flow::Steps(x) => Flow::Steps(reshaping(stage, &x)?),
                },
            };
        }
        // The output is linear: the logits of all steps are those of the summed spikes, and the bias comes T times.
        let summed = match flow {
            Flow::Constant(x) => x.mul_scalar(timesteps as f32)?,
            Flow::Steps(x) => {
                let sample = [&[batch], &x.shape()[1..]].concat();
                x.reshape(&with_time(timesteps, &sample))?.sum(&[0], false)?
            }
        };
        let logits = summed.linear(cx.param(self.output.weight()), None)?;
        match self.output.bias() {
            Some(bias) => logits.add(&cx.param(bias).mul_scalar(timesteps as f32)?),
            None => Ok(logits),
        }
    }

    pub(super) fn neurons(&self) -> impl Iterator<Item = (&Weights, &Lif)> {
        self.stages.iter().filter_map(|s| if let Stage::Fire(w, lif) = s { Some((w, lif)) } else { None })
    }
}

/// A stage without parameters or randomness, on any number of samples.
pub(super) fn reshaping(stage: &Stage, x: &Tensor) -> Result<Tensor> {
    match stage {
        Stage::Pool(pool) => x.avg_pool2d(*pool),
        Stage::Flatten => x.flatten(1, x.rank().max(2) - 1),
        Stage::Dropout(_) | Stage::Fire(..) => Ok(x.clone()),
    }
}

/// Currents `[T, batch, ..]`. An input that is the same at every step makes a current that is.
fn currents(cx: &Cx, weights: &Weights, flow: &Flow, timesteps: usize) -> Result<Tensor> {
    match flow {
        Flow::Constant(x) => {
            let a = weights.forward(cx, x)?;
            a.reshape(&with_time(1, a.shape()))?.broadcast_to(&with_time(timesteps, a.shape()))
        }
        Flow::Steps(x) => {
            let a = weights.forward(cx, x)?;
            a.reshape(&[&[timesteps, a.dim(0) / timesteps], &a.shape()[1..]].concat())
        }
    }
}

fn name(layer: &Layer) -> &'static str {
    match layer {
        Layer::Conv(_) => "a convolution",
        Layer::BatchNorm(_) => "a batch norm",
        Layer::Relu => "a ReLU",
        Layer::Dropout(_) => "dropout",
        Layer::AvgPool(_) | Layer::MaxPool(_) => "a pooling",
        Layer::Flatten => "flattening",
        Layer::Linear(_) => "a linear layer",
    }
}

/// The same weights in another scope. Convolutions get a bias, which the folded norm may need.
fn declare(scope: &mut Scope<'_>, layer: &Layer, table: &Table) -> Result<(Weights, Origin)> {
    let (from, bias) = match layer {
        Layer::Conv(conv) => (conv.weight(), conv.bias()),
        Layer::Linear(linear) => (linear.weight(), linear.bias()),
        _ => return Err(Error::value(OP, format!("{} has no weights", name(layer)))),
    };
    let Some(entry) = table.entries().get(from.index()) else {
        return Err(Error::Params(
            "the layers are not those of the arena; give the one the network was built for".into(),
        ));
    };
    let weights = match (layer, entry.shape.as_slice()) {
        (Layer::Conv(conv), &[outputs, rows, columns, per_group]) if rows == columns => {
            let options = ConvOptions { geometry: conv.geometry(), init: Some(Init::Zeros), ..ConvOptions::default() };
            Weights::Conv(Conv2d::new(scope, per_group * conv.geometry().groups, outputs, rows, options))
        }
        (Layer::Linear(_), &[outputs, inputs]) => {
            Weights::Linear(Linear::with_init(scope, inputs, outputs, Init::Zeros, bias.map(|_| Init::Zeros)))
        }
        (_, shape) => {
            return Err(Error::shape(OP, format!("`{}` is {shape:?}, not {}'s weight", entry.name, name(layer))));
        }
    };
    let origin = Origin { to: (weights.weight(), weights.bias()), from: (from, bias), norm: None };
    Ok((weights, origin))
}

/// What a batch norm does in evaluation: `(x - mean) gamma / sqrt(var + eps) + beta`, each `[channels]`.
#[derive(Clone, Debug)]
pub(crate) struct NormValues {
    /// Scale; 1 if there is none.
    pub gamma: Option<Tensor>,
    /// Shift; 0 if there is none.
    pub beta: Option<Tensor>,
    /// Running mean.
    pub mean: Tensor,
    /// Running variance.
    pub var: Tensor,
    /// Addition to the variance.
    pub eps: f32,
}

/// Weights `[out, ..]` and bias `[out]` that do alone what `weight` and `bias` (0 if there is none) with the batch norm
/// behind them do: `w gamma / sqrt(var + eps)` and `(b - mean) gamma / sqrt(var + eps) + beta`.
///
/// # Errors
/// If the norm has another number of channels.
pub(crate) fn fold_batch_norm(weight: &Tensor, bias: Option<&Tensor>, norm: &NormValues) -> Result<(Tensor, Tensor)> {
    let outputs = weight.shape().first().copied().unwrap_or(0);
    let vectors = [Some(&norm.mean), Some(&norm.var), norm.gamma.as_ref(), norm.beta.as_ref(), bias];
    if let Some(odd) = vectors.into_iter().flatten().find(|v| v.shape() != [outputs]) {
        return Err(Error::shape(
            "fold_batch_norm",
            format!("{:?} for weights {:?}; all vectors are [{outputs}]", odd.shape(), weight.shape()),
        ));
    }
    let root = norm.var.add_scalar(norm.eps)?.sqrt()?;
    let scale = match &norm.gamma {
        Some(gamma) => gamma.div(&root)?,
        None => root.recip()?,
    };
    let mut column = vec![1; weight.rank()];
    column[0] = outputs;
    let centred = match bias {
        Some(bias) => bias.sub(&norm.mean)?,
        None => norm.mean.neg()?,
    };
    let shift = centred.mul(&scale)?;
    let shift = norm.beta.as_ref().map_or_else(|| Ok(shift.clone()), |beta| shift.add(beta))?;
    Ok((weight.mul(&scale.reshape(&column)?)?, shift))
}

/// A spiking network and its parameters: weights, biases, and one threshold and one leak for each layer of neurons.
///
/// The image is given to the first weights as it is at every timestep (direct encoding), average pooling averages
/// spikes, dropout masks are the same at every timestep, and the last layer, without neurons, sums up logits.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
/// # let mut names = Builder::new();
/// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
/// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
/// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
/// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
/// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
/// let logits = net.forward(&Cx::eval(net.arena()), &Tensor::ones(&gpu, &[5, 2])?, 4)?;
/// assert_eq!(logits.shape(), [5, 3]);
/// # Ok::<(), Error>(())
/// ```
pub struct SpikingNet {
    structure: Arc<Structure>,
    arena: Arena,
}

impl SpikingNet {
    /// Converts `ann` with the parameters and running statistics of `arena`: folds batch norms, puts neurons with threshold
    /// 1 and leak 1 in place of ReLUs. Thresholds then come from [`SpikingNet::balance_thresholds`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// let mut names = Builder::new();
    /// let hidden = Linear::new(&mut names.root().sub("hidden"), 2, 4, false);
    /// let out = Linear::new(&mut names.root().sub("out"), 4, 3, false);
    /// let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// let net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// assert_eq!((net.thresholds()?, net.leaks()?), (vec![1.0], vec![1.0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the network has a layer that cannot be converted (max pooling), a ReLU or norm that does not follow weights, or
    /// does not end in a linear layer.
    pub fn from_ann(ann: &Ann, arena: &Arena, surrogate: Surrogate) -> Result<Self> {
        let mut builder = Builder::new();
        let structure = Structure::new(&mut builder.root(), ann, arena.table(), surrogate)?;
        let net = Self { arena: Arena::new(arena.gpu(), &builder, 0)?, structure: Arc::new(structure) };
        let cx = Cx::eval(arena);
        no_grad(|| {
            for origin in &net.structure.origins {
                let (weight, bias) = (cx.param(origin.from.0), origin.from.1.map(|b| cx.param(b)));
                let (weight, bias) = match &origin.norm {
                    None => (weight.clone(), bias.cloned()),
                    Some(norm) => {
                        let values = NormValues {
                            gamma: norm.weight().map(|id| cx.param(id).clone()),
                            beta: norm.bias().map(|id| cx.param(id).clone()),
                            mean: cx.buffer(norm.running_mean()).clone(),
                            var: cx.buffer(norm.running_var()).clone(),
                            eps: norm.epsilon(),
                        };
                        let (weight, bias) = fold_batch_norm(weight, bias, &values)?;
                        (weight, Some(bias))
                    }
                };
                net.arena.set_value(origin.to.0, &weight)?;
                match (origin.to.1, bias) {
                    (Some(id), Some(bias)) => net.arena.set_value(id, &bias)?,
                    (None, Some(_)) => {
                        return Err(Error::value(
                            OP,
                            "a norm behind a linear layer without bias; give the layer a bias",
                        ));
                    }
                    (_, None) => {}
                }
            }
            Ok(net)
        })
    }

    /// The parameters. Names: `weights0.weight`, `weights0.bias`, `neurons0.threshold`, `neurons0.leak`, ...
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// assert!(net.arena().table().find("neurons0.threshold").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The parameters, to freeze or group them.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// net.arena_mut().freeze("*.leak")?; // thresholds and weights are trained, leaks are not
    /// assert!(net.arena().is_frozen("neurons0.leak")?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }

    pub(super) fn structure(&self) -> &Structure {
        &self.structure
    }

    /// Another network with the same parameters, to train on from here in another way.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// let copy = net.fork()?;
    /// copy.set_thresholds(&[0.5])?;
    /// assert_eq!((net.thresholds()?, copy.thresholds()?), (vec![1.0], vec![0.5]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn fork(&self) -> Result<Self> {
        Ok(Self { structure: self.structure.clone(), arena: self.arena.fork()? })
    }

    /// Logits `[batch, classes]` of `x` `[batch, ..]` after `timesteps` steps: the sum of what the last layer gives at each.
    /// `cx` decides about training or evaluation: [`Cx::train`] or [`Cx::eval`] of [`SpikingNet::arena`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// let (cx, x) = (Cx::eval(net.arena()), Tensor::ones(&gpu, &[1, 2])?);
    /// // Both neurons fire at every step: the sum of two steps is twice that of one.
    /// let (one, two) = (net.forward(&cx, &x, 1)?, net.forward(&cx, &x, 2)?);
    /// assert_eq!(two.to_vec()?, one.mul_scalar(2.0)?.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If `timesteps` is 0, or a shape does not fit.
    pub fn forward(&self, cx: &Cx, x: &Tensor, timesteps: usize) -> Result<Tensor> {
        self.structure.walk(cx, x, timesteps, |_, _| Ok(()))
    }

    /// The network at a fixed number of timesteps, for [`shadegrad::train::evaluate`] and whatever else takes a model.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// let x = Tensor::ones(&gpu, &[1, 2])?;
    /// let cx = Cx::eval(net.arena());
    /// assert_eq!(net.at(3).forward(&cx, &x)?.to_vec()?, net.forward(&cx, &x, 3)?.to_vec()?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn at(&self, timesteps: usize) -> AtTimesteps<'_> {
        AtTimesteps { net: self, timesteps }
    }

    /// The mean number of spikes of a neuron in a timestep, layer by layer, on the samples `x`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// // Currents of 0.75: nothing at the first step, a spike at the second.
    /// let x = Tensor::from_slice(&gpu, &[0.5, 0.25], &[1, 2])?;
    /// assert_eq!((net.firing_rates(&x, 1)?, net.firing_rates(&x, 2)?), (vec![0.0], vec![0.5]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`SpikingNet::forward`].
    pub fn firing_rates(&self, x: &Tensor, timesteps: usize) -> Result<Vec<f32>> {
        let mut rates = Vec::new();
        no_grad(|| {
            self.structure.walk(&Cx::eval(&self.arena), x, timesteps, |_, spikes| {
                rates.push(spikes.mean_all()?.item()?);
                Ok(())
            })
        })?;
        Ok(rates)
    }

    /// The thresholds, first layer of neurons to last.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// assert_eq!(net.thresholds()?, [1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn thresholds(&self) -> Result<Vec<f32>> {
        self.structure.neurons().map(|(_, lif)| self.arena.params().get(lif.threshold()).item()).collect()
    }

    /// The leaks, first layer of neurons to last.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// assert_eq!(net.leaks()?, [1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn leaks(&self) -> Result<Vec<f32>> {
        self.structure.neurons().map(|(_, lif)| self.arena.params().get(lif.leak()).item()).collect()
    }

    /// Sets the thresholds.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// net.set_thresholds(&[2.5])?;
    /// assert_eq!(net.thresholds()?, [2.5]);
    /// assert!(net.set_thresholds(&[1.0, 1.0]).is_err()); // there is one layer of neurons
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are not as many as layers of neurons, or one is not positive.
    pub fn set_thresholds(&self, thresholds: &[f32]) -> Result<()> {
        let layers = self.structure.neurons().count();
        if thresholds.len() != layers || thresholds.iter().any(|&v| !(v > 0.0 && v.is_finite())) {
            return Err(Error::value(OP, format!("thresholds {thresholds:?}; give {layers}, all positive")));
        }
        for ((_, lif), &v) in self.structure.neurons().zip(thresholds) {
            self.set_scalar(lif.threshold(), v)?;
        }
        Ok(())
    }

    pub(super) fn set_scalar(&self, id: ParamId, value: f32) -> Result<()> {
        self.arena.set_value(id, &Tensor::full(self.arena.gpu(), &[1], value)?)
    }

    /// What follows every optimiser step: leaks at most 1, thresholds at least [`MIN_THRESHOLD`].
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// use shadegrad_models::papers::iir_snn::MIN_THRESHOLD;
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// net.set_thresholds(&[1e-6])?; // as a step of an optimiser may leave it
    /// net.clamp()?;
    /// assert_eq!(net.thresholds()?, [MIN_THRESHOLD]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn clamp(&self) -> Result<()> {
        no_grad(|| {
            for (_, lif) in self.structure.neurons() {
                for (id, low, high) in [(lif.leak(), f32::MIN, 1.0), (lif.threshold(), MIN_THRESHOLD, f32::MAX)] {
                    self.arena.set_value(id, &self.arena.params().get(id).clamp(low, high)?)?;
                }
            }
            Ok(())
        })
    }

    /// Multiply-accumulates of each layer of weights, the output last, in one pass of one image `[height, width, channels]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
    /// # let mut names = Builder::new();
    /// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
    /// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
    /// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
    /// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
    /// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
    /// assert_eq!(net.macs([1, 1, 2])?, [2 * 2, 2 * 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the image does not fit the layers.
    pub fn macs(&self, image: [usize; 3]) -> Result<Vec<u64>> {
        self.structure.macs(self.arena.table(), image)
    }
}

impl Structure {
    pub(super) fn macs(&self, table: &Table, [mut height, mut width, mut channels]: [usize; 3]) -> Result<Vec<u64>> {
        let len = |id: ParamId| table.entries()[id.index()].len as u64;
        let windows = |size: usize, kernel: usize, stride: usize, padding: usize| {
            let room = (size + 2 * padding).checked_sub(kernel);
            room.map(|room| room / stride + 1).ok_or_else(|| {
                Error::shape(
                    OP,
                    format!("a window of {kernel} on {size} pixels with padding {padding}; give larger images"),
                )
            })
        };
        let mut macs = Vec::new();
        for stage in &self.stages {
            match stage {
                Stage::Fire(Weights::Conv(conv), _) => {
                    let (g, shape) = (conv.geometry(), &table.entries()[conv.weight().index()].shape);
                    height = windows(height, g.dilation[0] * (shape[1] - 1) + 1, g.stride[0], g.padding[0])?;
                    width = windows(width, g.dilation[1] * (shape[2] - 1) + 1, g.stride[1], g.padding[1])?;
                    channels = shape[0];
                    macs.push((height * width) as u64 * len(conv.weight()));
                }
                Stage::Fire(Weights::Linear(linear), _) => macs.push(len(linear.weight())),
                Stage::Pool(p) => {
                    height = windows(height, p.kernel[0], p.stride[0], p.padding[0])?;
                    width = windows(width, p.kernel[1], p.stride[1], p.padding[1])?;
                }
                Stage::Flatten => (height, width, channels) = (1, 1, height * width * channels),
                Stage::Dropout(_) => {}
            }
        }
        macs.push(len(self.output.weight()));
        Ok(macs)
    }
}

/// A [`SpikingNet`] at a fixed number of timesteps.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::iir_snn::{Ann, Layer, SpikingNet};
/// use shadegrad_models::papers::iir_snn::AtTimesteps;
/// # let mut names = Builder::new();
/// # let hidden = Linear::with_init(&mut names.root().sub("hidden"), 2, 2, Init::Const(1.0), None);
/// # let out = Linear::new(&mut names.root().sub("out"), 2, 3, false);
/// # let ann = Ann::new(vec![hidden.into(), Layer::Relu, out.into()]);
/// # let mut net = SpikingNet::from_ann(&ann, &Arena::new(&gpu, &names, 0)?, Surrogate::Linear { gamma: 0.3 })?;
/// // Two neurons of threshold 1 and leak 1, each of which adds up two inputs.
/// let two: AtTimesteps<'_> = net.at(2);
/// let logits = two.forward(&Cx::eval(net.arena()), &Tensor::ones(&gpu, &[5, 2])?)?;
/// assert_eq!(logits.shape(), [5, 3]);
/// # Ok::<(), Error>(())
/// ```
pub struct AtTimesteps<'a> {
    net: &'a SpikingNet,
    timesteps: usize,
}

impl Module for AtTimesteps<'_> {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.net.forward(cx, x, self.timesteps)
    }
}

/// Picojoules of a multiply-accumulate in single precision at 45 nm: 3.7 for the product, 0.9 for the sum (Horowitz,
/// ISSCC 2014).
pub const MAC_PJ: f64 = 4.6;
/// Picojoules of an accumulate.
pub const ACCUMULATE_PJ: f64 = 0.9;

/// Energy of one image in picojoules, arithmetic alone.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::iir_snn::{Energy, energy_pj};
/// // Two layers of a thousand products each, and a spike in one of four steps between them.
/// let energy: Energy = energy_pj(&[1000, 1000], &[0.25], 1)?;
/// assert!(energy.snn < energy.ann);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Energy {
    /// Of the network before the conversion: a multiply-accumulate each.
    pub ann: f64,
    /// Of the spiking network: multiply-accumulates in the first layer, which sees the image at every step, and one
    /// accumulate for each spike and synapse in the others.
    pub snn: f64,
}

/// Energy for `macs` by layer (see [`SpikingNet::macs`]) and the firing rates of the layers of neurons between them. A
/// pooled input is counted by the spikes before the pooling.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::iir_snn::{ACCUMULATE_PJ, MAC_PJ, energy_pj};
/// let energy = energy_pj(&[1000, 200], &[0.5], 1)?;
/// assert_eq!(energy.ann, MAC_PJ * 1200.0);
/// assert_eq!(energy.snn, MAC_PJ * 1000.0 + ACCUMULATE_PJ * 0.5 * 200.0);
/// assert!(energy_pj(&[1000, 200], &[0.5, 0.5], 1).is_err()); // the last layer has no neurons
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If there is not one rate fewer than layers.
pub fn energy_pj(macs: &[u64], rates: &[f32], timesteps: usize) -> Result<Energy> {
    let Some((first, others)) = macs.split_first().filter(|(_, others)| others.len() == rates.len()) else {
        return Err(Error::shape(
            "energy_pj",
            format!("{} layers and {} firing rates; there is one rate fewer than layers", macs.len(), rates.len()),
        ));
    };
    let steps = timesteps as f64;
    let spikes = |(&macs, &rate): (&u64, &f32)| ACCUMULATE_PJ * steps * f64::from(rate) * macs as f64;
    Ok(Energy {
        ann: MAC_PJ * macs.iter().sum::<u64>() as f64,
        snn: MAC_PJ * steps * *first as f64 + others.iter().zip(rates).map(spikes).sum::<f64>(),
    })
}
