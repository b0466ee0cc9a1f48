//! The weights by output and by input, each with where it reads and where its value is.

use super::Pattern;
use super::walk::Direction;
use crate::conv::Geometry;

/// A weight as the sum of one target channel sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The source channel.
    pub(super) channel: u32,
    /// Its place in the kernel, row and column.
    pub(super) tap: [u32; 2],
    /// Its place among the values.
    pub(super) position: u32,
}

/// The weights of each target channel.
pub(super) struct Entries {
    /// The first of each channel, and the end of the last.
    pub(super) starts: Vec<usize>,
    pub(super) entries: Vec<Entry>,
}

impl Entries {
    /// By output channel, in the order of the values, or by input channel, in the order of the outputs that it goes to.
    pub(super) fn new(pattern: &Pattern, g: &Geometry, direction: Direction) -> Entries {
        match direction {
            Direction::Forward => {
                let starts = (0..g.filters).map(|o| pattern.row(o).start).chain([pattern.len()]).collect();
                Entries { starts, entries: by_output(pattern, g).map(|(_, entry)| entry).collect() }
            }
            Direction::InputGrad => by_input(pattern, g),
        }
    }
}

/// Every weight with its output channel; the entry has the input channel.
fn by_output(pattern: &Pattern, g: &Geometry) -> impl Iterator<Item = (usize, Entry)> {
    let taps = g.kernel[0] * g.kernel[1];
    let (inputs, outputs) = (g.channels / g.groups, (g.filters / g.groups).max(1));
    let kernel_width = g.kernel[1];
    (0..pattern.rows()).flat_map(move |o| {
        let first = o / outputs * inputs;
        pattern.columns(o).iter().zip(pattern.row(o)).map(move |(column, position)| {
            let (channel, tap) = (*column as usize / taps, *column as usize % taps);
            let tap = [(tap / kernel_width) as u32, (tap % kernel_width) as u32];
            (o, Entry { channel: (first + channel) as u32, tap, position: position as u32 })
        })
    })
}

/// The transposed index, by counting.
fn by_input(pattern: &Pattern, g: &Geometry) -> Entries {
    let mut starts = vec![0; g.channels + 1];
    by_output(pattern, g).for_each(|(_, entry)| starts[entry.channel as usize + 1] += 1);
    (0..g.channels).for_each(|c| starts[c + 1] += starts[c]);
    let mut next = starts.clone();
    let mut entries = vec![Entry { channel: 0, tap: [0; 2], position: 0 }; pattern.len()];
    for (output, entry) in by_output(pattern, g) {
        let place = &mut next[entry.channel as usize];
        entries[*place] = Entry { channel: output as u32, ..entry };
        *place += 1;
    }
    Entries { starts, entries }
}
