//! The row kernels of the depthwise convolutions: strips of neighbouring pixels in registers, where each source vector is read once for all taps of a kernel row.

use super::depthwise::load;
use super::unroll::unrolled;
use crate::Activation;
use crate::isa::{Isa, Kernel};
use std::ops::Range;

/// Taps of one kernel row that lie on neighbouring source pixels, for one row of output pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Channel 0 of column 0 of the source row.
    pub(super) source: *const f32,
    /// The source column of the first tap for output 0; negative in the padding.
    pub(super) column: isize,
    /// A row of channels for each tap.
    pub(super) weights: *const f32,
}

/// How source columns belong to output columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// Neighbouring taps of a group.
    pub(super) taps: usize,
    /// Source pixels from one output pixel to the next.
    pub(super) stride: usize,
    /// Source pixels of a row.
    pub(super) width: usize,
    /// Output pixels of a row.
    pub(super) pixels: usize,
    /// Elements from one source pixel to the next, and from one output pixel to the next.
    pub(super) steps: [usize; 2],
    /// The smallest and the largest [`Group::column`].
    pub(super) columns: [isize; 2],
}

impl Walk {
    /// Whether all taps of these output pixels lie inside the source row.
    #[inline(always)]
    fn is_inside(&self, first: usize, pixels: usize) -> bool {
        let last = self.columns[1] + ((first + pixels - 1) * self.stride + self.taps - 1) as isize;
        self.columns[0] + (first * self.stride) as isize >= 0 && last < self.width as isize
    }
}

/// One row of output pixels for some channels.
///
/// Source rows, weights and bias must be readable for the channels, the outputs writable by this thread alone.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) walk: &'a Walk,
    pub(super) groups: &'a [Group],
    /// Their number, which is that of a tap's weights too.
    pub(super) channels: usize,
    /// The first output pixel.
    pub(super) output: *mut f32,
    /// One value a channel, or null.
    pub(super) bias: *const f32,
    pub(super) activation: Activation,
    /// Rows that the next output row reads and writes, or any address: column 0 of two source rows, and the first output pixel.
    pub(super) ahead: [*const f32; 3],
}

/// Calls `$strip::<I, P, KW, S, EDGE, PART>` for consecutive strips of `$walk`, in the sizes that exist.
macro_rules! strips {
    ($isa:ident, $walk:expr, $part:expr, $call:ident) => {{
        let walk = $walk;
        match (walk.taps, walk.stride) {
            (2, 1) => strips!(@ $isa walk ($part) $call 2 1),
            (3, 1) => strips!(@ $isa walk ($part) $call 3 1),
            (3, 2) => strips!(@ $isa walk ($part) $call 3 2),
            (5, 1) => strips!(@ $isa walk ($part) $call 5 1),
            _ => strips!(@ $isa walk ($part) $call 1 1),
        }
    }};
    (@ $isa:ident $walk:ident ($part:expr) $call:ident $taps:literal $stride:literal) => {{
        let mut first = 0;
        while first < $walk.pixels {
            let left = $walk.pixels - first;
            if $part {
                if left >= 4 {
                    $call!(4, $taps, $stride, true, true, first);
                    first += 4;
                } else {
                    $call!(1, $taps, $stride, true, true, first);
                    first += 1;
                }
                continue;
            }
            // Sevens fill rows of 7 and 14 pixels better.
            let size = if left >= 8 && left != 14 { 8 } else if left >= 7 { 7 } else if left >= 4 { 4 } else { 1 };
            match (size, $walk.is_inside(first, size)) {
                (8, true) => $call!(8, $taps, $stride, false, false, first),
                (8, false) => $call!(8, $taps, $stride, true, false, first),
                (7, true) => $call!(7, $taps, $stride, false, false, first),
                (7, false) => $call!(7, $taps, $stride, true, false, first),
                (4, true) => $call!(4, $taps, $stride, false, false, first),
                (4, false) => $call!(4, $taps, $stride, true, false, first),
                _ => $call!(1, $taps, $stride, true, false, first),
            }
            first += size;
        }
    }};
}

/// Whether `taps` neighbouring taps at `stride` have a kernel that shares their loads; others come one tap at a time.
pub(super) fn shares_loads(taps: usize, stride: usize) -> bool {
    matches!((taps, stride), (2 | 3 | 5, 1) | (3, 2))
}

/// The output pixel of a strip that meets source pixel `input` of the strip under a tap; none of the strip where it is large.
#[inline(always)]
const fn pixel_of(input: usize, tap: usize, stride: usize) -> usize {
    match input.checked_sub(tap) {
        Some(distance) if distance.is_multiple_of(stride) => distance / stride,
        _ => usize::MAX,
    }
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = &self;
        let whole = self.channels / I::LANES * I::LANES;
        macro_rules! whole {
            ($pixels:literal, $taps:literal, $stride:literal, $edge:literal, $part:literal, $first:expr) => {
                isa.outline(Strip::<$pixels, $taps, $stride, $edge, $part> { row, first: $first, channels: 0..whole })
            };
        }
        macro_rules! rest {
            ($pixels:literal, $taps:literal, $stride:literal, $edge:literal, $part:literal, $first:expr) => {{
                let channels = whole..self.channels;
                isa.outline(Strip::<$pixels, $taps, $stride, $edge, $part> { row, first: $first, channels })
            }};
        }
        if whole > 0 {
            strips!(isa, row.walk, false, whole);
        }
        if whole < self.channels {
            strips!(isa, row.walk, true, rest);
        }
    }
}

/// Output pixels `first..first + P` of a row that fulfils its promises, for some of its channels: whole vectors, or with `PART` less than one. Without `EDGE` all taps
/// of the pixels lie inside the source row.
struct Strip<'a, const P: usize, const KW: usize, const S: usize, const EDGE: bool, const PART: bool> {
    row: &'a Row<'a>,
    first: usize,
    channels: Range<usize>,
}

impl<const P: usize, const KW: usize, const S: usize, const EDGE: bool, const PART: bool> Kernel
    for Strip<'_, P, KW, S, EDGE, PART>
{
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for channel in self.channels.clone().step_by(I::LANES) {
            // SAFETY: the row, the pixels and the channels are as the struct says.
            unsafe { self.vector(isa, channel) }
        }
    }
}

impl<const P: usize, const KW: usize, const S: usize, const EDGE: bool, const PART: bool>
    Strip<'_, P, KW, S, EDGE, PART>
{
    /// One vector of channels, from the given one on.
    ///
    /// # Safety
    /// As [`Row`]; without `EDGE` all taps must lie inside the source row.
    #[inline(always)]
    unsafe fn vector<I: Isa>(&self, isa: I, channel: usize) {
        let Strip { row, first, .. } = *self;
        let walk = row.walk;
        let lanes = self.channels.end - channel;
        // SAFETY: the caller's promise; columns outside the source row are not read.
        unsafe {
            for i in 0..P * S {
                let at = (first * S + i) * walk.steps[0] + channel;
                isa.prefetch(row.ahead[0].wrapping_add(at));
                if S == 2 {
                    isa.prefetch(row.ahead[1].wrapping_add(at));
                }
            }
            for i in 0..P {
                isa.prefetch(row.ahead[2].wrapping_add((first + i) * walk.steps[1] + channel));
            }
            let start =
                if row.bias.is_null() { isa.zero() } else { load::<I, PART>(isa, row.bias.add(channel), lanes) };
            let mut sums = [start; P];
            for group in row.groups {
                let mut weights = [isa.zero(); KW];
                for (tap, weights) in weights.iter_mut().enumerate() {
                    *weights = load::<I, PART>(isa, group.weights.add(tap * row.channels + channel), lanes);
                }
                let column = group.column + (first * walk.stride) as isize;
                let from = group.source.wrapping_add(channel).wrapping_offset(column * walk.steps[0] as isize);
                // With one tap nothing is shared, and the stride is in the step.
                let columns = if KW == 1 { walk.stride } else { 1 };
                unrolled!(IN in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16] if IN < (P - 1) * S + KW => {
                    if !EDGE || ((column + (IN * columns) as isize) as usize) < walk.width {
                        let x = load::<I, PART>(isa, from.wrapping_add(IN * columns * walk.steps[0]), lanes);
                        unrolled!(TAP in [0 1 2 3 4] if TAP < KW && pixel_of(IN, TAP, S) < P => {
                            let pixel = const { pixel_of(IN, TAP, S) };
                            sums[pixel] = isa.fma(x, weights[TAP], sums[pixel]);
                        });
                    }
                });
            }
            unrolled!(ONE in [0 1 2 3 4 5 6 7] if ONE < P => {
                let y = row.activation.apply_vector(isa, sums[ONE]);
                let to = row.output.add((first + ONE) * walk.steps[1] + channel);
                if PART { isa.store_part_at(to, lanes, y) } else { isa.store_at(to, y) }
            });
        }
    }
}

/// One row of output gradients against some kernel rows, for one group of neighbouring taps and one vector of channels.
#[derive(Clone, Copy)]
pub(super) struct GradRow<'a, const KH: usize> {
    pub(super) walk: &'a Walk,
    /// The vector's first channel of column 0 of the source row of each kernel row.
    pub(super) sources: [*const f32; KH],
    /// The source column of the first tap for output 0.
    pub(super) column: isize,
    /// The vector's first channel of the first output gradient.
    pub(super) dy: *const f32,
    /// Channels in the vector that exist.
    pub(super) lanes: usize,
    /// Elements to the rows that are needed next, of the source and of the gradients, to be fetched ahead; 0 where that is done.
    pub(super) ahead: [usize; 2],
}

/// Adds to the sums of kernel rows' taps those over the pixels of a row of output gradients.
///
/// # Safety
/// Source and gradient rows must be readable for the vector's channels; `KW` and `S` must be those of the walk (1 where loads are not shared).
#[inline(always)]
pub(super) unsafe fn grad_row<I: Isa, const KH: usize, const KW: usize, const S: usize, const PART: bool>(
    isa: I,
    row: &GradRow<KH>,
    mut sums: [[I::F32; KW]; KH],
) -> [[I::F32; KW]; KH] {
    let walk = row.walk;
    let mut first = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while first + 4 <= walk.pixels {
            sums = if walk.is_inside(first, 4) {
                grad_strip::<I, 4, KH, KW, S, false, PART>(isa, row, first, sums)
            } else {
                grad_strip::<I, 4, KH, KW, S, true, PART>(isa, row, first, sums)
            };
            first += 4;
        }
        while first < walk.pixels {
            sums = grad_strip::<I, 1, KH, KW, S, true, PART>(isa, row, first, sums);
            first += 1;
        }
    }
    sums
}

/// # Safety
/// As [`grad_row`]; without `EDGE` all taps must lie inside the source row.
#[inline(always)]
unsafe fn grad_strip<
    I: Isa,
    const P: usize,
    const KH: usize,
    const KW: usize,
    const S: usize,
    const EDGE: bool,
    const PART: bool,
>(
    isa: I,
    row: &GradRow<KH>,
    first: usize,
    mut sums: [[I::F32; KW]; KH],
) -> [[I::F32; KW]; KH] {
    let walk = row.walk;
    // SAFETY: the caller's promise; columns outside the source row are not read.
    unsafe {
        if row.ahead != [0; 2] {
            for i in 0..P * S {
                isa.prefetch(row.sources[KH - 1].wrapping_add(row.ahead[0] + (first * S + i) * walk.steps[0]));
            }
            for i in 0..P {
                isa.prefetch(row.dy.wrapping_add(row.ahead[1] + (first + i) * walk.steps[1]));
            }
        }
        let mut dy = [isa.zero(); P];
        for (i, dy) in dy.iter_mut().enumerate() {
            *dy = load::<I, PART>(isa, row.dy.add((first + i) * walk.steps[1]), row.lanes);
        }
        let column = row.column + (first * walk.stride) as isize;
        let columns = if KW == 1 { walk.stride } else { 1 };
        unrolled!(ROW in [0 1 2] if ROW < KH => {
            let from = row.sources[ROW].wrapping_offset(column * walk.steps[0] as isize);
            unrolled!(IN in [0 1 2 3 4 5 6 7 8] if IN < (P - 1) * S + KW => {
                if !EDGE || ((column + (IN * columns) as isize) as usize) < walk.width {
                    let x = load::<I, PART>(isa, from.wrapping_add(IN * columns * walk.steps[0]), row.lanes);
                    unrolled!(TAP in [0 1 2 3 4] if TAP < KW && pixel_of(IN, TAP, S) < P => {
                        sums[ROW][TAP] = isa.fma(x, dy[const { pixel_of(IN, TAP, S) }], sums[ROW][TAP]);
                    });
                }
            });
        });
    }
    sums
}
