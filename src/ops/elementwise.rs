//! Element by element: functions of one tensor. Those of two are in `binary.rs`.

use shadegrad_kernels::compact::Slope;
use shadegrad_kernels::elementwise::{self as k, Unary, UnaryGrad};

use crate::autograd::{Ctx, Keeper};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

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
    pub(super) fn unary(&self, op: &'static str, f: Unary, a: f32, b: f32) -> Result<Tensor> {
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
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, -2.0], &[2])?;
    /// assert_eq!(x.neg()?.to_vec()?, [-1.0, 2.0]);
    /// assert_eq!((-&x)?.to_vec()?, [-1.0, 2.0]); // the same as an operator
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the element type is not `F32` or the device refuses; so for all functions here.
    pub fn neg(&self) -> Result<Tensor> {
        Ok(self.unary("neg", Unary::Neg, 0.0, 0.0)?.record("neg", &[self], |_, grad| Ok(vec![Some(grad.neg()?)])))
    }

    /// `|x|`; the gradient at 0 is 0.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[-3.0, 0.0, 2.0], &[3])?.leaf();
    /// let l1 = x.abs()?.sum_all()?;
    /// assert_eq!((l1.item()?, grad(&l1, &[&x])?[0].to_vec()?), (5.0, vec![-1.0, 0.0, 1.0]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn abs(&self) -> Result<Tensor> {
        self.fused("abs", Unary::Abs, UnaryGrad::Abs, 0.0, 0.0, Tensor::sign)
    }

    /// `e^x`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let y = Tensor::from_slice(&gpu, &[0.0, 1.0], &[2])?.exp()?.to_vec()?;
    /// assert!((y[0] - 1.0).abs() < 1e-5 && (y[1] - 2.718_28).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn exp(&self) -> Result<Tensor> {
        self.by_output("exp", Unary::Exp, |y| Ok(y.clone()))
    }

    /// Natural logarithm.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 4.0], &[2])?.leaf();
    /// let y = x.log()?;
    /// assert!((y.to_vec()?[1] - 1.386_29).abs() < 1e-4);
    /// assert!((grad(&y.sum_all()?, &[&x])?[0].to_vec()?[1] - 0.25).abs() < 1e-5); // 1 / x
    /// # Ok::<(), Error>(())
    /// ```
    pub fn log(&self) -> Result<Tensor> {
        self.by_input("log", Unary::Log, Tensor::recip)
    }

    /// `log(1 + x)`, accurate near 0.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1e-8], &[1])?;
    /// assert!((x.log1p()?.item()? / 1e-8 - 1.0).abs() < 1e-4);
    /// assert_eq!(x.add_scalar(1.0)?.item()?, 1.0); // by `log` nothing would be left of it
    /// # Ok::<(), Error>(())
    /// ```
    pub fn log1p(&self) -> Result<Tensor> {
        self.by_input("log1p", Unary::Log1p, |x| x.add_scalar(1.0)?.recip())
    }

    /// `e^x - 1`, accurate near 0.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1e-8, 1.0], &[2])?.expm1()?.to_vec()?;
    /// assert!((x[0] / 1e-8 - 1.0).abs() < 1e-4 && (x[1] - 1.718_28).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn expm1(&self) -> Result<Tensor> {
        self.by_output("expm1", Unary::Expm1, |y| y.add_scalar(1.0))
    }

    /// Square root.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let v = Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?;
    /// let length = v.square()?.sum(&[1], true)?.sqrt()?;
    /// assert!((length.item()? - 5.0).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sqrt(&self) -> Result<Tensor> {
        self.by_output("sqrt", Unary::Sqrt, |y| y.recip()?.mul_scalar(0.5))
    }

    /// `1 / sqrt(x)`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let v = Tensor::from_slice(&gpu, &[3.0, 4.0], &[1, 2])?;
    /// let unit = v.mul(&v.square()?.sum(&[1], true)?.rsqrt()?)?.to_vec()?;
    /// assert!((unit[0] - 0.6).abs() < 1e-5 && (unit[1] - 0.8).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rsqrt(&self) -> Result<Tensor> {
        self.by_output("rsqrt", Unary::Rsqrt, |y| y.square()?.mul(y)?.mul_scalar(-0.5))
    }

    /// `1 / x`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let y = Tensor::from_slice(&gpu, &[2.0, -4.0], &[2])?.recip()?.to_vec()?;
    /// assert!((y[0] - 0.5).abs() < 1e-6 && (y[1] + 0.25).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn recip(&self) -> Result<Tensor> {
        self.by_output("recip", Unary::Recip, |y| y.square()?.neg())
    }

    /// Sine.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use std::f32::consts::{FRAC_PI_2, FRAC_PI_6};
    /// let y = Tensor::from_slice(&gpu, &[0.0, FRAC_PI_6, FRAC_PI_2], &[3])?.sin()?.to_vec()?;
    /// assert!(y.iter().zip([0.0, 0.5, 1.0]).all(|(y, want)| (y - want).abs() < 1e-3));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sin(&self) -> Result<Tensor> {
        self.by_input("sin", Unary::Sin, Tensor::cos)
    }

    /// Cosine.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let angle = Tensor::from_slice(&gpu, &[0.0, 1.0, 2.0], &[3])?;
    /// let ones = angle.cos()?.square()?.add(&angle.sin()?.square()?)?.to_vec()?;
    /// assert!(ones.iter().all(|v| (v - 1.0).abs() < 2e-3));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn cos(&self) -> Result<Tensor> {
        self.by_input("cos", Unary::Cos, |x| x.sin()?.neg())
    }

    /// Hyperbolic tangent.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[0.0, 1.0, 100.0], &[3])?.leaf();
    /// let y = x.tanh()?;
    /// assert!(y.to_vec()?.iter().zip([0.0, 0.761_59, 1.0]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// let slope = grad(&y.sum_all()?, &[&x])?[0].to_vec()?; // 1 - y^2
    /// assert!(slope.iter().zip([1.0, 0.419_97, 0.0]).all(|(s, want)| (s - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn tanh(&self) -> Result<Tensor> {
        self.fused("tanh", Unary::Tanh, UnaryGrad::Tanh, 0.0, 0.0, |x| x.tanh()?.square()?.neg()?.add_scalar(1.0))
    }

    /// `1 / (1 + e^-x)`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let p = Tensor::from_slice(&gpu, &[-100.0, 0.0, 1.0], &[3])?.sigmoid()?.to_vec()?;
    /// assert!(p.iter().zip([0.0, 0.5, 0.731_06]).all(|(p, want)| (p - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sigmoid(&self) -> Result<Tensor> {
        self.fused("sigmoid", Unary::Sigmoid, UnaryGrad::Sigmoid, 0.0, 0.0, |x| {
            let s = x.sigmoid()?;
            s.sub(&s.square()?)
        })
    }

    /// `log(1 + e^x)`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let y = Tensor::from_slice(&gpu, &[-100.0, 0.0, 100.0], &[3])?.softplus()?.to_vec()?;
    /// assert!(y.iter().zip([0.0, 0.693_15, 100.0]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn softplus(&self) -> Result<Tensor> {
        self.fused("softplus", Unary::Softplus, UnaryGrad::Softplus, 0.0, 0.0, Tensor::sigmoid)
    }

    /// `x * sigmoid(x)` (Elfwing et al., 2017).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[-1.0, 0.0, 2.0], &[3])?;
    /// let (y, product) = (x.silu()?.to_vec()?, x.mul(&x.sigmoid()?)?.to_vec()?);
    /// assert!(y.iter().zip(&product).all(|(a, b)| (a - b).abs() < 1e-5));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn silu(&self) -> Result<Tensor> {
        self.fused("silu", Unary::Silu, UnaryGrad::Silu, 0.0, 0.0, |x| {
            let s = x.sigmoid()?;
            s.add(&x.mul(&s)?.mul(&s.neg()?.add_scalar(1.0)?)?)
        })
    }

    /// `x * tanh(softplus(x))` (Misra, 2019).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let y = Tensor::from_slice(&gpu, &[-1.0, 0.0, 1.0], &[3])?.mish()?.to_vec()?;
    /// assert!(y.iter().zip([-0.303_40, 0.0, 0.865_10]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mish(&self) -> Result<Tensor> {
        self.fused("mish", Unary::Mish, UnaryGrad::Mish, 0.0, 0.0, |x| {
            let t = x.softplus()?.tanh()?;
            let inner = x.mul(&x.sigmoid()?)?.mul(&t.square()?.neg()?.add_scalar(1.0)?)?;
            t.add(&inner)
        })
    }

    /// `x * Phi(x)` with the exact error function (Hendrycks and Gimpel, 2016).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[-1.0, 0.0, 1.0], &[3])?.leaf();
    /// let y = x.gelu()?;
    /// assert!(y.to_vec()?.iter().zip([-0.158_66, 0.0, 0.841_34]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// assert!((grad(&y.sum_all()?, &[&x])?[0].to_vec()?[1] - 0.5).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gelu(&self) -> Result<Tensor> {
        self.fused("gelu", Unary::Gelu, UnaryGrad::Gelu, 0.0, 0.0, |x| {
            let cdf = x.mul_scalar(std::f32::consts::FRAC_1_SQRT_2)?.erf()?.add_scalar(1.0)?.mul_scalar(0.5)?;
            let pdf = x.square()?.mul_scalar(-0.5)?.exp()?.mul_scalar(0.398_942_3)?;
            cdf.add(&x.mul(&pdf)?)
        })
    }

    /// The tanh approximation of [`Tensor::gelu`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[-2.0, -0.5, 1.0], &[3])?;
    /// let (near, exact) = (x.gelu_tanh()?.to_vec()?, x.gelu()?.to_vec()?);
    /// assert!(near.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 5e-4));
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[-2.0, 3.0], &[2])?.leaf();
    /// let y = x.leaky_relu(0.25)?;
    /// assert_eq!(y.to_vec()?, [-0.5, 3.0]);
    /// assert_eq!(grad(&y.sum_all()?, &[&x])?[0].to_vec()?, [0.25, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn leaky_relu(&self, slope: f32) -> Result<Tensor> {
        self.fused("leaky_relu", Unary::LeakyRelu, UnaryGrad::LeakyRelu, slope, 0.0, move |x| {
            x.gt_scalar(0.0)?.mul_scalar(1.0 - slope)?.add_scalar(slope)
        })
    }

    /// `x` where positive, `alpha * (e^x - 1)` elsewhere (Clevert et al., 2015).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let y = Tensor::from_slice(&gpu, &[-1.0, 0.0, 2.0], &[3])?.elu(1.0)?.to_vec()?;
    /// assert!(y.iter().zip([-0.632_12, 0.0, 2.0]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn elu(&self, alpha: f32) -> Result<Tensor> {
        self.fused("elu", Unary::Elu, UnaryGrad::Elu, alpha, 0.0, move |x| {
            let negative = x.clamp(f32::MIN, 0.0)?.exp()?.mul_scalar(alpha)?;
            x.gt_scalar(0.0)?.select(&Tensor::scalar(x.gpu(), 1.0)?, &negative)
        })
    }

    /// The error function.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let y = Tensor::from_slice(&gpu, &[-1.0, 0.0, 3.0], &[3])?.erf()?.to_vec()?;
    /// assert!(y.iter().zip([-0.842_70, 0.0, 0.999_98]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn erf(&self) -> Result<Tensor> {
        self.by_input("erf", Unary::Erf, |x| x.square()?.neg()?.exp()?.mul_scalar(std::f32::consts::FRAC_2_SQRT_PI))
    }

    /// `x^2`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[3.0, -1.0], &[2])?.leaf();
    /// let loss = x.square()?.sum_all()?;
    /// assert_eq!((loss.item()?, grad(&loss, &[&x])?[0].to_vec()?), (10.0, vec![6.0, -2.0]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn square(&self) -> Result<Tensor> {
        self.fused("square", Unary::Square, UnaryGrad::Square, 0.0, 0.0, |x| x.mul_scalar(2.0))
    }

    /// `x` raised to the constant `p`. Negative bases follow C's `powf`: a number for whole `p`, NaN otherwise;
    /// `x^0` is 1.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[2.0, -2.0, 9.0], &[3])?;
    /// let (cubes, roots) = (x.powf(3.0)?.to_vec()?, x.powf(0.5)?.to_vec()?);
    /// assert!((cubes[0] - 8.0).abs() < 1e-4 && (cubes[1] + 8.0).abs() < 1e-4);
    /// assert!(roots[1].is_nan() && (roots[2] - 3.0).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?;
    /// assert_eq!(x.add_scalar(-0.5)?.to_vec()?, [0.5, 1.5]);
    /// assert_eq!(x.neg()?.add_scalar(1.0)?.to_vec()?, [0.0, -1.0]); // 1 - x
    /// # Ok::<(), Error>(())
    /// ```
    pub fn add_scalar(&self, c: f32) -> Result<Tensor> {
        let out = self.unary("add_scalar", Unary::AddScalar, c, 0.0)?;
        Ok(out.record("add_scalar", &[self], |_, grad| Ok(vec![Some(grad.clone())])))
    }

    /// `x * c`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?.leaf();
    /// let y = x.mul_scalar(0.5)?;
    /// assert_eq!((y.to_vec()?, grad(&y.sum_all()?, &[&x])?[0].to_vec()?), (vec![0.5, 1.0], vec![0.5, 0.5]));
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[-0.5, 0.0, 7.0], &[3])?;
    /// assert_eq!(x.sign()?.to_vec()?, [-1.0, 0.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sign(&self) -> Result<Tensor> {
        Ok(self.unary("sign", Unary::Sign, 0.0, 0.0)?.record_cut("sign", &[self]))
    }

    /// The next whole number below. No gradient; see [`Tensor::straight_through`].
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.7, -0.2], &[2])?;
    /// assert_eq!(x.floor()?.to_vec()?, [1.0, -1.0]);
    /// assert!(!x.leaf().floor()?.requires_grad());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn floor(&self) -> Result<Tensor> {
        Ok(self.unary("floor", Unary::Floor, 0.0, 0.0)?.record_cut("floor", &[self]))
    }

    /// The next whole number above. No gradient.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.2, -0.7], &[2])?;
    /// assert_eq!(x.ceil()?.to_vec()?, [2.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn ceil(&self) -> Result<Tensor> {
        Ok(self.unary("ceil", Unary::Ceil, 0.0, 0.0)?.record_cut("ceil", &[self]))
    }

    /// The nearest whole number, halves to even. No gradient.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[0.4, 0.5, 1.5, 2.5], &[4])?;
    /// assert_eq!(x.round()?.to_vec()?, [0.0, 0.0, 2.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn round(&self) -> Result<Tensor> {
        Ok(self.unary("round", Unary::Round, 0.0, 0.0)?.record_cut("round", &[self]))
    }

    /// 1 where the element is NaN, 0 elsewhere, by its bits (drivers may assume that NaN does not exist).
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[f32::NAN, f32::INFINITY, 1.0], &[3])?;
    /// assert_eq!(x.is_nan()?.to_vec()?, [1.0, 0.0, 0.0]);
    /// assert_eq!(x.is_nan()?.select(&Tensor::scalar(&gpu, 0.0)?, &x)?.to_vec()?, [0.0, f32::INFINITY, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_nan(&self) -> Result<Tensor> {
        Ok(self.unary("is_nan", Unary::IsNan, 0.0, 0.0)?.record_cut("is_nan", &[self]))
    }

    /// 1 where the element is neither NaN nor infinite, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[f32::NAN, f32::INFINITY, 1.0], &[3])?;
    /// assert_eq!(x.is_finite()?.to_vec()?, [0.0, 0.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_finite(&self) -> Result<Tensor> {
        Ok(self.unary("is_finite", Unary::IsFinite, 0.0, 0.0)?.record_cut("is_finite", &[self]))
    }
}
