//! Convolutions of bf16 images with f32 filters: results and input gradients are bf16, weight gradients f32, all sums are f32.
//!
//! Winograd's algorithm and the 1×1 convolution as a matrix product take products of bf16. The other algorithms compute with the images as f32, which is
//! exact, and round their result once.

use super::winograd::{self, Ending};
use super::{
    Algorithm, Conv2dParams, Direction, Forward, Geometry, Measured, forward_by, input_grad_by, pointwise,
    weight_grad_by,
};
use crate::cast::{from_bf16, to_bf16};
use crate::isa::{self, Stored};
use qtensor::{Result, Tensor, bf16};

/// The algorithm for a shape.
pub(super) fn algorithm(geometry: &Geometry, direction: Direction) -> Algorithm {
    Algorithm::choose(geometry, direction, bf16::IN_WORD)
}

/// The forward pass by an algorithm that fits the geometry.
pub(super) fn forward(algorithm: Algorithm, geometry: &Geometry, call: &Forward) -> Result<Measured> {
    let &Forward { x, w, bias, activation, is_measured, .. } = call;
    match algorithm {
        Algorithm::Winograd => {
            let bias = bias.map(Tensor::as_slice::<f32>).transpose()?;
            let ending = Ending { activation, ..Ending::<bf16>::default() };
            winograd::forward_one(geometry, x, (w, bias), ending, is_measured)
        }
        Algorithm::Pointwise => Ok((pointwise::forward(x, &to_bf16(w)?, bias, activation, geometry)?, None)),
        _ => {
            // Statistics are those of what is stored, after rounding.
            let wide = Forward { x: &from_bf16(x)?, is_measured: false, ..*call };
            Ok((to_bf16(&forward_by(algorithm, geometry, &wide)?.0)?, None))
        }
    }
}

/// The input gradient by an algorithm that fits the geometry.
pub(super) fn input_grad(
    algorithm: Algorithm,
    geometry: &Geometry,
    [dy, w]: [&Tensor; 2],
    params: &Conv2dParams,
) -> Result<Tensor> {
    match algorithm {
        Algorithm::Winograd => winograd::input_grad::<bf16>(geometry, &[(dy, w)], isa::current()),
        Algorithm::Pointwise => pointwise::input_grad(dy, &to_bf16(w)?, geometry),
        _ => to_bf16(&input_grad_by(algorithm, geometry, [&from_bf16(dy)?, w], params)?),
    }
}

/// The weight gradient by an algorithm that fits the geometry.
pub(super) fn weight_grad(
    algorithm: Algorithm,
    geometry: &Geometry,
    [x, dy]: [&Tensor; 2],
    params: &Conv2dParams,
) -> Result<Tensor> {
    match algorithm {
        Algorithm::Winograd => Ok(winograd::weight_grad::<bf16>(geometry, x, &[dy], isa::current())?.swap_remove(0)),
        Algorithm::Pointwise => pointwise::weight_grad(x, dy, geometry),
        _ => weight_grad_by(algorithm, geometry, [&from_bf16(x)?, &from_bf16(dy)?], params),
    }
}
