//! One mini-batch: which places of its images count, and the rows that neurons see there.

use super::OP;
use super::inputs::{Inputs, Patches, Window};
use crate::conv::Geometry;
use crate::par;
use qtensor::{DType, Error, Result, Tensor};

/// Rows that a thread gathers at a time.
const TOGETHER: usize = 32;

/// A mini-batch's sizes and the places that count.
pub(super) struct Batch {
    pub(super) geometry: Geometry,
    blocks: usize,
    depth: usize,
    /// Places of each image that count.
    per_image: usize,
    /// They, image after image; none where all do.
    places: Option<Vec<u32>>,
}

impl Batch {
    /// The batch `x`, whose first image has that number.
    ///
    /// # Errors
    /// A shape that the layer does not take, or another type than f32.
    pub(super) fn new(inputs: &Inputs, x: &Tensor, first_image: u64) -> Result<Self> {
        if x.dtype() != DType::F32 {
            return Err(Error::DType { op: OP, expected: DType::F32, found: x.dtype() });
        }
        let geometry = inputs.geometry(x.shape())?;
        let in_image = geometry.out[0] * geometry.out[1];
        let per_image = inputs.patches.count(in_image);
        let draws = inputs.window != Window::Dense && matches!(inputs.patches, Patches::Share { .. });
        let places = if draws && per_image < in_image {
            let in_image = u32::try_from(in_image)
                .map_err(|_| Error::argument(OP, format!("cannot draw from {in_image} places of an image")))?;
            let of = |i: usize| inputs.patches.of_image(first_image.wrapping_add(i as u64), in_image);
            Some(par::map(geometry.batch, of).concat())
        } else {
            None
        };
        Ok(Batch { geometry, blocks: inputs.blocks(), depth: inputs.depth(), per_image, places })
    }

    pub(super) fn images(&self) -> usize {
        self.geometry.batch
    }

    pub(super) fn rows(&self) -> usize {
        self.geometry.batch * self.per_image
    }

    /// Columns of all blocks.
    pub(super) fn columns(&self) -> usize {
        self.geometry.channels * self.geometry.kernel[0] * self.geometry.kernel[1]
    }

    /// The image of a row, and the row and the column of its place in the output.
    #[inline(always)]
    pub(super) fn place(&self, row: usize) -> [usize; 3] {
        let image = row / self.per_image;
        let place = self.places.as_ref().map_or(row % self.per_image, |places| places[row] as usize);
        [image, place / self.geometry.out[1], place % self.geometry.out[1]]
    }

    /// How many rows from `row` on, at most `most`, have places next to each other in one row of the output.
    #[inline(always)]
    pub(super) fn neighbours(&self, row: usize, most: usize) -> usize {
        let [_, _, column] = self.place(row);
        let most = most.min(self.geometry.out[1] - column).min(self.per_image - row % self.per_image);
        match &self.places {
            None => most,
            Some(places) => (1..most).find(|i| places[row + i] != places[row] + *i as u32).unwrap_or(most),
        }
    }

    /// Gathers rows from `first` on to `to`, as many as it has room for. A row holds block after block, of each tap after tap, of each the block's channels.
    pub(super) fn gather(&self, images: &[f32], first: usize, to: &mut [f32]) {
        let columns = self.columns();
        par::for_each_chunk(to, TOGETHER * columns, |chunk, rows| {
            for (i, row) in rows.chunks_exact_mut(columns).enumerate() {
                self.gather_row(images, self.place(first + chunk * TOGETHER + i), row);
            }
        });
    }

    fn gather_row(&self, images: &[f32], [image, out_row, out_column]: [usize; 3], to: &mut [f32]) {
        let g = &self.geometry;
        let [height, width] = g.kernel;
        let left = out_column * g.stride[1];
        let is_inside = left >= g.padding[1] && left - g.padding[1] + width <= g.input[1];
        let is_one_run = self.blocks == 1 && g.dilation[1] == 1 && is_inside;
        for k in 0..height {
            let line = g.input_row(out_row, k).map(|row| (image * g.input[0] + row) * g.input[1]);
            if let (Some(line), true) = (line, is_one_run) {
                let to = &mut to[k * width * self.depth..][..width * self.depth];
                to.copy_from_slice(&images[(line + left - g.padding[1]) * g.channels..][..to.len()]);
                continue;
            }
            for l in 0..width {
                let pixel = line.and_then(|line| Some((line + g.input_column(out_column, l)?) * g.channels));
                for block in 0..self.blocks {
                    let to = &mut to[((block * height + k) * width + l) * self.depth..][..self.depth];
                    match pixel {
                        Some(pixel) => to.copy_from_slice(&images[pixel + block * self.depth..][..self.depth]),
                        None => to.fill(0.0),
                    }
                }
            }
        }
    }

    /// All rows, gathered.
    ///
    /// # Errors
    /// They do not fit the address space.
    pub(super) fn all_rows(&self, images: &[f32]) -> Result<Tensor> {
        let mut rows = Tensor::empty([self.rows(), self.columns()], DType::F32)?;
        self.gather(images, 0, rows.memory_mut()?);
        Ok(rows)
    }
}
