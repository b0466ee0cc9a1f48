//! Equally spaced codes of a byte.

use super::clip::{Clip, clips};
use super::extremes::extremes;
use super::groups::{Grouped, Groups};
use super::statistics::Statistics;
use qtensor::{DType, Error, Result, Tensor};

/// What codes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// i8 from -127 to 127 around 0.
    Signed,
    /// u8 from 0 to 255, for values that are never negative; negative ones become 0.
    Unsigned,
    /// u8 from 1 to 255 around a zero point of 128: [`Signed`](Format::Signed) codes for products that want u8.
    Offset,
    /// All of i8 with a zero point, for values that are mostly of one sign.
    AffineI8,
    /// All of u8 with a zero point.
    AffineU8,
}

impl Format {
    /// The type of the codes.
    pub fn dtype(self) -> DType {
        match self {
            Format::Signed | Format::AffineI8 => DType::I8,
            _ => DType::U8,
        }
    }

    /// The smallest and the largest code.
    pub fn range(self) -> [i32; 2] {
        match self {
            Format::Signed => [-127, 127],
            Format::Offset => [1, 255],
            Format::AffineI8 => [-128, 127],
            Format::Unsigned | Format::AffineU8 => [0, 255],
        }
    }

    /// Whether negative values have codes.
    pub(super) fn is_signed(self) -> bool {
        self != Format::Unsigned
    }

    /// Steps from 0 to the clip.
    pub(super) fn steps(self) -> f64 {
        if self.is_signed() { 127.0 } else { 255.0 }
    }

    pub(super) fn is_affine(self) -> bool {
        matches!(self, Format::AffineI8 | Format::AffineU8)
    }

    /// Scale and zero point of values within `±clip` that have these statistics.
    ///
    /// Affine codes take the part of that range that the values fill, widened to hold 0, so that 0 has a code. No scale is below the smallest normal f32, 1.2e-38: smaller
    /// magnitudes than about 1e-36 have fewer codes. Where all values are 0, the scale is 1.
    pub(super) fn of_clip(self, clip: f64, statistics: &Statistics) -> (f32, i32) {
        let [lowest, highest] = self.range().map(f64::from);
        let positive = |step: f64| if step > 0.0 { (step as f32).clamp(f32::MIN_POSITIVE, f32::MAX) } else { 1.0 };
        if !self.is_affine() {
            return (positive(clip / self.steps()), self.zero_point());
        }
        let (min, max) = (statistics.min.clamp(-clip, 0.0), statistics.max.clamp(0.0, clip));
        let scale = positive((max - min) / (highest - lowest));
        (scale, (lowest - min / f64::from(scale)).round().clamp(lowest, highest) as i32)
    }

    /// The zero point where none is chosen.
    fn zero_point(self) -> i32 {
        if self == Format::Offset { 128 } else { 0 }
    }
}

/// Numbers as codes: `x ≈ scale · (code − zero point)`, with a scale and a zero point for each group.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantizer {
    format: Format,
    groups: Groups,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
}

impl Quantizer {
    /// One for each scale, with the zero point of the format: 128 of [`Format::Offset`], else 0.
    ///
    /// # Errors
    /// Scales that are not positive, normal and finite.
    pub fn new(format: Format, groups: Groups, scales: Vec<f32>) -> Result<Self> {
        if let Some(scale) = scales.iter().find(|scale| !(**scale > 0.0 && scale.is_normal())) {
            let message =
                format!("a scale is {scale}; it must be positive, finite and at least {:e}", f32::MIN_POSITIVE);
            return Err(Error::argument("quantizer", message));
        }
        let zero_points = vec![format.zero_point(); scales.len()];
        Ok(Quantizer { format, groups, scales, zero_points })
    }

    /// The same with other zero points, one for each scale.
    ///
    /// # Errors
    /// A format that is not affine; another number of zero points; one that is not a code.
    pub fn with_zero_points(self, zero_points: Vec<i32>) -> Result<Self> {
        let [lowest, highest] = self.format.range();
        let fits = zero_points.len() == self.scales.len() && zero_points.iter().all(|z| (lowest..=highest).contains(z));
        if !self.format.is_affine() || !fits {
            let message = format!(
                "{:?} codes with {} scales cannot have zero points {zero_points:?}",
                self.format,
                self.scales.len()
            );
            return Err(Error::argument("quantizer", message));
        }
        Ok(Quantizer { zero_points, ..self })
    }

    /// The quantizer that a rule chooses for an f32 tensor. Its scale is 1 where all values of a group are 0.
    ///
    /// # Errors
    /// Another element type, groups that do not fit, a rule with parameters out of range, or a value that is infinite or not a number: the message says where.
    pub fn choose(x: &Tensor, groups: Groups, format: Format, clip: Clip) -> Result<Self> {
        Self::choose_by(x, groups, |_| format, clip)
    }

    /// As [`choose`](Self::choose) with one scale, of f32 or, for rules that need no more than statistics, bf16, as u8 codes around 0 or 128: [`Format::Unsigned`] where no value is negative, as behind a ReLU, else [`Format::Offset`].
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn choose_bytes(x: &Tensor, clip: Clip) -> Result<Self> {
        let format = |all: &[Statistics]| {
            let has_negative = all.iter().any(|statistics| statistics.min < 0.0);
            if has_negative { Format::Offset } else { Format::Unsigned }
        };
        Self::choose_by(x, Groups::Tensor, format, clip)
    }

    fn choose_by(x: &Tensor, groups: Groups, format: impl Fn(&[Statistics]) -> Format, clip: Clip) -> Result<Self> {
        let statistics = if clip.needs_sums() { Statistics::of(x, &groups)? } else { extremes(x, &groups)? };
        let format = format(&statistics);
        clip.check("quantizer", format)?;
        let found = if clip.needs_values() {
            let grouped = groups.of("quantizer", x)?;
            clips(clip, format, grouped.x.memory()?, &grouped.starts, &statistics)
        } else {
            statistics.iter().map(|s| clip.of(format, &[], s)).collect()
        };
        Ok(Self::of_clips(format, groups, &found, &statistics))
    }

    /// The one of clips and statistics, one for each group.
    pub(super) fn of_clips(format: Format, groups: Groups, clips: &[f64], statistics: &[Statistics]) -> Self {
        let (scales, zero_points) = clips.iter().zip(statistics).map(|(clip, s)| format.of_clip(*clip, s)).unzip();
        Quantizer { format, groups, scales, zero_points }
    }

    /// What codes there are.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Which elements share a scale.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Of each group.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Of each group.
    pub fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    /// The groups of a tensor, of which there must be as many as scales.
    pub(super) fn check(&self, op: &'static str, grouped: Grouped) -> Result<Grouped> {
        if grouped.count() == self.scales.len() {
            return Ok(grouped);
        }
        let message =
            format!("{} scales for {} groups of shape {}", self.scales.len(), grouped.count(), grouped.x.shape());
        Err(Error::shape(op, message))
    }

    /// The arithmetic of a group.
    pub(super) fn steps(&self, group: usize) -> Steps {
        let zero = self.zero_points[group];
        let [lowest, highest] = self.format.range().map(|code| (code - zero) as f32);
        Steps { scale: self.scales[group], lowest, highest, zero_point: zero }
    }
}

/// The arithmetic of one scale, none of it fused: the same bits on every instruction set.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) scale: f32,
    /// The limits in steps from 0.
    pub(super) lowest: f32,
    pub(super) highest: f32,
    pub(super) zero_point: i32,
}
