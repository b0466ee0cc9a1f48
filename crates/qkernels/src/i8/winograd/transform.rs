//! The transforms of one axis with whole numbers: the points 0, ±1, ±2 and infinity.

use crate::isa::Isa;

/// Outputs of a tile along an axis.
pub(super) const TILE: usize = 4;
/// Pixels that a tile sees along an axis, and the points there.
pub(super) const PATCH: usize = 6;
/// Points of a tile.
pub(super) const POINTS: usize = PATCH * PATCH;

/// Three taps at the six points, times 24, 6, 6, 24, 24 and 6.
pub(super) fn filter([a, b, c]: [i16; 3]) -> [i16; PATCH] {
    let (ends, all) = (a + c, a + 4 * c);
    [6 * a, -ends - b, b - ends, all + 2 * b, all - 2 * b, 6 * c]
}

/// Six pixels at the six points, in halves. Of bytes along both axes nothing is larger than 17 340.
#[inline(always)]
pub(super) fn input<I: Isa>(isa: I, d: [I::I32; PATCH]) -> [I::I32; PATCH] {
    let double = |x| isa.shift_left_i16::<1>(x);
    let fourfold = |x| isa.shift_left_i16::<2>(x);
    let near = isa.sub_i16(d[4], d[2]);
    let far = double(isa.sub_i16(d[3], d[1]));
    [
        isa.add_i16(fourfold(isa.sub_i16(d[0], d[2])), near),
        isa.sub_i16(isa.add_i16(d[3], d[4]), fourfold(isa.add_i16(d[1], d[2]))),
        isa.add_i16(fourfold(isa.sub_i16(d[1], d[2])), isa.sub_i16(d[4], d[3])),
        isa.add_i16(near, far),
        isa.sub_i16(near, far),
        isa.sub_i16(isa.sub_i16(d[5], d[3]), double(far)),
    ]
}

/// The four outputs of products at six points, times 3 and a power of two: 2 to the [`SHIFTS`].
#[inline(always)]
pub(super) fn output<I: Isa>(isa: I, m: [I::I32; PATCH]) -> [I::I32; TILE] {
    let double = |x| isa.shift_left_i32::<1>(x);
    let (sum, difference) = (isa.add_i32(m[1], m[2]), isa.sub_i32(m[1], m[2]));
    let (outer_sum, outer_difference) = (isa.add_i32(m[3], m[4]), isa.sub_i32(m[3], m[4]));
    [
        isa.add_i32(isa.add_i32(m[0], outer_sum), isa.shift_left_i32::<2>(sum)),
        isa.add_i32(double(difference), outer_difference),
        isa.add_i32(sum, outer_sum),
        isa.add_i32(isa.add_i32(difference, m[5]), double(outer_difference)),
    ]
}

/// Powers of two in the outputs of an axis.
pub(super) const SHIFTS: [i32; TILE] = [3, 2, 1, 1];
/// The inverse of 9 modulo 2^32: the factors 3 of both axes.
pub(super) const NINTH: i32 = 954_437_177;
/// Sums below this in magnitude survive: the outputs are known modulo 2^32 when they still have their powers of two.
pub(super) const LIMIT: i64 = 1 << (31 - 2 * SHIFTS[0]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Kernel, MOST_LANES, available, dispatch_on};

    struct Axis([i16; 3], [u8; PATCH]);

    impl Kernel for Axis {
        type Output = ();
        const DOT_PRODUCTS: bool = true;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            let Axis(taps, pixels) = self;
            let points = input(isa, pixels.map(|x| isa.splat_i32(i32::from(x))));
            let factors = filter(taps).map(|w| isa.splat_i32(i32::from(w) & 0xffff));
            let products = std::array::from_fn(|i| isa.dot_i16(points[i], factors[i], isa.splat_i32(0)));
            for (i, y) in output(isa, products).into_iter().enumerate() {
                let mut out = [0; MOST_LANES];
                // SAFETY: the array holds any vector.
                unsafe { isa.store_i32_at(out.as_mut_ptr(), y) };
                let expected: i32 = (0..3).map(|t| i32::from(taps[t]) * i32::from(pixels[i + t])).sum();
                assert_eq!(out[..I::LANES], [(3 * expected) << SHIFTS[i]; MOST_LANES][..I::LANES]);
            }
        }
    }

    #[test]
    fn an_axis_is_a_correlation() {
        for id in available() {
            for (taps, pixels) in [
                ([1, 0, 0], [1, 2, 3, 4, 5, 6]),
                ([-128, 127, -128], [255, 0, 255, 0, 255, 1]),
                ([3, -7, 90], [9, 200, 17, 33, 1, 0]),
            ] {
                dispatch_on(id, Axis(taps, pixels));
            }
        }
    }

    #[test]
    fn the_inverse_of_nine_is_one() {
        assert_eq!(NINTH.wrapping_mul(9), 1);
    }
}
