//! Memory that is needed soon, brought nearer while products are taken: they read the nearest caches alone, and the tiles of an image lie in too many short
//! pieces for the processor to see where they go on.

use super::tiling::Tiles;
use crate::conv::stage::Images;
use crate::isa::Isa;
use qtensor::Element;
use std::ops::Range;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of one image or target that are fetched at once: a part of a second-level cache.
const MOST: usize = 128 << 10;

/// Bytes of transformed filters, or of sums, beside which there is room for what is needed later.
const NEAR: usize = 256 << 10;

/// Pieces of memory.
#[derive(Default)]
pub(super) struct Ahead(Vec<(*const u8, usize)>);

/// Channels-last images of whose rows some are needed.
pub(super) struct Rows<T> {
    pub(super) start: *const T,
    /// Elements to the next image and the next row.
    pub(super) steps: [usize; 2],
    /// Rows of an image.
    pub(super) height: usize,
    /// The first row of the first tile, and the rows of a tile.
    pub(super) first: isize,
    pub(super) length: usize,
}

impl Ahead {
    /// Whether fetching pays beside `words` of filters or sums, which are used again and again and must not leave the cache.
    pub(super) fn has_room(words: usize) -> bool {
        words * size_of::<f32>() <= NEAR
    }

    /// Adds the rows of some tiles, which are `tile` rows apart.
    pub(super) fn add<T>(&mut self, rows: Rows<T>, tiles: Tiles, range: Range<usize>, tile: usize) {
        if range.is_empty() {
            return;
        }
        let place = |t: usize, length: usize| {
            let (row, image) = (t / tiles.columns % tiles.rows, t / tiles.columns / tiles.rows);
            let row = ((row * tile + length) as isize + rows.first).clamp(0, rows.height as isize) as usize;
            image * rows.steps[0] + row * rows.steps[1]
        };
        let (first, end) = (place(range.start, 0), place(range.end - 1, rows.length));
        let bytes = end.saturating_sub(first) * size_of::<T>();
        self.0.push((rows.start.wrapping_add(first).cast(), bytes.min(MOST)));
    }

    /// Asks for one of `parts` parts.
    #[inline(always)]
    pub(super) fn fetch<I: Isa>(&self, isa: I, part: usize, parts: usize) {
        for (start, bytes) in &self.0 {
            let lines = bytes.div_ceil(LINE);
            for line in part * lines / parts..(part + 1) * lines / parts {
                isa.prefetch_far(start.wrapping_add(line * LINE).cast());
            }
        }
    }
}

impl<T: Element> Images<'_, T> {
    /// Their rows for tiles of `length` rows, of which the first begins at row `first`.
    pub(super) fn rows(&self, height: usize, first: isize, length: usize) -> Rows<T> {
        Rows { start: self.start(), steps: [self.strides[0], self.strides[2]], height, first, length }
    }
}
