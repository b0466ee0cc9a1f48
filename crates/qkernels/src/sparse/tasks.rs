//! How the passes are cut into tasks for threads. Tasks depend on the layer and the batch alone, and sums of tasks are added up in their order.

use super::strips::Strips;
use super::walk::Walk;
use crate::par;
use qtensor::Result;
use std::ops::{AddAssign, Range};

/// Weights of a task: a vector of sums for each of them should stay in the second-level cache.
const WEIGHTS: usize = 4096;

/// Some units of the strips with some target channels.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) units: Range<usize>,
    pub(super) channels: Range<usize>,
}

/// Tasks for sums over the lists of a direction: each writes targets of its own.
pub(super) fn for_targets(walk: &Walk, strips: &Strips) -> Vec<Task> {
    let tasks = strips.tasks(walk.items());
    let pieces = tasks.min(strips.units());
    all(strips, pieces, &walk.channel_ranges(tasks.div_ceil(pieces.max(1))))
}

/// The weights of a layer, for [`weight_sums`].
pub(super) struct Weights<R> {
    pub(super) count: usize,
    /// Which of them are those of a target channel.
    pub(super) row: R,
}

/// One sum for each weight: `work` gives those of a task's channels, over its units.
///
/// # Errors
/// Those of `work`.
pub(super) fn weight_sums<T: Copy + Default + AddAssign + Send>(
    (walk, strips): (&Walk, &Strips),
    weights: &Weights<impl Fn(usize) -> Range<usize> + Sync>,
    work: impl Fn(&Task, Range<usize>) -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let tasks = strips.tasks(weights.count);
    // Cutting the pixels costs a sum over the parts; cutting the channels reads the inputs again.
    let by_cache = weights.count.div_ceil(WEIGHTS * strips.blocks).max(1);
    let pieces = tasks.div_ceil(by_cache).min(strips.units().div_ceil(4)).max(1);
    let tasks = all(strips, pieces, &walk.channel_ranges(by_cache.max(tasks.div_ceil(pieces))));
    let of = |task: &Task| (weights.row)(task.channels.start).start..(weights.row)(task.channels.end - 1).end;
    let parts = par::map(tasks.len(), |i| work(&tasks[i], of(&tasks[i])));
    let mut sums = vec![T::default(); weights.count];
    for (task, part) in tasks.iter().zip(parts) {
        sums[of(task)].iter_mut().zip(part?).for_each(|(sum, part)| *sum += part);
    }
    Ok(sums)
}

/// Every range of channels over every one of so many pieces of the units.
fn all(strips: &Strips, pieces: usize, ranges: &[Range<usize>]) -> Vec<Task> {
    let units = |piece: usize| piece * strips.units() / pieces..(piece + 1) * strips.units() / pieces;
    let of = |piece| ranges.iter().map(move |channels| Task { units: units(piece), channels: channels.clone() });
    (0..pieces).flat_map(of).collect()
}
