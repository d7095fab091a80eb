//! Tensors inside one flat tensor, both ways, without a copy where there need not be one.

use shadegrad_kernels::Storage;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

const F32: u64 = 4;

/// The floats `offset..` of a flat storage under a shape, as a constant. The offset is that of a slot.
pub(crate) fn view(flat: &Tensor, offset: usize, shape: &[usize]) -> Result<Tensor> {
    let bytes = shape.iter().product::<usize>() as u64 * F32;
    let Some(storage) = flat.storage().view(offset as u64 * F32, bytes) else {
        return Err(Error::shape(
            "flat_view",
            format!(
                "{shape:?} at {offset} does not lie in a flat tensor of {:?}; take the table it was made with",
                flat.shape()
            ),
        ));
    };
    Tensor::from_storage(flat.gpu(), storage, shape, DType::F32)
}

/// [`view`] with a gradient: a slot of zeros with the gradient in its place.
pub(crate) fn take(flat: &Tensor, offset: usize, shape: &[usize]) -> Result<Tensor> {
    let floats = flat.numel();
    Ok(view(flat, offset, shape)?
        .record("flat_take", &[flat], move |_, grad| Ok(vec![Some(place(&[grad], &[offset], floats)?)])))
}

/// A flat tensor of `floats` zeros with each tensor from its offset on: the adjoint of [`take`].
pub(crate) fn place(tensors: &[&Tensor], offsets: &[usize], floats: usize) -> Result<Tensor> {
    let Some(first) = tensors.first() else {
        return Err(Error::Params("there are no tensors to lay side by side".into()));
    };
    let gpu = first.gpu();
    let out = Tensor::empty(gpu, &[floats], DType::F32, "flat")?;
    gpu.zero(out.storage())?;
    for (t, &offset) in tensors.iter().zip(offsets) {
        t.want("flat_place", DType::F32)?;
        first.same_gpu("flat_place", t)?;
        copy_into(t, out.storage(), offset)?;
    }
    let places: Vec<(usize, Vec<usize>)> =
        tensors.iter().zip(offsets).map(|(t, &offset)| (offset, t.shape().to_vec())).collect();
    Ok(out.record("flat_place", tensors, move |ctx, grad| {
        let slot = |(i, (offset, shape)): (usize, &(usize, Vec<usize>))| {
            ctx.needs(i).then(|| take(grad, *offset, shape)).transpose()
        };
        places.iter().enumerate().map(slot).collect()
    }))
}

/// Copies a tensor's floats to float `offset` of `to`.
pub(crate) fn copy_into(t: &Tensor, to: &Storage, offset: usize) -> Result<()> {
    let (gpu, bytes) = (t.gpu(), t.numel() as u64 * F32);
    if !t.storage().same_buffer(to) {
        return Ok(gpu.copy(t.storage(), 0, to, offset as u64 * F32, bytes)?);
    }
    // One buffer cannot be both ends of a copy.
    let between = gpu.alloc(bytes, "copy")?;
    gpu.copy(t.storage(), 0, &between, 0, bytes)?;
    Ok(gpu.copy(&between, 0, to, offset as u64 * F32, bytes)?)
}
