//! What ranges are chosen by: extremes and moments in f64, the same bits on every instruction set and for any number of threads.

use super::floats::{BLOCK, Floats};
use super::groups::{Groups, not_finite, parts};
use crate::isa::{Isa, Kernel, dispatch};
use crate::par;
use qtensor::{Result, Tensor};

/// Running sums side by side, whatever the width of a vector.
const LANES: usize = 16;
/// Values that one thread takes at a time.
const PIECE: usize = 16 * 1024;

/// Extremes and sums of a group of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Number of values.
    pub count: f64,
    /// Number of values other than 0.
    pub nonzero: f64,
    /// Smallest value; 0 where there is none.
    pub min: f64,
    /// Largest value; 0 where there is none.
    pub max: f64,
    /// Σ x
    pub sum: f64,
    /// Σ x²
    pub sum_of_squares: f64,
    /// Σ |x|
    pub sum_of_magnitudes: f64,
}

impl Default for Statistics {
    fn default() -> Self {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        Statistics { count: 0.0, nonzero: 0.0, min, max, sum: 0.0, sum_of_squares: 0.0, sum_of_magnitudes: 0.0 }
    }
}

impl Statistics {
    /// Of each group of a tensor in f32 or bf16.
    ///
    /// # Errors
    /// Another element type, groups that do not fit, or a value that is infinite or not a number: the message says where.
    pub fn of(x: &Tensor, groups: &Groups) -> Result<Vec<Statistics>> {
        let op = "rounding statistics";
        let grouped = groups.of_floats(op, x)?;
        let values = Floats::of(&grouped.x)?;
        let pieces = par::map(values.len().div_ceil(PIECE), |i| {
            let mut room = [0.0; BLOCK];
            let mut seen = Vec::new();
            for (group, part) in parts(&grouped.starts, i * PIECE..values.len().min((i + 1) * PIECE)) {
                for block in values.blocks(part) {
                    seen.push((group, dispatch(Measure(values.block(block, &mut room)))));
                }
            }
            seen
        });
        let all = join(grouped.count(), pieces);
        if all.iter().all(Statistics::is_finite) { Ok(all) } else { Err(not_finite(op, x)) }
    }

    /// Of both groups together.
    pub fn join(&self, other: &Statistics) -> Statistics {
        Statistics {
            count: self.count + other.count,
            nonzero: self.nonzero + other.nonzero,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            sum: self.sum + other.sum,
            sum_of_squares: self.sum_of_squares + other.sum_of_squares,
            sum_of_magnitudes: self.sum_of_magnitudes + other.sum_of_magnitudes,
        }
    }

    /// Largest magnitude; 0 where there is no value.
    pub fn absmax(&self) -> f64 {
        self.max.max(-self.min).max(0.0)
    }

    /// Standard deviation of the population; 0 where there is no value or where it is lost in the rounding of the sums.
    pub fn deviation(&self) -> f64 {
        if self.count == 0.0 {
            return 0.0;
        }
        let (mean, square) = (self.sum / self.count, self.sum_of_squares / self.count);
        let variance = square - mean * mean;
        if variance > 1e-12 * square { variance.sqrt() } else { 0.0 }
    }

    /// Root of the mean of squares of the values other than 0; 0 where there is none.
    pub fn rms_of_nonzero(&self) -> f64 {
        if self.nonzero > 0.0 { (self.sum_of_squares / self.nonzero).sqrt() } else { 0.0 }
    }

    /// Mean magnitude of the values other than 0; 0 where there is none.
    pub fn mean_magnitude_of_nonzero(&self) -> f64 {
        if self.nonzero > 0.0 { self.sum_of_magnitudes / self.nonzero } else { 0.0 }
    }

    /// Whether all values were finite.
    pub(super) fn is_finite(&self) -> bool {
        self.sum_of_magnitudes.is_finite()
    }
}

/// The statistics of each group from those of parts, in the order of the pieces.
pub(super) fn join(groups: usize, pieces: Vec<Vec<(usize, Statistics)>>) -> Vec<Statistics> {
    let mut all = vec![Statistics::default(); groups];
    for (group, part) in pieces.into_iter().flatten() {
        all[group] = all[group].join(&part);
    }
    all
}

/// The statistics of a slice.
pub(super) struct Measure<'a>(pub(super) &'a [f32]);

impl Kernel for Measure<'_> {
    type Output = Statistics;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Statistics {
        let mut lanes = Lanes::new();
        lanes.add(self.0);
        lanes.total()
    }
}

/// Statistics side by side: plain arrays of a fixed size, which the compiler keeps in vectors. The order of the sums is that of the lanes on every CPU, and squares of f32 are
/// exact in f64.
pub(super) struct Lanes {
    count: usize,
    min: [f32; LANES],
    max: [f32; LANES],
    zeros: [f64; LANES],
    sum: [f64; LANES],
    squares: [f64; LANES],
    magnitudes: [f64; LANES],
}

impl Lanes {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Lanes {
            count: 0,
            min: [f32::INFINITY; LANES],
            max: [f32::NEG_INFINITY; LANES],
            zeros: [0.0; LANES],
            sum: [0.0; LANES],
            squares: [0.0; LANES],
            magnitudes: [0.0; LANES],
        }
    }

    /// Takes in values.
    #[inline(always)]
    pub(super) fn add(&mut self, values: &[f32]) {
        self.count += values.len();
        // Twice over values that stay in the nearest cache: numbers of 32 bits, then of 64, whose additions overlap. A loop for each array keeps neighbours in vectors; in a common
        // one the compiler pairs numbers of different arrays.
        for block in values.chunks(BLOCK) {
            self.extremes(block);
            self.sums(block);
        }
    }

    /// Smallest and largest value, and the number of zeros.
    #[inline(always)]
    fn extremes(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let (mut min, mut max, mut zeros) = (self.min, self.max, [0u32; LANES]);
        let mut step = |x: &[f32]| {
            min.iter_mut().zip(x).for_each(|(min, x)| *min = if *x < *min { *x } else { *min });
            max.iter_mut().zip(x).for_each(|(max, x)| *max = if *x > *max { *x } else { *max });
            zeros.iter_mut().zip(x).for_each(|(zeros, x)| *zeros += u32::from(*x == 0.0));
        };
        chunks.iter().for_each(|x| step(x));
        step(rest);
        (self.min, self.max) = (min, max);
        self.zeros.iter_mut().zip(zeros).for_each(|(sum, zeros)| *sum += f64::from(zeros));
    }

    /// Sums of the values, of their squares and of their magnitudes.
    #[inline(always)]
    fn sums(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let (mut sum, mut squares, mut magnitudes) = (self.sum, self.squares, self.magnitudes);
        let mut step = |x: &[f64]| {
            sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            squares.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * x);
            magnitudes.iter_mut().zip(x).for_each(|(sum, x)| *sum += x.abs());
        };
        chunks.iter().for_each(|x| step(&x.map(f64::from)));
        let mut last = [0.0; LANES];
        last.iter_mut().zip(rest).for_each(|(wide, x)| *wide = f64::from(*x));
        step(&last[..rest.len()]);
        (self.sum, self.squares, self.magnitudes) = (sum, squares, magnitudes);
    }

    #[inline(always)]
    pub(super) fn total(&self) -> Statistics {
        let count = self.count as f64;
        Statistics {
            count,
            nonzero: count - self.zeros.iter().sum::<f64>(),
            min: f64::from(self.min.iter().copied().fold(f32::INFINITY, f32::min)),
            max: f64::from(self.max.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
            sum: self.sum.iter().sum(),
            sum_of_squares: self.squares.iter().sum(),
            sum_of_magnitudes: self.magnitudes.iter().sum(),
        }
    }
}
