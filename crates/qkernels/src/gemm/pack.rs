//! Packing: columns of a matrix rearranged into panels in which each row is one run of whole vectors.

use super::matrix::Matrix;
use crate::isa::Isa;
use std::ops::Range;

/// A part of a matrix to be packed. Panel `p` holds columns `p * panel ..`, is as wide as its columns rounded up to whole vectors, and starts `p * panel * depth` after the first.
#[derive(Clone)]
pub(super) struct Pack<'a> {
    pub(super) source: Matrix<'a>,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Columns of a full panel, a multiple of the lanes.
    pub(super) panel: usize,
}

/// How far ahead of its use a source row is fetched: the hardware does not foresee the jump from row to row.
const ROWS_AHEAD: usize = 8;
/// The same for blocks of columns, of which there are too many at a time for the hardware to follow.
const BLOCKS_AHEAD: usize = 4;

/// Elements that `columns` columns and `depth` rows occupy when packed.
pub(super) fn packed_length(columns: usize, depth: usize, lanes: usize) -> usize {
    columns.next_multiple_of(lanes) * depth
}

impl Pack<'_> {
    /// Packs to `to`, with 0 in the columns that fill up the last vector.
    ///
    /// # Safety
    /// Rows and columns lie in the source; `to` has room for [`packed_length`] elements that no other thread uses.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa>(&self, isa: I, to: *mut f32) {
        debug_assert!(self.rows.end <= self.source.rows && self.columns.end <= self.source.columns);
        debug_assert!(self.panel.is_multiple_of(I::LANES));
        // SAFETY: the caller's promise.
        unsafe {
            if self.source.column_step == 1 {
                self.copy_rows(isa, to);
            } else {
                self.copy_columns(isa, to);
            }
        }
    }

    /// Columns of each panel and the width it takes.
    #[inline(always)]
    fn panels(&self, lanes: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let (start, end, panel) = (self.columns.start, self.columns.end, self.panel);
        (start..end).step_by(panel).map(move |first| {
            let columns = (end - first).min(panel);
            (first, columns, columns.next_multiple_of(lanes))
        })
    }

    /// Rows that are contiguous: each is read in one run over all panels.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn copy_rows<I: Isa>(&self, isa: I, to: *mut f32) {
        let depth = self.rows.len();
        for k in 0..depth {
            let mut panel_start = to;
            for (first, columns, width) in self.panels(I::LANES) {
                let from = self.source.at(self.rows.start + k, first);
                let to = panel_start.wrapping_add(k * width);
                let whole = columns / I::LANES * I::LANES;
                for j in (0..whole).step_by(I::LANES) {
                    // SAFETY: these columns lie in the source, and their places in the panel.
                    unsafe { isa.store_at(to.add(j), isa.load_at(from.add(j))) };
                    isa.prefetch(self.source.at(self.rows.start + k + ROWS_AHEAD, first + j));
                }
                if whole < columns {
                    // SAFETY: as above; only the columns that exist are read.
                    unsafe { isa.store_at(to.add(whole), isa.load_part_at(from.add(whole), columns - whole)) };
                }
                panel_start = panel_start.wrapping_add(self.panel * depth);
            }
        }
    }

    /// Any other strides: square blocks transposed in registers where columns are contiguous, one by one elsewhere.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn copy_columns<I: Isa>(&self, isa: I, to: *mut f32) {
        let depth = self.rows.len();
        let blocks = self.source.row_step == 1 && depth >= I::LANES;
        let mut panel_start = to;
        for (first, columns, width) in self.panels(I::LANES) {
            let whole = if blocks { columns / I::LANES * I::LANES } else { 0 };
            let mut k = 0;
            while blocks && k < depth {
                // The last block reaches back over rows that are done already.
                let start = k.min(depth - I::LANES);
                for j in (0..whole).step_by(I::LANES) {
                    let from = self.source.at(self.rows.start + start, first + j);
                    for column in 0..I::LANES {
                        isa.prefetch(
                            self.source.at(self.rows.start + start + BLOCKS_AHEAD * I::LANES, first + j + column),
                        );
                    }
                    // SAFETY: LANES columns of LANES rows lie in the source and in the panel.
                    unsafe {
                        let to = panel_start.add(start * width + j);
                        isa.transpose_at(from, self.source.column_step, to, width);
                    }
                }
                k += I::LANES;
            }
            for k in 0..depth {
                for j in whole..width {
                    let from = self.source.at(self.rows.start + k, first + j);
                    // SAFETY: columns that exist lie in the source; all lie in the panel.
                    unsafe { *panel_start.add(k * width + j) = if j < columns { *from } else { 0.0 } };
                }
            }
            panel_start = panel_start.wrapping_add(self.panel * depth);
        }
    }
}
