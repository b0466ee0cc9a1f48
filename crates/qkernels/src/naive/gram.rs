//! Gram matrices as nested loops over the rows that neurons see.

use super::values;
use crate::conv::{Conv2dParams, Geometry};
use qtensor::{Result, Tensor};

/// What a convolution's neurons see, and where they are judged.
pub struct Walk<'a> {
    /// Stride, padding and dilation; groups are those of `blocks`.
    pub params: Conv2dParams,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Groups of channels of which each has matrices of its own.
    pub blocks: usize,
    /// Whether a place of an image counts.
    pub counts: &'a dyn Fn(usize, usize) -> bool,
}

/// The rows of each block, of `channels/blocks · kernel height · kernel width` numbers in the order channel, row, column. Images are `[N, C, H, W]`.
///
/// # Errors
/// Shapes that do not fit each other or the parameters.
pub fn rows(x: &Tensor, walk: &Walk) -> Result<Vec<Vec<Vec<f64>>>> {
    let (depth, [height, width]) = (x.shape()[1] / walk.blocks, walk.kernel);
    let params = Conv2dParams { groups: walk.blocks, ..walk.params };
    let g = Geometry::new("naive gram", x.shape(), &[walk.blocks, depth, height, width], &params)?;
    let xs = values("naive gram", x)?;
    let mut blocks = vec![Vec::new(); walk.blocks];
    for (block, rows) in blocks.iter_mut().enumerate() {
        for (n, place) in (0..g.batch).flat_map(|n| (0..g.out[0] * g.out[1]).map(move |place| (n, place))) {
            if !(walk.counts)(n, place) {
                continue;
            }
            let mut row = Vec::new();
            for c in block * depth..(block + 1) * depth {
                for (k, l) in (0..height).flat_map(|k| (0..width).map(move |l| (k, l))) {
                    let h = g.input_row(place / g.out[1], k);
                    let w = g.input_column(place % g.out[1], l);
                    let pixel = h.zip(w).map(|(h, w)| ((n * g.channels + c) * g.input[0] + h) * g.input[1] + w);
                    row.push(pixel.map_or(0.0, |pixel| xs[pixel]));
                }
            }
            rows.push(row);
        }
    }
    Ok(blocks)
}

/// `Σ a_i b_j` over rows of two matrices, row-major.
pub fn products(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<f64> {
    let size = a.first().map_or(0, Vec::len);
    let mut sums = vec![0.0; size * size];
    for (a, b) in a.iter().zip(b) {
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                sums[i * size + j] += x * y;
            }
        }
    }
    sums
}
