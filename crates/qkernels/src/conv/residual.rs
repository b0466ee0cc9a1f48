//! A convolution that takes in a residual: the end of a residual block in one pass.

use super::winograd::{self, Ending};
use super::{Algorithm, Conv2dParams, Direction, Geometry, algorithm, bias_values, conv2d};
use crate::Activation;
use crate::cast::{from_bf16, to_bf16};
use crate::elementwise::{add_assign, add_relu, unary_assign};
use crate::isa::Stored;
use crate::layout::to_channels_last;
use qtensor::{DType, Error, Result, Tensor, bf16};

/// `activation(conv(x, w) + bias + residual)`, channels-last; `bias` is `[O]`, `residual` has the shape of the result.
///
/// # Errors
/// As [`conv2d`]; or a residual of another shape or element type.
pub fn conv2d_add(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    residual: &Tensor,
    params: &Conv2dParams,
    activation: Activation,
) -> Result<Tensor> {
    let op = "conv2d_add";
    let geometry = Geometry::of_forward(op, x, w, params)?;
    let values = bias_values(op, x, bias, geometry.filters)?;
    if residual.shape() != geometry.output_shape() {
        let output = geometry.output_shape();
        return Err(Error::shape(op, format!("the result is {output:?}, the residual {}", residual.shape())));
    }
    if residual.dtype() != x.dtype() {
        return Err(Error::DType { op, expected: x.dtype(), found: residual.dtype() });
    }
    if algorithm(&geometry, Direction::Forward, x.dtype()) == Algorithm::Winograd {
        let by_winograd = if x.dtype() == DType::BF16 { by_winograd::<bf16> } else { by_winograd::<f32> };
        return by_winograd(&geometry, [x, w, residual], values.as_ref(), activation);
    }
    if x.dtype() == DType::BF16 {
        let (x, residual) = (from_bf16(x)?, from_bf16(residual)?);
        return to_bf16(&conv2d_add(&x, w, bias, &residual, params, activation)?);
    }
    let mut y = conv2d(x, w, values.as_ref(), params, Activation::None)?;
    if activation == Activation::Relu {
        return add_relu(&y, residual);
    }
    add_assign(&mut y, residual)?;
    if let Some(function) = activation.function() {
        unary_assign(function, &mut y)?;
    }
    Ok(y)
}

fn by_winograd<T: Stored>(
    geometry: &Geometry,
    [x, w, residual]: [&Tensor; 3],
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let residual = to_channels_last(residual)?;
    let ending = Ending { residual: Some(residual.memory::<T>()?), activation };
    let bias = bias.map(Tensor::as_slice).transpose()?;
    Ok(winograd::forward_one(geometry, x, (w, bias), ending, false)?.0)
}
