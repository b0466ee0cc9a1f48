//! Gradients that meet in one variable.

use crate::{Error, Result};
use qkernels::add_assign;
use qtensor::{DType, Shape, Tensor};

/// Adds `new` to what has arrived so far, in place where one of the two buffers is not shared.
pub(crate) fn accumulate(slot: &mut Option<Tensor>, new: Tensor) -> Result<()> {
    *slot = Some(match slot.take() {
        None => new,
        Some(old) => {
            let (mut sum, other) = if !is_writable(&old) && is_writable(&new) { (new, old) } else { (old, new) };
            add_assign(&mut sum, &other)?;
            sum
        }
    });
    Ok(())
}

/// Whether adding to it needs no copy. The gradient of a sum is one value repeated by strides: it is not writable.
fn is_writable(tensor: &Tensor) -> bool {
    tensor.is_unique() && tensor.layout().is_dense()
}

/// Ones of a float type.
pub(crate) fn ones(shape: &Shape, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::F32 => Ok(Tensor::full(shape, 1.0f32)?),
        DType::F64 => Ok(Tensor::full(shape, 1.0f64)?),
        found => Err(Error::Tensor(qtensor::Error::DType { op: "ones", expected: DType::F32, found })),
    }
}
