//! The token of 64-bit Arm's NEON.

use super::Isa;
use std::arch::aarch64::*;

/// NEON, which every 64-bit Arm CPU has.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

/// The operations that are one intrinsic each.
macro_rules! arithmetic {
    ($($method:ident($($x:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $method(self, $($x: $ty),*) -> $out {
            // SAFETY: the token proves that the CPU has NEON.
            unsafe { $body }
        }
    )*};
}

// SAFETY: `assume` is the only constructor.
unsafe impl Isa for Neon {
    type Mask = uint32x4_t;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Neon(())
    }
    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> float32x4_t {
        // SAFETY: the caller's promise; the token.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn load_part_at(self, from: *const f32, count: usize) -> float32x4_t {
        let mut lanes = [0.0; 4];
        // SAFETY: `count <= 4` f32 are readable, and the array holds four.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count.min(4));
            vld1q_f32(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32, x: float32x4_t) {
        // SAFETY: the caller's promise; the token.
        unsafe { vst1q_f32(to, x) }
    }
    #[inline(always)]
    unsafe fn store_part_at(self, to: *mut f32, count: usize, x: float32x4_t) {
        let mut lanes = [0.0; 4];
        // SAFETY: the array holds four, and `count <= 4` f32 are writable.
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), x);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count.min(4));
        }
    }
    arithmetic! {
        splat(x: f32) -> float32x4_t = vdupq_n_f32(x);
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        // Select by comparison, because NEON's own maximum returns NaN where the others return `b`.
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
        sqrt(a: float32x4_t) -> float32x4_t = vsqrtq_f32(a);
        round(a: float32x4_t) -> float32x4_t = vrndnq_f32(a);
        scale_by_power_of_two(a: float32x4_t, n: float32x4_t) -> float32x4_t = {
            let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        };
        gt(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcgtq_f32(a, b);
        is_nan(a: float32x4_t) -> uint32x4_t = vmvnq_u32(vceqq_f32(a, a));
        split(a: float32x4_t) -> (float32x4_t, float32x4_t) = {
            let bits = vreinterpretq_u32_f32(a);
            let mantissa = vorrq_u32(vandq_u32(bits, vdupq_n_u32(0x007f_ffff)), vdupq_n_u32(0x3f80_0000));
            let exponent = vandq_u32(vshrq_n_u32::<23>(bits), vdupq_n_u32(0xff));
            (vreinterpretq_f32_u32(mantissa), vsubq_f32(vcvtq_f32_u32(exponent), vdupq_n_f32(127.0)))
        };
        select(mask: uint32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t = vbslq_f32(mask, yes, no);
        sum(a: float32x4_t) -> f32 = vaddvq_f32(a);
        maximum(a: float32x4_t) -> f32 = vmaxvq_f32(a);
    }
}
