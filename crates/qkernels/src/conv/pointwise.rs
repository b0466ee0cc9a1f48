//! 1×1 convolution of stride 1 without padding: a channels-last image is a matrix of pixels by channels, so it is one matrix product.

use super::Geometry;
use crate::Activation;
use crate::gemm::Gemm;
use crate::layout::to_channels_last;
use qtensor::{Result, Tensor};

/// Pixels by channels, without a copy where the image is dense and channels-last.
fn pixels(x: &Tensor) -> Result<Tensor> {
    let x = to_channels_last(x)?.permute(&[0, 2, 3, 1])?;
    let &[n, h, w, c] = &x.shape()[..] else { unreachable!("images have four axes") };
    x.reshape([n * h * w, c])
}

/// The image of a matrix of pixels.
fn image(pixels: &Tensor, [n, c, h, w]: [usize; 4]) -> Result<Tensor> {
    pixels.reshape([n, h, w, c])?.permute(&[0, 3, 1, 2])
}

/// Filters by channels.
fn matrix(w: &Tensor) -> Result<Tensor> {
    w.select(3, 0)?.select(2, 0)
}

/// The forward pass.
///
/// # Errors
/// A size overflows.
pub(super) fn forward(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    g: &Geometry,
) -> Result<Tensor> {
    let (a, b) = (pixels(x)?, matrix(w)?.t()?);
    image(&Gemm { bias, activation, ..Gemm::new(&a, &b) }.run()?, g.output_shape())
}

/// The gradient with respect to the input.
///
/// # Errors
/// A size overflows.
pub(super) fn input_grad(dy: &Tensor, w: &Tensor, g: &Geometry) -> Result<Tensor> {
    let (a, b) = (pixels(dy)?, matrix(w)?);
    image(&Gemm::new(&a, &b).run()?, g.input_shape())
}

/// The gradient with respect to the weights.
///
/// # Errors
/// A size overflows.
pub(super) fn weight_grad(x: &Tensor, dy: &Tensor, g: &Geometry) -> Result<Tensor> {
    let (a, b) = (pixels(dy)?.t()?, pixels(x)?);
    let mut dw = Tensor::empty([g.filters, g.channels], x.dtype().of_parameters())?;
    Gemm::new(&a, &b).run_into(&mut dw)?;
    dw.reshape([g.filters, g.channels, 1, 1])
}
