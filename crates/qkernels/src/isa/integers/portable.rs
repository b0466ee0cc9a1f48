//! Integers in plain Rust.

use super::super::portable::{LANES, Portable, from_fn};
use super::Integers;

type Words = [i32; LANES];

/// A function of the halves of each lane.
#[inline(always)]
fn halves(a: Words, b: Words, function: impl Fn(i16, i16) -> i16) -> Words {
    from_fn(|i| {
        let low = function(a[i] as i16, b[i] as i16) as u16;
        let high = function((a[i] >> 16) as i16, (b[i] >> 16) as i16);
        i32::from(low) | i32::from(high) << 16
    })
}

// SAFETY: every CPU supports plain Rust.
unsafe impl Integers for Portable {
    type F32 = [f32; LANES];
    type I32 = Words;

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Words {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_i32_at(self, from: *const i32) -> Words {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Words>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_i32_at(self, to: *mut i32, x: Words) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Words>().write_unaligned(x) }
    }
    #[inline(always)]
    fn add_i32(self, a: Words, b: Words) -> Words {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i32(self, a: Words, b: Words) -> Words {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn mul_i32(self, a: Words, b: Words) -> Words {
        from_fn(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    fn shift_right_i32(self, a: Words, bits: i32) -> Words {
        from_fn(|i| a[i] >> bits)
    }
    #[inline(always)]
    fn xor_i32(self, a: Words, b: Words) -> Words {
        from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn interleave_bytes(self, rows: [Words; 4]) -> [Words; 4] {
        [0, 1, 2, 3].map(|quarter| {
            from_fn(|i| {
                let place = quarter * LANES + i;
                let byte = |row: &Words| (row[place / 4] >> (8 * (place % 4))) & 0xff;
                let [a, b, c, d] = rows.each_ref().map(byte);
                a | b << 8 | c << 16 | d << 24
            })
        })
    }
    #[inline(always)]
    fn add_i16(self, a: Words, b: Words) -> Words {
        halves(a, b, i16::wrapping_add)
    }
    #[inline(always)]
    fn sub_i16(self, a: Words, b: Words) -> Words {
        halves(a, b, i16::wrapping_sub)
    }
    #[inline(always)]
    fn shift_left_i16<const BITS: u32>(self, a: Words) -> Words {
        halves(a, a, |a, _| a << BITS)
    }
    #[inline(always)]
    unsafe fn load_u8_as_halves_at(self, from: *const u8) -> Words {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[u8; 2 * LANES]>().read() };
        from_fn(|i| i32::from(bytes[2 * i]) | i32::from(bytes[2 * i + 1]) << 16)
    }
    #[inline(always)]
    fn shift_left_i32<const BITS: u32>(self, a: Words) -> Words {
        from_fn(|i| a[i] << BITS)
    }
    #[inline(always)]
    fn dot_u8_i8(self, a: Words, b: Words, c: Words) -> Words {
        from_fn(|i| {
            let product = |byte: u32| ((a[i] >> (8 * byte)) & 0xff) * ((b[i] << (24 - 8 * byte)) >> 24);
            c[i].wrapping_add(product(0) + product(1) + product(2) + product(3))
        })
    }
    #[inline(always)]
    fn dot_i16(self, a: Words, b: Words, c: Words) -> Words {
        from_fn(|i| {
            let low = ((a[i] << 16) >> 16) * ((b[i] << 16) >> 16);
            c[i].wrapping_add(low).wrapping_add((a[i] >> 16) * (b[i] >> 16))
        })
    }
    #[inline(always)]
    fn to_f32(self, x: Words) -> [f32; LANES] {
        from_fn(|i| x[i] as f32)
    }
    #[inline(always)]
    fn to_i32(self, x: [f32; LANES]) -> Words {
        from_fn(|i| x[i].round_ties_even() as i32)
    }
    #[inline(always)]
    unsafe fn load_u8_at(self, from: *const u8) -> [f32; LANES] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { from.cast::<[u8; LANES]>().read() };
        from_fn(|i| f32::from(bytes[i]))
    }
    #[inline(always)]
    unsafe fn store_as_u8_at(self, to: *mut u8, x: Words) {
        let bytes: [u8; LANES] = from_fn(|i| x[i] as u8);
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u8; LANES]>().write(bytes) }
    }
}
