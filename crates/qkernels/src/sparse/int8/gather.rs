//! Sums of bytes over the lists of a direction: the forward pass, and the input gradient.

use super::super::strips::{CACHE, Strips};
use super::super::tile::Items;
use super::super::walk::Walk;
use super::index::Quads;
use super::sums::{ByteSums, tiling};
use super::weights::PackedList;
use crate::Activation;
use crate::isa;
use crate::par::{self, SharedOut};

/// One pass in a direction.
pub(super) struct ByteGather<'a> {
    pub(super) walk: &'a Walk,
    /// For each list of the walk, as the weights.
    pub(super) quads: &'a [Quads],
    pub(super) batch: usize,
    /// The batch innermost.
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
    /// Writes the target, the batch innermost.
    pub(super) fn run(&self, output: &mut [f32]) {
        if output.is_empty() {
            return;
        }
        // Sums never leave the registers before they are complete, so all source channels of a strip should fit the cache.
        let tiling = tiling().within(self.walk, self.batch, CACHE);
        let strips = Strips::new(self.walk, self.batch, tiling, usize::MAX);
        let tasks = strips.tasks(self.walk.items());
        let pieces = tasks.min(strips.units());
        let ranges = self.walk.channel_ranges(tasks.div_ceil(pieces));
        let output = SharedOut::new(output);
        par::for_each(pieces * ranges.len(), |task| {
            let (piece, channels) = (task / ranges.len(), &ranges[task % ranges.len()]);
            for unit in piece * strips.units() / pieces..(piece + 1) * strips.units() / pieces {
                let unit = strips.unit(unit);
                let list = strips.list(&unit);
                let (quads, weights) = (&self.quads[list], &self.weights[list]);
                strips.prefetch(&unit, self.source);
                let items = Items {
                    cuts: &quads.starts,
                    blocks: 1,
                    block: 0,
                    offsets: &quads.offsets,
                    batch: self.batch,
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
    }
}
