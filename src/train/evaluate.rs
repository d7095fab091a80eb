//! Measuring a classifier on a data set.

use std::ops::Range;

use crate::autograd::no_grad;
use crate::error::{Error, Result};
use crate::metrics::{self, Scores};
use crate::nn::{Cx, Module};
use crate::tensor::Tensor;
use crate::train::Images;

/// Bins of the calibration error, as in Guo et al., "On calibration of modern neural networks", 2017.
const ECE_BINS: usize = 15;

/// What [`evaluate`] found.
///
/// ```
/// # use shadegrad::{data::*, nn::*, optim::*, train::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let set = synthetic::blobs(8, 2, 2, 2, 1, 0)?;
/// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
/// # let mut names = Builder::new();
/// # let head = Linear::with_init(&mut names.root().sub("head"), 4, 2, Init::Zeros, None);
/// # let model = Sequential::new().then(Flatten).then(head);
/// # let mut arena = Arena::new(&gpu, &names, 0)?;
/// # let mut optimizer = Optimizer::new(&arena, Rule::sgd(0.0))?;
/// let found: Evaluation = evaluate(&model, &Cx::eval(&arena), &images, 4)?; // all weights are zero
/// assert_eq!((found.count, found.accuracy, found.top5), (8, 0.5, None));
/// assert!((found.loss - std::f64::consts::LN_2).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Samples.
    pub count: usize,
    /// Mean negative log-likelihood.
    pub loss: f64,
    /// Share of samples whose largest score is their label's.
    pub accuracy: f64,
    /// Share whose label is among the five largest scores; `None` with five classes or fewer.
    pub top5: Option<f64>,
    /// Expected calibration error over 15 bins.
    pub ece: f64,
    /// Brier score.
    pub brier: f64,
    /// The scores, `[count][classes]`.
    pub logits: Vec<f32>,
}

/// Runs `model` in the context `cx` (that of [`Cx::eval`], usually) over all of `data` in its order, `batch` samples at
/// a time, and measures what comes out: logits `[n, classes]`.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::data::digits;
/// use shadegrad::nn::{Arena, Builder, Cx, Flatten, Linear, Sequential};
/// use shadegrad::train::{Images, evaluate};
/// let data = digits();
/// let images = Images::upload(&gpu, &data.test, &data.train.channel_stats()?)?;
/// let mut names = Builder::new();
/// let model = Sequential::new().then(Flatten).then(Linear::new(&mut names.root(), 64, 10, true));
/// let arena = Arena::new(&gpu, &names, 0)?;
/// let found = evaluate(&model, &Cx::eval(&arena), &images, 120)?;
/// assert_eq!((found.count, found.logits.len()), (360, 3600));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Those of the model; [`Error::Shape`] if its result is not one score per class; [`Error::NonFinite`] if one is NaN.
pub fn evaluate(model: &dyn Module, cx: &Cx, data: &Images, batch: usize) -> Result<Evaluation> {
    if batch == 0 {
        return Err(Error::value("evaluate", "a batch size of 0; give at least 1"));
    }
    let n = data.len();
    let mut logits = Vec::with_capacity(n * data.classes());
    for start in (0..n).step_by(batch) {
        let out = no_grad(|| forward(model, cx, data, start..(start + batch).min(n)))?;
        logits.extend(out.to_vec()?);
    }
    measure(data, logits)
}

/// The scores `[n, classes]` of the samples in `range`.
pub(super) fn forward(model: &dyn Module, cx: &Cx, data: &Images, range: Range<usize>) -> Result<Tensor> {
    let indices: Vec<u32> = (range.start as u32..range.end as u32).collect();
    let out = model.forward(cx, &data.plain(&indices)?.images)?;
    if out.shape() == [indices.len(), data.classes()] {
        return Ok(out);
    }
    Err(Error::shape(
        "evaluate",
        format!(
            "the model gives {:?} for {} samples of {} classes; its last layer must have as many outputs",
            out.shape(),
            indices.len(),
            data.classes()
        ),
    ))
}

/// What the scores of all of `data`, in its order, come to.
pub(super) fn measure(data: &Images, logits: Vec<f32>) -> Result<Evaluation> {
    let classes = data.classes();
    let (scores, labels) = (Scores::logits(&logits, classes), data.labels());
    Ok(Evaluation {
        count: data.len(),
        loss: metrics::nll(scores, labels)?,
        accuracy: metrics::accuracy(scores, labels)?,
        top5: (classes > 5).then(|| metrics::top_k(scores, labels, 5)).transpose()?,
        ece: metrics::ece(scores, labels, ECE_BINS)?,
        brier: metrics::brier(scores, labels)?,
        logits,
    })
}
