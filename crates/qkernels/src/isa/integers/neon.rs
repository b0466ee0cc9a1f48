//! Integers of NEON: a product of u8 and i8 fits 16 bits, so pairs are added from there.

use super::super::neon::Neon;
use super::{Integers, operations};
use std::arch::aarch64::*;

// SAFETY: a token exists only where the CPU has its instructions.
unsafe impl Integers for Neon {
    type F32 = float32x4_t;
    type I32 = int32x4_t;

    #[inline(always)]
    unsafe fn load_i32_at(self, from: *const i32) -> int32x4_t {
        // SAFETY: the caller's promise, which asks for no alignment, nor does the instruction; the token.
        unsafe { vld1q_s32(from) }
    }
    #[inline(always)]
    unsafe fn store_i32_at(self, to: *mut i32, x: int32x4_t) {
        // SAFETY: as above.
        unsafe { vst1q_s32(to, x) }
    }
    #[inline(always)]
    unsafe fn load_u8_at(self, from: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise; the token.
        unsafe {
            let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned()));
            vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
        }
    }
    #[inline(always)]
    fn interleave_bytes(self, rows: [int32x4_t; 4]) -> [int32x4_t; 4] {
        // SAFETY: the token.
        unsafe {
            let [a, b, c, d] = rows.map(|row| vreinterpretq_u8_s32(row));
            let pairs = |low, high| {
                let (low, high) = (vreinterpretq_u16_u8(low), vreinterpretq_u16_u8(high));
                [vreinterpretq_s32_u16(vzip1q_u16(low, high)), vreinterpretq_s32_u16(vzip2q_u16(low, high))]
            };
            let [first, second] = pairs(vzip1q_u8(a, b), vzip1q_u8(c, d));
            let [third, fourth] = pairs(vzip2q_u8(a, b), vzip2q_u8(c, d));
            [first, second, third, fourth]
        }
    }
    #[inline(always)]
    unsafe fn load_u8_as_halves_at(self, from: *const u8) -> int32x4_t {
        // SAFETY: the caller's promise; the token.
        unsafe { vreinterpretq_s32_u16(vmovl_u8(vld1_u8(from))) }
    }
    #[inline(always)]
    unsafe fn store_as_u8_at(self, to: *mut u8, x: int32x4_t) {
        // SAFETY: the caller's promise; the token.
        unsafe {
            let halves = vmovn_u32(vreinterpretq_u32_s32(x));
            let bytes = vmovn_u16(vcombine_u16(halves, halves));
            to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
        }
    }
    operations! {
        splat_i32(x: i32) -> int32x4_t = vdupq_n_s32(x);
        add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
        sub_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vsubq_s32(a, b);
        mul_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vmulq_s32(a, b);
        shift_left_i32<const BITS: u32>(a: int32x4_t) -> int32x4_t = vshlq_s32(a, vdupq_n_s32(BITS as i32));
        shift_right_i32(a: int32x4_t, bits: i32) -> int32x4_t = vshlq_s32(a, vdupq_n_s32(-bits));
        xor_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = veorq_s32(a, b);
        add_i16(a: int32x4_t, b: int32x4_t) -> int32x4_t = {
            vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)))
        };
        sub_i16(a: int32x4_t, b: int32x4_t) -> int32x4_t = {
            vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)))
        };
        shift_left_i16<const BITS: u32>(a: int32x4_t) -> int32x4_t = {
            vreinterpretq_s32_s16(vshlq_s16(vreinterpretq_s16_s32(a), vdupq_n_s16(BITS as i16)))
        };
        to_f32(x: int32x4_t) -> float32x4_t = vcvtq_f32_s32(x);
        to_i32(x: float32x4_t) -> int32x4_t = vcvtnq_s32_f32(x);
        dot_u8_i8(a: int32x4_t, b: int32x4_t, c: int32x4_t) -> int32x4_t = {
            let (a, b) = (vreinterpretq_u8_s32(a), vreinterpretq_s8_s32(b));
            let wide = |a| vreinterpretq_s16_u16(vmovl_u8(a));
            let low = vmulq_s16(wide(vget_low_u8(a)), vmovl_s8(vget_low_s8(b)));
            let high = vmulq_s16(wide(vget_high_u8(a)), vmovl_s8(vget_high_s8(b)));
            vaddq_s32(c, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
        };
        dot_i16(a: int32x4_t, b: int32x4_t, c: int32x4_t) -> int32x4_t = {
            let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            let high = vmull_s16(vget_high_s16(a), vget_high_s16(b));
            vaddq_s32(c, vpaddq_s32(low, high))
        };
    }
}
