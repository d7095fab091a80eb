//! Losses.

use shadegrad_kernels::Gpu;
use shadegrad_kernels::loss::{self as k, Targets};

use crate::autograd::{Keeper, Saved, composite_grads};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// From the losses of the samples (or elements) to the result.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (x, y) = (Tensor::zeros(&gpu, &[2])?, Tensor::from_slice(&gpu, &[1.0, 3.0], &[2])?);
/// assert_eq!(x.mse_loss(&y, Reduction::Mean)?.item()?, 5.0);
/// assert_eq!(x.mse_loss(&y, Reduction::Sum)?.item()?, 10.0);
/// assert_eq!(x.mse_loss(&y, Reduction::None)?.to_vec()?, [1.0, 9.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// The sum divided by the number of samples; weights do not enter the divisor.
    #[default]
    Mean,
    /// The sum.
    Sum,
    /// No reduction.
    None,
}

impl Reduction {
    /// The factor of each of `n` losses in the result.
    fn scale(self, n: usize) -> f32 {
        if self == Self::Mean { 1.0 / n.max(1) as f32 } else { 1.0 }
    }

    /// Reduces losses whose mean is their sum divided by `n`.
    fn apply(self, losses: &Tensor, n: usize) -> Result<Tensor> {
        match self {
            Self::None => Ok(losses.clone()),
            Self::Sum => losses.sum_to(&[]),
            Self::Mean => losses.sum_to(&[])?.mul_scalar(self.scale(n)),
        }
    }
}

/// Options of [`Tensor::cross_entropy`].
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let logits = Tensor::zeros(&gpu, &[2, 4])?;
/// let (labels, weights) = (Tensor::labels(&gpu, &[0, 3], 4)?, Tensor::from_slice(&gpu, &[1.0, 0.0], &[2])?);
/// let options = CrossEntropy { weights: Some(&weights), reduction: Reduction::None, ..CrossEntropy::default() };
/// let losses = logits.cross_entropy(&labels, options)?.to_vec()?;
/// assert!((losses[0] - 4f32.ln()).abs() < 1e-5 && losses[1] == 0.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CrossEntropy<'a> {
    /// Share of the uniform distribution in the targets (Szegedy et al., 2016), 0 to 1.
    pub smoothing: f32,
    /// A factor per sample, `[N]`.
    pub weights: Option<&'a Tensor>,
    /// How the losses of the samples become the result.
    pub reduction: Reduction,
}

/// The targets of one cross-entropy.
#[derive(Clone)]
enum Wanted {
    Labels(Tensor, f32),
    Probs(Tensor),
}

impl Tensor {
    /// Uploads class labels, `[N]`, after checking that each is below `classes`. Kernels clamp labels rather than read
    /// beyond a row, so this is the place where a wrong one is noticed.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::labels(&gpu, &[0, 2], 3)?.to_vec_u32()?, [0, 2]);
    /// assert!(Tensor::labels(&gpu, &[3], 3).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a label is `classes` or more.
    pub fn labels(gpu: &Gpu, labels: &[u32], classes: usize) -> Result<Tensor> {
        if let Some(i) = labels.iter().position(|&l| l as usize >= classes) {
            return Err(Error::value(
                "labels",
                format!("label {} of sample {i} is not below {classes}, the number of classes; relabel it", labels[i]),
            ));
        }
        Tensor::from_u32(gpu, labels, &[labels.len()])
    }

    /// Cross-entropy of logits `[N, C]` with labels `[N]` (`U32`, see [`Tensor::labels`]; one of `C` or more counts as
    /// `C - 1`). Sample `i` loses `w_i ((1 - e) (-log p_i[label]) + e / C sum_c (-log p_i[c]))` with smoothing `e`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let logits = Tensor::zeros(&gpu, &[2, 10])?;
    /// let labels = Tensor::labels(&gpu, &[3, 7], 10)?;
    /// let loss = logits.cross_entropy(&labels, CrossEntropy::default())?; // mean over the batch
    /// assert!((loss.item()? - 10f32.ln()).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit, there is no class, or the smoothing is outside 0 to 1.
    pub fn cross_entropy(&self, labels: &Tensor, options: CrossEntropy) -> Result<Tensor> {
        const OP: &str = "cross_entropy";
        labels.want(OP, DType::U32)?;
        let n = self.logits(OP)?.0;
        if labels.shape() != [n] {
            return Err(Error::shape(OP, format!("{:?} needs labels [{n}], got {:?}", self.shape(), labels.shape())));
        }
        if !(0.0..=1.0).contains(&options.smoothing) {
            return Err(Error::value(OP, format!("smoothing {} is outside 0 to 1", options.smoothing)));
        }
        self.fused_cross_entropy(
            OP,
            Wanted::Labels(labels.clone(), options.smoothing),
            options.weights,
            options.reduction,
        )
    }

    /// Cross-entropy of logits `[N, C]` with distributions `[N, C]`: `-sum_c probs[i, c] log p_i[c]`. Rows of `probs` need
    /// not sum to one. Differentiable in both.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let logits = Tensor::zeros(&gpu, &[1, 2])?.leaf();
    /// let probs = Tensor::from_slice(&gpu, &[0.25, 0.75], &[1, 2])?;
    /// let loss = logits.cross_entropy_soft(&probs, Reduction::Sum)?;
    /// assert!((loss.item()? - 2f32.ln()).abs() < 1e-5);
    /// let slope = grad(&loss, &[&logits])?[0].to_vec()?; // softmax - probs
    /// assert!((slope[0] - 0.25).abs() < 1e-5 && (slope[1] + 0.25).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes differ or there is no class.
    pub fn cross_entropy_soft(&self, probs: &Tensor, reduction: Reduction) -> Result<Tensor> {
        const OP: &str = "cross_entropy_soft";
        probs.want(OP, DType::F32)?;
        self.logits(OP)?;
        if probs.shape() != self.shape() {
            return Err(Error::shape(
                OP,
                format!("{:?} needs probs of that shape, got {:?}", self.shape(), probs.shape()),
            ));
        }
        self.fused_cross_entropy(OP, Wanted::Probs(probs.clone()), None, reduction)
    }

    /// `(N, C)` of logits.
    fn logits(&self, op: &'static str) -> Result<(usize, usize)> {
        self.want(op, DType::F32)?;
        match *self.shape() {
            [n, c] if c > 0 => Ok((n, c)),
            _ => Err(Error::shape(op, format!("takes logits [samples, classes], got {:?}", self.shape()))),
        }
    }

    /// One kernel gives the losses and the gradient of the logits; a second sums.
    fn fused_cross_entropy(
        &self,
        op: &'static str,
        wanted: Wanted,
        weights: Option<&Tensor>,
        reduction: Reduction,
    ) -> Result<Tensor> {
        let (n, classes) = self.logits(op)?;
        let gpu = self.gpu();
        let mut inputs = vec![self.clone()];
        let targets = match &wanted {
            Wanted::Labels(labels, smoothing) => {
                self.same_gpu(op, labels)?;
                Targets::Labels { labels: labels.storage(), smoothing: *smoothing }
            }
            Wanted::Probs(probs) => {
                self.same_gpu(op, probs)?;
                inputs.push(probs.clone());
                Targets::Probs(probs.storage())
            }
        };
        if let Some(w) = weights {
            w.want(op, DType::F32)?;
            self.same_gpu(op, w)?;
            if w.shape() != [n] {
                return Err(Error::shape(op, format!("{:?} needs weights [{n}], got {:?}", self.shape(), w.shape())));
            }
            inputs.push(w.clone());
        }
        let losses = Tensor::empty(gpu, &[n], DType::F32, op)?;
        let slope =
            if self.requires_grad() && n > 0 { Some(Tensor::empty(gpu, self.shape(), DType::F32, op)?) } else { None };
        if n > 0 {
            let (w, dx) = (weights.map(Tensor::storage), slope.as_ref().map(Tensor::storage));
            k::cross_entropy(gpu, self.storage(), (n, classes), targets, w, reduction.scale(n), losses.storage(), dx)?;
        }
        let out = if reduction == Reduction::None { losses } else { losses.sum_to(&[])? };
        let refs: Vec<&Tensor> = inputs.iter().collect();
        let keep = Keeper::new(op, &refs);
        let names = ["logits", "targets or weights", "weights"];
        let owned: Vec<Saved> = inputs.iter().zip(names).map(|(t, what)| keep.whole(what, t)).collect();
        let slope = slope.map(|s| keep.whole("slope", &s));
        Ok(out.record(op, &refs, move |ctx, grad| {
            let owned: Vec<Tensor> = owned.iter().map(|s| s.get(ctx)).collect::<Result<_>>()?;
            let more = (1..owned.len()).any(|i| ctx.needs(i));
            match &slope {
                Some(slope) if !ctx.create_graph() && !more => Ok(vec![Some(slope.get(ctx)?.mul(&column(grad)?)?)]),
                _ => composite_grads(ctx, &owned, grad, |xs| composite(&xs[0], &xs[1..], &wanted, reduction)),
            }
        }))
    }

    /// The negative log-likelihood `-log_probs[i, label_i]` of logarithms of probabilities `[N, C]` and labels `[N]`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let log_probs = Tensor::from_slice(&gpu, &[-0.5, -1.0, -2.0, -0.25], &[2, 2])?; // such as log_softmax gives
    /// let labels = Tensor::labels(&gpu, &[0, 1], 2)?;
    /// assert_eq!(log_probs.nll_loss(&labels, Reduction::None)?.to_vec()?, [0.5, 0.25]);
    /// assert_eq!(log_probs.nll_loss(&labels, Reduction::Mean)?.item()?, 0.375);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn nll_loss(&self, labels: &Tensor, reduction: Reduction) -> Result<Tensor> {
        const OP: &str = "nll_loss";
        labels.want(OP, DType::U32)?;
        let (n, classes) = self.logits(OP)?;
        if labels.shape() != [n] {
            return Err(Error::shape(OP, format!("{:?} needs labels [{n}], got {:?}", self.shape(), labels.shape())));
        }
        let picked = self.mul(&targets(labels, classes, 0.0)?)?;
        reduction.apply(&rows(&picked)?.neg()?, n)
    }

    /// `(x - y)^2` of elements; the mean is over all of them.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (x, y) = (Tensor::zeros(&gpu, &[4])?, Tensor::full(&gpu, &[4], 2.0)?);
    /// assert_eq!(x.mse_loss(&y, Reduction::Mean)?.item()?, 4.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn mse_loss(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        self.pair("mse_loss", target)?;
        reduction.apply(&self.sub(target)?.square()?, self.numel())
    }

    /// `d^2 / 2` of elements with `d = x - y` up to `delta`, `delta (|d| - delta / 2)` beyond (Huber, 1964); the mean is
    /// over all of them.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let (x, target) = (Tensor::from_slice(&gpu, &[0.5, 3.0], &[2])?.leaf(), Tensor::zeros(&gpu, &[2])?);
    /// let losses = x.huber_loss(&target, 1.0, Reduction::None)?;
    /// assert_eq!(losses.to_vec()?, [0.125, 2.5]);
    /// assert_eq!(grad(&losses.sum_all()?, &[&x])?[0].to_vec()?, [0.5, 1.0]); // an outlier pulls no harder
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes differ or `delta` is not positive.
    pub fn huber_loss(&self, target: &Tensor, delta: f32, reduction: Reduction) -> Result<Tensor> {
        self.pair("huber_loss", target)?;
        if !(delta > 0.0 && delta.is_finite()) {
            return Err(Error::value("huber_loss", format!("delta {delta} must be positive")));
        }
        // With c = clamp(d) both branches are c (d - c / 2).
        let d = self.sub(target)?;
        let c = d.clamp(-delta, delta)?;
        reduction.apply(&c.mul(&d.sub(&c.mul_scalar(0.5)?)?)?, self.numel())
    }

    /// Binary cross-entropy of logits `x` with targets `t` between 0 and 1, `log(1 + e^x) - x t`; the mean is over all
    /// elements.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let logits = Tensor::from_slice(&gpu, &[0.0, 100.0, -100.0], &[3])?;
    /// let target = Tensor::from_slice(&gpu, &[1.0, 1.0, 1.0], &[3])?;
    /// let losses = logits.bce_with_logits(&target, Reduction::None)?.to_vec()?;
    /// assert!(losses.iter().zip([2f32.ln(), 0.0, 100.0]).all(|(l, want)| (l - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn bce_with_logits(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        self.pair("bce_with_logits", target)?;
        reduction.apply(&self.softplus()?.sub(&self.mul(target)?)?, self.numel())
    }

    /// Kullback-Leibler divergence `t (log t - x)` of logarithms of probabilities `x` from probabilities `t`, 0 where `t`
    /// is 0. Without reduction one value per element; the mean divides the sum by the number of distributions, which lie
    /// along the last axis.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let teacher = Tensor::from_slice(&gpu, &[0.5, 0.5], &[1, 2])?;
    /// let student = Tensor::from_slice(&gpu, &[0.25, 0.75], &[1, 2])?.log()?;
    /// assert!((student.kl_div(&teacher, Reduction::Mean)?.item()? - 0.143_84).abs() < 1e-4);
    /// assert!(teacher.log()?.kl_div(&teacher, Reduction::Mean)?.item()?.abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes differ or have no dimension.
    pub fn kl_div(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        self.pair("kl_div", target)?;
        let Some(&len) = self.shape().last() else {
            return Err(Error::shape("kl_div", "takes distributions along the last axis, got a scalar"));
        };
        // log(1) where t is 0, so that 0 log 0 is 0 and its gradient finite.
        let zero = target.detach().gt_scalar(0.0)?.neg()?.add_scalar(1.0)?;
        let entropy = target.mul(&target.add(&zero)?.log()?)?;
        reduction.apply(&entropy.sub(&target.mul(self)?)?, self.numel() / len.max(1))
    }

    fn pair(&self, op: &'static str, target: &Tensor) -> Result<()> {
        self.want(op, DType::F32)?;
        target.want(op, DType::F32)?;
        self.same_gpu(op, target)?;
        if self.shape() == target.shape() {
            return Ok(());
        }
        Err(Error::shape(op, format!("{:?} and target {:?} must be equal", self.shape(), target.shape())))
    }
}

/// Mixed one-hot targets `[N, C]` of labels `[N]`.
fn targets(labels: &Tensor, classes: usize, smoothing: f32) -> Result<Tensor> {
    let n = labels.numel();
    let out = Tensor::empty(labels.gpu(), &[n, classes], DType::F32, "targets")?;
    if out.numel() > 0 {
        let mix = k::smoothed(smoothing, classes);
        k::targets(labels.gpu(), labels.storage(), out.storage(), (n, classes), mix)?;
    }
    Ok(out)
}

/// Row sums of `[N, C]` as `[N]`.
fn rows(x: &Tensor) -> Result<Tensor> {
    x.sum_to(&[x.dim(0), 1])?.reshape(&[x.dim(0)])
}

/// A gradient per sample as a column that broadcasts over the classes; a scalar as it is.
fn column(grad: &Tensor) -> Result<Tensor> {
    if grad.rank() == 1 { grad.reshape(&[grad.dim(0), 1]) } else { Ok(grad.clone()) }
}

/// Cross-entropy made of tensor operations; `more` holds the probabilities if they are the targets, else any weights.
fn composite(logits: &Tensor, more: &[Tensor], wanted: &Wanted, reduction: Reduction) -> Result<Tensor> {
    let (n, classes) = (logits.dim(0), logits.dim(1));
    let (target, weights) = match wanted {
        Wanted::Labels(labels, smoothing) => (targets(labels, classes, *smoothing)?, more.first()),
        Wanted::Probs(_) => (more[0].clone(), None),
    };
    let mut losses = rows(&target.mul(&logits.log_softmax(1)?)?)?.neg()?;
    if let Some(w) = weights {
        losses = losses.mul(w)?;
    }
    reduction.apply(&losses, n)
}
