//! Integers of AVX2: products of bytes by way of 16-bit numbers, because its own pair products of bytes saturate.

use super::super::avx2::Avx2;
use super::{Integers, operations};
use std::arch::x86_64::*;

// SAFETY: a token exists only where the CPU has its instructions.
unsafe impl Integers for Avx2 {
    type F32 = __m256;
    type I32 = __m256i;

    #[inline(always)]
    unsafe fn load_i32_at(self, from: *const i32) -> __m256i {
        // SAFETY: the caller's promise; the token.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_i32_at(self, to: *mut i32, x: __m256i) {
        // SAFETY: the caller's promise; the token.
        unsafe { _mm256_storeu_si256(to.cast(), x) }
    }
    #[inline(always)]
    unsafe fn load_u8_at(self, from: *const u8) -> __m256 {
        // SAFETY: the caller's promise; the token.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
    #[inline(always)]
    fn interleave_bytes(self, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        // SAFETY: the token.
        unsafe {
            let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
            let (high_ab, high_cd) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
            [
                _mm256_unpacklo_epi16(ab, cd),
                _mm256_unpackhi_epi16(ab, cd),
                _mm256_unpacklo_epi16(high_ab, high_cd),
                _mm256_unpackhi_epi16(high_ab, high_cd),
            ]
        }
    }
    #[inline(always)]
    fn in_order(self, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        // The low halves of all are the first half of the words.
        // SAFETY: the token.
        unsafe {
            [
                _mm256_permute2x128_si256::<0x20>(a, b),
                _mm256_permute2x128_si256::<0x20>(c, d),
                _mm256_permute2x128_si256::<0x31>(a, b),
                _mm256_permute2x128_si256::<0x31>(c, d),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_u8_as_halves_at(self, from: *const u8) -> __m256i {
        // SAFETY: the caller's promise; the token.
        unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn store_as_u8_at(self, to: *mut u8, x: __m256i) {
        // SAFETY: the caller's promise; the token.
        unsafe {
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(halves, halves));
        }
    }
    operations! {
        splat_i32(x: i32) -> __m256i = _mm256_set1_epi32(x);
        add_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        sub_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        mul_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_mullo_epi32(a, b);
        shift_left_i32<const BITS: u32>(a: __m256i) -> __m256i = _mm256_sll_epi32(a, _mm_cvtsi32_si128(BITS as i32));
        shift_right_i32(a: __m256i, bits: i32) -> __m256i = _mm256_sra_epi32(a, _mm_cvtsi32_si128(bits));
        xor_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        add_i16(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi16(a, b);
        sub_i16(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi16(a, b);
        shift_left_i16<const BITS: u32>(a: __m256i) -> __m256i = _mm256_sll_epi16(a, _mm_cvtsi32_si128(BITS as i32));
        to_f32(x: __m256i) -> __m256 = _mm256_cvtepi32_ps(x);
        to_i32(x: __m256) -> __m256i = _mm256_cvtps_epi32(x);
        dot_u8_i8(a: __m256i, b: __m256i, c: __m256i) -> __m256i = {
            let even = _mm256_madd_epi16(
                _mm256_and_si256(a, _mm256_set1_epi16(0xff)),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)),
            );
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
            _mm256_add_epi32(_mm256_add_epi32(c, even), odd)
        };
        dot_i16(a: __m256i, b: __m256i, c: __m256i) -> __m256i = _mm256_add_epi32(c, _mm256_madd_epi16(a, b));
    }
}
