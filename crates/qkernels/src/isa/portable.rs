//! Plain Rust on arrays of eight: what every CPU can run, and what the compiler vectorises as far as it may.

use super::Isa;

/// No instruction beyond the architecture's baseline.
#[derive(Clone, Copy)]
pub(super) struct Portable(());

pub(super) const LANES: usize = 8;
type Vector = [f32; LANES];

/// An array from the value of each lane: a loop, which the compiler inlines wherever it is used.
#[inline(always)]
pub(super) fn from_fn<T: Copy + Default>(lane: impl Fn(usize) -> T) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    for (i, x) in lanes.iter_mut().enumerate() {
        *x = lane(i);
    }
    lanes
}

// SAFETY: every CPU supports plain Rust.
unsafe impl Isa for Portable {
    type Mask = [bool; LANES];
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Portable(())
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Vector {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> Vector {
        // SAFETY: the caller's promise; f32 needs 4-byte alignment, which every f32 pointer has.
        unsafe { from.cast::<Vector>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_part_at(self, from: *const f32, count: usize) -> Vector {
        // SAFETY: `count` f32 are readable.
        from_fn(|i| if i < count { unsafe { *from.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32, x: Vector) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Vector>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn store_part_at(self, to: *mut f32, count: usize, x: Vector) {
        for (i, x) in x.into_iter().enumerate().take(count) {
            // SAFETY: `count` f32 are writable.
            unsafe { *to.add(i) = x }
        }
    }
    #[inline(always)]
    fn add(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Vector, b: Vector, c: Vector) -> Vector {
        // Two roundings: without an instruction for it, a fused product is a slow library call.
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Vector, b: Vector) -> Vector {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn sqrt(self, a: Vector) -> Vector {
        from_fn(|i| a[i].sqrt())
    }
    #[inline(always)]
    fn round(self, a: Vector) -> Vector {
        from_fn(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: Vector, n: Vector) -> Vector {
        from_fn(|i| a[i] * f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn gt(self, a: Vector, b: Vector) -> [bool; LANES] {
        from_fn(|i| a[i] > b[i])
    }
    #[inline(always)]
    fn is_nan(self, a: Vector) -> [bool; LANES] {
        from_fn(|i| a[i].is_nan())
    }
    #[inline(always)]
    fn split(self, a: Vector) -> (Vector, Vector) {
        let bits = a.map(f32::to_bits);
        (
            bits.map(|b| f32::from_bits((b & 0x007f_ffff) | 0x3f80_0000)),
            bits.map(|b| (((b >> 23) & 0xff) as i32 - 127) as f32),
        )
    }
    #[inline(always)]
    fn select(self, mask: [bool; LANES], yes: Vector, no: Vector) -> Vector {
        from_fn(|i| if mask[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn sum(self, a: Vector) -> f32 {
        let [a, b, c, d, e, f, g, h] = a;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    fn maximum(self, a: Vector) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
