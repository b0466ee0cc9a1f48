//! Forward batch normalisation of f32 and bf16 tensors that are `[rows, channels]` in memory, as `[N, C]` and channels-last images are, or `[channels, values]`, with the batch innermost.

use super::moments::{Moments, Piece};
use super::order::Order;
use crate::elementwise::runs::{self, COPIES};
use crate::elementwise::sweep::Sweep;
use crate::isa::{Isa, Stored};
use crate::reduce::columns::{self, Columns, fold, piece_totals};
use crate::{Activation, par};

/// Rows that tell about where the mean of a piece lies.
const SAMPLES: usize = 32;

/// Mean and biased variance of each channel.
///
/// Each piece of the rows is read once, for the sums of the deviations from a value near the mean, which a few of its rows give, and of their squares.
/// The pieces are combined in f64, so that no large numbers cancel.
pub(super) fn statistics<T: Stored>(x: &[T], channels: usize, order: Order) -> Moments {
    if channels == 0 {
        return Moments::of_pieces(0, &[]);
    }
    if order == Order::Runs {
        return statistics_of_runs(x, channels);
    }
    let (wide, piece) = columns::shape(channels);
    let pieces = par::map(x.len().div_ceil(piece), |i| {
        of_part(&x[i * piece..x.len().min((i + 1) * piece)], [0, channels], wide)
    });
    Moments::of_pieces(channels, &pieces)
}

/// As [`statistics`], of channels one behind the other.
fn statistics_of_runs<T: Stored>(x: &[T], channels: usize) -> Moments {
    let run = x.len() / channels;
    let pieces = par::map(x.len().div_ceil(runs::PIECE), |i| {
        let range = i * runs::PIECE..x.len().min((i + 1) * runs::PIECE);
        let parts = runs::parts(range, run).map(|(channel, part)| of_part(&x[part], [channel, 1], COPIES));
        parts.collect::<Vec<Piece>>()
    });
    Moments::of_pieces(channels, &pieces.concat())
}

/// What whole rows of some channels, the first of them and their number, tell. Rows are taken together until they have `wide` values.
fn of_part<T: Stored>(part: &[T], [first, channels]: [usize; 2], wide: usize) -> Piece {
    let rows = (part.len() / channels) as f64;
    let near = sampled_mean(part, channels);
    let mut deviations = [vec![0.0; channels], vec![0.0; channels]];
    let around = piece_totals(Deviations, [part], [&near.repeat(wide / channels)], wide);
    fold(Deviations, &around, &mut deviations);
    let [sums, squares] = deviations;
    let moments = near.iter().zip(sums.iter().zip(squares));
    let values = moments.map(|(near, (d, dd))| [f64::from(*near) + d / rows, dd - d * d / rows]).collect();
    Piece { first, count: part.len() / channels, values }
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

impl Order {
    /// `y = activation(x · scale + shift (+ residual))` by channel.
    pub(super) fn apply<T: Stored>(
        self,
        x: &[T],
        (residual, activation): (Option<&[T]>, Activation),
        affine: [&[f32]; 2],
        y: &mut [T],
    ) {
        match residual {
            Some(residual) => self.sweep(Apply(activation), [x, residual], affine, y),
            None => self.sweep(Apply(activation), [x], affine, y),
        }
    }
}
