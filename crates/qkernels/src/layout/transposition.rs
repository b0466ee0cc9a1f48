//! The change from one memory order of f32 or bf16 to another, in square blocks that are transposed in registers.
//!
//! A block lies between the axis whose numbers are neighbours in the source and the one whose are in the target. Blocks follow one another as the source lies in memory, so that its
//! lines arrive in order and ahead of their use. What is written lies far apart, often a power of two, whose lines compete for the same places of the caches; a large result would be
//! thrown out of them before it is used anyway, so it is written past them, which also spares reading what is overwritten: three times as fast as through them.

use crate::isa::{self, Isa, Kernel, MOST_LANES, Stored};
use crate::par::{self, SharedOut};
use qtensor::Layout;
use std::ops::Range;

/// Numbers of a task that are neighbours in the source: some pages in order keep the prefetchers of the CPU at work.
const RUN: usize = 512;
/// Numbers of a task, about.
const JOB: usize = 64 * 1024;
/// Results of at least so many numbers are written past the caches.
const LARGE: usize = 1 << 20;
/// Fewer numbers than this between both axes fill no block.
const SMALLEST: usize = 16;

/// Numbers from one index to the next in both.
#[derive(Clone, Copy, Debug)]
struct Axis {
    length: usize,
    from: usize,
    to: usize,
}

/// A transposition of the axes that are the fastest in the source and in the target, at each place along the others.
#[derive(Clone, Debug)]
pub(super) struct Transposition {
    /// Neighbours in the source.
    column: Axis,
    /// Neighbours in the target.
    row: Axis,
    /// Where the others are in both, in the order of the source.
    places: Vec<[usize; 2]>,
    /// Whether rows of whole blocks start at whole vectors of the target.
    is_aligned: bool,
}

impl Transposition {
    /// Between two layouts of one shape; `None` where both have the same fastest axis or one has gaps along its own.
    pub(super) fn of(from: &Layout, to: &Layout) -> Option<Transposition> {
        let mut axes = merged_axes(from, to);
        let row = axes.iter().position(|axis| axis.to == 1)?;
        let row = axes.swap_remove(row);
        let column = axes.iter().position(|axis| axis.from == 1)?;
        let column = axes.swap_remove(column);
        if from.shape().numel() == 0 || row.from == 1 || row.length * column.length < SMALLEST {
            return None;
        }
        axes.sort_by_key(|axis| std::cmp::Reverse(axis.from));
        let along = |places: Vec<[usize; 2]>, axis: &Axis| {
            let step = |[from, to]: [usize; 2]| (0..axis.length).map(move |i| [from + i * axis.from, to + i * axis.to]);
            places.into_iter().flat_map(step).collect()
        };
        let places = axes.iter().fold(vec![[0; 2]], along);
        let is_aligned = axes.iter().chain([&column]).all(|axis| axis.to.is_multiple_of(MOST_LANES));
        Some(Transposition { column, row, places, is_aligned })
    }

    /// Copies `from`, which starts with its first number, to `to`.
    pub(super) fn run<T: Stored>(&self, from: &[T], to: &mut [T]) {
        let Transposition { column, row, places, .. } = self;
        let last = |which: usize, of: fn(&Axis) -> usize| {
            let place = places.iter().map(|place| place[which]).max().unwrap_or(0);
            place + (column.length - 1) * of(column) + (row.length - 1) * of(row)
        };
        assert!(last(0, |a| a.from) < from.len() && last(1, |a| a.to) < to.len(), "a transposition leaves its tensors");
        let columns = column.length.min(RUN);
        let count = (RUN / columns).min(places.len());
        let rows = (JOB / (columns * count)).next_multiple_of(MOST_LANES).min(row.length);
        let pieces = [row.length.div_ceil(rows), column.length.div_ceil(columns), places.len().div_ceil(count)];
        // Rows of a block of bf16 are half a line.
        let is_large = T::IN_WORD == 1 && to.len() >= LARGE;
        let is_past_caches = self.is_aligned && is_large && to.as_ptr().addr().is_multiple_of(4 * MOST_LANES);
        let out = SharedOut::new(to);
        let range = |i: usize, piece: usize, length: usize| i * piece..length.min((i + 1) * piece);
        par::for_each(pieces.iter().product(), |task| {
            isa::dispatch(Piece {
                from,
                out,
                steps: [row.from, column.to],
                rows: range(task % pieces[0], rows, row.length),
                columns: range(task / pieces[0] % pieces[1], columns, column.length),
                places: &places[range(task / pieces[0] / pieces[1], count, places.len())],
                is_past_caches,
            });
        });
    }
}

/// Axes longer than 1; neighbours are joined where both layouts run through them without a gap.
fn merged_axes(from: &Layout, to: &Layout) -> Vec<Axis> {
    let steps = from.strides().iter().zip(to.strides());
    let mut axes: Vec<Axis> = (from.shape().iter().zip(steps))
        .filter(|(length, _)| **length != 1)
        .map(|(length, (from, to))| Axis { length: *length, from: *from, to: *to })
        .collect();
    axes.sort_by_key(|axis| (axis.to, axis.from));
    let mut merged: Vec<Axis> = Vec::with_capacity(axes.len());
    for axis in axes {
        match merged.last_mut() {
            Some(last) if [axis.from, axis.to] == [last.from * last.length, last.to * last.length] => {
                last.length *= axis.length;
            }
            _ => merged.push(axis),
        }
    }
    merged
}

/// A block in f32 before and after its transposition.
type Room = [[f32; MOST_LANES * MOST_LANES]; 2];

/// Some rows by some columns at some places.
struct Piece<'a, T> {
    from: &'a [T],
    out: SharedOut<T>,
    /// Between rows in the source, between columns in the target.
    steps: [usize; 2],
    rows: Range<usize>,
    columns: Range<usize>,
    places: &'a [[usize; 2]],
    is_past_caches: bool,
}

impl<T: Stored> Kernel for Piece<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut room = [[0.0; MOST_LANES * MOST_LANES]; 2];
        if self.is_past_caches {
            for row in self.rows.clone().step_by(I::LANES) {
                for place in self.places {
                    for column in self.columns.clone().step_by(I::LANES) {
                        self.block::<I, true>(isa, *place, [row, column], &mut room);
                    }
                }
            }
            isa.finish_past_caches();
        } else {
            // Neighbouring places are the nearest in the target too, so lines that hold parts of several are written while they are at hand.
            for row in self.rows.clone().step_by(I::LANES) {
                for column in self.columns.clone().step_by(I::LANES) {
                    for place in self.places {
                        self.block::<I, false>(isa, *place, [row, column], &mut room);
                    }
                }
            }
        }
    }
}

impl<T: Stored> Piece<'_, T> {
    /// At most a vector of rows and of columns.
    #[inline(always)]
    fn block<I: Isa, const PAST: bool>(&self, isa: I, place: [usize; 2], [row, column]: [usize; 2], room: &mut Room) {
        let [from_step, to_step] = self.steps;
        let rows = I::LANES.min(self.rows.end - row);
        let columns = I::LANES.min(self.columns.end - column);
        // SAFETY: `Transposition::run` has checked that the last number of all lies in both buffers, and no two tasks have the same. A type with one number in a word is f32.
        unsafe {
            let from = self.from.as_ptr().add(place[0] + row * from_step + column);
            let to = self.out.at(place[1] + column * to_step + row);
            if T::IN_WORD > 1 {
                // In f32, which holds the numbers exactly.
                let [lines, turned] = room;
                for (i, line) in lines.chunks_exact_mut(I::LANES).take(rows).enumerate() {
                    isa.store(line, T::load_part_at(isa, from.add(i * from_step), columns));
                }
                isa.transpose(lines, I::LANES, turned, I::LANES);
                for (j, line) in turned.chunks_exact(I::LANES).take(columns).enumerate() {
                    T::store_part_at(isa, to.add(j * to_step), rows, isa.load(line));
                }
            } else if [rows, columns] != [I::LANES; 2] {
                for j in 0..columns {
                    for i in 0..rows {
                        *to.add(j * to_step + i) = *from.add(i * from_step + j);
                    }
                }
            } else if PAST {
                // All steps in the target, `row` included, are multiples of a vector.
                isa.transpose_past_caches_at(from.cast(), from_step, to.cast(), to_step);
            } else {
                isa.transpose_at(from.cast(), from_step, to.cast(), to_step);
            }
        }
    }
}
