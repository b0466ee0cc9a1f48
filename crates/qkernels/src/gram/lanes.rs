//! What the lanes of a vector are where neurons see one channel: channels, or places of one channel.

use super::batch::Batch;
use crate::isa::{Isa, Kernel};
use std::ops::Range;

/// Numbers of each tap that are multiplied at a time: those of nine taps of two tensors fit the nearest cache.
pub(super) const BLOCK: usize = 512;

/// What the lanes of a vector are.
#[derive(Clone, Debug)]
pub(super) enum Lanes {
    /// Neighbouring channels, at most as many as there are lanes.
    Channels(Range<usize>),
    /// Places of one channel.
    Places(usize),
}

impl Lanes {
    /// All channels of a layer for vectors of `lanes`.
    pub(super) fn of(channels: usize, lanes: usize) -> Vec<Lanes> {
        let whole = channels / lanes * lanes;
        let mut sets: Vec<Lanes> = (0..whole).step_by(lanes).map(|c| Lanes::Channels(c..c + lanes)).collect();
        // Of a few channels most lanes would be idle.
        if 2 * (channels - whole) >= lanes {
            sets.push(Lanes::Channels(whole..channels));
        } else {
            sets.extend((whole..channels).map(Lanes::Places));
        }
        sets
    }

    /// Numbers of a tap that a place takes.
    pub(super) fn unit(&self, lanes: usize) -> usize {
        match self {
            Lanes::Channels(_) => lanes,
            Lanes::Places(_) => 1,
        }
    }
}

/// Copies what neurons see at some places: [`BLOCK`] numbers of each tap, zeros behind the last place.
pub(super) struct Fill<'a> {
    pub(super) batch: &'a Batch,
    /// Channels-last.
    pub(super) images: &'a [f32],
    /// Rows of the batch, at most as many as fit a block.
    pub(super) rows: Range<usize>,
    pub(super) lanes: &'a Lanes,
    /// [`BLOCK`] numbers for each tap, and possibly more.
    pub(super) to: &'a mut [f32],
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let g = &self.batch.geometry;
        let unit = self.lanes.unit(I::LANES);
        let mut row = self.rows.start;
        while row < self.rows.end {
            let count = self.batch.neighbours(row, self.rows.end - row);
            let at = (row - self.rows.start) * unit;
            let [image, out_row, out_column] = self.batch.place(row);
            for k in 0..g.kernel[0] {
                let line = g.input_row(out_row, k).map(|row| (image * g.input[0] + row) * g.input[1] * g.channels);
                for l in 0..g.kernel[1] {
                    let to = (k * g.kernel[1] + l) * BLOCK + at;
                    self.run_of_places(isa, line, [l, out_column], to..to + count * unit);
                }
            }
            row += count;
        }
        let filled = self.rows.len() * unit;
        self.to.chunks_exact_mut(BLOCK).for_each(|tap| tap[filled..].fill(0.0));
    }
}

impl Fill<'_> {
    /// Neighbouring places from output column `first` on, as kernel column `l` sees them on the line of the images that starts at `line`.
    #[inline(always)]
    fn run_of_places<I: Isa>(&mut self, isa: I, line: Option<usize>, [l, first]: [usize; 2], to: Range<usize>) {
        let g = &self.batch.geometry;
        let unit = self.lanes.unit(I::LANES);
        let to = &mut self.to[to];
        let Some(line) = line else { return to.fill(0.0) };
        // Output columns whose input column exists: column · stride + offset - padding lies in the image.
        let (stride, padding, offset) = (g.stride[1], g.padding[1], l * g.dilation[1]);
        let end = first + to.len() / unit;
        let begin = padding.saturating_sub(offset).div_ceil(stride).clamp(first, end);
        let last = (g.input[1] + padding).saturating_sub(offset).div_ceil(stride).clamp(begin, end);
        to[..(begin - first) * unit].fill(0.0);
        to[(last - first) * unit..].fill(0.0);
        let to = &mut to[(begin - first) * unit..(last - first) * unit];
        if to.is_empty() {
            return;
        }
        let from = &self.images[line + (begin * stride + offset - padding) * g.channels..];
        let step = stride * g.channels;
        match self.lanes {
            Lanes::Places(channel) => {
                to.iter_mut().zip(from[*channel..].iter().step_by(step)).for_each(|(to, x)| *to = *x);
            }
            Lanes::Channels(channels) if channels.len() == I::LANES => {
                for (to, from) in to.chunks_exact_mut(I::LANES).zip(from[channels.start..].chunks(step)) {
                    isa.store(to, isa.load(from));
                }
            }
            Lanes::Channels(channels) => {
                for (to, from) in to.chunks_exact_mut(I::LANES).zip(from[channels.start..].chunks(step)) {
                    isa.store(to, isa.load_part(&from[..channels.len()]));
                }
            }
        }
    }
}
