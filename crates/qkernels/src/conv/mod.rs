//! Two-dimensional convolution (cross-correlation, as networks define it), its input gradient and its weight gradient.
//!
//! `x` is `[N, C, H, W]`, `w` is `[O, C/groups, KH, KW]`, `y` is `[N, O, OH, OW]` with
//! `OH = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1`, and
//! `y[n, o, i, j] = Σ x[n, c, i stride + kh dilation - padding, …] w[o, c, kh, kw]` over the channels `c` of the group of `o`.
//! Inputs may have any strides; channels-last ones are used in place, others are converted once. Outputs are channels-last.
//! f32 runs on the vector kernels, f64 on textbook loops.

mod algorithm;
mod correlate;
mod depthwise;
mod depthwise_grad;
mod depthwise_row;
mod geometry;
mod outer;
mod plan;
pub mod shapes;
mod stacked;
mod stage;
mod tile;
mod unroll;
mod weight_grad;
mod weights;
mod winograd;

use crate::{Activation, isa, naive};
use algorithm::Algorithm;
use correlate::Correlation;
use depthwise::Depthwise;
pub(crate) use geometry::Geometry;
use geometry::check_float;
use plan::Plan;
use qtensor::{DType, Error, Result, Tensor};
pub use stacked::{
    Projection, conv2d_stacked, conv2d_stacked_input_grad, conv2d_stacked_joined, conv2d_stacked_weight_grad,
};
use stage::Images;
use weights::Weights;

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
    /// Whether 3×3 convolutions of stride 1 may use Winograd's algorithm where it is faster: its rounding errors are a few times larger (docs/numerics.md).
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
/// Shapes that do not fit each other or the parameters; element types that differ or are neither f32 nor f64.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    params: &Conv2dParams,
    activation: Activation,
) -> Result<Tensor> {
    let op = "conv2d";
    let geometry = Geometry::of_forward(op, x, w, params)?;
    let values = bias_values(op, x, bias, geometry.filters)?;
    match algorithm(&geometry, x.dtype()) {
        Algorithm::Depthwise => Depthwise {
            plan: Plan::forward(&geometry),
            source: x,
            weights: w,
            bias: values.as_ref().map(Tensor::as_slice::<f32>).transpose()?,
            activation,
        }
        .run(),
        Algorithm::ImplicitGemm => Correlation {
            plan: Plan::forward(&geometry),
            source: Images::new(x)?,
            weights: Weights::forward(w, &geometry)?,
            bias: values.as_ref().map(Tensor::as_slice::<f32>).transpose()?,
            activation,
        }
        .run(),
        Algorithm::Winograd => {
            let bias = values.as_ref().map(Tensor::as_slice::<f32>).transpose()?;
            Ok(winograd::forward(&geometry, x, &[(w, bias)], activation, false, isa::current())?.swap_remove(0))
        }
        Algorithm::Loops => {
            let y = naive::conv::conv2d(x, w, bias, params, activation)?;
            Ok(y.to_dtype(x.dtype())?.to_channels_last())
        }
    }
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
/// Shapes that do not fit each other or the parameters; element types that differ or are neither f32 nor f64.
pub fn conv2d_input_grad(dy: &Tensor, w: &Tensor, x_shape: &[usize], params: &Conv2dParams) -> Result<Tensor> {
    let op = "conv2d_input_grad";
    check_float(op, dy, w)?;
    let geometry = Geometry::new(op, x_shape, w.shape(), params)?;
    geometry.check_output(op, dy)?;
    match algorithm(&geometry, dy.dtype()) {
        Algorithm::Depthwise => Depthwise {
            plan: Plan::input_grad(&geometry),
            source: dy,
            weights: w,
            bias: None,
            activation: Activation::None,
        }
        .run(),
        Algorithm::ImplicitGemm => Correlation {
            plan: Plan::input_grad(&geometry),
            source: Images::new(dy)?,
            weights: Weights::input_grad(w, &geometry)?,
            bias: None,
            activation: Activation::None,
        }
        .run(),
        Algorithm::Winograd => winograd::input_grad(&geometry, &[(dy, w)], isa::current()),
        Algorithm::Loops => {
            let dx = naive::conv::conv2d_input_grad(dy, w, x_shape, params)?;
            Ok(dx.to_dtype(dy.dtype())?.to_channels_last())
        }
    }
}

/// The gradient of a loss with respect to `w` of `y = conv2d(x, w)`, from the gradient `dy` with respect to `y`; row-major, of shape `w_shape`.
///
/// # Errors
/// Shapes that do not fit each other or the parameters; element types that differ or are neither f32 nor f64.
pub fn conv2d_weight_grad(x: &Tensor, dy: &Tensor, w_shape: &[usize], params: &Conv2dParams) -> Result<Tensor> {
    let op = "conv2d_weight_grad";
    check_float(op, x, dy)?;
    let geometry = Geometry::new(op, x.shape(), w_shape, params)?;
    geometry.check_output(op, dy)?;
    match algorithm(&geometry, x.dtype()) {
        Algorithm::Depthwise => depthwise_grad::weight_grad(x, dy, &geometry),
        Algorithm::ImplicitGemm => weight_grad::weight_grad(x, dy, &geometry),
        Algorithm::Winograd => Ok(winograd::weight_grad(&geometry, x, &[dy], isa::current())?.swap_remove(0)),
        Algorithm::Loops => naive::conv::conv2d_weight_grad(x, dy, w_shape, params)?.to_dtype(x.dtype()),
    }
}

/// The algorithm for a shape; f64 has no kernels.
fn algorithm(geometry: &Geometry, dtype: DType) -> Algorithm {
    if dtype == DType::F32 { Algorithm::choose(geometry) } else { Algorithm::Loops }
}
