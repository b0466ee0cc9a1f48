//! Sums over the lists of a direction: the forward pass, and the input gradient.

use super::order::Batch;
use super::strips::{CACHE, Strips, Tiling};
use super::tasks::{Task, for_targets};
use super::tile::{Items, Sums};
use super::walk::{List, Walk};
use crate::Activation;
use crate::isa;
use crate::par::{self, SharedOut};
use std::borrow::Cow;

/// One pass in a direction.
pub(super) struct Gather<'a> {
    pub(super) walk: &'a Walk,
    pub(super) batch: Batch,
    /// In the order of the batch.
    pub(super) source: &'a [f32],
    /// In the order of the pattern.
    pub(super) values: &'a [f32],
    /// One a target channel.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
}

/// A list with its values, and where it crosses from one block of channels to the next.
struct Ready<'a> {
    list: &'a List,
    weights: Cow<'a, [f32]>,
    cuts: Cow<'a, [usize]>,
}

impl Gather<'_> {
    /// Writes the target, in the order of the batch.
    pub(super) fn run(&self, output: &mut [f32]) {
        if output.is_empty() {
            return;
        }
        let strips = Strips::new(self.walk, self.batch, Tiling::of_floats(), CACHE);
        let ready = par::map(self.walk.lists.len(), |i| self.ready(&self.walk.lists[i], &strips));
        let tasks = for_targets(self.walk, &strips);
        let output = SharedOut::new(output);
        par::for_each(tasks.len(), |i| {
            let Task { units, channels } = tasks[i].clone();
            for unit in units {
                let unit = strips.unit(unit);
                let Ready { list, weights, cuts } = &ready[strips.list(&unit)];
                strips.prefetch(&unit, self.source);
                for block in 0..strips.blocks {
                    let items = Items {
                        cuts,
                        blocks: strips.blocks,
                        block,
                        offsets: &list.offsets,
                        batch: strips.batch,
                        source: self.source,
                        base: strips.base(&unit, list),
                    };
                    isa::dispatch(Sums {
                        items,
                        weights,
                        channels: channels.clone(),
                        length: unit.strip.length,
                        output,
                        at: strips.target(&unit),
                        bias: self.bias,
                        activation: self.activation,
                    });
                }
            }
        });
    }

    fn ready<'b>(&'b self, list: &'b List, strips: &Strips<'b>) -> Ready<'b> {
        let weights = if list.is_whole {
            Cow::Borrowed(self.values)
        } else {
            Cow::Owned(list.positions.iter().map(|position| self.values[*position as usize]).collect())
        };
        Ready { list, weights, cuts: strips.cuts(list) }
    }
}
