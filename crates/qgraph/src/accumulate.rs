//! Gradients that meet in one variable.

use crate::{Error, Result};
use qkernels::add_assign;
use qkernels::cast::to_bf16;
use qtensor::{DType, Shape, Tensor};

/// The gradient of one variable so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    sum: Option<Tensor>,
    /// Another summand, for a rule that takes two.
    also: Option<Tensor>,
}

impl Slot {
    /// Takes in another summand, as it is where there are two at most and the rule `takes_two`.
    pub(crate) fn add(&mut self, new: Tensor, takes_two: bool) -> Result<()> {
        match self.sum.take() {
            None => self.sum = Some(new),
            Some(old) if takes_two && self.also.is_none() => (self.sum, self.also) = (Some(old), Some(new)),
            Some(old) => self.sum = Some(total(old, new)?),
        }
        Ok(())
    }

    /// What has arrived: the sum, and the summand that is not part of it.
    pub(crate) fn take(&mut self) -> Option<(Tensor, Option<Tensor>)> {
        Some((self.sum.take()?, self.also.take()))
    }
}

/// The sum, in place where one of the two buffers is not shared.
pub(crate) fn total(old: Tensor, new: Tensor) -> Result<Tensor> {
    let (mut sum, other) = if !is_writable(&old) && is_writable(&new) { (new, old) } else { (old, new) };
    add_assign(&mut sum, &other)?;
    Ok(sum)
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
        DType::BF16 => Ok(to_bf16(&Tensor::full(shape, 1.0f32)?)?),
        found => Err(Error::Tensor(qtensor::Error::DType { op: "ones", expected: DType::F32, found })),
    }
}
