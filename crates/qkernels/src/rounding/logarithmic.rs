//! Codes whose values are powers of two apart.

use super::extremes::extremes;
use super::groups::{Grouped, Groups, parts};
use super::noise::Rounding;
use super::pass::{Code, Look, Pass, bytes_mut};
use crate::isa::{Isa, Kernel, dispatch};
use crate::par;
use qtensor::{DType, Error, Result, Tensor};

/// Elements that one thread takes at a time.
const PIECE: usize = 32 * 1024;

/// Logarithmic unbiased quantization, LUQ (Chmiel et al., "Accurate neural training with 4-bit matrix multiplications at standard formats", 2021).
///
/// With `L` levels and the largest magnitude `M` of a group, `α = M · 2^(1 − L)` and the values are 0 and `±α · 2^k` for `k` below `L`. A code is an i8: 0 for 0, else `k + 1`
/// with the sign of the value. Stochastic rounding is unbiased:
/// - `|x| < α` becomes `±α` with probability `|x| / α`, else 0;
/// - `α · 2^k <= |x| < α · 2^(k + 1)` becomes the upper one with probability `|x| / (α · 2^k) − 1`, else the lower one.
///
/// To nearest, `|x| < α` becomes 0, and others go up from `1.5 · α · 2^k` on. Magnitudes above `M` become `M`.
#[derive(Clone, Debug, PartialEq)]
pub struct Logarithmic {
    levels: u8,
    groups: Groups,
    maxima: Vec<f32>,
}

impl Logarithmic {
    /// The most levels that a byte holds with their signs.
    pub const MOST_LEVELS: u8 = 127;

    /// Levels for exponents of that many bits: `2^bits`, at most [`MOST_LEVELS`](Self::MOST_LEVELS), which 7 bits and more have.
    pub const fn levels_of_bits(bits: u32) -> u8 {
        if bits < 7 { 1 << bits } else { Self::MOST_LEVELS }
    }

    /// One for each largest magnitude; 0 stands for 1, for groups of zeros.
    ///
    /// # Errors
    /// Levels that are not in 1 to 127; magnitudes that are negative, infinite or not a number.
    pub fn new(levels: u8, groups: Groups, maxima: Vec<f32>) -> Result<Self> {
        let op = "logarithmic quantizer";
        if !(1..=Self::MOST_LEVELS).contains(&levels) {
            return Err(Error::argument(op, format!("{levels} levels; there must be 1 to {}", Self::MOST_LEVELS)));
        }
        if let Some(maximum) = maxima.iter().find(|maximum| !(maximum.is_finite() && **maximum >= 0.0)) {
            return Err(Error::argument(
                op,
                format!("a largest magnitude is {maximum}; it must be finite and at least 0"),
            ));
        }
        let maxima = maxima.into_iter().map(|maximum| if maximum == 0.0 { 1.0 } else { maximum }).collect();
        Ok(Logarithmic { levels, groups, maxima })
    }

    /// The one whose range holds all values of each group of an f32 tensor.
    ///
    /// # Errors
    /// As [`new`](Self::new); another element type, groups that do not fit, or a value that is infinite or not a number: the message says where.
    pub fn choose(x: &Tensor, groups: Groups, levels: u8) -> Result<Self> {
        let maxima = extremes(x, &groups)?.iter().map(|s| s.absmax() as f32).collect();
        Self::new(levels, groups, maxima)
    }

    /// Values of either sign.
    pub fn levels(&self) -> u8 {
        self.levels
    }

    /// The largest value of each group.
    pub fn maxima(&self) -> &[f32] {
        &self.maxima
    }

    /// The codes of an f32 tensor, i8, in the memory order of [`Quantizer::quantize`](super::Quantizer::quantize). One pass over memory.
    ///
    /// # Errors
    /// Another element type, groups that do not fit, or a value that is infinite or not a number: the message says where.
    pub fn quantize(&self, x: &Tensor, rounding: Rounding) -> Result<Tensor> {
        let op = "logarithmic quantize";
        let grouped = self.check(op, self.groups.of(op, x)?)?;
        let mut codes = grouped.x.empty_like_of(DType::I8);
        let pass = Pass { op, grouped: &grouped, rounding, look: Look::Finite };
        let top = f32::from_bits((u32::from(self.levels) + 126) << 23);
        pass.run(bytes_mut(&mut codes)?, |group| Exponents { maximum: self.maxima[group], top })?;
        Ok(codes)
    }

    /// The values of codes in f32: `±M · 2^(|code| − L)`, rounded where it is subnormal, and 0 for 0. Codes beyond the levels are the next powers.
    ///
    /// # Errors
    /// Codes that are not i8, or groups that do not fit.
    pub fn dequantize(&self, codes: &Tensor) -> Result<Tensor> {
        let op = "logarithmic dequantize";
        if codes.dtype() != DType::I8 {
            return Err(Error::DType { op, expected: DType::I8, found: codes.dtype() });
        }
        let grouped = self.check(op, self.groups.of_any(op, codes)?)?;
        let mut x = grouped.x.empty_like_of(DType::F32);
        let codes = grouped.x.memory::<i8>()?;
        par::for_each_chunk(x.memory_mut::<f32>()?, PIECE, |piece, to| {
            let start = piece * PIECE;
            for (group, part) in parts(&grouped.starts, start..start + to.len()) {
                let to = &mut to[part.start - start..part.end - start];
                let codes = &codes[part];
                dispatch(Restore { codes, to, maximum: self.maxima[group], levels: i32::from(self.levels) });
            }
        });
        Ok(x)
    }

    fn check(&self, op: &'static str, grouped: Grouped) -> Result<Grouped> {
        if grouped.count() == self.maxima.len() {
            return Ok(grouped);
        }
        let message =
            format!("{} ranges for {} groups of shape {}", self.maxima.len(), grouped.count(), grouped.x.shape());
        Err(Error::shape(op, message))
    }
}

struct Restore<'a> {
    codes: &'a [i8],
    to: &'a mut [f32],
    maximum: f32,
    levels: i32,
}

impl Kernel for Restore<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for (to, code) in self.to.iter_mut().zip(self.codes) {
            let code = i32::from(*code);
            // A power of two by its exponent, which is in -126..=127.
            let value = self.maximum * f32::from_bits(((code.abs() - self.levels + 127) << 23) as u32);
            *to = if code == 0 { 0.0 } else { value.copysign(code as f32) };
        }
    }
}

/// The arithmetic of one range: none of it is fused.
#[derive(Clone, Copy)]
struct Exponents {
    maximum: f32,
    /// 2^(L − 1), the largest magnitude in units of `α`.
    top: f32,
}

impl Exponents {
    /// The code from the share above the lower value at which a number goes up: from `α` on, and below.
    #[inline(always)]
    fn code(self, x: f32, from_alpha: f32, below: f32) -> u8 {
        let share = x.abs() / self.maximum;
        let y = if share < 1.0 { share } else { 1.0 } * self.top;
        let bits = y.to_bits() as i32;
        let is_level = y >= 1.0;
        let lower = if is_level { (bits >> 23) - 126 } else { 0 };
        // The bits behind the point of the mantissa.
        let above = f32::from_bits((bits & 0x007f_ffff | 0x3f80_0000) as u32) - 1.0;
        let (above, from) = if is_level { (above, from_alpha) } else { (y, below) };
        let magnitude = lower + i32::from(above >= from);
        (if x < 0.0 { -magnitude } else { magnitude }) as u8
    }
}

impl Code for Exponents {
    #[inline(always)]
    fn nearest(self, x: f32) -> u8 {
        self.code(x, 0.5, 1.0)
    }

    #[inline(always)]
    fn stochastic(self, x: f32, u: f32) -> u8 {
        self.code(x, u, u)
    }
}
