//! Batch normalisation of f32 tensors that are `[rows, channels]` in memory: `[N, C]`, and channels-last images.

use crate::elementwise::sweep::{Into, Map, Sweep, sweep};
use crate::isa::Isa;
use crate::reduce::columns::{self, Columns, Sum, columns, fold, piece_totals};
use crate::{Activation, par};

/// Mean and biased variance of each channel.
///
/// Each piece of the rows is read twice while it is in the cache: once for its means, once for the sums of the deviations from them and of
/// their squares. The pieces are combined in f64, so that no large numbers cancel.
pub(super) fn statistics(x: &[f32], channels: usize) -> (Vec<f64>, Vec<f64>) {
    if channels == 0 {
        return (Vec::new(), Vec::new());
    }
    let (wide, piece) = columns::shape(channels);
    let pieces = par::map(x.len().div_ceil(piece), |i| {
        let part = &x[i * piece..x.len().min((i + 1) * piece)];
        let rows = (part.len() / channels) as f64;
        let mut sums = [vec![0.0; channels]];
        fold(Sum, &piece_totals(Sum, [part], [], wide), &mut sums);
        let near: Vec<f32> = sums[0].iter().map(|sum| (sum / rows) as f32).collect();
        let mut deviations = [vec![0.0; channels], vec![0.0; channels]];
        let around = piece_totals(Deviations, [part], [&near.repeat(wide / channels)], wide);
        fold(Deviations, &around, &mut deviations);
        let [first, second] = deviations;
        let moments = near.iter().zip(first.iter().zip(second));
        moments.map(|(near, (d, dd))| [f64::from(*near) + d / rows, dd - d * d / rows]).collect::<Vec<_>>()
    });
    let rows = |i: usize| ((x.len() - i * piece).min(piece) / channels) as f64;
    let total = (x.len() / channels) as f64;
    (0..channels)
        .map(|c| {
            let mean = pieces.iter().enumerate().map(|(i, p)| rows(i) * p[c][0]).sum::<f64>() / total;
            let square = |(i, p): (usize, &Vec<[f64; 2]>)| p[c][1] + rows(i) * (p[c][0] - mean).powi(2);
            (mean, (pieces.iter().enumerate().map(square).sum::<f64>() / total).max(0.0))
        })
        .unzip()
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
pub(super) fn apply(
    x: &[f32],
    residual: Option<&[f32]>,
    [scale, shift]: [&[f32]; 2],
    activation: Activation,
    y: &mut [f32],
) {
    match residual {
        Some(residual) => sweep(Apply(activation), [x, residual], [scale, shift], [y]),
        None => sweep(Apply(activation), [x], [scale, shift], [y]),
    }
}

/// `dy` through the activation, whose output is `y`.
#[derive(Clone, Copy)]
struct Through(Activation);

impl Map<2> for Through {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, [y, dy]: [I::F32; 2]) -> I::F32 {
        let positive = isa.gt(y, isa.zero());
        match self.0 {
            Activation::None => dy,
            Activation::Relu => isa.select(positive, dy, isa.zero()),
            Activation::Relu6 => {
                let below = isa.select(isa.gt(isa.splat(6.0), y), dy, isa.zero());
                isa.select(positive, below, isa.zero())
            }
            Activation::LeakyRelu(slope) => isa.select(positive, dy, isa.mul(dy, isa.splat(slope))),
        }
    }
}

/// `dy` through the activation, whose output is `y`.
pub(super) fn through(activation: Activation, y: &[f32], dy: &[f32], g: &mut [f32]) {
    sweep(Into(Through(activation)), [y, dy], [], [g]);
}

/// Σg and Σg·(x - mean), where g is `dy` through the activation.
#[derive(Clone, Copy)]
struct Sums(Activation);

impl Sums {
    #[inline(always)]
    fn take<I: Isa>(isa: I, g: I::F32, deviation: I::F32, [first, second]: &mut [I::F32; 2]) {
        *first = isa.add(*first, g);
        *second = isa.fma(g, deviation, *second);
    }
}

macro_rules! sums {
    ($reads:literal, |$self:ident, $isa:ident, $read:ident| $g:expr) => {
        impl Columns<$reads, 1, 2> for Sums {
            const START: f32 = 0.0;
            #[inline(always)]
            fn step<I: Isa>(
                $self,
                $isa: I,
                $read: [I::F32; $reads],
                [mean]: [I::F32; 1],
                totals: &mut [I::F32; 2],
            ) {
                Self::take($isa, $g, $isa.sub($read[0], mean), totals);
            }
            #[inline(always)]
            fn join<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
                isa.add(a, b)
            }
            fn join_f64(self, a: f64, b: f64) -> f64 {
                a + b
            }
        }
    };
}
sums!(2, |self, isa, read| read[1]);
sums!(3, |self, isa, read| Through(self.0).of(isa, [read[2], read[1]]));

/// `a·g + b·(x - mean) + d` by channel.
#[derive(Clone, Copy)]
struct InputGradient(Activation);

impl InputGradient {
    #[inline(always)]
    fn of<I: Isa>(isa: I, x: I::F32, g: I::F32, [a, b, mean, d]: [I::F32; 4]) -> I::F32 {
        isa.fma(a, g, isa.fma(b, isa.sub(x, mean), d))
    }
}

impl Sweep<2, 4, 1> for InputGradient {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x, g]: [I::F32; 2], parameters: [I::F32; 4], write: &mut [I::F32; 1]) {
        write[0] = Self::of(isa, x, g, parameters);
    }
}

impl Sweep<3, 4, 1> for InputGradient {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x, dy, y]: [I::F32; 3], parameters: [I::F32; 4], write: &mut [I::F32; 1]) {
        write[0] = Self::of(isa, x, Through(self.0).of(isa, [y, dy]), parameters);
    }
}

/// What [`gradients`] reads: the input, the gradient of the output, and the activation with its output.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) activation: Option<(Activation, &'a [f32])>,
}

/// Writes `dx` and returns `dgamma` and `dbeta`.
pub(super) fn gradients(saved: Saved, [gamma, mean, inv_std]: [&[f32]; 3], dx: &mut [f32]) -> (Vec<f32>, Vec<f32>) {
    let (channels, Saved { x, dy, activation }) = (gamma.len(), saved);
    let [first, second] = match activation {
        Some((activation, y)) => columns(Sums(activation), [x, dy, y], [mean], channels),
        None => columns(Sums(Activation::None), [x, dy], [mean], channels),
    };
    let count = (x.len() / channels.max(1)) as f64;
    let dgamma: Vec<f64> = second.iter().zip(inv_std).map(|(sum, s)| sum * f64::from(*s)).collect();
    let factors: Vec<f64> = gamma.iter().zip(inv_std).map(|(g, s)| f64::from(*g) * f64::from(*s)).collect();
    let a: Vec<f32> = factors.iter().map(|a| *a as f32).collect();
    let b: Vec<f32> = (0..channels).map(|c| (-factors[c] * f64::from(inv_std[c]) * dgamma[c] / count) as f32).collect();
    let d: Vec<f32> = factors.iter().zip(&first).map(|(a, sum)| (-a * sum / count) as f32).collect();
    match activation {
        Some((activation, y)) => sweep(InputGradient(activation), [x, dy, y], [&a, &b, mean, &d], [dx]),
        None => sweep(InputGradient(Activation::None), [x, dy], [&a, &b, mean, &d], [dx]),
    }
    (dgamma.into_iter().map(|v| v as f32).collect(), first.into_iter().map(|v| v as f32).collect())
}
