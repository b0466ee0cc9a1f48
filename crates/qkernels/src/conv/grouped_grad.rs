//! The weight gradient of a convolution in small groups: for each tap and each rotation of a group a sum over pixels, vectors of channels.
//!
//! As in the forward pass, lane `i` of a group meets lane `i + r` for each rotation `r`. Here the output gradients are turned, once a row, and serve all taps.

use super::Geometry;
use super::algorithm::DepthwiseBlocks;
use super::depthwise::{load, view};
use super::plan::Plan;
use super::stage::Scratch;
use super::unroll::unrolled;
use crate::isa::{self, Isa, Kernel, rotation_in_groups};
use crate::layout::channels_innermost;
use crate::par;
use qtensor::{Result, Tensor};
use std::ops::Range;

/// The gradient with respect to the weights, `[O, C/groups, KH, KW]`, row-major.
///
/// # Errors
/// A size overflows.
pub(super) fn weight_grad(x: &Tensor, dy: &Tensor, g: &Geometry) -> Result<Tensor> {
    let (x, dy) = (channels_innermost(x)?, channels_innermost(dy)?);
    let plan = Plan::forward(g);
    let blocks = DepthwiseBlocks::of_channels(&plan, g.channels);
    let bands = g.out[0].div_ceil(blocks.rows) * g.batch.div_ceil(blocks.images);
    let sums = blocks.sums(g.channels, bands);
    let (taps, depth) = (g.kernel[0] * g.kernel[1], g.channels / g.groups);
    let (x, dy) = (view(&x)?, view(&dy)?);
    let share = bands.div_ceil(sums);
    let parts = par::map(sums, |part| {
        let bands = (part * share).min(bands)..((part + 1) * share).min(bands);
        isa::dispatch(Task { g, plan: &plan, blocks, x, dy, bands, taps, depth })
    });
    let mut values = vec![0.0f32; g.filters * depth * taps];
    let lanes = g.channels;
    for part in &parts {
        for (place, row) in part.chunks_exact(lanes).enumerate() {
            let (tap, rotation) = (place / depth, place % depth);
            for (channel, value) in row.iter().enumerate() {
                let (group, from) = (channel / depth, channel % depth);
                let filter = group * depth + (from + rotation) % depth;
                values[(filter * depth + from) * taps + tap] += value;
            }
        }
    }
    Tensor::from_vec(g.weights_shape(), values)
}

struct Task<'a> {
    g: &'a Geometry,
    plan: &'a Plan,
    blocks: DepthwiseBlocks,
    x: (&'a [f32], [usize; 4]),
    dy: (&'a [f32], [usize; 4]),
    bands: Range<usize>,
    taps: usize,
    /// Channels of a group.
    depth: usize,
}

/// One row of pixels for one vector of channels.
struct Row<'a> {
    /// The vector's first channel of column 0 of the source row.
    source: *const f32,
    /// The output gradients of each pixel, turned by each rotation.
    turned: &'a [f32],
    /// Source pixels from one output pixel to the next, and of a row; the source column of kernel column 0 for output 0; source pixels between kernel columns.
    stride: usize,
    width: usize,
    origin: isize,
    dilation: usize,
    /// Elements from one source pixel to the next.
    step: usize,
    pixels: usize,
    lanes: usize,
}

impl Kernel for Task<'_> {
    /// For each tap and rotation a row of channels.
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        match self.depth {
            2 => self.sums::<I, 2>(isa),
            4 => self.sums::<I, 4>(isa),
            _ => self.sums::<I, 8>(isa),
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn sums<I: Isa, const D: usize>(&self, isa: I) -> Vec<f32> {
        let Task { g, plan, blocks, .. } = self;
        let row_bands = plan.rows.output.div_ceil(blocks.rows);
        let mut result = vec![0.0f32; self.taps * D * g.channels];
        let mut scratch = Scratch::new();
        let size = g.out[1] * D * I::LANES;
        let turned = &mut scratch.take(size)[..size];
        for band in self.bands.clone() {
            let (n, h) = (band / row_bands * blocks.images, band % row_bands * blocks.rows);
            for n in n..(n + blocks.images).min(plan.batch) {
                for h in h..(h + blocks.rows).min(plan.rows.output) {
                    for c in (0..g.channels).step_by(I::LANES) {
                        let lanes = I::LANES.min(g.channels - c);
                        let dy = &self.dy.0[n * self.dy.1[0] + h * self.dy.1[2] + c..];
                        turn::<I, D>(isa, dy, [self.dy.1[3], lanes], turned);
                        for kernel_row in 0..g.kernel[0] {
                            let Some(row) = g.input_row(h, kernel_row) else { continue };
                            let row = Row {
                                source: self.x.0[n * self.x.1[0] + row * self.x.1[2] + c..].as_ptr(),
                                turned,
                                stride: g.stride[1],
                                width: g.input[1],
                                origin: -(g.padding[1] as isize),
                                dilation: g.dilation[1],
                                step: self.x.1[3],
                                pixels: g.out[1],
                                lanes,
                            };
                            let first = kernel_row * g.kernel[1] * D * g.channels + c;
                            self.row::<I, D>(isa, &row, &mut result[first..]);
                        }
                    }
                }
            }
        }
        result
    }

    /// Adds the products of a row, which must be readable for the vector's channels, for all kernel columns.
    #[inline(always)]
    fn row<I: Isa, const D: usize>(&self, isa: I, row: &Row, result: &mut [f32]) {
        let mut column = 0;
        while column < self.g.kernel[1] {
            let left = self.g.kernel[1] - column;
            let result = &mut result[column * D * self.g.channels..];
            let channels = self.g.channels;
            match (left >= 3, row.lanes == I::LANES) {
                (true, true) => isa.outline(Columns::<D, 3, false> { row, column, channels, result }),
                (true, false) => isa.outline(Columns::<D, 3, true> { row, column, channels, result }),
                (false, true) => isa.outline(Columns::<D, 1, false> { row, column, channels, result }),
                (false, false) => isa.outline(Columns::<D, 1, true> { row, column, channels, result }),
            }
            column += if left >= 3 { 3 } else { 1 };
        }
    }
}

/// `T` neighbouring kernel columns and a row that is readable for the vector's channels.
struct Columns<'a, const D: usize, const T: usize, const PART: bool> {
    row: &'a Row<'a>,
    column: usize,
    /// Elements from one row of the result to the next.
    channels: usize,
    result: &'a mut [f32],
}

impl<const D: usize, const T: usize, const PART: bool> Kernel for Columns<'_, D, T, PART> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Columns { row, column, channels, result } = self;
        // SAFETY: the row is as the struct says.
        unsafe { columns::<I, D, T, PART>(isa, row, column, channels, result) }
    }
}

/// Adds the products of `T` neighbouring kernel columns to rows of `channels`.
///
/// # Safety
/// The row must be readable for the vector's channels.
#[inline(always)]
unsafe fn columns<I: Isa, const D: usize, const T: usize, const PART: bool>(
    isa: I,
    row: &Row,
    column: usize,
    channels: usize,
    result: &mut [f32],
) {
    let mut sums = [[isa.zero(); D]; T];
    for (pixel, turned) in row.turned.chunks_exact(D * I::LANES).take(row.pixels).enumerate() {
        let first = row.origin + (pixel * row.stride + column * row.dilation) as isize;
        let mut inputs = [isa.zero(); T];
        for (t, x) in inputs.iter_mut().enumerate() {
            let at = (first + (t * row.dilation) as isize) as usize;
            if at < row.width {
                // SAFETY: the column is inside the row.
                *x = unsafe { load::<I, PART>(isa, row.source.add(at * row.step), row.lanes) };
            }
        }
        unrolled!(ROTATION in [0 1 2 3 4 5 6 7] if ROTATION < D => {
            let grad = isa.load(&turned[ROTATION * I::LANES..]);
            for (sums, x) in sums.iter_mut().zip(&inputs) {
                sums[ROTATION] = isa.fma(*x, grad, sums[ROTATION]);
            }
        });
    }
    for (place, sum) in sums.iter().flatten().enumerate() {
        let to = &mut result[place * channels..][..row.lanes];
        isa.store_part(to, isa.add(isa.load_part(to), *sum));
    }
}

/// For each pixel of a row of output gradients and each rotation `r`: lane `i` of a group of `D` gets the gradient of lane `i + r`.
#[inline(always)]
fn turn<I: Isa, const D: usize>(isa: I, dy: &[f32], [step, lanes]: [usize; 2], turned: &mut [f32]) {
    for (pixel, to) in turned.chunks_exact_mut(D * I::LANES).enumerate() {
        let x = isa.load_part(&dy[pixel * step..][..lanes]);
        isa.store(to, x);
        unrolled!(ROTATION in [1 2 3 4 5 6 7] if ROTATION < D => {
            isa.store(&mut to[ROTATION * I::LANES..], isa.permute(x, const { &rotation_in_groups(D, ROTATION) }));
        });
    }
}
