//! The gradient of the weights that there are, in bytes.

use super::super::strips::{CACHE, Strips};
use super::super::tile::Items;
use super::super::walk::Walk;
use super::products::{ByteProducts, Flush, tiling};
use crate::{isa, par};
use qtensor::{DType, Result, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// Weights of a task: a vector of sums for each of them should stay in the second-level cache.
const WEIGHTS: usize = 4096;
/// Vectors of products whose sums surely fit the 32 bits of a lane: four products of two differences of at most 255 each.
const MOST: usize = i32::MAX as usize / (4 * 255 * 255);

/// The weight gradient, from the walk of the forward pass.
pub(super) struct ByteWeightGrad<'a> {
    pub(super) walk: &'a Walk,
    pub(super) batch: usize,
    /// The inputs, the batch innermost.
    pub(super) source: &'a [u8],
    /// The gradients of the outputs, the batch innermost.
    pub(super) target: &'a [u8],
    /// Of the source and the target.
    pub(super) zero_points: [u8; 2],
}

impl ByteWeightGrad<'_> {
    /// One exact sum for each of the `weights`, in the order of the pattern; `row` tells which are those of an output.
    ///
    /// # Errors
    /// There is no room for the sums.
    pub(super) fn run(&self, weights: usize, row: impl Fn(usize) -> Range<usize> + Sync) -> Result<Vec<i64>> {
        let strips = Strips::new(self.walk, self.batch, tiling(), CACHE);
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
        let mut sums = vec![0; weights];
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
    ) -> Result<Vec<i64>> {
        let tiling = tiling();
        let mut totals = vec![0; weights.len()];
        let mut sums = Tensor::zeros([weights.len() * tiling.lanes / 4], DType::I32)?;
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
                    batch: self.batch,
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
                });
            }
        }
        isa::dispatch(Flush { sums, totals: &mut totals });
        Ok(totals)
    }
}
