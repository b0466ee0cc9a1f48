//! The weight gradient of a depthwise convolution: for each tap and channel a sum over pixels, vectors of channels, rows of pixels.

use super::Geometry;
use super::algorithm::DepthwiseBlocks;
use super::depthwise::{Neighbours, channels_innermost, neighbours, view, walk};
use super::depthwise_row::{GradRow, Walk, grad_row};
use super::plan::Plan;
use crate::isa::{self, Isa, Kernel};
use crate::par;
use qtensor::{Result, Tensor};
use std::ops::Range;

/// The gradient with respect to the weights, `[C, 1, KH, KW]`, row-major.
///
/// # Errors
/// A size overflows.
pub(super) fn weight_grad(x: &Tensor, dy: &Tensor, g: &Geometry) -> Result<Tensor> {
    let (x, dy) = (channels_innermost(x), channels_innermost(dy));
    let plan = Plan::forward(g);
    let blocks = DepthwiseBlocks::of(&plan);
    let bands = g.out[0].div_ceil(blocks.rows) * g.batch.div_ceil(blocks.images);
    let sums = blocks.sums(g.channels, bands);
    let taps = g.kernel[0] * g.kernel[1];
    let (x, dy) = (view(&x)?, view(&dy)?);
    let pieces = g.channels.div_ceil(blocks.channels);
    let parts = par::map(pieces * sums, |task| {
        let first = task / sums * blocks.channels;
        let channels = first..(first + blocks.channels).min(g.channels);
        let share = bands.div_ceil(sums);
        let part = task % sums;
        let bands = (part * share).min(bands)..((part + 1) * share).min(bands);
        isa::dispatch(Task { plan: &plan, blocks, x, dy, channels, bands, kernel: g.kernel })
    });
    let mut values = vec![0.0f32; g.channels * taps];
    for (task, part) in parts.iter().enumerate() {
        let first = task / sums * blocks.channels;
        let depth = part.len() / taps;
        for (c, to) in values[first * taps..][..part.len()].chunks_exact_mut(taps).enumerate() {
            to.iter_mut().zip(part[c..].iter().step_by(depth)).for_each(|(to, x)| *to += x);
        }
    }
    Tensor::from_vec([g.channels, 1, g.kernel[0], g.kernel[1]], values)
}

struct Task<'a> {
    plan: &'a Plan,
    blocks: DepthwiseBlocks,
    x: (&'a [f32], [usize; 4]),
    dy: (&'a [f32], [usize; 4]),
    channels: Range<usize>,
    bands: Range<usize>,
    kernel: [usize; 2],
}

impl Kernel for Task<'_> {
    /// A row of the task's channels for each tap.
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let plan = self.plan;
        let depth = self.channels.len();
        let row_bands = plan.rows.output.div_ceil(self.blocks.rows);
        let mut result = vec![0.0f32; self.kernel[0] * self.kernel[1] * depth];
        let columns = &plan.columns.phases[0];
        let groups = neighbours(&plan.columns, &columns.taps);
        let walk = walk(&plan.columns, columns, &groups, [self.x.1[3], self.dy.1[3]]);
        for band in self.bands.clone() {
            let (n, h) = (band / row_bands * self.blocks.images, band % row_bands * self.blocks.rows);
            let pixels = Pixels {
                images: n..(n + self.blocks.images).min(plan.batch),
                rows: h..(h + self.blocks.rows).min(plan.rows.output),
            };
            for n in pixels.images {
                for h in pixels.rows.clone() {
                    for c in (0..depth).step_by(I::LANES) {
                        for group in &groups {
                            let taps = Taps { walk: &walk, group, channel: c, lanes: I::LANES.min(depth - c) };
                            isa.outline(Groups { task: &self, taps, at: [n, h], result: &mut result });
                        }
                    }
                }
            }
        }
        result
    }
}

/// Some images and some rows of output gradients.
struct Pixels {
    images: Range<usize>,
    rows: Range<usize>,
}

/// Neighbouring taps of all kernel rows and a vector of channels.
struct Taps<'a> {
    walk: &'a Walk,
    group: &'a Neighbours,
    /// The first channel within the task.
    channel: usize,
    lanes: usize,
}

/// One row of output gradients and one group of taps, which must be one of the task's plan.
struct Groups<'a> {
    task: &'a Task<'a>,
    taps: Taps<'a>,
    /// Image and row of the gradients.
    at: [usize; 2],
    result: &'a mut [f32],
}

impl Kernel for Groups<'_> {
    type Output = ();

    /// Adds the products.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Groups { task, taps, at, result } = self;
        macro_rules! case {
            ($kw:literal, $s:literal) => {
                if taps.lanes == I::LANES {
                    task.add_taps::<I, $kw, $s, false>(isa, &taps, at, result)
                } else {
                    task.add_taps::<I, $kw, $s, true>(isa, &taps, at, result)
                }
            };
        }
        match (taps.walk.taps, taps.walk.stride) {
            (2, 1) => case!(2, 1),
            (3, 1) => case!(3, 1),
            (3, 2) => case!(3, 2),
            (5, 1) => case!(5, 1),
            _ => case!(1, 1),
        }
    }
}

impl Task<'_> {
    /// `KW` and `S` must belong to the walk.
    #[inline(always)]
    fn add_taps<I: Isa, const KW: usize, const S: usize, const PART: bool>(
        &self,
        isa: I,
        taps: &Taps,
        [n, h]: [usize; 2],
        result: &mut [f32],
    ) {
        let rows = &self.plan.rows;
        // Kernel rows whose source row exists are neighbours.
        let source_row = |k: usize| rows.source_of(h, &rows.phases[0].taps[k]);
        let mut k = 0;
        while k < self.kernel[0] {
            let Some(row) = source_row(k) else {
                k += 1;
                continue;
            };
            // Three kernel rows at once read the gradients once, and have sums enough to hide the latency of an addition.
            let three = k + 2 < self.kernel[0] && source_row(k + 2).is_some();
            let at = [n, h, k, row];
            if three {
                isa.outline(Rows::<3, KW, S, PART> { task: self, taps, at, result });
                k += 3;
            } else {
                isa.outline(Rows::<1, KW, S, PART> { task: self, taps, at, result });
                k += 1;
            }
        }
    }
}

/// One row of output gradients and the source rows of `KH` kernel rows; all of them exist, and `KW` and `S` belong to the walk of the taps.
struct Rows<'a, const KH: usize, const KW: usize, const S: usize, const PART: bool> {
    task: &'a Task<'a>,
    taps: &'a Taps<'a>,
    /// Image and row of the gradients, first kernel row, and its source row.
    at: [usize; 4],
    result: &'a mut [f32],
}

impl<const KH: usize, const KW: usize, const S: usize, const PART: bool> Kernel for Rows<'_, KH, KW, S, PART> {
    type Output = ();

    /// Adds the products.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Rows { task, taps, at: [n, h, k, row], result } = self;
        let (channel, depth) = (task.channels.start + taps.channel, task.channels.len());
        let ([n_step, _, h_step, _], [dy_n_step, _, dy_h_step, _]) = (task.x.1, task.dy.1);
        let dilation = task.plan.rows.phases[0].taps.get(1).map_or(0, |tap| tap.offset);
        let source = |i: usize| task.x.0[n * n_step + (row + i * dilation) * h_step + channel..].as_ptr();
        let is_last = k + KH == task.kernel[0] && taps.group.column == taps.walk.columns[0];
        let work = GradRow {
            walk: taps.walk,
            sources: std::array::from_fn(source),
            column: taps.group.column,
            dy: task.dy.0[n * dy_n_step + h * dy_h_step + channel..].as_ptr(),
            lanes: taps.lanes,
            ahead: if is_last { [task.plan.rows.source_step * h_step, dy_h_step] } else { [0; 2] },
        };
        // SAFETY: the rows exist; columns are checked or inside.
        let sums = unsafe { grad_row::<I, KH, KW, S, PART>(isa, &work) };
        for (i, sums) in sums.iter().enumerate() {
            for (sum, kernel_column) in sums.iter().zip(&taps.group.kernel) {
                let at = ((k + i) * task.kernel[1] + kernel_column) * depth + taps.channel;
                let to = &mut result[at..at + taps.lanes];
                if PART {
                    isa.store_part(to, isa.add(isa.load_part(to), *sum));
                } else {
                    isa.store(to, isa.add(isa.load(to), *sum));
                }
            }
        }
    }
}
