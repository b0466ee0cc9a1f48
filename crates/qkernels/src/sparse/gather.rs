//! Sums over the lists of a direction: the forward pass, and the input gradient.

use super::strips::Strips;
use super::tile::{Items, Sums};
use super::walk::{List, Walk};
use crate::Activation;
use crate::isa;
use crate::par::{self, SharedOut};
use std::borrow::Cow;
use std::ops::Range;

/// One pass in a direction.
pub(super) struct Gather<'a> {
    pub(super) walk: &'a Walk,
    pub(super) batch: usize,
    /// The batch innermost.
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
    /// Writes the target, the batch innermost.
    pub(super) fn run(&self, output: &mut [f32]) {
        let strips = Strips::new(self.walk, self.batch);
        if output.is_empty() {
            return;
        }
        let ready = par::map(self.walk.lists.len(), |i| self.ready(&self.walk.lists[i], &strips));
        let items = ready.iter().map(|ready| ready.list.offsets.len()).max().unwrap_or(0);
        let tasks = strips.tasks(items);
        let pieces = tasks.min(strips.units());
        let ranges = channel_ranges(&self.walk.lists, tasks.div_ceil(pieces));
        let output = SharedOut::new(output);
        par::for_each(pieces * ranges.len(), |task| {
            let (piece, channels) = (task / ranges.len(), &ranges[task % ranges.len()]);
            for unit in piece * strips.units() / pieces..(piece + 1) * strips.units() / pieces {
                self.unit(&strips, unit, &ready, channels.clone(), output);
            }
        });
    }

    fn ready<'b>(&'b self, list: &'b List, strips: &Strips) -> Ready<'b> {
        let weights = if list.is_whole {
            Cow::Borrowed(self.values)
        } else {
            Cow::Owned(list.positions.iter().map(|position| self.values[*position as usize]).collect())
        };
        Ready { list, weights, cuts: strips.cuts(self.walk, list) }
    }

    /// One strip of one row.
    fn unit(&self, strips: &Strips, unit: usize, ready: &[Ready], channels: Range<usize>, output: SharedOut<f32>) {
        let unit = strips.unit(unit);
        let ready = &ready[unit.list(self.walk)];
        let [_, height, width] = self.walk.target;
        for block in 0..strips.blocks {
            isa::dispatch(Sums {
                items: Items {
                    cuts: &ready.cuts,
                    blocks: strips.blocks,
                    block,
                    offsets: &ready.list.offsets,
                    batch: self.batch,
                    source: self.source,
                    base: unit.base(self.walk, ready.list, self.batch),
                },
                weights: &ready.weights,
                channels: channels.clone(),
                strip: unit.strip,
                output,
                output_at: unit.row.first * width * self.batch + unit.strip.at,
                output_step: height * width * self.batch,
                bias: self.bias,
                activation: self.activation,
            });
        }
    }
}

/// The target channels in about `count` ranges of equal numbers of items.
pub(super) fn channel_ranges(lists: &[List], count: usize) -> Vec<Range<usize>> {
    let Some(list) = lists.iter().max_by_key(|list| list.offsets.len()) else { return Vec::new() };
    let channels = list.starts.len() - 1;
    let mut ends: Vec<usize> = (1..count)
        .map(|i| list.starts.partition_point(|start| *start < list.offsets.len() * i / count).min(channels))
        .chain([channels])
        .collect();
    ends.dedup();
    let mut start = 0;
    let mut ranges = Vec::with_capacity(ends.len());
    for end in ends {
        if end > start {
            ranges.push(start..end);
        }
        start = end;
    }
    ranges
}
