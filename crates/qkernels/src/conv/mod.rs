//! Two-dimensional convolution (cross-correlation, as networks define it), its input gradient and its weight gradient.
//!
//! `x` is `[N, C, H, W]`, `w` is `[O, C/groups, KH, KW]`, `y` is `[N, O, OH, OW]` with
//! `OH = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1`, and
//! `y[n, o, i, j] = Σ x[n, c, i stride + kh dilation - padding, …] w[o, c, kh, kw]` over the channels `c` of the group of `o`.
//! Inputs may have any strides; channels-last ones are used in place, others are converted once. Outputs are channels-last.
//! f32 runs on the vector kernels, f64 on textbook loops. Images may be bf16; their filters, biases and weight gradients are f32.

mod algorithm;
mod correlate;
mod cost;
mod depthwise;
mod depthwise_grad;
mod depthwise_row;
mod explain;
mod geometry;
mod grouped;
mod grouped_grad;
mod half;
pub(crate) mod measure;
mod outer;
mod plan;
mod pointwise;
mod residual;
pub mod shapes;
mod stacked;
mod stage;
mod thin_grad;
mod tile;
mod unroll;
mod weight_grad;
mod weights;
mod winograd;

use crate::isa::Stored;
use crate::layout::not_batch_innermost;
use crate::norm::Moments;
use crate::{Activation, isa, naive};
pub(crate) use algorithm::even_piece;
pub use algorithm::{Algorithm, Direction};
use correlate::Correlation;
use depthwise::Depthwise;
pub use explain::{Candidate, Explanation, Operands, explain, run_with};
pub(crate) use geometry::Geometry;
use geometry::{check_float, check_same};
use grouped::Grouped;
use plan::Plan;
use qtensor::{DType, Error, Result, Tensor};
pub use residual::conv2d_add;
pub use stacked::{
    Projection, conv2d_stacked, conv2d_stacked_input_grad, conv2d_stacked_joined, conv2d_stacked_measured,
    conv2d_stacked_weight_grad,
};
use stage::Images;
pub(crate) use unroll::unrolled;
use weights::Weights;
use winograd::Ending;
pub(crate) use winograd::{Tiles, odd_lines};

/// How a convolution walks its input; pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dParams {
    /// Steps between the windows of neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros around the image, on each side.
    pub padding: [usize; 2],
    /// Steps between the taps of the kernel.
    pub dilation: [usize; 2],
    /// Independent groups of channels; as many as channels for a depthwise convolution.
    pub groups: usize,
    /// Whether 3×3 and 5×5 convolutions of stride 1 may use Winograd's algorithm where it is faster: its rounding errors are a few times larger (docs/numerics.md).
    pub winograd: bool,
}

impl Default for Conv2dParams {
    fn default() -> Self {
        Conv2dParams { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1, winograd: true }
    }
}

/// `activation(conv(x, w) + bias)`, channels-last; `bias` is `[O]`.
///
/// # Errors
/// Shapes that do not fit each other or the parameters; element types that do not fit or are none of f32, bf16 and f64.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    params: &Conv2dParams,
    activation: Activation,
) -> Result<Tensor> {
    Ok(run([x, w], bias, params, (activation, false))?.0)
}

/// As [`conv2d`], with the mean and the variance of each channel of the result, as a batch normalisation behind it needs them, taken while the result is in the
/// cache; `None` where the kernel at hand does not take them.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_measured(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    params: &Conv2dParams,
    activation: Activation,
) -> Result<Measured> {
    run([x, w], bias, params, (activation, true))
}

/// A result, and what is known of its channels.
pub(crate) type Measured = (Tensor, Option<Moments>);

fn run(
    [x, w]: [&Tensor; 2],
    bias: Option<&Tensor>,
    params: &Conv2dParams,
    (activation, is_measured): (Activation, bool),
) -> Result<Measured> {
    let op = "conv2d";
    let geometry = Geometry::of_forward(op, x, w, params)?;
    let values = bias_values(op, x, bias, geometry.filters)?;
    let algorithm = algorithm(&geometry, Direction::Forward, x.dtype());
    forward_by(algorithm, &geometry, &Forward { x, w, bias: values.as_ref(), params, activation, is_measured })
}

/// A bias of the right shape and type, contiguous.
fn bias_values(op: &'static str, x: &Tensor, bias: Option<&Tensor>, filters: usize) -> Result<Option<Tensor>> {
    let Some(bias) = bias else { return Ok(None) };
    check_float(op, x, bias)?;
    if bias.shape() != [filters] {
        let message = format!("the bias of {filters} filters must have shape {filters}, found {}", bias.shape());
        return Err(Error::shape(op, message));
    }
    Ok(Some(bias.contiguous()))
}

/// The gradient of a loss with respect to `x` of `y = conv2d(x, w)`, from the gradient `dy` with respect to `y`; channels-last, of shape `x_shape`.
///
/// # Errors
/// Shapes that do not fit each other or the parameters; element types that do not fit or are none of f32, bf16 and f64.
pub fn conv2d_input_grad(dy: &Tensor, w: &Tensor, x_shape: &[usize], params: &Conv2dParams) -> Result<Tensor> {
    let op = "conv2d_input_grad";
    check_float(op, dy, w)?;
    let geometry = Geometry::new(op, x_shape, w.shape(), params)?;
    geometry.check_output(op, dy)?;
    let algorithm = algorithm(&geometry, Direction::InputGrad, dy.dtype());
    input_grad_by(algorithm, &geometry, [dy, w], params)
}

/// The gradient of a loss with respect to `w` of `y = conv2d(x, w)`, from the gradient `dy` with respect to `y`; row-major, of shape `w_shape`.
///
/// # Errors
/// Shapes that do not fit each other or the parameters; element types that do not fit or are none of f32, bf16 and f64.
pub fn conv2d_weight_grad(x: &Tensor, dy: &Tensor, w_shape: &[usize], params: &Conv2dParams) -> Result<Tensor> {
    let op = "conv2d_weight_grad";
    check_same(op, x, dy)?;
    let geometry = Geometry::new(op, x.shape(), w_shape, params)?;
    geometry.check_output(op, dy)?;
    let algorithm = algorithm(&geometry, Direction::WeightGrad, x.dtype());
    weight_grad_by(algorithm, &geometry, [x, dy], params)
}

/// The algorithm for a shape and a type of images; f64 has no kernels.
fn algorithm(geometry: &Geometry, direction: Direction, images: DType) -> Algorithm {
    match images {
        DType::F32 => Algorithm::choose(geometry, direction, f32::IN_WORD),
        DType::BF16 => half::algorithm(geometry, direction),
        _ => Algorithm::Loops,
    }
}

/// The arguments of a forward pass, checked.
#[derive(Clone, Copy)]
struct Forward<'a> {
    x: &'a Tensor,
    w: &'a Tensor,
    /// Contiguous.
    bias: Option<&'a Tensor>,
    params: &'a Conv2dParams,
    activation: Activation,
    /// Whether means and variances of the result are wanted.
    is_measured: bool,
}

/// The forward pass by an algorithm that fits the geometry.
fn forward_by(algorithm: Algorithm, geometry: &Geometry, call: &Forward) -> Result<Measured> {
    let &Forward { x, w, bias, params, activation, is_measured } = call;
    if x.dtype() == DType::BF16 {
        return half::forward(algorithm, geometry, call);
    }
    let slice = || bias.map(Tensor::as_slice::<f32>).transpose();
    let y = match algorithm {
        Algorithm::Depthwise => {
            Depthwise { plan: Plan::forward(geometry), source: x, weights: w, bias: slice()?, activation }.run()?
        }
        Algorithm::Grouped => {
            let weights = Weights::forward(w, geometry)?;
            Grouped { plan: Plan::forward(geometry), source: x, weights, bias: slice()?, activation }.run()?
        }
        Algorithm::Direct | Algorithm::ThinGrad => {
            let x = not_batch_innermost(x)?;
            let correlation = Correlation {
                plan: Plan::forward(geometry),
                source: Images::new(&x)?,
                weights: Weights::forward(w, geometry)?,
                bias: slice()?,
                activation,
                is_measured,
            };
            return correlation.run();
        }
        Algorithm::Pointwise => pointwise::forward(x, w, bias, activation, geometry)?,
        Algorithm::Winograd => {
            let ending = Ending { activation, ..Ending::<f32>::default() };
            return winograd::forward_one(geometry, x, (w, slice()?), ending, is_measured);
        }
        Algorithm::Loops => {
            let y = naive::conv::conv2d(x, w, bias, params, activation)?;
            y.to_dtype(x.dtype())?.to_channels_last()
        }
    };
    Ok((y, None))
}

/// The input gradient by an algorithm that fits the geometry.
fn input_grad_by(
    algorithm: Algorithm,
    geometry: &Geometry,
    [dy, w]: [&Tensor; 2],
    params: &Conv2dParams,
) -> Result<Tensor> {
    if dy.dtype() == DType::BF16 {
        return half::input_grad(algorithm, geometry, [dy, w], params);
    }
    let (bias, activation) = (None, Activation::None);
    match algorithm {
        Algorithm::Depthwise => {
            Depthwise { plan: Plan::input_grad(geometry), source: dy, weights: w, bias, activation }.run()
        }
        Algorithm::Grouped => {
            let weights = Weights::input_grad(w, geometry)?;
            Grouped { plan: Plan::input_grad(geometry), source: dy, weights, bias, activation }.run()
        }
        Algorithm::Direct => {
            let dy = not_batch_innermost(dy)?;
            let correlation = Correlation {
                plan: Plan::input_grad(geometry),
                source: Images::new(&dy)?,
                weights: Weights::input_grad(w, geometry)?,
                bias,
                activation,
                is_measured: false,
            };
            Ok(correlation.run()?.0)
        }
        Algorithm::ThinGrad => thin_grad::input_grad(dy, w, geometry),
        Algorithm::Pointwise => pointwise::input_grad(dy, w, geometry),
        Algorithm::Winograd => winograd::input_grad::<f32>(geometry, &[(dy, w)], isa::current()),
        Algorithm::Loops => {
            let dx = naive::conv::conv2d_input_grad(dy, w, &geometry.input_shape(), params)?;
            Ok(dx.to_dtype(dy.dtype())?.to_channels_last())
        }
    }
}

/// The weight gradient by an algorithm that fits the geometry.
fn weight_grad_by(
    algorithm: Algorithm,
    geometry: &Geometry,
    [x, dy]: [&Tensor; 2],
    params: &Conv2dParams,
) -> Result<Tensor> {
    if x.dtype() == DType::BF16 {
        return half::weight_grad(algorithm, geometry, [x, dy], params);
    }
    match algorithm {
        Algorithm::Depthwise => depthwise_grad::weight_grad(x, dy, geometry),
        Algorithm::Grouped => grouped_grad::weight_grad(x, dy, geometry),
        Algorithm::Direct | Algorithm::ThinGrad => weight_grad::weight_grad(x, dy, geometry),
        Algorithm::Winograd => Ok(winograd::weight_grad::<f32>(geometry, x, &[dy], isa::current())?.swap_remove(0)),
        Algorithm::Pointwise => pointwise::weight_grad(x, dy, geometry),
        Algorithm::Loops => {
            naive::conv::conv2d_weight_grad(x, dy, &geometry.weights_shape(), params)?.to_dtype(x.dtype())
        }
    }
}
