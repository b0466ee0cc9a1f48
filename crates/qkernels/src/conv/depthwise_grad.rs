//! The weight gradient of a depthwise convolution: for each tap and channel a sum over pixels, vectors of channels.

use super::Geometry;
use super::algorithm::DepthwiseBlocks;
use super::depthwise::load;
use super::plan::Plan;
use super::stage::{Band, Images, Scratch, stage};
use crate::isa::{self, Isa, Kernel};
use crate::par;
use qtensor::{Result, Tensor};
use std::ops::Range;

/// The gradient with respect to the weights, `[C, 1, KH, KW]`, row-major.
///
/// # Errors
/// A size overflows.
pub(super) fn weight_grad(x: &Tensor, dy: &Tensor, g: &Geometry) -> Result<Tensor> {
    let dy = if dy.strides()[1] == 1 { dy.clone() } else { dy.to_channels_last() };
    let plan = Plan::forward(g);
    let blocks = DepthwiseBlocks::of(&plan);
    let bands = g.out[0].div_ceil(blocks.rows) * g.batch.div_ceil(blocks.images);
    let sums = blocks.sums(g.channels, bands);
    let taps = g.kernel[0] * g.kernel[1];
    let (x, dy) = (Images::new(x)?, Images::new(&dy)?);
    let pieces = g.channels.div_ceil(blocks.channels);
    let parts = par::map(pieces * sums, |task| {
        let first = task / sums * blocks.channels;
        let channels = first..(first + blocks.channels).min(g.channels);
        let share = bands.div_ceil(sums);
        let part = task % sums;
        let bands = (part * share).min(bands)..((part + 1) * share).min(bands);
        isa::dispatch(Task { plan: &plan, blocks, x, dy, channels, bands, taps })
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
    x: Images<'a>,
    dy: Images<'a>,
    channels: Range<usize>,
    bands: Range<usize>,
    taps: usize,
}

/// Pixels of a band for one vector of channels: images, rows, columns, and the steps between them in input and output gradient.
struct Walk {
    pixels: [usize; 3],
    x: *const f32,
    x_steps: [usize; 3],
    dy: *const f32,
    dy_steps: [usize; 3],
    lanes: usize,
}

impl Kernel for Task<'_> {
    /// A row of the task's channels for each tap.
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let plan = self.plan;
        let depth = self.channels.len();
        let row_bands = plan.rows.output.div_ceil(self.blocks.rows);
        let mut result = vec![0.0f32; self.taps * depth];
        let mut scratch = Scratch::new();
        for band in self.bands.clone() {
            let (n, h) = (band / row_bands * self.blocks.images, band % row_bands * self.blocks.rows);
            let images = n..(n + self.blocks.images).min(plan.batch);
            let height = self.blocks.rows.min(plan.rows.output - h);
            let source = Band {
                images: images.clone(),
                first_row: plan.rows.origin + (h * plan.rows.source_step) as isize,
                rows: plan.rows.span(height),
                columns: plan.columns.span(plan.columns.output),
                channels: self.channels.clone(),
            };
            let (steps, size) = source.layout();
            let staged = scratch.take(size);
            stage(isa, self.x, &source, [&plan.rows, &plan.columns], staged);
            let (rows, columns) = (&plan.rows.phases[0].taps, &plan.columns.phases[0].taps);
            let offsets: Vec<usize> = rows
                .iter()
                .flat_map(|r| columns.iter().map(|c| r.offset * steps.row + c.offset * steps.pixel))
                .collect();
            let [n_step, _, h_step, w_step] = self.dy.strides;
            for c in (0..depth).step_by(I::LANES) {
                let walk = Walk {
                    pixels: [images.len(), height, plan.columns.output],
                    x: staged[c..].as_ptr(),
                    x_steps: [steps.image, steps.row * plan.rows.source_step, steps.pixel * plan.columns.source_step],
                    // SAFETY: the band's first output pixel and this channel exist.
                    dy: unsafe { self.dy.start().add(n * n_step + h * h_step + self.channels.start + c) },
                    dy_steps: [n_step, h_step, w_step],
                    lanes: I::LANES.min(depth - c),
                };
                // SAFETY: the staged band covers all taps of its output pixels.
                unsafe {
                    if walk.lanes == I::LANES {
                        all_taps::<I, false>(isa, &walk, &offsets, &mut result[c..], depth);
                    } else {
                        all_taps::<I, true>(isa, &walk, &offsets, &mut result[c..], depth);
                    }
                }
            }
        }
        result
    }
}

/// Adds to `result`, one row of `width` channels for each tap.
///
/// # Safety
/// All pixels must be readable at all offsets.
#[inline(always)]
unsafe fn all_taps<I: Isa, const PART: bool>(isa: I, walk: &Walk, offsets: &[usize], result: &mut [f32], width: usize) {
    let (mut rest, mut done) = (offsets, 0);
    macro_rules! groups {
        ($($count:literal)*) => {$(
            while let Some((now, later)) = rest.split_first_chunk::<$count>() {
                // SAFETY: the caller's promise.
                let sums = unsafe { some_taps::<I, $count, PART>(isa, walk, now) };
                for (t, sum) in sums.into_iter().enumerate() {
                    let at = (done + t) * width;
                    let to = &mut result[at..at + walk.lanes];
                    isa.store_part(to, isa.add(isa.load_part(to), sum));
                }
                done += $count;
                rest = later;
            }
        )*};
    }
    groups!(9 5 3 1);
}

/// # Safety
/// As [`all_taps`].
#[inline(always)]
unsafe fn some_taps<I: Isa, const T: usize, const PART: bool>(
    isa: I,
    walk: &Walk,
    offsets: &[usize; T],
) -> [I::F32; T] {
    let mut sums = [isa.zero(); T];
    let [images, height, width] = walk.pixels;
    // SAFETY: the caller's promise.
    unsafe {
        for n in 0..images {
            for h in 0..height {
                let x = walk.x.add(n * walk.x_steps[0] + h * walk.x_steps[1]);
                let dy = walk.dy.add(n * walk.dy_steps[0] + h * walk.dy_steps[1]);
                for w in 0..width {
                    let grad = load::<I, PART>(isa, dy.add(w * walk.dy_steps[2]), walk.lanes);
                    let x = x.add(w * walk.x_steps[2]);
                    for (sum, offset) in sums.iter_mut().zip(offsets) {
                        *sum = isa.fma(load::<I, PART>(isa, x.add(*offset), walk.lanes), grad, *sum);
                    }
                }
            }
        }
    }
    sums
}
