//! Register tiles of sums of bytes, for the forward pass and the input gradient.

use super::super::strips::Tiling;
use super::super::tile::{Items, Sized, by_size, known, most_vectors};
use super::results::Results;
use super::weights::PackedList;
use crate::Activation;
use crate::conv::unrolled;
use crate::isa::{self, Isa, Kernel};
use std::ops::Range;

/// Bytes.
const CACHE_LINE: usize = 64;

/// Vectors of bytes in the largest tile of sums: each has four vectors of sums, beside which four of bytes are interleaved.
const fn most_sums<I: Isa>() -> usize {
    let tiles = most_vectors::<I>() / 2;
    if tiles > 4 { tiles - 4 } else { 1 }
}

/// The tiles of [`ByteSums`].
struct Registers;

impl Kernel for Registers {
    type Output = Tiling;
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Tiling {
        Tiling { lanes: 4 * I::LANES, most: most_sums::<I>(), sizes: &[1, 2, 3, 4], bytes: 1, is_tall: false }
    }
}

/// Those of the instruction set in use.
pub(super) fn tiling() -> Tiling {
    isa::dispatch(Registers)
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
    pub(super) output: Results,
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
            let start = at + channel * step;
            for line in (0..length).step_by(CACHE_LINE / output.bytes()) {
                // SAFETY: the strip of this channel lies in the output.
                unsafe { output.prefetch(isa, start + line) };
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
            let factor = isa.splat(self.0.factors[channel]);
            let bias = isa.splat(self.0.bias.map_or(0.0, |bias| bias[channel]));
            unrolled!(AT in [0 1 2 3] if AT < V => {
                let words = isa.in_order(sums[AT]);
                unrolled!(K in [0 1 2 3] if true => {
                    let sum = isa.add(isa.mul(isa.to_f32(words[K]), factor), bias);
                    let y = self.0.activation.apply_vector(isa, sum);
                    let first = (4 * AT + K) * I::LANES;
                    let first = if PART { first.min(length) } else { first };
                    let count = if PART && AT + 1 == V { length - first } else { I::LANES };
                    // SAFETY: the strip of this channel lies in the output, and nobody else uses it.
                    unsafe { output.store(isa, start + first, count, y) };
                });
            });
        }
    }
}
