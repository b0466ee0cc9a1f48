//! Register tiles: a strip of one target row in registers while all weights of a channel are walked.

use crate::Activation;
use crate::conv::unrolled;
use crate::isa::{Isa, Kernel};
use crate::par::SharedOut;
use std::ops::Range;

/// Vectors of the largest tile: half of the registers; a vector of the portable instruction set is several.
pub(super) const fn most_vectors<I: Isa>() -> usize {
    let in_vector = if std::mem::align_of::<I::F32>() > 4 { 1 } else { 2 };
    I::REGISTERS / 2 / in_vector
}

/// The lists that a tile walks.
#[derive(Clone, Copy)]
pub(super) struct Items<'a, T = f32, O = u32> {
    /// Where the lists of channel `c` begin: in block `b` at `cuts[c · blocks + b]`, up to the next.
    pub(super) cuts: &'a [usize],
    pub(super) blocks: usize,
    pub(super) block: usize,
    /// In pixels, one or some for each item.
    pub(super) offsets: &'a [O],
    /// Numbers of a pixel.
    pub(super) batch: usize,
    pub(super) source: &'a [T],
    /// The place in `source` from which offsets count, modulo 2^64: with an offset it is inside.
    pub(super) base: usize,
}

impl<'a, T, O> Items<'a, T, O> {
    #[inline(always)]
    pub(super) fn of(&self, channel: usize) -> Range<usize> {
        let at = channel * self.blocks + self.block;
        self.cuts[at]..self.cuts[at + 1]
    }

    /// The source numbers of an item.
    #[inline(always)]
    pub(super) fn values(&self, offset: u32, length: usize) -> &'a [T] {
        let at = self.base.wrapping_add(offset as usize * self.batch);
        &self.source[at..][..length]
    }
}

/// Sums of products with weights, for some channels.
pub(super) struct Sums<'a> {
    pub(super) items: Items<'a>,
    /// One for each item.
    pub(super) weights: &'a [f32],
    pub(super) channels: Range<usize>,
    /// Numbers of the strip.
    pub(super) length: usize,
    /// The target, in which nobody else uses the strips of these channels.
    pub(super) output: SharedOut<f32>,
    /// Where the strip of channel 0 is in the target, and the numbers from one channel to the next.
    pub(super) at: [usize; 2],
    /// One a channel.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
}

/// A kernel of a whole number of vectors, of which the last is cut off with `PART`.
pub(super) struct Sized<K, const V: usize, const PART: bool>(pub(super) K);

/// Runs the kernel of the right size for a strip: of `$length` numbers, `$lanes` a vector, at most `$most` vectors.
macro_rules! by_size {
    ($isa:ident, $length:expr, $lanes:expr, $most:expr, $kernel:expr, [$($vectors:literal)*]) => {{
        let length = $length;
        match (length.div_ceil($lanes), length % $lanes == 0) {
            $(($vectors, true) if const { $vectors <= $most } => $isa.outline(Sized::<_, $vectors, false>($kernel)),
            ($vectors, false) if const { $vectors <= $most } => $isa.outline(Sized::<_, $vectors, true>($kernel)),)*
            (vectors, _) => unreachable!("no tile has {vectors} vectors"),
        }
    }};
}
pub(super) use by_size;

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        by_size!(isa, self.length, I::LANES, most_vectors::<I>(), self, [1 2 3 4 6 8 12 16]);
    }
}

/// Reads vector `i` of a strip, the last of which may be cut off.
#[inline(always)]
fn load<I: Isa, const V: usize, const PART: bool>(isa: I, from: &[f32], i: usize) -> I::F32 {
    if PART && i + 1 == V { isa.load_part(&from[i * I::LANES..]) } else { isa.load(&from[i * I::LANES..]) }
}

/// The length of a strip of `V` vectors, which the compiler knows where the last is whole.
#[inline(always)]
pub(super) fn known<const V: usize, const PART: bool>(length: usize, lanes: usize) -> usize {
    if PART { length.clamp((V - 1) * lanes, V * lanes) } else { V * lanes }
}

impl<const V: usize, const PART: bool> Kernel for Sized<Sums<'_>, V, PART> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Sums { items, weights, channels, length, output, at: [at, step], bias, activation } = self.0;
        let length = known::<V, PART>(length, I::LANES);
        let (is_first, is_last) = (items.block == 0, items.block + 1 == items.blocks);
        for channel in channels {
            // SAFETY: the strip of this channel lies in the output, and nobody else uses it.
            let to = unsafe { std::slice::from_raw_parts_mut(output.at(at + channel * step), length) };
            let mut sums = [isa.splat(bias.map_or(0.0, |bias| bias[channel])); V];
            if !is_first {
                unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                    sums[AT] = load::<I, V, PART>(isa, to, AT);
                });
            }
            let range = items.of(channel);
            for (offset, weight) in items.offsets[range.clone()].iter().zip(&weights[range]) {
                let from = items.values(*offset, length);
                let weight = isa.splat(*weight);
                unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                    sums[AT] = isa.fma(load::<I, V, PART>(isa, from, AT), weight, sums[AT]);
                });
            }
            unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                let sum = if is_last { activation.apply_vector(isa, sums[AT]) } else { sums[AT] };
                if PART && AT + 1 == V {
                    isa.store_part(&mut to[AT * I::LANES..], sum);
                } else {
                    isa.store(&mut to[AT * I::LANES..], sum);
                }
            });
        }
    }
}

/// Products of source and target numbers at the items, for some channels.
pub(super) struct Products<'a> {
    pub(super) items: Items<'a>,
    /// The place of each item's value.
    pub(super) positions: &'a [u32],
    pub(super) channels: Range<usize>,
    /// Numbers of the strip.
    pub(super) length: usize,
    pub(super) target: &'a [f32],
    /// Where the strip of channel 0 is in the target, and the numbers from one channel to the next.
    pub(super) at: [usize; 2],
    /// A vector for each value from the first on, to be added to.
    pub(super) sums: &'a mut [f32],
    pub(super) first: usize,
    /// Whether nothing else is added to the values: `sums` has one number for each, the total of its vector.
    pub(super) is_all: bool,
}

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        by_size!(isa, self.length, I::LANES, most_vectors::<I>(), self, [1 2 3 4 6 8 12 16]);
    }
}

impl<const V: usize, const PART: bool> Kernel for Sized<Products<'_>, V, PART> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Products { items, positions, channels, length, target, at: [at, step], sums, first, is_all } = self.0;
        let length = known::<V, PART>(length, I::LANES);
        for channel in channels {
            let with = &target[at + channel * step..][..length];
            let mut factors = [isa.zero(); V];
            unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                factors[AT] = load::<I, V, PART>(isa, with, AT);
            });
            let range = items.of(channel);
            for (offset, position) in items.offsets[range.clone()].iter().zip(&positions[range]) {
                let from = items.values(*offset, length);
                let place = *position as usize - first;
                let mut sum = if is_all { isa.zero() } else { isa.load(&sums[place * I::LANES..][..I::LANES]) };
                unrolled!(AT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] if AT < V => {
                    sum = isa.fma(load::<I, V, PART>(isa, from, AT), factors[AT], sum);
                });
                if is_all {
                    sums[place] = isa.sum(sum);
                } else {
                    isa.store(&mut sums[place * I::LANES..][..I::LANES], sum);
                }
            }
        }
    }
}

/// The lanes of each vector added up.
pub(super) struct Totals<'a>(pub(super) &'a [f32]);

impl Kernel for Totals<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        self.0.chunks_exact(I::LANES).map(|lanes| isa.sum(isa.load(lanes))).collect()
    }
}

/// Asks for source values of all channels.
pub(super) struct Ahead<'a, T> {
    pub(super) source: &'a [T],
    /// Those of channel 0.
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) channels: usize,
    /// Numbers from one channel to the next.
    pub(super) step: usize,
}

impl<T> Kernel for Ahead<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // Any address may be asked for.
        let from = self.source.as_ptr().wrapping_add(self.at);
        for channel in 0..self.channels {
            for line in (0..self.length).step_by(LINE / size_of::<T>().max(1)) {
                isa.prefetch_far(from.wrapping_add(channel * self.step + line).cast());
            }
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;
