//! The gradient of the weights that there are: for each, the sum of products of what it reads and what it goes to.

use super::strips::{CACHE, Strips, Tiling};
use super::tile::{Items, Products, Totals};
use super::walk::Walk;
use crate::{isa, par};
use qtensor::{DType, Result, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// Weights of a task: a vector of sums for each of them should stay in the second-level cache.
const WEIGHTS: usize = 4096;

/// The weight gradient, from the walk of the forward pass.
pub(super) struct WeightGrad<'a> {
    pub(super) walk: &'a Walk,
    pub(super) batch: usize,
    /// The inputs, the batch innermost.
    pub(super) source: &'a [f32],
    /// The gradients of the outputs, the batch innermost.
    pub(super) target: &'a [f32],
}

impl WeightGrad<'_> {
    /// One sum for each of the `weights`, in the order of the pattern; `row` tells which are those of an output. The order of the additions depends on shapes and
    /// the instruction set alone.
    ///
    /// # Errors
    /// There is no room for the sums.
    pub(super) fn run(&self, weights: usize, row: impl Fn(usize) -> Range<usize> + Sync) -> Result<Vec<f32>> {
        let strips = Strips::new(self.walk, self.batch, Tiling::of_floats(), CACHE);
        let cuts: Vec<Cow<[usize]>> = self.walk.lists.iter().map(|list| strips.cuts(list)).collect();
        let tasks = strips.tasks(weights);
        // Cutting the pixels costs a sum over the parts; cutting the channels reads the inputs again.
        let by_cache = weights.div_ceil(WEIGHTS * strips.blocks).max(1);
        let pieces = tasks.div_ceil(by_cache).min(strips.units().div_ceil(4)).max(1);
        let ranges = self.walk.channel_ranges(by_cache.max(tasks.div_ceil(pieces)));
        let parts = par::map(pieces * ranges.len(), |task| {
            let (piece, channels) = (task / ranges.len(), &ranges[task % ranges.len()]);
            let units = piece * strips.units() / pieces..(piece + 1) * strips.units() / pieces;
            self.task((&strips, &cuts), units, channels, row(channels.start).start..row(channels.end - 1).end)
        });
        let mut sums = vec![0.0; weights];
        for (task, part) in parts.into_iter().enumerate() {
            let first = row(ranges[task % ranges.len()].start).start;
            sums[first..].iter_mut().zip(part?).for_each(|(sum, part)| *sum += part);
        }
        Ok(sums)
    }

    /// The sums of some channels, which have these weights, over some units.
    fn task(
        &self,
        (strips, cuts): (&Strips, &[Cow<[usize]>]),
        units: Range<usize>,
        channels: &Range<usize>,
        weights: Range<usize>,
    ) -> Result<Vec<f32>> {
        let mut sums = Tensor::zeros([weights.len() * isa::current().lanes()], DType::F32)?;
        let sums = sums.memory_mut::<f32>()?;
        for block in 0..strips.blocks {
            for unit in units.clone() {
                let unit = strips.unit(unit);
                let index = strips.list(&unit);
                let list = &self.walk.lists[index];
                strips.prefetch(&unit, self.source);
                let items = Items {
                    cuts: &cuts[index],
                    blocks: strips.blocks,
                    block,
                    offsets: &list.offsets,
                    batch: self.batch,
                    source: self.source,
                    base: strips.base(&unit, list),
                };
                isa::dispatch(Products {
                    items,
                    positions: &list.positions,
                    channels: channels.clone(),
                    length: unit.strip.length,
                    target: self.target,
                    at: strips.target(&unit),
                    sums,
                    first: weights.start,
                });
            }
        }
        Ok(isa::dispatch(Totals(sums)))
    }
}
