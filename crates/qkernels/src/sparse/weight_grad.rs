//! The gradient of the weights that there are: for each, the sum of products of what it reads and what it goes to.

use super::order::Batch;
use super::strips::{CACHE, Strips, Tiling};
use super::tasks::{Task, Weights, weight_sums};
use super::tile::{Items, Products, Totals};
use super::walk::Walk;
use crate::isa;
use qtensor::{DType, Result, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// The weight gradient, from the walk of the forward pass.
pub(super) struct WeightGrad<'a> {
    pub(super) walk: &'a Walk,
    pub(super) batch: Batch,
    /// The inputs, in the order of the batch.
    pub(super) source: &'a [f32],
    /// The gradients of the outputs, in that order.
    pub(super) target: &'a [f32],
}

impl WeightGrad<'_> {
    /// One sum for each of the `weights`, in the order of the pattern. The order of the additions depends on shapes and
    /// the instruction set alone.
    ///
    /// # Errors
    /// There is no room for the sums.
    pub(super) fn run(&self, weights: &Weights<impl Fn(usize) -> Range<usize> + Sync>) -> Result<Vec<f32>> {
        let strips = Strips::new(self.walk, self.batch, Tiling::of_floats(), CACHE);
        let cuts: Vec<Cow<[usize]>> = self.walk.lists.iter().map(|list| strips.cuts(list)).collect();
        let work = |task: &Task, weights| self.task((&strips, &cuts), task, weights);
        weight_sums((self.walk, &strips), weights, work)
    }

    /// The sums of some channels, which have these weights, over some units.
    fn task(
        &self,
        (strips, cuts): (&Strips, &[Cow<[usize]>]),
        Task { units, channels }: &Task,
        weights: Range<usize>,
    ) -> Result<Vec<f32>> {
        let is_all = strips.is_one(units);
        let lanes = if is_all { 1 } else { isa::current().lanes() };
        let mut sums = Tensor::zeros([weights.len() * lanes], DType::F32)?;
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
                    batch: strips.batch,
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
                    is_all,
                });
            }
        }
        if is_all {
            return Ok(sums.to_vec());
        }
        Ok(isa::dispatch(Totals(sums)))
    }
}
