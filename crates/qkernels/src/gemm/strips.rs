//! Packing of `A`: strips of as many rows as a register tile has, each stored `k` by `k`, so that a tile reads one run of memory.
//!
//! Rows that are a power of two apart share a few sets of the first-level cache, which then cannot hold the rows of one tile.

use super::matrix::Matrix;
use crate::isa::Isa;
use std::ops::Range;

/// How far ahead of its use a block of the source is fetched, in blocks: there are too many rows for the hardware to follow.
const BLOCKS_AHEAD: usize = 4;
/// The same for columns, which are read one at a time.
const COLUMNS_AHEAD: usize = 8;
/// The longest vector of any instruction set.
const MOST_LANES: usize = 16;

/// A matrix to be packed in strips of `height` rows. Element `(row, k)` of a strip is `k * height + row`.
#[derive(Clone, Copy)]
pub(super) struct Strips<'a> {
    pub(super) source: Matrix<'a>,
    pub(super) height: usize,
}

impl Strips<'_> {
    /// Strips that cover all rows.
    pub(super) fn count(&self) -> usize {
        self.source.rows.div_ceil(self.height)
    }

    /// Elements from one strip to the next: whole vectors are stored, which may run over the end.
    pub(super) fn step(&self) -> usize {
        (self.source.columns * self.height + MOST_LANES).next_multiple_of(MOST_LANES)
    }

    /// Packs some strips to `to`, the start of the first of them. What lies between the rows of a last, lower strip is unspecified.
    ///
    /// # Safety
    /// The strips lie in the source; `to` has room for [`step`](Self::step) elements for each that no other thread uses.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa>(&self, isa: I, strips: Range<usize>, to: *mut f32) {
        if self.source.row_step == 1 {
            // SAFETY: the caller's promise.
            return unsafe { self.copy(isa, strips, to) };
        }
        for (i, strip) in strips.enumerate() {
            let first = strip * self.height;
            let to = to.wrapping_add(i * self.step());
            // SAFETY: the caller's promise.
            unsafe {
                if self.source.column_step == 1 && self.source.columns >= I::LANES {
                    self.transpose(isa, first, to);
                } else {
                    self.gather(first, to);
                }
            }
        }
    }

    /// Rows of the strip that starts with row `first`.
    #[inline(always)]
    fn rows(&self, first: usize) -> usize {
        (self.source.rows - first).min(self.height)
    }

    /// Columns that are contiguous: each is copied in whole vectors, of which the last runs into the next column's place before that is written.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn copy<I: Isa>(&self, isa: I, strips: Range<usize>, to: *mut f32) {
        for k in 0..self.source.columns {
            for (i, strip) in strips.clone().enumerate() {
                let first = strip * self.height;
                let to = to.wrapping_add(i * self.step() + k * self.height);
                for row in (0..self.rows(first)).step_by(I::LANES) {
                    let from = self.source.at(first + row, k);
                    let left = self.source.rows - first - row;
                    // SAFETY: only rows that exist are read; a vector runs over the end of the strip by less than itself, for which there is room.
                    unsafe {
                        let x = if left >= I::LANES { isa.load_at(from) } else { isa.load_part_at(from, left) };
                        isa.store_at(to.add(row), x);
                    }
                    isa.prefetch(self.source.at(first + row, k + COLUMNS_AHEAD));
                }
            }
        }
    }

    /// Rows that are contiguous: square blocks transposed in registers. The blocks of lower rows come last, since higher ones run into their places.
    ///
    /// # Safety
    /// As [`run`](Self::run), and the source has at least `LANES` columns.
    #[inline(always)]
    unsafe fn transpose<I: Isa>(&self, isa: I, first: usize, to: *mut f32) {
        let (height, rows, depth) = (self.height, self.rows(first), self.source.columns);
        for k in (0..depth).step_by(I::LANES) {
            // The last block reaches back over columns that are done already.
            let k = k.min(depth - I::LANES);
            for block in (0..rows.div_ceil(I::LANES)).rev() {
                let row = block * I::LANES;
                let left = self.source.rows - first - row;
                let to = to.wrapping_add(k * height + row);
                if left >= I::LANES {
                    for i in 0..I::LANES {
                        isa.prefetch(self.source.at(first + row + i, k + BLOCKS_AHEAD * I::LANES));
                    }
                    // SAFETY: LANES rows of LANES columns lie in the source; the strip has room, and for what runs over its end too.
                    unsafe { isa.transpose_at(self.source.at(first + row, k), self.source.row_step, to, height) };
                } else {
                    let mut square = [0.0; MOST_LANES * MOST_LANES];
                    for i in 0..left {
                        // SAFETY: this row has LANES columns from `k` on.
                        isa.store(&mut square[i * I::LANES..], unsafe {
                            isa.load_at(self.source.at(first + row + i, k))
                        });
                    }
                    // SAFETY: the square holds LANES rows of LANES numbers; the strip has room as above.
                    unsafe { isa.transpose_at(square.as_ptr(), I::LANES, to, height) };
                }
            }
        }
    }

    /// Any strides, one by one.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn gather(&self, first: usize, to: *mut f32) {
        for row in 0..self.rows(first) {
            for k in 0..self.source.columns {
                // SAFETY: the element lies in the source and its place in the strip.
                unsafe { *to.add(k * self.height + row) = *self.source.at(first + row, k) };
            }
        }
    }
}
