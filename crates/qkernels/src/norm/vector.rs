//! Forward batch normalisation of f32 and bf16 tensors that are `[rows, channels]` in memory: `[N, C]`, and channels-last images.

use super::moments::{Moments, Piece};
use crate::elementwise::sweep::{Sweep, sweep};
use crate::isa::{Isa, Stored};
use crate::reduce::columns::{self, Columns, fold, piece_totals};
use crate::{Activation, par};

/// Rows that tell about where the mean of a piece lies.
const SAMPLES: usize = 32;

/// Mean and biased variance of each channel.
///
/// Each piece of the rows is read once, for the sums of the deviations from a value near the mean, which a few of its rows give, and of their squares.
/// The pieces are combined in f64, so that no large numbers cancel.
pub(super) fn statistics<T: Stored>(x: &[T], channels: usize) -> Moments {
    if channels == 0 {
        return Moments::of_pieces(0, &[]);
    }
    let (wide, piece) = columns::shape(channels);
    let pieces = par::map(x.len().div_ceil(piece), |i| {
        let part = &x[i * piece..x.len().min((i + 1) * piece)];
        let rows = (part.len() / channels) as f64;
        let near = sampled_mean(part, channels);
        let mut deviations = [vec![0.0; channels], vec![0.0; channels]];
        let around = piece_totals(Deviations, [part], [&near.repeat(wide / channels)], wide);
        fold(Deviations, &around, &mut deviations);
        let [first, second] = deviations;
        let moments = near.iter().zip(first.iter().zip(second));
        let values = moments.map(|(near, (d, dd))| [f64::from(*near) + d / rows, dd - d * d / rows]).collect();
        Piece { first: 0, count: part.len() / channels, values }
    });
    Moments::of_pieces(channels, &pieces)
}

/// The mean of each channel over a few rows, evenly spread.
fn sampled_mean<T: Stored>(x: &[T], channels: usize) -> Vec<f32> {
    let rows = x.len() / channels;
    let samples = rows.min(SAMPLES);
    let mut near = vec![0.0f32; channels];
    for i in 0..samples {
        let row = &x[i * rows / samples * channels..][..channels];
        near.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.wide());
    }
    near.iter_mut().for_each(|sum| *sum /= samples as f32);
    near
}

/// Σ(x - m) and Σ(x - m)²
#[derive(Clone, Copy)]
struct Deviations;

impl Columns<1, 1, 2> for Deviations {
    const START: f32 = 0.0;
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x]: [I::F32; 1], [near]: [I::F32; 1], [first, second]: &mut [I::F32; 2]) {
        let d = isa.sub(x, near);
        *first = isa.add(*first, d);
        *second = isa.fma(d, d, *second);
    }
    #[inline(always)]
    fn join<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
        isa.add(a, b)
    }
    fn join_f64(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// `activation(x · scale + shift (+ residual))` by channel.
#[derive(Clone, Copy)]
struct Apply(Activation);

impl Sweep<1, 2, 1> for Apply {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x]: [I::F32; 1], [scale, shift]: [I::F32; 2], write: &mut [I::F32; 1]) {
        write[0] = self.0.apply_vector(isa, isa.fma(x, scale, shift));
    }
}

impl Sweep<2, 2, 1> for Apply {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x, residual]: [I::F32; 2], [scale, shift]: [I::F32; 2], write: &mut [I::F32; 1]) {
        write[0] = self.0.apply_vector(isa, isa.add(isa.fma(x, scale, shift), residual));
    }
}

/// `y = activation(x · scale + shift (+ residual))` by channel.
pub(super) fn apply<T: Stored>(
    x: &[T],
    residual: Option<&[T]>,
    [scale, shift]: [&[f32]; 2],
    activation: Activation,
    y: &mut [T],
) {
    match residual {
        Some(residual) => sweep(Apply(activation), [x, residual], [scale, shift], [y]),
        None => sweep(Apply(activation), [x], [scale, shift], [y]),
    }
}
