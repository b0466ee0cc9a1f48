//! Winograd convolutions: stride 1, no dilation, one group; 3×3 taps in tiles of 4×4 outputs with a quarter of the multiplications, or 5×5 taps in tiles of 2×2
//! with little more than a third.
//! Images may be f32 or bf16, with products of that type and sums in f32; filters and their gradients are f32.
//!
//! The images are cut into tiles whose inputs, 6×6 pixels, overlap. Each tile's channels are transformed to 36 points, at which the convolution is a product of channels
//! by filters, as a matrix product over many tiles; the products are transformed back to the outputs of the tile.

mod ahead;
mod correlate;
mod filters;
mod multiply;
mod outer;
mod patches;
mod tiling;
mod transform;
mod weight_grad;

use super::stage::Images;
use super::{Geometry, Measured};
use crate::isa::{self, IsaId, Stored};
use crate::layout::channels_innermost;
use crate::norm::Moments;
use crate::par::SharedOut;
use correlate::Correlation;
pub(super) use correlate::Ending;
use filters::Filters;
pub(crate) use filters::odd_lines;
use qtensor::{Result, Tensor};
use std::marker::PhantomData;
pub(crate) use tiling::Tiles;
use transform::{Form, FourByThree, TwoByFive};
use weight_grad::WeightGrad;

/// Whether a convolution has the form that these kernels compute.
pub(super) fn is_possible(g: &Geometry) -> bool {
    [FourByThree::TAPS, TwoByFive::TAPS].map(|taps| [taps; 2]).contains(&g.kernel)
        && g.stride == [1; 2]
        && g.dilation == [1; 2]
        && g.groups == 1
}

/// Filters and their bias.
pub(super) type Filtering<'a> = (&'a Tensor, Option<&'a [f32]>);

/// A forward pass: `ending(conv(x, w) + bias)` for each of `projections`.
pub(super) struct Forward<'a, T> {
    pub(super) projections: &'a [Filtering<'a>],
    /// A residual has the memory of the only result.
    pub(super) ending: Ending<'a, T>,
    /// Whether the results follow each other along the batch of one tensor.
    pub(super) is_joined: bool,
    /// Whether means and variances of the results are taken.
    pub(super) is_measured: bool,
}

/// A tensor for each projection, or one for all, and the statistics of all, if they were wanted.
///
/// # Errors
/// A size overflows.
pub(super) fn forward<T: Stored>(
    g: &Geometry,
    x: &Tensor,
    work: &Forward<T>,
    isa: IsaId,
) -> Result<(Vec<Tensor>, Option<Moments>)> {
    if g.kernel == [TwoByFive::TAPS; 2] {
        return forward_in::<T, TwoByFive>(g, x, work, isa);
    }
    forward_in::<T, FourByThree>(g, x, work, isa)
}

/// The forward pass of one projection.
///
/// # Errors
/// A size overflows.
pub(super) fn forward_one<T: Stored>(
    g: &Geometry,
    x: &Tensor,
    projection: Filtering,
    ending: Ending<T>,
    is_measured: bool,
) -> Result<Measured> {
    let work = Forward { projections: &[projection], ending, is_joined: false, is_measured };
    let (mut results, moments) = forward(g, x, &work, isa::current())?;
    Ok((results.swap_remove(0), moments))
}

fn forward_in<T: Stored, F: Form>(
    g: &Geometry,
    x: &Tensor,
    work: &Forward<T>,
    isa: IsaId,
) -> Result<(Vec<Tensor>, Option<Moments>)> {
    let &Forward { projections, ending, is_joined, is_measured } = work;
    let x = channels_innermost(x)?;
    let work = Correlation::<T, F> {
        form: PhantomData,
        batch: g.batch,
        sources: vec![Images::new(&x)?],
        source_channels: g.channels,
        source: g.input,
        origin: g.padding.map(|p| -(p as isize)),
        filters: projections.iter().map(|(w, _)| Filters::forward(w)).collect::<Result<_>>()?,
        channels: g.filters,
        output: g.out,
        biases: projections.iter().map(|(_, bias)| *bias).collect(),
        ending,
        is_measured,
    };
    let [n, o, h, w] = g.output_shape();
    let together = if is_joined { projections.len() } else { 1 };
    let tensors =
        (0..projections.len() / together).map(|_| Tensor::empty_channels_last([together * n, o, h, w], T::DTYPE));
    let mut tensors: Vec<Tensor> = tensors.collect::<Result<_>>()?;
    let mut outs = Vec::with_capacity(projections.len());
    for tensor in &mut tensors {
        outs.extend(tensor.memory_mut::<T>()?.chunks_exact_mut(n * o * h * w).map(SharedOut::new));
    }
    let pieces = work.run(isa, &outs)?;
    let moments = is_measured.then(|| Moments::of_pieces(projections.len() * o, &pieces));
    Ok((tensors, moments))
}

/// The sum of the input gradients of convolutions of one input, each with the gradient of its output and its filters.
///
/// # Errors
/// A size overflows.
pub(super) fn input_grad<T: Stored>(g: &Geometry, outputs: &[(&Tensor, &Tensor)], isa: IsaId) -> Result<Tensor> {
    if g.kernel == [TwoByFive::TAPS; 2] {
        return input_grad_in::<T, TwoByFive>(g, outputs, isa);
    }
    input_grad_in::<T, FourByThree>(g, outputs, isa)
}

fn input_grad_in<T: Stored, F: Form>(g: &Geometry, outputs: &[(&Tensor, &Tensor)], isa: IsaId) -> Result<Tensor> {
    let grads: Vec<Tensor> = outputs.iter().map(|(dy, _)| channels_innermost(dy)).collect::<Result<_>>()?;
    let work = Correlation::<T, F> {
        form: PhantomData,
        batch: g.batch,
        sources: grads.iter().map(Images::new).collect::<Result<_>>()?,
        source_channels: g.filters,
        source: g.out,
        origin: g.padding.map(|p| p as isize + 1 - F::TAPS as isize),
        filters: outputs.iter().map(|(_, w)| Filters::input_grad(w)).collect::<Result<_>>()?,
        channels: g.channels,
        output: g.input,
        biases: vec![None],
        ending: Ending::default(),
        is_measured: false,
    };
    let shape = [g.batch, g.channels, g.input[0], g.input[1]];
    let mut sum = Tensor::empty_channels_last(shape, T::DTYPE)?;
    let out = SharedOut::new(sum.memory_mut::<T>()?);
    work.run(isa, &[out])?;
    Ok(sum)
}

/// The weight gradients of convolutions of one input, each from the gradient of its output.
///
/// # Errors
/// A size overflows.
pub(super) fn weight_grad<T: Stored>(g: &Geometry, x: &Tensor, grads: &[&Tensor], isa: IsaId) -> Result<Vec<Tensor>> {
    if g.kernel == [TwoByFive::TAPS; 2] {
        return weight_grad_in::<T, TwoByFive>(g, x, grads, isa);
    }
    weight_grad_in::<T, FourByThree>(g, x, grads, isa)
}

fn weight_grad_in<T: Stored, F: Form>(g: &Geometry, x: &Tensor, grads: &[&Tensor], isa: IsaId) -> Result<Vec<Tensor>> {
    let x = channels_innermost(x)?;
    let grads: Vec<Tensor> = grads.iter().map(|dy| channels_innermost(dy)).collect::<Result<_>>()?;
    WeightGrad::<T, F> {
        form: PhantomData,
        batch: g.batch,
        source: Images::new(&x)?,
        channels: g.channels,
        input: g.input,
        origin: g.padding.map(|p| -(p as isize)),
        grads: grads.iter().map(Images::new).collect::<Result<_>>()?,
        filters: g.filters,
        output: g.out,
    }
    .run(isa)
}

/// Whether the convolution may be computed so. A number of an image that is not finite spoils all of the tiles that it takes part in, and rounding errors
/// are relative to a tile's largest numbers, so images of few channels, which are what is read from outside, are left to the direct algorithm.
pub(super) fn is_safe(g: &Geometry) -> bool {
    is_possible(g) && g.channels.min(g.filters) >= 8
}

/// What the algorithm costs, as multiply-adds at the same speed. Counted for AVX-512: a vector of 16 channels of a tile takes about 80 cycles to transform and
/// 60 to transform back, at two vectors of multiply-adds a cycle; a vector of filters of a channel about 50.
pub(super) fn cost(g: &Geometry, in_word: usize) -> f64 {
    const INPUT: usize = 80 * 2;
    const OUTPUT: usize = 60 * 2;
    const FILTER: usize = 50 * 2;
    let tile = transform::PATCH + 1 - g.kernel[0];
    let [inputs, lanes] = [g.channels, g.filters].map(|channels| channels.next_multiple_of(16));
    let work = transform::POINTS * g.channels * lanes / in_word + INPUT * inputs + OUTPUT * lanes;
    let tiles = tiling::Tiles::new(g.batch, g.out, tile).count;
    tiles as f64 * work as f64 + (FILTER * g.channels * lanes) as f64
}
