//! Random changes of one image, drawn from a stream of its own.

use super::dataset::ImageShape;
use crate::experiment::{Augment, CropMode};
use qtensor::random::Stream;

/// What happens to one image: a window is cut, perhaps mirrored, and perhaps a hole is made in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Row and column of the window's corner in the padded image.
    corner: [usize; 2],
    flip: bool,
    /// Centre of the hole.
    hole: [usize; 2],
}

impl Change {
    /// Draws a change; every image takes the same draws, whatever is switched on.
    pub(super) fn draw(augment: &Augment, shape: ImageShape, stream: &mut Stream) -> Self {
        let span = 2 * augment.crop_padding as u32 + 1;
        let corner = [stream.below(span) as usize, stream.below(span) as usize];
        let flip = augment.flip & stream.chance(0.5);
        let hole = [stream.below(shape.height as u32) as usize, stream.below(shape.width as u32) as usize];
        Change { corner, flip, hole }
    }

    /// Writes the window, mirrored or not, of the planes `from` to `to`; both have the shape `shape`.
    pub(super) fn apply(&self, augment: &Augment, shape: ImageShape, from: &[u8], to: &mut [u8]) {
        let ImageShape { height, width, .. } = shape;
        // Source of every row and column; the index after the last stands for black.
        let source = |length: usize, corner: usize, at: usize| {
            let at = at as isize + corner as isize - augment.crop_padding as isize;
            match augment.crop_mode {
                CropMode::Zero => usize::try_from(at).map_or(length, |at| at.min(length)),
                CropMode::Reflect => {
                    let last = length as isize - 1;
                    let at = at.abs();
                    (if at > last { 2 * last - at } else { at }) as usize
                }
            }
        };
        let mut columns: Vec<usize> = (0..width).map(|x| source(width, self.corner[1], x)).collect();
        if self.flip {
            columns.reverse();
        }
        let mut row = vec![0; width + 1];
        for (from, to) in from.chunks_exact(shape.plane()).zip(to.chunks_exact_mut(shape.plane())) {
            for (y, to) in to.chunks_exact_mut(width).enumerate() {
                let y = source(height, self.corner[0], y);
                if y == height {
                    to.fill(0);
                    continue;
                }
                row[..width].copy_from_slice(&from[y * width..(y + 1) * width]);
                to.iter_mut().zip(&columns).for_each(|(to, &x)| *to = row[x]);
            }
        }
    }

    /// Rows and columns of the hole, cut at the edges of the image.
    pub(super) fn hole(&self, augment: &Augment, shape: ImageShape) -> [std::ops::Range<usize>; 2] {
        let range = |centre: usize, length: usize| {
            let start = centre.saturating_sub(augment.cutout / 2);
            let end = (centre + augment.cutout - augment.cutout / 2).min(length);
            start..end
        };
        [range(self.hole[0], shape.height), range(self.hole[1], shape.width)]
    }
}
