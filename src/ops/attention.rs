//! Scaled dot-product attention.

use shadegrad_kernels::attention::{self as kernels, Flash};
use shadegrad_kernels::softmax::{Lanes, softmax_grad};

use crate::autograd::{Keeper, composite_grads, recording, wanted};
use crate::error::{Error, Result};
use crate::ops::softmax::keep_result;
use crate::precision::Precision;
use crate::tensor::{DType, Tensor};

/// Options of [`Tensor::sdpa`] and [`Tensor::masked_softmax`].
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let (q, k) = (Tensor::zeros(&gpu, &[1, 1, 1, 4])?, Tensor::zeros(&gpu, &[1, 1, 3, 4])?);
/// let v = Tensor::from_slice(&gpu, &[10.0, 20.0, 30.0], &[1, 1, 3, 1])?;
/// let mask = Tensor::from_slice(&gpu, &[1.0, 0.0, 1.0], &[1, 1, 1, 3])?; // hides the second key
/// let y = q.sdpa(&k, &v, Attention { mask: Some(&mask), ..Attention::default() })?;
/// assert!((y.item()? - 20.0).abs() < 1e-4);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Attention<'a> {
    /// Added to the scaled scores; broadcasts to `[B, H, L, S]`.
    pub bias: Option<&'a Tensor>,
    /// 0 hides the key from the query, anything else shows it; `F32`, broadcasts to `[B, H, L, S]`. No gradient.
    pub mask: Option<&'a Tensor>,
    /// Query `i` sees the keys `j <= i` only, counted from the first of both.
    pub causal: bool,
    /// Factor of the scores; `1 / sqrt(D)` if `None` in [`Tensor::sdpa`], 1 in [`Tensor::masked_softmax`].
    pub scale: Option<f32>,
    /// Whether a training [`Tensor::sdpa`] computes the weights again in its backward pass instead of storing `[B, H, L, S]`
    /// twice; `None` where that is expected to be faster. Only with heads of 16, 32 or 64 channels in keys and values and
    /// a bias without a gradient, outside mixed precision, and where nothing asks to see the weights; stored elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::Ledger;
    /// let x = Tensor::ones(&gpu, &[1, 1, 256, 16])?.leaf(); // queries, keys and values: 16 KiB
    /// let kept = |recompute: bool| {
    ///     let ledger = Ledger::new(&[&x]);
    ///     let options = Attention { recompute: Some(recompute), ..Attention::default() };
    ///     let _y = ledger.watch(|| x.sdpa(&x, &x, options))?;
    ///     Ok::<_, Error>(ledger.live())
    /// };
    /// assert_eq!(kept(true)?, (4 * 16 + 8) * 256); // the result, and two sums of each query
    /// assert_eq!(kept(false)?, 4 * 256 * 256); // the weights
    /// # Ok::<(), Error>(())
    /// ```
    pub recompute: Option<bool>,
}

/// `shape` with ones before it up to four dimensions, if it broadcasts to `scores`.
fn spread(op: &'static str, name: &str, t: &Tensor, scores: [usize; 4]) -> Result<[usize; 4]> {
    let shape = t.shape();
    let mut full = [1; 4];
    let fits = shape.len() <= 4 && {
        full[4 - shape.len()..].copy_from_slice(shape);
        full.iter().zip(scores).all(|(&a, b)| a == b || a == 1)
    };
    if fits {
        return Ok(full);
    }
    Err(Error::shape(op, format!("the {name}, {shape:?}, does not broadcast to the scores {scores:?}")))
}

/// [`Tensor::sdpa`] made of other operations, which store the scores and their softmax.
fn composed(q: &Tensor, k: &Tensor, v: &Tensor, options: Attention) -> Result<Tensor> {
    q.matmul_t(k, false, true)?.masked_softmax(options)?.matmul(v)
}

impl Tensor {
    /// Attention (Vaswani et al., 2017): `softmax(scale q k^T + bias) v` for `q [B, H, L, D]`, `k [B, H, S, D]` and
    /// `v [B, H, S, Dv]`, giving `[B, H, L, Dv]`. A query that sees no key gives zeros and gets no gradient.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let [q, k, v] = [3, 5, 5].map(|tokens| Tensor::ones(&gpu, &[1, 2, tokens, 8])); // [batch, heads, tokens, width]
    /// let y = q?.sdpa(&k?, &v?, Attention { causal: true, ..Attention::default() })?;
    /// assert_eq!(y.shape(), [1, 2, 3, 8]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// One kernel, and three backward, that never hold the scores where [`Attention::recompute`] says so or no gradient is
    /// wanted; gradients that are to be differentiated again store them.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sdpa(&self, k: &Tensor, v: &Tensor, options: Attention) -> Result<Tensor> {
        const OP: &str = "sdpa";
        let fit = match (self.shape(), k.shape(), v.shape()) {
            (&[b, h, _, d], &[kb, kh, s, kd], &[vb, vh, vs, _]) => [b, h, d, b, h, s] == [kb, kh, kd, vb, vh, vs],
            _ => false,
        };
        if !fit {
            return Err(Error::shape(
                OP,
                format!(
                    "takes q [B, H, L, D], k [B, H, S, D], v [B, H, S, Dv]; got {:?}, {:?}, {:?}",
                    self.shape(),
                    k.shape(),
                    v.shape()
                ),
            ));
        }
        let scale = options.scale.unwrap_or(1.0 / (self.dim(3).max(1) as f32).sqrt());
        let options = Attention { scale: Some(scale), ..options };
        let inputs = [self, k, v];
        let recorded = |t: &Tensor| recording() && t.requires_grad();
        let (d, dv) = (self.dim(3), v.dim(3));
        // Whoever looks for the weights must find them.
        let kernels = d == dv && kernels::has_forward(d) && self.numel() > 0 && k.numel() > 0;
        if !kernels || wanted("masked_softmax") || options.bias.is_some_and(recorded) {
            return composed(self, k, v, options);
        }
        for t in inputs {
            t.want(OP, DType::F32)?;
            self.same_gpu(OP, t)?;
        }
        let shape = [self.dim(0), self.dim(1), self.dim(2), k.dim(2)];
        let bias = self.spread_option(OP, "bias", options.bias, shape)?;
        let mask = self.spread_option(OP, "mask", options.mask, shape)?;
        let flash = Flash { shape, depth: d, bias, mask, causal: options.causal, scale };
        if !inputs.into_iter().any(recorded) {
            let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, OP)?;
            let operands = (self.storage(), k.storage(), v.storage());
            kernels::forward(self.gpu(), operands, &flash, (out.storage(), None))?;
            // The rule never runs, since nothing is recorded here: this hands on which cut the operands come from.
            return Ok(out.record(OP, &inputs, |_, _| Ok(vec![])));
        }
        let keep = Keeper::new(OP, &inputs);
        let packed = keep.compact().is_some_and(|c| c.product.is_some() || c.probability.is_some());
        if packed
            || Precision::now() != Precision::F32
            || !options.recompute.unwrap_or_else(|| flash.recompute_pays(self.gpu()))
        {
            return composed(self, k, v, options);
        }
        self.flash(k, v, &flash, options, &keep)
    }

    /// Attention in one kernel, and three backward: the scores are not stored.
    fn flash(&self, k: &Tensor, v: &Tensor, flash: &Flash, options: Attention, keep: &Keeper) -> Result<Tensor> {
        const OP: &str = "sdpa";
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, OP)?;
        let kept = Tensor::empty(self.gpu(), &[&self.shape()[..3], &[2]].concat(), DType::F32, OP)?;
        let operands = (self.storage(), k.storage(), v.storage());
        kernels::forward(self.gpu(), operands, flash, (out.storage(), Some(kept.storage())))?;
        let [q, k_saved, v_saved] =
            [("queries", self), ("keys", k), ("values", v)].map(|(what, t)| keep.whole(what, t));
        let (y, kept) = (keep.whole("result", &out.detach()), keep.whole("sums", &kept));
        let [bias, mask] = [options.bias, options.mask].map(|t| t.cloned());
        let (shape, causal, scale) = (flash.shape, flash.causal, flash.scale);
        Ok(out.record(OP, &[self, k, v], move |ctx, grad| {
            let [q, k, v] = [q.get(ctx)?, k_saved.get(ctx)?, v_saved.get(ctx)?];
            let options =
                Attention { bias: bias.as_ref(), mask: mask.as_ref(), causal, scale: Some(scale), recompute: None };
            if ctx.create_graph() {
                return composite_grads(ctx, &[q, k, v], grad, |t| composed(&t[0], &t[1], &t[2], options));
            }
            let bias = q.spread_option(OP, "bias", options.bias, shape)?;
            let mask = q.spread_option(OP, "mask", options.mask, shape)?;
            let flash = Flash { shape, depth: q.dim(3), bias, mask, causal, scale };
            let (y, kept) = (y.get(ctx)?, kept.get(ctx)?);
            let (dq, dkv) = kernels::backward(
                q.gpu(),
                (q.storage(), k.storage(), v.storage()),
                &flash,
                (y.storage(), kept.storage(), grad.storage()),
                (ctx.needs(0), ctx.needs(1) || ctx.needs(2)),
            )?;
            let tensor = |s, like: &Tensor| Tensor::from_parts(q.gpu(), s, like.shape(), DType::F32);
            let (dk, dv) = dkv.unzip();
            let (dk, dv) = (dk.filter(|_| ctx.needs(1)), dv.filter(|_| ctx.needs(2)));
            Ok(vec![dq.map(|s| tensor(s, &q)), dk.map(|s| tensor(s, &k)), dv.map(|s| tensor(s, &v))])
        }))
    }

    /// Checks an operand that broadcasts to the scores.
    fn spread_option<'a>(
        &self,
        op: &'static str,
        name: &str,
        t: Option<&'a Tensor>,
        scores: [usize; 4],
    ) -> Result<kernels::Spread<'a>> {
        let Some(t) = t else { return Ok(None) };
        t.want(op, DType::F32)?;
        self.same_gpu(op, t)?;
        Ok(Some((t.storage(), spread(op, name, t, scores)?)))
    }

    /// The weights of attention from its scores `q k^T`, `[B, H, L, S]`: `softmax(scale x + bias)` over the last axis and
    /// the visible keys, 0 elsewhere. Differentiable in the scores and the bias.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let scores = Tensor::zeros(&gpu, &[1, 1, 2, 2])?; // [batch, heads, queries, keys]
    /// let weights = scores.masked_softmax(Attention { causal: true, ..Attention::default() })?;
    /// assert_eq!(weights.to_vec()?, [1.0, 0.0, 0.5, 0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn masked_softmax(&self, options: Attention) -> Result<Tensor> {
        const OP: &str = "masked_softmax";
        self.want(OP, DType::F32)?;
        let &[b, h, l, s] = self.shape() else {
            return Err(Error::shape(OP, format!("takes scores [B, H, L, S], got {:?}", self.shape())));
        };
        let shape = [b, h, l, s];
        let bias = self.spread_option(OP, "bias", options.bias, shape)?;
        let mask = self.spread_option(OP, "mask", options.mask, shape)?;
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, OP)?;
        let scale = options.scale.unwrap_or(1.0);
        if out.numel() > 0 {
            kernels::masked_softmax(
                self.gpu(),
                self.storage(),
                shape,
                (bias, mask),
                options.causal,
                scale,
                out.storage(),
            )?;
        }
        let inputs: Vec<&Tensor> = [Some(self), options.bias].into_iter().flatten().collect();
        let bias_shape = options.bias.map(|t| t.shape().to_vec());
        let (out, saved) = keep_result(OP, &inputs, out, true)?;
        Ok(out.record(OP, &inputs, move |ctx, grad| {
            let dlogits = if grad.numel() == 0 {
                grad.clone()
            } else if ctx.create_graph() {
                let y = ctx.output(&saved.get(ctx)?);
                y.mul(&grad.sub(&y.mul(grad)?.sum_to(&[b, h, l, 1])?)?)?
            } else {
                let dx = Tensor::empty(grad.gpu(), grad.shape(), DType::F32, OP)?;
                let lanes = Lanes { outer: b * h * l, len: s, inner: 1 };
                let saved = saved.get(ctx)?;
                softmax_grad(grad.gpu(), false, saved.storage(), grad.storage(), dx.storage(), lanes)?;
                dx
            };
            let mut grads = vec![ctx.needs(0).then(|| dlogits.mul_scalar(scale)).transpose()?];
            if let Some(shape) = &bias_shape {
                grads.push(ctx.needs(1).then(|| dlogits.sum_to(shape)).transpose()?);
            }
            Ok(grads)
        }))
    }
}
