//! A range from earlier steps, so that one pass over a tensor suffices.

use super::clip::Clip;
use super::groups::Groups;
use super::noise::Rounding;
use super::quantizer::{Format, Quantizer};
use super::statistics::Statistics;
use qtensor::{Error, Result, Tensor};

/// The memory order of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the values: see [`Quantizer::quantize`].
    Same,
    /// Axis 0 innermost: see [`Quantizer::quantize_batch_innermost`].
    BatchInnermost,
}

/// The exponential moving average of a tensor's statistics over the steps of training, and the quantizer that follows from it.
///
/// The codes of a step take their range from the steps before it, and the pass that makes them measures this step's statistics. Only the first step, or one after
/// [`state`](Self::state) was not kept, reads its tensor twice. Averages start as the first step's statistics; then `average = decay · average + (1 − decay) · statistics`, where sums are taken by element.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningRange {
    format: Format,
    clip: Clip,
    decay: f64,
    margin: f64,
    average: Option<Statistics>,
}

impl RunningRange {
    /// No step yet. `decay` is in `0..1`; the clip of the averages is multiplied by `margin`, at least 1, so that a step whose values are somewhat larger is not clipped.
    ///
    /// # Errors
    /// A decay or a margin out of its range, or a rule that needs the values themselves: percentile and least square error.
    pub fn new(format: Format, clip: Clip, decay: f64, margin: f64) -> Result<Self> {
        let op = "running range";
        clip.check(op, format)?;
        if clip.needs_values() {
            let message = format!(
                "{clip:?} needs the values of a tensor; take AbsMax, Sawb or Dither, which follow from averages"
            );
            return Err(Error::argument(op, message));
        }
        if !((0.0..1.0).contains(&decay) && margin >= 1.0 && margin.is_finite()) {
            let message = format!("the decay is {decay} and the margin {margin}; they must be in 0..1 and at least 1");
            return Err(Error::argument(op, message));
        }
        Ok(RunningRange { format, clip, decay, margin, average: None })
    }

    /// The quantizer of the steps so far; none before the first.
    pub fn quantizer(&self) -> Option<Quantizer> {
        let average = self.average?;
        let clip = self.margin * self.clip.of_statistics(self.format, &average);
        // Affine codes take the part of the range within these.
        let wide = Statistics { min: self.margin * average.min, max: self.margin * average.max, ..average };
        Some(Quantizer::of_clips(self.format, Groups::Tensor, &[clip], &[wide]))
    }

    /// Takes a step's statistics into the averages. Those of an empty tensor change nothing.
    pub fn observe(&mut self, step: &Statistics) {
        if step.count == 0.0 {
            return;
        }
        let step = by_element(step);
        self.average = Some(self.average.map_or(step, |average| {
            let blend = |old: f64, new: f64| self.decay * old + (1.0 - self.decay) * new;
            Statistics {
                count: 1.0,
                nonzero: blend(average.nonzero, step.nonzero),
                min: blend(average.min, step.min),
                max: blend(average.max, step.max),
                sum: blend(average.sum, step.sum),
                sum_of_squares: blend(average.sum_of_squares, step.sum_of_squares),
                sum_of_magnitudes: blend(average.sum_of_magnitudes, step.sum_of_magnitudes),
            }
        }));
    }

    /// The codes of this step's tensor with the range of the steps before, and the quantizer that they belong to. The first step's range is its own.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`].
    pub fn quantize(&mut self, x: &Tensor, rounding: Rounding, order: Order) -> Result<(Tensor, Quantizer)> {
        let Some(quantizer) = self.quantizer() else {
            let statistics = Statistics::of(x, &Groups::Tensor)?;
            statistics.iter().for_each(|statistics| self.observe(statistics));
            let quantizer = match self.quantizer() {
                Some(quantizer) => quantizer,
                None => Quantizer::choose(x, Groups::Tensor, self.format, self.clip)?,
            };
            let codes = match order {
                Order::Same => quantizer.quantize(x, rounding)?,
                Order::BatchInnermost => quantizer.quantize_batch_innermost(x, rounding)?,
            };
            return Ok((codes, quantizer));
        };
        let (codes, statistics) = match order {
            Order::Same => {
                let (codes, statistics) = quantizer.quantize_and_measure(x, rounding)?;
                (codes, statistics.into_iter().next().unwrap_or_default())
            }
            Order::BatchInnermost => quantizer.quantize_batch_innermost_and_measure(x, rounding)?,
        };
        self.observe(&statistics);
        Ok((codes, quantizer))
    }

    /// What a checkpoint keeps: the averages of the share of values other than 0, the smallest and the largest value, the value, its square and its magnitude. None before the first step.
    pub fn state(&self) -> Option<[f64; 6]> {
        let Statistics { nonzero, min, max, sum, sum_of_squares, sum_of_magnitudes, .. } = self.average?;
        Some([nonzero, min, max, sum, sum_of_squares, sum_of_magnitudes])
    }

    /// Takes a [`state`](Self::state) back.
    ///
    /// # Errors
    /// Numbers that are no averages.
    pub fn restore(&mut self, state: Option<[f64; 6]>) -> Result<()> {
        let Some(numbers) = state else {
            self.average = None;
            return Ok(());
        };
        let [nonzero, min, max, sum, sum_of_squares, sum_of_magnitudes] = numbers;
        let shares = (0.0..=1.0).contains(&nonzero) && sum_of_squares >= 0.0 && sum_of_magnitudes >= 0.0;
        if !(numbers.iter().all(|x| x.is_finite()) && min <= max && shares) {
            return Err(Error::argument("running range", format!("{numbers:?} are no averages of a tensor")));
        }
        self.average = Some(Statistics { count: 1.0, nonzero, min, max, sum, sum_of_squares, sum_of_magnitudes });
        Ok(())
    }
}

/// With sums divided by the count.
fn by_element(s: &Statistics) -> Statistics {
    let mean = |sum: f64| sum / s.count;
    Statistics {
        count: 1.0,
        nonzero: mean(s.nonzero),
        sum: mean(s.sum),
        sum_of_squares: mean(s.sum_of_squares),
        sum_of_magnitudes: mean(s.sum_of_magnitudes),
        ..*s
    }
}
