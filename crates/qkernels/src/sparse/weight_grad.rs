//! The gradient of the weights that there are: for each, the sum of products of what it reads and what it goes to.

use super::gather::channel_ranges;
use super::strips::{Strips, TASKS};
use super::tile::{Items, Products, Totals};
use super::walk::Walk;
use crate::isa;
use crate::par;
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
    /// One sum for each of the `weights`, in the order of the pattern, each of whose rows `row` tells. The order of the additions depends on the shapes and the instruction set alone.
    pub(super) fn run(&self, weights: usize, row: impl Fn(usize) -> Range<usize> + Sync) -> Vec<f32> {
        let strips = Strips::new(self.walk, self.batch);
        let cuts: Vec<Cow<[usize]>> = self.walk.lists.iter().map(|list| strips.cuts(self.walk, list)).collect();
        let tasks = strips.tasks(weights);
        let by_cache = weights.div_ceil(WEIGHTS * strips.blocks);
        // Cutting the pixels costs a sum over the parts; cutting the channels reads the inputs again.
        let pieces = tasks.div_ceil(by_cache.max(1)).min(strips.units().div_ceil(4)).max(1);
        let ranges = channel_ranges(&self.walk.lists, by_cache.max(tasks.div_ceil(pieces)).max(1));
        debug_assert!(pieces <= TASKS);
        let parts = par::map(pieces * ranges.len(), |task| {
            let (piece, channels) = (task / ranges.len(), &ranges[task % ranges.len()]);
            let units = piece * strips.units() / pieces..(piece + 1) * strips.units() / pieces;
            self.task(&strips, units, channels.clone(), &cuts, &row)
        });
        let mut sums = vec![0.0; weights];
        for (task, part) in parts.iter().enumerate() {
            let first = row(ranges[task % ranges.len()].start).start;
            sums[first..].iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        sums
    }

    /// The sums of some channels over some units.
    fn task(
        &self,
        strips: &Strips,
        units: Range<usize>,
        channels: Range<usize>,
        cuts: &[Cow<[usize]>],
        row: &impl Fn(usize) -> Range<usize>,
    ) -> Vec<f32> {
        let [_, height, width] = self.walk.target;
        let (first, end) = (row(channels.start).start, row(channels.end - 1).end);
        let mut sums = vec![0.0; (end - first) * isa::current().lanes()];
        for block in 0..strips.blocks {
            for unit in units.clone() {
                let unit = strips.unit(unit);
                let index = unit.list(self.walk);
                let list = &self.walk.lists[index];
                isa::dispatch(Products {
                    items: Items {
                        cuts: &cuts[index],
                        blocks: strips.blocks,
                        block,
                        offsets: &list.offsets,
                        batch: self.batch,
                        source: self.source,
                        base: unit.base(self.walk, list, self.batch),
                    },
                    positions: &list.positions,
                    channels: channels.clone(),
                    strip: unit.strip,
                    target: self.target,
                    target_at: unit.row.first * width * self.batch + unit.strip.at,
                    target_step: height * width * self.batch,
                    sums: &mut sums,
                    first,
                });
            }
        }
        isa::dispatch(Totals(&sums))
    }
}
