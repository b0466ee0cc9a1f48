//! What quadratic neurons do behind their projections: products and sums of them, each perhaps batch-normalised first.
//!
//! The projections `z1`, `z2`, … of one input are one tensor `[parts · N, …]`, as [`conv2d_stacked_joined`](crate::conv::conv2d_stacked_joined) gives them: all of
//! the first, then all of the second, and so on. The result is `[N, …]`. f32 in dense memory is fast, f64 runs on textbook loops.

mod normalised;
mod plain;
mod rule;

pub use normalised::{
    Normalised, NormalisedGrad, NormalisedGradients, NormalisedOutput, combine_normalised, combine_normalised_again,
    combine_normalised_grad, normalise,
};
pub use plain::{combine, combine_grad};
pub use rule::Rule;

use crate::layout::to_channels_last;
use qtensor::{DType, Error, Result, Shape, Tensor};

/// The shape of the result for joined projections of a rule.
///
/// # Errors
/// The first axis does not hold that many equal parts, or a type other than f32 and f64.
fn part_shape(op: &'static str, z: &Tensor, rule: Rule) -> Result<Shape> {
    if !matches!(z.dtype(), DType::F32 | DType::F64) {
        return Err(Error::DType { op, expected: DType::F32, found: z.dtype() });
    }
    let mut shape = z.shape().to_vec();
    match shape.first_mut() {
        Some(first) if first.is_multiple_of(rule.parts()) => *first /= rule.parts(),
        _ => {
            let message = format!("the first axis of {} does not hold {} equal parts", z.shape(), rule.parts());
            return Err(Error::shape(op, message));
        }
    }
    Shape::new(&shape)
}

/// `x` with its first axis outermost in memory and, for images, channels innermost: the parts of joined projections are then slices of memory.
fn rows(x: &Tensor) -> Result<Tensor> {
    to_channels_last(x)
}

/// The values of all parts of one place, in f64.
fn place(z: &[f64], parts: usize, i: usize) -> [f64; rule::MOST_PARTS] {
    let length = z.len() / parts;
    std::array::from_fn(|part| if part < parts { z[part * length + i] } else { 0.0 })
}
