//! Depthwise convolution and its input gradient: one filter a channel, vectors of channels, a few pixels at once.

use super::algorithm::DepthwiseBlocks;
use super::plan::{AxisPhase, Plan};
use super::stage::{Band, Images, Scratch, Steps, stage};
use crate::Activation;
use crate::isa::{self, Isa, Kernel};
use crate::par::{self, SharedOut};
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// A correlation of every channel with its own filter.
pub(super) struct Depthwise<'a> {
    /// With one channel a group.
    pub(super) plan: Plan,
    pub(super) source: Images<'a>,
    /// `[C, 1, KH, KW]`
    pub(super) weights: &'a Tensor,
    /// One value a channel.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
}

impl Depthwise<'_> {
    /// The result, channels-last.
    ///
    /// # Errors
    /// A size overflows.
    pub(super) fn run(&self) -> Result<Tensor> {
        let plan = &self.plan;
        let blocks = DepthwiseBlocks::of(plan);
        let filters = tap_major(self.weights)?;
        let shape = [plan.batch, plan.groups, plan.rows.output, plan.columns.output];
        let mut output = Tensor::empty_channels_last(shape, DType::F32)?;
        let out = SharedOut::new(output.memory_mut::<f32>()?);
        let row_bands = plan.rows.longest().div_ceil(blocks.rows);
        let bands = plan.batch.div_ceil(blocks.images) * row_bands;
        let pieces = plan.groups.div_ceil(blocks.channels);
        par::for_each(bands * pieces, |task| {
            let (band, channels) = (task / pieces, task % pieces * blocks.channels);
            let (images, rows) = (band / row_bands * blocks.images, band % row_bands * blocks.rows);
            isa::dispatch(Task {
                work: self,
                filters: &filters,
                images: images..(images + blocks.images).min(plan.batch),
                rows: rows..(rows + blocks.rows).min(plan.rows.longest()),
                channels: channels..(channels + blocks.channels).min(plan.groups),
                out,
            });
        });
        Ok(output)
    }
}

/// Weights `[C, 1, KH, KW]` as one row of channels for each tap.
fn tap_major(w: &Tensor) -> Result<Vec<f32>> {
    let (channels, taps) = (w.shape()[0], w.shape()[2] * w.shape()[3]);
    let rows = w.contiguous();
    let rows = rows.as_slice::<f32>()?;
    Ok((0..taps * channels).map(|i| rows[i % channels * taps + i / channels]).collect())
}

/// Some images, rows of all phases, and channels.
struct Task<'a> {
    work: &'a Depthwise<'a>,
    /// A row of channels for each tap.
    filters: &'a [f32],
    images: Range<usize>,
    rows: Range<usize>,
    channels: Range<usize>,
    out: SharedOut<f32>,
}

/// A kernel tap: where its source lies from the position of the pixel, and its first weight.
#[derive(Clone, Copy)]
struct Tap {
    source: usize,
    weights: *const f32,
}

/// A strip of pixels of one output row, and a vector of channels.
struct Strip<'a> {
    source: *const f32,
    /// Elements from one pixel to the next, in the source and in the output.
    steps: [usize; 2],
    output: *mut f32,
    pixels: usize,
    taps: &'a [Tap],
    /// Of the first channel, or null.
    bias: *const f32,
    activation: Activation,
    /// Channels in the vector that exist.
    lanes: usize,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plan = &self.work.plan;
        let band = Band {
            images: self.images.clone(),
            first_row: plan.rows.origin + (self.rows.start * plan.rows.source_step) as isize,
            rows: plan.rows.span(self.rows.len()),
            columns: plan.columns.span(plan.columns.longest()),
            channels: self.channels.clone(),
        };
        let (steps, size) = band.layout();
        let mut scratch = Scratch::new();
        let staged = scratch.take(size);
        stage(isa, self.work.source, &band, [&plan.rows, &plan.columns], staged);
        for (rows, columns) in plan.phases() {
            let taps = self.taps([rows, columns], steps);
            for (n, image) in self.images.clone().enumerate() {
                for (i, row) in (self.rows.start..self.rows.end.min(rows.count)).enumerate() {
                    let from = n * steps.image + i * plan.rows.source_step * steps.row;
                    let line = (image * plan.rows.output + rows.first + row * plan.rows.step) * plan.columns.output;
                    let to = (line + columns.first) * plan.groups + self.channels.start;
                    // SAFETY: the row's pixels and taps lie in the staged band, its outputs belong to this task.
                    unsafe { self.line(isa, &taps, [staged.as_mut_ptr().add(from), self.out.at(to)], columns.count) };
                }
            }
        }
    }
}

impl Task<'_> {
    fn taps(&self, [rows, columns]: [&AxisPhase; 2], steps: Steps) -> Vec<Tap> {
        let plan = &self.work.plan;
        let kernel_columns = self.work.weights.shape()[3];
        let pairs = rows.taps.iter().flat_map(|row| columns.taps.iter().map(move |column| (row, column)));
        pairs
            .map(|(row, column)| {
                let tap = row.kernel * kernel_columns + column.kernel;
                Tap {
                    source: row.offset * steps.row + column.offset * steps.pixel,
                    weights: self.filters[tap * plan.groups + self.channels.start..].as_ptr(),
                }
            })
            .collect()
    }

    /// One row of output pixels, all channels of the task.
    ///
    /// # Safety
    /// All pixels of the row must be readable under all taps, and writable by this thread alone.
    #[inline(always)]
    unsafe fn line<I: Isa>(&self, isa: I, taps: &[Tap], [source, output]: [*mut f32; 2], pixels: usize) {
        let plan = &self.work.plan;
        let depth = self.channels.len();
        let bias = self.work.bias.map_or(std::ptr::null(), |b| b[self.channels.start..].as_ptr());
        for c in (0..depth).step_by(I::LANES) {
            let lanes = I::LANES.min(depth - c);
            // SAFETY: channel `c` exists.
            let strip = unsafe {
                Strip {
                    source: source.add(c),
                    steps: [plan.columns.source_step * depth, plan.columns.step * plan.groups],
                    output: output.add(c),
                    pixels,
                    taps,
                    bias: if bias.is_null() { bias } else { bias.add(c) },
                    activation: self.work.activation,
                    lanes,
                }
            };
            // SAFETY: the caller's promise.
            unsafe {
                if lanes == I::LANES {
                    pixels_of::<I, false>(isa, &strip, c);
                } else {
                    pixels_of::<I, true>(isa, &strip, c);
                }
            }
        }
    }
}

/// # Safety
/// As [`Task::line`]; `channel` is the vector's first channel in the task.
#[inline(always)]
unsafe fn pixels_of<I: Isa, const PART: bool>(isa: I, strip: &Strip, channel: usize) {
    let mut done = 0;
    macro_rules! tiles {
        ($($count:literal)*) => {$(
            while strip.pixels - done >= $count {
                // SAFETY: the caller's promise.
                unsafe { tile::<I, $count, PART>(isa, strip, done, channel) };
                done += $count;
            }
        )*};
    }
    tiles!(8 4 2 1);
}

/// # Safety
/// As [`pixels_of`]; pixels `first..first + R` exist.
#[inline(always)]
unsafe fn tile<I: Isa, const R: usize, const PART: bool>(isa: I, strip: &Strip, first: usize, channel: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let start = if strip.bias.is_null() { isa.zero() } else { load::<I, PART>(isa, strip.bias, strip.lanes) };
        let mut sums = [start; R];
        let source = strip.source.add(first * strip.steps[0]);
        for tap in strip.taps {
            let weights = load::<I, PART>(isa, tap.weights.add(channel), strip.lanes);
            let from = source.add(tap.source);
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = isa.fma(load::<I, PART>(isa, from.add(r * strip.steps[0]), strip.lanes), weights, *sum);
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            let y = strip.activation.apply_vector(isa, *sum);
            let to = strip.output.add((first + r) * strip.steps[1]);
            if PART { isa.store_part_at(to, strip.lanes, y) } else { isa.store_at(to, y) }
        }
    }
}

/// A vector, or its first `count` lanes.
///
/// # Safety
/// They must be readable.
#[inline(always)]
pub(super) unsafe fn load<I: Isa, const PART: bool>(isa: I, from: *const f32, count: usize) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe { if PART { isa.load_part_at(from, count) } else { isa.load_at(from) } }
}
