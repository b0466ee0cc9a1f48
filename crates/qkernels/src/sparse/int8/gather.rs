//! Sums of bytes over the lists of a direction: the forward pass, and the input gradient.

use super::super::order::Batch;
use super::super::strips::{CACHE, Strips};
use super::super::tasks::{Task, for_targets};
use super::super::tile::Items;
use super::super::walk::Walk;
use super::index::Quads;
use super::results::Results;
use super::sums::{ByteSums, tiling};
use super::weights::PackedList;
use crate::Activation;
use crate::isa;
use crate::par;
use qtensor::{Result, Tensor};

/// One pass in a direction.
pub(super) struct ByteGather<'a> {
    pub(super) walk: &'a Walk,
    /// For each list of the walk, as the weights.
    pub(super) quads: &'a [Quads],
    pub(super) batch: Batch,
    /// In the order of the batch.
    pub(super) source: &'a [u8],
    pub(super) zero_point: u8,
    pub(super) weights: &'a [PackedList],
    /// Of the sums of each target channel.
    pub(super) factors: &'a [f32],
    /// One a target channel.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
}

impl ByteGather<'_> {
    /// Writes the target, in the order of the batch.
    ///
    /// # Errors
    /// It has another type than f32 and bf16.
    pub(super) fn run(&self, target: &mut Tensor) -> Result<()> {
        if target.numel() == 0 {
            return Ok(());
        }
        // Sums never leave the registers before they are complete, so all source channels of a strip should fit the cache.
        let tiling = tiling().within(self.walk, self.batch.innermost, CACHE);
        let strips = Strips::new(self.walk, self.batch, tiling, usize::MAX);
        let tasks = for_targets(self.walk, &strips);
        let output = Results::of(target)?;
        par::for_each(tasks.len(), |i| {
            let Task { units, channels } = tasks[i].clone();
            for unit in units {
                let unit = strips.unit(unit);
                let list = strips.list(&unit);
                let (quads, weights) = (&self.quads[list], &self.weights[list]);
                strips.prefetch(&unit, self.source);
                let items = Items {
                    cuts: &quads.starts,
                    blocks: 1,
                    block: 0,
                    offsets: &quads.offsets,
                    batch: strips.batch,
                    source: self.source,
                    base: strips.base(&unit, &self.walk.lists[list]),
                };
                isa::dispatch(ByteSums {
                    items,
                    weights,
                    zero_point: self.zero_point,
                    channels: channels.clone(),
                    length: unit.strip.length,
                    output,
                    at: strips.target(&unit),
                    factors: self.factors,
                    bias: self.bias,
                    activation: self.activation,
                });
            }
        });
        Ok(())
    }
}
