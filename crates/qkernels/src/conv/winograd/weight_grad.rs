//! The weight gradient: `Gᵀ [Σ (Bᵀ d B) ⊙ (A dy Aᵀ)] G`, summed over all tiles at the points, so that only one transform back is needed.
//!
//! Channels and filters are cut into blocks whose sums stay near the cache, the tiles into a fixed number of parts, whose sums are added in order.

use super::ahead::Ahead;
use super::outer::Outer;
use super::patches::{Of, Patches, Sum};
use super::tiling::{GradBlocks, Segment, Tiles, point_step};
use super::transform::{Form, PATCH, POINTS, both_axes, filter_grad, unrolled};
use crate::conv::stage::{Images, Scratch};
use crate::isa::{Isa, IsaId, Kernel, Stored, dispatch_on};
use crate::par::{self, SharedOut};
use qtensor::{DType, Result, Tensor};
use std::marker::PhantomData;
use std::ops::Range;

/// Weight gradients of convolutions of one input.
pub(super) struct WeightGrad<'a, T, F> {
    pub(super) form: PhantomData<F>,
    pub(super) batch: usize,
    /// The input, channels-last.
    pub(super) source: Images<'a, T>,
    pub(super) channels: usize,
    pub(super) input: [usize; 2],
    /// Where the taps of the first output begin; negative in the padding.
    pub(super) origin: [isize; 2],
    /// The gradients of the outputs, channels-last.
    pub(super) grads: Vec<Images<'a, T>>,
    pub(super) filters: usize,
    pub(super) output: [usize; 2],
}

impl<T: Stored, F: Form> WeightGrad<'_, T, F> {
    /// One gradient `[O, C, taps, taps]` for each gradient of an output.
    ///
    /// # Errors
    /// A size overflows.
    pub(super) fn run(&self, isa: IsaId) -> Result<Vec<Tensor>> {
        let tiles = Tiles::new(self.batch, self.output, F::TILE);
        let vector = isa.lanes();
        let blocks = GradBlocks::new(tiles.count, self.channels, [self.grads.len(), self.filters], vector);
        let step = blocks.size();
        let shape = [self.filters, self.channels, F::TAPS, F::TAPS];
        let mut grads: Vec<Tensor> =
            self.grads.iter().map(|_| Tensor::empty(shape, DType::F32)).collect::<Result<_>>()?;
        let outs = grads.iter_mut().map(|t| Ok(SharedOut::new(t.memory_mut::<f32>()?)));
        let outs: Vec<SharedOut<f32>> = outs.collect::<Result<_>>()?;
        let finish = |block, start, parts: &[f32]| {
            dispatch_on(isa, Finish { work: self, blocks: &blocks, block, start, parts, step, outs: &outs });
        };
        if blocks.parts == 1 {
            // The sums of all blocks may be larger than any cache: each is finished while it is near.
            par::for_each(blocks.count(), |block| {
                let mut scratch = Scratch::new();
                let sums = &mut scratch.take(POINTS * step)[..POINTS * step];
                let range = 0..tiles.count;
                let part = Part { work: self, blocks: &blocks, block, tiles, range, sums: sums.as_mut_ptr(), step };
                dispatch_on(isa, part);
                (0..blocks.vectors()).for_each(|i| finish(block, i * vector, sums));
            });
            return Ok(grads);
        }
        let tasks = blocks.count() * blocks.parts;
        let mut sums = Tensor::empty([tasks, POINTS * step], DType::F32)?;
        let out = SharedOut::new(sums.memory_mut::<f32>()?);
        par::for_each(tasks, |task| {
            let (block, part) = (task / blocks.parts, task % blocks.parts);
            let piece = tiles.count.div_ceil(blocks.parts);
            let range = (part * piece).min(tiles.count)..((part + 1) * piece).min(tiles.count);
            // SAFETY: every task has its own sums.
            let sums = unsafe { out.at(task * POINTS * step) };
            dispatch_on(isa, Part { work: self, blocks: &blocks, block, tiles, range, sums, step });
        });
        let sums = sums.memory::<f32>()?;
        par::for_each(blocks.count() * blocks.vectors(), |task| {
            let (block, start) = (task / blocks.vectors(), task % blocks.vectors() * vector);
            finish(block, start, &sums[block * blocks.parts * POINTS * step..][..blocks.parts * POINTS * step]);
        });
        Ok(grads)
    }
}

/// The sums of a block over some tiles.
struct Part<'a, T, F> {
    work: &'a WeightGrad<'a, T, F>,
    blocks: &'a GradBlocks,
    block: usize,
    tiles: Tiles,
    range: Range<usize>,
    sums: *mut f32,
    step: usize,
}

impl<T: Stored, F: Form> Kernel for Part<'_, T, F> {
    type Output = ();
    const DOT_PRODUCTS: bool = T::DOT_PRODUCTS;

    /// The caller promises that `sums` has room for all points of the block and that no other thread uses it.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { work, blocks, sums, .. } = self;
        let (channels, segments) = blocks.block(self.block);
        let row = channels.len().next_multiple_of(I::LANES);
        let width = segments.iter().map(|s| s.width(I::LANES)).sum::<usize>();
        if self.range.is_empty() {
            // SAFETY: as promised.
            unsafe { std::slice::from_raw_parts_mut(sums, POINTS * self.step) }.fill(0.0);
        }
        let mut scratch = Scratch::new();
        for first in self.range.clone().step_by(blocks.tiles) {
            let range = first..(first + blocks.tiles).min(self.range.end);
            // The sums run over tiles: two of them share a word in bf16.
            let words = range.len().div_ceil(T::IN_WORD);
            let (input_step, grad_step) = (point_step(words, row), point_step(words, width));
            let (inputs, grads) = scratch.take(POINTS * (input_step + grad_step)).split_at_mut(POINTS * input_step);
            let patches = Patches::<T, F> {
                form: PhantomData,
                images: work.source,
                channels: channels.clone(),
                size: work.input,
                origin: work.origin,
                tiles: self.tiles,
                range: range.clone(),
                to: inputs.as_mut_ptr(),
                row,
                point_step: input_step,
                of: Of::Inputs,
                sum: Sum::Tiles,
            };
            isa.outline(patches.clone());
            let mut lane = 0;
            for segment in segments {
                isa.outline(Patches {
                    images: work.grads[segment.target],
                    channels: segment.filters.clone(),
                    size: work.output,
                    origin: [0; 2],
                    to: grads[lane..].as_mut_ptr(),
                    row: width,
                    point_step: grad_step,
                    of: Of::OutputGrads,
                    ..patches.clone()
                });
                lane += segment.width(I::LANES);
            }
            let next = range.end..(range.end + blocks.tiles).min(self.range.end);
            isa.outline(Products::<T> {
                ahead: self.ahead(next, &channels, segments),
                of: PhantomData,
                inputs,
                grads,
                steps: [input_step, grad_step, self.step],
                outer: Outer {
                    a: inputs.as_ptr(),
                    a_step: row,
                    rows: channels.len(),
                    b: grads.as_ptr(),
                    b_step: width,
                    tiles: words,
                    c: sums,
                    c_step: width,
                    resume: first > self.range.start,
                },
            });
        }
    }
}

impl<T: Stored, F: Form> Part<'_, T, F> {
    /// The inputs and the gradients of the next tiles, where the block has all of their channels.
    fn ahead(&self, next: Range<usize>, channels: &Range<usize>, segments: &[Segment]) -> Ahead {
        let work = self.work;
        let mut ahead = Ahead::default();
        if !Ahead::has_room(POINTS * self.step) {
            return ahead;
        }
        if channels.len() == work.channels {
            ahead.add(work.source.rows(work.input[0], work.origin[0], PATCH), self.tiles, next.clone(), F::TILE);
        }
        for segment in segments.iter().filter(|s| s.filters.len() == work.filters) {
            let grads = work.grads[segment.target].rows(work.output[0], 0, F::TILE);
            ahead.add(grads, self.tiles, next.clone(), F::TILE);
        }
        ahead
    }
}

/// The products of a block of tiles at all points.
struct Products<'a, T> {
    ahead: Ahead,
    of: PhantomData<T>,
    inputs: &'a [f32],
    grads: &'a [f32],
    /// Elements from one point to the next of inputs, gradients and sums.
    steps: [usize; 3],
    outer: Outer,
}

impl<T: Stored> Kernel for Products<'_, T> {
    type Output = ();
    const DOT_PRODUCTS: bool = T::DOT_PRODUCTS;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for point in 0..POINTS {
            self.ahead.fetch(isa, point, POINTS);
            let outer = Outer {
                a: self.inputs[point * self.steps[0]..].as_ptr(),
                b: self.grads[point * self.steps[1]..].as_ptr(),
                c: self.outer.c.wrapping_add(point * self.steps[2]),
                ..self.outer
            };
            // SAFETY: inputs and gradients hold a row for each tile at each point, the sums a row for each channel.
            unsafe { outer.run::<I, T>(isa) };
        }
    }
}

/// Adds the parts of some channels of a block, transforms back, and writes the gradients of their weights.
struct Finish<'a, T, F> {
    work: &'a WeightGrad<'a, T, F>,
    blocks: &'a GradBlocks,
    block: usize,
    /// The first of the block's channels that it finishes: one vector of them.
    start: usize,
    /// The sums of the parts, one after the other.
    parts: &'a [f32],
    step: usize,
    outs: &'a [SharedOut<f32>],
}

impl<T: Stored, F: Form> Kernel for Finish<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (channels, segments) = self.blocks.block(self.block);
        let width = segments.iter().map(|s| s.width(I::LANES)).sum::<usize>();
        let mut scratch = Scratch::new();
        let taken = scratch.take(F::ALL_TAPS * I::LANES * I::LANES);
        let start = self.start;
        let count = I::LANES.min(channels.len().saturating_sub(start));
        if count == 0 {
            return;
        }
        let mut lane = 0;
        for segment in segments {
            for first in segment.filters.clone().step_by(I::LANES) {
                let filters = first..(first + I::LANES).min(segment.filters.end);
                for c in 0..count {
                    let from = (start + c) * width + lane;
                    let to = taken[c * F::ALL_TAPS * I::LANES..][..F::ALL_TAPS * I::LANES].as_mut_ptr();
                    // SAFETY: there are LANES values for each tap.
                    unsafe {
                        both_axes!(
                            isa,
                            filter_grad::<I, F>,
                            [PATCH, F::TAPS],
                            |row, column| self.sum(isa, (row * PATCH + column) * self.step + from),
                            |row, column, x| isa.store_at(to.add((row * F::TAPS + column) * I::LANES), x)
                        );
                    }
                }
                let place = (filters.start * self.work.channels + channels.start + start) * F::ALL_TAPS;
                // SAFETY: these filters and channels lie in the gradient and belong to this block alone.
                unsafe { self.put(isa, taken, [filters.len(), count], self.outs[segment.target].at(place)) };
                lane += I::LANES;
            }
        }
    }
}

impl<T: Stored, F: Form> Finish<'_, T, F> {
    /// The sum of all parts at a place.
    #[inline(always)]
    fn sum<I: Isa>(&self, isa: I, place: usize) -> I::F32 {
        let mut parts = self.parts.chunks_exact(POINTS * self.step);
        let mut sum = parts.next().map_or(isa.zero(), |part| isa.load(&part[place..]));
        for part in parts {
            sum = isa.add(sum, isa.load(&part[place..]));
        }
        sum
    }

    /// Writes the taps of some filters and channels, `taken[(channel * 9 + tap) * LANES + filter]`.
    ///
    /// # Safety
    /// That many values must be writable at `to` for each filter, by this thread alone.
    #[inline(always)]
    unsafe fn put<I: Isa>(&self, isa: I, taken: &[f32], [filters, channels]: [usize; 2], to: *mut f32) {
        let (step, count) = (self.work.channels * F::ALL_TAPS, channels * F::ALL_TAPS);
        let mut done = 0;
        // SAFETY: the caller's promise; `taken` has LANES values for each tap.
        unsafe {
            while filters == I::LANES && done + I::LANES <= count {
                isa.transpose_at(taken[done * I::LANES..].as_ptr(), I::LANES, to.add(done), step);
                done += I::LANES;
            }
            for filter in 0..filters {
                for tap in done..count {
                    *to.add(filter * step + tap) = taken[tap * I::LANES + filter];
                }
            }
        }
    }
}
