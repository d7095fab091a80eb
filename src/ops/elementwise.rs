//! Element by element: unary and binary functions with numpy's broadcasting, comparisons and selection.

use std::ops;

use shadegrad_kernels::cast::Cast;
use shadegrad_kernels::compact::Slope;
use shadegrad_kernels::elementwise::{self as k, Binary, Unary, UnaryGrad};

use crate::autograd::{Ctx, Keeper};
use crate::error::{Error, Result};
use crate::tensor::{DType, MAX_RANK, Tensor};

/// The shape that numpy's rules give for two operands: aligned to the right, lengths equal or one.
pub(crate) fn broadcast_shape(op: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    let mut out = Vec::with_capacity(rank);
    for i in 0..rank {
        out.push(match (at(a, i), at(b, i)) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            (x, y) => {
                return Err(Error::shape(
                    op,
                    format!(
                        "{a:?} and {b:?} do not broadcast: {x} against {y} in dimension {i} of {rank}, counted from the \
                         left after aligning to the right; lengths must be equal or one"
                    ),
                ));
            }
        });
    }
    if rank > MAX_RANK {
        return Err(Error::shape(op, format!("{out:?} has {rank} dimensions, at most {MAX_RANK} work")));
    }
    Ok(out)
}

/// Functions between layers, whose inputs mixed precision keeps as halves. The others may be part of a loss.
fn is_activation(f: Unary) -> bool {
    matches!(f, Unary::Relu | Unary::LeakyRelu | Unary::Gelu | Unary::GeluTanh | Unary::Silu)
}

/// The functions whose slope comes straight from an input in few bits. Not ReLU and its like: what they need of an input
/// is its sign, which is lost near 0.
fn packed_slope(df: UnaryGrad) -> Option<Slope> {
    match df {
        UnaryGrad::Gelu => Some(Slope::Gelu),
        UnaryGrad::GeluTanh => Some(Slope::GeluTanh),
        UnaryGrad::Silu => Some(Slope::Silu),
        _ => None,
    }
}

impl Tensor {
    fn unary(&self, op: &'static str, f: Unary, a: f32, b: f32) -> Result<Tensor> {
        self.want(op, DType::F32)?;
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, op)?;
        if out.numel() > 0 {
            k::unary(self.gpu(), f, self.storage(), out.storage(), out.numel(), a, b)?;
        }
        Ok(out)
    }

    /// `grad * f'(self)` in one kernel, not differentiable again.
    fn unary_grad(&self, op: &'static str, f: UnaryGrad, grad: &Tensor, a: f32, b: f32) -> Result<Tensor> {
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, op)?;
        if out.numel() > 0 {
            let n = out.numel();
            k::unary_grad(self.gpu(), f, self.storage(), grad.storage(), out.storage(), n, a, b)?;
        }
        Ok(out)
    }

    /// A unary function with a fused gradient and, for when that must be differentiable, its slope from tensor
    /// operations.
    fn fused<S>(&self, op: &'static str, f: Unary, df: UnaryGrad, a: f32, b: f32, slope: S) -> Result<Tensor>
    where
        S: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    {
        let keep = Keeper::new(op, &[self]);
        let packed = packed_slope(df).filter(|_| keep.compact().is_some_and(|c| c.activation.is_some()));
        let x = match keep.compact().and_then(|c| c.activation) {
            Some(how) if packed.is_some() => keep.packed("input", self, how)?,
            _ if is_activation(f) => keep.half("input", self)?,
            _ => keep.whole("input", self),
        };
        Ok(self.unary(op, f, a, b)?.record(op, &[self], move |ctx, grad| {
            if let (Some(df), Some((words, how))) = (packed, x.words(ctx)?) {
                return Ok(vec![Some(words.packed_slope(how, df, grad)?)]);
            }
            let x = x.floats(ctx)?;
            let dx = if ctx.create_graph() { grad.mul(&slope(&x)?)? } else { x.unary_grad(op, df, grad, a, b)? };
            Ok(vec![Some(dx)])
        }))
    }

    /// A unary function whose slope is computed from its input.
    fn by_input<S>(&self, op: &'static str, f: Unary, slope: S) -> Result<Tensor>
    where
        S: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    {
        let x = Keeper::new(op, &[self]).whole("input", self);
        let rule = move |ctx: &Ctx, grad: &Tensor| Ok(vec![Some(grad.mul(&slope(&x.get(ctx)?)?)?)]);
        Ok(self.unary(op, f, 0.0, 0.0)?.record(op, &[self], rule))
    }

    /// A unary function whose slope is computed from its result.
    fn by_output<S>(&self, op: &'static str, f: Unary, slope: S) -> Result<Tensor>
    where
        S: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    {
        let out = self.unary(op, f, 0.0, 0.0)?;
        let saved = Keeper::new(op, &[self]).whole("result", &out.detach());
        let rule = move |ctx: &Ctx, grad: &Tensor| Ok(vec![Some(grad.mul(&slope(&ctx.output(&saved.get(ctx)?))?)?)]);
        Ok(out.record(op, &[self], rule))
    }

    /// `-x`.
    ///
    /// # Errors
    /// If the element type is not `F32` or the device refuses; so for all functions here.
    pub fn neg(&self) -> Result<Tensor> {
        Ok(self.unary("neg", Unary::Neg, 0.0, 0.0)?.record("neg", &[self], |_, grad| Ok(vec![Some(grad.neg()?)])))
    }

    /// `|x|`; the gradient at 0 is 0.
    pub fn abs(&self) -> Result<Tensor> {
        self.fused("abs", Unary::Abs, UnaryGrad::Abs, 0.0, 0.0, Tensor::sign)
    }

    /// `e^x`.
    pub fn exp(&self) -> Result<Tensor> {
        self.by_output("exp", Unary::Exp, |y| Ok(y.clone()))
    }

    /// Natural logarithm.
    pub fn log(&self) -> Result<Tensor> {
        self.by_input("log", Unary::Log, Tensor::recip)
    }

    /// `log(1 + x)`, accurate near 0.
    pub fn log1p(&self) -> Result<Tensor> {
        self.by_input("log1p", Unary::Log1p, |x| x.add_scalar(1.0)?.recip())
    }

    /// `e^x - 1`, accurate near 0.
    pub fn expm1(&self) -> Result<Tensor> {
        self.by_output("expm1", Unary::Expm1, |y| y.add_scalar(1.0))
    }

    /// Square root.
    pub fn sqrt(&self) -> Result<Tensor> {
        self.by_output("sqrt", Unary::Sqrt, |y| y.recip()?.mul_scalar(0.5))
    }

    /// `1 / sqrt(x)`.
    pub fn rsqrt(&self) -> Result<Tensor> {
        self.by_output("rsqrt", Unary::Rsqrt, |y| y.square()?.mul(y)?.mul_scalar(-0.5))
    }

    /// `1 / x`.
    pub fn recip(&self) -> Result<Tensor> {
        self.by_output("recip", Unary::Recip, |y| y.square()?.neg())
    }

    /// Sine.
    pub fn sin(&self) -> Result<Tensor> {
        self.by_input("sin", Unary::Sin, Tensor::cos)
    }

    /// Cosine.
    pub fn cos(&self) -> Result<Tensor> {
        self.by_input("cos", Unary::Cos, |x| x.sin()?.neg())
    }

    /// Hyperbolic tangent.
    pub fn tanh(&self) -> Result<Tensor> {
        self.fused("tanh", Unary::Tanh, UnaryGrad::Tanh, 0.0, 0.0, |x| x.tanh()?.square()?.neg()?.add_scalar(1.0))
    }

    /// `1 / (1 + e^-x)`.
    pub fn sigmoid(&self) -> Result<Tensor> {
        self.fused("sigmoid", Unary::Sigmoid, UnaryGrad::Sigmoid, 0.0, 0.0, |x| {
            let s = x.sigmoid()?;
            s.sub(&s.square()?)
        })
    }

    /// `log(1 + e^x)`.
    pub fn softplus(&self) -> Result<Tensor> {
        self.fused("softplus", Unary::Softplus, UnaryGrad::Softplus, 0.0, 0.0, Tensor::sigmoid)
    }

    /// `x * sigmoid(x)` (Elfwing et al., 2017).
    pub fn silu(&self) -> Result<Tensor> {
        self.fused("silu", Unary::Silu, UnaryGrad::Silu, 0.0, 0.0, |x| {
            let s = x.sigmoid()?;
            s.add(&x.mul(&s)?.mul(&s.neg()?.add_scalar(1.0)?)?)
        })
    }

    /// `x * tanh(softplus(x))` (Misra, 2019).
    pub fn mish(&self) -> Result<Tensor> {
        self.fused("mish", Unary::Mish, UnaryGrad::Mish, 0.0, 0.0, |x| {
            let t = x.softplus()?.tanh()?;
            let inner = x.mul(&x.sigmoid()?)?.mul(&t.square()?.neg()?.add_scalar(1.0)?)?;
            t.add(&inner)
        })
    }

    /// `x * Phi(x)` with the exact error function (Hendrycks and Gimpel, 2016).
    pub fn gelu(&self) -> Result<Tensor> {
        self.fused("gelu", Unary::Gelu, UnaryGrad::Gelu, 0.0, 0.0, |x| {
            let cdf = x.mul_scalar(std::f32::consts::FRAC_1_SQRT_2)?.erf()?.add_scalar(1.0)?.mul_scalar(0.5)?;
            let pdf = x.square()?.mul_scalar(-0.5)?.exp()?.mul_scalar(0.398_942_3)?;
            cdf.add(&x.mul(&pdf)?)
        })
    }

    /// The tanh approximation of [`Tensor::gelu`].
    pub fn gelu_tanh(&self) -> Result<Tensor> {
        self.fused("gelu_tanh", Unary::GeluTanh, UnaryGrad::GeluTanh, 0.0, 0.0, |x| {
            const C: f32 = 0.797_884_6;
            let x2 = x.square()?;
            let t = x.mul(&x2.mul_scalar(0.044_715)?.add_scalar(1.0)?)?.mul_scalar(C)?.tanh()?;
            let inner = x2.mul_scalar(3.0 * 0.044_715)?.add_scalar(1.0)?.mul_scalar(0.5 * C)?;
            let sech2 = t.square()?.neg()?.add_scalar(1.0)?;
            t.add_scalar(1.0)?.mul_scalar(0.5)?.add(&x.mul(&sech2)?.mul(&inner)?)
        })
    }

    /// `max(x, 0)`; NaN stays NaN; the gradient at 0 is 0.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::from_slice(&gpu, &[-1.0, 2.0], &[2])?.relu()?.to_vec()?, [0.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn relu(&self) -> Result<Tensor> {
        self.fused("relu", Unary::Relu, UnaryGrad::Relu, 0.0, 0.0, |x| x.gt_scalar(0.0))
    }

    /// `x` where positive, `slope * x` elsewhere.
    pub fn leaky_relu(&self, slope: f32) -> Result<Tensor> {
        self.fused("leaky_relu", Unary::LeakyRelu, UnaryGrad::LeakyRelu, slope, 0.0, move |x| {
            x.gt_scalar(0.0)?.mul_scalar(1.0 - slope)?.add_scalar(slope)
        })
    }

    /// `x` where positive, `alpha * (e^x - 1)` elsewhere (Clevert et al., 2015).
    pub fn elu(&self, alpha: f32) -> Result<Tensor> {
        self.fused("elu", Unary::Elu, UnaryGrad::Elu, alpha, 0.0, move |x| {
            let negative = x.clamp(f32::MIN, 0.0)?.exp()?.mul_scalar(alpha)?;
            x.gt_scalar(0.0)?.select(&Tensor::scalar(x.gpu(), 1.0)?, &negative)
        })
    }

    /// The error function.
    pub fn erf(&self) -> Result<Tensor> {
        self.by_input("erf", Unary::Erf, |x| x.square()?.neg()?.exp()?.mul_scalar(std::f32::consts::FRAC_2_SQRT_PI))
    }

    /// `x^2`.
    pub fn square(&self) -> Result<Tensor> {
        self.fused("square", Unary::Square, UnaryGrad::Square, 0.0, 0.0, |x| x.mul_scalar(2.0))
    }

    /// `x` raised to the constant `p`. Negative bases follow C's `powf`: a number for whole `p`, NaN otherwise;
    /// `x^0` is 1.
    pub fn powf(&self, p: f32) -> Result<Tensor> {
        let x = self.clone();
        Ok(self.unary("powf", Unary::Powf, p, 0.0)?.record("powf", &[self], move |_, grad| {
            if p == 0.0 {
                return Ok(vec![Some(Tensor::zeros(x.gpu(), x.shape())?)]);
            }
            Ok(vec![Some(grad.mul(&x.powf(p - 1.0)?.mul_scalar(p)?)?)])
        }))
    }

    /// `x + c`.
    pub fn add_scalar(&self, c: f32) -> Result<Tensor> {
        let out = self.unary("add_scalar", Unary::AddScalar, c, 0.0)?;
        Ok(out.record("add_scalar", &[self], |_, grad| Ok(vec![Some(grad.clone())])))
    }

    /// `x * c`.
    pub fn mul_scalar(&self, c: f32) -> Result<Tensor> {
        let out = self.unary("mul_scalar", Unary::MulScalar, c, 0.0)?;
        Ok(out.record("mul_scalar", &[self], move |_, grad| Ok(vec![Some(grad.mul_scalar(c)?)])))
    }

    /// `x` held within `lo..=hi`; the gradient is 0 outside. NaN stays NaN.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::from_slice(&gpu, &[-3.0, 0.5, 3.0], &[3])?.clamp(-1.0, 1.0)?.to_vec()?, [-1.0, 0.5, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn clamp(&self, lo: f32, hi: f32) -> Result<Tensor> {
        if lo.is_nan() || hi.is_nan() || lo > hi {
            return Err(Error::value("clamp", format!("the range {lo}..={hi} is empty; swap its ends")));
        }
        self.fused("clamp", Unary::Clamp, UnaryGrad::Clamp, lo, hi, move |x| x.ge_scalar(lo)?.mul(&x.le_scalar(hi)?))
    }

    /// -1, 0 or 1. No gradient.
    pub fn sign(&self) -> Result<Tensor> {
        Ok(self.unary("sign", Unary::Sign, 0.0, 0.0)?.record_cut("sign", &[self]))
    }

    /// The next whole number below. No gradient; see [`Tensor::straight_through`].
    pub fn floor(&self) -> Result<Tensor> {
        Ok(self.unary("floor", Unary::Floor, 0.0, 0.0)?.record_cut("floor", &[self]))
    }

    /// The next whole number above. No gradient.
    pub fn ceil(&self) -> Result<Tensor> {
        Ok(self.unary("ceil", Unary::Ceil, 0.0, 0.0)?.record_cut("ceil", &[self]))
    }

    /// The nearest whole number, halves to even. No gradient.
    pub fn round(&self) -> Result<Tensor> {
        Ok(self.unary("round", Unary::Round, 0.0, 0.0)?.record_cut("round", &[self]))
    }

    /// 1 where the element is NaN, 0 elsewhere, by its bits (drivers may assume that NaN does not exist).
    pub fn is_nan(&self) -> Result<Tensor> {
        Ok(self.unary("is_nan", Unary::IsNan, 0.0, 0.0)?.record_cut("is_nan", &[self]))
    }

    /// 1 where the element is neither NaN nor infinite, 0 elsewhere.
    pub fn is_finite(&self) -> Result<Tensor> {
        Ok(self.unary("is_finite", Unary::IsFinite, 0.0, 0.0)?.record_cut("is_finite", &[self]))
    }

    fn binary(&self, op: &'static str, f: Binary, other: &Tensor) -> Result<Tensor> {
        self.want(op, DType::F32)?;
        other.want(op, DType::F32)?;
        self.same_gpu(op, other)?;
        let shape = broadcast_shape(op, self.shape(), other.shape())?;
        let out = Tensor::empty(self.gpu(), &shape, DType::F32, op)?;
        if out.numel() > 0 {
            let (x, y) = ((self.storage(), self.shape()), (other.storage(), other.shape()));
            k::binary(self.gpu(), f, x, y, out.storage(), &shape)?;
        }
        Ok(out)
    }

    /// `x + y`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let rows = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2, 1])?;
    /// let columns = Tensor::from_slice(&gpu, &[10.0, 20.0, 30.0], &[3])?;
    /// assert_eq!(rows.add(&columns)?.to_vec()?, [11.0, 21.0, 31.0, 12.0, 22.0, 32.0]); // [2, 3]
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not broadcast; so for all binary functions.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        let (a, b) = (self.shape().to_vec(), other.shape().to_vec());
        Ok(self.binary("add", Binary::Add, other)?.record("add", &[self, other], move |ctx, grad| {
            Ok(vec![
                ctx.needs(0).then(|| grad.sum_to(&a)).transpose()?,
                ctx.needs(1).then(|| grad.sum_to(&b)).transpose()?,
            ])
        }))
    }

    /// `x - y`.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        let (a, b) = (self.shape().to_vec(), other.shape().to_vec());
        Ok(self.binary("sub", Binary::Sub, other)?.record("sub", &[self, other], move |ctx, grad| {
            Ok(vec![
                ctx.needs(0).then(|| grad.sum_to(&a)).transpose()?,
                ctx.needs(1).then(|| grad.sum_to(&b)?.neg()).transpose()?,
            ])
        }))
    }

    /// `x * y`.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        // Each factor is needed for the gradient of the other alone.
        let keep = Keeper::new("mul", &[self, other]);
        let x = keep.whole_if(other.requires_grad(), "left", self);
        let y = keep.whole_if(self.requires_grad(), "right", other);
        Ok(self.binary("mul", Binary::Mul, other)?.record("mul", &[self, other], move |ctx, grad| {
            Ok(vec![
                ctx.needs(0).then(|| grad.mul(&y.get(ctx)?)?.sum_to(x.shape())).transpose()?,
                ctx.needs(1).then(|| grad.mul(&x.get(ctx)?)?.sum_to(y.shape())).transpose()?,
            ])
        }))
    }

    /// `x / y`.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        let keep = Keeper::new("div", &[self, other]);
        let x = keep.whole_if(other.requires_grad(), "left", self);
        let y = keep.whole("right", other);
        Ok(self.binary("div", Binary::Div, other)?.record("div", &[self, other], move |ctx, grad| {
            let y = y.get(ctx)?;
            let dx = grad.div(&y)?;
            Ok(vec![
                ctx.needs(0).then(|| dx.sum_to(x.shape())).transpose()?,
                ctx.needs(1).then(|| dx.mul(&x.get(ctx)?.div(&y)?)?.neg()?.sum_to(y.shape())).transpose()?,
            ])
        }))
    }

    /// `x^y`. The gradient for `y` is that of `x^y = e^(y log x)` and is 0 where `x` is not positive.
    pub fn pow(&self, other: &Tensor) -> Result<Tensor> {
        let (x, y) = (self.clone(), other.clone());
        Ok(self.binary("pow", Binary::Pow, other)?.record("pow", &[self, other], move |ctx, grad| {
            // By selection: at 0^0 the slope is 0, not 0 * infinity.
            let dx = || {
                let slope = y.mul(&x.pow(&y.add_scalar(-1.0)?)?)?;
                grad.mul(&y.ne_scalar(0.0)?.select(&slope, &Tensor::scalar(y.gpu(), 0.0)?)?)?.sum_to(x.shape())
            };
            let dy = || {
                // log of 1 where x is not positive: the gradient there is 0, and must be finite.
                let safe = x.gt_scalar(0.0)?.select(&x, &Tensor::scalar(x.gpu(), 1.0)?)?;
                grad.mul(&x.pow(&y)?)?.mul(&safe.log()?)?.sum_to(y.shape())
            };
            Ok(vec![ctx.needs(0).then(dx).transpose()?, ctx.needs(1).then(dy).transpose()?])
        }))
    }

    /// The larger of two; NaN wins. Where they are equal each gets half of the gradient.
    pub fn maximum(&self, other: &Tensor) -> Result<Tensor> {
        self.extremum("maximum", Binary::Maximum, Binary::Gt, other)
    }

    /// The smaller of two; NaN wins. Where they are equal each gets half of the gradient.
    pub fn minimum(&self, other: &Tensor) -> Result<Tensor> {
        self.extremum("minimum", Binary::Minimum, Binary::Lt, other)
    }

    fn extremum(&self, op: &'static str, f: Binary, beats: Binary, other: &Tensor) -> Result<Tensor> {
        let (x, y) = (self.clone(), other.clone());
        Ok(self.binary(op, f, other)?.record(op, &[self, other], move |ctx, grad| {
            let half = x.binary(op, Binary::Eq, &y)?.mul_scalar(0.5)?;
            let dx = || grad.mul(&x.binary(op, beats, &y)?.add(&half)?)?.sum_to(x.shape());
            let dy = || grad.mul(&y.binary(op, beats, &x)?.add(&half)?)?.sum_to(y.shape());
            Ok(vec![ctx.needs(0).then(dx).transpose()?, ctx.needs(1).then(dy).transpose()?])
        }))
    }

    fn compare(&self, op: &'static str, f: Binary, other: &Tensor) -> Result<Tensor> {
        Ok(self.binary(op, f, other)?.record_cut(op, &[self, other]))
    }

    /// 1 where `x > y`, 0 elsewhere. No gradient; so for all comparisons.
    pub fn gt(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("gt", Binary::Gt, other)
    }

    /// 1 where `x >= y`, 0 elsewhere.
    pub fn ge(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("ge", Binary::Ge, other)
    }

    /// 1 where `x < y`, 0 elsewhere.
    pub fn lt(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("lt", Binary::Lt, other)
    }

    /// 1 where `x <= y`, 0 elsewhere.
    pub fn le(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("le", Binary::Le, other)
    }

    /// 1 where `x = y`, 0 elsewhere.
    pub fn eq(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("eq", Binary::Eq, other)
    }

    /// 1 where `x` and `y` differ, 0 elsewhere.
    pub fn ne(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("ne", Binary::Ne, other)
    }

    fn compare_scalar(&self, op: &'static str, f: Unary, c: f32) -> Result<Tensor> {
        Ok(self.unary(op, f, c, 0.0)?.record_cut(op, &[self]))
    }

    /// 1 where `x > c`, 0 elsewhere. No gradient; so for all comparisons.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3])?.gt_scalar(1.5)?.to_vec()?, [0.0, 1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gt_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("gt_scalar", Unary::GtScalar, c)
    }

    /// 1 where `x >= c`, 0 elsewhere.
    pub fn ge_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("ge_scalar", Unary::GeScalar, c)
    }

    /// 1 where `x < c`, 0 elsewhere.
    pub fn lt_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("lt_scalar", Unary::LtScalar, c)
    }

    /// 1 where `x <= c`, 0 elsewhere.
    pub fn le_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("le_scalar", Unary::LeScalar, c)
    }

    /// 1 where `x = c`, 0 elsewhere.
    pub fn eq_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("eq_scalar", Unary::EqScalar, c)
    }

    /// 1 where `x` and `c` differ, 0 elsewhere.
    pub fn ne_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("ne_scalar", Unary::NeScalar, c)
    }

    /// `a` where this tensor is not 0, `b` elsewhere; all three broadcast. What is not chosen cannot leak into the result
    /// or its gradient, be it NaN. No gradient flows to the condition.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[-2.0, 3.0], &[2])?;
    /// assert_eq!(x.gt_scalar(0.0)?.select(&x, &x.mul_scalar(0.5)?)?.to_vec()?, [-1.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not broadcast.
    pub fn select(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let op = "select";
        for t in [self, a, b] {
            t.want(op, DType::F32)?;
            self.same_gpu(op, t)?;
        }
        let shape = broadcast_shape(op, &broadcast_shape(op, self.shape(), a.shape())?, b.shape())?;
        let out = Tensor::empty(self.gpu(), &shape, DType::F32, op)?;
        if out.numel() > 0 {
            let mut inputs = [self.detach(), a.detach(), b.detach()];
            if !k::select_fits([self.shape(), a.shape(), b.shape()], &shape) {
                for t in &mut inputs {
                    *t = t.broadcast_to(&shape)?;
                }
            }
            let [c, x, y] = [&inputs[0], &inputs[1], &inputs[2]].map(|t| (t.storage(), t.shape()));
            k::select(self.gpu(), [c, x, y], out.storage(), &shape)?;
        }
        let (cond, ashape, bshape) = (self.detach(), a.shape().to_vec(), b.shape().to_vec());
        Ok(out.record(op, &[self, a, b], move |ctx, grad| {
            let zero = Tensor::scalar(grad.gpu(), 0.0)?;
            let da = || cond.select(grad, &zero)?.sum_to(&ashape);
            let db = || cond.select(&zero, grad)?.sum_to(&bshape);
            Ok(vec![None, ctx.needs(1).then(da).transpose()?, ctx.needs(2).then(db).transpose()?])
        }))
    }

    /// The same values as another element type. To `U8` and `U32` the fraction is cut off and the range enforced; to `F16`
    /// rounded. Gradients flow between the two float types and are `F32` whatever the tensor's type.
    ///
    /// # Errors
    /// If there is no such conversion.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        let how = match (self.dtype(), dtype) {
            (a, b) if a == b => return Ok(self.clone()),
            (DType::F32, DType::F16) => Cast::F32ToF16,
            (DType::F16, DType::F32) => Cast::F16ToF32,
            (DType::F32, DType::U8) => Cast::F32ToU8,
            (DType::U8, DType::F32) => Cast::U8ToF32,
            (DType::F32, DType::U32) => Cast::F32ToU32,
            (DType::U32, DType::F32) => Cast::U32ToF32,
            (DType::U8, DType::U32) => Cast::U8ToU32,
            (DType::U32, DType::U8) => Cast::U32ToU8,
            (from, to) => {
                return Err(Error::DType { op: "cast", detail: format!("no way from {from:?} to {to:?}; go by F32") });
            }
        };
        let out = Tensor::empty(self.gpu(), self.shape(), dtype, "cast")?;
        if out.numel() > 0 {
            shadegrad_kernels::cast::cast(self.gpu(), how, self.storage(), out.storage(), out.numel())?;
        }
        if matches!(how, Cast::F32ToF16 | Cast::F16ToF32) {
            return Ok(out.record("cast", &[self], |_, grad| Ok(vec![Some(grad.clone())])));
        }
        Ok(out.record_cut("cast", &[self]))
    }
}

/// Operators are the methods of the same name and give the same errors: `(&a + &b)?`.
macro_rules! operator {
    ($trait:ident, $method:ident) => {
        impl ops::$trait<&Tensor> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, other: &Tensor) -> Result<Tensor> {
                Tensor::$method(self, other)
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl ops::Neg for &Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        Tensor::neg(self)
    }
}
