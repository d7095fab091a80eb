//! Cholesky factors, log-determinants and triangular systems of `[.., n, n]`, batched over the leading dimensions.

use shadegrad_kernels::linalg as k;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Leading dimensions and length of square matrices.
fn square<'a>(op: &'static str, t: &'a Tensor) -> Result<(&'a [usize], usize)> {
    t.want(op, DType::F32)?;
    match t.shape() {
        [batch @ .., m, n] if m == n => Ok((batch, *n)),
        other => Err(Error::shape(op, format!("{other:?} is not square; the last two dimensions must be equal"))),
    }
}

impl Tensor {
    fn factor(&self, op: &'static str) -> Result<Tensor> {
        let (batch, n) = square(op, self)?;
        let l = Tensor::empty(self.gpu(), self.shape(), DType::F32, op)?;
        k::cholesky(self.gpu(), self.storage(), l.storage(), batch.iter().product(), n)?;
        Ok(l)
    }

    /// Cholesky factor of symmetric positive definite matrices: the lower triangular L with `L L^T = A`.
    ///
    /// The matrix is taken as `(A + A^T) / 2`, and the gradient is symmetric: that of a caller who moves both halves of A
    /// (Murray, "Differentiation of the Cholesky decomposition", 2016). A matrix that is not positive definite gives NaN
    /// from the pivot that fails on, without waiting for the device; [`Tensor::cholesky_checked`] reports it instead.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let a = Tensor::from_slice(&gpu, &[4.0, 2.0, 2.0, 5.0], &[2, 2])?;
    /// assert_eq!(a.cholesky()?.to_vec()?, [2.0, 0.0, 1.0, 2.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the matrices are not square.
    pub fn cholesky(&self) -> Result<Tensor> {
        let out = self.factor("cholesky")?;
        let saved = out.detach();
        Ok(out.record("cholesky", &[self], move |ctx, grad| {
            let l = ctx.output(&saved);
            let rank = l.rank();
            // Lower triangle with half of the diagonal.
            let m = l.matmul_t(grad, true, false)?;
            let phi = m.tril(0)?.add(&m.tril(-1)?)?.mul_scalar(0.5)?;
            // L^-T phi L^-1, the right factor as a solve of the transpose.
            let left = l.solve_triangular(&phi, false, true)?;
            let both = l.solve_triangular(&left.transpose(rank - 2, rank - 1)?, false, true)?;
            Ok(vec![Some(both.add(&both.transpose(rank - 2, rank - 1)?)?.mul_scalar(0.5)?)])
        }))
    }

    /// [`Tensor::cholesky`], after waiting for the device to see whether the matrices are positive definite.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let good = Tensor::from_slice(&gpu, &[4.0, 2.0, 2.0, 5.0], &[2, 2])?;
    /// assert!((good.cholesky_checked()?.to_vec()?[0] - 2.0).abs() < 1e-5);
    /// let bad = Tensor::from_slice(&gpu, &[1.0, 2.0, 2.0, 1.0], &[2, 2])?; // eigenvalues 3 and -1
    /// assert!(bad.cholesky_checked().is_err() && bad.cholesky()?.to_vec()?[3].is_nan());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If one is not, with its place in the batch and the first pivot that failed; also as [`Tensor::cholesky`].
    pub fn cholesky_checked(&self) -> Result<Tensor> {
        const OP: &str = "cholesky";
        let l = self.cholesky()?;
        let (batch, n) = square(OP, self)?;
        let count: usize = batch.iter().product();
        if count * n == 0 {
            return Ok(l);
        }
        let pivots = Tensor::empty(self.gpu(), &[count], DType::U32, OP)?;
        k::first_bad_pivot(self.gpu(), l.storage(), pivots.storage(), count, n)?;
        match pivots.to_vec_u32()?.iter().enumerate().find(|&(_, &p)| (p as usize) < n) {
            None => Ok(l),
            Some((i, p)) => Err(Error::value(
                OP,
                format!(
                    "matrix {i} of {:?} is not positive definite: pivot {p} is not positive; add a multiple of the \
                     identity, or look for NaN in it",
                    self.shape()
                ),
            )),
        }
    }

    /// `log det A` of symmetric positive definite matrices, `[.., n, n]` -> `[..]`, from the Cholesky factor: NaN where a
    /// matrix is not positive definite. The gradient is `A^-1`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let a = Tensor::from_slice(&gpu, &[2.0, 0.0, 0.0, 8.0], &[2, 2])?.leaf();
    /// let logdet = a.logdet_spd()?;
    /// assert!((logdet.item()? - 16f32.ln()).abs() < 1e-4);
    /// let inverse = grad(&logdet, &[&a])?[0].to_vec()?;
    /// assert!(inverse.iter().zip([0.5, 0.0, 0.0, 0.125]).all(|(v, want)| (v - want).abs() < 1e-4));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the matrices are not square.
    pub fn logdet_spd(&self) -> Result<Tensor> {
        square("logdet_spd", self)?;
        let diagonal = self.cholesky()?.diagonal()?;
        diagonal.log()?.sum(&[diagonal.rank() - 1], false)?.mul_scalar(2.0)
    }

    /// X with `op(T) X = B` for triangular `self` `[.., n, n]` and `rhs` `[.., n, m]` with the same leading dimensions.
    /// T is the upper or the lower triangle of `self`; the other half is neither used nor given a gradient. op transposes
    /// if `trans`. A zero on the diagonal gives infinities or NaN.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let t = Tensor::from_slice(&gpu, &[2.0, 0.0, 1.0, 4.0], &[2, 2])?;
    /// let x = t.solve_triangular(&Tensor::from_slice(&gpu, &[2.0, 9.0], &[2, 1])?, false, false)?.to_vec()?;
    /// assert!((x[0] - 1.0).abs() < 1e-5 && (x[1] - 2.0).abs() < 1e-5); // 2 x = 2, x + 4 y = 9
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If T is not square, or the shapes do not fit.
    pub fn solve_triangular(&self, rhs: &Tensor, upper: bool, trans: bool) -> Result<Tensor> {
        const OP: &str = "solve_triangular";
        let (batch, n) = square(OP, self)?;
        rhs.want(OP, DType::F32)?;
        self.same_gpu(OP, rhs)?;
        let cols = match rhs.shape() {
            [lead @ .., rows, cols] if lead == batch && *rows == n => *cols,
            other => {
                return Err(Error::shape(
                    OP,
                    format!(
                        "a right side {other:?} for a triangle {:?}; it must be {batch:?} followed by [{n}, m] \
                         (unsqueeze a vector, broadcast_to a batch)",
                        self.shape()
                    ),
                ));
            }
        };
        let x = Tensor::empty(self.gpu(), rhs.shape(), DType::F32, OP)?;
        let size = [batch.iter().product(), n, cols];
        k::solve_triangular(self.gpu(), self.storage(), rhs.storage(), x.storage(), size, upper, trans)?;
        let (saved, t) = (x.detach(), self.clone());
        Ok(x.record(OP, &[self, rhs], move |ctx, grad| {
            let db = t.solve_triangular(grad, upper, !trans)?;
            let dt = || {
                let x = ctx.output(&saved);
                let outer = if trans { x.matmul_t(&db, false, true)? } else { db.matmul_t(&x, false, true)? };
                if upper { outer.triu(0)?.neg() } else { outer.tril(0)?.neg() }
            };
            Ok(vec![ctx.needs(0).then(dt).transpose()?, ctx.needs(1).then(|| db.clone())])
        }))
    }
}
