//! Why an algorithm was chosen: every candidate with its estimated cost, and a way to run one that was not chosen.

use super::{Algorithm, Conv2dParams, Direction, Forward, Geometry, cost, forward_by, input_grad_by, weight_grad_by};
use crate::isa::Stored;
use crate::{Activation, isa};
use qtensor::{DType, Error, Result, Tensor};

/// An algorithm that fits a shape.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Its estimated time on one core of a nominal machine, in seconds. Only the order of candidates means something.
    pub estimate: f64,
}

/// The choice for one direction.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Forward pass or one of the gradients.
    pub direction: Direction,
    /// All that were considered.
    pub candidates: Vec<Candidate>,
    /// The cheapest of them, which is used.
    pub choice: Algorithm,
}

/// The candidates and the choice for f32, for forward pass, input gradient and weight gradient in turn.
///
/// # Errors
/// Shapes that do not fit each other or the parameters.
pub fn explain(params: &Conv2dParams, x_shape: &[usize], w_shape: &[usize]) -> Result<[Explanation; 3]> {
    let geometry = Geometry::new("explain", x_shape, w_shape, params)?;
    let lanes = isa::current().lanes();
    Ok([Direction::Forward, Direction::InputGrad, Direction::WeightGrad].map(|direction| {
        let estimate = |algorithm| cost::estimate(algorithm, &geometry, direction, lanes, f32::IN_WORD) * 1e-9;
        let candidates = Algorithm::candidates(&geometry, direction);
        let candidates = candidates.into_iter().map(|algorithm| Candidate { algorithm, estimate: estimate(algorithm) });
        Explanation {
            direction,
            candidates: candidates.collect(),
            choice: Algorithm::choose(&geometry, direction, f32::IN_WORD),
        }
    }))
}

/// Input, weights and output gradient of a convolution: images in f32 or bf16, weights in f32.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// `[N, C, H, W]`
    pub x: &'a Tensor,
    /// `[O, C/groups, KH, KW]`
    pub w: &'a Tensor,
    /// `[N, O, OH, OW]`
    pub dy: &'a Tensor,
}

/// Runs a direction by a given algorithm, to compare it with the choice.
///
/// # Errors
/// Shapes that do not fit each other or the parameters, images of two types or of another than f32 and bf16, weights other than f32, or an algorithm that does not fit the shape.
pub fn run_with(
    algorithm: Algorithm,
    direction: Direction,
    operands: Operands,
    params: &Conv2dParams,
) -> Result<Tensor> {
    let op = "run_with";
    let Operands { x, w, dy } = operands;
    let images = if x.dtype() == DType::BF16 { DType::BF16 } else { DType::F32 };
    for (tensor, expected) in [(x, images), (w, DType::F32), (dy, images)] {
        if tensor.dtype() != expected {
            return Err(Error::DType { op, expected, found: tensor.dtype() });
        }
    }
    let geometry = Geometry::new(op, x.shape(), w.shape(), params)?;
    geometry.check_output(op, dy)?;
    if algorithm != Algorithm::Loops && !Algorithm::candidates(&geometry, direction).contains(&algorithm) {
        return Err(Error::argument(op, format!("the algorithm \"{}\" does not fit this shape", algorithm.name())));
    }
    match direction {
        Direction::Forward => {
            let call = Forward { x, w, bias: None, params, activation: Activation::None, is_measured: false };
            Ok(forward_by(algorithm, &geometry, &call)?.0)
        }
        Direction::InputGrad => input_grad_by(algorithm, &geometry, [dy, w], params),
        Direction::WeightGrad => weight_grad_by(algorithm, &geometry, [x, dy], params),
    }
}
