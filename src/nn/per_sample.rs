//! Gradients of each sample's own loss: norms without materialising them, weighted sums, and the gradients themselves.
//!
//! A layer `y = W x` gives sample `n` the gradient `sum_t dy[n, t] x[n, t]^T` over its positions `t` (pixels, tokens): all
//! that is needed are the layer's inputs, kept by [`Cx::capturing`], and the gradients of its outputs, one backward pass
//! for all samples together (Goodfellow, "Efficient per-example gradient computations", 2015). The squared norm is
//! `sum_ts <x[t], x[s]> <dy[t], dy[s]>`, which for few positions is far cheaper than the gradient (Li et al., "Large
//! language models can be strong differentially private learners", 2022).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::autograd::{GradOptions, grad_with, no_grad};
use crate::error::{Error, Result};
use crate::nn::{Cx, ParamId, Params};
use crate::ops::Conv2d as Geometry;
use crate::tensor::Tensor;

/// How a layer's output depends on its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `y[.., out] = x[.., in] w^T + b`.
    Linear(ParamId, Option<ParamId>),
    /// Convolution.
    Conv(ParamId, Option<ParamId>, Geometry),
    /// `y[.., c] = x[.., c] gamma[c] + beta[c]`: a normalisation whose kept input is the normalised one.
    Affine(ParamId, ParamId),
}

impl Kind {
    fn weight(self) -> ParamId {
        match self {
            Self::Linear(w, _) | Self::Conv(w, _, _) | Self::Affine(w, _) => w,
        }
    }

    fn bias(self) -> Option<ParamId> {
        match self {
            Self::Linear(_, b) | Self::Conv(_, b, _) => b,
            Self::Affine(_, b) => Some(b),
        }
    }
}

struct Seen {
    kind: Kind,
    x: Tensor,
    y: Tensor,
}

/// What the layers of a forward pass leave for per-sample gradients. Made by [`Cx::capturing`].
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let (cx, capture): (Cx, Capture) = Cx::train(&arena).capturing();
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3, 1])?;
/// let loss = layer.forward(&cx, &x)?.sum_all()?; // the sum over three samples
/// let each = capture.backward(&loss, arena.params(), 3)?;
/// assert_eq!(each.squared_norms()?.to_vec()?, [1.0, 4.0, 9.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<Seen>>>);

impl Capture {
    pub(crate) fn push(&self, kind: Kind, x: Tensor, y: &Tensor) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { kind, x, y: y.clone() });
    }

    /// Runs the backward pass of `loss`, the SUM (not the mean) of the losses of `samples` samples, and keeps what
    /// per-sample gradients are made of. Frees the graph; the capture is empty afterwards.
    ///
    /// Linear, convolution and normalisation layers take part, the samples along their first axis; where batch
    /// normalisation takes statistics of the batch, samples mix and the gradients are those of its scale and shift alone.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, capture) = Cx::train(&arena).capturing();
    /// let y = layer.forward(&cx, &Tensor::from_slice(&gpu, &[1.0, 2.0], &[2, 1])?)?;
    /// let each = capture.backward(&y.square()?.sum_all()?, arena.params(), 2)?; // the sum, not the mean
    /// let (_, of_weight) = &each.gradients()?[0];
    /// assert_eq!(of_weight.to_vec()?, [2.0, 8.0]); // 2 y x for each sample
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a trained parameter belongs to another layer (the text names it), or a layer's first axis does not hold the
    /// samples one after the other.
    pub fn backward(&self, loss: &Tensor, params: &Params, samples: usize) -> Result<PerSample> {
        let seen = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut known: Vec<usize> = Vec::new();
        for s in &seen {
            let rows: usize = s.y.shape()[..s.y.rank() - 1].iter().product();
            if samples == 0 || !rows.is_multiple_of(samples) {
                let name = &params.table().entries()[s.kind.weight().index()].name;
                return Err(Error::Gradient(format!(
                    "per sample: the layer of `{name}` gives {:?}, which does not divide into {samples} samples",
                    s.y.shape()
                )));
            }
            if s.y.requires_grad() {
                known.extend([Some(s.kind.weight()), s.kind.bias()].into_iter().flatten().map(ParamId::index));
            }
        }
        let trained = params.iter().enumerate().filter(|(_, (_, t))| t.requires_grad());
        let unknown: Vec<&str> = trained.filter(|(i, _)| !known.contains(i)).map(|(_, (name, _))| name).collect();
        if !unknown.is_empty() {
            return Err(Error::Gradient(format!(
                "per sample: no linear, convolution or normalisation layer outside checkpoints used {}; freeze them",
                unknown.join(", ")
            )));
        }
        let ys: Vec<&Tensor> = seen.iter().map(|s| &s.y).collect();
        let options = GradOptions { allow_unused: loss.requires_grad(), ..GradOptions::default() };
        let grads = grad_with(&[loss], &ys, None, options)?;
        let layers = seen.iter().zip(grads).filter_map(|(s, dy)| Some((s.kind, s.x.clone(), dy?))).collect();
        Ok(PerSample { layers, samples, params: params.detach(), trained: known_trained(params) })
    }
}

fn known_trained(params: &Params) -> Vec<bool> {
    params.tensors().iter().map(Tensor::requires_grad).collect()
}

/// Per-sample gradients, factored by layer: see [`Capture::backward`]. Nothing here is differentiable.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, Some(Init::Const(0.0)));
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let (cx, capture) = Cx::train(&arena).capturing();
/// let y = layer.forward(&cx, &Tensor::from_slice(&gpu, &[0.0, 2.0], &[2, 1])?)?;
/// let each: PerSample = capture.backward(&y.sum_all()?, arena.params(), 2)?;
/// let norms = each.squared_norms()?; // over weight and bias
/// assert_eq!(norms.to_vec()?, [1.0, 5.0]);
/// # Ok::<(), Error>(())
/// ```
pub struct PerSample {
    /// Inputs and gradients of outputs.
    layers: Vec<(Kind, Tensor, Tensor)>,
    samples: usize,
    params: Params,
    trained: Vec<bool>,
}

/// `[samples, positions, features]`.
fn by_sample(t: &Tensor, samples: usize) -> Result<Tensor> {
    let features = t.shape().last().copied().unwrap_or(1);
    let rows = t.numel() / features.max(1) / samples;
    t.reshape(&[samples, rows, features])
}

/// The windows of a convolution without groups, `[N, OH * OW, R * S * C]`.
fn unfold(x: &Tensor, w: &[usize], dy: &Tensor, g: Geometry) -> Result<Tensor> {
    let (pad, step) = (g.padding, g.stride);
    let x = x.pad(&[(0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)], 0.0)?;
    let mut taps = Vec::with_capacity(w[1] * w[2]);
    for r in 0..w[1] {
        let (top, rows) = (r * g.dilation[0], dy.dim(1));
        let band = x.slice(1, top, top + (rows - 1) * step[0] + 1, step[0])?;
        for s in 0..w[2] {
            let (left, cols) = (s * g.dilation[1], dy.dim(2));
            taps.push(band.slice(2, left, left + (cols - 1) * step[1] + 1, step[1])?);
        }
    }
    let all = Tensor::concat(&taps.iter().collect::<Vec<_>>(), 3)?;
    all.reshape(&[all.dim(0), all.dim(1) * all.dim(2), all.dim(3)])
}

impl PerSample {
    /// Number of samples.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, capture) = Cx::train(&arena).capturing();
    /// let y = layer.forward(&cx, &Tensor::ones(&gpu, &[4, 1])?)?;
    /// assert_eq!(capture.backward(&y.sum_all()?, arena.params(), 4)?.samples(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn samples(&self) -> usize {
        self.samples
    }

    fn shape(&self, id: ParamId) -> &[usize] {
        self.params.get(id).shape()
    }

    /// The factors `x [N, T, in]` and `dy [N, T, out]` of a weight's gradient `dy^T x`, where it has that form.
    fn factors(&self, kind: Kind, x: &Tensor, dy: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        let n = self.samples;
        Ok(match kind {
            Kind::Linear(..) => Some((by_sample(x, n)?, by_sample(dy, n)?)),
            Kind::Conv(w, _, g) if g.groups == 1 => {
                Some((by_sample(&unfold(x, self.shape(w), dy, g)?, n)?, by_sample(dy, n)?))
            }
            _ => None,
        })
    }

    /// The weight's gradients, `[N, ..]`.
    fn weight_gradient(&self, kind: Kind, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let n = self.samples;
        let mut shape = vec![n];
        shape.extend(self.shape(kind.weight()));
        if let Some((x, dy)) = self.factors(kind, x, dy)? {
            return dy.matmul_t(&x, true, false)?.reshape(&shape);
        }
        match kind {
            Kind::Conv(w, _, g) if x.dim(0) == n => {
                // One image whose channels are those of all samples, in as many times the groups.
                let wide = |t: &Tensor| {
                    let [h, w, c] = [t.dim(1), t.dim(2), t.dim(3)];
                    t.permute(&[1, 2, 0, 3])?.reshape(&[1, h, w, n * c])
                };
                let &[k, r, s, c] = self.shape(w) else {
                    return Err(Error::Gradient("a kernel without four axes".into()));
                };
                let g = Geometry { groups: g.groups * n, ..g };
                wide(x)?.conv2d_weight_grad(&wide(dy)?, &[n * k, r, s, c], g)?.reshape(&shape)
            }
            Kind::Conv(w, ..) => Err(Error::Gradient(format!(
                "per sample: the grouped convolution of `{}` needs one image a sample, got {:?} for {n}",
                self.params.table().entries()[w.index()].name,
                x.shape()
            ))),
            _ => by_sample(&x.mul(dy)?, n)?.sum(&[1], false),
        }
    }

    /// The gradients of each trained parameter that the loss depends on, `[N, ..shape]`, in the order of the table. As
    /// much memory as N sets of gradients.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, capture) = Cx::train(&arena).capturing();
    /// let y = layer.forward(&cx, &Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?)?;
    /// let all = capture.backward(&y.sum_all()?, arena.params(), 2)?.gradients()?;
    /// let [(weight, of_weight), (_, of_bias)] = &all[..] else { panic!("weight and bias") };
    /// assert_eq!((*weight, of_weight.shape()), (layer.weight(), &[2, 1, 2][..])); // the sample comes first
    /// assert_eq!((of_weight.to_vec()?, of_bias.to_vec()?), (vec![1.0, 2.0, 3.0, 4.0], vec![1.0, 1.0]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn gradients(&self) -> Result<Vec<(ParamId, Tensor)>> {
        no_grad(|| {
            let mut all = BTreeMap::new();
            let mut add = |id: ParamId, g: Tensor| {
                let sum = match all.remove(&id) {
                    Some(before) => g.add(&before)?,
                    None => g,
                };
                all.insert(id, sum);
                Ok::<_, Error>(())
            };
            for (kind, x, dy) in &self.layers {
                if self.trained[kind.weight().index()] {
                    add(kind.weight(), self.weight_gradient(*kind, x, dy)?)?;
                }
                if let Some(b) = kind.bias().filter(|b| self.trained[b.index()]) {
                    add(b, by_sample(dy, self.samples)?.sum(&[1], false)?)?;
                }
            }
            Ok(all.into_iter().collect())
        })
    }

    /// The squared norm of each sample's gradient over all parameters, `[N]`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, capture) = Cx::train(&arena).capturing();
    /// let y = layer.forward(&cx, &Tensor::from_slice(&gpu, &[3.0, 4.0, 0.0, 1.0], &[2, 2])?)?;
    /// let each = capture.backward(&y.sum_all()?, arena.params(), 2)?;
    /// assert_eq!(each.squared_norms()?.to_vec()?, [25.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn squared_norms(&self) -> Result<Tensor> {
        no_grad(|| {
            // A parameter used twice has the sum of two gradients, whose norm is not that of the parts.
            let mut uses = BTreeMap::<ParamId, usize>::new();
            for (kind, ..) in &self.layers {
                [Some(kind.weight()), kind.bias()]
                    .into_iter()
                    .flatten()
                    .for_each(|id| *uses.entry(id).or_default() += 1);
            }
            let mut shared: BTreeMap<ParamId, Tensor> = BTreeMap::new();
            let mut total = Tensor::zeros(self.params.tensors()[0].gpu(), &[self.samples])?;
            let mut add = |id: ParamId, g: Tensor, squared: bool| {
                if squared {
                    total = total.add(&g)?;
                } else if uses[&id] == 1 {
                    total = total.add(&rows(&g)?)?;
                } else {
                    let sum = match shared.remove(&id) {
                        Some(before) => g.add(&before)?,
                        None => g,
                    };
                    shared.insert(id, sum);
                }
                Ok::<_, Error>(())
            };
            for (kind, x, dy) in &self.layers {
                let w = kind.weight();
                if self.trained[w.index()] {
                    match self.ghost(*kind, x, dy, uses[&w] == 1)? {
                        Some(square) => add(w, square, true)?,
                        None => add(w, self.weight_gradient(*kind, x, dy)?, false)?,
                    }
                }
                if let Some(b) = kind.bias().filter(|b| self.trained[b.index()]) {
                    add(b, by_sample(dy, self.samples)?.sum(&[1], false)?, false)?;
                }
            }
            for g in shared.values() {
                total = total.add(&rows(g)?)?;
            }
            Ok(total)
        })
    }

    /// Squared norms of a weight's gradients from the products of pairs of positions, where that is less work.
    fn ghost(&self, kind: Kind, x: &Tensor, dy: &Tensor, alone: bool) -> Result<Option<Tensor>> {
        if !alone || matches!(kind, Kind::Affine(..)) {
            return Ok(None);
        }
        let shape = self.shape(kind.weight());
        let (outs, ins) = (shape[0], shape[1..].iter().product::<usize>());
        let positions = dy.numel() / dy.shape().last().copied().unwrap_or(1).max(1) / self.samples;
        if positions * (outs + ins) > outs * ins {
            return Ok(None);
        }
        let Some((x, dy)) = self.factors(kind, x, dy)? else { return Ok(None) };
        let pairs = x.matmul_t(&x, false, true)?.mul(&dy.matmul_t(&dy, false, true)?)?;
        Ok(Some(pairs.sum(&[1, 2], false)?))
    }

    /// `sum_n weights[n] gradient[n]` for all parameters, without materialising any sample's: clipped sums for private
    /// training, or reweighted samples. Zero for parameters that the loss does not depend on.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, capture) = Cx::train(&arena).capturing();
    /// let y = layer.forward(&cx, &Tensor::from_slice(&gpu, &[4.0, 0.5], &[2, 1])?)?;
    /// let each = capture.backward(&y.sum_all()?, arena.params(), 2)?;
    /// // Each sample's gradient clipped to a norm of 1:
    /// let one = Tensor::ones(&gpu, &[2])?;
    /// let clipped = each.weighted(&one.div(&each.squared_norms()?.sqrt()?.maximum(&one)?)?)?;
    /// assert!((clipped.get(layer.weight()).item()? - 1.5).abs() < 1e-5); // 1 and 0.5
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is not one weight a sample.
    pub fn weighted(&self, weights: &Tensor) -> Result<Params> {
        let n = self.samples;
        if weights.shape() != [n] {
            return Err(Error::shape("per_sample", format!("{:?} weights for {n} samples", weights.shape())));
        }
        no_grad(|| {
            let zero = |t: &Tensor| Tensor::zeros(t.gpu(), t.shape());
            let mut sums = self.params.tensors().iter().map(zero).collect::<Result<Vec<_>>>()?;
            let column = weights.reshape(&[n, 1, 1])?;
            for (kind, x, dy) in &self.layers {
                let scaled = by_sample(dy, n)?.mul(&column)?;
                let w = kind.weight();
                if self.trained[w.index()] {
                    let shape = self.shape(w);
                    let g = match *kind {
                        Kind::Linear(..) => {
                            let flat =
                                |t: &Tensor, features: usize| t.reshape(&[t.numel() / features.max(1), features]);
                            flat(&scaled, shape[0])?.matmul_t(&flat(x, shape[1])?, true, false)?
                        }
                        Kind::Conv(_, _, g) => x.conv2d_weight_grad(&scaled.reshape(dy.shape())?, shape, g)?,
                        Kind::Affine(..) => by_sample(x, n)?.mul(&scaled)?.sum(&[0, 1], false)?,
                    };
                    sums[w.index()] = sums[w.index()].add(&g)?;
                }
                if let Some(b) = kind.bias().filter(|b| self.trained[b.index()]) {
                    sums[b.index()] = sums[b.index()].add(&scaled.sum(&[0, 1], false)?)?;
                }
            }
            Params::new(self.params.table().clone(), sums)
        })
    }
}

/// Sums of squares of `[N, ..]` for each of the first axis.
fn rows(g: &Tensor) -> Result<Tensor> {
    g.square()?.reshape(&[g.dim(0), g.numel() / g.dim(0)])?.sum(&[1], false)
}

impl Cx {
    /// The same context, with layers leaving what per-sample gradients need in the capture.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 1, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let (cx, capture) = Cx::train(&arena).seeded(0, 5).capturing();
    /// let y = layer.forward(&cx, &Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1])?)?; // with `cx`, not the old one
    /// let each = capture.backward(&y.sum_all()?, arena.params(), 2)?;
    /// assert_eq!(each.gradients()?[0].1.to_vec()?, [1.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn capturing(&self) -> (Self, Capture) {
        let capture = Capture::default();
        let mut cx = self.clone();
        cx.captured = Some(capture.clone());
        (cx, capture)
    }

    /// Leaves a layer's kind, input and output for per-sample gradients, if anyone captures them now.
    pub(crate) fn capture(&self, layer: impl FnOnce() -> Result<(Kind, Tensor)>, y: &Tensor) -> Result<()> {
        if let Some(capture) = &self.captured {
            let (kind, x) = no_grad(layer)?;
            capture.push(kind, x, y);
        }
        Ok(())
    }
}
