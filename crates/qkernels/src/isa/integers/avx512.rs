//! Integers of AVX-512: dot products are single instructions with VNNI, and exact products of 16-bit numbers without.

use super::super::avx512::{Avx512, Avx512Vnni, first};
use super::{Integers, operations};
use std::arch::x86_64::*;

macro_rules! integers {
    ($name:ident; $($dot:tt)*) => {
        // SAFETY: a token exists only where the CPU has its instructions.
        unsafe impl Integers for $name {
            type F32 = __m512;
            type I32 = __m512i;

            #[inline(always)]
            unsafe fn load_i32_at(self, from: *const i32) -> __m512i {
                // SAFETY: the caller's promise; the token.
                unsafe { _mm512_loadu_si512(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store_i32_at(self, to: *mut i32, x: __m512i) {
                // SAFETY: the caller's promise; the token.
                unsafe { _mm512_storeu_si512(to.cast(), x) }
            }
            #[inline(always)]
            unsafe fn load_u8_at(self, from: *const u8) -> __m512 {
                // SAFETY: the caller's promise; the token.
                unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
            }
            #[inline(always)]
            unsafe fn load_u8_as_halves_at(self, from: *const u8) -> __m512i {
                // SAFETY: the caller's promise; the token.
                unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast())) }
            }
            #[inline(always)]
            unsafe fn load_bytes_part_at(self, from: *const u8, count: usize) -> __m512i {
                let mask = u64::MAX.checked_shr(64 - count.min(64) as u32).unwrap_or(0);
                // SAFETY: masked bytes are not read; the token.
                unsafe { _mm512_maskz_loadu_epi8(mask, from.cast()) }
            }
            #[inline(always)]
            fn interleave_bytes(self, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
                // SAFETY: the token.
                unsafe {
                    let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
                    let (high_ab, high_cd) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
                    [
                        _mm512_unpacklo_epi16(ab, cd),
                        _mm512_unpackhi_epi16(ab, cd),
                        _mm512_unpacklo_epi16(high_ab, high_cd),
                        _mm512_unpackhi_epi16(high_ab, high_cd),
                    ]
                }
            }
            #[inline(always)]
            fn in_order(self, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
                // Quarters are interleaved: a 4 by 4 block of them is transposed.
                // SAFETY: the token.
                unsafe {
                    let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
                    let (high_ab, high_cd) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d));
                    [
                        _mm512_shuffle_i32x4::<0x88>(ab, cd),
                        _mm512_shuffle_i32x4::<0xdd>(ab, cd),
                        _mm512_shuffle_i32x4::<0x88>(high_ab, high_cd),
                        _mm512_shuffle_i32x4::<0xdd>(high_ab, high_cd),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn load_u8_part_at(self, from: *const u8, count: usize) -> __m512 {
                // SAFETY: masked lanes are not read; the token.
                unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(count), from.cast()))) }
            }
            #[inline(always)]
            unsafe fn store_as_u8_at(self, to: *mut u8, x: __m512i) {
                // SAFETY: the caller's promise; the token.
                unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(x)) }
            }
            #[inline(always)]
            unsafe fn store_as_u8_part_at(self, to: *mut u8, count: usize, x: __m512i) {
                // SAFETY: masked lanes are not written; the token.
                unsafe { _mm_mask_storeu_epi8(to.cast(), first(count), _mm512_cvtepi32_epi8(x)) }
            }
            operations! {
                splat_i32(x: i32) -> __m512i = _mm512_set1_epi32(x);
                add_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
                sub_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
                mul_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
                shift_left_i32<const BITS: u32>(a: __m512i) -> __m512i = _mm512_slli_epi32::<BITS>(a);
                shift_right_i32(a: __m512i, bits: i32) -> __m512i = _mm512_sra_epi32(a, _mm_cvtsi32_si128(bits));
                xor_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
                add_i16(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi16(a, b);
                sub_i16(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi16(a, b);
                shift_left_i16<const BITS: u32>(a: __m512i) -> __m512i = _mm512_slli_epi16::<BITS>(a);
                to_f32(x: __m512i) -> __m512 = _mm512_cvtepi32_ps(x);
                to_i32(x: __m512) -> __m512i = _mm512_cvtps_epi32(x);
                $($dot)*
            }
        }
    };
}

integers! {
    Avx512Vnni;
    dot_u8_i8(a: __m512i, b: __m512i, c: __m512i) -> __m512i = _mm512_dpbusd_epi32(c, a, b);
    dot_i16(a: __m512i, b: __m512i, c: __m512i) -> __m512i = _mm512_dpwssd_epi32(c, a, b);
}
integers! {
    Avx512;
    // Bytes of odd and of even place as 16-bit numbers: the pair products of bytes would saturate.
    dot_u8_i8(a: __m512i, b: __m512i, c: __m512i) -> __m512i = {
        let even = _mm512_madd_epi16(
            _mm512_and_si512(a, _mm512_set1_epi16(0xff)),
            _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)),
        );
        let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
        _mm512_add_epi32(_mm512_add_epi32(c, even), odd)
    };
    dot_i16(a: __m512i, b: __m512i, c: __m512i) -> __m512i = _mm512_add_epi32(c, _mm512_madd_epi16(a, b));
}
