//! How a range is chosen.

use super::sawb::Sawb;
use super::statistics::Statistics;
use super::{mse, quantizer::Format};
use crate::par;
use qtensor::{Error, Result};

/// How the largest magnitude that has a code of its own, the clip, is chosen for a group of values. Larger ones get the outermost code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// The largest magnitude: nothing is clipped.
    AbsMax,
    /// That percentile of the magnitudes, above 0 and at most 100, interpolated between neighbours.
    Percentile(f64),
    /// The clip with the least mean square error of rounding to nearest, to about 2 % of itself. Groups of more than 4096 values are seen as a histogram.
    Mse,
    /// Statistics-aware weight binning (Choi et al., "Accurate and efficient 2-bit quantized neural networks", 2019) with the constants of [`Sawb`] that fit 8 bits and the data: see
    /// [`Sawb::fitted`].
    Sawb,
    /// As [`Sawb`](Clip::Sawb), with these constants.
    SawbWith(Sawb),
    /// So that a step is that many standard deviations (Wiedemann et al., "Dithered backprop", 2020). With [`Rounding::Stochastic`](super::Rounding) this is non-subtractive dither, except that
    /// what is beyond the outermost code is clipped. Values that are all equal get [`AbsMax`](Clip::AbsMax).
    Dither(f64),
}

impl Clip {
    /// Refuses parameters out of their range.
    ///
    /// # Errors
    /// A percentile that is not above 0 and at most 100; a dither or constants that are not positive and finite; a dither of affine codes, whose step follows from the range.
    pub(super) fn check(self, op: &'static str, format: Format) -> Result<()> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        match self {
            Clip::Percentile(p) if !(p > 0.0 && p <= 100.0) => {
                Err(Error::argument(op, format!("the percentile is {p}; it must be above 0 and at most 100")))
            }
            Clip::Dither(step) if !positive(step) => Err(Error::argument(
                op,
                format!("the step is {step} standard deviations; it must be positive and finite"),
            )),
            Clip::Dither(_) if format.is_affine() => {
                Err(Error::argument(op, "affine codes cannot be dithered by deviations; take signed codes"))
            }
            Clip::SawbWith(Sawb { rms, magnitude }) if !positive(rms) || !positive(magnitude) => {
                Err(Error::argument(op, format!("the constants {rms} and {magnitude} must be positive and finite")))
            }
            _ => Ok(()),
        }
    }

    /// Whether the rule looks at more statistics than the extremes.
    pub(super) fn needs_sums(self) -> bool {
        matches!(self, Clip::Sawb | Clip::SawbWith(_) | Clip::Dither(_))
    }

    /// Whether no statistics suffice.
    pub(super) fn needs_values(self) -> bool {
        matches!(self, Clip::Percentile(_) | Clip::Mse)
    }

    /// The clip of a group: positive, or 0 where all values are 0.
    pub(super) fn of(self, format: Format, values: &[f32], statistics: &Statistics) -> f64 {
        let found = match self {
            Clip::Percentile(p) => percentile(values, p),
            Clip::Mse => mse::clip(values, format.is_signed(), format.steps()),
            _ => return self.of_statistics(format, statistics),
        };
        within(statistics.absmax(), found)
    }

    /// As [`of`](Self::of) for rules that need no values.
    pub(super) fn of_statistics(self, format: Format, statistics: &Statistics) -> f64 {
        let absmax = statistics.absmax();
        match self {
            Clip::Sawb => match Sawb::fitted(format, statistics) {
                Some(constants) => within(absmax, constants.clip(statistics)),
                None => absmax,
            },
            Clip::SawbWith(constants) => within(absmax, constants.clip(statistics)),
            Clip::Dither(step) => match statistics.deviation() {
                0.0 => absmax,
                deviation => step * deviation * format.steps(),
            },
            _ => absmax,
        }
    }
}

/// A clip up to the largest magnitude. One of 0 or below fits nothing: a percentile of values that are mostly 0, or constants for another distribution.
fn within(absmax: f64, clip: f64) -> f64 {
    if clip > 0.0 && clip < absmax { clip } else { absmax }
}

/// The `p`-th percentile of the magnitudes; 0 of nothing.
fn percentile(values: &[f32], p: f64) -> f64 {
    let mut magnitudes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    let Some(last) = magnitudes.len().checked_sub(1) else { return 0.0 };
    let rank = p / 100.0 * last as f64;
    let (_, low, above) = magnitudes.select_nth_unstable_by(rank as usize, f32::total_cmp);
    let low = f64::from(*low);
    let next = above.iter().copied().reduce(f32::min).map_or(low, f64::from);
    low + (next - low) * rank.fract()
}

/// The clip of each group.
pub(super) fn clips(
    clip: Clip,
    format: Format,
    memory: &[f32],
    starts: &[usize],
    statistics: &[Statistics],
) -> Vec<f64> {
    par::map(statistics.len(), |i| clip.of(format, &memory[starts[i]..starts[i + 1]], &statistics[i]))
}
