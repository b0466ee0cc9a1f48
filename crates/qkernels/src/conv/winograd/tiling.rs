//! How a Winograd convolution is divided: tiles of outputs, blocks of tiles, groups of panels. Everything depends on shapes only.

use super::filters::{Panel, odd_lines};
use super::transform::POINTS;
use crate::conv::algorithm::even_piece;
use std::ops::Range;

/// The tiles of a batch of images, numbered row by row and image by image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(crate) count: usize,
}

impl Tiles {
    /// Tiles of `tile` rows and columns, of a batch of images of outputs.
    pub(crate) fn new(batch: usize, output: [usize; 2], tile: usize) -> Tiles {
        let [rows, columns] = output.map(|length| length.div_ceil(tile));
        Tiles { rows, columns, count: batch * rows * columns }
    }

    /// Image, tile row and tile column of a tile.
    #[inline(always)]
    pub(super) fn place(self, tile: usize) -> [usize; 3] {
        let row = tile / self.columns;
        [row / self.rows, row % self.rows, tile % self.columns]
    }

    /// Image, tile row and tile column of each tile of a range.
    #[inline(always)]
    pub(crate) fn places(self, tiles: Range<usize>) -> impl Iterator<Item = [usize; 3]> {
        let [mut image, mut row, mut column] = self.place(tiles.start);
        tiles.map(move |_| {
            let place = [image, row, column];
            column += 1;
            if column == self.columns {
                (column, row) = (0, row + 1);
                if row == self.rows {
                    (row, image) = (0, image + 1);
                }
            }
            place
        })
    }
}

/// Bytes that the values of a block may take: a part of a second-level cache.
const BLOCK_BYTES: usize = 512 << 10;
/// Bytes of transformed filters beyond which they are fetched from far away for each block of tiles.
const FILTER_BYTES: usize = 16 << 20;
/// Tiles of a block then.
const WIDE_TILES: usize = 8 * ROWS;
/// Tiles of a block whose values do not stay in the second-level cache.
const FAR_TILES: usize = 4 * ROWS;
/// Tiles that fill the rows of a register tile.
const ROWS: usize = 12;
/// Tasks that keep a few threads evenly busy.
const TASKS: usize = 24;

/// Block sizes of a correlation.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// Tiles of a task.
    pub(super) tiles: usize,
    /// Panels of each task of a block of tiles.
    pub(super) shares: Vec<Range<usize>>,
    /// Panels that are multiplied between two transforms.
    pub(super) group: usize,
}

impl Blocks {
    /// For the products of `count` tiles of `row` values at a point with panels of filters.
    pub(super) fn new(count: usize, row: usize, panels: &[Panel], vector: usize) -> Blocks {
        let lanes = |panels: usize| 2 * vector * panels;
        let bytes = |group: usize| POINTS * 4 * (row + lanes(group.min(panels.len())));
        // Values of wide inputs do not stay near in any case: then filters are used for more tiles, and tiles for more filters, than the cache holds.
        let group = even_piece(panels.len(), (256 / lanes(1)).clamp(1, panels.len()));
        let is_wide = POINTS * 4 * row * lanes(panels.len()) > FILTER_BYTES;
        let near = BLOCK_BYTES / bytes(group) / ROWS * ROWS;
        let most = match (is_wide, near >= 2 * ROWS) {
            (true, _) => WIDE_TILES,
            (_, true) => near,
            _ => FAR_TILES,
        };
        let mut tiles = most.min(count);
        // Each share transforms the tiles again.
        let mut shares = 1;
        let narrowest = if is_wide { 64 } else { 128 };
        while count.div_ceil(tiles) * shares < TASKS && lanes(panels.len()) / (2 * shares) >= narrowest {
            shares *= 2;
        }
        while !is_wide && tiles > 2 * ROWS && count.div_ceil(tiles) * shares < TASKS {
            tiles -= ROWS;
        }
        let share = panels.len().div_ceil(shares);
        let shares = (0..panels.len()).step_by(share).map(|p| p..(p + share).min(panels.len())).collect();
        Blocks { tiles, shares, group }
    }
}

/// Elements from one point to the next of a block of tiles with `row` values each.
pub(super) fn point_step(tiles: usize, row: usize) -> usize {
    odd_lines(tiles * row)
}

/// Filters of one target.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) target: usize,
    pub(super) filters: Range<usize>,
}

impl Segment {
    /// Lanes that it takes: whole vectors.
    pub(super) fn width(&self, vector: usize) -> usize {
        self.filters.len().next_multiple_of(vector)
    }
}

/// Channels and filters of a block whose sums at all points stay in a second-level cache.
const BLOCK: usize = 64;
/// Bytes that the sums of all parts may take together before there are fewer parts.
const PARTS_BYTES: usize = 6 << 20;

/// Block sizes of a weight gradient.
#[derive(Clone, Debug)]
pub(super) struct GradBlocks {
    channels: usize,
    /// Channels of a block.
    piece: usize,
    /// For each block of filters the segments that it is made of.
    filters: Vec<Vec<Segment>>,
    vector: usize,
    /// Tiles that are transformed together.
    pub(super) tiles: usize,
    /// Independent sums over parts of the tiles.
    pub(super) parts: usize,
}

impl GradBlocks {
    /// For `count` tiles, and `filters` of each of some targets.
    pub(super) fn new(count: usize, channels: usize, [targets, filters]: [usize; 2], vector: usize) -> GradBlocks {
        let piece = even_piece(channels, BLOCK).next_multiple_of(vector).min(channels);
        let of_filters = even_piece(filters, BLOCK).next_multiple_of(vector);
        let segments = (0..targets).flat_map(|target| {
            let range = move |first| Segment { target, filters: first..(first + of_filters).min(filters) };
            (0..filters).step_by(of_filters).map(range)
        });
        let mut blocks: Vec<Vec<Segment>> = Vec::new();
        let mut free = 0;
        for segment in segments {
            let width = segment.width(vector);
            match blocks.last_mut() {
                Some(block) if width <= free => {
                    free -= width;
                    block.push(segment);
                }
                _ => {
                    free = BLOCK.saturating_sub(width);
                    blocks.push(vec![segment]);
                }
            }
        }
        let mut sizes = GradBlocks { channels, piece, filters: blocks, vector, tiles: 1, parts: 1 };
        let row = piece.next_multiple_of(vector) + sizes.width();
        sizes.tiles = (BLOCK_BYTES / (POINTS * 4 * row)).clamp(24, 96);
        let bytes = POINTS * 4 * sizes.size() * sizes.count();
        sizes.parts = TASKS.div_ceil(sizes.count()).min(PARTS_BYTES / bytes).min(count / sizes.tiles).max(1);
        sizes
    }

    /// The most lanes of a block.
    fn width(&self) -> usize {
        let width = |block: &Vec<Segment>| block.iter().map(|s| s.width(self.vector)).sum();
        self.filters.iter().map(width).max().unwrap_or(0)
    }

    /// Vectors of channels of a block.
    pub(super) fn vectors(&self) -> usize {
        self.piece.div_ceil(self.vector)
    }

    /// Elements that hold the sums of any block at a point.
    pub(super) fn size(&self) -> usize {
        odd_lines(self.piece * self.width())
    }

    /// Number of blocks.
    pub(super) fn count(&self) -> usize {
        self.channels.div_ceil(self.piece) * self.filters.len()
    }

    /// Channels and filters of a block.
    pub(super) fn block(&self, i: usize) -> (Range<usize>, &[Segment]) {
        let first = i / self.filters.len() * self.piece;
        (first..(first + self.piece).min(self.channels), &self.filters[i % self.filters.len()])
    }
}
