//! The driver of the weight gradient: blocks of input channels by blocks of filters, each summed over a few parts of the batch.

use super::Geometry;
use super::algorithm::GradBlocks;
use super::outer::{Outer, Segment, Side, outer};
use super::plan::Plan;
use super::stage::{Band, Images, Scratch, Steps, stage};
use crate::isa::{self, Isa, Kernel};
use crate::layout::{channels_innermost, not_batch_innermost};
use crate::par::{self, SharedOut};
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// The gradient with respect to the weights, row-major.
///
/// # Errors
/// A size overflows.
pub(super) fn weight_grad(x: &Tensor, dy: &Tensor, g: &Geometry) -> Result<Tensor> {
    let (x, dy) = (not_batch_innermost(x)?, channels_innermost(dy)?);
    let plan = Plan::forward(g);
    let blocks = GradBlocks::of(&plan, isa::current());
    let grid = Grid::new(&plan, blocks, g);
    let mut partial = Tensor::empty([grid.count() * blocks.sums, grid.size()], DType::F32)?;
    let out = SharedOut::new(partial.memory_mut::<f32>()?);
    let (x, dy) = (Images::new(&x)?, Images::new(&dy)?);
    par::for_each(grid.count() * blocks.sums, |task| {
        let block = grid.block(task / blocks.sums);
        isa::dispatch(Task { plan: &plan, grid: &grid, x, dy, block, part: task % blocks.sums, task, out });
    });
    let mut dw = Tensor::empty([g.filters, plan.source_channels, g.kernel[0], g.kernel[1]], DType::F32)?;
    let to = SharedOut::new(dw.memory_mut::<f32>()?);
    let partial = partial.memory::<f32>()?;
    let stripes = grid.stripes();
    par::for_each(grid.count() * stripes, |i| {
        let (block, stripe) = (i / stripes, i % stripes);
        let parts = &partial[block * blocks.sums * grid.size()..][..blocks.sums * grid.size()];
        // SAFETY: every block and stripe has its own filters and channels.
        unsafe { grid.finish(&grid.block(block), stripe, parts, to) };
    });
    Ok(dw)
}

/// How the weights are divided.
struct Grid {
    blocks: GradBlocks,
    groups: usize,
    /// Of a group.
    channels: usize,
    filters: usize,
    kernel: [usize; 2],
}

/// Filters and channels of a group.
struct Block {
    group: usize,
    channels: Range<usize>,
    filters: Range<usize>,
}

impl Grid {
    fn new(plan: &Plan, blocks: GradBlocks, g: &Geometry) -> Grid {
        Grid { blocks, groups: g.groups, channels: plan.source_channels, filters: plan.channels, kernel: g.kernel }
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Elements of the largest block.
    fn size(&self) -> usize {
        self.blocks.channels * self.blocks.filters * self.taps()
    }

    fn count(&self) -> usize {
        self.groups * self.channels.div_ceil(self.blocks.channels) * self.filters.div_ceil(self.blocks.filters)
    }

    fn block(&self, i: usize) -> Block {
        let (across, down) = (self.channels.div_ceil(self.blocks.channels), self.filters.div_ceil(self.blocks.filters));
        let (c, f) = (i % across * self.blocks.channels, i / across % down * self.blocks.filters);
        Block {
            group: i / across / down,
            channels: c..(c + self.blocks.channels).min(self.channels),
            filters: f..(f + self.blocks.filters).min(self.filters),
        }
    }

    /// Pieces of a block that are finished in parallel.
    fn stripes(&self) -> usize {
        self.blocks.filters.div_ceil(STRIPE)
    }

    /// Adds the parts of a block in order and writes some of its filters to their places.
    ///
    /// # Safety
    /// `to` must be the whole gradient, and no two threads may take the same stripe of the same block.
    unsafe fn finish(&self, block: &Block, stripe: usize, parts: &[f32], to: SharedOut<f32>) {
        let (depth, taps) = (block.channels.len(), self.taps());
        let filters = stripe * STRIPE..((stripe + 1) * STRIPE).min(block.filters.len());
        let mut sums = vec![0.0f32; depth * taps];
        for filter in filters {
            for (i, part) in parts.chunks_exact(self.size()).enumerate() {
                if self.blocks.lanes_are_inputs {
                    let part = &part[filter * sums.len()..][..sums.len()];
                    sums.iter_mut().zip(part).for_each(|(sum, x)| *sum = if i == 0 { *x } else { *sum + x });
                } else {
                    let rows = part.chunks_exact(block.filters.len()).map(|row| row[filter]);
                    sums.iter_mut().zip(rows).for_each(|(sum, x)| *sum = if i == 0 { x } else { *sum + x });
                }
            }
            let place = block.group * self.filters + block.filters.start + filter;
            let first = (place * self.channels + block.channels.start) * taps;
            // SAFETY: this filter's channels, which belong to this call alone.
            let to = unsafe { std::slice::from_raw_parts_mut(to.at(first), depth * taps) };
            for (c, to) in to.chunks_exact_mut(taps).enumerate() {
                to.iter_mut().zip(sums[c..].iter().step_by(depth)).for_each(|(to, sum)| *to = *sum);
            }
        }
    }
}

/// Filters that are finished together.
const STRIPE: usize = 16;

struct Task<'a> {
    plan: &'a Plan,
    grid: &'a Grid,
    x: Images<'a>,
    dy: Images<'a>,
    block: Block,
    /// Which part of the bands.
    part: usize,
    task: usize,
    out: SharedOut<f32>,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Task { plan, grid, ref block, .. } = self;
        let blocks = grid.blocks;
        let row_bands = plan.rows.output.div_ceil(blocks.rows);
        let bands = row_bands * plan.batch.div_ceil(blocks.images);
        let piece = bands.div_ceil(blocks.sums);
        let mine = (self.part * piece).min(bands)..((self.part + 1) * piece).min(bands);
        // SAFETY: every task has its own `size` elements.
        let result = unsafe { self.out.at(self.task * grid.size()) };
        if mine.is_empty() {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(result, grid.size()) }.fill(0.0);
            return;
        }
        let (depth, filters) = (block.channels.len(), block.filters.len());
        let [n_step, _, h_step, w_step] = self.dy.strides;
        let filter = [Segment { offset: 0, length: filters, place: 0 }];
        let mut scratch = Scratch::new();
        // Each pixel is read once: a copy would not pay.
        let is_direct = grid.taps() == 1 && self.x.strides[1] == 1 && plan.rows.is_inside() && plan.columns.is_inside();
        for band in mine.clone() {
            let (n, h) = (band / row_bands * blocks.images, band % row_bands * blocks.rows);
            let images = n..(n + blocks.images).min(plan.batch);
            let height = blocks.rows.min(plan.rows.output - h);
            let start = block.group * grid.channels + block.channels.start;
            let source = Band {
                images: images.clone(),
                first_row: plan.rows.origin + (h * plan.rows.source_step) as isize,
                rows: plan.rows.span(height),
                columns: plan.columns.span(plan.columns.output),
                channels: start..start + depth,
            };
            let (from, steps) = if is_direct {
                let [image, _, row, pixel] = self.x.strides;
                let skip = n * image + source.first_row as usize * row + plan.columns.origin as usize * pixel + start;
                // SAFETY: the band lies in the image: the only tap never leaves it.
                (unsafe { self.x.start().add(skip) }, Steps { image, row, pixel })
            } else {
                let (steps, size) = source.layout();
                let staged = scratch.take(size);
                stage(isa, self.x, &source, [&plan.rows, &plan.columns], staged);
                (staged.as_ptr(), steps)
            };
            let segments = self.segments(steps, depth);
            let channel = block.group * grid.filters + block.filters.start;
            let dy = Side {
                // SAFETY: the band's first output pixel is in the image.
                start: unsafe { self.dy.start().add(n * n_step + h * h_step + channel) },
                steps: Steps { image: n_step, row: h_step, pixel: w_step },
                segments: &filter,
            };
            let x = Side {
                start: from,
                steps: Steps {
                    image: steps.image,
                    row: steps.row * plan.rows.source_step,
                    pixel: steps.pixel * plan.columns.source_step,
                },
                segments: &segments,
            };
            let (rows, lanes) = if blocks.lanes_are_inputs { (dy, x) } else { (x, dy) };
            let work = Outer {
                rows,
                lanes,
                pixels: [images.len(), height, plan.columns.output],
                result,
                width: if blocks.lanes_are_inputs { depth * grid.taps() } else { filters },
                resume: band > mine.start,
            };
            // SAFETY: the band covers all taps of its output pixels; the result belongs to this task.
            unsafe { outer(isa, &work) };
        }
    }
}

impl Task<'_> {
    /// The staged values under all taps of an output pixel: taps, then channels; taps that touch in memory are one segment.
    fn segments(&self, steps: Steps, depth: usize) -> Vec<Segment> {
        let (rows, columns) = (&self.plan.rows.phases[0].taps, &self.plan.columns.phases[0].taps);
        let mut segments: Vec<Segment> = Vec::new();
        let taps = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        for (tap, (row, column)) in taps.enumerate() {
            let offset = row.offset * steps.row + column.offset * steps.pixel;
            match segments.last_mut() {
                Some(last) if last.offset + last.length == offset => last.length += depth,
                _ => segments.push(Segment { offset, length: depth, place: tap * depth }),
            }
        }
        segments
    }
}
