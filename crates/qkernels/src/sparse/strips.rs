//! How the target pixels of a direction are cut into strips that a register tile holds.

use super::axis::Run;
use super::order::Batch;
use super::tile::{Ahead, most_vectors};
use super::walk::{List, Walk};
use crate::isa::{self, Isa, Kernel};
use std::borrow::Cow;
use std::ops::Range;

/// Bytes of the second-level cache that the source values of a strip may take.
pub(super) const CACHE: usize = 512 << 10;
/// The most tasks that the pixels of a pass are cut into: enough for an even load on some cores.
const TASKS: usize = 32;
/// Multiply-adds of a task that is worth handing to another thread, to which its operands have to come.
const WORK: usize = 1 << 18;

/// The register tiles of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    /// Numbers of a vector.
    pub(super) lanes: usize,
    /// Vectors of the largest tile.
    pub(super) most: usize,
    /// The numbers of vectors that a tile may have, rising from 1.
    pub(super) sizes: &'static [usize],
    /// Bytes of a source number.
    pub(super) bytes: usize,
    /// Whether a tile may hold some rows of a short strip.
    pub(super) is_tall: bool,
}

/// The tiles of f32 on the instruction set in use.
struct Registers;

impl Kernel for Registers {
    type Output = Tiling;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Tiling {
        Tiling {
            lanes: I::LANES,
            most: most_vectors::<I>(),
            sizes: &[1, 2, 3, 4, 6, 8, 12, 16],
            bytes: size_of::<f32>(),
            is_tall: false,
        }
    }
}

impl Tiling {
    pub(super) fn of_floats() -> Tiling {
        isa::dispatch(Registers)
    }

    /// Vectors of the next tile where so many are left, at least one: tiles of about one size.
    fn size(&self, left: usize) -> usize {
        let even = left.div_ceil(left.div_ceil(self.most));
        let mut sizes = self.sizes.iter().copied().filter(|size| *size <= left.min(self.most));
        let largest = sizes.clone().next_back();
        sizes.find(|size| *size >= even).or(largest).unwrap_or(1)
    }

    /// Bytes of a source channel that a strip of so many numbers reads.
    fn window(&self, walk: &Walk, batch: usize, length: usize) -> usize {
        walk.span[0] * (length + (walk.span[1] - 1) * batch) * self.bytes
    }

    /// A strip down the rows: as many together as a tile holds, and a cache what they read.
    fn units(&self, walk: &Walk, batch: usize, strip: &Strip, rows: &[Rows]) -> Vec<Unit> {
        let line = strip.length.div_ceil(self.lanes);
        let may_be_tall = self.is_tall && strip.length.is_multiple_of(self.lanes);
        let width = (strip.length + (walk.span[1] - 1) * batch) * self.bytes * walk.source[0];
        let fits = |rows: usize, step: usize| {
            let is_size = may_be_tall && rows * line <= self.most && self.sizes.contains(&(rows * line));
            rows == 1 || (is_size && ((rows - 1) * step + walk.span[0]) * width <= CACHE)
        };
        let mut units = Vec::new();
        for Rows { first, count, steps } in rows {
            let mut done = 0;
            while done < *count {
                let left = count - done;
                let most = (1..=left.min(self.most)).rev().find(|rows| fits(*rows, steps[0])).unwrap_or(1);
                let even = left.div_ceil(left.div_ceil(most));
                let together = (1..=even).rev().find(|rows| fits(*rows, steps[0])).unwrap_or(1);
                let row = Run { first: first.first + done * steps[1], base: first.base + done * steps[0], ..*first };
                units.push(Unit { strip: *strip, row, rows: together, steps: *steps, image: 0 });
                done += together;
            }
        }
        units
    }

    /// The same with smaller tiles where the source values of a strip would not fit a cache of so many bytes.
    pub(super) fn within(self, walk: &Walk, batch: usize, cache: usize) -> Tiling {
        let fits = |most: &usize| walk.source[0] * self.window(walk, batch, most * self.lanes) <= cache;
        let most = (1..=self.most).rev().find(fits).unwrap_or(1);
        Tiling { most, ..self }
    }
}

/// Consecutive numbers (pixels and samples) of a target row whose sums are in registers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strip {
    /// Numbers from the start of the target row.
    at: usize,
    /// Numbers from the start of the source row to that of the strip's base.
    base: usize,
    pub(super) length: usize,
    /// The class of columns.
    class: usize,
}

/// The numbers of a tile: of one target row, or of some with the same taps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Of a row.
    pub(super) length: usize,
    pub(super) rows: usize,
    /// From a row to the next in the source and in the target.
    pub(super) pitches: [usize; 2],
}

impl Extent {
    /// Vectors of so many lanes.
    #[inline(always)]
    pub(super) fn vectors(&self, lanes: usize) -> usize {
        self.rows * self.length.div_ceil(lanes)
    }
}

/// A strip of a target row, or of some rows with the same taps where it is short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) strip: Strip,
    row: Run,
    rows: usize,
    /// From a row to the next in the source and in the target.
    steps: [usize; 2],
    image: usize,
}

/// Target rows with the same taps, some steps apart.
struct Rows {
    first: Run,
    count: usize,
    /// From a row to the next in the source and in the target.
    steps: [usize; 2],
}

impl Rows {
    /// All of a walk, those of a class one after the other.
    fn of(walk: &Walk) -> Vec<Rows> {
        let mut places = walk.rows.places();
        places.sort_by_key(|place| place.class);
        let mut all: Vec<Rows> = Vec::new();
        for place in places {
            if let Some(Rows { first, count, steps }) = all.last_mut().filter(|rows| rows.first.class == place.class) {
                let last = [first.base + (*count - 1) * steps[0], first.first + (*count - 1) * steps[1]];
                let found = [place.base.wrapping_sub(last[0]), place.first - last[1]];
                if *count == 1 || *steps == found {
                    *steps = found;
                    *count += 1;
                    continue;
                }
            }
            all.push(Rows { first: place, count: 1, steps: [0; 2] });
        }
        all
    }
}

/// The target pixels of a direction for a batch.
pub(super) struct Strips<'a> {
    walk: &'a Walk,
    /// Numbers of a pixel.
    pub(super) batch: usize,
    images: usize,
    /// Those of an image.
    units: Vec<Unit>,
    /// Blocks of source channels whose values fit the cache.
    pub(super) blocks: usize,
    /// Source channels of a block.
    block_channels: usize,
    /// Multiply-adds of an item of a list, in all units.
    numbers: usize,
}

impl<'a> Strips<'a> {
    /// The strips of a kernel with these tiles; blocks of channels take at most so many bytes of a cache.
    pub(super) fn new(walk: &'a Walk, batch: Batch, tiling: Tiling, cache: usize) -> Strips<'a> {
        let Batch { innermost: batch, images } = batch;
        let lanes = tiling.lanes;
        let mut strips = Vec::new();
        for run in &walk.columns.runs {
            let length = run.count * batch;
            let mut from = 0;
            while from < length {
                let size = tiling.size((length - from).div_ceil(lanes));
                let end = (from + size * lanes).min(length);
                let (at, base) = (run.first * batch + from, run.base * batch + from);
                strips.push(Strip { at, base, length: end - from, class: run.class });
                from = end;
            }
        }
        let longest = strips.iter().map(|strip| strip.length).max().unwrap_or(0);
        let [channels, ..] = walk.source;
        let window = tiling.window(walk, batch, longest);
        let blocks = channels.div_ceil((cache / window.max(1)).max(1)).max(1);
        // Of about one size.
        let block_channels = channels.div_ceil(blocks).max(1);
        let rows = Rows::of(walk);
        let units: Vec<Unit> = strips.iter().flat_map(|strip| tiling.units(walk, batch, strip, &rows)).collect();
        let numbers: usize = units.iter().map(|unit| unit.rows * unit.strip.length).sum();
        Strips { walk, batch, images, units, blocks, block_channels, numbers: images * numbers }
    }

    /// Strips of one row or some, of all images.
    pub(super) fn units(&self) -> usize {
        self.images * self.units.len()
    }

    /// One of them: down the rows of a strip, so that neighbours share what they read.
    pub(super) fn unit(&self, unit: usize) -> Unit {
        Unit { image: unit / self.units.len(), ..self.units[unit % self.units.len()] }
    }

    /// Whether these units and all source channels together are one tile, beside which nothing adds to any weight.
    pub(super) fn is_one(&self, units: &Range<usize>) -> bool {
        units.len() == 1 && self.units() == 1 && self.blocks == 1
    }

    /// The numbers of a unit.
    pub(super) fn extent(&self, unit: &Unit) -> Extent {
        let widths = [self.walk.source[2], self.walk.target[2]];
        let pitch = |side: usize| unit.steps[side] * widths[side] * self.batch;
        Extent { length: unit.strip.length, rows: unit.rows, pitches: [pitch(0), pitch(1)] }
    }

    /// Into how many tasks lists of `items` may be cut: a power of two, which the usual numbers of threads share evenly.
    pub(super) fn tasks(&self, items: usize) -> usize {
        (items * self.numbers / WORK).clamp(1, TASKS).next_power_of_two()
    }

    /// Where a list crosses from one block of channels to the next.
    pub(super) fn cuts(&self, list: &'a List) -> Cow<'a, [usize]> {
        match self.blocks {
            1 => Cow::Borrowed(&list.starts),
            blocks => Cow::Owned(list.cuts(blocks, self.block_channels * self.walk.source[1] * self.walk.source[2])),
        }
    }

    /// The list of a unit in the walk.
    pub(super) fn list(&self, unit: &Unit) -> usize {
        self.walk.list(unit.row.class, unit.strip.class)
    }

    /// The place in the source from which the offsets of a unit's list count, modulo 2^64.
    pub(super) fn base(&self, unit: &Unit, list: &List) -> usize {
        let shift = (list.shift as usize).wrapping_mul(self.batch);
        let image = unit.image * self.walk.source.iter().product::<usize>() * self.batch;
        (image + unit.row.base * self.walk.source[2] * self.batch + unit.strip.base).wrapping_sub(shift)
    }

    /// Where a unit starts in the target, and the numbers from one target channel to the next.
    pub(super) fn target(&self, unit: &Unit) -> [usize; 2] {
        let [channels, height, width] = self.walk.target;
        let step = height * width * self.batch;
        [unit.image * channels * step + unit.row.first * width * self.batch + unit.strip.at, step]
    }

    /// Asks for the source rows that the unit below will read for the first time: reads at random places do not make a CPU fetch them ahead.
    pub(super) fn prefetch<T>(&self, unit: &Unit, source: &[T]) {
        let [channels, height, width] = self.walk.source;
        let last = unit.row.base + (unit.rows - 1) * unit.steps[0];
        let below = last.saturating_add_signed(self.walk.lowest[0] + self.walk.span[0] as isize);
        let left = unit.strip.base.saturating_add_signed(self.walk.lowest[1] * self.batch as isize);
        let length = unit.strip.length + (self.walk.span[1] - 1) * self.batch;
        let step = height * width * self.batch;
        let left = unit.image * channels * step + left;
        for row in below..(below + (unit.rows * unit.steps[0]).max(1)).min(height) {
            isa::dispatch(Ahead { source, at: row * width * self.batch + left, length, channels, step });
        }
    }
}
