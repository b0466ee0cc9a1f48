//! Equally spaced codes: to codes and back.

use super::groups::parts;
use super::noise::Rounding;
use super::pass::{Code, Look, Pass, bytes_mut};
use super::quantizer::{Quantizer, Steps};
use super::statistics::Statistics;
use crate::isa::{Isa, Kernel, dispatch};
use crate::par;
use qtensor::{DType, Error, Result, Tensor};

/// Elements that one thread takes at a time.
const PIECE: usize = 32 * 1024;
/// Added to a number of magnitude below 2^22 this rounds to a whole number, ties to even, which is in the low bits then.
const WHOLE: f32 = 12_582_912.0;

impl Steps {
    /// `x` in steps, within the limits.
    #[inline(always)]
    fn limited(self, x: f32) -> f32 {
        let y = x / self.scale;
        let y = if y > self.lowest { y } else { self.lowest };
        if y < self.highest { y } else { self.highest }
    }
}

impl Code for Steps {
    #[inline(always)]
    fn nearest(self, x: f32) -> u8 {
        ((self.limited(x) + WHOLE).to_bits() as i32).wrapping_add(self.zero_point) as u8
    }

    #[inline(always)]
    fn stochastic(self, x: f32, u: f32) -> u8 {
        let y = self.limited(x);
        let whole = y + WHOLE;
        // Exact, and so is the comparison: a whole number stays, and others go up where their part above the lower number is at least `u`.
        let part = y - (whole - WHOLE);
        let (up, down) = (i32::from(part >= u), i32::from(part < u - 1.0));
        (whole.to_bits() as i32).wrapping_add(up - down + self.zero_point) as u8
    }
}

/// 1 where the nearest code is within the limits without them.
#[derive(Clone, Copy)]
struct InRange(Steps);

impl Code for InRange {
    #[inline(always)]
    fn nearest(self, x: f32) -> u8 {
        u8::from(self.0.holds(x))
    }
    #[inline(always)]
    fn stochastic(self, x: f32, _: f32) -> u8 {
        self.nearest(x)
    }
}

impl Quantizer {
    /// The codes of a tensor in f32 or bf16: `round(x / scale) + zero point`, within the range of the format. They have the memory order of `x` where that has no gaps, and, by channel, starts with
    /// axis 0; else they are row-major. One pass over memory.
    ///
    /// # Errors
    /// Another element type, groups that do not fit, or a value that is infinite or not a number: the message says where.
    pub fn quantize(&self, x: &Tensor, rounding: Rounding) -> Result<Tensor> {
        Ok(self.quantize_looking(x, rounding, Look::Finite)?.0)
    }

    /// As [`quantize`](Self::quantize), with the statistics of each group from the same pass.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize).
    pub fn quantize_and_measure(&self, x: &Tensor, rounding: Rounding) -> Result<(Tensor, Vec<Statistics>)> {
        self.quantize_looking(x, rounding, Look::Statistics)
    }

    pub(super) fn quantize_looking(
        &self,
        x: &Tensor,
        rounding: Rounding,
        look: Look,
    ) -> Result<(Tensor, Vec<Statistics>)> {
        let op = "quantize";
        let grouped = self.check(op, self.groups().of_floats(op, x)?)?;
        let mut codes = grouped.x.empty_like_of(self.format().dtype());
        let pass = Pass { op, grouped: &grouped, rounding, look };
        let statistics = pass.run(bytes_mut(&mut codes)?, |group| self.steps(group))?;
        Ok((codes, statistics))
    }

    /// `scale · (code − zero point)` in f32.
    ///
    /// # Errors
    /// Codes of another type than the format's, or groups that do not fit.
    pub fn dequantize(&self, codes: &Tensor) -> Result<Tensor> {
        let op = "dequantize";
        let expected = self.format().dtype();
        if codes.dtype() != expected {
            return Err(Error::DType { op, expected, found: codes.dtype() });
        }
        let grouped = self.check(op, self.groups().of_any(op, codes)?)?;
        let mut x = grouped.x.empty_like_of(DType::F32);
        let to = x.memory_mut()?;
        match expected {
            DType::I8 => self.restore::<i8>(grouped.x.memory()?, &grouped.starts, to),
            _ => self.restore::<u8>(grouped.x.memory()?, &grouped.starts, to),
        }
        Ok(x)
    }

    fn restore<T: Copy + Into<i32> + Sync>(&self, codes: &[T], starts: &[usize], to: &mut [f32]) {
        par::for_each_chunk(to, PIECE, |piece, to| {
            let start = piece * PIECE;
            for (group, part) in parts(starts, start..start + to.len()) {
                let to = &mut to[part.start - start..part.end - start];
                dispatch(Restore { codes: &codes[part], to, steps: self.steps(group) });
            }
        });
    }

    /// The straight-through rule (Bengio et al., 2013) with the clipping mask: `dy` where the nearest code of `x` lies within the range, 0 where `x` was clipped. In one pass, in the memory
    /// order of [`quantize`](Self::quantize).
    ///
    /// # Errors
    /// Shapes or element types that differ or are not f32, or groups that do not fit.
    pub fn gradient(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let op = "quantizer gradient";
        crate::elementwise::same(op, x, dy)?;
        let grouped = self.check(op, self.groups().of(op, x)?)?;
        let dy = crate::elementwise::operands::aligned(dy, &grouped.x)?;
        let (mut dx, from, dy) = (grouped.x.empty_like(), grouped.x.memory::<f32>()?, dy.memory::<f32>()?);
        par::for_each_chunk(dx.memory_mut()?, PIECE, |piece, to| {
            let start = piece * PIECE;
            for (group, part) in parts(&grouped.starts, start..start + to.len()) {
                let to = &mut to[part.start - start..part.end - start];
                dispatch(Masked { x: &from[part.clone()], dy: &dy[part], to, steps: self.steps(group) });
            }
        });
        Ok(dx)
    }

    /// The mask of [`gradient`](Self::gradient) as u8: 1 where it passes, else 0.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize).
    pub fn clip_mask(&self, x: &Tensor) -> Result<Tensor> {
        let op = "clip_mask";
        let grouped = self.check(op, self.groups().of(op, x)?)?;
        let mut mask = grouped.x.empty_like_of(DType::U8);
        let pass = Pass { op, grouped: &grouped, rounding: Rounding::Nearest, look: Look::Finite };
        pass.run(bytes_mut(&mut mask)?, |group| InRange(self.steps(group)))?;
        Ok(mask)
    }
}

impl Steps {
    #[inline(always)]
    fn holds(self, x: f32) -> bool {
        let y = x / self.scale;
        (y >= self.lowest - 0.5) & (y <= self.highest + 0.5)
    }
}

struct Restore<'a, T> {
    codes: &'a [T],
    to: &'a mut [f32],
    steps: Steps,
}

impl<T: Copy + Into<i32>> Kernel for Restore<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for (to, code) in self.to.iter_mut().zip(self.codes) {
            let code: i32 = (*code).into();
            *to = (code - self.steps.zero_point) as f32 * self.steps.scale;
        }
    }
}

struct Masked<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    to: &'a mut [f32],
    steps: Steps,
}

impl Kernel for Masked<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for ((to, x), dy) in self.to.iter_mut().zip(self.x).zip(self.dy) {
            *to = if self.steps.holds(*x) { *dy } else { 0.0 };
        }
    }
}
