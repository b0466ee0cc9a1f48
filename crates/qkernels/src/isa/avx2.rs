//! The token of AVX2.

use super::x86::arithmetic;
use super::{Isa, MOST_LANES, transpose};
use qtensor::bf16;
use std::arch::x86_64::*;

/// AVX2 with FMA.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// A vector mask of the first `count <= 8` lanes.
    #[inline(always)]
    fn first(self, count: usize) -> __m256i {
        // SAFETY: the token.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
        }
    }

    /// In the high half of each lane the nearest bf16, ties to even; NaN stays NaN.
    #[inline(always)]
    fn nearest_bf16(self, x: __m256) -> __m256i {
        // SAFETY: the token.
        unsafe {
            let bits = _mm256_castps_si256(x);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(self.is_nan(x)))
        }
    }

    #[inline(always)]
    fn lanes(a: __m256) -> [f32; 8] {
        bytemuck::cast(a)
    }
}

// SAFETY: `assume` is the only constructor.
unsafe impl Isa for Avx2 {
    type Mask = __m256;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Avx2(())
    }
    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> __m256 {
        // SAFETY: the caller's promise; the token.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_part_at(self, from: *const f32, count: usize) -> __m256 {
        // SAFETY: masked lanes are not read; the token.
        unsafe { _mm256_maskload_ps(from, self.first(count)) }
    }
    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32, x: __m256) {
        // SAFETY: the caller's promise; the token.
        unsafe { _mm256_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn store_part_at(self, to: *mut f32, count: usize, x: __m256) {
        // SAFETY: masked lanes are not written; the token.
        unsafe { _mm256_maskstore_ps(to, self.first(count), x) }
    }
    #[inline(always)]
    unsafe fn load_bf16_at(self, from: *const bf16) -> __m256 {
        // SAFETY: the caller's promise; the token.
        unsafe {
            let half = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(half))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_at(self, to: *mut bf16, x: __m256) {
        // SAFETY: the caller's promise; the token.
        unsafe {
            let high = _mm256_srli_epi32::<16>(self.nearest_bf16(x));
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(high, high));
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed));
        }
    }
    #[inline(always)]
    fn round_bf16(self, x: __m256) -> __m256 {
        // SAFETY: the token.
        unsafe { _mm256_castsi256_ps(_mm256_and_si256(self.nearest_bf16(x), _mm256_set1_epi32(!0xffff))) }
    }
    #[inline(always)]
    fn pair_bf16(self, low: __m256, high: __m256) -> __m256 {
        // SAFETY: the token.
        unsafe {
            let low = _mm256_srli_epi32::<16>(_mm256_castps_si256(low));
            let high = _mm256_and_si256(_mm256_castps_si256(high), _mm256_set1_epi32(!0xffff));
            _mm256_castsi256_ps(_mm256_or_si256(low, high))
        }
    }
    #[inline(always)]
    fn dot_bf16(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token.
        unsafe {
            let high = |x| _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(!0xffff)));
            let low = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x)));
            _mm256_fmadd_ps(low(a), low(b), _mm256_fmadd_ps(high(a), high(b), c))
        }
    }
    #[inline(always)]
    unsafe fn transpose_at(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: the caller's promise; the token.
        unsafe { transpose::transpose_8(from, from_step, to, to_step) }
    }
    #[inline(always)]
    fn permute(self, a: __m256, from: &'static [u32; MOST_LANES]) -> __m256 {
        // SAFETY: 8 numbers are read, of which the instruction takes three bits each; the token.
        unsafe { _mm256_permutevar8x32_ps(a, _mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    fn prefetch_far(self, at: *const f32) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: __m256, n: __m256) -> __m256 {
        // SAFETY: the token.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: the token.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn gt(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token.
        unsafe { _mm256_cmp_ps::<_CMP_GT_OQ>(a, b) }
    }
    #[inline(always)]
    fn is_nan(self, a: __m256) -> __m256 {
        // SAFETY: the token.
        unsafe { _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a) }
    }
    #[inline(always)]
    fn split(self, a: __m256) -> (__m256, __m256) {
        // SAFETY: the token.
        unsafe {
            let bits = _mm256_castps_si256(a);
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
            let mantissa = _mm256_or_si256(fraction, _mm256_set1_epi32(0x3f80_0000));
            let biased = _mm256_and_si256(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(0xff));
            let exponent = _mm256_sub_epi32(biased, _mm256_set1_epi32(127));
            (_mm256_castsi256_ps(mantissa), _mm256_cvtepi32_ps(exponent))
        }
    }
    #[inline(always)]
    fn select(self, mask: __m256, yes: __m256, no: __m256) -> __m256 {
        // SAFETY: the token.
        unsafe { _mm256_blendv_ps(no, yes, mask) }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        let [a, b, c, d, e, f, g, h] = Self::lanes(a);
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    fn maximum(self, a: __m256) -> f32 {
        Self::lanes(a).into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    arithmetic!(
        __m256,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_div_ps,
        _mm256_fmadd_ps,
        _mm256_max_ps,
        _mm256_min_ps,
        _mm256_sqrt_ps
    );
}
