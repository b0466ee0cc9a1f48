//! Figures of many values.

use crate::Result;
use qtensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Bins of a histogram.
const BINS: usize = 48;
/// A histogram reaches so many times the root mean square of the first values.
const REACH: f64 = 4.0;
/// A value is saturated where it is so near to a bound, in shares of the range.
const NEAR: f32 = 0.01;

/// How often values fall between two bounds, in equal bins. Values beyond are counted in the first and the last bin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower bound of the first bin.
    pub low: f64,
    /// Upper bound of the last bin.
    pub high: f64,
    /// One a bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Between bounds that suit these values: the extremes, but no further than a few times their root mean square.
    fn around(values: &[f32]) -> Option<Self> {
        let finite = || values.iter().filter(|x| x.is_finite()).map(|x| f64::from(*x));
        let (least, most) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let count = finite().count();
        let rms = (finite().map(|x| x * x).sum::<f64>() / count.max(1) as f64).sqrt();
        let (low, high) = (least.max(-REACH * rms), most.min(REACH * rms));
        let is_sound = count > 0 && low.is_finite() && high.is_finite();
        let high = if high > low { high } else { low + low.abs().max(1e-12) };
        is_sound.then(|| Self::between([low, high], BINS))
    }

    /// Empty, with that many bins between two bounds.
    pub(crate) fn between([low, high]: [f64; 2], bins: usize) -> Self {
        Histogram { low, high, counts: vec![0; bins] }
    }

    /// Counts a value.
    pub(crate) fn add(&mut self, value: f64) {
        let bins = self.counts.len();
        let place = (value - self.low) / (self.high - self.low) * bins as f64;
        self.counts[(place.max(0.0) as usize).min(bins - 1)] += 1;
    }
}

/// What many values come to. Values that are not finite are counted and left out of everything else.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Number of finite values.
    pub count: u64,
    /// Number of others.
    pub not_finite: u64,
    /// Mean.
    pub mean: f64,
    /// Root mean square.
    pub rms: f64,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Share of values that are exactly 0.
    pub zeros: f64,
    /// Share of channels, or features, that have one and the same value everywhere.
    pub dead: f64,
    /// Share of values within 1 % of a bound of the activation; `None` where it has no upper bound.
    pub saturated: Option<f64>,
    /// How the values are spread; `None` where there are none.
    pub histogram: Option<Histogram>,
}

/// Takes in tensors one after the other.
#[derive(Clone, Debug, Default)]
pub struct Accumulator {
    bounds: Option<[f32; 2]>,
    count: u64,
    not_finite: u64,
    sum: f64,
    squares: f64,
    zeros: u64,
    saturated: u64,
    /// Least and greatest value of each channel.
    channels: Vec<[f32; 2]>,
    histogram: Option<Histogram>,
}

impl Accumulator {
    /// For values of an activation with those bounds, or of none.
    pub fn new(bounds: Option<[f32; 2]>) -> Self {
        Accumulator { bounds, ..Self::default() }
    }

    /// Takes in the values of a tensor times `factor`; its second axis, where it has one, tells the channels.
    ///
    /// # Errors
    /// It is not of a floating type.
    pub fn add(&mut self, tensor: &Tensor, factor: f32) -> Result<()> {
        let mut values = tensor.to_dtype(DType::F32)?.to_vec::<f32>()?;
        values.iter_mut().for_each(|x| *x *= factor);
        let shape = tensor.shape();
        let channels = shape.get(1).copied().unwrap_or(1).max(1);
        let plane = shape.iter().skip(2).product::<usize>().max(1);
        self.channels.resize(channels.max(self.channels.len()), [f32::INFINITY, f32::NEG_INFINITY]);
        if self.histogram.is_none() {
            self.histogram = Histogram::around(&values);
        }
        for (place, piece) in values.chunks(plane).enumerate() {
            self.add_plane(place % channels, piece);
        }
        Ok(())
    }

    fn add_plane(&mut self, channel: usize, values: &[f32]) {
        let [mut least, mut most] = self.channels[channel];
        for &x in values {
            if !x.is_finite() {
                self.not_finite += 1;
                continue;
            }
            let wide = f64::from(x);
            self.count += 1;
            self.sum += wide;
            self.squares += wide * wide;
            self.zeros += u64::from(x == 0.0);
            (least, most) = (least.min(x), most.max(x));
            if let Some([low, high]) = self.bounds {
                let near = NEAR * (high - low);
                self.saturated += u64::from(x <= low + near || x >= high - near);
            }
            if let Some(histogram) = &mut self.histogram {
                histogram.add(wide);
            }
        }
        self.channels[channel] = [least, most];
    }

    /// What the values so far come to.
    pub fn finish(&self) -> Statistics {
        let count = self.count.max(1) as f64;
        let extreme = |pick: fn(f64, f64) -> f64, side: usize| {
            self.channels
                .iter()
                .map(|range| f64::from(range[side]))
                .filter(|x| x.is_finite())
                .reduce(pick)
                .unwrap_or(0.0)
        };
        let dead = self.channels.iter().filter(|[least, most]| least == most).count();
        Statistics {
            count: self.count,
            not_finite: self.not_finite,
            mean: self.sum / count,
            rms: (self.squares / count).sqrt(),
            min: extreme(f64::min, 0),
            max: extreme(f64::max, 1),
            zeros: self.zeros as f64 / count,
            dead: dead as f64 / self.channels.len().max(1) as f64,
            saturated: self.bounds.map(|_| self.saturated as f64 / count),
            histogram: self.histogram.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_few_values() {
        // Two images of two channels of two values; the second channel is always 0.
        let tensor = Tensor::from_vec([2, 2, 2], vec![3.0f32, -1.0, 0.0, 0.0, 1.0, 3.0, 0.0, 0.0]).unwrap();
        let mut all = Accumulator::new(None);
        all.add(&tensor, 2.0).unwrap();
        let s = all.finish();
        assert_eq!((s.count, s.mean, s.min, s.max, s.zeros, s.dead), (8, 1.5, -2.0, 6.0, 0.5, 0.5));
        assert!((s.rms - (80.0f64 / 8.0).sqrt()).abs() < 1e-12 && s.saturated.is_none());
        let histogram = s.histogram.unwrap();
        assert_eq!((histogram.low, histogram.high, histogram.counts.iter().sum::<u64>()), (-2.0, 6.0, 8));
        assert_eq!((histogram.counts[0], histogram.counts[12], histogram.counts[47]), (1, 4, 2));
    }

    #[test]
    fn bounds_and_values_that_are_no_numbers() {
        let tensor = Tensor::from_vec([1, 4], vec![0.995f32, -0.5, f32::NAN, -1.0]).unwrap();
        let mut all = Accumulator::new(Some([-1.0, 1.0]));
        all.add(&tensor, 1.0).unwrap();
        let s = all.finish();
        assert_eq!((s.count, s.not_finite, s.saturated), (3, 1, Some(2.0 / 3.0)));
        assert_eq!(Accumulator::default().finish().count, 0);
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let values: Vec<f32> = (0..24).map(|i| (i as f32 * 0.7).sin()).collect();
        let whole = Tensor::from_vec([4, 3, 2], values).unwrap();
        let mut once = Accumulator::new(None);
        once.add(&whole, 1.0).unwrap();
        let mut twice = Accumulator::new(None);
        for half in [0..2, 2..4] {
            twice.add(&whole.slice(0, half).unwrap(), 1.0).unwrap();
        }
        let (once, twice) = (once.finish(), twice.finish());
        assert!((once.rms - twice.rms).abs() < 1e-12);
        assert_eq!((once.count, once.min, once.max), (twice.count, twice.min, twice.max));
    }
}
