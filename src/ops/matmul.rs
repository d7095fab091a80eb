//! Matrix products and linear layers.

use shadegrad_kernels::matmul::{self as k, Dims, Epilogue};

use crate::autograd::{Keeper, comes_from, is_parameter};
use crate::error::{Error, Result};
use crate::ops::binary::broadcast_shape;
use crate::precision::operands;
use crate::tensor::{DType, Shape, Tensor};

/// Sizes of a product after broadcasting.
struct Plan {
    batch: Shape,
    m: usize,
    n: usize,
    k: usize,
}

fn plan(op: &'static str, a: &Tensor, b: &Tensor, trans_a: bool, trans_b: bool) -> Result<Plan> {
    for t in [a, b] {
        if t.rank() < 2 {
            return Err(Error::shape(
                op,
                format!("{:?} is no matrix; reshape a vector to [1, n] or [n, 1] first", t.shape()),
            ));
        }
    }
    let split = |t: &Tensor, trans: bool| {
        let (rows, cols) = (t.dim(t.rank() - 2), t.dim(t.rank() - 1));
        if trans { (cols, rows) } else { (rows, cols) }
    };
    let ((m, k), (k_b, n)) = (split(a, trans_a), split(b, trans_b));
    if k != k_b {
        let of = |trans: bool| if trans { " transposed" } else { "" };
        return Err(Error::shape(
            op,
            format!(
                "{:?}{} has rows of {k}, {:?}{} has columns of {k_b}; they must be equal",
                a.shape(),
                of(trans_a),
                b.shape(),
                of(trans_b)
            ),
        ));
    }
    let batch = broadcast_shape(op, &a.shape()[..a.rank() - 2], &b.shape()[..b.rank() - 2])?;
    Ok(Plan { batch, m, n, k })
}

/// A batch dimension: its length, and the matrices of A, B and C from one index to the next (0 repeats).
#[derive(Clone, Copy, Debug, PartialEq)]
struct BatchDim {
    len: usize,
    a: usize,
    b: usize,
    c: usize,
}

/// The batch as few nested dimensions as its broadcasting allows, outermost first.
fn batch_dims(batch: &[usize], a: &[usize], b: &[usize]) -> Vec<BatchDim> {
    let mut dims: Vec<BatchDim> = Vec::new();
    let (mut step_a, mut step_b, mut step_c) = (1, 1, 1);
    for (i, &len) in batch.iter().rev().enumerate() {
        let at = |s: &[usize]| if i < s.len() { s[s.len() - 1 - i] } else { 1 };
        let stride = |of: &[usize], step: &mut usize| {
            let n = at(of);
            let stride = if n == 1 { 0 } else { *step };
            *step *= n;
            stride
        };
        let dim = BatchDim { len, a: stride(a, &mut step_a), b: stride(b, &mut step_b), c: step_c };
        step_c *= len;
        match dims.last_mut() {
            _ if len == 1 => {}
            // One longer dimension steps as both do.
            Some(inner)
                if dim.a == inner.a * inner.len && dim.b == inner.b * inner.len && dim.c == inner.c * inner.len =>
            {
                inner.len *= len;
            }
            _ => dims.push(dim),
        }
    }
    dims.reverse();
    dims
}

/// The products without a record.
fn run(a: &Tensor, b: &Tensor, trans_a: bool, trans_b: bool, p: &Plan) -> Result<Tensor> {
    let shape = [&p.batch[..], &[p.m, p.n]].concat();
    let out = Tensor::empty(a.gpu(), &shape, DType::F32, "matmul")?;
    if out.numel() == 0 {
        return Ok(out);
    }
    let mut batch = batch_dims(&p.batch, &a.shape()[..a.rank() - 2], &b.shape()[..b.rank() - 2]);
    let halves = a.dtype() == DType::F16;
    let mut dims = Dims::new(p.m, p.n, p.k, trans_a, trans_b).halves(halves);
    // Rows of all matrices against one B are the rows of one tall matrix.
    if let [BatchDim { len, a: 1, b: 0, c: 1 }] = batch[..]
        && !trans_a
    {
        dims = Dims::new(len * p.m, p.n, p.k, trans_a, trans_b).halves(halves);
        batch.clear();
    }
    // The kernels nest two batch dimensions; further ones are walked here.
    let walked = batch.len().saturating_sub(2);
    let (outer, inner) = batch.split_at(walked);
    for (slot, dim) in (2 - inner.len()..).zip(inner) {
        dims.batch[slot] = dim.len;
        dims.a.batch[slot] = dim.a * p.m * p.k;
        dims.b.batch[slot] = dim.b * p.k * p.n;
        dims.c.batch[slot] = dim.c * p.m * p.n;
    }
    for at in 0..outer.iter().map(|d| d.len).product() {
        let mut rest = at;
        for dim in outer.iter().rev() {
            let i = rest % dim.len;
            rest /= dim.len;
            dims.a.offset += i * dim.a * p.m * p.k;
            dims.b.offset += i * dim.b * p.k * p.n;
            dims.c.offset += i * dim.c * p.m * p.n;
        }
        k::matmul(a.gpu(), a.storage(), b.storage(), out.storage(), &dims, Epilogue::default())?;
        (dims.a.offset, dims.b.offset, dims.c.offset) = (0, 0, 0);
    }
    Ok(out)
}

impl Tensor {
    /// Matrix product over the last two dimensions, `[.., m, k] x [.., k, n] -> [.., m, n]`; the leading dimensions
    /// broadcast as numpy's do.
    ///
    /// The operands are floats, or halves (`F16`) if one of them is or in a region of [`crate::Precision::Mixed`]: then the products
    /// are exact and their sums f32. The result is always `F32`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let a = Tensor::ones(&gpu, &[5, 2, 3])?; // a batch of five
    /// let b = Tensor::ones(&gpu, &[5, 3, 4])?;
    /// let c = a.matmul(&b)?;
    /// assert_eq!((c.shape(), c.to_vec()?[0]), (&[5, 2, 4][..], 3.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If an operand has fewer than two dimensions, the inner lengths differ, or the leading ones do not broadcast.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        self.matmul_t(other, false, false)
    }

    /// [`Tensor::matmul`] of the operands with their last two dimensions exchanged where the flag says so. Nothing is
    /// copied for that.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 2])?;
    /// let w = Tensor::from_slice(&gpu, &[3.0, 4.0, 5.0, 6.0], &[2, 2])?;
    /// assert_eq!(x.matmul_t(&w, false, true)?.to_vec()?, [11.0, 17.0]); // x w^T
    /// assert_eq!(x.matmul_t(&x, true, false)?.to_vec()?, [1.0, 2.0, 2.0, 4.0]); // x^T x
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::matmul`].
    pub fn matmul_t(&self, other: &Tensor, trans_a: bool, trans_b: bool) -> Result<Tensor> {
        let (a, b) = operands("matmul", self, other)?;
        let p = plan("matmul", &a, &b, trans_a, trans_b)?;
        let (of_a, of_b) = (a.clone(), b.clone());
        let product = run(&a, &b, trans_a, trans_b, &p)?;
        // Each operand is needed for the gradient of the other alone.
        let keep = Keeper::new("matmul", &[self, other]);
        let compact = keep.compact().filter(|_| [self, other].iter().all(|t| t.requires_grad() && !is_parameter(t)));
        let compact = compact.filter(|_| [self, other].iter().all(|t| t.dtype() == DType::F32));
        // `read` is what the product read: `t`, or its halves.
        let save = |wanted: bool, what: &'static str, t: &Tensor, read: &Tensor| match (compact, t.packed()) {
            _ if !wanted => Ok(keep.spared(what, read)),
            (Some(_), Some((_, how))) => keep.packed(what, t, *how),
            // Weights of attention behind dropout lie in no format's range.
            (Some(c), None) if !comes_from(t, &["softmax", "masked_softmax"]) => match c.product {
                Some(how) => keep.packed(what, t, how),
                None => Ok(keep.whole(what, read)),
            },
            _ => Ok(keep.whole(what, read)),
        };
        let dtype = a.dtype();
        let a = save(other.requires_grad(), "left", self, &a)?;
        let b = save(self.requires_grad(), "right", other, &b)?;
        Ok(product.record("matmul", &[&of_a, &of_b], move |ctx, grad| {
            // Rounded once for both.
            let grad = &grad.cast(dtype)?;
            // One B for all of the batch: its gradient sums over the batch inside the product.
            let tall = b.shape().len() == 2 && !trans_a && a.shape().len() > 2;
            let da = || {
                let b = b.get(ctx)?;
                match trans_a {
                    true => b.matmul_t(grad, trans_b, true),
                    false => grad.matmul_t(&b, false, !trans_b),
                }
            };
            let db = || {
                let a = a.get(ctx)?;
                let (rows_a, rows_g) = if tall { (a.rows()?, grad.rows()?) } else { (a, grad.clone()) };
                match trans_b {
                    true => rows_g.matmul_t(&rows_a, true, trans_a),
                    false => rows_a.matmul_t(&rows_g, !trans_a, false),
                }
            };
            Ok(vec![
                ctx.needs(0).then(|| da()?.sum_to(a.shape())).transpose()?,
                ctx.needs(1).then(|| db()?.sum_to(b.shape())).transpose()?,
            ])
        }))
    }

    /// Linear layer: `y[.., o] = sum_i x[.., i] w[o, i] + bias[o]` for weights `[out, in]` and a bias `[out]`, in one
    /// kernel. Halves as in [`Tensor::matmul`]; the bias is `F32`.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 2])?;
    /// let weight = Tensor::from_slice(&gpu, &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &[3, 2])?; // [outputs, inputs]
    /// let bias = Tensor::from_slice(&gpu, &[0.5, 0.5, 0.5], &[3])?;
    /// assert_eq!(x.linear(&weight, Some(&bias))?.to_vec()?, [1.5, 2.5, 3.5]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        const OP: &str = "linear";
        let (x, w) = operands(OP, self, weight)?;
        if let Some(b) = bias {
            b.want(OP, DType::F32)?;
            self.same_gpu(OP, b)?;
        }
        let misfit = || {
            let bias = bias.map_or(String::new(), |b| format!(", bias {:?}", b.shape()));
            let (x, w) = (self.shape(), weight.shape());
            Error::shape(OP, format!("{x:?} with weights {w:?}{bias}; they must be [.., in], [out, in], [out]"))
        };
        let (&[out, input], Some((&last, lead))) = (weight.shape(), self.shape().split_last()) else {
            return Err(misfit());
        };
        if last != input || bias.is_some_and(|b| b.shape() != [out]) {
            return Err(misfit());
        }
        let y = Tensor::empty(self.gpu(), &[lead, &[out]].concat(), DType::F32, OP)?;
        if y.numel() > 0 {
            let dims = Dims::new(lead.iter().product(), out, input, false, true).halves(x.dtype() == DType::F16);
            let epilogue = Epilogue { bias: bias.map(Tensor::storage) };
            k::matmul(self.gpu(), x.storage(), w.storage(), y.storage(), &dims, epilogue)?;
        }
        let (of_x, of_w) = (x.clone(), w.clone());
        let inputs: Vec<&Tensor> = [&of_x, &of_w].into_iter().chain(bias).collect();
        let (has_bias, dtype) = (bias.is_some(), x.dtype());
        // The input is needed for the gradient of the weight alone: a frozen layer keeps nothing of it.
        let keep = Keeper::new(OP, &inputs);
        let x = match keep.compact().and_then(|c| c.after_activation) {
            _ if !weight.requires_grad() => keep.spared("input", &x),
            Some(how) if self.dtype() == DType::F32 && comes_from(self, &["gelu", "gelu_tanh", "silu"]) => {
                keep.packed("input", self, how)?
            }
            _ => keep.whole("input", &x),
        };
        let w = keep.whole_if(self.requires_grad(), "weight", &w);
        Ok(y.record(OP, &inputs, move |ctx, grad| {
            // Rounded once for both; the bias takes it as it is.
            let g = grad.cast(dtype)?.rows()?;
            let mut grads = vec![
                ctx.needs(0).then(|| g.matmul_t(&w.get(ctx)?, false, false)?.reshape(x.shape())).transpose()?,
                ctx.needs(1).then(|| g.matmul_t(&x.get(ctx)?.rows()?, true, false)).transpose()?,
            ];
            if has_bias {
                grads.push(ctx.needs(2).then(|| grad.rows()?.sum_to(&[out])).transpose()?);
            }
            Ok(grads)
        }))
    }

    /// All but the last dimension as one.
    fn rows(&self) -> Result<Tensor> {
        let cols = self.shape().last().copied().unwrap_or(1);
        self.reshape(&[self.shape().iter().rev().skip(1).product(), cols])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_collapse_where_both_operands_step_alike() {
        let dim = |len, a, b, c| BatchDim { len, a, b, c };
        assert_eq!(batch_dims(&[2, 3], &[2, 3], &[2, 3]), [dim(6, 1, 1, 1)]);
        assert_eq!(batch_dims(&[2, 3], &[2, 3], &[]), [dim(6, 1, 0, 1)]);
        assert_eq!(batch_dims(&[2, 3], &[2, 1], &[1, 3]), [dim(2, 1, 0, 3), dim(3, 0, 1, 1)]);
        assert_eq!(batch_dims(&[2, 1, 3], &[2, 1, 3], &[3]), [dim(2, 3, 0, 3), dim(3, 1, 1, 1)]);
        assert_eq!(
            batch_dims(&[2, 3, 4], &[2, 1, 4], &[1, 3, 1]),
            [dim(2, 4, 0, 12), dim(3, 0, 1, 4), dim(4, 1, 0, 1)]
        );
        assert_eq!(batch_dims(&[], &[], &[]), []);
    }
}
