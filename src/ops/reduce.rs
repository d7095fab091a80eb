//! Reductions over any axes.

use shadegrad_kernels::reduce as k;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

impl Tensor {
    /// Sums over the dimensions that broadcasting from `shape` would repeat: the adjoint of broadcasting.
    ///
    /// # Errors
    /// If `shape` does not broadcast to this tensor's.
    pub fn sum_to(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        let rank = self.rank();
        let lead = rank.checked_sub(shape.len());
        let fits = lead.is_some_and(|l| shape.iter().zip(&self.shape()[l..]).all(|(&t, &s)| t == s || t == 1));
        let Some(lead) = lead.filter(|_| fits) else {
            return Err(Error::shape("sum_to", format!("{shape:?} does not broadcast to {:?}", self.shape())));
        };
        let mut now: Vec<usize> = self.shape().to_vec();
        let mut storage = self.storage().clone();
        for d in (0..rank).rev() {
            let target = if d < lead { 1 } else { shape[d - lead] };
            if now[d] == target {
                continue;
            }
            let (outer, len, inner) = (now[..d].iter().product(), now[d], now[d + 1..].iter().product());
            now[d] = 1;
            let out = Tensor::empty(self.gpu(), &now, DType::F32, "sum")?;
            if out.numel() > 0 {
                k::sum(self.gpu(), &storage, out.storage(), outer, len, inner)?;
            }
            storage = out.storage().clone();
        }
        let full = self.shape().to_vec();
        let out = Tensor::from_parts(self.gpu(), storage, shape, DType::F32);
        Ok(out.record("sum_to", &[self], move |_, grad| Ok(vec![Some(grad.broadcast_to(&full)?)])))
    }
}
