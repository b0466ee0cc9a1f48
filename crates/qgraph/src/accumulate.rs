//! Gradients that meet in one variable.

use crate::{Error, Result};
use qkernels::add_assign;
use qtensor::{DType, Shape, Tensor};

/// Adds `new` to what has arrived so far, in place where one of the two buffers is not shared.
pub(crate) fn accumulate(slot: &mut Option<Tensor>, new: Tensor) -> Result<()> {
    *slot = Some(match slot.take() {
        None => new,
        Some(old) => {
            let (mut sum, other) = if !old.is_unique() && new.is_unique() { (new, old) } else { (old, new) };
            add_assign(&mut sum, &other)?;
            sum
        }
    });
    Ok(())
}

/// Ones of a float type.
pub(crate) fn ones(shape: &Shape, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::F32 => Ok(Tensor::full(shape, 1.0f32)?),
        DType::F64 => Ok(Tensor::full(shape, 1.0f64)?),
        found => Err(Error::Tensor(qtensor::Error::DType { op: "ones", expected: DType::F32, found })),
    }
}
