//! Linear layers whose weights are sparse: work and memory grow with the weights that exist, not with the size of the
//! matrix. The three operations here are closed under differentiation.

use std::fmt;
use std::sync::Arc;

use shadegrad_kernels::sparse::{self as k, Entries, Sizes};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use crate::{Gpu, tensor};

/// One matrix's entries on the device, row by row, each row by rising column.
struct Side {
    start: Tensor,
    column: Tensor,
}

impl Side {
    /// From the rows and columns of the entries in order.
    fn new(gpu: &Gpu, rows: usize, entries: &[(u32, u32)]) -> Result<Self> {
        let mut start = vec![0u32; rows + 1];
        for &(r, _) in entries {
            start[r as usize + 1] += 1;
        }
        for i in 1..start.len() {
            start[i] += start[i - 1];
        }
        let column: Vec<u32> = entries.iter().map(|e| e.1).collect();
        Ok(Self {
            start: Tensor::from_u32(gpu, &start, &[start.len()])?,
            column: Tensor::from_u32(gpu, &column, &[column.len()])?,
        })
    }
}

struct Inner {
    outputs: usize,
    inputs: usize,
    forward: Side,
    /// The row of each entry.
    row: Tensor,
    /// The transposed matrix, and which entry of this one each of its entries is.
    back: Side,
    via: Tensor,
}

/// Which weights of a sparse linear layer `[outputs, inputs]` exist. On the device; cheap to clone. The values of the
/// weights are a tensor of their own, one for each position in rising order.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let pattern = SparsePattern::new(&gpu, 2, 3, &[1, 5])?; // outputs, inputs; weights at [0, 1] and [1, 2]
/// let values = Tensor::from_slice(&gpu, &[10.0, 100.0], &[2])?;
/// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[1, 3])?;
/// assert_eq!(x.sparse_linear(&values, &pattern, None)?.to_vec()?, [20.0, 300.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct SparsePattern(Arc<Inner>);

impl SparsePattern {
    /// The pattern with weights at `positions`: `output * inputs + input`, strictly rising.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pattern = SparsePattern::new(&gpu, 2, 3, &[0, 4, 5])?; // [0, 0], [1, 1] and [1, 2]
    /// assert_eq!((pattern.outputs(), pattern.inputs(), pattern.len()), (2, 3, 3));
    /// assert!(SparsePattern::new(&gpu, 2, 3, &[4, 0]).is_err() && SparsePattern::new(&gpu, 2, 3, &[6]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a position lies outside, or they do not rise.
    pub fn new(gpu: &Gpu, outputs: usize, inputs: usize, positions: &[u32]) -> Result<Self> {
        const OP: &str = "sparse_pattern";
        let size = tensor::numel_of(OP, &[outputs, inputs])?;
        if let Some(w) = positions.windows(2).find(|w| w[0] >= w[1]) {
            return Err(Error::value(OP, format!("position {} is followed by {}; sort them, each once", w[0], w[1])));
        }
        if let Some(&last) = positions.last().filter(|&&p| p as usize >= size) {
            return Err(Error::value(OP, format!("position {last} in a matrix [{outputs}, {inputs}] of {size}")));
        }
        let entries: Vec<(u32, u32)> =
            positions.iter().map(|&p| (p / inputs.max(1) as u32, p % inputs.max(1) as u32)).collect();
        let mut via: Vec<u32> = (0..positions.len() as u32).collect();
        // Entries are in the order of rows, so a stable sort by column orders the transposed matrix.
        via.sort_by_key(|&e| entries[e as usize].1);
        let turned: Vec<(u32, u32)> = via.iter().map(|&e| (entries[e as usize].1, entries[e as usize].0)).collect();
        let row: Vec<u32> = entries.iter().map(|e| e.0).collect();
        Ok(Self(Arc::new(Inner {
            outputs,
            inputs,
            forward: Side::new(gpu, outputs, &entries)?,
            row: Tensor::from_u32(gpu, &row, &[row.len()])?,
            back: Side::new(gpu, inputs, &turned)?,
            via: Tensor::from_u32(gpu, &via, &[via.len()])?,
        })))
    }

    /// Rows of the matrix.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pattern = SparsePattern::new(&gpu, 2, 3, &[1, 5])?;
    /// let bias = Tensor::from_slice(&gpu, &[1.0, -1.0], &[pattern.outputs()])?;
    /// let y = Tensor::zeros(&gpu, &[4, 3])?.sparse_linear(&Tensor::ones(&gpu, &[2])?, &pattern, Some(&bias))?;
    /// assert_eq!(y.shape(), [4, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn outputs(&self) -> usize {
        self.0.outputs
    }

    /// Columns of the matrix.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pattern = SparsePattern::new(&gpu, 2, 3, &[1, 5])?;
    /// let y = Tensor::ones(&gpu, &[4, pattern.inputs()])?.sparse_linear(&Tensor::ones(&gpu, &[2])?, &pattern, None)?;
    /// assert_eq!(y.to_vec()?, [1.0; 8]); // one weight in each row
    /// # Ok::<(), Error>(())
    /// ```
    pub fn inputs(&self) -> usize {
        self.0.inputs
    }

    /// Number of weights.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pattern = SparsePattern::new(&gpu, 100, 100, &[0, 101, 202])?;
    /// let values = Tensor::zeros(&gpu, &[pattern.len()])?.leaf(); // three floats, not 10 000
    /// assert_eq!(values.numel(), 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.0.row.numel()
    }

    /// Whether there are no weights.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert!(SparsePattern::new(&gpu, 2, 3, &[])?.is_empty());
    /// assert!(!SparsePattern::new(&gpu, 2, 3, &[1])?.is_empty());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Share of the matrix's elements that are weights; 0 for a matrix without elements.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// assert_eq!(SparsePattern::new(&gpu, 2, 4, &[1, 6])?.density(), 0.25);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn density(&self) -> f64 {
        self.len() as f64 / ((self.outputs() * self.inputs()) as f64).max(1.0)
    }

    fn entries(&self) -> Entries<'_> {
        let side = &self.0.forward;
        Entries { start: side.start.storage(), column: side.column.storage(), via: None }
    }

    fn entries_back(&self) -> Entries<'_> {
        let side = &self.0.back;
        let via = Some(self.0.via.storage());
        Entries { start: side.start.storage(), column: side.column.storage(), via }
    }

    fn sizes(&self, batch: usize) -> Sizes {
        Sizes { batch, inputs: self.inputs(), outputs: self.outputs(), entries: self.len() }
    }

    /// Checks element types, devices and the lengths of operands.
    fn want(&self, op: &'static str, x: &Tensor, width: usize, values: &Tensor) -> Result<()> {
        for t in [x, values] {
            t.want(op, DType::F32)?;
            t.same_gpu(op, &self.0.row)?;
        }
        if x.shape().last() == Some(&width) && values.shape() == [self.len()] {
            return Ok(());
        }
        Err(Error::shape(
            op,
            format!(
                "{:?} with values {:?} for {self:?}; they must be [.., {width}] and [{}]",
                x.shape(),
                values.shape(),
                self.len()
            ),
        ))
    }
}

impl fmt::Debug for SparsePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SparsePattern([{}, {}], {} weights)", self.outputs(), self.inputs(), self.len())
    }
}

/// `x`'s shape with another last dimension, and the number of rows.
fn rows_of(x: &Tensor, width: usize) -> (Vec<usize>, usize) {
    let lead = &x.shape()[..x.rank() - 1];
    ([lead, &[width]].concat(), lead.iter().product())
}

impl Tensor {
    /// Sparse linear layer: `y[.., o] = sum_e values[e] x[.., i_e] + bias[o]` over the weights `e` of `pattern` in row
    /// `o`; the same as [`Tensor::linear`] with a matrix that is zero elsewhere, for `values` `[weights]` and a bias
    /// `[outputs]`. Sums are in rising order of inputs.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad::autograd::grad;
    /// let pattern = SparsePattern::new(&gpu, 2, 3, &[1, 5])?; // weights at [0, 1] and [1, 2]
    /// let values = Tensor::from_slice(&gpu, &[10.0, 100.0], &[2])?.leaf();
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[1, 3])?;
    /// let y = x.sparse_linear(&values, &pattern, Some(&Tensor::from_slice(&gpu, &[0.5, 0.25], &[2])?))?;
    /// assert_eq!(y.to_vec()?, [20.5, 300.25]);
    /// assert_eq!(grad(&y.sum_all()?, &[&values])?[0].to_vec()?, [2.0, 3.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sparse_linear(&self, values: &Tensor, pattern: &SparsePattern, bias: Option<&Tensor>) -> Result<Tensor> {
        const OP: &str = "sparse_linear";
        pattern.want(OP, self, pattern.inputs(), values)?;
        let out = pattern.outputs();
        if let Some(b) = bias {
            b.want(OP, DType::F32)?;
            self.same_gpu(OP, b)?;
            if b.shape() != [out] {
                return Err(Error::shape(OP, format!("bias {:?} for {pattern:?}; it must be [{out}]", b.shape())));
            }
        }
        let (shape, batch) = rows_of(self, out);
        let y = Tensor::empty(self.gpu(), &shape, DType::F32, OP)?;
        if y.numel() > 0 {
            let (x, v, b) = (self.storage(), values.storage(), bias.map(Tensor::storage));
            k::apply(self.gpu(), &pattern.sizes(batch), pattern.entries(), x, v, b, y.storage())?;
        }
        let (x, v, pattern) = (self.clone(), values.clone(), pattern.clone());
        let inputs: Vec<&Tensor> = [Some(self), Some(values), bias].into_iter().flatten().collect();
        let has_bias = bias.is_some();
        Ok(y.record("sparse_linear", &inputs, move |ctx, grad| {
            let mut grads = vec![
                ctx.needs(0).then(|| grad.sparse_linear_t(&v, &pattern)).transpose()?,
                ctx.needs(1).then(|| x.sparse_outer(grad, &pattern)).transpose()?,
            ];
            if has_bias {
                grads.push(ctx.needs(2).then(|| grad.sum_to(&[out])).transpose()?);
            }
            Ok(grads)
        }))
    }

    /// The adjoint of [`Tensor::sparse_linear`] in its input: `y[.., i] = sum_e values[e] x[.., o_e]` over the weights of
    /// column `i`. Sums are in rising order of outputs.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pattern = SparsePattern::new(&gpu, 2, 3, &[1, 5])?; // weights at [0, 1] and [1, 2]
    /// let values = Tensor::from_slice(&gpu, &[10.0, 100.0], &[2])?;
    /// let grad = Tensor::from_slice(&gpu, &[1.0, 2.0], &[1, 2])?; // for the outputs
    /// assert_eq!(grad.sparse_linear_t(&values, &pattern)?.to_vec()?, [0.0, 10.0, 200.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sparse_linear_t(&self, values: &Tensor, pattern: &SparsePattern) -> Result<Tensor> {
        const OP: &str = "sparse_linear_t";
        pattern.want(OP, self, pattern.outputs(), values)?;
        let (shape, batch) = rows_of(self, pattern.inputs());
        let y = Tensor::empty(self.gpu(), &shape, DType::F32, OP)?;
        if y.numel() > 0 {
            let s = pattern.sizes(batch);
            let turned = Sizes { inputs: s.outputs, outputs: s.inputs, ..s };
            let (x, v) = (self.storage(), values.storage());
            k::apply(self.gpu(), &turned, pattern.entries_back(), x, v, None, y.storage())?;
        }
        let (x, v, pattern) = (self.clone(), values.clone(), pattern.clone());
        Ok(y.record("sparse_linear_t", &[self, values], move |ctx, grad| {
            Ok(vec![
                ctx.needs(0).then(|| grad.sparse_linear(&v, &pattern, None)).transpose()?,
                ctx.needs(1).then(|| grad.sparse_outer(&x, &pattern)).transpose()?,
            ])
        }))
    }

    /// The adjoint of [`Tensor::sparse_linear`] in its values: `d[e] = sum over samples of grad[.., o_e] x[.., i_e]`. Only
    /// the weights that exist are computed.
    ///
    /// ```
    /// # use shadegrad::*;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pattern = SparsePattern::new(&gpu, 2, 3, &[1, 5])?; // weights at [0, 1] and [1, 2]
    /// let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[1, 3])?;
    /// let grad = Tensor::from_slice(&gpu, &[1.0, 10.0], &[1, 2])?;
    /// assert_eq!(x.sparse_outer(&grad, &pattern)?.to_vec()?, [2.0, 30.0]); // two of the six products
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn sparse_outer(&self, grad: &Tensor, pattern: &SparsePattern) -> Result<Tensor> {
        const OP: &str = "sparse_outer";
        for (t, width) in [(self, pattern.inputs()), (grad, pattern.outputs())] {
            t.want(OP, DType::F32)?;
            t.same_gpu(OP, &pattern.0.row)?;
            if t.shape().last() != Some(&width) {
                let shape = t.shape();
                return Err(Error::shape(OP, format!("{shape:?} for {pattern:?}; it must be [.., {width}]")));
            }
        }
        let ((shape, batch), lead) = (rows_of(self, pattern.outputs()), grad.shape());
        if shape != lead {
            return Err(Error::shape(OP, format!("{:?} against {lead:?}; it must be {shape:?}", self.shape())));
        }
        let d = Tensor::empty(self.gpu(), &[pattern.len()], DType::F32, OP)?;
        if batch == 0 {
            self.gpu().zero(d.storage())?;
        } else if d.numel() > 0 {
            let (row, x, g) = (pattern.0.row.storage(), self.storage(), grad.storage());
            k::outer(self.gpu(), &pattern.sizes(batch), pattern.entries(), row, x, g, d.storage())?;
        }
        let (x, g, pattern) = (self.clone(), grad.clone(), pattern.clone());
        Ok(d.record("sparse_outer", &[self, grad], move |ctx, u| {
            Ok(vec![
                ctx.needs(0).then(|| g.sparse_linear_t(u, &pattern)).transpose()?,
                ctx.needs(1).then(|| x.sparse_linear(u, &pattern, None)).transpose()?,
            ])
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Gpu, Options};

    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let gpu = Gpu::new(Options::from_env().expect("environment")).expect("a GPU driver");
        let text = |r: Result<SparsePattern>| r.expect_err("refused").to_string();
        assert!(text(SparsePattern::new(&gpu, 2, 3, &[1, 1])).contains("position 1 is followed by 1"));
        assert!(text(SparsePattern::new(&gpu, 2, 3, &[6])).contains("position 6 in a matrix [2, 3] of 6"));
        let pattern = SparsePattern::new(&gpu, 2, 3, &[0, 4]).expect("a pattern");
        assert_eq!((pattern.len(), pattern.outputs(), pattern.inputs()), (2, 2, 3));
        assert!((pattern.density() - 1.0 / 3.0).abs() < 1e-12);
        let ones = |shape: &[usize]| Tensor::ones(&gpu, shape).expect("memory");
        let fails = |r: Result<Tensor>, what: &str| {
            let text = r.expect_err("refused").to_string();
            assert!(text.contains(what), "{text}");
        };
        fails(ones(&[4, 2]).sparse_linear(&ones(&[2]), &pattern, None), "must be [.., 3] and [2]");
        fails(ones(&[4, 3]).sparse_linear(&ones(&[6]), &pattern, None), "must be [.., 3] and [2]");
        fails(ones(&[4, 3]).sparse_linear(&ones(&[2]), &pattern, Some(&ones(&[3]))), "must be [2]");
        fails(ones(&[4, 3]).sparse_linear_t(&ones(&[2]), &pattern), "must be [.., 2] and [2]");
        fails(ones(&[4, 3]).sparse_outer(&ones(&[3, 2]), &pattern), "it must be [4, 2]");
        fails(ones(&[4, 2]).sparse_outer(&ones(&[4, 2]), &pattern), "it must be [.., 3]");
    }
}
