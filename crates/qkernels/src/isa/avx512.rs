//! Tokens of AVX-512.

use super::x86::arithmetic;
use super::{Isa, MOST_LANES, transpose};
use qtensor::bf16;
use std::arch::x86_64::*;

macro_rules! avx512 {
    ($name:ident, $doc:literal; $($dot:item)*) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub(super) struct $name(());

        impl $name {
            /// The nearest bf16 of each lane, ties to even; NaN stays NaN.
            #[inline(always)]
            fn nearest_bf16(self, x: __m512) -> __m256i {
                // SAFETY: the token.
                unsafe {
                    let bits = _mm512_castps_si512(x);
                    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
                    let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
                    let rounded = _mm512_mask_blend_epi32(self.is_nan(x), rounded, quiet);
                    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
                }
            }
        }

        // SAFETY: `assume` is the only constructor.
        unsafe impl Isa for $name {
            type Mask = __mmask16;
            const LANES: usize = 16;
            const REGISTERS: usize = 32;

            #[inline(always)]
            unsafe fn assume() -> Self {
                $name(())
            }
            #[inline(always)]
            unsafe fn load_at(self, from: *const f32) -> __m512 {
                // SAFETY: the caller's promise; the token.
                unsafe { _mm512_loadu_ps(from) }
            }
            #[inline(always)]
            unsafe fn load_part_at(self, from: *const f32, count: usize) -> __m512 {
                // SAFETY: masked lanes are not read; the token.
                unsafe { _mm512_maskz_loadu_ps(first(count), from) }
            }
            #[inline(always)]
            unsafe fn store_at(self, to: *mut f32, x: __m512) {
                // SAFETY: the caller's promise; the token.
                unsafe { _mm512_storeu_ps(to, x) }
            }
            #[inline(always)]
            unsafe fn store_part_at(self, to: *mut f32, count: usize, x: __m512) {
                // SAFETY: masked lanes are not written; the token.
                unsafe { _mm512_mask_storeu_ps(to, first(count), x) }
            }
            #[inline(always)]
            unsafe fn load_bf16_at(self, from: *const bf16) -> __m512 {
                // SAFETY: the caller's promise; the token.
                unsafe {
                    let half = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(half))
                }
            }
            #[inline(always)]
            unsafe fn load_bf16_part_at(self, from: *const bf16, count: usize) -> __m512 {
                // SAFETY: masked lanes are not read; the token.
                unsafe {
                    let half = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(count), from.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(half))
                }
            }
            #[inline(always)]
            unsafe fn store_bf16_at(self, to: *mut bf16, x: __m512) {
                // SAFETY: the caller's promise; the token.
                unsafe { _mm256_storeu_si256(to.cast(), self.nearest_bf16(x)) }
            }
            #[inline(always)]
            unsafe fn store_bf16_part_at(self, to: *mut bf16, count: usize, x: __m512) {
                // SAFETY: masked lanes are not written; the token.
                unsafe { _mm256_mask_storeu_epi16(to.cast(), first(count), self.nearest_bf16(x)) }
            }
            #[inline(always)]
            fn pair_bf16(self, low: __m512, high: __m512) -> __m512 {
                // SAFETY: the token.
                unsafe {
                    let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(low));
                    let high = _mm512_and_si512(_mm512_castps_si512(high), _mm512_set1_epi32(!0xffff));
                    _mm512_castsi512_ps(_mm512_or_si512(low, high))
                }
            }
            $($dot)*
            #[inline(always)]
            unsafe fn transpose_at(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
                // SAFETY: the caller's promise; the token.
                unsafe { transpose::transpose_16::<false>(from, from_step, to, to_step) }
            }
            #[inline(always)]
            unsafe fn transpose_past_caches_at(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
                // SAFETY: the caller's promise; the token.
                unsafe { transpose::transpose_16::<true>(from, from_step, to, to_step) }
            }
            #[inline(always)]
            fn finish_past_caches(self) {
                // SAFETY: every CPU with the token's instructions has this one.
                unsafe { _mm_sfence() }
            }
            #[inline(always)]
            fn permute(self, a: __m512, from: &'static [u32; MOST_LANES]) -> __m512 {
                // SAFETY: 16 numbers are read; the token.
                unsafe { _mm512_permutexvar_ps(_mm512_loadu_si512(from.as_ptr().cast()), a) }
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
            fn scale_by_power_of_two(self, a: __m512, n: __m512) -> __m512 {
                // SAFETY: the token.
                unsafe { _mm512_scalef_ps(a, n) }
            }
            #[inline(always)]
            fn round(self, a: __m512) -> __m512 {
                // SAFETY: the token.
                unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
            }
            #[inline(always)]
            fn gt(self, a: __m512, b: __m512) -> __mmask16 {
                // SAFETY: the token.
                unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) }
            }
            #[inline(always)]
            fn is_nan(self, a: __m512) -> __mmask16 {
                // SAFETY: the token.
                unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a) }
            }
            #[inline(always)]
            fn split(self, a: __m512) -> (__m512, __m512) {
                // SAFETY: the token.
                unsafe { (_mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_ZERO>(a), _mm512_getexp_ps(a)) }
            }
            #[inline(always)]
            fn select(self, mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
                // SAFETY: the token.
                unsafe { _mm512_mask_blend_ps(mask, no, yes) }
            }
            #[inline(always)]
            fn sum(self, a: __m512) -> f32 {
                // SAFETY: the token.
                unsafe { _mm512_reduce_add_ps(a) }
            }
            #[inline(always)]
            fn maximum(self, a: __m512) -> f32 {
                // SAFETY: the token.
                unsafe { _mm512_reduce_max_ps(a) }
            }
            arithmetic!(
                __m512,
                _mm512_set1_ps,
                _mm512_add_ps,
                _mm512_sub_ps,
                _mm512_mul_ps,
                _mm512_div_ps,
                _mm512_fmadd_ps,
                _mm512_max_ps,
                _mm512_min_ps,
                _mm512_sqrt_ps
            );
        }
    };
}

/// A mask of the first `count <= 16` lanes.
#[inline(always)]
pub(super) fn first(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

avx512! {
    Avx512, "AVX-512 F, BW, DQ, VL.";
    #[inline(always)]
    fn round_bf16(self, x: __m512) -> __m512 {
        // SAFETY: the token.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(self.nearest_bf16(x)))) }
    }
    #[inline(always)]
    fn dot_bf16(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token.
        unsafe {
            let high = |x| _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(!0xffff)));
            let low = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(x)));
            _mm512_fmadd_ps(low(a), low(b), _mm512_fmadd_ps(high(a), high(b), c))
        }
    }
}
avx512! {
    Avx512Vnni, "AVX-512 with VNNI and BF16.";
    #[inline(always)]
    fn round_bf16(self, x: __m512) -> __m512 {
        // SAFETY: the token; the types are names of the same 256 bits.
        unsafe {
            let half = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
    }
    #[inline(always)]
    unsafe fn store_factors_at(self, to: *mut bf16, x: __m512) {
        // SAFETY: the caller's promise; the token; the types are names of the same 256 bits.
        unsafe {
            _mm256_storeu_si256(to.cast(), std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)));
        }
    }
    #[inline(always)]
    fn dot_bf16(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token; the types are names of the same 512 bits.
        unsafe {
            _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
        }
    }
}
