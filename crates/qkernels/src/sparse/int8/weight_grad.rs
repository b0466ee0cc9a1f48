//! The gradient of the weights that there are, in bytes.

use super::super::order::Batch;
use super::super::strips::{CACHE, Strips};
use super::super::tasks::{Task, Weights, weight_sums};
use super::super::tile::Items;
use super::super::walk::Walk;
use super::products::{ByteProducts, Flush, tiling};
use crate::isa;
use qtensor::{DType, Result, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// Vectors of products whose sums surely fit the 32 bits of a lane: four products of two differences of at most 255 each.
const MOST: usize = i32::MAX as usize / (4 * 255 * 255);

/// The weight gradient, from the walk of the forward pass.
pub(super) struct ByteWeightGrad<'a> {
    pub(super) walk: &'a Walk,
    pub(super) batch: Batch,
    /// The inputs, in the order of the batch.
    pub(super) source: &'a [u8],
    /// The gradients of the outputs, in that order.
    pub(super) target: &'a [u8],
    /// Of the source and the target.
    pub(super) zero_points: [u8; 2],
}

impl ByteWeightGrad<'_> {
    /// One exact sum for each of the `weights`, in the order of the pattern.
    ///
    /// # Errors
    /// There is no room for the sums.
    pub(super) fn run(&self, weights: &Weights<impl Fn(usize) -> Range<usize> + Sync>) -> Result<Vec<i64>> {
        let strips = Strips::new(self.walk, self.batch, tiling(), CACHE);
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
    ) -> Result<Vec<i64>> {
        let tiling = tiling();
        let is_all = strips.is_one(units) && tiling.most <= MOST;
        let lanes = if is_all { 1 } else { tiling.lanes / 4 };
        let mut totals = vec![0; weights.len()];
        let mut sums = Tensor::zeros([weights.len() * lanes], DType::I32)?;
        let sums = sums.memory_mut::<i32>()?;
        for block in 0..strips.blocks {
            let mut vectors = 0;
            for unit in units.clone() {
                let unit = strips.unit(unit);
                let index = strips.list(&unit);
                let list = &self.walk.lists[index];
                vectors += strips.extent(&unit).vectors(tiling.lanes);
                if vectors > MOST {
                    isa::dispatch(Flush { sums, totals: &mut totals });
                    vectors = tiling.most;
                }
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
                isa::dispatch(ByteProducts {
                    items,
                    positions: &list.positions,
                    channels: channels.clone(),
                    extent: strips.extent(&unit),
                    target: self.target,
                    at: strips.target(&unit),
                    zero_points: self.zero_points,
                    sums,
                    first: weights.start,
                    is_all,
                });
            }
        }
        if is_all {
            return Ok(sums.iter().map(|sum| i64::from(*sum)).collect());
        }
        isa::dispatch(Flush { sums, totals: &mut totals });
        Ok(totals)
    }
}
