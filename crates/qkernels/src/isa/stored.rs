//! The two types that a kernel's floats may have in memory: arithmetic is in f32 whichever it is.

use super::{Isa, bf16_lanes};
use qtensor::{Element, bf16};

/// f32, or bf16 that becomes f32 in the registers. Products of bf16 are taken in pairs: see [`Isa::dot_bf16`].
pub(crate) trait Stored: Element + Default {
    /// Numbers in 32 bits, which are one lane of a product.
    const IN_WORD: usize;
    /// Whether products need an instruction set's dot products.
    const DOT_PRODUCTS: bool = Self::IN_WORD > 1;

    /// The number in f32.
    fn wide(self) -> f32;
    /// The nearest number of this type, ties to even.
    fn nearest(x: f32) -> Self;

    /// Reads a vector.
    ///
    /// # Safety
    /// `LANES` numbers must be readable at `from`.
    unsafe fn load_at<I: Isa>(isa: I, from: *const Self) -> I::F32;
    /// Reads `count <= LANES` numbers; the other lanes are 0 and their memory is not touched.
    ///
    /// # Safety
    /// `count` numbers must be readable at `from`.
    unsafe fn load_part_at<I: Isa>(isa: I, from: *const Self, count: usize) -> I::F32;
    /// Writes a vector.
    ///
    /// # Safety
    /// `LANES` numbers must be writable at `to`.
    unsafe fn store_at<I: Isa>(isa: I, to: *mut Self, x: I::F32);
    /// Writes the first `count <= LANES` lanes; the memory of the others is not touched.
    ///
    /// # Safety
    /// `count` numbers must be writable at `to`.
    unsafe fn store_part_at<I: Isa>(isa: I, to: *mut Self, count: usize, x: I::F32);

    /// What a factor of a product is rounded to.
    fn factor<I: Isa>(isa: I, x: I::F32) -> I::F32;
    /// Writes a vector of factors, one behind the other: `LANES / IN_WORD` words.
    ///
    /// # Safety
    /// That many words must be writable at `to`.
    unsafe fn store_factors_at<I: Isa>(isa: I, to: *mut f32, x: I::F32);
    /// `c` and the products of all numbers of each word.
    fn multiply_add<I: Isa>(isa: I, a: I::F32, b: I::F32, c: I::F32) -> I::F32;

    /// Reads the first `LANES` items; panics where the slice is shorter.
    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[Self]) -> I::F32 {
        let from = &from[..I::LANES];
        // SAFETY: the slice has LANES items.
        unsafe { Self::load_at(isa, from.as_ptr()) }
    }
    /// Reads a slice of at most `LANES` items; the other lanes are 0.
    #[inline(always)]
    fn load_part<I: Isa>(isa: I, from: &[Self]) -> I::F32 {
        // SAFETY: as many items are there.
        unsafe { Self::load_part_at(isa, from.as_ptr(), from.len().min(I::LANES)) }
    }
    /// Writes the first `LANES` items; panics where the slice is shorter.
    #[inline(always)]
    fn store<I: Isa>(isa: I, to: &mut [Self], x: I::F32) {
        let to = &mut to[..I::LANES];
        // SAFETY: the slice has LANES items.
        unsafe { Self::store_at(isa, to.as_mut_ptr(), x) }
    }
    /// Writes as many lanes as the slice has items, at most `LANES`.
    #[inline(always)]
    fn store_part<I: Isa>(isa: I, to: &mut [Self], x: I::F32) {
        let count = to.len().min(I::LANES);
        // SAFETY: `count` items are there.
        unsafe { Self::store_part_at(isa, to.as_mut_ptr(), count, x) }
    }
}

impl Stored for f32 {
    const IN_WORD: usize = 1;

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
    #[inline(always)]
    fn nearest(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    unsafe fn load_at<I: Isa>(isa: I, from: *const f32) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { isa.load_at(from) }
    }
    #[inline(always)]
    unsafe fn load_part_at<I: Isa>(isa: I, from: *const f32, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { isa.load_part_at(from, count) }
    }
    #[inline(always)]
    unsafe fn store_at<I: Isa>(isa: I, to: *mut f32, x: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_at(to, x) }
    }
    #[inline(always)]
    unsafe fn store_part_at<I: Isa>(isa: I, to: *mut f32, count: usize, x: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_part_at(to, count, x) }
    }
    #[inline(always)]
    fn factor<I: Isa>(_: I, x: I::F32) -> I::F32 {
        x
    }
    #[inline(always)]
    unsafe fn store_factors_at<I: Isa>(isa: I, to: *mut f32, x: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_at(to, x) }
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::F32, b: I::F32, c: I::F32) -> I::F32 {
        isa.fma(a, b, c)
    }
}

impl Stored for bf16 {
    const IN_WORD: usize = 2;

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn nearest(x: f32) -> bf16 {
        bf16_lanes::round(x)
    }

    #[inline(always)]
    unsafe fn load_at<I: Isa>(isa: I, from: *const bf16) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { isa.load_bf16_at(from) }
    }
    #[inline(always)]
    unsafe fn load_part_at<I: Isa>(isa: I, from: *const bf16, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { isa.load_bf16_part_at(from, count) }
    }
    #[inline(always)]
    unsafe fn store_at<I: Isa>(isa: I, to: *mut bf16, x: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_bf16_at(to, x) }
    }
    #[inline(always)]
    unsafe fn store_part_at<I: Isa>(isa: I, to: *mut bf16, count: usize, x: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_bf16_part_at(to, count, x) }
    }
    #[inline(always)]
    fn factor<I: Isa>(isa: I, x: I::F32) -> I::F32 {
        isa.round_bf16(x)
    }
    #[inline(always)]
    unsafe fn store_factors_at<I: Isa>(isa: I, to: *mut f32, x: I::F32) {
        // SAFETY: the caller's promise: a vector of bf16 is half as long as one of f32.
        unsafe { isa.store_factors_at(to.cast(), x) }
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::F32, b: I::F32, c: I::F32) -> I::F32 {
        isa.dot_bf16(a, b, c)
    }
}
