//! Convolution in small groups, and its input gradient: 2, 4 or 8 channels of a group to as many.
//!
//! A vector holds whole groups. Lane `i` of a group is multiplied with the weight of its way to lane `i + r`, for each rotation `r` of the group, and the sums of a rotation
//! stay in the lanes of the source: no lane is idle and none moves until the end, when the sums of all rotations are turned to their places and added.

use super::algorithm::DepthwiseBlocks;
use super::depthwise::{load, view};
use super::plan::{AxisPhase, Plan};
use super::unroll::unrolled;
use super::weights::Weights;
use crate::Activation;
use crate::isa::{self, Isa, Kernel, rotation_in_groups};
use crate::layout::channels_innermost;
use crate::par::{self, SharedOut};
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// Sums in registers: pixels by rotations.
const SUMS: usize = 24;

/// Whether groups of that many source channels and outputs fill vectors of `lanes`.
pub(super) fn fits(channels: usize, outputs: usize, lanes: usize) -> bool {
    channels == outputs && matches!(channels, 2 | 4 | 8) && channels <= lanes
}

/// A correlation within small groups of channels.
pub(super) struct Grouped<'a> {
    pub(super) plan: Plan,
    pub(super) source: &'a Tensor,
    pub(super) weights: Weights<'a>,
    /// One value a channel.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
}

impl Grouped<'_> {
    /// The result, channels-last.
    ///
    /// # Errors
    /// A size overflows.
    pub(super) fn run(&self) -> Result<Tensor> {
        let plan = &self.plan;
        let channels = plan.groups * plan.channels;
        let blocks = DepthwiseBlocks::of_channels(plan, channels);
        let lanes = isa::current().lanes();
        let filters = self.pack(lanes);
        let source = channels_innermost(self.source)?;
        let (source, [n, _, h, w]) = view(&source)?;
        let shape = [plan.batch, channels, plan.rows.output, plan.columns.output];
        let mut output = Tensor::empty_channels_last(shape, DType::F32)?;
        let out = SharedOut::new(output.memory_mut::<f32>()?);
        let row_bands = plan.rows.longest().div_ceil(blocks.rows);
        par::for_each(plan.batch.div_ceil(blocks.images) * row_bands, |band| {
            let (images, rows) = (band / row_bands * blocks.images, band % row_bands * blocks.rows);
            isa::dispatch(Task {
                work: self,
                source,
                steps: [n, h, w],
                filters: &filters,
                images: images..(images + blocks.images).min(plan.batch),
                rows: rows..(rows + blocks.rows).min(plan.rows.longest()),
                out,
            });
        });
        Ok(output)
    }

    /// For each phase: for each vector of channels, each tap and each rotation, a vector of weights.
    fn pack(&self, lanes: usize) -> Vec<Vec<f32>> {
        let (plan, depth) = (&self.plan, self.plan.channels);
        let channels = plan.groups * depth;
        let phase = |(rows, columns): (&AxisPhase, &AxisPhase)| {
            let mut packed =
                Vec::with_capacity(channels.next_multiple_of(lanes) * rows.taps.len() * columns.taps.len());
            for first in (0..channels).step_by(lanes) {
                for (row, column) in rows.taps.iter().flat_map(|r| columns.taps.iter().map(move |c| (r, c))) {
                    for rotation in 0..depth {
                        packed.extend((first..first + lanes).map(|channel| {
                            let (group, from) = (channel / depth, channel % depth);
                            let to = (from + rotation) % depth;
                            let tap = [row.kernel, column.kernel];
                            if channel < channels { self.weights.at(group, to, from, tap) } else { 0.0 }
                        }));
                    }
                }
            }
            packed
        };
        plan.phases().map(phase).collect()
    }
}

/// Some images and rows of all phases.
struct Task<'a> {
    work: &'a Grouped<'a>,
    source: &'a [f32],
    /// Elements of the source to the next image, row and pixel.
    steps: [usize; 3],
    /// For each phase.
    filters: &'a [Vec<f32>],
    images: Range<usize>,
    rows: Range<usize>,
    out: SharedOut<f32>,
}

/// A tap of a row of output pixels.
#[derive(Clone, Copy)]
struct Tap {
    /// Channel 0 of column 0 of the source row.
    source: *const f32,
    /// The source column for output 0; negative in the padding.
    column: isize,
    /// The place of the tap among those of its phase.
    index: usize,
}

/// One row of output pixels for one vector of channels.
struct Row<'a> {
    taps: &'a [Tap],
    /// The vector's weights of the first tap and rotation.
    weights: *const f32,
    channel: usize,
    lanes: usize,
    /// Source pixels from one output pixel to the next, and of a row.
    stride: usize,
    width: usize,
    /// Elements from one source pixel to the next, and from one output pixel to the next.
    steps: [usize; 2],
    /// The vector's first channel of the first output pixel.
    output: *mut f32,
    /// The vector's first channel, or null.
    bias: *const f32,
    activation: Activation,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plan = &self.work.plan;
        let (depth, channels) = (plan.channels, plan.groups * plan.channels);
        let [n_step, h_step, w_step] = self.steps;
        let mut taps: Vec<Tap> = Vec::new();
        for ((rows, columns), filters) in plan.phases().zip(self.filters) {
            let vector = rows.taps.len() * columns.taps.len() * depth * I::LANES;
            for image in self.images.clone() {
                for h in self.rows.start..self.rows.end.min(rows.count) {
                    taps.clear();
                    for (r, row) in rows.taps.iter().enumerate() {
                        let Some(source_row) = plan.rows.source_of(h, row) else { continue };
                        let source = self.source[image * n_step + source_row * h_step..].as_ptr();
                        taps.extend(columns.taps.iter().enumerate().map(|(c, column)| Tap {
                            source,
                            column: plan.columns.origin + column.offset as isize,
                            index: r * columns.taps.len() + c,
                        }));
                    }
                    let line = (image * plan.rows.output + rows.first + h * plan.rows.step) * plan.columns.output;
                    let to = (line + columns.first) * channels;
                    for c in (0..channels).step_by(I::LANES) {
                        let row = Row {
                            taps: &taps,
                            weights: filters[c / I::LANES * vector..].as_ptr(),
                            channel: c,
                            lanes: I::LANES.min(channels - c),
                            stride: plan.columns.source_step,
                            width: plan.columns.source,
                            steps: [w_step, plan.columns.step * channels],
                            // SAFETY: this pixel and channel exist.
                            output: unsafe { self.out.at(to + c) },
                            bias: self.work.bias.map_or(std::ptr::null(), |b| b[c..].as_ptr()),
                            activation: self.work.activation,
                        };
                        // The taps' rows exist, columns are checked, the outputs belong to this task.
                        let (row, pixels) = (&row, columns.count);
                        match depth {
                            2 => isa.outline(WholeRow::<2, 8, 4> { row, pixels }),
                            4 => isa.outline(WholeRow::<4, 6, 4> { row, pixels }),
                            _ => isa.outline(WholeRow::<8, 3, 2> { row, pixels }),
                        }
                    }
                }
            }
        }
    }
}

/// All pixels of a row: `P` at a time, then `Q`, then one by one; by a function of its own, so that its choices are not lifted out of the loops around it.
///
/// Source rows, weights and bias must be readable for the vector's channels, the output writable by this thread alone.
struct WholeRow<'a, const D: usize, const P: usize, const Q: usize> {
    row: &'a Row<'a>,
    pixels: usize,
}

impl<const D: usize, const P: usize, const Q: usize> Kernel for WholeRow<'_, D, P, Q> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let WholeRow { row, pixels } = self;
        let mut first = 0;
        // The larger strips only where they leave few single pixels.
        let is_large = pixels % P % Q <= pixels % Q;
        while first < pixels {
            let left = pixels - first;
            let size = if is_large && left >= P {
                P
            } else if left >= Q {
                Q
            } else {
                1
            };
            match (size == P, size == Q, row.lanes == I::LANES) {
                (true, _, true) => isa.outline(Strip::<D, P, false> { row, first }),
                (true, _, false) => isa.outline(Strip::<D, P, true> { row, first }),
                (_, true, true) => isa.outline(Strip::<D, Q, false> { row, first }),
                (_, true, false) => isa.outline(Strip::<D, Q, true> { row, first }),
                (_, _, true) => isa.outline(Strip::<D, 1, false> { row, first }),
                (_, _, false) => isa.outline(Strip::<D, 1, true> { row, first }),
            }
            first += size;
        }
    }
}

/// Output pixels `first..first + P` of a row as [`WholeRow`] promises it: groups of `D` channels.
struct Strip<'a, const D: usize, const P: usize, const PART: bool> {
    row: &'a Row<'a>,
    first: usize,
}

impl<const D: usize, const P: usize, const PART: bool> Kernel for Strip<'_, D, P, PART> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: the row is as the struct says.
        unsafe { strip::<I, D, P, PART>(isa, self.row, self.first) }
    }
}

/// Output pixels `first..first + P`: groups of `D` channels.
///
/// # Safety
/// As [`WholeRow`].
#[inline(always)]
unsafe fn strip<I: Isa, const D: usize, const P: usize, const PART: bool>(isa: I, row: &Row, first: usize) {
    const { assert!(P * D <= SUMS && P <= 8 && D <= 8) };
    let mut sums = [[isa.zero(); D]; P];
    // SAFETY: the caller's promise; columns outside the source row are not read.
    unsafe {
        for tap in row.taps {
            let weights = row.weights.add(tap.index * D * I::LANES);
            let column = tap.column + (first * row.stride) as isize;
            let from = tap.source.wrapping_add(row.channel).wrapping_offset(column * row.steps[0] as isize);
            let mut pixels = [isa.zero(); P];
            unrolled!(ONE in [0 1 2 3 4 5 6 7] if ONE < P => {
                if ((column + (ONE * row.stride) as isize) as usize) < row.width {
                    pixels[ONE] = load::<I, PART>(isa, from.wrapping_add(ONE * row.stride * row.steps[0]), row.lanes);
                }
            });
            unrolled!(ROTATION in [0 1 2 3 4 5 6 7] if ROTATION < D => {
                let weights = isa.load_at(weights.add(ROTATION * I::LANES));
                unrolled!(ONE in [0 1 2 3 4 5 6 7] if ONE < P => {
                    sums[ONE][ROTATION] = isa.fma(pixels[ONE], weights, sums[ONE][ROTATION]);
                });
            });
        }
        let bias = if row.bias.is_null() { isa.zero() } else { load::<I, PART>(isa, row.bias, row.lanes) };
        unrolled!(ONE in [0 1 2 3 4 5 6 7] if ONE < P => {
            let mut sum = isa.add(bias, sums[ONE][0]);
            unrolled!(ROTATION in [1 2 3 4 5 6 7] if ROTATION < D => {
                // Lane `i` takes what lane `i - ROTATION` summed for it.
                sum = isa.add(sum, isa.permute(sums[ONE][ROTATION], const { &rotation_in_groups(D, D - ROTATION % D) }));
            });
            let y = row.activation.apply_vector(isa, sum);
            let to = row.output.add((first + ONE) * row.steps[1]);
            if PART { isa.store_part_at(to, row.lanes, y) } else { isa.store_at(to, y) }
        });
    }
}
