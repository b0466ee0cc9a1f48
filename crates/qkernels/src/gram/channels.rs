//! Neurons that see one channel: small matrices for many channels, in lanes of vectors.

use super::ROWS;
use super::batch::Batch;
use super::lanes::{BLOCK, Fill, Lanes};
use super::products::{AddBlock, Squares, Target};
use super::totals::{ColumnTotals, Totals};
use crate::isa::{self, Isa, Kernel};
use crate::par;
use qtensor::Result;
use std::ops::Range;

/// Rows of a task that is worth handing to another thread.
const TASK: usize = 8 * ROWS;
/// Tasks of a batch, unless there are more sets of channels: each has sums of its own.
const MOST_TASKS: usize = 64;

/// Adds a batch, given as the memory of each tensor.
pub(super) fn add_channels(batch: &Batch, images: &[&[f32]], totals: &mut Totals) -> Result<()> {
    let lanes = isa::current().lanes();
    let sets = Lanes::of(batch.geometry.channels, lanes);
    let pieces = (batch.rows() / TASK).clamp(1, (MOST_TASKS / sets.len()).max(1));
    let sources = images.len();
    let images = [images[0], images[sources - 1]];
    // Whole tiles, of which only the last is filled up.
    let length = batch.rows().div_ceil(pieces).next_multiple_of(ROWS);
    let parts = par::map(sets.len() * pieces, |task| {
        let (set, piece) = (task / pieces, task % pieces);
        let rows = (piece * length).min(batch.rows())..((piece + 1) * length).min(batch.rows());
        isa::dispatch(Piece { batch, images, sources, rows, lanes: &sets[set] })
    });
    let size = totals.size;
    let (mut matrices, columns) = totals.parts()?;
    let mut sums = Sums { matrices: &mut matrices, columns, size };
    parts.iter().enumerate().for_each(|(task, part)| sums.add(part, &sets[task / pieces]));
    Ok(())
}

/// The sums of one task.
struct Part {
    targets: Vec<Option<Target>>,
    /// A vector for each target.
    sums: Vec<f64>,
}

/// Some rows of the batch and the channels of one vector.
struct Piece<'a> {
    batch: &'a Batch,
    images: [&'a [f32]; 2],
    sources: usize,
    rows: Range<usize>,
    lanes: &'a Lanes,
}

impl Kernel for Piece<'_> {
    type Output = Part;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Part {
        let Piece { batch, images, sources, rows, lanes } = self;
        let [height, width] = batch.geometry.kernel;
        let squares = Squares::new::<I>(height * width, sources);
        let places = squares.places();
        let tensor = squares.padded() * BLOCK;
        let mut taps = vec![0.0f32; sources * tensor];
        let mut of_tile = vec![0.0f32; squares.sums() * I::LANES];
        let mut sums = vec![0.0f64; of_tile.len()];
        let in_block = BLOCK / lanes.unit(I::LANES);
        for first in rows.clone().step_by(in_block) {
            let end = (first + in_block).min(rows.end);
            for (images, to) in images.into_iter().zip(taps.chunks_exact_mut(tensor)) {
                isa.outline(Fill { batch, images, rows: first..end, lanes, to });
            }
            let (quantized, analog) = taps.split_at(tensor);
            let (taps, places, of_tile) = ([quantized, analog], &places[..], &mut of_tile[..]);
            match squares.side {
                1 => isa.outline(AddBlock::<1> { squares, places, taps, sums: of_tile }),
                3 => isa.outline(AddBlock::<3> { squares, places, taps, sums: of_tile }),
                _ => isa.outline(AddBlock::<5> { squares, places, taps, sums: of_tile }),
            }
            if (end - rows.start).is_multiple_of(ROWS) || end == rows.end {
                for (sum, x) in sums.iter_mut().zip(of_tile) {
                    *sum += f64::from(std::mem::take(x));
                }
            }
        }
        Part { targets: squares.targets(), sums }
    }
}

/// The sums of one channel, whose neurons have `size` inputs, to be added to.
struct Sums<'a, 'b> {
    matrices: &'a mut [&'b mut [f64]],
    columns: &'a mut [ColumnTotals],
    size: usize,
}

impl Sums<'_, '_> {
    /// Adds the sums of a task to those of its channels.
    fn add(&mut self, part: &Part, lanes: &Lanes) {
        let count = (part.sums.len() / part.targets.len().max(1)).max(1);
        for (target, vector) in part.targets.iter().zip(part.sums.chunks_exact(count)) {
            let Some(target) = *target else { continue };
            match lanes {
                Lanes::Channels(channels) => {
                    channels.clone().zip(vector).for_each(|(channel, x)| *self.of(target, channel) += x);
                }
                Lanes::Places(channel) => *self.of(target, *channel) += vector.iter().sum::<f64>(),
            }
        }
    }

    fn of(&mut self, target: Target, channel: usize) -> &mut f64 {
        let first = channel * self.size;
        match target {
            Target::Product(matrix, [row, column]) => &mut self.matrices[matrix][(first + row) * self.size + column],
            Target::Sum(source, tap) => &mut self.columns[source].sums[first + tap],
            Target::Square(source, tap) => &mut self.columns[source].squares[first + tap],
        }
    }
}
