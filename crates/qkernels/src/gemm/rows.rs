//! Rows of `A` next to each other.
//!
//! Rows that are a multiple of 4 KiB apart share one set of the first-level cache, which holds fewer lines than a tile has rows: each number would come from
//! the second level, which halves the speed. A copy in the first-level cache costs far less, because all panels of `B` read it.

use super::product::{memory, scratch};
use super::tile::TileShape;
use crate::isa::Isa;
use qtensor::Tensor;

/// f32 of a cache line.
const LINE: usize = 16;
/// f32 of the first-level cache's lines of equal place in their sets.
const SETS: usize = 1024;

/// How far ahead of its use a row is fetched: the hardware does not foresee the jump from row to row.
const ROWS_AHEAD: usize = 2;

/// Whether rows that are `step` elements apart share a set of the first-level cache.
pub(super) fn collide(step: usize) -> bool {
    step > 0 && step.is_multiple_of(SETS)
}

/// Memory for the rows of a tile.
pub(super) struct Rows {
    memory: Tensor,
    /// Elements from one row to the next: an odd number of cache lines, so that rows spread over all sets.
    pitch: usize,
}

impl Rows {
    /// For rows of at most `depth` elements.
    pub(super) fn new(depth: usize) -> Self {
        let pitch = (depth.div_ceil(LINE) | 1) * LINE;
        Rows { memory: scratch(pitch * TileShape::MAX_ROWS), pitch }
    }

    /// Copies `depth` elements from each of the first `wanted` pointers, which then point to the copies; the others repeat the last of them.
    ///
    /// # Safety
    /// The elements must be readable, `wanted` is not 0 and at most the rows of the tallest tile, `depth` at most what [`Rows::new`] was told.
    #[inline(always)]
    pub(super) unsafe fn take<I: Isa>(&mut self, isa: I, rows: &mut [*const f32], wanted: usize, depth: usize) {
        debug_assert!((1..=TileShape::MAX_ROWS).contains(&wanted) && depth <= self.pitch);
        let start = memory(&mut self.memory).as_mut_ptr();
        for i in 0..wanted {
            let (row, later) = (rows[i], rows[(i + ROWS_AHEAD).min(wanted - 1)]);
            let to = start.wrapping_add(i * self.pitch);
            for k in (0..depth).step_by(I::LANES) {
                isa.prefetch(later.wrapping_add(k));
                let count = (depth - k).min(I::LANES);
                // SAFETY: the caller's promise; the copy has `pitch` elements.
                unsafe {
                    if count == I::LANES {
                        isa.store_at(to.add(k), isa.load_at(row.add(k)));
                    } else {
                        isa.store_part_at(to.add(k), count, isa.load_part_at(row.add(k), count));
                    }
                }
            }
            rows[i] = to;
        }
        let last = rows[wanted - 1];
        rows[wanted..].fill(last);
    }
}
