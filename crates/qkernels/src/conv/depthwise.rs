//! Depthwise convolution and its input gradient: one filter a channel, vectors of channels, rows of pixels.
//!
//! The source is read where it is: taps in the padding are skipped, so no padded copy is made.

use super::algorithm::DepthwiseBlocks;
use super::depthwise_row::{Group, Row, Walk, shares_loads};
use super::plan::{Axis, AxisPhase, Plan, Tap};
use crate::Activation;
use crate::isa::{self, Isa, Kernel};
use crate::layout::channels_innermost;
use crate::par::{self, SharedOut};
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// A correlation of every channel with its own filter.
pub(super) struct Depthwise<'a> {
    /// With one channel a group.
    pub(super) plan: Plan,
    pub(super) source: &'a Tensor,
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
        let source = channels_innermost(self.source)?;
        let filters = tap_major(self.weights)?;
        let shape = [plan.batch, plan.groups, plan.rows.output, plan.columns.output];
        let mut output = Tensor::empty_channels_last(shape, DType::F32)?;
        let out = SharedOut::new(output.memory_mut::<f32>()?);
        let row_bands = plan.rows.longest().div_ceil(blocks.rows);
        let bands = plan.batch.div_ceil(blocks.images) * row_bands;
        let pieces = plan.groups.div_ceil(blocks.channels);
        let (buffer, [n, _, h, w]) = view(&source)?;
        par::for_each(bands * pieces, |task| {
            let (band, channels) = (task / pieces, task % pieces * blocks.channels);
            let (images, rows) = (band / row_bands * blocks.images, band % row_bands * blocks.rows);
            isa::dispatch(Task {
                work: self,
                source: buffer,
                steps: [n, h, w],
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

/// A rank-4 tensor from its first element on, and its strides.
pub(super) fn view(x: &Tensor) -> Result<(&[f32], [usize; 4])> {
    let mut strides = [0; 4];
    strides.copy_from_slice(x.strides());
    Ok((&x.buffer_slice::<f32>()?[x.layout().offset()..], strides))
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
    source: &'a [f32],
    /// Elements of the source to the next image, row and pixel.
    steps: [usize; 3],
    /// A row of channels for each tap.
    filters: &'a [f32],
    images: Range<usize>,
    rows: Range<usize>,
    channels: Range<usize>,
    out: SharedOut<f32>,
}

/// Taps of a kernel row that share their loads.
pub(super) struct Neighbours {
    /// Kernel columns in the order of their source columns.
    pub(super) kernel: Vec<usize>,
    /// The source column of the first for output 0.
    pub(super) column: isize,
}

/// All taps of a row together where a kernel shares their loads, one by one elsewhere.
pub(super) fn neighbours(axis: &Axis, taps: &[Tap]) -> Vec<Neighbours> {
    let are_next = taps.windows(2).all(|pair| pair[1].offset == pair[0].offset + 1);
    let at_once = if are_next && shares_loads(taps.len(), axis.source_step) { taps.len() } else { 1 };
    let column = |tap: &Tap| axis.origin + tap.offset as isize;
    let group = |taps: &[Tap]| Neighbours { kernel: taps.iter().map(|t| t.kernel).collect(), column: column(&taps[0]) };
    taps.chunks(at_once).map(group).collect()
}

/// The walk along a phase of a row.
pub(super) fn walk(axis: &Axis, phase: &AxisPhase, groups: &[Neighbours], steps: [usize; 2]) -> Walk {
    let columns = groups.iter().map(|g| g.column);
    Walk {
        taps: groups.first().map_or(1, |g| g.kernel.len()),
        stride: axis.source_step,
        width: axis.source,
        pixels: phase.count,
        steps,
        columns: [columns.clone().min().unwrap_or(0), columns.max().unwrap_or(0)],
    }
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plan = &self.work.plan;
        let [n_step, h_step, w_step] = self.steps;
        let depth = self.channels.len();
        // The filters of this task and one phase, in the order in which the rows meet them.
        let mut filters: Vec<f32> = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for (rows, columns) in plan.phases() {
            let taps = neighbours(&plan.columns, &columns.taps);
            let walk = walk(&plan.columns, columns, &taps, [w_step, plan.columns.step * plan.groups]);
            filters.clear();
            let kernel_columns = self.work.weights.shape()[3];
            for row in &rows.taps {
                for column in &columns.taps {
                    let tap = row.kernel * kernel_columns + column.kernel;
                    filters.extend_from_slice(&self.filters[tap * plan.groups..][self.channels.clone()]);
                }
            }
            for image in self.images.clone() {
                for h in self.rows.start..self.rows.end.min(rows.count) {
                    groups.clear();
                    for (r, tap) in rows.taps.iter().enumerate() {
                        let Some(source_row) = plan.rows.source_of(h, tap) else { continue };
                        let source = self.source[image * n_step + source_row * h_step + self.channels.start..].as_ptr();
                        groups.extend(taps.iter().enumerate().map(|(g, group)| Group {
                            source,
                            column: group.column,
                            weights: filters[(r * columns.taps.len() + g * walk.taps) * depth..].as_ptr(),
                        }));
                    }
                    let line = (image * plan.rows.output + rows.first + h * plan.rows.step) * plan.columns.output;
                    let to = (line + columns.first) * plan.groups + self.channels.start;
                    let next = plan.rows.origin + ((h + 1) * plan.rows.source_step + plan.rows.reach) as isize - 1;
                    let ahead = self
                        .source
                        .as_ptr()
                        .wrapping_add(image * n_step + self.channels.start)
                        .wrapping_offset(next * h_step as isize);
                    let down = plan.rows.step * plan.columns.output * plan.groups;
                    // SAFETY: this pixel and channel exist.
                    let output = unsafe { self.out.at(to) };
                    isa.outline(Row {
                        walk: &walk,
                        groups: &groups,
                        channels: depth,
                        output,
                        bias: self.work.bias.map_or(std::ptr::null(), |b| b[self.channels.start..].as_ptr()),
                        activation: self.work.activation,
                        ahead: [ahead, ahead.wrapping_sub(h_step), output.cast_const().wrapping_add(down)],
                    });
                }
            }
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
