//! Several convolutions of one input as one call: what they share is done once.
//!
//! Where Winograd's algorithm pays, the input is transformed once for all of them, their input gradients are added before the transform back, and the weight
//! gradients share the transform of the input. Other convolutions run one after the other.

use super::algorithm::{Algorithm, Direction};
use super::geometry::{check_float, check_same};
use super::winograd::{Ending, Forward};
use super::{
    Conv2dParams, Geometry, Measured, algorithm, bias_values, conv2d, conv2d_input_grad, conv2d_weight_grad, run,
    winograd,
};
use crate::elementwise::add_assign;
use crate::norm::Moments;
use crate::{Activation, isa, par};
use qtensor::{DType, Element, Error, Result, Tensor, bf16};

/// Filters `[O, C / groups, KH, KW]` and a bias `[O]`.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    /// The filters.
    pub w: &'a Tensor,
    /// One value for each of them.
    pub bias: Option<&'a Tensor>,
}

/// `activation(conv(x, w) + bias)` for each projection, all of the same sizes; channels-last.
///
/// # Errors
/// No projections, or filters of different shapes; else as [`conv2d`].
pub fn conv2d_stacked(
    x: &Tensor,
    projections: &[Projection],
    params: &Conv2dParams,
    activation: Activation,
) -> Result<Vec<Tensor>> {
    match of_forward(x, projections, params)? {
        Some(work) => Ok(work.run(x, activation, [false, false])?.0),
        None => projections.iter().map(|p| conv2d(x, p.w, p.bias, params, activation)).collect(),
    }
}

/// As [`conv2d_stacked`], but as one tensor `[number of projections · N, O, OH, OW]`: all images of the first projection, then all of the second, and so on.
/// Its slices along the first axis are dense.
///
/// # Errors
/// As [`conv2d_stacked`].
pub fn conv2d_stacked_joined(
    x: &Tensor,
    projections: &[Projection],
    params: &Conv2dParams,
    activation: Activation,
) -> Result<Tensor> {
    Ok(run_joined(x, projections, params, (activation, false))?.0)
}

/// As [`conv2d_stacked_joined`], with the mean and the variance of each channel of each result: see [`conv2d_measured`](super::conv2d_measured).
///
/// # Errors
/// As [`conv2d_stacked`].
pub fn conv2d_stacked_measured(
    x: &Tensor,
    projections: &[Projection],
    params: &Conv2dParams,
    activation: Activation,
) -> Result<(Tensor, Option<Moments>)> {
    run_joined(x, projections, params, (activation, true))
}

fn run_joined(
    x: &Tensor,
    projections: &[Projection],
    params: &Conv2dParams,
    (activation, is_measured): (Activation, bool),
) -> Result<Measured> {
    if let Some(work) = of_forward(x, projections, params)? {
        let (mut all, moments) = work.run(x, activation, [true, is_measured])?;
        return Ok((all.swap_remove(0), moments));
    }
    let each = projections.iter().map(|p| run([x, p.w], p.bias, params, (activation, is_measured)));
    let (parts, moments): (Vec<_>, Vec<_>) = each.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let moments = moments.into_iter().collect::<Option<Vec<_>>>().and_then(Moments::joined);
    Ok((joined(parts)?, moments))
}

/// Channels-last images of one shape, one after the other in memory too.
fn joined(parts: Vec<Tensor>) -> Result<Tensor> {
    let Some(first) = parts.first() else { return Err(Error::argument("conv2d_stacked", "no convolutions")) };
    let mut shape = first.shape().to_vec();
    shape[0] *= parts.len();
    let mut all = Tensor::empty_channels_last(&shape, first.dtype())?;
    match first.dtype() {
        DType::F32 => copy_parts::<f32>(&parts, &mut all)?,
        DType::BF16 => copy_parts::<bf16>(&parts, &mut all)?,
        _ => copy_parts::<f64>(&parts, &mut all)?,
    }
    Ok(all)
}

fn copy_parts<T: Element>(parts: &[Tensor], all: &mut Tensor) -> Result<()> {
    let length = parts[0].numel();
    let mut places = all.memory_mut::<T>()?.chunks_mut(length.max(1)).zip(parts).collect::<Vec<_>>();
    let copied: Vec<Result<()>> = par::map_chunks(&mut places, 1, |_, places| {
        places.iter_mut().try_for_each(|(to, part)| part.memory::<T>().map(|from| to.copy_from_slice(from)))
    });
    copied.into_iter().collect()
}

/// Projections that Winograd's algorithm computes.
struct Stack<'a> {
    geometry: Geometry,
    projections: &'a [Projection<'a>],
}

/// Checks the arguments of a forward pass; a stack where Winograd's algorithm computes it.
fn of_forward<'a>(x: &Tensor, projections: &'a [Projection], params: &Conv2dParams) -> Result<Option<Stack<'a>>> {
    let op = "conv2d_stacked";
    let first = same_shapes(op, projections.iter().map(|p| p.w))?;
    let geometry = Geometry::of_forward(op, x, first, params)?;
    for projection in projections {
        check_float(op, x, projection.w)?;
    }
    let is_winograd = algorithm(&geometry, Direction::Forward, x.dtype()) == Algorithm::Winograd;
    Ok(is_winograd.then_some(Stack { geometry, projections }))
}

impl Stack<'_> {
    /// A tensor for each projection, or one for all; statistics of all.
    fn run(
        &self,
        x: &Tensor,
        activation: Activation,
        [is_joined, is_measured]: [bool; 2],
    ) -> Result<(Vec<Tensor>, Option<Moments>)> {
        let biases = self.projections.iter().map(|p| bias_values("conv2d_stacked", x, p.bias, self.geometry.filters));
        let biases = biases.collect::<Result<Vec<_>>>()?;
        let mut projections = Vec::with_capacity(biases.len());
        for (projection, bias) in self.projections.iter().zip(&biases) {
            projections.push((projection.w, bias.as_ref().map(Tensor::as_slice::<f32>).transpose()?));
        }
        let (g, isa) = (&self.geometry, isa::current());
        if x.dtype() == DType::BF16 {
            let ending = Ending { activation, ..Ending::<bf16>::default() };
            return winograd::forward(
                g,
                x,
                &Forward { projections: &projections, ending, is_joined, is_measured },
                isa,
            );
        }
        let ending = Ending { activation, ..Ending::<f32>::default() };
        winograd::forward(g, x, &Forward { projections: &projections, ending, is_joined, is_measured }, isa)
    }
}

/// The gradient of a loss with respect to the input of several convolutions, from the gradient of each output and its filters: the sum of what each
/// [`conv2d_input_grad`] would give.
///
/// # Errors
/// Nothing to add, filters of different shapes; else as [`conv2d_input_grad`].
pub fn conv2d_stacked_input_grad(
    outputs: &[(&Tensor, &Tensor)],
    x_shape: &[usize],
    params: &Conv2dParams,
) -> Result<Tensor> {
    let op = "conv2d_stacked_input_grad";
    let w = same_shapes(op, outputs.iter().map(|(_, w)| *w))?;
    let geometry = Geometry::new(op, x_shape, w.shape(), params)?;
    let (first, rest) = outputs.split_first().ok_or_else(|| Error::argument(op, "no convolutions"))?;
    for (dy, w) in outputs {
        check_same(op, first.0, dy)?;
        check_float(op, first.0, w)?;
        geometry.check_output(op, dy)?;
    }
    if algorithm(&geometry, Direction::InputGrad, first.0.dtype()) == Algorithm::Winograd {
        let is_half = first.0.dtype() == DType::BF16;
        let input_grad = if is_half { winograd::input_grad::<bf16> } else { winograd::input_grad::<f32> };
        return input_grad(&geometry, outputs, isa::current());
    }
    let mut sum = conv2d_input_grad(first.0, first.1, x_shape, params)?;
    for (dy, w) in rest {
        add_assign(&mut sum, &conv2d_input_grad(dy, w, x_shape, params)?)?;
    }
    Ok(sum)
}

/// The gradients of a loss with respect to the filters of several convolutions of `x`, from the gradients `dys` of their outputs; each of shape `w_shape`.
///
/// # Errors
/// As [`conv2d_weight_grad`].
pub fn conv2d_stacked_weight_grad(
    x: &Tensor,
    dys: &[&Tensor],
    w_shape: &[usize],
    params: &Conv2dParams,
) -> Result<Vec<Tensor>> {
    let op = "conv2d_stacked_weight_grad";
    let geometry = Geometry::new(op, x.shape(), w_shape, params)?;
    for dy in dys {
        check_same(op, x, dy)?;
        geometry.check_output(op, dy)?;
    }
    if !dys.is_empty() && algorithm(&geometry, Direction::WeightGrad, x.dtype()) == Algorithm::Winograd {
        let is_half = x.dtype() == DType::BF16;
        let weight_grad = if is_half { winograd::weight_grad::<bf16> } else { winograd::weight_grad::<f32> };
        return weight_grad(&geometry, x, dys, isa::current());
    }
    dys.iter().map(|dy| conv2d_weight_grad(x, dy, w_shape, params)).collect()
}

/// The first of some filters, all of which have its shape.
fn same_shapes<'a>(op: &'static str, mut filters: impl Iterator<Item = &'a Tensor>) -> Result<&'a Tensor> {
    let first = filters.next().ok_or_else(|| Error::argument(op, "no convolutions"))?;
    match filters.find(|w| w.shape() != first.shape()) {
        Some(other) => {
            let message =
                format!("filters of one stack must have one shape, found {} and {}", first.shape(), other.shape());
            Err(Error::shape(op, message))
        }
        None => Ok(first),
    }
}
