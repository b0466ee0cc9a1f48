//! Blocks of tiles are transformed, multiplied with the filters at each point, and transformed back, all near the cache.

use super::transform::{NINTH, PATCH, POINTS, SHIFTS, TILE, input, output};
use crate::conv::{Geometry, Tiles, even_piece, odd_lines};
use crate::i8::conv::strips;
use crate::i8::ending::Ending;
use crate::i8::tile::{self, Run, Target, Tile, TileShape};
use crate::isa::{self, Isa, Kernel};
use crate::par;
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// A convolution that fits the algorithm: channels are whole vectors of halves.
pub(super) struct Correlation<'a> {
    pub(super) g: &'a Geometry,
    pub(super) tiles: Tiles,
    /// Channels-last.
    pub(super) images: &'a [u8],
    pub(super) zero_point: u8,
    /// First lane and vectors of each panel.
    pub(super) panels: &'a [(usize, usize)],
    /// As [`Points::packed`](super::Points::packed) gives them.
    pub(super) packed: &'a [i32],
    pub(super) ending: &'a Ending<'a>,
}

/// Bytes that the values of a block of tiles may take: a part of a second-level cache.
const BLOCK_BYTES: usize = 512 << 10;
/// Bytes of filters at the points that are fetched from far away for each block of tiles, which are as large as they may be then.
const FILTER_BYTES: usize = 8 << 20;
/// Tiles of a block at least, so that filters are used for some of them, and at most.
const TILES: [usize; 2] = [24, 96];
/// Tasks that keep a few threads evenly busy, and the fewest lanes of one that transforms its tiles for itself.
const TASKS: usize = 24;
const LANES: usize = 128;

impl Correlation<'_> {
    /// `vector` is the lanes of a vector.
    ///
    /// # Errors
    /// A size overflows.
    pub(super) fn run(&self, vector: usize) -> Result<()> {
        let lanes = self.panels.iter().map(|(_, vectors)| vectors * vector).sum::<usize>();
        let sums = lanes.min(TileShape::MAX_VECTORS * vector);
        let bytes = POINTS * (2 * self.g.channels + 4 * sums);
        let count = self.tiles.count;
        let is_wide = POINTS * 2 * self.g.channels * lanes > FILTER_BYTES;
        let near = (BLOCK_BYTES / bytes).clamp(TILES[0], TILES[1]) / TileShape::MAX_ROWS * TileShape::MAX_ROWS;
        let mut most = if is_wide { TILES[1] } else { near };
        let mut shares = 1;
        while count.div_ceil(most) * shares < TASKS && lanes / (2 * shares) >= LANES {
            shares *= 2;
        }
        while !is_wide && most > TILES[0] && count.div_ceil(most) * shares < TASKS {
            most -= TileShape::MAX_ROWS;
        }
        let block = even_piece(count, most);
        let share = self.panels.len().div_ceil(shares);
        let shares = self.panels.len().div_ceil(share);
        par::map(count.div_ceil(block) * shares, |task| {
            let (first, panel) = (task / shares * block, task % shares * share);
            let tiles = first..(first + block).min(count);
            let points = odd_lines(tiles.len() * self.g.channels / 2);
            let mut values = Tensor::empty([POINTS * points], DType::I32)?;
            let products = odd_lines(tiles.len() * sums);
            let mut memory = Tensor::empty([POINTS * products], DType::I32)?;
            isa::dispatch(Block {
                work: self,
                tiles,
                panels: panel..(panel + share).min(self.panels.len()),
                values: values.memory_mut()?,
                products: memory.memory_mut()?,
            });
            Ok(())
        })
        .into_iter()
        .collect()
    }
}

/// A block of tiles by some panels.
struct Block<'a> {
    work: &'a Correlation<'a>,
    tiles: Range<usize>,
    panels: Range<usize>,
    /// For each point of each tile the channels, in pairs.
    values: &'a mut [i32],
    /// For each point of each tile the sums of a panel.
    products: &'a mut [i32],
}

impl Kernel for Block<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Block { work, tiles, panels, values, products } = self;
        isa.outline(Inputs { work, tiles: tiles.clone(), values });
        for &(first, vectors) in &work.panels[panels] {
            isa.outline(Products { work, tiles: tiles.len(), first, vectors, values, products });
            isa.outline(Outputs { work, tiles: tiles.clone(), first, width: vectors * I::LANES, products });
        }
    }
}

/// The way there.
struct Inputs<'a> {
    work: &'a Correlation<'a>,
    tiles: Range<usize>,
    values: &'a mut [i32],
}

impl Kernel for Inputs<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Correlation { g, images, .. } = self.work;
        let step = odd_lines(self.tiles.len() * g.channels / 2);
        let border = vec![self.work.zero_point; g.channels];
        for (tile, [image, row, column]) in self.work.tiles.places(self.tiles.clone()).enumerate() {
            let pixel = |i: usize| {
                let h = (row * TILE + i / PATCH).checked_sub(g.padding[0]).filter(|h| *h < g.input[0]);
                let w = (column * TILE + i % PATCH).checked_sub(g.padding[1]).filter(|w| *w < g.input[1]);
                match (h, w) {
                    (Some(h), Some(w)) => images[((image * g.input[0] + h) * g.input[1] + w) * g.channels..].as_ptr(),
                    _ => border.as_ptr(),
                }
            };
            let pixels: [*const u8; POINTS] = std::array::from_fn(pixel);
            for pair in (0..g.channels / 2).step_by(I::LANES) {
                let mut half = [[isa.splat_i32(0); PATCH]; PATCH];
                for column in 0..PATCH {
                    // SAFETY: each pixel has all channels, which are whole vectors.
                    let load =
                        |row: usize| unsafe { isa.load_u8_as_halves_at(pixels[row * PATCH + column].add(2 * pair)) };
                    let points = input(isa, [load(0), load(1), load(2), load(3), load(4), load(5)]);
                    for (half, point) in half.iter_mut().zip(points) {
                        half[column] = point;
                    }
                }
                for (row, half) in half.iter().enumerate() {
                    for (column, point) in input(isa, *half).into_iter().enumerate() {
                        let at = (row * PATCH + column) * step + tile * (g.channels / 2) + pair;
                        // SAFETY: every point has room for the channels of all tiles.
                        unsafe { isa.store_i32_at(self.values[at..].as_mut_ptr(), point) };
                    }
                }
            }
        }
    }
}

/// The products at all points with the panel of `vectors` that begins with lane `first`.
struct Products<'a> {
    work: &'a Correlation<'a>,
    tiles: usize,
    first: usize,
    vectors: usize,
    values: &'a [i32],
    products: &'a mut [i32],
}

impl Kernel for Products<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let pairs = self.work.g.channels / 2;
        let width = self.vectors * I::LANES;
        let runs = [Run { offset: 0, words: pairs }];
        let (from_step, to_step) = (odd_lines(self.tiles * pairs), odd_lines(self.tiles * width));
        let tallest = TileShape::for_rows::<I>(self.vectors, usize::MAX).rows;
        for point in 0..POINTS {
            let from = &self.values[point * from_step..];
            let panel = self.work.packed[POINTS * pairs * self.first + point * pairs * width..].as_ptr();
            for range in strips(self.tiles, tallest) {
                let shape = TileShape::for_rows::<I>(self.vectors, range.len());
                let mut rows = [std::ptr::null::<u8>(); TileShape::MAX_ROWS];
                for (i, row) in rows[..shape.rows].iter_mut().enumerate() {
                    *row = from[(range.start + i.min(range.len() - 1)) * pairs..].as_ptr().cast();
                }
                let to = self.products[point * to_step + range.start * width..].as_mut_ptr();
                let tile = Tile {
                    rows: &rows[..shape.rows],
                    runs: &runs,
                    panel,
                    wanted: range.len(),
                    target: Target::Raw(to, width),
                };
                // SAFETY: every tile has `pairs` words at each point, the panel has as many rows for each, and the products have room for the panel's
                // lanes of each tile at each point.
                unsafe { tile::run::<I, true>(isa, shape, &tile) };
            }
        }
    }
}

/// The way back, of `width` lanes from `first` on.
struct Outputs<'a> {
    work: &'a Correlation<'a>,
    tiles: Range<usize>,
    first: usize,
    width: usize,
    products: &'a [i32],
}

impl Kernel for Outputs<'_> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Correlation { g, ending, .. } = self.work;
        let step = odd_lines(self.tiles.len() * self.width);
        let ninth = isa.splat_i32(NINTH);
        for (tile, [image, row, column]) in self.work.tiles.places(self.tiles.clone()).enumerate() {
            let (top, left) = (row * TILE, column * TILE);
            let [height, width] = [(g.out[0] - top).min(TILE), (g.out[1] - left).min(TILE)];
            for lane in (0..self.width).step_by(I::LANES) {
                let from = &self.products[tile * self.width + lane..];
                let mut half = [[isa.splat_i32(0); PATCH]; TILE];
                for column in 0..PATCH {
                    // SAFETY: each point has whole vectors of the lanes of each tile.
                    let load = |row: usize| unsafe { isa.load_i32_at(from[(row * PATCH + column) * step..].as_ptr()) };
                    let sums = output(isa, [load(0), load(1), load(2), load(3), load(4), load(5)]);
                    for (half, sum) in half.iter_mut().zip(sums) {
                        half[column] = sum;
                    }
                }
                for (i, half) in half.iter().enumerate() {
                    let sums = output(isa, *half);
                    let mut line = [[isa.splat_i32(0)]; TILE];
                    for (j, sum) in sums.into_iter().enumerate() {
                        line[j][0] = isa.shift_right_i32(isa.mul_i32(sum, ninth), SHIFTS[i] + SHIFTS[j]);
                    }
                    if i < height {
                        let first = (image * g.out[0] + top + i) * g.out[1] + left;
                        let pixels: [usize; TILE] = std::array::from_fn(|j| first + j);
                        // SAFETY: the pixels lie in the output, and no other task has these lanes of them.
                        unsafe { ending.apply(isa, &line[..width], &pixels, self.first + lane) };
                    }
                }
            }
        }
    }
}
