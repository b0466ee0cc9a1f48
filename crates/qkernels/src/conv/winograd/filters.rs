//! Filters, transformed to the points and packed in panels of one or two vectors of lanes.

use super::transform::{Form, PATCH, POINTS, both_axes, filter, unrolled};
use crate::conv::stage::Scratch;
use crate::isa::{Isa, IsaId, Kernel, Stored, dispatch_on};
use crate::par::SharedOut;
use qtensor::{DType, Result, Tensor};
use std::marker::PhantomData;
use std::ops::Range;

/// Vectors of a full panel.
pub(super) const PANEL_VECTORS: usize = 2;
/// Summed channels that a task transforms: a multiple of every vector's lanes.
const CHUNK: usize = 32;

/// Weights as a correlation sees them, in elements of their buffer.
#[derive(Clone, Copy)]
pub(super) struct Filters<'a> {
    buffer: &'a [f32],
    offset: usize,
    /// To the next channel that the correlation writes.
    lane: usize,
    /// To the next channel that it sums over.
    sum: usize,
    /// To the next kernel row and column.
    tap: [usize; 2],
    /// Whether taps are taken from the last to the first.
    reversed: bool,
}

impl<'a> Filters<'a> {
    /// For the forward pass: lanes are filters.
    pub(super) fn forward(w: &'a Tensor) -> Result<Self> {
        let s = w.strides();
        let (buffer, offset) = (w.buffer_slice()?, w.layout().offset());
        Ok(Filters { buffer, offset, lane: s[0], sum: s[1], tap: [s[2], s[3]], reversed: false })
    }

    /// For the input gradient: lanes are input channels, the sum runs over filters, and the kernel is turned by half a circle.
    pub(super) fn input_grad(w: &'a Tensor) -> Result<Self> {
        let forward = Self::forward(w)?;
        Ok(Filters { lane: forward.sum, sum: forward.lane, reversed: true, ..forward })
    }

    /// The number of the tap at a place of the correlation's kernel.
    #[inline(always)]
    fn tap<F: Form>(&self, row: usize, column: usize) -> usize {
        let tap = row * F::TAPS + column;
        if self.reversed { F::ALL_TAPS - 1 - tap } else { tap }
    }

    /// Copies some lanes of some summed channels, so that `taken[(c * taps + tap) * LANES + lane]` holds a tap. Lanes that do not exist are 0.
    /// What lies behind the last channel is scratch: one more block of taps.
    #[inline(always)]
    fn gather<I: Isa, F: Form>(&self, isa: I, lanes: Range<usize>, sums: Range<usize>, taken: &mut [f32]) {
        let from = &self.buffer[self.offset + lanes.start * self.lane + sums.start * self.sum..];
        let taps_touch = self.tap == [F::TAPS, 1];
        let full = lanes.len() == I::LANES;
        let mut done = 0;
        if taps_touch && full && self.lane == F::ALL_TAPS {
            // For each channel, lanes by taps; what a block holds beyond the taps is overwritten by the next channel.
            let rows = (I::LANES - 1) * self.lane + F::ALL_TAPS.next_multiple_of(I::LANES);
            for (c, to) in (0..sums.len()).zip((0..).step_by(F::ALL_TAPS * I::LANES)) {
                let Some(block) = from.get(c * self.sum..c * self.sum + rows) else { break };
                for tap in (0..F::ALL_TAPS).step_by(I::LANES) {
                    let to = &mut taken[to + tap * I::LANES..][..I::LANES * I::LANES];
                    // SAFETY: the slices hold LANES rows of LANES values.
                    unsafe { isa.transpose_at(block[tap..].as_ptr(), self.lane, to.as_mut_ptr(), I::LANES) };
                }
                done += F::ALL_TAPS;
            }
        }
        let to = &mut taken[..sums.len() * F::ALL_TAPS * I::LANES];
        if taps_touch && full && self.sum == F::ALL_TAPS {
            // For each lane, taps of all the channels in turn.
            while done + I::LANES <= sums.len() * F::ALL_TAPS {
                let block = &from[done..done + (I::LANES - 1) * self.lane + I::LANES];
                // SAFETY: the slice holds LANES rows of LANES values; `to` has as many rows from `done` on.
                unsafe { isa.transpose_at(block.as_ptr(), self.lane, to[done * I::LANES..].as_mut_ptr(), I::LANES) };
                done += I::LANES;
            }
        } else if !full {
            to.fill(0.0);
        }
        for place in done..sums.len() * F::ALL_TAPS {
            let (c, tap) = (place / F::ALL_TAPS, place % F::ALL_TAPS);
            let from = &from[c * self.sum + tap / F::TAPS * self.tap[0] + tap % F::TAPS * self.tap[1]..];
            for (lane, to) in to[place * I::LANES..].iter_mut().enumerate().take(lanes.len()) {
                *to = from[lane * self.lane];
            }
        }
    }
}

/// Some neighbouring lanes of one target.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) target: usize,
    /// The lanes that exist.
    pub(super) lanes: Range<usize>,
    pub(super) vectors: usize,
    /// Where its values begin.
    pub(super) start: usize,
}

/// The sizes of packed filters: `targets` correlations that read the same `sources`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) targets: usize,
    /// Lanes of a target.
    pub(super) channels: usize,
    pub(super) sources: usize,
    /// Channels of a source.
    pub(super) source_channels: usize,
    /// Channels in a word: rows are counted in words.
    pub(super) in_word: usize,
}

impl Size {
    /// Words of a tile at a point: whole vectors for each source.
    pub(super) fn row(&self, vector: usize) -> usize {
        self.sources * self.source_row(vector)
    }

    /// Words of a source.
    fn source_row(&self, vector: usize) -> usize {
        self.source_channels.next_multiple_of(vector) / self.in_word
    }

    /// How many of them the products run over.
    pub(super) fn depth(&self, vector: usize) -> usize {
        if self.sources == 1 { self.source_channels.div_ceil(self.in_word) } else { self.row(vector) }
    }

    /// All panels, one after the other.
    pub(super) fn panels(&self, vector: usize) -> Vec<Panel> {
        let depth = self.depth(vector);
        let mut panels = Vec::new();
        let mut end = 0;
        for target in 0..self.targets {
            for first in (0..self.channels).step_by(PANEL_VECTORS * vector) {
                let lanes = first..(first + PANEL_VECTORS * vector).min(self.channels);
                let vectors = lanes.len().div_ceil(vector);
                panels.push(Panel { target, lanes, vectors, start: end });
                end += POINTS * point_step(depth, vectors * vector);
            }
        }
        panels
    }
}

/// Panels in one buffer: for each panel and point, one row of lanes for each summed channel, or pair of them.
pub(super) struct Packed {
    pub(super) buffer: Tensor,
    pub(super) panels: Vec<Panel>,
    pub(super) depth: usize,
    vector: usize,
}

impl Packed {
    /// Transforms `filters`, for each target one of each source, for some neighbouring panels, in tasks that `for_each` runs.
    ///
    /// # Errors
    /// The size overflows.
    pub(super) fn new<T: Stored, F: Form>(
        filters: &[Filters],
        size: Size,
        panels: &[Panel],
        isa: IsaId,
        for_each: impl Fn(usize, &(dyn Fn(usize) + Sync)),
    ) -> Result<Packed> {
        let vector = isa.lanes();
        let depth = size.depth(vector);
        let start = panels.first().map_or(0, |panel| panel.start);
        let panels: Vec<Panel> = panels.iter().map(|p| Panel { start: p.start - start, ..p.clone() }).collect();
        let end = panels.last().map_or(0, |p| p.start + POINTS * point_step(depth, p.vectors * vector));
        let mut buffer = Tensor::empty([end], DType::F32)?;
        let out = SharedOut::new(buffer.memory_mut::<f32>()?);
        let packed = Packed { buffer, panels, depth, vector };
        let chunks = size.source_channels.div_ceil(CHUNK);
        for_each(packed.panels.len() * size.sources * chunks, &|task| {
            let (panel, rest) = (task / (size.sources * chunks), task % (size.sources * chunks));
            let (source, first) = (rest / chunks, rest % chunks * CHUNK);
            let panel = &packed.panels[panel];
            let filters = &filters[panel.target * size.sources + source];
            let channels = first..(first + CHUNK).min(size.source_channels);
            let row = source * size.source_row(vector) + first / T::IN_WORD;
            let is_end = channels.end == size.source_channels;
            let end = packed.depth.min(size.source_row(vector) * (source + 1));
            let rows = if is_end { end - row } else { CHUNK / T::IN_WORD };
            dispatch_on(
                isa,
                Pack::<T, F> { of: PhantomData, packed: &packed, panel, filters, channels, row, rows, out },
            );
        });
        Ok(packed)
    }

    /// Where the rows of a panel at a point begin.
    pub(super) fn point(&self, panel: &Panel, point: usize) -> usize {
        panel.start + point * point_step(self.depth, panel.vectors * self.vector)
    }
}

/// Elements from one point of a panel to the next: never a multiple of the size of a cache's way, so that the points do not compete for the same lines.
fn point_step(depth: usize, width: usize) -> usize {
    odd_lines(depth * width)
}

/// The next odd multiple of a cache line of words of 32 bits, so that arrays of this length do not share a few places of the cache.
pub(crate) fn odd_lines(length: usize) -> usize {
    const LINE: usize = 16;
    (length.div_ceil(LINE) | 1) * LINE
}

/// Transforms one chunk of a panel.
struct Pack<'a, T, F> {
    of: PhantomData<(T, F)>,
    packed: &'a Packed,
    panel: &'a Panel,
    filters: &'a Filters<'a>,
    channels: Range<usize>,
    /// The first row of the panel that it writes, and how many, zeros beyond its channels.
    row: usize,
    rows: usize,
    out: SharedOut<f32>,
}

impl<T: Stored, F: Form> Kernel for Pack<'_, T, F> {
    type Output = ();
    const DOT_PRODUCTS: bool = T::DOT_PRODUCTS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Pack { packed, panel, filters, ref channels, .. } = self;
        let width = panel.vectors * I::LANES;
        let mut scratch = Scratch::new();
        let taken = scratch.take((CHUNK * F::ALL_TAPS + I::LANES) * I::LANES);
        let step = point_step(packed.depth, width);
        for v in 0..panel.vectors {
            let first = panel.lanes.start + v * I::LANES;
            filters.gather::<I, F>(isa, first..(first + I::LANES).min(panel.lanes.end), channels.clone(), taken);
            for row in 0..self.rows {
                // SAFETY: the row and its vector lie in the panel; every task has its own rows.
                let to = unsafe { self.out.at(panel.start + (self.row + row) * width + v * I::LANES) };
                // The last channel of a word first: it takes the high half, and waits there for the other.
                for part in (0..T::IN_WORD).rev() {
                    let c = row * T::IN_WORD + part;
                    if c >= channels.len() {
                        for point in 0..POINTS {
                            // SAFETY: as above, in every point of the panel.
                            unsafe { isa.store_at(to.add(point * step), isa.zero()) };
                        }
                        continue;
                    }
                    let taps = taken[c * F::ALL_TAPS * I::LANES..][..F::ALL_TAPS * I::LANES].as_ptr();
                    let is_first = part + 1 == T::IN_WORD;
                    // SAFETY: there are LANES values for each tap; the results as above.
                    unsafe {
                        both_axes!(
                            isa,
                            filter::<I, F>,
                            [F::TAPS, PATCH],
                            |row, column| isa.load_at(taps.add(filters.tap::<F>(row, column) * I::LANES)),
                            |row, column, x| {
                                let to = to.add((row * PATCH + column) * step);
                                let x = T::factor(isa, x);
                                isa.store_at(to, if is_first { x } else { isa.pair_bf16(x, isa.load_at(to)) });
                            }
                        );
                    }
                }
            }
        }
    }
}
