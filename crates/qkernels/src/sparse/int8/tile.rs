//! Register tiles of bytes.

use super::super::strips::Tiling;
use super::super::tile::{Items, Sized, by_size, known, most_vectors};
use super::weights::PackedList;
use crate::Activation;
use crate::conv::unrolled;
use crate::isa::{self, Isa, Kernel};
use crate::par::SharedOut;
use std::ops::Range;

/// Bytes.
const CACHE_LINE: usize = 64;

/// Vectors of bytes in the largest tile of sums: each has four vectors of sums, beside which four of bytes are interleaved.
const fn most_sums<I: Isa>() -> usize {
    let tiles = most_vectors::<I>() / 2;
    if tiles > 4 { tiles - 4 } else { 1 }
}

/// The tiles of [`ByteSums`], or, where `true`, of [`ByteProducts`].
struct Registers {
    is_products: bool,
}

impl Kernel for Registers {
    type Output = Tiling;
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Tiling {
        let lanes = 4 * I::LANES;
        if self.is_products {
            Tiling { lanes, most: most_vectors::<I>(), sizes: &[1, 2, 3, 4, 6, 8, 12, 16], bytes: 1 }
        } else {
            Tiling { lanes, most: most_sums::<I>(), sizes: &[1, 2, 3, 4], bytes: 1 }
        }
    }
}

/// Of the forward pass and the input gradient, on the instruction set in use.
pub(super) fn sum_tiling() -> Tiling {
    isa::dispatch(Registers { is_products: false })
}

/// Of the weight gradient, on the instruction set in use.
pub(super) fn product_tiling() -> Tiling {
    isa::dispatch(Registers { is_products: true })
}

/// Reads vector `i` of a strip of bytes, the last of which may be cut off.
#[inline(always)]
fn load<I: Isa, const V: usize, const PART: bool>(isa: I, from: &[u8], i: usize) -> I::I32 {
    let lanes = 4 * I::LANES;
    if PART && i + 1 == V {
        let from = &from[i * lanes..];
        // SAFETY: no more bytes than the slice has are read.
        unsafe { isa.load_bytes_part_at(from.as_ptr(), from.len().min(lanes)) }
    } else {
        let from = &from[i * lanes..][..lanes];
        // SAFETY: the slice has as many bytes as a vector.
        unsafe { isa.load_i32_at(from.as_ptr().cast()) }
    }
}

/// Sums of products with weights, for some channels.
pub(super) struct ByteSums<'a> {
    pub(super) items: Items<'a, u8, [u32; 4]>,
    pub(super) weights: &'a PackedList,
    pub(super) zero_point: u8,
    pub(super) channels: Range<usize>,
    /// Numbers of the strip.
    pub(super) length: usize,
    /// The target, in which nobody else uses the strips of these channels.
    pub(super) output: SharedOut<f32>,
    /// Where the strip of channel 0 is in the target, and the numbers from one channel to the next.
    pub(super) at: [usize; 2],
    /// One a channel.
    pub(super) factors: &'a [f32],
    /// One a channel.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
}

impl Kernel for ByteSums<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        by_size!(isa, self.length, 4 * I::LANES, most_sums::<I>(), self, [1 2 3 4]);
    }
}

impl<const V: usize, const PART: bool> Kernel for Sized<ByteSums<'_>, V, PART> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let ByteSums { items, weights, zero_point, channels, length, output, at: [at, step], .. } = self.0;
        let length = known::<V, PART>(length, 4 * I::LANES);
        for channel in channels {
            // Σ w · (x - zero point) = Σ w · x - zero point · Σ w, modulo 2^32, in which the result fits.
            let first = isa.splat_i32(weights.sums[channel].wrapping_mul(-i32::from(zero_point)));
            let mut sums = [[first; 4]; V];
            // The target is rarely in a cache: its lines are on their way while the sums are made.
            for line in (0..length).step_by(CACHE_LINE / size_of::<f32>()) {
                // SAFETY: the strip of this channel lies in the output.
                isa.prefetch(unsafe { output.at(at + channel * step + line) });
            }
            let range = items.of(channel);
            for (offsets, word) in items.offsets[range.clone()].iter().zip(&weights.words[range]) {
                let rows = offsets.map(|offset| items.values(offset, length));
                let word = isa.splat_i32(*word);
                unrolled!(AT in [0 1 2 3] if AT < V => {
                    let bytes = isa.interleave_bytes(rows.map(
                        #[inline(always)]
                        |row| load::<I, V, PART>(isa, row, AT),
                    ));
                    unrolled!(K in [0 1 2 3] if true => {
                        sums[AT][K] = isa.dot_u8_i8(bytes[K], word, sums[AT][K]);
                    });
                });
            }
            // SAFETY: the strip of this channel lies in the output, and nobody else uses it.
            let to = unsafe { std::slice::from_raw_parts_mut(output.at(at + channel * step), length) };
            let factor = isa.splat(self.0.factors[channel]);
            let bias = isa.splat(self.0.bias.map_or(0.0, |bias| bias[channel]));
            unrolled!(AT in [0 1 2 3] if AT < V => {
                let words = isa.in_order(sums[AT]);
                unrolled!(K in [0 1 2 3] if true => {
                    let sum = isa.add(isa.mul(isa.to_f32(words[K]), factor), bias);
                    let y = self.0.activation.apply_vector(isa, sum);
                    let first = (4 * AT + K) * I::LANES;
                    if PART && AT + 1 == V {
                        isa.store_part(&mut to[first.min(length)..], y);
                    } else {
                        isa.store(&mut to[first..], y);
                    }
                });
            });
        }
    }
}

/// Products of source and target numbers at the items, for some channels.
pub(super) struct ByteProducts<'a> {
    pub(super) items: Items<'a, u8>,
    /// The place of each item's value.
    pub(super) positions: &'a [u32],
    pub(super) channels: Range<usize>,
    /// Numbers of the strip.
    pub(super) length: usize,
    /// The batch innermost.
    pub(super) target: &'a [u8],
    /// Where the strip of channel 0 is in the target, and the numbers from one channel to the next.
    pub(super) at: [usize; 2],
    /// Of the source and the target.
    pub(super) zero_points: [u8; 2],
    /// A vector for each value from the first on, to be added to.
    pub(super) sums: &'a mut [i32],
    pub(super) first: usize,
}

impl Kernel for ByteProducts<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let lanes = 4 * I::LANES;
        if self.zero_points[1] == MIDDLE {
            by_size!(isa, self.length, lanes, most_vectors::<I>(), Around::<false>(self), [1 2 3 4 6 8 12 16]);
        } else {
            by_size!(isa, self.length, lanes, most_vectors::<I>(), Around::<true>(self), [1 2 3 4 6 8 12 16]);
        }
    }
}

/// The code from which targets count in registers, so that they are i8.
const MIDDLE: u8 = 128;

/// Products with targets whose zero is the middle, or with `SHIFTED` ones whose zero is code 0.
struct Around<'a, const SHIFTED: bool>(ByteProducts<'a>);

impl<const V: usize, const PART: bool, const SHIFTED: bool> Kernel for Sized<Around<'_, SHIFTED>, V, PART> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Around(ByteProducts {
            items,
            positions,
            channels,
            length,
            target,
            at: [at, step],
            zero_points,
            sums,
            first,
        }) = self.0;
        let lanes = 4 * I::LANES;
        let length = known::<V, PART>(length, lanes);
        let bytes = |byte: u8| i32::from_le_bytes([byte; 4]);
        // Half of the middle, which is no i8.
        let half = isa.splat_i32(bytes(MIDDLE / 2));
        let middle = isa.splat_i32(bytes(MIDDLE));
        // Beyond the end both factors are 0, so they add nothing.
        let mut ends = [[0; 4 * isa::MOST_LANES], [MIDDLE; 4 * isa::MOST_LANES]];
        ends[0][..length - (V - 1) * lanes].fill(zero_points[0]);
        for channel in channels {
            let with = &target[at + channel * step..][..length];
            let mut factors = [middle; V];
            // Σ (x - zero point) · y = Σ x · y - zero point · Σ y
            let mut correction = isa.splat_i32(0);
            unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                let is_end = PART && AT + 1 == V;
                let codes = if is_end {
                    ends[1][..length - AT * lanes].copy_from_slice(&with[AT * lanes..]);
                    load::<I, 1, false>(isa, &ends[1], 0)
                } else {
                    load::<I, V, PART>(isa, with, AT)
                };
                factors[AT] = isa.xor_i32(codes, middle);
                let zeros = if is_end { load::<I, 1, false>(isa, &ends[0], 0) } else { isa.splat_i32(bytes(zero_points[0])) };
                correction = products::<I, SHIFTED>(isa, zeros, factors[AT], half, correction);
            });
            let range = items.of(channel);
            for (offset, position) in items.offsets[range.clone()].iter().zip(&positions[range]) {
                let from = items.values(*offset, length);
                let place = &mut sums[(*position as usize - first) * I::LANES..][..I::LANES];
                // SAFETY: the slice has as many numbers as a vector.
                let mut sum = isa.sub_i32(unsafe { isa.load_i32_at(place.as_ptr()) }, correction);
                unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                    sum = products::<I, SHIFTED>(isa, load::<I, V, PART>(isa, from, AT), factors[AT], half, sum);
                });
                // SAFETY: as above.
                unsafe { isa.store_i32_at(place.as_mut_ptr(), sum) };
            }
        }
    }
}

/// `sum` and the products of `x` with `y`, or with `y` and the middle.
#[inline(always)]
fn products<I: Isa, const SHIFTED: bool>(isa: I, x: I::I32, y: I::I32, half: I::I32, sum: I::I32) -> I::I32 {
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
