//! The weight gradient of a depthwise convolution: for each tap and channel a sum over pixels, vectors of channels, rows of pixels.

use super::Geometry;
use super::algorithm::DepthwiseBlocks;
use super::depthwise::{Neighbours, neighbours, view, walk};
use super::depthwise_row::{GradRow, Walk, grad_row};
use super::plan::Plan;
use crate::isa::{self, Isa, Kernel};
use crate::layout::channels_innermost;
use crate::par;
use qtensor::{Result, Tensor};
use std::ops::Range;

/// The gradient with respect to the weights, `[C, 1, KH, KW]`, row-major.
///
/// # Errors
/// A size overflows.
pub(super) fn weight_grad(x: &Tensor, dy: &Tensor, g: &Geometry) -> Result<Tensor> {
    let (x, dy) = (channels_innermost(x)?, channels_innermost(dy)?);
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
            let pixels = self.pixels(h..(h + self.blocks.rows).min(plan.rows.output));
            for image in n..(n + self.blocks.images).min(plan.batch) {
                for group in &groups {
                    for pixels in &pixels {
                        let whole = depth / I::LANES * I::LANES;
                        let taps = Taps { walk: &walk, group, image, channels: 0..whole };
                        isa.outline(Groups { task: &self, taps, pixels, result: &mut result });
                        if whole < depth {
                            let taps = Taps { walk: &walk, group, image, channels: whole..depth };
                            isa.outline(Groups { task: &self, taps, pixels, result: &mut result });
                        }
                    }
                }
            }
        }
        result
    }
}

/// Some rows of output gradients, for which the same kernel rows meet the source.
#[derive(Clone)]
struct Pixels {
    rows: Range<usize>,
    /// Neighbours among the kernel rows, at most [`TOGETHER`].
    kernel: Range<usize>,
}

/// Kernel rows that read the gradients together: three have sums enough to hide the latency of an addition.
const TOGETHER: usize = 3;

/// Neighbouring taps of a kernel row, an image, and channels of the task: whole vectors, or less than one.
struct Taps<'a> {
    walk: &'a Walk,
    group: &'a Neighbours,
    image: usize,
    channels: Range<usize>,
}

/// Some rows of an image's output gradients and one group of taps, which must be one of the task's plan.
struct Groups<'a> {
    task: &'a Task<'a>,
    taps: Taps<'a>,
    pixels: &'a Pixels,
    result: &'a mut [f32],
}

impl Kernel for Groups<'_> {
    type Output = ();

    /// Adds the products.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Groups { task, taps, pixels, result } = self;
        macro_rules! case {
            ($kw:literal, $s:literal) => {
                if taps.channels.len() % I::LANES == 0 {
                    task.add_taps::<I, $kw, $s, false>(isa, &taps, pixels, result)
                } else {
                    task.add_taps::<I, $kw, $s, true>(isa, &taps, pixels, result)
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
    /// The parts of a band in which the same kernel rows meet the source.
    fn pixels(&self, rows: Range<usize>) -> Vec<Pixels> {
        let axis = &self.plan.rows;
        let exists = |h: usize, k: usize| axis.source_of(h, &axis.phases[0].taps[k]).is_some();
        let mut parts: Vec<Pixels> = Vec::new();
        for first in (0..self.kernel[0]).step_by(TOGETHER) {
            let begin = parts.len();
            for h in rows.clone() {
                let mut k = first;
                let end = (first + TOGETHER).min(self.kernel[0]);
                while k < end {
                    let count = (k..end).take_while(|k| exists(h, *k)).count();
                    let kernel = k..k + count;
                    match parts[begin..].iter_mut().find(|part| part.rows.end == h && part.kernel == kernel) {
                        _ if count == 0 => {}
                        Some(part) => part.rows.end += 1,
                        None => parts.push(Pixels { rows: h..h + 1, kernel }),
                    }
                    k += count.max(1);
                }
            }
        }
        parts
    }

    /// `KW` and `S` must belong to the walk.
    #[inline(always)]
    fn add_taps<I: Isa, const KW: usize, const S: usize, const PART: bool>(
        &self,
        isa: I,
        taps: &Taps,
        pixels: &Pixels,
        result: &mut [f32],
    ) {
        match pixels.kernel.len() {
            3 => isa.outline(Rows::<3, KW, S, PART> { task: self, taps, pixels, result }),
            2 => isa.outline(Rows::<2, KW, S, PART> { task: self, taps, pixels, result }),
            _ => isa.outline(Rows::<1, KW, S, PART> { task: self, taps, pixels, result }),
        }
    }
}

/// Rows of output gradients and the source rows of `KH` kernel rows; all of them exist, and `KW` and `S` belong to the walk of the taps.
struct Rows<'a, const KH: usize, const KW: usize, const S: usize, const PART: bool> {
    task: &'a Task<'a>,
    taps: &'a Taps<'a>,
    pixels: &'a Pixels,
    result: &'a mut [f32],
}

impl<const KH: usize, const KW: usize, const S: usize, const PART: bool> Kernel for Rows<'_, KH, KW, S, PART> {
    type Output = ();

    /// Adds the products.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Rows { task, taps, pixels, result } = self;
        let depth = task.channels.len();
        let ([n_step, _, h_step, _], [dy_n_step, _, dy_h_step, _]) = (task.x.1, task.dy.1);
        let (axis, k) = (&task.plan.rows, pixels.kernel.start);
        let kernel_rows = &axis.phases[0].taps;
        let Some(first) = axis.source_of(pixels.rows.start, &kernel_rows[k]) else { return };
        let dilation = kernel_rows.get(1).map_or(0, |tap| tap.offset);
        let is_last = k + KH == task.kernel[0] && taps.group.column == taps.walk.columns[0];
        let ahead = if is_last { [axis.source_step * h_step, dy_h_step] } else { [0; 2] };
        let source = task.x.0[taps.image * n_step + first * h_step + task.channels.start..].as_ptr();
        let dy = task.dy.0[taps.image * dy_n_step + pixels.rows.start * dy_h_step + task.channels.start..].as_ptr();
        for c in taps.channels.clone().step_by(I::LANES) {
            let lanes = I::LANES.min(taps.channels.end - c);
            let mut sums = [[isa.zero(); KW]; KH];
            for i in 0..pixels.rows.len() {
                let source = source.wrapping_add(i * axis.source_step * h_step + c);
                let row = GradRow {
                    walk: taps.walk,
                    sources: std::array::from_fn(|row| source.wrapping_add(row * dilation * h_step)),
                    column: taps.group.column,
                    dy: dy.wrapping_add(i * dy_h_step + c),
                    lanes,
                    ahead,
                };
                // SAFETY: the rows exist; columns are checked or inside.
                sums = unsafe { grad_row::<I, KH, KW, S, PART>(isa, &row, sums) };
            }
            for (i, sums) in sums.iter().enumerate() {
                for (sum, kernel_column) in sums.iter().zip(&taps.group.kernel) {
                    let at = ((k + i) * task.kernel[1] + kernel_column) * depth + c;
                    let to = &mut result[at..at + lanes];
                    if PART {
                        isa.store_part(to, isa.add(isa.load_part(to), *sum));
                    } else {
                        isa.store(to, isa.add(isa.load(to), *sum));
                    }
                }
            }
        }
    }
}
