//! The clip with the least mean square error of rounding to nearest.

use crate::isa::{Isa, Kernel, dispatch};
use crate::par;

/// Groups of no more values are searched as they are.
const FEW: usize = 4096;
/// Bins of a histogram.
const BINS: usize = 2048;
/// Values that one thread sorts into bins at a time.
const PIECE: usize = 1 << 18;
/// Shares of the range that are tried first, and parts of the distance between two of them that are tried then. A clip below 1/512 of the largest magnitude would gain nothing that counts: what is
/// clipped there is the greatest part of the error, unless a tensor has more than 10^9 values.
const SHARES: usize = 64;
const PARTS: usize = 8;
const LANES: usize = 8;

/// The clip that minimises `Σ (|x| − Q(|x|))²` with `steps` steps from 0 to it, over all values, or over the positive ones where no code is negative. 0 where there is none.
pub(super) fn clip(values: &[f32], signed: bool, steps: f64) -> f64 {
    let magnitude = |x: f32| f64::from(if signed { x.abs() } else { x.max(0.0) });
    let absmax = values.iter().map(|x| magnitude(*x)).fold(0.0, f64::max);
    if absmax == 0.0 {
        return 0.0;
    }
    let points = if values.len() <= FEW {
        Points::each(values.iter().map(|x| magnitude(*x)).filter(|x| *x > 0.0))
    } else {
        Points::histogram(values, absmax, magnitude)
    };
    let error = |clip: f64| points.error(clip, steps);
    let best = least((1..=SHARES).map(|i| absmax * i as f64 / SHARES as f64), error);
    let part = absmax / (SHARES * PARTS) as f64;
    let around = (1..2 * PARTS).map(|i| best + part * (i as f64 - PARTS as f64));
    least(around.filter(|clip| *clip <= absmax), error)
}

/// The candidate with the least error; the first of equal ones.
fn least(candidates: impl Iterator<Item = f64>, error: impl Fn(f64) -> f64) -> f64 {
    let errors = candidates.map(|clip| (clip, error(clip)));
    errors.reduce(|best, next| if next.1 < best.1 { next } else { best }).map_or(0.0, |(clip, _)| clip)
}

/// Magnitudes with weights: single ones, or the means of bins. The spread within a bin adds the same to every error.
struct Points {
    values: Vec<f64>,
    weights: Vec<f64>,
}

impl Points {
    fn each(values: impl Iterator<Item = f64>) -> Self {
        Self::padded(values.map(|x| (x, 1.0)).unzip())
    }

    /// In [`BINS`] bins up to `range`, the largest magnitude.
    fn histogram(values: &[f32], range: f64, magnitude: impl Fn(f32) -> f64 + Sync) -> Self {
        let scale = BINS as f64 / range;
        // Count and sum of each bin.
        let pieces = par::map(values.len().div_ceil(PIECE), |i| {
            let mut bins = vec![[0.0f64; 2]; BINS];
            for x in &values[i * PIECE..values.len().min((i + 1) * PIECE)] {
                let x = magnitude(*x);
                let bin = &mut bins[((x * scale) as usize).min(BINS - 1)];
                bin[0] += 1.0;
                bin[1] += x;
            }
            bins
        });
        let mut bins = vec![[0.0f64; 2]; BINS];
        for (bin, other) in pieces.iter().flat_map(|piece| piece.iter().enumerate()) {
            bins[bin].iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
        }
        let filled = bins.iter().filter(|bin| bin[0] > 0.0);
        Self::padded(filled.map(|[count, sum]| (sum / count, *count)).unzip())
    }

    fn padded((mut values, mut weights): (Vec<f64>, Vec<f64>)) -> Self {
        let length = values.len().next_multiple_of(LANES);
        values.resize(length, 0.0);
        weights.resize(length, 0.0);
        Points { values, weights }
    }

    fn error(&self, clip: f64, steps: f64) -> f64 {
        dispatch(SquareError { points: self, step: clip / steps, steps })
    }
}

struct SquareError<'a> {
    points: &'a Points,
    step: f64,
    steps: f64,
}

impl Kernel for SquareError<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> f64 {
        // Adding and taking away 1.5 · 2^52 rounds to a whole number, ties to even.
        const WHOLE: f64 = 6_755_399_441_055_744.0;
        let (values, weights) = (self.points.values.as_chunks::<LANES>().0, self.points.weights.as_chunks::<LANES>().0);
        let inverse = 1.0 / self.step;
        let mut sums = [0.0; LANES];
        for (x, weight) in values.iter().zip(weights) {
            for i in 0..LANES {
                let y = x[i] * inverse;
                let y = if y < self.steps { y } else { self.steps };
                let error = x[i] - ((y + WHOLE) - WHOLE) * self.step;
                sums[i] += weight[i] * error * error;
            }
        }
        sums.iter().sum()
    }
}
