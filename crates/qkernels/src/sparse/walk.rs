//! What one direction of a layer sums: for each set of taps that occurs, every target channel's list of source places and values.

use super::Pattern;
use super::axis::{Axis, Tap};
use super::transposed::Entries;
use crate::conv::Geometry;
use crate::par;
use qtensor::{Error, Result};
use std::ops::Range;

/// Which sums are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Outputs from inputs.
    Forward,
    /// Gradients of inputs from those of outputs.
    InputGrad,
}

/// The lists of all target channels for target pixels that have the same taps.
#[derive(Clone, Debug)]
pub(super) struct List {
    /// The first item of each target channel, and the end of the last.
    pub(super) starts: Vec<usize>,
    /// Source pixels from the base of the target pixel, plus [`shift`](Self::shift); rising from channel to channel.
    pub(super) offsets: Vec<u32>,
    /// The place of each item's value.
    pub(super) positions: Vec<u32>,
    /// Whether every value has an item, in order.
    pub(super) is_whole: bool,
    /// What makes offsets positive.
    pub(super) shift: isize,
}

/// One direction of a layer.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// Channels, rows and columns.
    pub(super) source: [usize; 3],
    /// Channels, rows and columns.
    pub(super) target: [usize; 3],
    pub(super) rows: Axis,
    pub(super) columns: Axis,
    /// For each class of rows one for each class of columns.
    pub(super) lists: Vec<List>,
    /// Rows and columns from the base of a target pixel to the first that its taps may read.
    pub(super) lowest: [isize; 2],
    /// Rows and columns that they span.
    pub(super) span: [usize; 2],
}

impl Walk {
    /// # Errors
    /// The source has more pixels than 32 bits count.
    pub(super) fn new(pattern: &Pattern, g: &Geometry, direction: Direction) -> Result<Walk> {
        let (rows, columns) = (Axis::new(g, 0, direction), Axis::new(g, 1, direction));
        let (inputs, outputs) = ([g.channels, g.input[0], g.input[1]], [g.filters, g.out[0], g.out[1]]);
        let [source, target] = match direction {
            Direction::Forward => [inputs, outputs],
            Direction::InputGrad => [outputs, inputs],
        };
        let ((top, height), (left, width)) = (rows.reach(), columns.reach());
        let (lowest, span) = ([top, left], [height, width]);
        // Offsets lie below the number of source pixels and what the taps of one reach.
        let most = source.iter().product::<usize>() as u128 + (span[0] as u128 + 1) * (source[2] + span[1]) as u128;
        if most > u128::from(u32::MAX) {
            let [channels, height, width] = source;
            let message = format!("{channels}×{height}×{width} channels and pixels are more than 32 bits count");
            return Err(Error::shape("sparse plan", message));
        }
        let entries = Entries::new(pattern, g, direction);
        let pairs: Vec<_> = rows.classes.iter().flat_map(|r| columns.classes.iter().map(move |c| (r, c))).collect();
        let lists = par::map(pairs.len(), |i| List::new(&entries, pairs[i], source, g.kernel));
        Ok(Walk { source, target, rows, columns, lists, lowest, span })
    }

    /// Items of the longest list.
    pub(super) fn items(&self) -> usize {
        self.lists.iter().map(|list| list.offsets.len()).max().unwrap_or(0)
    }

    /// The target channels in at most `count` ranges of about equal numbers of items.
    pub(super) fn channel_ranges(&self, count: usize) -> Vec<Range<usize>> {
        let Some(list) = self.lists.iter().max_by_key(|list| list.offsets.len()) else { return Vec::new() };
        let channels = list.starts.len() - 1;
        let place = |i: usize| list.starts.partition_point(|start| *start < list.offsets.len() * i / count);
        let ends = (1..count).map(|i| place(i).min(channels)).chain([channels]);
        let mut start = 0;
        let range = |end| (end > start).then(|| std::mem::replace(&mut start, end)..end);
        ends.filter_map(range).collect()
    }

    /// The index of the list for a class of rows and one of columns.
    pub(super) fn list(&self, row: usize, column: usize) -> usize {
        row * self.columns.classes.len() + column
    }
}

impl List {
    fn new(entries: &Entries, (rows, columns): (&Vec<Tap>, &Vec<Tap>), source: [usize; 3], kernel: [usize; 2]) -> List {
        let [_, height, width] = source;
        let steps = |taps: &[Tap], length: usize| {
            let mut steps = vec![None; length];
            taps.iter().for_each(|tap| steps[tap.kernel] = Some(tap.step));
            steps
        };
        let (row_steps, column_steps) = (steps(rows, kernel[0]), steps(columns, kernel[1]));
        let lowest = |taps: &[Tap]| taps.iter().map(|tap| tap.step).min().unwrap_or(0);
        let shift = -(lowest(rows) * width as isize + lowest(columns));
        let mut list = List {
            starts: Vec::with_capacity(entries.starts.len()),
            offsets: Vec::with_capacity(entries.entries.len()),
            positions: Vec::with_capacity(entries.entries.len()),
            is_whole: false,
            shift,
        };
        list.starts.push(0);
        for range in entries.starts.windows(2) {
            for entry in &entries.entries[range[0]..range[1]] {
                let [row, column] = entry.tap.map(|place| place as usize);
                let (Some(row), Some(column)) = (row_steps[row], column_steps[column]) else { continue };
                let plane = entry.channel as usize * height * width;
                // Not negative, and below the bound that the walk has checked.
                list.offsets.push((plane as isize + row * width as isize + column + shift) as u32);
                list.positions.push(entry.position);
            }
            list.starts.push(list.offsets.len());
        }
        let in_order = list.positions.iter().enumerate().all(|(i, position)| i == *position as usize);
        list.is_whole = in_order && list.positions.len() == entries.entries.len();
        list
    }

    /// Where the lists of the target channels cross into the next block of `planes` pixels: `blocks` starts for each channel, and the end of the last.
    pub(super) fn cuts(&self, blocks: usize, planes: usize) -> Vec<usize> {
        let mut cuts = Vec::with_capacity((self.starts.len() - 1) * blocks + 1);
        for range in self.starts.windows(2) {
            let mut start = range[0];
            cuts.push(start);
            for block in 1..blocks {
                let offsets = &self.offsets[start..range[1]];
                start += offsets.partition_point(|offset| (*offset as usize) < block * planes);
                cuts.push(start);
            }
        }
        cuts.push(self.offsets.len());
        cuts
    }
}
