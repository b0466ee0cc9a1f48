//! How a Winograd convolution is divided: tiles of 4×4 outputs, blocks of tiles, groups of panels. Everything depends on shapes only.

use super::filters::{Panel, odd_lines};
use super::transform::{POINTS, TILE};
use crate::conv::algorithm::even_piece;
use std::ops::Range;

/// The tiles of a batch of images, numbered row by row and image by image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) count: usize,
}

impl Tiles {
    /// Of a batch of images of outputs.
    pub(super) fn new(batch: usize, output: [usize; 2]) -> Tiles {
        let [rows, columns] = output.map(|length| length.div_ceil(TILE));
        Tiles { rows, columns, count: batch * rows * columns }
    }

    /// Image, tile row and tile column of each tile of a range.
    #[inline(always)]
    pub(super) fn places(self, tiles: Range<usize>) -> impl Iterator<Item = [usize; 3]> {
        let (mut column, row) = (tiles.start % self.columns, tiles.start / self.columns);
        let (mut row, mut image) = (row % self.rows, row / self.rows);
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
        let group = (256 / lanes(1)).clamp(1, panels.len());
        let group = even_piece(panels.len(), group);
        let most = (BLOCK_BYTES / bytes(group)).max(4 * ROWS) / ROWS * ROWS;
        let mut tiles = most;
        while tiles > 2 * ROWS && count.div_ceil(tiles) < TASKS {
            tiles -= ROWS;
        }
        let blocks = count.div_ceil(tiles);
        // Each share transforms the tiles again.
        let mut shares = 1;
        while blocks * shares < TASKS && lanes(panels.len()) / (2 * shares) >= 128 {
            shares *= 2;
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
