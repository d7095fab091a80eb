//! Normalisation: batch, layer, group and instance norm over channels that lie last.
//!
//! Gradients come from fused kernels; where they must be differentiable, from the same function made of tensor operations.

use shadegrad_kernels::norm::{self as k, Affine, Dims};
use smallvec::SmallVec;

use crate::autograd::{Keeper, Saved, composite_grads};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// The result of [`Tensor::batch_norm`].
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let x = Tensor::from_slice(&gpu, &[1.0, 10.0, 3.0, 30.0], &[2, 2])?; // two samples of two channels
/// let BatchNorm { y, mean, var } = x.batch_norm(None, None, 0.0)?;
/// assert_eq!((y.shape(), mean.to_vec()?, var.to_vec()?), (&[2, 2][..], vec![2.0, 20.0], vec![1.0, 100.0]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// The normalised elements.
    pub y: Tensor,
    /// Mean of each channel, a constant, `[C]`.
    pub mean: Tensor,
    /// Biased variance of each channel, a constant, `[C]`.
    pub var: Tensor,
}

/// Which inputs there are beside `x`, in this order.
#[derive(Clone, Copy)]
struct Has {
    gamma: bool,
    beta: bool,
}

impl Has {
    fn pick(self, inputs: &[Tensor]) -> (Option<&Tensor>, Option<&Tensor>) {
        let gamma = self.gamma.then(|| &inputs[1]);
        (gamma, self.beta.then(|| &inputs[1 + usize::from(self.gamma)]))
    }
}

/// Sizes and options that the operations of this file share.
#[derive(Clone, Copy)]
struct Spec {
    op: &'static str,
    dims: Dims,
    eps: f32,
    relu: bool,
}

impl Tensor {
    /// Batch normalisation of `[.., C]` by the statistics of each channel over all other axes (Ioffe and Szegedy, 2015):
    /// `gamma (x - mean) / sqrt(var + eps) + beta` with the biased variance; `gamma`, `beta` are `[C]`. For the running
    /// statistics see [`shadegrad_kernels::norm::update_running`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1])?; // two samples of one channel
    /// let normed = x.batch_norm(None, None, 0.0)?;
    /// assert!((normed.y.to_vec()?[1] - 1.0).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit, or there is a channel without elements.
    pub fn batch_norm(&self, gamma: Option<&Tensor>, beta: Option<&Tensor>, eps: f32) -> Result<BatchNorm> {
        self.batch_norm_act("batch_norm", gamma, beta, eps, false)
    }

    /// [`Tensor::batch_norm`] followed by ReLU, in one pass.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 3.0], &[2, 1])?;
    /// let y = x.batch_norm_relu(None, None, 0.0)?.y.to_vec()?;
    /// assert!(y[0] == 0.0 && (y[1] - 1.0).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::batch_norm`].
    pub fn batch_norm_relu(&self, gamma: Option<&Tensor>, beta: Option<&Tensor>, eps: f32) -> Result<BatchNorm> {
        self.batch_norm_act("batch_norm_relu", gamma, beta, eps, true)
    }

    fn batch_norm_act(
        &self,
        op: &'static str,
        gamma: Option<&Tensor>,
        beta: Option<&Tensor>,
        eps: f32,
        relu: bool,
    ) -> Result<BatchNorm> {
        let cols = self.channels(op, &[("gamma", gamma), ("beta", beta)], eps)?;
        let rows = self.shape()[..self.rank() - 1].iter().product();
        if rows == 0 && cols > 0 {
            return Err(Error::shape(op, format!("{:?} has no elements to take statistics of", self.shape())));
        }
        let dims = Dims { batch: 1, rows, cols, span: 1 };
        let (y, mean, var) = self.normalise(Spec { op, dims, eps, relu }, gamma, beta)?;
        Ok(BatchNorm { y, mean, var })
    }

    /// Batch normalisation of `[.., C]` by given statistics `[C]`, as in evaluation. They get gradients if they are no
    /// constants.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[6.0], &[1, 1])?;
    /// let [mean, var, gamma, beta] = [2.0, 4.0, 10.0, 1.0].map(|v| Tensor::full(&gpu, &[1], v));
    /// let y = x.batch_norm_eval(&mean?, &var?, Some(&gamma?), Some(&beta?), 0.0)?;
    /// assert!((y.item()? - 21.0).abs() < 1e-3); // 10 (6 - 2) / 2 + 1
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn batch_norm_eval(
        &self,
        mean: &Tensor,
        var: &Tensor,
        gamma: Option<&Tensor>,
        beta: Option<&Tensor>,
        eps: f32,
    ) -> Result<Tensor> {
        const OP: &str = "batch_norm_eval";
        let params = [("mean", Some(mean)), ("var", Some(var)), ("gamma", gamma), ("beta", beta)];
        let cols = self.channels(OP, &params, eps)?;
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, OP)?;
        if out.numel() > 0 {
            let affine = Affine { gamma: gamma.map(Tensor::storage), beta: beta.map(Tensor::storage) };
            let size = (out.numel() / cols, cols);
            let statistics = (mean.storage(), var.storage());
            k::normalise_fixed(self.gpu(), self.storage(), size, statistics, affine, eps, out.storage())?;
        }
        let inputs: Vec<&Tensor> = [Some(self), Some(mean), Some(var), gamma, beta].into_iter().flatten().collect();
        let owned: Vec<Tensor> = inputs.iter().map(|t| (*t).clone()).collect();
        let has = Has { gamma: gamma.is_some(), beta: beta.is_some() };
        Ok(out.record(OP, &inputs, move |ctx, grad| {
            // Frozen layers need no more than this.
            if ctx.needs(0) && (1..owned.len()).all(|i| !ctx.needs(i)) {
                let slope = owned[2].add_scalar(eps)?.rsqrt()?;
                let slope = has.pick(&owned[2..]).0.map_or(Ok(slope.clone()), |g| slope.mul(g))?;
                let mut grads = vec![None; owned.len()];
                grads[0] = Some(grad.mul(&slope)?);
                return Ok(grads);
            }
            composite_grads(ctx, &owned, grad, |xs| {
                let centred = xs[0].sub(&xs[1])?;
                let (gamma, beta) = has.pick(&xs[2..]);
                affine(&centred.mul(&xs[2].add_scalar(eps)?.rsqrt()?)?, gamma, beta)
            })
        }))
    }

    /// Group normalisation of images `[N, .., C]` (Wu and He, 2018): each image and each of `groups` equal blocks of
    /// neighbouring channels has statistics of its own; `gamma`, `beta` are `[C]`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 3.0, 10.0, 30.0], &[1, 1, 1, 4])?; // one pixel of four channels
    /// let y = x.group_norm(2, None, None, 0.0)?.to_vec()?;
    /// assert!(y.iter().zip([-1.0, 1.0, -1.0, 1.0]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit, `groups` does not divide C, or there is a group without elements.
    pub fn group_norm(&self, groups: usize, gamma: Option<&Tensor>, beta: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        self.by_image("group_norm", Some(groups), gamma, beta, eps)
    }

    /// Instance normalisation of images `[N, .., C]`: [`Tensor::group_norm`] with every channel a group.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 10.0, 3.0, 30.0], &[1, 2, 1, 2])?; // two pixels of two channels
    /// let y = x.instance_norm(None, None, 0.0)?.to_vec()?;
    /// assert!(y.iter().zip([-1.0, -1.0, 1.0, 1.0]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::group_norm`].
    pub fn instance_norm(&self, gamma: Option<&Tensor>, beta: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        self.by_image("instance_norm", None, gamma, beta, eps)
    }

    fn by_image(
        &self,
        op: &'static str,
        groups: Option<usize>,
        gamma: Option<&Tensor>,
        beta: Option<&Tensor>,
        eps: f32,
    ) -> Result<Tensor> {
        let cols = self.channels(op, &[("gamma", gamma), ("beta", beta)], eps)?;
        if self.rank() < 2 {
            return Err(Error::shape(op, format!("takes [images, .., channels], got {:?}", self.shape())));
        }
        let groups = groups.unwrap_or(cols);
        if cols > 0 && (groups == 0 || !cols.is_multiple_of(groups)) {
            return Err(Error::shape(
                op,
                format!("{groups} groups do not divide the {cols} channels of {:?}", self.shape()),
            ));
        }
        let (batch, rows) = (self.dim(0), self.shape()[1..self.rank() - 1].iter().product());
        if rows == 0 && batch * cols > 0 {
            return Err(Error::shape(op, format!("{:?} has no elements to take statistics of", self.shape())));
        }
        let dims = Dims { batch, rows, cols, span: cols.checked_div(groups).unwrap_or(1) };
        Ok(self.normalise(Spec { op, dims, eps, relu: false }, gamma, beta)?.0)
    }

    /// Statistics of groups and the elements normalised by them: result, means, biased variances.
    fn normalise(&self, spec: Spec, gamma: Option<&Tensor>, beta: Option<&Tensor>) -> Result<(Tensor, Tensor, Tensor)> {
        let Spec { op, dims, eps, relu } = spec;
        let gpu = self.gpu();
        let make = |shape: &[usize]| Tensor::empty(gpu, shape, DType::F32, op);
        let (y, mean, var) = (make(self.shape())?, make(&[dims.groups()])?, make(&[dims.groups()])?);
        if y.numel() == 0 {
            return Ok((empty(y, op, &[Some(self), gamma, beta]), mean, var));
        }
        let coef = make(&[dims.coefficients()])?;
        let affine = Affine { gamma: gamma.map(Tensor::storage), beta: beta.map(Tensor::storage) };
        k::normalise(
            gpu,
            self.storage(),
            dims,
            affine,
            eps,
            relu,
            (y.storage(), mean.storage(), var.storage(), coef.storage()),
        )?;
        let inputs: SmallVec<[&Tensor; 3]> = [Some(self), gamma, beta].into_iter().flatten().collect();
        let has = Has { gamma: gamma.is_some(), beta: beta.is_some() };
        let keep = Keeper::new(op, &inputs);
        let mut owned: SmallVec<[Saved; 3]> = SmallVec::new();
        owned.push(keep.half("input", self)?);
        owned
            .extend([("scale", gamma), ("shift", beta)].into_iter().filter_map(|(what, t)| Some(keep.whole(what, t?))));
        let statistics = [keep.whole("variance", &var), keep.whole("coefficients", &coef)];
        let y = y.record(op, &inputs, move |ctx, grad| {
            let owned: SmallVec<[Tensor; 3]> = owned.iter().map(|s| s.floats(ctx)).collect::<Result<_>>()?;
            let x = &owned[0];
            if ctx.create_graph() {
                return composite_grads(ctx, &owned, grad, |xs| composite(xs, has, spec));
            }
            let dx = Tensor::empty(grad.gpu(), x.shape(), DType::F32, op)?;
            let params = Params::new(&owned, |i| ctx.needs(i), dims.cols, op)?;
            let (var, coef) = (statistics[0].get(ctx)?, statistics[1].get(ctx)?);
            let (x, statistics) = ((x.storage(), grad.storage()), (var.storage(), coef.storage()));
            k::normalise_grad(grad.gpu(), x, dims, statistics, eps, relu, dx.storage(), params.storages())?;
            Ok(params.grads(dx, has))
        });
        Ok((y, mean, var))
    }

    /// Layer normalisation over the last axis (Ba et al., 2016); `gamma`, `beta` are `[C]`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 3.0], &[1, 2])?;
    /// let y = x.layer_norm(None, None, 0.0)?.to_vec()?;
    /// assert!((y[0] + 1.0).abs() < 1e-5 && (y[1] - 1.0).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit, or the last axis is empty while others are not.
    pub fn layer_norm(&self, gamma: Option<&Tensor>, beta: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        const OP: &str = "layer_norm";
        let len = self.channels(OP, &[("gamma", gamma), ("beta", beta)], eps)?;
        let rows = self.shape()[..self.rank() - 1].iter().product();
        if len == 0 && rows > 0 {
            return Err(Error::shape(OP, format!("{:?} has no elements to take statistics of", self.shape())));
        }
        let gpu = self.gpu();
        let y = Tensor::empty(gpu, self.shape(), DType::F32, OP)?;
        if y.numel() == 0 {
            return Ok(empty(y, OP, &[Some(self), gamma, beta]));
        }
        let stat = Tensor::empty(gpu, &[rows, 2], DType::F32, OP)?;
        let fused = Affine { gamma: gamma.map(Tensor::storage), beta: beta.map(Tensor::storage) };
        k::layer_norm(gpu, self.storage(), (rows, len), fused, eps, (y.storage(), stat.storage()))?;
        let inputs: Vec<&Tensor> = [Some(self), gamma, beta].into_iter().flatten().collect();
        let has = Has { gamma: gamma.is_some(), beta: beta.is_some() };
        let keep = Keeper::new(OP, &inputs);
        let scale_trained = gamma.is_some_and(Tensor::requires_grad);
        let scale = gamma.map(|g| keep.whole_if(self.requires_grad() || scale_trained, "scale", g));
        let input = match keep.compact().and_then(|c| c.norm_share) {
            // The shift's gradient is a sum of what comes in.
            _ if !self.requires_grad() && !scale_trained => {
                keep.spared("input", self);
                keep.spared("statistics", &stat);
                LayerInput::Nothing
            }
            Some(share) if !scale_trained => self.keep_share(&keep, (rows, len), eps, share, &stat)?,
            _ => LayerInput::Whole { x: keep.half("input", self)?, stat: keep.whole("statistics", &stat) },
        };
        let shift = beta.cloned();
        Ok(y.record(OP, &inputs, move |ctx, grad| {
            let scale = scale.as_ref().filter(|_| !matches!(input, LayerInput::Nothing));
            let gamma = scale.map(|s| s.get(ctx)).transpose()?;
            let LayerInput::Whole { x, stat } = &input else {
                let mut grads = vec![None; 1 + usize::from(has.gamma)];
                if let LayerInput::Share { values, places, deviation } = &input
                    && ctx.needs(0)
                {
                    values.only_once(ctx)?;
                    let n = values.get(ctx)?.put_back(&places.get(ctx)?, grad.shape())?;
                    let dx = Tensor::empty(grad.gpu(), grad.shape(), DType::F32, OP)?;
                    let (operands, gamma) = ((n.storage(), grad.storage()), gamma.as_ref().map(Tensor::storage));
                    let deviation = deviation.get(ctx)?;
                    let deviation = deviation.storage();
                    k::layer_norm_grad_kept(grad.gpu(), operands, (rows, len), gamma, deviation, dx.storage())?;
                    grads[0] = Some(dx);
                }
                grads.extend(has.beta.then(|| grad.sum_to(&[len])).transpose()?.map(Some));
                return Ok(grads);
            };
            let owned: Vec<Tensor> = [Some(x.floats(ctx)?), gamma, shift.clone()].into_iter().flatten().collect();
            if ctx.create_graph() {
                return composite_grads(ctx, &owned, grad, |xs| {
                    let mut row = xs[0].shape().to_vec();
                    row[xs[0].rank() - 1] = 1;
                    let (gamma, beta) = has.pick(xs);
                    affine(&standardise(&xs[0], &row, eps)?, gamma, beta)
                });
            }
            let (x, stat) = (&owned[0], stat.get(ctx)?);
            let dx = Tensor::empty(grad.gpu(), x.shape(), DType::F32, OP)?;
            let params = Params::new(&owned, |i| ctx.needs(i), len, OP)?;
            let gamma = has.pick(&owned).0.map(Tensor::storage);
            let x = (x.storage(), grad.storage());
            k::layer_norm_grad(grad.gpu(), x, (rows, len), gamma, stat.storage(), dx.storage(), params.storages())?;
            Ok(params.grads(dx, has))
        }))
    }

    /// What is kept of a layer norm's input when only a share of the normalised elements is.
    fn keep_share(
        &self,
        keep: &Keeper,
        (rows, len): (usize, usize),
        eps: f32,
        share: f64,
        stat: &Tensor,
    ) -> Result<LayerInput> {
        const OP: &str = "layer_norm";
        let gpu = self.gpu();
        let n = Tensor::empty(gpu, self.shape(), DType::F32, OP)?;
        let again = gpu.alloc(8 * rows as u64, OP)?;
        let plain = Affine { gamma: None, beta: None };
        k::layer_norm(gpu, self.storage(), (rows, len), plain, eps, (n.storage(), &again))?;
        // The sliver keeps 0.7 * 10 from being 6.
        let count = (share * n.numel() as f64 + 1e-9).floor() as usize;
        let (values, places) = n.largest_magnitudes(count)?;
        let deviation = stat.slice(1, 1, 2, 1)?;
        Ok(LayerInput::Share {
            values: keep.part("kept elements", &values, Some(self)),
            places: keep.part("their places", &places, None),
            deviation: keep.part("deviations", &deviation, Some(stat)),
        })
    }

    /// The length of the last axis, after checking that `params` are vectors of that length.
    fn channels(&self, op: &'static str, params: &[(&str, Option<&Tensor>)], eps: f32) -> Result<usize> {
        self.want(op, DType::F32)?;
        let Some(&c) = self.shape().last() else {
            return Err(Error::shape(op, "takes [.., channels], got a scalar"));
        };
        if !(eps >= 0.0 && eps.is_finite()) {
            return Err(Error::value(op, format!("eps {eps} must be finite and not negative")));
        }
        for (name, t) in params.iter().filter_map(|(name, t)| t.map(|t| (name, t))) {
            t.want(op, DType::F32)?;
            self.same_gpu(op, t)?;
            if t.shape() != [c] {
                return Err(Error::shape(op, format!("{:?} needs {name} [{c}], got {:?}", self.shape(), t.shape())));
            }
        }
        Ok(c)
    }
}

/// What a layer norm keeps of its input.
enum LayerInput {
    /// All, and mean and `1 / sqrt(var + eps)` of each row.
    Whole { x: Saved, stat: Saved },
    /// Some of the normalised elements, and `1 / sqrt(var + eps)` of each row.
    Share { values: Saved, places: Saved, deviation: Saved },
    /// Only the shift is trained.
    Nothing,
}

/// A result without elements: the gradients of its inputs are zero.
fn empty(y: Tensor, op: &'static str, inputs: &[Option<&Tensor>]) -> Tensor {
    let inputs: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
    y.record(op, &inputs, move |_, grad| shapes.iter().map(|s| Tensor::zeros(grad.gpu(), s).map(Some)).collect())
}

/// Gradients of gamma and beta, if any of them is wanted: the kernels give both or none.
struct Params(Option<(Tensor, Tensor)>);

impl Params {
    fn new(inputs: &[Tensor], needs: impl Fn(usize) -> bool, cols: usize, op: &'static str) -> Result<Self> {
        if !(1..inputs.len()).any(needs) {
            return Ok(Self(None));
        }
        let make = || Tensor::empty(inputs[0].gpu(), &[cols], DType::F32, op);
        Ok(Self(Some((make()?, make()?))))
    }

    fn storages(&self) -> Option<(&shadegrad_kernels::Storage, &shadegrad_kernels::Storage)> {
        self.0.as_ref().map(|(g, b)| (g.storage(), b.storage()))
    }

    fn grads(self, dx: Tensor, has: Has) -> Vec<Option<Tensor>> {
        let (dgamma, dbeta) = self.0.map_or((None, None), |(g, b)| (Some(g), Some(b)));
        let mut grads = Vec::with_capacity(3);
        grads.push(Some(dx));
        grads.extend(has.gamma.then_some(dgamma));
        grads.extend(has.beta.then_some(dbeta));
        grads
    }
}

/// `(x - mean) / sqrt(var + eps)` with statistics of shape `kept`, to which `x` sums.
fn standardise(x: &Tensor, kept: &[usize], eps: f32) -> Result<Tensor> {
    let share = kept.iter().product::<usize>() as f32 / x.numel() as f32;
    let centred = x.sub(&x.sum_to(kept)?.mul_scalar(share)?)?;
    let var = centred.square()?.sum_to(kept)?.mul_scalar(share)?;
    centred.mul(&var.add_scalar(eps)?.rsqrt()?)
}

fn affine(x: &Tensor, gamma: Option<&Tensor>, beta: Option<&Tensor>) -> Result<Tensor> {
    let scaled = gamma.map_or(Ok(x.clone()), |g| x.mul(g))?;
    beta.map_or(Ok(scaled.clone()), |b| scaled.add(b))
}

/// [`Tensor::normalise`] made of tensor operations.
fn composite(inputs: &[Tensor], has: Has, spec: Spec) -> Result<Tensor> {
    let Dims { batch, rows, cols, span } = spec.dims;
    let x = inputs[0].reshape(&[batch, rows, cols / span, span])?;
    let y = standardise(&x, &[batch, 1, cols / span, 1], spec.eps)?.reshape(inputs[0].shape())?;
    let (gamma, beta) = has.pick(inputs);
    let y = affine(&y, gamma, beta)?;
    if spec.relu { y.relu() } else { Ok(y) }
}
