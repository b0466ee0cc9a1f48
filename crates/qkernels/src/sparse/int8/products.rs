//! Register tiles of products of bytes, for the weight gradient.

use super::super::strips::{Extent, Tiling};
use super::super::tile::{Items, most_vectors};
use crate::conv::unrolled;
use crate::isa::{self, Isa, Kernel};
use std::ops::Range;

/// The tiles of [`ByteProducts`].
struct Registers;

impl Kernel for Registers {
    type Output = Tiling;
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Tiling {
        let sizes = &[1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16];
        // A vector of sums is read and written for each tile and weight, so short strips take some rows.
        Tiling { lanes: 4 * I::LANES, most: most_vectors::<I>(), sizes, bytes: 1, is_tall: true }
    }
}

/// Those of the instruction set in use.
pub(super) fn tiling() -> Tiling {
    isa::dispatch(Registers)
}

/// Vectors of one row.
const WHOLE: u8 = 0;
/// Vectors of one row, of which the last is cut off.
const PART: u8 = 1;
/// Whole vectors of some rows.
const ROWS: u8 = 2;

impl Extent {
    /// Which of the above.
    #[inline(always)]
    fn shape(&self, lanes: usize) -> u8 {
        match (self.rows, self.length % lanes) {
            (1, 0) => WHOLE,
            (1, _) => PART,
            _ => ROWS,
        }
    }

    /// Where each of the `V` vectors begins in the source (`side` 0) or the target (1), counted from the first: constants where they are of one row.
    #[inline(always)]
    fn starts<const V: usize, const SHAPE: u8>(&self, side: usize, lanes: usize) -> [usize; V] {
        let mut starts = [0; V];
        let line = (self.length / lanes).max(1);
        for (i, start) in starts.iter_mut().enumerate() {
            *start = if SHAPE == ROWS { i / line * self.pitches[side] + i % line * lanes } else { i * lanes };
        }
        starts
    }

    /// Numbers from the first to the end of the last.
    #[inline(always)]
    fn reach<const V: usize, const SHAPE: u8>(&self, side: usize, lanes: usize) -> usize {
        match SHAPE {
            WHOLE => V * lanes,
            PART => self.length.clamp((V - 1) * lanes, V * lanes),
            _ => (self.rows - 1) * self.pitches[side] + self.length,
        }
    }

    /// Numbers of vector `i`.
    #[inline(always)]
    fn count<const V: usize, const SHAPE: u8>(&self, i: usize, lanes: usize) -> usize {
        if SHAPE == PART && i + 1 == V { self.reach::<V, SHAPE>(0, lanes) - i * lanes } else { lanes }
    }
}

/// A kernel of `V` vectors that lie as `SHAPE` says.
struct Shaped<K, const V: usize, const SHAPE: u8>(K);

/// Runs the products of the right size and shape, in vectors of `$lanes` numbers.
macro_rules! by_shape {
    ($isa:ident, $lanes:expr, $kernel:expr, [$($vectors:literal)*]) => {{
        let kernel = $kernel;
        let extent = kernel.0.extent;
        match (extent.vectors($lanes), extent.shape($lanes)) {
            $(($vectors, WHOLE) if const { $vectors <= most_vectors::<I>() } => $isa.outline(Shaped::<_, $vectors, WHOLE>(kernel)),
            ($vectors, PART) if const { $vectors <= most_vectors::<I>() } => $isa.outline(Shaped::<_, $vectors, PART>(kernel)),
            ($vectors, ROWS) if const { $vectors <= most_vectors::<I>() } => $isa.outline(Shaped::<_, $vectors, ROWS>(kernel)),)*
            (vectors, _) => unreachable!("no tile has {vectors} vectors"),
        }
    }};
}

/// Reads a vector of so many bytes: less than whole ones only where `SHAPE` has a part.
#[inline(always)]
fn load<I: Isa, const SHAPE: u8>(isa: I, from: &[u8], count: usize) -> I::I32 {
    let lanes = 4 * I::LANES;
    if SHAPE == PART && count < lanes {
        let from = &from[..count];
        // SAFETY: no more bytes than the slice has are read.
        unsafe { isa.load_bytes_part_at(from.as_ptr(), count) }
    } else {
        let from = &from[..lanes];
        // SAFETY: the slice has as many bytes as a vector.
        unsafe { isa.load_i32_at(from.as_ptr().cast()) }
    }
}

/// Products of source and target numbers at the items, for some channels.
pub(super) struct ByteProducts<'a> {
    pub(super) items: Items<'a, u8>,
    /// The place of each item's value.
    pub(super) positions: &'a [u32],
    pub(super) channels: Range<usize>,
    pub(super) extent: Extent,
    /// The batch innermost.
    pub(super) target: &'a [u8],
    /// Where the strip of channel 0 is in the target, and the numbers from one channel to the next.
    pub(super) at: [usize; 2],
    /// Of the source and the target.
    pub(super) zero_points: [u8; 2],
    /// A vector for each value from the first on, to be added to.
    pub(super) sums: &'a mut [i32],
    pub(super) first: usize,
    /// Whether nothing else is added to the values: `sums` has one number for each, the total of its vector.
    pub(super) is_all: bool,
}

impl Kernel for ByteProducts<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let lanes = 4 * I::LANES;
        if self.zero_points[1] == MIDDLE {
            by_shape!(isa, lanes, Around::<false>(self), [1 2 3 4 5 6 8 10 12 14 16]);
        } else {
            by_shape!(isa, lanes, Around::<true>(self), [1 2 3 4 5 6 8 10 12 14 16]);
        }
    }
}

/// The code from which targets count in registers, so that they are i8.
const MIDDLE: u8 = 128;

/// Products with targets whose zero is the middle, or with `SHIFTED` ones whose zero is code 0.
struct Around<'a, const SHIFTED: bool>(ByteProducts<'a>);

impl<const V: usize, const SHAPE: u8, const SHIFTED: bool> Kernel for Shaped<Around<'_, SHIFTED>, V, SHAPE> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Around(products) = self.0;
        let ByteProducts { items, positions, channels, extent, target, at: [at, step], zero_points, .. } = products;
        let ByteProducts { sums, first, is_all, .. } = products;
        let lanes = 4 * I::LANES;
        let (from_starts, to_starts) = (extent.starts::<V, SHAPE>(0, lanes), extent.starts::<V, SHAPE>(1, lanes));
        let [from_reach, to_reach] = [0, 1].map(|side| extent.reach::<V, SHAPE>(side, lanes));
        let bytes = |byte: u8| i32::from_le_bytes([byte; 4]);
        // Half of the middle, which is no i8.
        let half = isa.splat_i32(bytes(MIDDLE / 2));
        let middle = isa.splat_i32(bytes(MIDDLE));
        // Beyond the end both factors are 0, so they add nothing.
        let mut ends = [[0; 4 * isa::MOST_LANES], [MIDDLE; 4 * isa::MOST_LANES]];
        ends[0][..extent.count::<V, SHAPE>(V - 1, lanes)].fill(zero_points[0]);
        for channel in channels {
            let with = &target[at + channel * step..][..to_reach];
            let mut factors = [middle; V];
            // Σ (x - zero point) · y = Σ x · y - zero point · Σ y
            let mut correction = isa.splat_i32(0);
            unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                let (count, from) = (extent.count::<V, SHAPE>(AT, lanes), &with[to_starts[AT]..]);
                let (codes, zeros) = if SHAPE == PART && AT + 1 == V {
                    ends[1][..count].copy_from_slice(&from[..count]);
                    (load::<I, WHOLE>(isa, &ends[1], lanes), load::<I, WHOLE>(isa, &ends[0], lanes))
                } else {
                    (load::<I, WHOLE>(isa, from, lanes), isa.splat_i32(bytes(zero_points[0])))
                };
                factors[AT] = isa.xor_i32(codes, middle);
                correction = add_products::<I, SHIFTED>(isa, [zeros, factors[AT], half], correction);
            });
            let range = items.of(channel);
            for (offset, position) in items.offsets[range.clone()].iter().zip(&positions[range]) {
                let from = items.values(*offset, from_reach);
                let mut lanes_of_one = [0; isa::MOST_LANES];
                let place = *position as usize - first;
                let place = if is_all { &mut lanes_of_one } else { &mut sums[place * I::LANES..] };
                let place = &mut place[..I::LANES];
                // SAFETY: the slice has as many numbers as a vector.
                let mut sum = isa.sub_i32(unsafe { isa.load_i32_at(place.as_ptr()) }, correction);
                unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                    let count = extent.count::<V, SHAPE>(AT, lanes);
                    let x = load::<I, SHAPE>(isa, &from[from_starts[AT]..], count);
                    sum = add_products::<I, SHIFTED>(isa, [x, factors[AT], half], sum);
                });
                // SAFETY: as above.
                unsafe { isa.store_i32_at(place.as_mut_ptr(), sum) };
                if is_all {
                    sums[*position as usize - first] = lanes_of_one[..I::LANES].iter().sum();
                }
            }
        }
    }
}

/// `sum` and the products of `x` with `y`, or with `y` and the middle.
#[inline(always)]
fn add_products<I: Isa, const SHIFTED: bool>(isa: I, [x, y, half]: [I::I32; 3], sum: I::I32) -> I::I32 {
    let sum = isa.dot_u8_i8(x, y, sum);
    if SHIFTED { isa.dot_u8_i8(x, half, isa.dot_u8_i8(x, half, sum)) } else { sum }
}

/// Adds the lanes of each vector to a total and sets them to 0.
pub(super) struct Flush<'a> {
    pub(super) sums: &'a mut [i32],
    pub(super) totals: &'a mut [i64],
}

impl Kernel for Flush<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for (lanes, total) in self.sums.chunks_exact_mut(I::LANES).zip(self.totals) {
            *total += lanes.iter().map(|lane| i64::from(*lane)).sum::<i64>();
            lanes.fill(0);
        }
    }
}
