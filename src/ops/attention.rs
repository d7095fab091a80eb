//! Scaled dot-product attention.

use shadegrad_kernels::attention as kernels;
use shadegrad_kernels::softmax::{Lanes, softmax_grad};

use crate::autograd::{recording, wanted};
use crate::error::{Error, Result};
use crate::ops::softmax::keep_result;
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
        let tracked = |t: Option<&Tensor>| t.is_some_and(Tensor::requires_grad);
        let recorded =
            recording() && (tracked(Some(self)) || tracked(Some(k)) || tracked(Some(v)) || tracked(options.bias));
        let (d, dv) = (self.dim(3), v.dim(3));
        // Whoever looks for the weights must find them.
        let stored = recorded || wanted("masked_softmax");
        if !stored && d == dv && kernels::has_forward(d) && self.numel() > 0 && k.numel() > 0 {
            return self.flash(k, v, scale, options);
        }
        let scores = self.matmul_t(k, false, true)?;
        scores.masked_softmax(Attention { scale: Some(scale), ..options })?.matmul(v)
    }

    /// Attention in one kernel, for when no gradient is wanted: the scores are not stored.
    fn flash(&self, keys: &Tensor, values: &Tensor, scale: f32, options: Attention) -> Result<Tensor> {
        const OP: &str = "sdpa";
        for t in [self, keys, values] {
            t.want(OP, DType::F32)?;
            self.same_gpu(OP, t)?;
        }
        let shape = [self.dim(0), self.dim(1), self.dim(2), keys.dim(2)];
        let bias = self.spread_option(OP, "bias", options.bias, shape)?;
        let mask = self.spread_option(OP, "mask", options.mask, shape)?;
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, OP)?;
        let operands = (self.storage(), keys.storage(), values.storage());
        let size = (shape, self.dim(3));
        kernels::forward(self.gpu(), operands, size, (bias, mask), options.causal, scale, out.storage())?;
        // The rule never runs, since nothing is recorded here: this hands on which cut the operands come from.
        Ok(out.record(OP, &[self, keys, values], |_, _| Ok(vec![])))
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
