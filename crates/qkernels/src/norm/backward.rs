//! Gradients of batch normalisation of f32 and bf16 tensors that are `[rows, channels]` or `[channels, values]` in memory.
//!
//! Two passes: the sums over each channel, then the gradient of the input from them. The gradient of the output is `g`, `dy` through the
//! activation. Where `g` has to be made, for a residual or from two summands, the first pass writes it over `dy` piece by piece and takes
//! the sums while the piece is in the cache; else both passes derive it from `dy` again, which costs arithmetic and no memory.

use super::order::{Order, join_runs};
use crate::elementwise::runs::{self, COPIES, copies};
use crate::elementwise::sweep::{Sweep, sweep_here};
use crate::isa::{Isa, Stored};
use crate::reduce::columns::{self, Columns, fold, piece_totals};
use crate::{Activation, par};
use std::ops::Range;

/// From what the sign of the activation's input is known.
#[derive(Clone, Copy)]
pub(super) enum Gate<'a, T> {
    /// There is no activation.
    Open,
    /// The input of the normalisation, with the scale and the shift of each channel: there was no residual.
    Input(Activation, [&'a [f32]; 2]),
    /// The output.
    Output(Activation, &'a [T]),
}

/// Parameters and statistics, by channel.
#[derive(Clone, Copy)]
pub(super) struct Channels<'a> {
    pub(super) gamma: &'a [f32],
    pub(super) mean: &'a [f32],
    pub(super) inv_std: &'a [f32],
}

/// Sums over each channel.
pub(super) struct Sums {
    /// Σg
    g: Vec<f64>,
    /// Σg·(x - mean)
    deviation: Vec<f64>,
}

/// `dy` through the activation whose input is `v`, or whose output is: the two lie on the same side of 0 and of 6.
#[inline(always)]
fn through<I: Isa>(isa: I, activation: Activation, v: I::F32, dy: I::F32) -> I::F32 {
    let positive = isa.gt(v, isa.zero());
    match activation {
        Activation::None => dy,
        Activation::Relu => isa.select(positive, dy, isa.zero()),
        Activation::Relu6 => {
            let below = isa.select(isa.gt(isa.splat(6.0), v), dy, isa.zero());
            isa.select(positive, below, isa.zero())
        }
        Activation::LeakyRelu(slope) => isa.select(positive, dy, isa.mul(dy, isa.splat(slope))),
    }
}

impl Order {
    /// The first pass: sums of g = `dy` through the gate.
    pub(super) fn sums<T: Stored>(self, x: &[T], dy: &[T], gate: Gate<T>, mean: &[f32]) -> Sums {
        let [g, deviation] = match gate {
            Gate::Open => self.totals(Total(Activation::None), [x, dy], [mean]),
            Gate::Input(activation, [scale, shift]) => self.totals(Total(activation), [x, dy], [mean, scale, shift]),
            Gate::Output(activation, y) => self.totals(Total(activation), [x, dy, y], [mean]),
        };
        Sums { g, deviation }
    }

    /// As [`sums`](Self::sums), of g = (`dy` + `also`) through the gate, which is written over `dy`.
    pub(super) fn sums_of_written<T: Stored>(
        self,
        x: &[T],
        dy: &mut [T],
        also: Option<&[T]>,
        gate: Gate<T>,
        mean: &[f32],
    ) -> Sums {
        let channels = mean.len();
        let none: &[f32] = &[];
        let [scale, shift] = if let Gate::Input(_, affine) = gate { affine } else { [none; 2] };
        if channels == 0 {
            return Sums { g: Vec::new(), deviation: Vec::new() };
        }
        let rule = Total(Activation::None);
        let [g, deviation] = if self == Order::Columns {
            let (wide, piece) = columns::shape(channels);
            let [around, scale, shift] = [mean, scale, shift].map(|p| p.repeat(wide / channels));
            let pieces = par::map_chunks(dy, piece, |i, g| {
                let range = i * piece..i * piece + g.len();
                let part = Part { x: &x[range.clone()], also: also.map(|also| &also[range.clone()]) };
                part.write(gate.within(range), [&scale, &shift], g);
                piece_totals(rule, [part.x, &*g], [&around], wide)
            });
            let mut totals = [vec![0.0; channels], vec![0.0; channels]];
            pieces.iter().for_each(|piece| fold::<_, 2, 1, 2>(rule, piece, &mut totals));
            totals
        } else {
            let run = dy.len() / channels;
            let pieces = par::map_chunks(dy, runs::PIECE, |i, g| {
                let whole = i * runs::PIECE..i * runs::PIECE + g.len();
                let of_part = |(channel, range): (usize, Range<usize>)| {
                    let g = &mut g[range.start - whole.start..range.end - whole.start];
                    let part = Part { x: &x[range.clone()], also: also.map(|also| &also[range.clone()]) };
                    let [around] = copies([mean], channel);
                    let affine = [scale, shift].map(|p| [p.get(channel).copied().unwrap_or(0.0); COPIES]);
                    part.write(gate.within(range), affine.each_ref().map(|p| &p[..]), g);
                    (channel, piece_totals(rule, [part.x, &*g], [&around], COPIES))
                };
                runs::parts(whole.clone(), run).map(of_part).collect()
            });
            join_runs::<_, 2, 1, 2>(rule, channels, pieces)
        };
        Sums { g, deviation }
    }
}

impl<'a, T> Gate<'a, T> {
    /// Of the values in a range of memory.
    fn within(self, range: Range<usize>) -> Gate<'a, T> {
        match self {
            Gate::Output(activation, y) => Gate::Output(activation, &y[range]),
            other => other,
        }
    }
}

/// Some values that lie side by side.
struct Part<'a, T> {
    x: &'a [T],
    also: Option<&'a [T]>,
}

impl<T: Stored> Part<'_, T> {
    /// Writes (`g` + `also`) through the gate over `g`; `affine` are the scales and shifts along the values, over and over.
    fn write(&self, gate: Gate<T>, affine: [&[f32]; 2], g: &mut [T]) {
        let x = self.x;
        match (gate, self.also) {
            (Gate::Open, None) => {}
            (Gate::Open, Some(also)) => sweep_here(Write(Activation::None), [also], [], [g]),
            (Gate::Input(activation, _), None) => sweep_here(Write(activation), [x], affine, [g]),
            (Gate::Input(activation, _), Some(also)) => sweep_here(Write(activation), [x, also], affine, [g]),
            (Gate::Output(activation, y), None) => sweep_here(WriteByOutput(activation), [y], [], [g]),
            (Gate::Output(activation, y), Some(also)) => sweep_here(WriteByOutput(activation), [y, also], [], [g]),
        }
    }
}

/// Σg and Σg·(x - mean)
#[derive(Clone, Copy)]
struct Total(Activation);

impl Total {
    #[inline(always)]
    fn take<I: Isa>(isa: I, g: I::F32, deviation: I::F32, [first, second]: &mut [I::F32; 2]) {
        *first = isa.add(*first, g);
        *second = isa.fma(g, deviation, *second);
    }
}

macro_rules! total {
    ($reads:literal, $parameters:literal, |$self:ident, $isa:ident, $read:ident, $by_channel:ident| $g:expr) => {
        impl Columns<$reads, $parameters, 2> for Total {
            const START: f32 = 0.0;
            #[inline(always)]
            fn step<I: Isa>(
                $self,
                $isa: I,
                $read: [I::F32; $reads],
                $by_channel: [I::F32; $parameters],
                totals: &mut [I::F32; 2],
            ) {
                Self::take($isa, $g, $isa.sub($read[0], $by_channel[0]), totals);
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
total!(2, 1, |self, isa, read, by_channel| read[1]);
total!(2, 3, |self, isa, read, by_channel| {
    through(isa, self.0, isa.fma(read[0], by_channel[1], by_channel[2]), read[1])
});
total!(3, 1, |self, isa, read, by_channel| through(isa, self.0, read[2], read[1]));

/// Writes g over `dy`, from another summand, or from `x` and another summand.
#[derive(Clone, Copy)]
struct Write(Activation);

impl Sweep<1, 0, 1> for Write {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [also]: [I::F32; 1], _: [I::F32; 0], write: &mut [I::F32; 1]) {
        write[0] = isa.add(write[0], also);
    }
}

impl Sweep<1, 2, 1> for Write {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x]: [I::F32; 1], [scale, shift]: [I::F32; 2], write: &mut [I::F32; 1]) {
        write[0] = through(isa, self.0, isa.fma(x, scale, shift), write[0]);
    }
}

impl Sweep<2, 2, 1> for Write {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x, also]: [I::F32; 2], [scale, shift]: [I::F32; 2], write: &mut [I::F32; 1]) {
        write[0] = through(isa, self.0, isa.fma(x, scale, shift), isa.add(write[0], also));
    }
}

/// Writes g over `dy`, from the output of the activation, and perhaps another summand.
#[derive(Clone, Copy)]
struct WriteByOutput(Activation);

impl Sweep<1, 0, 1> for WriteByOutput {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [y]: [I::F32; 1], _: [I::F32; 0], write: &mut [I::F32; 1]) {
        write[0] = through(isa, self.0, y, write[0]);
    }
}

impl Sweep<2, 0, 1> for WriteByOutput {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [y, also]: [I::F32; 2], _: [I::F32; 0], write: &mut [I::F32; 1]) {
        write[0] = through(isa, self.0, y, isa.add(write[0], also));
    }
}

/// How the second pass follows from the sums: `dx = a·g + b·(x - mean) + d` by channel.
pub(super) struct Line {
    a: Vec<f32>,
    b: Vec<f32>,
    d: Vec<f32>,
    /// Gradient of the scale.
    pub(super) dgamma: Vec<f32>,
    /// Gradient of the shift.
    pub(super) dbeta: Vec<f32>,
}

impl Line {
    /// `rows` values were summed for each channel.
    pub(super) fn new(sums: &Sums, rows: usize, Channels { gamma, inv_std, .. }: Channels) -> Line {
        let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let count = rows as f64;
        let dgamma: Vec<f64> = sums.deviation.iter().zip(inv_std).map(|(sum, s)| sum * f64::from(*s)).collect();
        let factors: Vec<f64> = gamma.iter().zip(inv_std).map(|(g, s)| f64::from(*g) * f64::from(*s)).collect();
        let b = (0..gamma.len()).map(|c| -factors[c] * f64::from(inv_std[c]) * dgamma[c] / count).collect();
        let d = factors.iter().zip(&sums.g).map(|(a, sum)| -a * sum / count).collect();
        let (a, b, d) = (single(factors), single(b), single(d));
        Line { a, b, d, dgamma: single(dgamma), dbeta: single(sums.g.clone()) }
    }
}

impl Order {
    /// The second pass. `g` is `dy` where the gate is not open.
    pub(super) fn input_gradient<T: Stored>(
        self,
        x: &[T],
        g: &[T],
        gate: Gate<T>,
        (line, mean): (&Line, &[f32]),
        dx: &mut [T],
    ) {
        let Line { a, b, d, .. } = line;
        match gate {
            Gate::Open => self.sweep(Slope(Activation::None), [x, g], [a, b, mean, d], dx),
            Gate::Input(activation, [scale, shift]) => {
                self.sweep(Slope(activation), [x, g], [a, b, mean, d, scale, shift], dx);
            }
            Gate::Output(activation, y) => self.sweep(Slope(activation), [x, g, y], [a, b, mean, d], dx),
        }
    }

    /// As [`input_gradient`](Self::input_gradient), written over `g`.
    pub(super) fn input_gradient_over<T: Stored>(
        self,
        x: &[T],
        g: &mut [T],
        gate: Gate<T>,
        (line, mean): (&Line, &[f32]),
    ) {
        let Line { a, b, d, .. } = line;
        match gate {
            Gate::Open => self.sweep(SlopeOver(Activation::None), [x], [a, b, mean, d], g),
            Gate::Input(activation, [scale, shift]) => {
                self.sweep(SlopeOver(activation), [x], [a, b, mean, d, scale, shift], g);
            }
            Gate::Output(activation, y) => self.sweep(SlopeOver(activation), [x, y], [a, b, mean, d], g),
        }
    }
}

/// `a·g + b·(x - mean) + d`
#[inline(always)]
fn of_line<I: Isa>(isa: I, x: I::F32, g: I::F32, [a, b, mean, d]: [I::F32; 4]) -> I::F32 {
    isa.fma(a, g, isa.fma(b, isa.sub(x, mean), d))
}

/// The second pass to another tensor, from `x`, `dy` and perhaps `y`.
#[derive(Clone, Copy)]
struct Slope(Activation);

impl Sweep<2, 4, 1> for Slope {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x, g]: [I::F32; 2], line: [I::F32; 4], write: &mut [I::F32; 1]) {
        write[0] = of_line(isa, x, g, line);
    }
}

impl Sweep<2, 6, 1> for Slope {
    #[inline(always)]
    fn step<I: Isa>(
        self,
        isa: I,
        [x, dy]: [I::F32; 2],
        [a, b, mean, d, scale, shift]: [I::F32; 6],
        write: &mut [I::F32; 1],
    ) {
        let g = through(isa, self.0, isa.fma(x, scale, shift), dy);
        write[0] = of_line(isa, x, g, [a, b, mean, d]);
    }
}

impl Sweep<3, 4, 1> for Slope {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x, dy, y]: [I::F32; 3], line: [I::F32; 4], write: &mut [I::F32; 1]) {
        write[0] = of_line(isa, x, through(isa, self.0, y, dy), line);
    }
}

/// The second pass in place.
#[derive(Clone, Copy)]
struct SlopeOver(Activation);

macro_rules! in_place {
    ($reads:literal, $parameters:literal) => {
        impl Sweep<$reads, $parameters, 1> for SlopeOver {
            #[inline(always)]
            fn step<I: Isa>(
                self,
                isa: I,
                read: [I::F32; $reads],
                parameters: [I::F32; $parameters],
                write: &mut [I::F32; 1],
            ) {
                let mut all = [write[0]; $reads + 1];
                all[0] = read[0];
                for (to, from) in all[2..].iter_mut().zip(&read[1..]) {
                    *to = *from;
                }
                Slope(self.0).step(isa, all, parameters, write);
            }
        }
    };
}
in_place!(1, 4);
in_place!(1, 6);
in_place!(2, 4);
