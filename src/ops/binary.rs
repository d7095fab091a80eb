//! Element by element with two operands or more, by numpy's broadcasting: arithmetic, comparisons and selection; also other
//! element types.

use std::ops;

use shadegrad_kernels::cast::Cast;
use shadegrad_kernels::elementwise::{self as k, Binary, Unary};

use crate::autograd::Keeper;
use crate::error::{Error, Result};
use crate::tensor::{DType, MAX_RANK, Shape, Tensor};

/// The shape that numpy's rules give for two operands: aligned to the right, lengths equal or one.
pub(crate) fn broadcast_shape(op: &'static str, a: &[usize], b: &[usize]) -> Result<Shape> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    let mut out = Shape::new();
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

impl Tensor {
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
        let (a, b) = (Shape::from_slice(self.shape()), Shape::from_slice(other.shape()));
        Ok(self.binary("add", Binary::Add, other)?.record("add", &[self, other], move |ctx, grad| {
            Ok(vec![
                ctx.needs(0).then(|| grad.sum_to(&a)).transpose()?,
                ctx.needs(1).then(|| grad.sum_to(&b)).transpose()?,
            ])
        }))
    }

    /// `x - y`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let (x, mean) = (Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3])?, Tensor::full(&gpu, &[1], 2.0)?.leaf());
    /// let centred = x.sub(&mean)?;
    /// assert_eq!(centred.to_vec()?, [-1.0, 0.0, 1.0]);
    /// assert_eq!(grad(&centred.sum_all()?, &[&mean])?[0].to_vec()?, [-3.0]); // summed over what it was repeated for
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
    /// let scale = Tensor::from_slice(&gpu, &[10.0, 0.5], &[2])?.leaf(); // for each column
    /// let y = x.mul(&scale)?;
    /// assert_eq!(y.to_vec()?, [10.0, 1.0, 30.0, 2.0]);
    /// assert_eq!(grad(&y.sum_all()?, &[&scale])?[0].to_vec()?, [4.0, 6.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let counts = Tensor::from_slice(&gpu, &[1.0, 3.0, 2.0, 2.0], &[2, 2])?;
    /// let shares = counts.div(&counts.sum(&[1], true)?)?.to_vec()?;
    /// assert!(shares.iter().zip([0.25, 0.75, 0.5, 0.5]).all(|(s, want)| (s - want).abs() < 1e-6));
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (x, y) = (Tensor::from_slice(&gpu, &[2.0, 9.0], &[2])?, Tensor::from_slice(&gpu, &[3.0, 0.5], &[2])?);
    /// let powers = x.pow(&y)?.to_vec()?;
    /// assert!((powers[0] - 8.0).abs() < 1e-4 && (powers[1] - 3.0).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let (x, y) = (Tensor::from_slice(&gpu, &[1.0, 5.0, 2.0], &[3])?.leaf(), Tensor::full(&gpu, &[], 2.0)?);
    /// let larger = x.maximum(&y)?;
    /// assert_eq!(larger.to_vec()?, [2.0, 5.0, 2.0]);
    /// assert_eq!(grad(&larger.sum_all()?, &[&x])?[0].to_vec()?, [0.0, 1.0, 0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn maximum(&self, other: &Tensor) -> Result<Tensor> {
        self.extremum("maximum", Binary::Maximum, Binary::Gt, other)
    }

    /// The smaller of two; NaN wins. Where they are equal each gets half of the gradient.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (x, y) = (Tensor::from_slice(&gpu, &[1.0, 5.0], &[2])?, Tensor::from_slice(&gpu, &[3.0, 4.0], &[2])?);
    /// assert_eq!(x.minimum(&y)?.to_vec()?, [1.0, 4.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (x, y) = (Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3])?, Tensor::full(&gpu, &[], 2.0)?);
    /// assert_eq!(x.gt(&y)?.to_vec()?, [0.0, 0.0, 1.0]);
    /// assert_eq!(x.mul(&x.gt(&y)?)?.sum_all()?.item()?, 3.0); // the sum of those above
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gt(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("gt", Binary::Gt, other)
    }

    /// 1 where `x >= y`, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (x, y) = (Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3])?, Tensor::full(&gpu, &[], 2.0)?);
    /// assert_eq!(x.ge(&y)?.to_vec()?, [0.0, 1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn ge(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("ge", Binary::Ge, other)
    }

    /// 1 where `x < y`, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let rows = Tensor::from_slice(&gpu, &[0.0, 1.0, 2.0], &[3, 1])?;
    /// let lengths = Tensor::from_slice(&gpu, &[1.0, 3.0], &[2])?;
    /// assert_eq!(rows.lt(&lengths)?.to_vec()?, [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]); // a padding mask [3, 2]
    /// # Ok::<(), Error>(())
    /// ```
    pub fn lt(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("lt", Binary::Lt, other)
    }

    /// 1 where `x <= y`, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (x, y) = (Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3])?, Tensor::full(&gpu, &[], 2.0)?);
    /// assert_eq!(x.le(&y)?.to_vec()?, [1.0, 1.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn le(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("le", Binary::Le, other)
    }

    /// 1 where `x = y`, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let guess = Tensor::from_u32(&gpu, &[1, 0, 2, 2], &[4])?.cast(DType::F32)?;
    /// let label = Tensor::from_u32(&gpu, &[1, 1, 2, 0], &[4])?.cast(DType::F32)?;
    /// assert_eq!(guess.eq(&label)?.mean_all()?.item()?, 0.5); // accuracy
    /// # Ok::<(), Error>(())
    /// ```
    pub fn eq(&self, other: &Tensor) -> Result<Tensor> {
        self.compare("eq", Binary::Eq, other)
    }

    /// 1 where `x` and `y` differ, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (x, y) = (Tensor::from_slice(&gpu, &[1.0, 2.0], &[2])?, Tensor::from_slice(&gpu, &[1.0, 3.0], &[2])?);
    /// assert_eq!(x.ne(&y)?.to_vec()?, [0.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3])?.ge_scalar(2.0)?.to_vec()?, [0.0, 1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn ge_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("ge_scalar", Unary::GeScalar, c)
    }

    /// 1 where `x < c`, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[-1.0, 0.0, 3.0], &[3])?;
    /// assert_eq!(x.lt_scalar(0.0)?.sum_all()?.item()?, 1.0); // how many are negative
    /// # Ok::<(), Error>(())
    /// ```
    pub fn lt_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("lt_scalar", Unary::LtScalar, c)
    }

    /// 1 where `x <= c`, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3])?.le_scalar(2.0)?.to_vec()?, [1.0, 1.0, 0.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn le_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("le_scalar", Unary::LeScalar, c)
    }

    /// 1 where `x = c`, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[0.0, 4.0, 0.0, 1.0], &[4])?;
    /// assert_eq!(x.eq_scalar(0.0)?.mean_all()?.item()?, 0.5); // how sparse it is
    /// # Ok::<(), Error>(())
    /// ```
    pub fn eq_scalar(&self, c: f32) -> Result<Tensor> {
        self.compare_scalar("eq_scalar", Unary::EqScalar, c)
    }

    /// 1 where `x` and `c` differ, 0 elsewhere.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let (x, padding) = (Tensor::from_slice(&gpu, &[5.0, -1.0, 7.0], &[3])?, -1.0);
    /// assert_eq!(x.ne_scalar(padding)?.to_vec()?, [1.0, 0.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pixels = Tensor::from_slice(&gpu, &[-3.0, 1.9, 300.0], &[3])?.cast(DType::U8)?;
    /// assert_eq!(pixels.to_bytes()?, [0, 1, 255]);
    /// assert_eq!(pixels.cast(DType::F32)?.mul_scalar(2.0)?.to_vec()?, [0.0, 2.0, 510.0]);
    /// # Ok::<(), Error>(())
    /// ```
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
