//! Batch normalisation (Ioffe and Szegedy, 2015, arXiv:1502.03167) of `[N, C]` and `[N, C, H, W]`.
//!
//! Every front may add a residual and apply an activation in the same pass: `y = activation((x - mean) · inv_std · gamma + beta + residual)`.
//! Channels-last f32 is fast.

mod vector;

use crate::Activation;
use crate::elementwise::operands::{aligned, same, same_type};
use crate::naive::{self, norm::Extent};
use qtensor::{DType, Error, Result, Tensor};

/// Arguments of [`batch_norm_train`].
#[derive(Clone, Copy, Debug)]
pub struct BatchNormTrain<'a> {
    /// `[N, C]` or `[N, C, H, W]`
    pub x: &'a Tensor,
    /// Scale, `[C]`
    pub gamma: &'a Tensor,
    /// Shift, `[C]`
    pub beta: &'a Tensor,
    /// Added to the variance
    pub eps: f64,
    /// Added after the shift, with the shape of `x`
    pub residual: Option<&'a Tensor>,
    /// Applied last
    pub activation: Activation,
}

impl<'a> BatchNormTrain<'a> {
    /// Without residual and activation.
    pub fn new(x: &'a Tensor, gamma: &'a Tensor, beta: &'a Tensor, eps: f64) -> Self {
        BatchNormTrain { x, gamma, beta, eps, residual: None, activation: Activation::None }
    }
}

/// Result of [`batch_norm_train`].
#[derive(Clone, Debug)]
pub struct BatchNormOutput {
    /// The normalised tensor
    pub y: Tensor,
    /// Mean of each channel, `[C]`
    pub mean: Tensor,
    /// Biased variance of each channel, `[C]`; times `n / (n - 1)` it is what the running variance takes
    pub var: Tensor,
    /// `1 / √(var + eps)`, `[C]`
    pub inv_std: Tensor,
}

/// Arguments of [`batch_norm_infer`].
#[derive(Clone, Copy, Debug)]
pub struct BatchNormInfer<'a> {
    /// `[N, C]` or `[N, C, H, W]`
    pub x: &'a Tensor,
    /// Scale, `[C]`
    pub gamma: &'a Tensor,
    /// Shift, `[C]`
    pub beta: &'a Tensor,
    /// Running mean, `[C]`
    pub mean: &'a Tensor,
    /// Running variance, `[C]`
    pub var: &'a Tensor,
    /// Added to the variance
    pub eps: f64,
    /// Added after the shift, with the shape of `x`
    pub residual: Option<&'a Tensor>,
    /// Applied last
    pub activation: Activation,
}

/// Arguments of [`batch_norm_grad`].
#[derive(Clone, Copy, Debug)]
pub struct BatchNormGrad<'a> {
    /// Input of the forward pass
    pub x: &'a Tensor,
    /// Gradient of the output
    pub dy: &'a Tensor,
    /// Scale, `[C]`
    pub gamma: &'a Tensor,
    /// Mean that the forward pass returned
    pub mean: &'a Tensor,
    /// `inv_std` that the forward pass returned
    pub inv_std: &'a Tensor,
    /// Activation of the forward pass, and its output `y`, from which the activation's gradient follows
    pub activation: Option<(Activation, &'a Tensor)>,
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

/// Normalises with the mean and the biased variance of the batch.
///
/// # Errors
/// `x` is neither `[N, C]` nor `[N, C, H, W]` or has no value to average, shapes or types that do not fit, or a type other than f32 and f64.
pub fn batch_norm_train(arguments: BatchNormTrain) -> Result<BatchNormOutput> {
    const OP: &str = "batch_norm_train";
    let BatchNormTrain { x, gamma, beta, eps, residual, activation } = arguments;
    let extent = extent(OP, x, &[gamma, beta])?;
    if extent.count() == 0 && extent.channels > 0 {
        return Err(Error::shape(OP, format!("input of shape {} has no values to average", x.shape())));
    }
    let (mean, var) = match x.dtype() {
        DType::F32 => vector::statistics(x.to_channels_last().memory()?, extent.channels),
        _ => naive::norm::statistics(&naive::values(OP, x)?, extent),
    };
    let inv_std = var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let [mean, var, inv_std] = [mean, var, inv_std].map(|v| naive::tensor([extent.channels], v, x.dtype()));
    let (mean, var, inv_std) = (mean?, var?, inv_std?);
    let y = apply(OP, x, [gamma, beta, &mean, &inv_std], (residual, activation))?;
    Ok(BatchNormOutput { y, mean, var, inv_std })
}

/// Normalises with given statistics.
///
/// # Errors
/// `x` is neither `[N, C]` nor `[N, C, H, W]`, shapes or types that do not fit, or a type other than f32 and f64.
pub fn batch_norm_infer(arguments: BatchNormInfer) -> Result<Tensor> {
    const OP: &str = "batch_norm_infer";
    let BatchNormInfer { x, gamma, beta, mean, var, eps, residual, activation } = arguments;
    extent(OP, x, &[gamma, beta, mean, var])?;
    let inv_std = naive::values(OP, var)?.into_iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let inv_std = naive::tensor(var.shape(), inv_std, x.dtype())?;
    apply(OP, x, [gamma, beta, mean, &inv_std], (residual, activation))
}

/// Gradients of [`batch_norm_train`], through the batch's statistics:
/// `dx = gamma · inv_std · (g - mean(g) - x̂ · mean(g · x̂))` where `g` is `dy` through the activation.
///
/// # Errors
/// Shapes or types that do not fit, or a type other than f32 and f64.
pub fn batch_norm_grad(arguments: BatchNormGrad) -> Result<BatchNormGradients> {
    const OP: &str = "batch_norm_grad";
    let BatchNormGrad { x, dy, gamma, mean, inv_std, activation, residual } = arguments;
    let extent = extent(OP, x, &[gamma, mean, inv_std])?;
    same(OP, x, dy)?;
    if let Some((_, y)) = activation {
        same(OP, x, y)?;
    }
    if x.dtype() == DType::F32 {
        return vector_grad(arguments);
    }
    let mut g = naive::values(OP, dy)?;
    if let Some((activation, y)) = activation {
        g.iter_mut().zip(naive::values(OP, y)?).for_each(|(g, y)| *g *= slope(activation, y));
    }
    let channel = [gamma, mean, inv_std].map(|t| naive::values(OP, t));
    let [gamma, mean, inv_std] = channel;
    let (dx, dgamma, dbeta) = naive::norm::grad(&naive::values(OP, x)?, &g, [&gamma?, &mean?, &inv_std?], extent);
    Ok(BatchNormGradients {
        dx: naive::tensor_like(x, dx)?,
        dgamma: naive::tensor([extent.channels], dgamma, x.dtype())?,
        dbeta: naive::tensor([extent.channels], dbeta, x.dtype())?,
        dresidual: residual.then(|| naive::tensor_like(x, g)).transpose()?,
    })
}

fn apply(
    op: &'static str,
    x: &Tensor,
    [gamma, beta, mean, inv_std]: [&Tensor; 4],
    (residual, activation): (Option<&Tensor>, Activation),
) -> Result<Tensor> {
    let extent = extent(op, x, &[])?;
    let [gamma, beta, mean, inv_std] = [gamma, beta, mean, inv_std].map(|t| naive::values(op, t));
    let (beta, mean) = (beta?, mean?);
    if let Some(residual) = residual {
        same(op, x, residual)?;
    }
    let scale: Vec<f64> = gamma?.iter().zip(inv_std?).map(|(g, s)| g * s).collect();
    let shift: Vec<f64> = (0..extent.channels).map(|c| beta[c] - mean[c] * scale[c]).collect();
    if x.dtype() == DType::F32 {
        let rows = x.to_channels_last();
        let residual = residual.map(|r| aligned(r, &rows)).transpose()?;
        let residual = residual.as_ref().map(|r| r.memory()).transpose()?;
        let [scale, shift] = [scale, shift].map(|v| v.into_iter().map(|v| v as f32).collect::<Vec<_>>());
        let mut y = rows.empty_like();
        vector::apply(rows.memory()?, residual, [&scale, &shift], activation, y.memory_mut()?);
        return ordered_as(x, y);
    }
    let mut y = naive::norm::affine(&naive::values(op, x)?, &scale, &shift, extent);
    if let Some(residual) = residual {
        y.iter_mut().zip(naive::values(op, residual)?).for_each(|(y, r)| *y += r);
    }
    naive::tensor_like(x, y.into_iter().map(|y| activation.apply(y)).collect())
}

fn vector_grad(arguments: BatchNormGrad) -> Result<BatchNormGradients> {
    let BatchNormGrad { x, dy, gamma, mean, inv_std, activation, residual } = arguments;
    let rows = x.to_channels_last();
    let mut g = aligned(dy, &rows)?;
    let mut through = match activation {
        Some((activation, y)) if activation != Activation::None => Some((activation, aligned(y, &rows)?)),
        _ => None,
    };
    // The gradient of the residual is wanted as a tensor anyway: then it is made once, and serves both passes.
    if residual && let Some((activation, y)) = through.take() {
        let dy = g;
        g = rows.empty_like();
        vector::through(activation, y.memory()?, dy.memory()?, g.memory_mut()?);
    }
    let activation = match &through {
        Some((activation, y)) => Some((*activation, y.memory()?)),
        None => None,
    };
    let [gamma, mean, inv_std] = [gamma, mean, inv_std].map(Tensor::contiguous);
    let mut dx = rows.empty_like();
    let (dgamma, dbeta) = vector::gradients(
        vector::Saved { x: rows.memory()?, dy: g.memory()?, activation },
        [gamma.memory()?, mean.memory()?, inv_std.memory()?],
        dx.memory_mut()?,
    );
    Ok(BatchNormGradients {
        dx: ordered_as(x, dx)?,
        dgamma: Tensor::from_vec(gamma.shape(), dgamma)?,
        dbeta: Tensor::from_vec(gamma.shape(), dbeta)?,
        dresidual: residual.then(|| ordered_as(x, g)).transpose()?,
    })
}

/// A channels-last result in the memory order of the input, where that is dense.
fn ordered_as(x: &Tensor, y: Tensor) -> Result<Tensor> {
    if x.layout().is_dense() { aligned(&y, x) } else { Ok(y) }
}

/// Derivative of an activation from its output.
fn slope(activation: Activation, y: f64) -> f64 {
    match activation {
        Activation::None => 1.0,
        Activation::Relu => f64::from(u8::from(y > 0.0)),
        Activation::Relu6 => f64::from(u8::from(y > 0.0 && y < 6.0)),
        Activation::LeakyRelu(slope) => {
            if y > 0.0 {
                1.0
            } else {
                f64::from(slope)
            }
        }
    }
}

fn extent(op: &'static str, x: &Tensor, channel_wise: &[&Tensor]) -> Result<Extent> {
    let extent = match *x.shape().dims() {
        [outer, channels] => Extent { outer, channels, inner: 1 },
        [outer, channels, height, width] => Extent { outer, channels, inner: height * width },
        _ => return Err(Error::shape(op, format!("input must be [N, C] or [N, C, H, W], found {}", x.shape()))),
    };
    for t in channel_wise {
        same_type(op, x, t)?;
        if t.shape().dims() != [extent.channels] {
            return Err(Error::shape(op, format!("{} values for the {} channels", t.shape(), extent.channels)));
        }
    }
    Ok(extent)
}
