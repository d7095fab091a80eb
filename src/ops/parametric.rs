//! Activations with one learned number for the whole tensor, and those given by a table.

use shadegrad_kernels::parametric::{self as k, Parametric, Piecewise};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Slope by the input and slope by the number, from tensor operations.
type Slopes = fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>;

impl Tensor {
    fn parametric(&self, op: &'static str, f: Parametric, a: &Tensor, slopes: Slopes) -> Result<Tensor> {
        for t in [self, a] {
            t.want(op, DType::F32)?;
        }
        self.same_gpu(op, a)?;
        if a.numel() != 1 {
            return Err(Error::shape(op, format!("the parameter is {:?}; takes one element", a.shape())));
        }
        let out = Tensor::empty(self.gpu(), self.shape(), DType::F32, op)?;
        if out.numel() > 0 {
            k::forward(self.gpu(), f, self.storage(), a.storage(), out.storage(), out.numel())?;
        }
        let (x, a) = (self.clone(), a.clone());
        Ok(out.record(op, &[self, &a.clone()], move |ctx, grad| {
            if ctx.create_graph() {
                // The number as a scalar, so that it takes no part in the shape of the slope.
                let (dx, da) = slopes(&x, &a.reshape(&[])?)?;
                return Ok(vec![
                    ctx.needs(0).then(|| grad.mul(&dx)).transpose()?,
                    ctx.needs(1).then(|| grad.mul(&da)?.sum_all()?.reshape(a.shape())).transpose()?,
                ]);
            }
            let dx = Tensor::empty(x.gpu(), x.shape(), DType::F32, op)?;
            if x.numel() == 0 {
                return Ok(vec![Some(dx), Some(Tensor::zeros(a.gpu(), a.shape())?)]);
            }
            let da = Tensor::empty(a.gpu(), a.shape(), DType::F32, op)?;
            let outputs = [dx.storage(), da.storage()];
            k::backward(x.gpu(), f, [x.storage(), a.storage(), grad.storage()], outputs, x.numel())?;
            Ok(vec![Some(dx), Some(da)])
        }))
    }

    /// CRReLU, `max(x, 0) + eps x exp(-x^2 / 2)` with one number `eps` for the whole tensor ("A method on searching better
    /// activation functions", arXiv 2405.12954). The gradient at 0 is `eps`: that of `max(x, 0)` counts as 0 there.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let (x, eps) = (Tensor::from_slice(&gpu, &[-1.0, 2.0], &[2])?, Tensor::scalar(&gpu, 0.1)?.leaf());
    /// let y = x.crrelu(&eps)?;
    /// assert!(y.to_vec()?.iter().zip([-0.060_65, 2.027_07]).all(|(y, want)| (y - want).abs() < 1e-4));
    /// assert!((grad(&y.sum_all()?, &[&eps])?[0].item()? + 0.335_86).abs() < 1e-4);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a type is not `F32` or `eps` has not one element.
    pub fn crrelu(&self, eps: &Tensor) -> Result<Tensor> {
        self.parametric("crrelu", Parametric::Crrelu, eps, |x, eps| {
            // Beyond |x| = sqrt(160) the bump is below 1e-33 and counts as zero, as in the kernel.
            let near = x.square()?.le_scalar(160.0)?;
            let zero = Tensor::scalar(x.gpu(), 0.0)?;
            let v = near.select(x, &zero)?;
            let square = v.square()?;
            let decay = near.mul(&square.mul_scalar(-0.5)?.exp()?)?;
            let slope = square.neg()?.add_scalar(1.0)?.mul(&decay)?.mul(eps)?;
            Ok((x.gt_scalar(0.0)?.add(&slope)?, v.mul(&decay)?))
        })
    }

    /// PReLU: `x` where positive, `a x` elsewhere, with one number `a` for the whole tensor (He et al., "Delving deep into
    /// rectifiers", 2015). The gradient at 0 is `a`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let (x, a) = (Tensor::from_slice(&gpu, &[-2.0, 3.0], &[2])?, Tensor::scalar(&gpu, 0.5)?.leaf());
    /// let y = x.prelu(&a)?;
    /// assert_eq!((y.to_vec()?, grad(&y.sum_all()?, &[&a])?[0].item()?), (vec![-1.0, 3.0], -2.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a type is not `F32` or `a` has not one element.
    pub fn prelu(&self, a: &Tensor) -> Result<Tensor> {
        self.parametric("prelu", Parametric::Prelu, a, |x, a| {
            let positive = x.gt_scalar(0.0)?;
            let (zero, one) = (Tensor::scalar(x.gpu(), 0.0)?, Tensor::scalar(x.gpu(), 1.0)?);
            Ok((positive.select(&one, a)?, positive.select(&zero, x)?))
        })
    }

    /// The straight lines between the points `(grid[i], values[i])`, both `[K]` with `K >= 2` and rising `grid` (which is
    /// not checked). The first and the last line go on beyond the grid. The gradient is the slope of the line, at a knot
    /// that of the one to the right; no gradient flows to the points.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let grid = Tensor::from_slice(&gpu, &[0.0, 1.0, 2.0], &[3])?;
    /// let hat = Tensor::from_slice(&gpu, &[0.0, 1.0, 0.0], &[3])?;
    /// let x = Tensor::from_slice(&gpu, &[0.5, 1.5, 3.0], &[3])?.leaf();
    /// let y = x.piecewise_linear(&grid, &hat)?;
    /// assert_eq!(y.to_vec()?, [0.5, 0.5, -1.0]); // beyond the grid the line goes on
    /// assert_eq!(grad(&y.sum_all()?, &[&x])?[0].to_vec()?, [1.0, -1.0, -1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a type is not `F32`, or the points are not two vectors of one length, at least 2.
    pub fn piecewise_linear(&self, grid: &Tensor, values: &Tensor) -> Result<Tensor> {
        const OP: &str = "piecewise_linear";
        for t in [self, grid, values] {
            t.want(OP, DType::F32)?;
            self.same_gpu(OP, t)?;
        }
        if grid.rank() != 1 || grid.shape() != values.shape() || grid.numel() < 2 {
            return Err(Error::shape(
                OP,
                format!(
                    "points {:?} and values {:?}; takes two vectors of one length >= 2",
                    grid.shape(),
                    values.shape()
                ),
            ));
        }
        let (x, points, heights) = (self.detach(), grid.detach(), values.detach());
        let run = move |what: Piecewise| {
            let out = Tensor::empty(x.gpu(), x.shape(), DType::F32, OP)?;
            if out.numel() > 0 {
                let table = (points.storage(), heights.storage(), points.numel());
                k::piecewise(x.gpu(), what, x.storage(), table, out.storage(), out.numel())?;
            }
            Ok::<_, Error>(out)
        };
        let out = run(Piecewise::Value)?;
        Ok(out.record("piecewise_linear", &[self, grid, values], move |ctx, grad| {
            let dx = ctx.needs(0).then(|| grad.mul(&run(Piecewise::Slope)?)).transpose()?;
            Ok(vec![dx, None, None])
        }))
    }
}
