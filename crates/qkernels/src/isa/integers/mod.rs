//! Integer arithmetic of the instruction sets: 32-bit lanes, sums of products of bytes and of 16-bit numbers, and bytes as f32. All of it is exact, so it gives
//! the same bits on every CPU.

#[cfg(all(target_arch = "x86_64", not(quartz_quick_build)))]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use super::MOST_LANES;

/// The vector types of an instruction set, which have equally many lanes, and what it does with integers.
///
/// # Safety
/// As for [`Isa`](super::Isa).
pub unsafe trait Integers: Copy {
    /// A vector of f32.
    type F32: Copy + Send + Sync;
    /// A vector of i32. For products each lane is a word of four bytes or of two 16-bit numbers, the first in the low bits.
    type I32: Copy + Send + Sync;

    /// All lanes equal to `x`.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// Reads a vector.
    ///
    /// # Safety
    /// `LANES` i32 must be readable at `from`; no alignment is needed.
    unsafe fn load_i32_at(self, from: *const i32) -> Self::I32;
    /// Writes a vector.
    ///
    /// # Safety
    /// `LANES` i32 must be writable at `to`; no alignment is needed.
    unsafe fn store_i32_at(self, to: *mut i32, x: Self::I32);
    /// `a + b`, modulo 2^32
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b`, modulo 2^32
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a * b`, modulo 2^32
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a * 2^BITS`, modulo 2^32
    fn shift_left_i32<const BITS: u32>(self, a: Self::I32) -> Self::I32;
    /// `a / 2^bits`, rounded down; `bits` below 32 should be a constant.
    fn shift_right_i32(self, a: Self::I32, bits: i32) -> Self::I32;
    /// `a + b` of halves, modulo 2^16
    fn add_i16(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b` of halves, modulo 2^16
    fn sub_i16(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a * 2^BITS` of halves, modulo 2^16
    fn shift_left_i16<const BITS: u32>(self, a: Self::I32) -> Self::I32;
    /// Reads `2 * LANES` bytes, each as a half.
    ///
    /// # Safety
    /// `2 * LANES` bytes must be readable at `from`.
    unsafe fn load_u8_as_halves_at(self, from: *const u8) -> Self::I32;
    /// Reads the words of `count <= 4 * LANES` bytes; the other bytes are 0 and their memory is not touched.
    ///
    /// # Safety
    /// `count` bytes must be readable at `from`.
    #[inline(always)]
    unsafe fn load_bytes_part_at(self, from: *const u8, count: usize) -> Self::I32 {
        let mut bytes = [0u8; 4 * MOST_LANES];
        // SAFETY: the caller's promise; the array holds any vector.
        unsafe {
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count.min(4 * MOST_LANES));
            self.load_i32_at(bytes.as_ptr().cast())
        }
    }
    /// Four vectors of bytes as words that have one byte of each, the first in the low bits. Which of the bytes a lane has is fixed for the instruction set:
    /// [`in_order`](Self::in_order) says.
    fn interleave_bytes(self, rows: [Self::I32; 4]) -> [Self::I32; 4];
    /// The words of [`interleave_bytes`](Self::interleave_bytes), or what is computed from each, in the order of the bytes.
    #[inline(always)]
    fn in_order(self, words: [Self::I32; 4]) -> [Self::I32; 4] {
        words
    }
    /// Bits that differ.
    fn xor_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `c` and the products of the four u8 of `a` with the four i8 of `b` in each lane, modulo 2^32 and never saturated.
    fn dot_u8_i8(self, a: Self::I32, b: Self::I32, c: Self::I32) -> Self::I32;
    /// `c` and the products of the two i16 of `a` with the two of `b` in each lane, modulo 2^32.
    fn dot_i16(self, a: Self::I32, b: Self::I32, c: Self::I32) -> Self::I32;
    /// The nearest f32, ties to even.
    fn to_f32(self, x: Self::I32) -> Self::F32;
    /// The nearest i32 of numbers between -2^31 and 2^31 - 128, ties to even.
    fn to_i32(self, x: Self::F32) -> Self::I32;
    /// Reads `LANES` bytes, each as an f32.
    ///
    /// # Safety
    /// `LANES` bytes must be readable at `from`.
    unsafe fn load_u8_at(self, from: *const u8) -> Self::F32;
    /// Reads `count <= LANES` bytes; the other lanes are 0 and their memory is not touched.
    ///
    /// # Safety
    /// `count` bytes must be readable at `from`.
    #[inline(always)]
    unsafe fn load_u8_part_at(self, from: *const u8, count: usize) -> Self::F32 {
        let mut bytes = [0u8; MOST_LANES];
        // SAFETY: the caller's promise; the array holds any vector.
        unsafe {
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count.min(MOST_LANES));
            self.load_u8_at(bytes.as_ptr())
        }
    }
    /// Writes `LANES` numbers of 0..=255 as bytes.
    ///
    /// # Safety
    /// `LANES` bytes must be writable at `to`.
    unsafe fn store_as_u8_at(self, to: *mut u8, x: Self::I32);
    /// Writes the first `count <= LANES` numbers of 0..=255 as bytes; the memory of the others is not touched.
    ///
    /// # Safety
    /// `count` bytes must be writable at `to`.
    #[inline(always)]
    unsafe fn store_as_u8_part_at(self, to: *mut u8, count: usize, x: Self::I32) {
        let mut bytes = [0u8; MOST_LANES];
        // SAFETY: the caller's promise; the array holds any vector.
        unsafe {
            self.store_as_u8_at(bytes.as_mut_ptr(), x);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count.min(MOST_LANES));
        }
    }
}

/// The operations that are one expression each, in tokens of x86-64 and Arm.
macro_rules! operations {
    ($($method:ident$(<const $bits:ident: u32>)?($($x:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $method$(<const $bits: u32>)?(self, $($x: $ty),*) -> $out {
            // SAFETY: the token proves that the CPU has the instructions.
            unsafe { $body }
        }
    )*};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use operations;

#[cfg(test)]
mod tests;
