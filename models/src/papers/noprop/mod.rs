//! Training without signals between blocks: Li, Teh and Pascanu, "NoProp: Training Neural Networks without Back-propagation
//! or Forward-propagation", 2025, arXiv 2503.24322.
//!
//! Every block sees the input and a noised embedding of the *label* and learns, alone, to say what the clean embedding is. In
//! training nothing passes from block to block, forward or backward: a step holds the graph of one block, whatever the
//! depth. At test time the blocks run one after the other from pure noise and denoise it into a label. In discrete time
//! ([`NoPropDt`]) each of T blocks has weights of its own; in continuous time ([`NoPropCt`]) and by flow matching
//! ([`NoPropFm`]) one block takes the time as an input. Within a block gradients are taken as ever.
//!
//! Any network that implements [`Block`] goes through all three, on any data ([`Samples`]):
//!
//! ```no_run
//! # use shadegrad::{Gpu, Options, Result, Tensor, data::digits, nn::{Cx, Linear, Module, Scope}, rng::Stream, train::Images};
//! use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings, accuracy};
//!
//! struct MyBlock(Linear, Linear);
//!
//! impl Block for MyBlock {
//!     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
//!         let both = Tensor::concat(&[&x.flatten(1, 3)?, z], 1)?;
//!         self.1.forward(cx, &self.0.forward(cx, &both)?.relu()?)
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! # let gpu = Gpu::new(Options::from_env()?)?;
//! # let pair = digits();
//! # let stats = pair.train.channel_stats()?;
//! # let (train, test) = (Images::upload(&gpu, &pair.train, &stats)?, Images::upload(&gpu, &pair.test, &stats)?);
//! let make = |s: &mut Scope<'_>, _block: usize| {
//!     Ok(MyBlock(Linear::new(&mut s.sub("a"), 64 + 10, 128, true), Linear::new(&mut s.sub("b"), 128, 10, true)))
//! };
//! let schedule = Schedule::standard(10)?; // ten blocks
//! let mut net = NoPropDt::new(&gpu, 0, 10, &Embedding::OneHot, schedule, Settings::discrete(), make)?;
//! net.fit(&train, 30, |_, epoch| {
//!     println!("epoch {}: losses of the blocks {:?}", epoch.epoch, epoch.losses);
//!     Ok(())
//! })?;
//! let right = accuracy(&test, 360, Stream::new(1, 0), |x, noise| net.predict(x, 1, noise))?;
//! println!("test accuracy {:.1} %", 100.0 * right);
//! # Ok(())
//! # }
//! ```

mod continuous;
mod discrete;
mod flow;
mod gamma;
mod head;
mod nets;
mod recipe;
mod schedule;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_training;

pub use continuous::{NoPropCt, Sampler};
pub use discrete::{Chain, NoPropDt};
pub use flow::NoPropFm;
pub use gamma::{GammaCurve, GammaNet, Noise};
pub use head::{Embedding, Readout};
pub(crate) use nets::{BackPropagated, Plain};
pub use nets::{PaperBlock, PaperNet};
pub use schedule::Schedule;

use shadegrad::autograd::no_grad;
use shadegrad::data::Sampler as Batches;
use shadegrad::nn::Cx;
use shadegrad::optim::Rule;
use shadegrad::rng::Stream;
use shadegrad::train::{Images, LossMeter};
use shadegrad::{Error, Gpu, Result, Tensor};

use super::Paper;

/// The paper and its recipe.
pub const PAPER: Paper = Paper {
    slug: "noprop",
    title: "NoProp: Training Neural Networks without Back-propagation or Forward-propagation",
    source: "arXiv 2503.24322",
    claim: "blocks that each learn to denoise the label train a classifier without any signal between them",
    data: "MNIST",
    seeds: 2,
    recipe: Some(recipe::run),
};

/// A network that scores the classes from an input and a noised embedding of the label.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::noprop::Block;
/// /// One linear layer over the input and the noised embedding.
/// struct Tiny(Linear);
/// impl Block for Tiny {
///     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _time: Option<&Tensor>) -> Result<Tensor> {
///         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
///     }
/// }
/// let mut names = Builder::new();
/// let block = Tiny(Linear::new(&mut names.root().sub("a"), 2 + 3, 3, true));
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let (x, z) = (Tensor::ones(&gpu, &[4, 2])?, Tensor::zeros(&gpu, &[4, 3])?);
/// assert_eq!(block.logits(&Cx::eval(&arena), &x, &z, None)?.shape(), [4, 3]); // a score for each class
/// # Ok::<(), Error>(())
/// ```
pub trait Block: Send + Sync {
    /// What of the input the scores are made from, as far as neither `z` nor the time enters. [`NoPropCt`] and [`NoPropFm`]
    /// compute it once for all steps of a prediction. The input itself unless it is overridden.
    ///
    /// # Errors
    /// Those of the network.
    fn features(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let _ = cx;
        Ok(x.clone())
    }

    /// Scores `[n, classes]` for [`Block::features`] of `n` inputs, noised embeddings `z` `[n, dim]` and, in continuous time
    /// and flow matching, times `[n]` in `0..=1`.
    ///
    /// # Errors
    /// Those of the network.
    fn logits(&self, cx: &Cx, features: &Tensor, z: &Tensor, time: Option<&Tensor>) -> Result<Tensor>;
}

/// Both parts of a block.
pub(crate) fn run_block(block: &dyn Block, cx: &Cx, x: &Tensor, z: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
    block.logits(cx, &block.features(cx, x)?, z, time)
}

/// Labelled samples to train on.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::noprop::Samples;
/// // Any inputs on the device with their labels.
/// let samples = (Tensor::from_slice(&gpu, &[0.1, 0.2, 0.3], &[3, 1])?, vec![0, 1, 1]);
/// let (x, labels) = samples.batch(&[2, 0])?;
/// assert_eq!((x.to_vec()?, labels), (vec![0.3, 0.1], vec![1, 0]));
/// # Ok::<(), Error>(())
/// ```
pub trait Samples {
    /// How many there are.
    fn count(&self) -> usize;

    /// The inputs, the first dimension counting the samples, and labels at `indices`.
    ///
    /// # Errors
    /// If an index is past the end.
    fn batch(&self, indices: &[u32]) -> Result<(Tensor, Vec<u32>)>;
}

impl Samples for Images {
    fn count(&self) -> usize {
        self.len()
    }

    fn batch(&self, indices: &[u32]) -> Result<(Tensor, Vec<u32>)> {
        let labels = self.labels();
        let chosen = self.plain(indices)?.images;
        Ok((chosen, indices.iter().map(|&i| labels[i as usize]).collect()))
    }
}

/// Inputs `[count, ..]` of any shape on the device, and their labels.
impl Samples for (Tensor, Vec<u32>) {
    fn count(&self) -> usize {
        self.1.len()
    }

    fn batch(&self, indices: &[u32]) -> Result<(Tensor, Vec<u32>)> {
        let count = self.1.len().min(self.0.shape().first().copied().unwrap_or(0));
        if let Some(i) = indices.iter().find(|&&i| i as usize >= count) {
            return Err(Error::value("Samples", format!("index {i} of {count} samples; indices count from 0")));
        }
        let chosen = Tensor::from_u32(self.0.gpu(), indices, &[indices.len()])?;
        Ok((self.0.index_select(0, &chosen)?, indices.iter().map(|&i| self.1[i as usize]).collect()))
    }
}

/// How to train.
///
/// ```
/// use shadegrad_models::papers::noprop::{Readout, Settings};
/// let settings = Settings { batch: 32, park: true, ..Settings::discrete() };
/// assert_eq!((settings.lr, settings.readout), (1e-3, Readout::Linear));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Weight of the denoising error beside the classification error.
    pub eta: f32,
    /// The update rule.
    pub rule: Rule,
    /// Its learning rate, the same in every step.
    pub lr: f32,
    /// Samples of a step. Where the last batch of an epoch would be short it is left out.
    pub batch: usize,
    /// How a class is read from an embedding. Flow matching takes the nearest one.
    pub readout: Readout,
    /// Keeps gradients from learned embeddings as the block's target. The paper lets them through: then a block can also
    /// lessen its error by drawing the embeddings together, and the last one, whose weight is by far the largest, does so
    /// before it has learned. Where learned embeddings train slowly, this is the setting to change.
    pub detach_targets: bool,
    /// In discrete time: only the block that trains has its weights and moments on the device, the others wait in the host's
    /// memory. What the device must hold is then one block, whatever the depth; the numbers are the same to the bit.
    pub park: bool,
}

impl Settings {
    /// The paper's for discrete time: AdamW at 1e-3 with decay 1e-3, batches of 128, eta 0.1.
    ///
    /// ```
    /// use shadegrad_models::papers::noprop::Settings;
    /// let settings = Settings::discrete();
    /// assert_eq!((settings.eta, settings.batch), (0.1, 128));
    /// ```
    pub fn discrete() -> Self {
        Self {
            eta: 0.1,
            rule: Rule::adamw(1e-3),
            lr: 1e-3,
            batch: 128,
            readout: Readout::Linear,
            detach_targets: false,
            park: false,
        }
    }

    /// The paper's for continuous time and flow matching: Adam at 1e-3 with a penalty of 1e-3, batches of 128, eta 1.
    ///
    /// ```
    /// use shadegrad_models::papers::noprop::Settings;
    /// assert_eq!(Settings::continuous().eta, 1.0);
    /// assert_ne!(Settings::continuous().rule, Settings::discrete().rule); // Adam, and AdamW
    /// ```
    pub fn continuous() -> Self {
        let rule = Rule::Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-3 };
        Self { eta: 1.0, rule, ..Self::discrete() }
    }

    fn check(&self) -> Result<()> {
        if self.batch == 0 || !(self.lr.is_finite() && self.eta.is_finite() && self.eta >= 0.0) {
            let Self { eta, lr, batch, .. } = self;
            return Err(Error::value(
                "NoProp",
                format!("eta {eta}, rate {lr}, batches of {batch}; eta is 0 or more, the rate finite, a batch not empty"),
            ));
        }
        Ok(())
    }

    /// The embeddings as a target.
    fn target(&self, u: &Tensor) -> Tensor {
        if self.detach_targets { u.detach() } else { u.clone() }
    }
}

/// The parts of a step's loss, scalars on the device.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
/// use shadegrad_models::papers::noprop::Losses;
/// # struct Tiny(Linear);
/// # impl Block for Tiny {
/// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
/// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
/// #     }
/// # }
/// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
/// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
/// # let settings = Settings { batch: 2, ..Settings::discrete() };
/// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
/// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
/// // Two blocks, and two samples of two numbers with labels 0 and 1.
/// let losses: Losses = net.losses(1, &x, &[0, 1], Stream::new(0, 1))?;
/// assert!(losses.total.item()? > 0.0 && losses.error.item()? >= 0.0);
/// assert!(losses.classification.is_some() && losses.prior.is_some());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Losses {
    /// The sum, which is minimised.
    pub total: Tensor,
    /// Cross-entropy of the class read from the least noised embedding; absent in flow matching with fixed embeddings.
    pub classification: Option<Tensor>,
    /// Divergence of the most noised embedding from pure noise; absent in flow matching.
    pub prior: Option<Tensor>,
    /// Mean squared error of the denoised embedding (of the velocity in flow matching), before any weight.
    pub error: Tensor,
}

/// An epoch of training.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # use shadegrad_models::papers::noprop::{Block, Embedding, NoPropDt, Schedule, Settings};
/// use shadegrad_models::papers::noprop::Epoch;
/// # struct Tiny(Linear);
/// # impl Block for Tiny {
/// #     fn logits(&self, cx: &Cx, x: &Tensor, z: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
/// #         self.0.forward(cx, &Tensor::concat(&[x, z], 1)?)
/// #     }
/// # }
/// # let make = |s: &mut Scope<'_>, _: usize| Ok(Tiny(Linear::new(&mut s.sub("a"), 2 + 2, 2, true)));
/// # let schedule = Schedule::from_abar(&[0.25, 0.5, 0.75])?;
/// # let settings = Settings { batch: 2, ..Settings::discrete() };
/// # let mut net = NoPropDt::new(&gpu, 0, 2, &Embedding::OneHot, schedule, settings, make)?;
/// # let x = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0], &[2, 2])?;
/// // Two blocks, and two samples of two numbers with labels 0 and 1.
/// let log: Vec<Epoch> = net.fit(&(x, vec![0, 1]), 3, |_, _| Ok(()))?;
/// assert_eq!((log[2].epoch, log[2].losses.len()), (3, 2)); // a mean loss for each block
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// From 1.
    pub epoch: u64,
    /// Mean loss of each block, the first at 0; one entry where there is one block.
    pub losses: Vec<f64>,
}

/// Share of the samples whose largest score is their label's. `predict` gets inputs and the stream of their noise, another
/// one for each batch of at most `batch`, and gives scores `[n, classes]`.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Stream;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::noprop::accuracy;
/// let samples = (Tensor::from_slice(&gpu, &[0.9, 0.1, 0.2, 0.8, 0.7, 0.3], &[3, 2])?, vec![0, 1, 1]);
/// // The inputs themselves as scores: two of three are right.
/// let right = accuracy(&samples, 2, Stream::new(0, 0), |x, _noise| Ok(x.clone()))?;
/// assert_eq!(right, 2.0 / 3.0);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of `predict`; if it does not give one row for each sample; if there are no samples.
pub fn accuracy(
    samples: &dyn Samples,
    batch: usize,
    noise: Stream,
    mut predict: impl FnMut(&Tensor, Stream) -> Result<Tensor>,
) -> Result<f64> {
    let count = samples.count() as u32;
    if count == 0 || batch == 0 {
        return Err(Error::value("accuracy", format!("{count} samples in batches of {batch}; neither may be 0")));
    }
    let mut right = 0;
    for (i, start) in (0..count).step_by(batch).enumerate() {
        let indices: Vec<u32> = (start..count.min(start.saturating_add(batch as u32))).collect();
        let (x, labels) = samples.batch(&indices)?;
        let scores = no_grad(|| predict(&x, Stream::new(noise.seed, noise.stream + i as u64)))?;
        if scores.rank() != 2 || scores.dim(0) != labels.len() {
            let text = format!("scores {:?} for {} samples; give one row for each", scores.shape(), labels.len());
            return Err(Error::shape("accuracy", text));
        }
        let best = scores.argmax(1, false)?.to_vec_u32()?;
        right += best.iter().zip(&labels).filter(|(b, l)| b == l).count();
    }
    Ok(right as f64 / f64::from(count))
}

/// Noise number `i` of a step or a prediction. Its key is not that of dropout masks, first values and orders.
fn noise(stream: Stream, i: usize) -> Stream {
    Stream::new(stream.seed ^ 0x4E6F_5072_6F70_5A74, stream.stream).child(i as u32)
}

/// `N(0, std^2)` numbers for `n` embeddings.
fn normal(gpu: &Gpu, shape: [usize; 2], stream: Stream, std: f64) -> Result<Tensor> {
    Tensor::normal(gpu, &shape, stream, 0.0, std as f32)
}

/// Batches of whole size, in an order of its own each epoch.
fn batches(samples: &dyn Samples, settings: &Settings, seed: u64) -> Result<Batches> {
    let size = settings.batch.min(samples.count());
    Batches::new(samples.count(), size)?.seed(seed).drop_last(true)
}

/// Trains `model` for so many epochs: `epoch` is one, and gives the mean loss of each block; `each` is told of it.
fn train<M>(
    model: &mut M,
    epochs: u64,
    mut epoch: impl FnMut(&mut M) -> Result<Vec<f64>>,
    mut each: impl FnMut(&M, &Epoch) -> Result<()>,
) -> Result<Vec<Epoch>> {
    let mut log = Vec::new();
    for number in 1..=epochs {
        let end = Epoch { epoch: number, losses: epoch(model)? };
        each(model, &end)?;
        log.push(end);
    }
    Ok(log)
}

/// One pass over the samples; the mean loss.
fn pass(
    samples: &dyn Samples,
    order: &mut Batches,
    meter: &mut LossMeter,
    mut step: impl FnMut(&Tensor, &[u32]) -> Result<Losses>,
) -> Result<f64> {
    while let Some(drawn) = order.next_batch() {
        let (x, labels) = samples.batch(&drawn.indices)?;
        meter.push(&step(&x, &labels)?.total, labels.len())?;
    }
    Ok(meter.end_epoch()?.unwrap_or(f64::NAN))
}

/// The sum of what there is.
fn total(parts: &[&Tensor]) -> Result<Tensor> {
    let mut sum = parts[0].reshape(&[])?;
    for part in &parts[1..] {
        sum = sum.add(&part.reshape(&[])?)?;
    }
    Ok(sum)
}

/// The mean of `chains` results (at least one), each from noise of its own.
fn averaged(chains: usize, stream: Stream, one: impl Fn(Stream) -> Result<Tensor>) -> Result<Tensor> {
    // The chains of one prediction have keys of their own: the numbers of streams belong to the batches.
    let key = |i: usize| Stream::new(stream.seed.wrapping_add((i as u64) << 40), stream.stream);
    let mut sum = one(stream)?;
    for i in 1..chains {
        sum = sum.add(&one(key(i))?)?;
    }
    if chains > 1 { sum.mul_scalar(1.0 / chains as f32) } else { Ok(sum) }
}
