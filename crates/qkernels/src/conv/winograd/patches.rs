//! Tiles of an image, transformed to the points.

use super::tiling::Tiles;
use super::transform::{Form, PATCH, both_axes, input, output_grad, unrolled};
use crate::conv::stage::Images;
use crate::isa::{Isa, Kernel, Stored};
use std::marker::PhantomData;
use std::ops::Range;

/// Which transform: of inputs (6×6 pixels that overlap), or of gradients of outputs (tiles that do not).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Inputs,
    OutputGrads,
}

/// What the products sum over: the numbers that share a word follow each other there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    Channels,
    Tiles,
}

/// Transforms some tiles of channels-last images to words `to[point * point_step + tile * row + channel]`, where pairs of channels, or of tiles, take the place
/// of one if a word holds two. Channels are filled up with zeros to whole vectors, and so is a last tile without a partner.
#[derive(Clone)]
pub(super) struct Patches<'a, T, F> {
    pub(super) form: PhantomData<F>,
    pub(super) images: Images<'a, T>,
    pub(super) channels: Range<usize>,
    /// Height and width of an image, beyond which there are zeros.
    pub(super) size: [usize; 2],
    /// Row and column of the first pixel of the first tile; negative in the padding.
    pub(super) origin: [isize; 2],
    pub(super) tiles: Tiles,
    pub(super) range: Range<usize>,
    pub(super) to: *mut f32,
    /// Words from one tile, or pair of tiles, to the next.
    pub(super) row: usize,
    pub(super) point_step: usize,
    pub(super) of: Of,
    pub(super) sum: Sum,
}

/// A part of a vector of channels of one tile.
#[derive(Clone, Copy)]
struct Patch<T, F> {
    form: PhantomData<F>,
    from: *const T,
    /// Elements to the next row and the next pixel.
    steps: [usize; 2],
    /// Bit `i` tells whether row or column `i` lies in the image.
    present: [u32; 2],
    /// Channels that exist.
    count: usize,
    to: *mut f32,
    point_step: usize,
    place: Place,
}

/// Where the values go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// One behind the other.
    Here,
    /// Each to a word of its own, as its high half where it holds two.
    First,
    /// To the low halves of words whose high halves are there.
    Second,
}

impl<T: Stored, F: Form> Kernel for Patches<'_, T, F> {
    type Output = ();
    const DOT_PRODUCTS: bool = T::DOT_PRODUCTS;

    /// The caller promises that `to` has room for all tiles and that no other thread uses it.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let length = if self.of == Of::Inputs { PATCH } else { F::TILE };
        let all = (1 << length) - 1;
        let [n_step, _, h_step, w_step] = self.images.strides;
        let is_paired = self.sum == Sum::Tiles && T::IN_WORD > 1;
        let in_row = if is_paired { 1 } else { T::IN_WORD };
        for (t, [n, row, column]) in self.tiles.places(self.range.clone()).enumerate() {
            let start = [row, column].map(|i| (i * F::TILE) as isize);
            let start = [start[0] + self.origin[0], start[1] + self.origin[1]];
            let present = [0, 1].map(|axis| {
                let first = (-start[axis]).clamp(0, length as isize) as u32;
                let end = (self.size[axis] as isize - start[axis]).clamp(0, length as isize) as u32;
                (((1u32 << end) - 1) >> first) << first
            });
            let from = self.images.start().wrapping_add(n * n_step + self.channels.start);
            let from = from.wrapping_offset(start[0] * h_step as isize).wrapping_offset(start[1] * w_step as isize);
            let is_inside = present[0] == all && present[1] == all;
            let (t, place) = match is_paired {
                true if t % 2 == 0 => (t / 2, Place::First),
                true => (t / 2, Place::Second),
                false => (t, Place::Here),
            };
            for c in (0..self.channels.len()).step_by(I::LANES) {
                let patch = Patch::<T, F> {
                    form: PhantomData,
                    from: from.wrapping_add(c),
                    steps: [h_step, w_step],
                    present,
                    count: I::LANES.min(self.channels.len() - c),
                    to: self.to.wrapping_add(t * self.row + c / in_row),
                    point_step: self.point_step,
                    place,
                };
                let whole = is_inside && patch.count == I::LANES;
                // SAFETY: pixels that are present and channels that exist lie in the image; the results lie where the caller promised.
                unsafe {
                    match (self.of, whole) {
                        (Of::Inputs, true) => patch.inputs::<I, true>(isa),
                        (Of::Inputs, false) => patch.inputs::<I, false>(isa),
                        (Of::OutputGrads, true) => patch.output_grads::<I, true>(isa),
                        (Of::OutputGrads, false) => patch.output_grads::<I, false>(isa),
                    }
                }
            }
        }
    }
}

impl<T: Stored, F: Form> Patch<T, F> {
    /// A pixel's channels, 0 outside the image.
    ///
    /// # Safety
    /// What is said to be present must be readable; all of it where `WHOLE`.
    #[inline(always)]
    unsafe fn pixel<I: Isa, const WHOLE: bool>(&self, isa: I, row: usize, column: usize) -> I::F32 {
        let from = self.from.wrapping_add(row * self.steps[0] + column * self.steps[1]);
        // SAFETY: the caller's promise; nothing is read outside the image.
        unsafe {
            if WHOLE {
                T::load_at(isa, from)
            } else {
                let is_present = (self.present[0] >> row) & (self.present[1] >> column) & 1;
                T::load_part_at(isa, from, self.count * is_present as usize)
            }
        }
    }

    /// Stores the values of a point.
    ///
    /// # Safety
    /// The results must be writable.
    #[inline(always)]
    unsafe fn put<I: Isa>(&self, isa: I, row: usize, column: usize, x: I::F32) {
        let to = self.to.wrapping_add((row * PATCH + column) * self.point_step);
        // SAFETY: the caller's promise.
        unsafe {
            if T::IN_WORD == 1 {
                return isa.store_at(to, x);
            }
            match self.place {
                Place::Here => T::store_factors_at(isa, to, x),
                Place::First => isa.store_at(to, T::factor(isa, x)),
                Place::Second => isa.store_at(to, isa.pair_bf16(T::factor(isa, x), isa.load_at(to))),
            }
        }
    }

    /// # Safety
    /// As [`pixel`](Self::pixel), and the results must be writable.
    #[inline(always)]
    unsafe fn inputs<I: Isa, const WHOLE: bool>(&self, isa: I) {
        // SAFETY: the caller's promise.
        unsafe {
            both_axes!(
                isa,
                input,
                [PATCH, PATCH],
                |row, column| self.pixel::<I, WHOLE>(isa, row, column),
                |row, column, x| self.put(isa, row, column, x)
            );
        }
    }

    /// # Safety
    /// As [`pixel`](Self::pixel), and the results must be writable.
    #[inline(always)]
    unsafe fn output_grads<I: Isa, const WHOLE: bool>(&self, isa: I) {
        // SAFETY: the caller's promise.
        unsafe {
            both_axes!(
                isa,
                output_grad::<I, F>,
                [F::TILE, PATCH],
                |row, column| self.pixel::<I, WHOLE>(isa, row, column),
                |row, column, x| self.put(isa, row, column, x)
            );
        }
    }
}
