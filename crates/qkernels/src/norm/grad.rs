//! The front of the gradients.

use super::backward::{Channels, Gate, Line};
use super::order::Order;
use super::{affine, extent, ordered_as, single};
use crate::Activation;
use crate::elementwise::operands::{aligned, same_order, same_stored};
use crate::isa::Stored;
use crate::naive;
use qtensor::{DType, Error, Result, Tensor, bf16};

const OP: &str = "batch_norm_grad";

/// Arguments of [`batch_norm_grad`].
#[derive(Clone, Debug)]
pub struct BatchNormGrad<'a> {
    /// Input of the forward pass
    pub x: &'a Tensor,
    /// Gradient of the output; where this is the only handle on its buffer, a result is written over it
    pub dy: Tensor,
    /// A second summand of the gradient of the output, where it arrives in two parts
    pub also: Option<Tensor>,
    /// Scale, `[C]`
    pub gamma: &'a Tensor,
    /// Shift, `[C]`
    pub beta: &'a Tensor,
    /// Mean that the forward pass returned
    pub mean: &'a Tensor,
    /// `inv_std` that the forward pass returned
    pub inv_std: &'a Tensor,
    /// Activation of the forward pass
    pub activation: Activation,
    /// Output of the forward pass, from which the activation's gradient follows. Where the forward pass had no residual it is not needed: the output's
    /// sign then follows from `x`
    pub y: Option<&'a Tensor>,
    /// Whether the gradient of a residual is wanted
    pub residual: bool,
}

/// Result of [`batch_norm_grad`].
#[derive(Clone, Debug)]
pub struct BatchNormGradients {
    /// Gradient of the input
    pub dx: Tensor,
    /// Gradient of the scale, `[C]`
    pub dgamma: Tensor,
    /// Gradient of the shift, `[C]`
    pub dbeta: Tensor,
    /// Gradient of the residual, where it was asked for: `dy` through the activation
    pub dresidual: Option<Tensor>,
}

/// Gradients of [`batch_norm_train`](super::batch_norm_train), through the batch's statistics:
/// `dx = gamma · inv_std · (g - mean(g) - x̂ · mean(g · x̂))` where `g` is `dy` through the activation.
///
/// # Errors
/// Shapes or types that do not fit, a type other than f32, bf16 and f64, or the gradient of a residual behind an activation whose output is not given.
pub fn batch_norm_grad(arguments: BatchNormGrad) -> Result<BatchNormGradients> {
    let BatchNormGrad { x, dy, also, gamma, beta, mean, inv_std, activation, y, residual } = &arguments;
    extent(OP, x, &[gamma, beta, mean, inv_std])?;
    for t in [Some(dy), also.as_ref(), *y].into_iter().flatten() {
        same_stored(OP, x, t)?;
    }
    if *residual && *activation != Activation::None && y.is_none() {
        return Err(Error::argument(OP, "with a residual the activation's gradient needs its output"));
    }
    match x.dtype() {
        DType::F32 => vector::<f32>(arguments),
        DType::BF16 => vector::<bf16>(arguments),
        _ => textbook(arguments),
    }
}

fn vector<T: Stored>(arguments: BatchNormGrad) -> Result<BatchNormGradients> {
    let BatchNormGrad { x, dy, also, gamma, beta, mean, inv_std, activation, y, residual } = arguments;
    let (order, ordered) = Order::of(x)?;
    let mut g = if same_order(&dy, &ordered) { dy } else { aligned(&dy, &ordered)? };
    let also = also.map(|also| aligned(&also, &ordered)).transpose()?;
    let y = y.filter(|_| activation != Activation::None).map(|y| aligned(y, &ordered)).transpose()?;
    let [scale, shift] = affine(OP, [gamma, beta, mean, inv_std])?;
    let affine = [single(&scale), single(&shift)];
    let mut gate: Gate<T> = match &y {
        _ if activation == Activation::None => Gate::Open,
        Some(y) => Gate::Output(activation, y.memory()?),
        None => Gate::Input(activation, [&affine[0], &affine[1]]),
    };
    let [gamma, mean, inv_std] = [gamma, mean, inv_std].map(Tensor::contiguous);
    let channels = Channels { gamma: gamma.memory()?, mean: mean.memory()?, inv_std: inv_std.memory()? };
    let values = ordered.memory::<T>()?;
    let sums = if also.is_some() || (residual && activation != Activation::None) {
        let also = also.as_ref().map(Tensor::memory).transpose()?;
        let sums = order.sums_of_written(values, g.memory_mut()?, also, gate, channels.mean);
        gate = Gate::Open;
        sums
    } else {
        order.sums(values, g.memory()?, gate, channels.mean)
    };
    drop(also);
    let line = Line::new(&sums, values.len() / gamma.numel().max(1), channels);
    let (dx, dresidual) = if residual || !g.is_unique() {
        let mut dx = ordered.empty_like();
        order.input_gradient(values, g.memory()?, gate, (&line, channels.mean), dx.memory_mut()?);
        (dx, residual.then_some(g))
    } else {
        order.input_gradient_over(values, g.memory_mut()?, gate, (&line, channels.mean));
        (g, None)
    };
    Ok(BatchNormGradients {
        dx: ordered_as(x, dx)?,
        dgamma: Tensor::from_vec(gamma.shape(), line.dgamma)?,
        dbeta: Tensor::from_vec(gamma.shape(), line.dbeta)?,
        dresidual: dresidual.map(|g| ordered_as(x, g)).transpose()?,
    })
}

fn textbook(arguments: BatchNormGrad) -> Result<BatchNormGradients> {
    let BatchNormGrad { x, dy, also, gamma, beta, mean, inv_std, activation, y, residual } = arguments;
    let extent = extent(OP, x, &[])?;
    let mut g = naive::values(OP, &dy)?;
    if let Some(also) = also {
        g.iter_mut().zip(naive::values(OP, &also)?).for_each(|(g, also)| *g += also);
    }
    let values = naive::values(OP, x)?;
    if activation != Activation::None {
        let v = match y {
            Some(y) => naive::values(OP, y)?,
            None => {
                let [scale, shift] = affine(OP, [gamma, beta, mean, inv_std])?;
                naive::norm::affine(&values, &scale, &shift, extent)
            }
        };
        g.iter_mut().zip(v).for_each(|(g, v)| *g *= slope(activation, v));
    }
    let [gamma, mean, inv_std] = [gamma, mean, inv_std].map(|t| naive::values(OP, t));
    let (dx, dgamma, dbeta) = naive::norm::grad(&values, &g, [&gamma?, &mean?, &inv_std?], extent);
    Ok(BatchNormGradients {
        dx: naive::tensor_like(x, dx)?,
        dgamma: naive::tensor([extent.channels], dgamma, x.dtype())?,
        dbeta: naive::tensor([extent.channels], dbeta, x.dtype())?,
        dresidual: residual.then(|| naive::tensor_like(x, g)).transpose()?,
    })
}

/// Derivative of an activation from its output, or from its input.
fn slope(activation: Activation, v: f64) -> f64 {
    match activation {
        Activation::None => 1.0,
        Activation::Relu => f64::from(u8::from(v > 0.0)),
        Activation::Relu6 => f64::from(u8::from(v > 0.0 && v < 6.0)),
        Activation::LeakyRelu(_) if v > 0.0 => 1.0,
        Activation::LeakyRelu(slope) => f64::from(slope),
    }
}
