//! Real numbers in steps of a scale as bytes.

use super::operands::Quantization;
use crate::isa::Isa;

/// The bytes of a quantization: numbers are limited before they are rounded, which gives the same bytes as the other way around and fits an i32.
#[derive(Clone, Copy)]
pub(super) struct ToBytes {
    lowest: f32,
    highest: f32,
    zero_point: i32,
}

impl ToBytes {
    /// Bytes from 0 on, or with `relu` from the zero point on.
    pub(super) fn new(quantization: Quantization, relu: bool) -> Self {
        let zero_point = f32::from(quantization.zero_point);
        ToBytes {
            lowest: if relu { 0.0 } else { -zero_point },
            highest: 255.0 - zero_point,
            zero_point: i32::from(quantization.zero_point),
        }
    }

    /// `round(x) + zero_point` within the limits, as words; the lowest for NaN.
    #[inline(always)]
    pub(super) fn apply<I: Isa>(self, isa: I, x: I::F32) -> I::I32 {
        // `max` gives its second operand for NaN.
        let inside = isa.min(isa.max(x, isa.splat(self.lowest)), isa.splat(self.highest));
        isa.add_i32(isa.to_i32(inside), isa.splat_i32(self.zero_point))
    }

    /// Writes [`apply`](Self::apply) of the first `count <= LANES` numbers.
    ///
    /// # Safety
    /// `count` bytes must be writable at `to`.
    #[inline(always)]
    pub(super) unsafe fn store<I: Isa>(self, isa: I, to: *mut u8, count: usize, x: I::F32) {
        let bytes = self.apply(isa, x);
        // SAFETY: the caller's promise.
        unsafe {
            if count == I::LANES { isa.store_as_u8_at(to, bytes) } else { isa.store_as_u8_part_at(to, count, bytes) }
        }
    }
}

/// Reads `count <= LANES` bytes as f32.
///
/// # Safety
/// They must be readable.
#[inline(always)]
pub(super) unsafe fn load<I: Isa>(isa: I, from: *const u8, count: usize) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe { if count == I::LANES { isa.load_u8_at(from) } else { isa.load_u8_part_at(from, count) } }
}
