//! Passes over memory that is one run of values for each channel, such as images with the batch innermost: parameters are the same along a run.

use super::sweep::{Sweep, sweep_here};
use crate::isa::Stored;
use crate::par;
use std::ops::Range;

/// Values that one thread takes at a time.
pub(crate) const PIECE: usize = 32 * 1024;
/// Copies of a channel's parameters: they fill the unrolled loop of a pass on every instruction set.
pub(crate) const COPIES: usize = 64;

/// The channels that have values in a range of memory, each with its part of the range. `run` is positive.
pub(crate) fn parts(range: Range<usize>, run: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let channels = range.start / run..range.end.div_ceil(run);
    channels.map(move |c| (c, range.start.max(c * run)..range.end.min((c + 1) * run)))
}

/// The parameters of a channel as those of [`sweep_here`] and of [`piece_totals`](crate::reduce::columns::piece_totals).
#[inline(always)]
pub(crate) fn copies<const P: usize>(parameters: [&[f32]; P], channel: usize) -> [[f32; COPIES]; P] {
    parameters.map(|p| [p[channel]; COPIES])
}

/// Runs a pass. All of `reads` and `write` have one length, a multiple of that of all `parameters`, which have a value for each run.
pub(crate) fn sweep_runs<S, T, const R: usize, const P: usize>(
    sweep: S,
    reads: [&[T]; R],
    parameters: [&[f32]; P],
    write: &mut [T],
) where
    S: Sweep<R, P, 1>,
    T: Stored,
{
    let run = write.len() / parameters.first().map_or(1, |p| p.len()).max(1);
    par::for_each_chunk(write, PIECE, |i, write| {
        let start = i * PIECE;
        for (channel, part) in parts(start..start + write.len(), run) {
            let copies = copies(parameters, channel);
            let to = &mut write[part.start - start..part.end - start];
            sweep_here(sweep, reads.map(|r| &r[part.clone()]), copies.each_ref().map(|p| &p[..]), [to]);
        }
    });
}
