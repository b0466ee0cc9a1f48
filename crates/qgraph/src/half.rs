//! Values in bf16: mixed precision keeps activations so, with parameters in f32.

use crate::Result;
use qkernels::cast::{from_bf16, to_bf16};
use qtensor::{DType, Tensor};

/// What an op makes of inputs in bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnHalf {
    /// Its kernels take them, and its rule a gradient in bf16.
    Native,
    /// It sees them, and the gradient, as f32; its output is rounded to bf16. What it keeps is f32.
    #[default]
    Round,
    /// It sees them as f32, and its output stays so: losses and other sums over many values.
    Widen,
}

/// The values with f32 in place of bf16; `None` where there is none.
pub(crate) fn widened(values: &[Tensor]) -> Result<Option<Vec<Tensor>>> {
    if values.iter().all(|value| value.dtype() != DType::BF16) {
        return Ok(None);
    }
    values.iter().map(|value| fitting(value.clone(), DType::F32)).collect::<Result<_>>().map(Some)
}

/// A value of the type asked for, where one is f32 and the other bf16; else as it is.
pub(crate) fn fitting(value: Tensor, dtype: DType) -> Result<Tensor> {
    Ok(match (value.dtype(), dtype) {
        (DType::BF16, DType::F32) => from_bf16(&value)?,
        (DType::F32, DType::BF16) => to_bf16(&value)?,
        _ => value,
    })
}
