//! The weight gradient of a depthwise convolution: for each tap and channel a sum over pixels, vectors of channels, rows of pixels.

use super::Geometry;
use super::algorithm::DepthwiseBlocks;
use super::depthwise::{Neighbours, channels_innermost, neighbours, view, walk};
use super::depthwise_row::{CHAINS, GradRow, Walk, grad_row};
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
            for c in (0..depth).step_by(I::LANES) {
                let lanes = I::LANES.min(depth - c);
                for kernel_row in 0..self.kernel[0] {
                    for group in &groups {
                        let taps = Taps { walk: &walk, group, kernel_row, channel: c, lanes };
                        // SAFETY: the walk was made for these groups, whose kernel columns exist.
                        unsafe { self.add_group(isa, &taps, &pixels, &mut result) };
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

/// Neighbouring taps of one kernel row and a vector of channels.
struct Taps<'a> {
    walk: &'a Walk,
    group: &'a Neighbours,
    kernel_row: usize,
    /// The first channel within the task.
    channel: usize,
    lanes: usize,
}

impl Task<'_> {
    /// Adds the sums over the pixels to `result`.
    ///
    /// # Safety
    /// The taps must be those of the task's plan.
    #[inline(always)]
    unsafe fn add_group<I: Isa>(&self, isa: I, taps: &Taps, pixels: &Pixels, result: &mut [f32]) {
        macro_rules! case {
            ($kw:literal, $s:literal) => {
                if taps.lanes == I::LANES {
                    // SAFETY: the caller's promise.
                    unsafe { self.add_taps::<I, $kw, $s, false>(isa, taps, pixels, result) }
                } else {
                    // SAFETY: the caller's promise.
                    unsafe { self.add_taps::<I, $kw, $s, true>(isa, taps, pixels, result) }
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

    /// # Safety
    /// As [`add_group`](Self::add_group); `KW` and `S` must belong to the walk.
    #[inline(always)]
    unsafe fn add_taps<I: Isa, const KW: usize, const S: usize, const PART: bool>(
        &self,
        isa: I,
        taps: &Taps,
        pixels: &Pixels,
        result: &mut [f32],
    ) {
        let plan = self.plan;
        let (channel, depth) = (self.channels.start + taps.channel, self.channels.len());
        let ([n_step, _, h_step, _], [dy_n_step, _, dy_h_step, _]) = (self.x.1, self.dy.1);
        let mut sums = [[isa.zero(); KW]; CHAINS];
        // The first pass over a band fetches the next one, in the order in which this one is read.
        let is_first = taps.kernel_row == 0 && taps.group.column == taps.walk.columns[0];
        let ahead = match (is_first, pixels.rows.len() == plan.rows.output) {
            (false, _) => [0; 2],
            (true, true) => [pixels.images.len() * n_step, pixels.images.len() * dy_n_step],
            (true, false) => [pixels.rows.len() * plan.rows.source_step * h_step, pixels.rows.len() * dy_h_step],
        };
        for n in pixels.images.clone() {
            for h in pixels.rows.clone() {
                let offset = plan.rows.phases[0].taps[taps.kernel_row].offset;
                let row = plan.rows.origin + (h * plan.rows.source_step + offset) as isize;
                if row < 0 || row as usize >= plan.rows.source {
                    continue;
                }
                let row = GradRow {
                    walk: taps.walk,
                    source: self.x.0[n * n_step + row as usize * h_step + channel..].as_ptr(),
                    column: taps.group.column,
                    dy: self.dy.0[n * dy_n_step + h * dy_h_step + channel..].as_ptr(),
                    lanes: taps.lanes,
                    ahead,
                };
                // SAFETY: both rows exist; columns are checked or inside.
                sums = unsafe { grad_row::<I, KW, S, PART>(isa, &row, sums) };
            }
        }
        let [a, b, c, d] = sums;
        for (tap, kernel_column) in taps.group.kernel.iter().take(KW).enumerate() {
            let sum = isa.add(isa.add(a[tap], b[tap]), isa.add(c[tap], d[tap]));
            let at = (taps.kernel_row * self.kernel[1] + kernel_column) * depth + taps.channel;
            let to = &mut result[at..at + taps.lanes];
            isa.store_part(to, isa.add(isa.load_part(to), sum));
        }
    }
}
