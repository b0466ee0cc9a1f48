//! Winograd convolutions: 3×3 taps, stride 1, no dilation, one group, in tiles of 4×4 outputs with a quarter of the multiplications.
//!
//! The images are cut into tiles whose inputs overlap. Each tile's channels are transformed to 36 points, at which the convolution is a product of channels
//! by filters, as a matrix product over many tiles; the products are transformed back to 4×4 outputs.

mod correlate;
mod filters;
mod multiply;
mod patches;
mod tiling;
mod transform;

use super::Geometry;
use super::stage::Images;
use crate::Activation;
use crate::isa::IsaId;
use correlate::Correlation;
use filters::Filters;
use qtensor::{Result, Tensor};

/// Whether a convolution has the form that these kernels compute.
pub(super) fn is_possible(g: &Geometry) -> bool {
    g.kernel == [3; 2] && g.stride == [1; 2] && g.dilation == [1; 2] && g.groups == 1
}

/// With channels-last memory.
fn channels_last(x: &Tensor) -> Tensor {
    if x.strides()[1] == 1 { x.clone() } else { x.to_channels_last() }
}

/// `activation(conv(x, w) + bias)` for each of `projections`, filters with their bias.
///
/// # Errors
/// A size overflows.
pub(super) fn forward(
    g: &Geometry,
    x: &Tensor,
    projections: &[(&Tensor, Option<&[f32]>)],
    activation: Activation,
    isa: IsaId,
) -> Result<Vec<Tensor>> {
    let x = channels_last(x);
    Correlation {
        batch: g.batch,
        sources: vec![Images::new(&x)?],
        source_channels: g.channels,
        source: g.input,
        origin: g.padding.map(|p| -(p as isize)),
        filters: projections.iter().map(|(w, _)| Filters::forward(w)).collect::<Result<_>>()?,
        channels: g.filters,
        output: g.out,
        biases: projections.iter().map(|(_, bias)| *bias).collect(),
        activation,
    }
    .run(isa)
}

/// The sum of the input gradients of convolutions of one input, each with the gradient of its output and its filters.
///
/// # Errors
/// A size overflows.
pub(super) fn input_grad(g: &Geometry, outputs: &[(&Tensor, &Tensor)], isa: IsaId) -> Result<Tensor> {
    let grads: Vec<Tensor> = outputs.iter().map(|(dy, _)| channels_last(dy)).collect();
    let mut sums = Correlation {
        batch: g.batch,
        sources: grads.iter().map(Images::new).collect::<Result<_>>()?,
        source_channels: g.filters,
        source: g.out,
        origin: g.padding.map(|p| p as isize - 2),
        filters: outputs.iter().map(|(_, w)| Filters::input_grad(w)).collect::<Result<_>>()?,
        channels: g.channels,
        output: g.input,
        biases: vec![None],
        activation: Activation::None,
    }
    .run(isa)?;
    Ok(sums.swap_remove(0))
}

/// Whether it is faster than the direct algorithm. A number of an image that is not finite spoils all of the tiles that it takes part in, and rounding errors
/// are relative to a tile's largest numbers, so images of few channels, which are what is read from outside, are left to the direct algorithm.
pub(super) fn pays(g: &Geometry) -> bool {
    is_possible(g) && g.channels.min(g.filters) >= 8 && cost(g) < 0.8 * direct_cost(g)
}

/// Multiply-adds of the direct algorithm on vectors of 16 lanes.
fn direct_cost(g: &Geometry) -> f64 {
    let lanes = g.filters.next_multiple_of(16);
    (g.batch * g.out[0] * g.out[1]) as f64 * (9 * g.channels * lanes) as f64
}

/// What the algorithm costs, as multiply-adds at the same speed. Measured on Zen 5: a vector of 16 channels of a tile takes about 80 cycles to transform and
/// 60 to transform back, at two vectors of multiply-adds a cycle; a vector of filters of a channel about 50.
pub(super) fn cost(g: &Geometry) -> f64 {
    const INPUT: usize = 80 * 2;
    const OUTPUT: usize = 60 * 2;
    const FILTER: usize = 50 * 2;
    let [inputs, lanes] = [g.channels, g.filters].map(|channels| channels.next_multiple_of(16));
    let tile = transform::POINTS * g.channels * lanes + INPUT * inputs + OUTPUT * lanes;
    let tiles = tiling::Tiles::new(g.batch, g.out).count;
    tiles as f64 * tile as f64 + (FILTER * g.channels * lanes) as f64
}

#[cfg(test)]
mod tests;
