//! Square blocks transposed in registers: three levels of interleaving and one of moving quarters or halves.

use std::arch::x86_64::*;

/// Transposes 16 by 16 numbers, past the caches where `PAST` is set.
///
/// # Safety
/// The CPU has AVX-512F. `from` has 16 rows of 16 readable f32, `from_step` apart; `to` 16 rows of 16 writable f32, `to_step` apart, that do not overlap `from`, and that start at
/// multiples of 64 bytes where `PAST` is set.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose_16<const PAST: bool>(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
    let mut rows = [_mm512_setzero_ps(); 16];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *row = unsafe { _mm512_loadu_ps(from.add(i * from_step)) };
    }
    // Within each 128-bit lane: columns of four rows.
    let mut fours = [_mm512_setzero_ps(); 16];
    for i in 0..4 {
        let (a, b, c, d) = (rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]);
        let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let low = |x, y| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
        let high = |x, y| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
        fours[i] = low(ab_low, cd_low);
        fours[4 + i] = high(ab_low, cd_low);
        fours[8 + i] = low(ab_high, cd_high);
        fours[12 + i] = high(ab_high, cd_high);
    }
    // Lane `l` of `fours[4 * c + i]` is column `4 * l + c` of rows `4 * i ..`; gather the four lanes of each column.
    for c in 0..4 {
        let [a, b, d, e] = [fours[4 * c], fours[4 * c + 1], fours[4 * c + 2], fours[4 * c + 3]];
        let ab_even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
        let ab_odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
        let de_even = _mm512_shuffle_f32x4::<0b10_00_10_00>(d, e);
        let de_odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(d, e);
        let columns = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, de_even),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, de_odd),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, de_even),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, de_odd),
        ];
        for (lane, column) in columns.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let to = to.add((4 * lane + c) * to_step);
                if PAST { _mm512_stream_ps(to, column) } else { _mm512_storeu_ps(to, column) }
            }
        }
    }
}

#[cfg(not(quartz_quick_build))]
/// Transposes 8 by 8 numbers.
///
/// # Safety
/// The CPU has AVX2. `from` has 8 rows of 8 readable f32, `from_step` apart; `to` 8 rows of 8 writable f32, `to_step` apart, that do not overlap `from`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose_8(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
    let mut rows = [_mm256_setzero_ps(); 8];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *row = unsafe { _mm256_loadu_ps(from.add(i * from_step)) };
    }
    let mut fours = [_mm256_setzero_ps(); 8];
    for i in 0..2 {
        let (a, b, c, d) = (rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]);
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        fours[i] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
        fours[2 + i] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
        fours[4 + i] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
        fours[6 + i] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
    }
    for c in 0..4 {
        let (first, second) = (fours[2 * c], fours[2 * c + 1]);
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to.add(c * to_step), _mm256_permute2f128_ps::<0x20>(first, second));
            _mm256_storeu_ps(to.add((4 + c) * to_step), _mm256_permute2f128_ps::<0x31>(first, second));
        }
    }
}
