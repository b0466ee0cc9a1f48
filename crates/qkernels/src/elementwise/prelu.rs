//! The rectifier with a learnt slope (He et al., 2015, arXiv:1502.01852).

use super::{same, same_type};
use crate::{naive, reduce};
use qtensor::{Error, Result, Tensor};

/// `x` where positive, `slope · x` elsewhere, with one slope for all or one for each index of axis 1 of `x` (`slope` of shape `[1]` or `[C]`).
///
/// # Errors
/// The number of slopes does not fit, or types that differ or are neither f32 nor f64.
pub fn prelu(x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    let wide = wide_slope(x, slope)?;
    let y = naive::values("prelu", x)?.into_iter().zip(naive::values("prelu", &wide)?);
    naive::tensor_like(x, y.map(|(x, s)| if x > 0.0 { x } else { s * x }).collect())
}

/// `(dx, dslope)` of [`prelu`].
///
/// # Errors
/// As [`prelu`], or `dy` has not the shape of `x`.
pub fn prelu_grad(x: &Tensor, slope: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    same("prelu_grad", x, dy)?;
    let wide = naive::values("prelu_grad", &wide_slope(x, slope)?)?;
    let (values, gradients) = (naive::values("prelu_grad", x)?, naive::values("prelu_grad", dy)?);
    let pairs = || values.iter().zip(&gradients);
    let dx = pairs().zip(&wide).map(|((x, dy), s)| if *x > 0.0 { *dy } else { s * dy }).collect();
    let dwide = pairs().map(|(x, dy)| if *x > 0.0 { 0.0 } else { x * dy }).collect();
    let dwide = naive::tensor_like(x, dwide)?;
    let axes: Vec<usize> = (0..x.rank()).filter(|a| slope.numel() == 1 || *a != 1).collect();
    let dslope = reduce::sum(&dwide, &axes, false)?.reshape(slope.shape())?;
    Ok((naive::tensor_like(dy, dx)?, dslope))
}

fn wide_slope(x: &Tensor, slope: &Tensor) -> Result<Tensor> {
    same_type("prelu", x, slope)?;
    let channels = if x.rank() >= 2 { x.shape()[1] } else { 1 };
    if slope.rank() != 1 || (slope.numel() != 1 && slope.numel() != channels) {
        return Err(Error::shape("prelu", format!("slopes of shape {} for input {}", slope.shape(), x.shape())));
    }
    let mut dims = vec![1; x.rank()];
    if slope.numel() != 1 {
        dims[1] = channels;
    }
    slope.reshape(dims)?.expand(x.shape())
}
