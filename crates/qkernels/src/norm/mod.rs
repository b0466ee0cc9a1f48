//! Batch normalisation (Ioffe and Szegedy, 2015, arXiv:1502.03167) of `[N, C]` and `[N, C, H, W]`.
//!
//! Every front may add a residual and apply an activation in the same pass: `y = activation((x - mean) · inv_std · gamma + beta + residual)`.
//! Channels-last f32 and bf16 are fast, and so are those with the batch innermost, as sparse layers leave them; parameters and statistics of bf16 are f32.

mod backward;
mod grad;
pub(crate) mod moments;
mod order;
mod vector;

pub use grad::{BatchNormGrad, BatchNormGradients, batch_norm_grad};
pub use moments::Moments;

use crate::Activation;
use crate::elementwise::operands::{aligned, same_stored};
use crate::isa::Stored;
use crate::naive::{self, norm::Extent};
use order::Order;
use qtensor::{DType, Error, Result, Tensor, bf16};

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
    /// Statistics of `x` that the kernel took that wrote it; else they cost a pass
    pub moments: Option<&'a Moments>,
}

impl<'a> BatchNormTrain<'a> {
    /// Without residual, activation and known statistics.
    pub fn new(x: &'a Tensor, gamma: &'a Tensor, beta: &'a Tensor, eps: f64) -> Self {
        BatchNormTrain { x, gamma, beta, eps, residual: None, activation: Activation::None, moments: None }
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

/// Normalises with the mean and the biased variance of the batch.
///
/// # Errors
/// `x` is neither `[N, C]` nor `[N, C, H, W]` or has no value to average, shapes or types that do not fit, or a type other than f32, bf16 and f64.
pub fn batch_norm_train(arguments: BatchNormTrain) -> Result<BatchNormOutput> {
    const OP: &str = "batch_norm_train";
    let BatchNormTrain { x, gamma, beta, eps, residual, activation, moments } = arguments;
    let extent = extent(OP, x, &[gamma, beta])?;
    if extent.count() == 0 && extent.channels > 0 {
        return Err(Error::shape(OP, format!("input of shape {} has no values to average", x.shape())));
    }
    let (mean, var) = match moments {
        Some(moments) => moments.of(OP, [extent.channels, extent.count()])?,
        None => statistics(OP, x)?,
    };
    let inv_std = var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let dtype = x.dtype().of_parameters();
    let [mean, var, inv_std] = [mean, var, inv_std].map(|v| naive::tensor([extent.channels], v, dtype));
    let (mean, var, inv_std) = (mean?, var?, inv_std?);
    let y = apply(OP, x, [gamma, beta, &mean, &inv_std], (residual, activation))?;
    Ok(BatchNormOutput { y, mean, var, inv_std })
}

/// Mean and biased variance of each channel.
///
/// # Errors
/// `x` is neither `[N, C]` nor `[N, C, H, W]`, or a type other than f32, bf16 and f64.
pub(crate) fn statistics(op: &'static str, x: &Tensor) -> Result<(Vec<f64>, Vec<f64>)> {
    let extent = extent(op, x, &[])?;
    let (order, ordered) = Order::of(x)?;
    let moments = match x.dtype() {
        DType::F32 => vector::statistics::<f32>(ordered.memory()?, extent.channels, order),
        DType::BF16 => vector::statistics::<bf16>(ordered.memory()?, extent.channels, order),
        _ => return Ok(naive::norm::statistics(&naive::values(op, x)?, extent)),
    };
    Ok(moments.into_parts())
}

/// Normalises with given statistics.
///
/// # Errors
/// `x` is neither `[N, C]` nor `[N, C, H, W]`, shapes or types that do not fit, or a type other than f32, bf16 and f64.
pub fn batch_norm_infer(arguments: BatchNormInfer) -> Result<Tensor> {
    const OP: &str = "batch_norm_infer";
    let BatchNormInfer { x, gamma, beta, mean, var, eps, residual, activation } = arguments;
    extent(OP, x, &[gamma, beta, mean, var])?;
    let inv_std = naive::values(OP, var)?.into_iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let inv_std = naive::tensor(var.shape(), inv_std, var.dtype())?;
    apply(OP, x, [gamma, beta, mean, &inv_std], (residual, activation))
}

/// The output of [`batch_norm_train`] without a residual once more, from the `mean` and the `inv_std` that it returned: the same bits.
///
/// # Errors
/// `x` is neither `[N, C]` nor `[N, C, H, W]`, shapes or types that do not fit, or a type other than f32, bf16 and f64.
pub fn batch_norm_again(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    [mean, inv_std]: [&Tensor; 2],
    activation: Activation,
) -> Result<Tensor> {
    const OP: &str = "batch_norm_again";
    extent(OP, x, &[gamma, beta, mean, inv_std])?;
    apply(OP, x, [gamma, beta, mean, inv_std], (None, activation))
}

fn apply(
    op: &'static str,
    x: &Tensor,
    by_channel: [&Tensor; 4],
    (residual, activation): (Option<&Tensor>, Activation),
) -> Result<Tensor> {
    let extent = extent(op, x, &[])?;
    if let Some(residual) = residual {
        same_stored(op, x, residual)?;
    }
    let [scale, shift] = affine(op, by_channel)?;
    match x.dtype() {
        DType::F32 => return apply_to::<f32>(x, [&scale, &shift], (residual, activation)),
        DType::BF16 => return apply_to::<bf16>(x, [&scale, &shift], (residual, activation)),
        _ => {}
    }
    let mut y = naive::norm::affine(&naive::values(op, x)?, &scale, &shift, extent);
    if let Some(residual) = residual {
        y.iter_mut().zip(naive::values(op, residual)?).for_each(|(y, r)| *y += r);
    }
    naive::tensor_like(x, y.into_iter().map(|y| activation.apply(y)).collect())
}

fn apply_to<T: Stored>(
    x: &Tensor,
    affine: [&[f64]; 2],
    (residual, activation): (Option<&Tensor>, Activation),
) -> Result<Tensor> {
    let (order, ordered) = Order::of(x)?;
    let residual = residual.map(|r| aligned(r, &ordered)).transpose()?;
    let residual = residual.as_ref().map(|r| r.memory()).transpose()?;
    let [scale, shift] = affine.map(single);
    let mut y = ordered.empty_like();
    order.apply::<T>(ordered.memory()?, (residual, activation), [&scale, &shift], y.memory_mut()?);
    ordered_as(x, y)
}

/// Scale and shift of each channel: `(x - mean) · inv_std · gamma + beta = x · scale + shift`.
fn affine(op: &'static str, [gamma, beta, mean, inv_std]: [&Tensor; 4]) -> Result<[Vec<f64>; 2]> {
    let [gamma, beta, mean, inv_std] = [gamma, beta, mean, inv_std].map(|t| naive::values(op, t));
    let scale: Vec<f64> = gamma?.iter().zip(inv_std?).map(|(g, s)| g * s).collect();
    let shift = beta?.iter().zip(mean?).zip(&scale).map(|((beta, mean), scale)| beta - mean * scale).collect();
    Ok([scale, shift])
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// A result in the memory order of the input, where that is dense.
fn ordered_as(x: &Tensor, y: Tensor) -> Result<Tensor> {
    if x.layout().is_dense() { aligned(&y, x) } else { Ok(y) }
}

pub(crate) fn extent(op: &'static str, x: &Tensor, channel_wise: &[&Tensor]) -> Result<Extent> {
    let extent = match *x.shape().dims() {
        [outer, channels] => Extent { outer, channels, inner: 1 },
        [outer, channels, height, width] => Extent { outer, channels, inner: height * width },
        _ => return Err(Error::shape(op, format!("input must be [N, C] or [N, C, H, W], found {}", x.shape()))),
    };
    for t in channel_wise {
        let expected = x.dtype().of_parameters();
        if !x.dtype().is_float() || t.dtype() != expected {
            return Err(Error::DType { op, expected, found: t.dtype() });
        }
        if t.shape().dims() != [extent.channels] {
            return Err(Error::shape(op, format!("{} values for the {} channels", t.shape(), extent.channels)));
        }
    }
    Ok(extent)
}
