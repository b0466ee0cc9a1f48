//! A band of images, copied once with its padding in place and a few bytes behind it that whole words may read.

use crate::conv::Geometry;
use crate::isa::MOST_LANES;
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// Bytes from one image, row and pixel to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) pixel: usize,
}

impl Steps {
    /// Of channels-last images.
    pub(super) fn of_input(g: &Geometry) -> Self {
        Steps { image: g.channels * g.input[0] * g.input[1], row: g.channels * g.input[1], pixel: g.channels }
    }

    /// Of a staged band of so many output rows.
    pub(super) fn of_band(g: &Geometry, rows: usize) -> Self {
        let row = g.channels * span(g, 1, g.out[1]) + if rows_collide(g) { LINE } else { 0 };
        Steps { image: row * span(g, 0, rows), row, pixel: g.channels }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Whether the rows of a matrix are so far apart that a tile's all go to the same few places of the nearest cache: then they are staged a line further apart.
pub(super) fn rows_collide(g: &Geometry) -> bool {
    const PLACES: usize = 4096;
    g.kernel == [1; 2] && g.input[1] == 1 && g.channels > 0 && g.channels.is_multiple_of(PLACES)
}

/// Input rows (axis 0) or columns (axis 1) that so many outputs see.
pub(super) fn span(g: &Geometry, axis: usize, outputs: usize) -> usize {
    outputs.saturating_sub(1).saturating_mul(g.stride[axis]).saturating_add((g.kernel[axis] - 1) * g.dilation[axis] + 1)
}

/// Bytes that a read of a whole word, or of a vector of channels, may reach behind the last pixel.
const SLACK: usize = MOST_LANES;

/// Images and output rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
}

/// The pixels that a band of `images`, channels-last values, sees, with `zero_point` in the padding.
///
/// # Errors
/// The size overflows.
pub(super) fn stage(g: &Geometry, images: &[u8], band: &Band, zero_point: u8) -> Result<Tensor> {
    let rows = span(g, 0, band.rows.len());
    let (from, to) = (Steps::of_input(g), Steps::of_band(g, band.rows.len()));
    let mut staged = Tensor::empty([band.images.len() * to.image + SLACK], DType::U8)?;
    let memory = staged.memory_mut::<u8>()?;
    let left = g.padding[1].min(to.row / g.channels.max(1)) * g.channels;
    let copied = from.row.min(to.row - left);
    let lines = memory.chunks_exact_mut(to.row.max(1)).take(band.images.len() * rows);
    for (line, to) in lines.enumerate() {
        let image = band.images.start + line / rows;
        let row = (band.rows.start * g.stride[0] + line % rows).checked_sub(g.padding[0]).filter(|r| *r < g.input[0]);
        let Some(row) = row else {
            to.fill(zero_point);
            continue;
        };
        to[..left].fill(zero_point);
        to[left..left + copied].copy_from_slice(&images[image * from.image + row * from.row..][..copied]);
        to[left + copied..].fill(zero_point);
    }
    Ok(staged)
}
