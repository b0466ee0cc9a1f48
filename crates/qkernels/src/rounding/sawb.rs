//! Statistics-aware weight binning: a clip that is linear in two moments.

use super::quantizer::Format;
use super::statistics::Statistics;

/// `clip = rms · √E[x²] − magnitude · E[|x|]` over the values other than 0, which zeros do not change: they have a code of their own in any case.
///
/// The constants are least squares fits of the clip with the least mean square error, in units of the root mean square, over some distributions. At 8 bits no two constants
/// serve both dense tensors and what magnitude pruning leaves, whose ratio `E|x| / √E[x²]` is above that of a Gaussian, but each kind is fitted to 2 % of the least error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sawb {
    /// Factor of the root mean square.
    pub rms: f64,
    /// Factor of the mean magnitude, which is subtracted.
    pub magnitude: f64,
}

impl Sawb {
    /// 127 codes of either sign: Gaussian, Laplace and uniform values.
    pub const DENSE: Sawb = Sawb { rms: 30.42, magnitude: 33.16 };
    /// 127 codes of either sign: what is left of Gaussian values when 80, 90, 95, 98 or 99 % are pruned by magnitude.
    pub const PRUNED: Sawb = Sawb { rms: 35.02, magnitude: 33.49 };
    /// 255 codes of values that are never negative: those of half a Gaussian, exponential and uniform ones.
    pub const NON_NEGATIVE: Sawb = Sawb { rms: 35.32, magnitude: 38.85 };
    /// Published constants for 4 bits, for comparison: with 8 bits they clip nearly all values of magnitude-pruned tensors.
    pub const FOUR_BITS: Sawb = Sawb { rms: 12.1, magnitude: 12.2 };

    /// Ratio of the mean magnitude to the root mean square above which values are flatter than Gaussian ones, whose ratio is 0.798: uniform or pruned.
    const FLAT: f64 = 0.81;

    /// The constants that fit the distribution; none where nothing should be clipped.
    pub fn fitted(format: Format, statistics: &Statistics) -> Option<Sawb> {
        let is_flat = statistics.mean_magnitude_of_nonzero() > Self::FLAT * statistics.rms_of_nonzero();
        match (format.is_signed(), is_flat) {
            (true, false) => Some(Sawb::DENSE),
            // Of a uniform distribution this is beyond the largest value, which is where it should be.
            (true, true) => Some(Sawb::PRUNED),
            (false, false) => Some(Sawb::NON_NEGATIVE),
            (false, true) => None,
        }
    }

    /// The clip by the formula, which may be negative.
    pub fn clip(self, statistics: &Statistics) -> f64 {
        self.rms * statistics.rms_of_nonzero() - self.magnitude * statistics.mean_magnitude_of_nonzero()
    }
}
