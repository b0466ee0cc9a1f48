//! How the target pixels of a direction are cut into strips that a register tile holds, and strips into tasks.

use super::axis::Run;
use super::walk::{List, Walk};
use crate::isa::{self, Isa, Kernel};
use std::borrow::Cow;

/// Bytes of the second-level cache that the source values of a strip may take.
const CACHE: usize = 512 << 10;
/// Tasks of a pass, as far as there is work for them: enough for an even load on some cores.
pub(super) const TASKS: usize = 32;
/// Vector multiply-adds of a task that is worth handing to another thread.
pub(super) const WORK: usize = 1 << 14;

/// Consecutive numbers (pixels and samples) of a target row whose sums are in registers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strip {
    /// Numbers from the start of the row.
    pub(super) at: usize,
    /// Numbers from the start of the source row of its base.
    pub(super) base: usize,
    pub(super) length: usize,
    /// The class of columns.
    pub(super) class: usize,
}

/// The numbers of vectors that a register tile may have.
pub(super) const SIZES: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// Vectors of the largest tile of the instruction set in use, and lanes of each.
pub(super) struct Registers;

impl Kernel for Registers {
    type Output = [usize; 2];

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> [usize; 2] {
        [most_vectors::<I>(), I::LANES]
    }
}

/// Half of the registers; a vector of the portable instruction set is several.
pub(super) const fn most_vectors<I: Isa>() -> usize {
    let in_vector = if std::mem::align_of::<I::F32>() > 4 { 1 } else { 2 };
    I::REGISTERS / 2 / in_vector
}

/// A strip of a target row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) strip: Strip,
    pub(super) row: Run,
}

impl Unit {
    /// Its list in the walk.
    pub(super) fn list(&self, walk: &Walk) -> usize {
        walk.list(self.row.class, self.strip.class)
    }

    /// The place in the source, the batch innermost, from which the offsets of its list count, modulo 2^64.
    pub(super) fn base(&self, walk: &Walk, list: &List, batch: usize) -> usize {
        let shift = (list.shift as usize).wrapping_mul(batch);
        (self.row.base * walk.source[2] * batch + self.strip.base).wrapping_sub(shift)
    }
}

/// The target pixels of a direction for a batch.
pub(super) struct Strips {
    strips: Vec<Strip>,
    /// Target rows: every strip is there in each.
    rows: Vec<Run>,
    /// Blocks of source channels whose values fit the cache.
    pub(super) blocks: usize,
    /// Source channels of a block.
    block_channels: usize,
    /// Vector multiply-adds of an item of a list, in all strips of a row.
    vectors: usize,
}

impl Strips {
    pub(super) fn new(walk: &Walk, batch: usize) -> Strips {
        let [most, lanes] = isa::dispatch(Registers);
        let mut strips = Vec::new();
        for run in &walk.columns.runs {
            let length = run.count * batch;
            let mut from = 0;
            while from < length {
                let vectors = (length - from).div_ceil(lanes);
                let size = SIZES.iter().rev().find(|size| **size <= vectors.min(most)).map_or(1, |size| *size);
                let end = (from + size * lanes).min(length);
                strips.push(Strip {
                    at: run.first * batch + from,
                    base: run.base * batch + from,
                    length: end - from,
                    class: run.class,
                });
                from = end;
            }
        }
        let longest = strips.iter().map(|strip| strip.length).max().unwrap_or(0);
        let [channels, ..] = walk.source;
        let window = walk.span[0] * (longest + (walk.span[1] - 1) * batch) * size_of::<f32>();
        let block_channels = (CACHE / window.max(1)).clamp(1, channels.max(1));
        let blocks = channels.div_ceil(block_channels).max(1);
        // Of one size.
        let block_channels = channels.div_ceil(blocks).max(1);
        let vectors = strips.iter().map(|strip| strip.length.div_ceil(lanes)).sum();
        Strips { strips, rows: walk.rows.places(), blocks, block_channels, vectors }
    }

    /// Pairs of a strip and a row.
    pub(super) fn units(&self) -> usize {
        self.strips.len() * self.rows.len()
    }

    /// The strip and the row of a unit: down the rows of a strip, so that neighbours share what they read.
    pub(super) fn unit(&self, unit: usize) -> Unit {
        Unit { strip: self.strips[unit / self.rows.len()], row: self.rows[unit % self.rows.len()] }
    }

    /// Where a list crosses from one block of channels to the next.
    pub(super) fn cuts<'a>(&self, walk: &Walk, list: &'a List) -> Cow<'a, [usize]> {
        match self.blocks {
            1 => Cow::Borrowed(&list.starts),
            blocks => Cow::Owned(list.cuts(blocks, self.block_channels * walk.source[1] * walk.source[2])),
        }
    }

    /// Into how many tasks lists of `items` may be cut.
    pub(super) fn tasks(&self, items: usize) -> usize {
        (items * self.vectors * self.rows.len() / WORK).clamp(1, TASKS)
    }
}
