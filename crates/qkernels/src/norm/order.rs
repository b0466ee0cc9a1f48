//! How the channels of a tensor lie in memory, and passes over it by channel.

use crate::elementwise::runs::{COPIES, PIECE, copies, parts, sweep_runs};
use crate::elementwise::sweep::{Sweep, sweep};
use crate::isa::Stored;
use crate::layout::{is_only_batch_innermost, to_channels_last};
use crate::par;
use crate::reduce::columns::{Columns, columns, fold_run, piece_totals};
use qtensor::{Result, Tensor};

/// A matrix in memory of which one side is the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `[rows, channels]`: `[N, C]` and channels-last images.
    Columns,
    /// `[channels, values]`: the batch is innermost.
    Runs,
}

impl Order {
    /// The order in which a tensor is worked on, and the tensor in it: others than both become columns.
    pub(super) fn of(x: &Tensor) -> Result<(Order, Tensor)> {
        if is_only_batch_innermost(x) {
            return Ok((Order::Runs, x.clone()));
        }
        Ok((Order::Columns, to_channels_last(x)?))
    }

    /// Runs a pass whose parameters have a value for each channel.
    pub(super) fn sweep<S, T, const R: usize, const P: usize>(
        self,
        pass: S,
        reads: [&[T]; R],
        parameters: [&[f32]; P],
        write: &mut [T],
    ) where
        S: Sweep<R, P, 1>,
        T: Stored,
    {
        match self {
            Order::Columns => sweep(pass, reads, parameters, [write]),
            Order::Runs => sweep_runs(pass, reads, parameters, write),
        }
    }

    /// The totals of each channel; at least one parameter has a value for each.
    pub(super) fn totals<C, T, const R: usize, const P: usize, const S: usize>(
        self,
        rule: C,
        reads: [&[T]; R],
        parameters: [&[f32]; P],
    ) -> [Vec<f64>; S]
    where
        C: Columns<R, P, S>,
        T: Stored,
    {
        let (length, channels) = (reads[0].len(), parameters[0].len());
        if self == Order::Columns {
            return columns(rule, reads, parameters, channels);
        }
        let run = length / channels.max(1);
        let pieces = par::map(length.div_ceil(PIECE), |i| {
            let of_part = |(channel, part): (usize, std::ops::Range<usize>)| {
                let copies = copies(parameters, channel);
                let reads = reads.map(|r| &r[part.clone()]);
                (channel, piece_totals(rule, reads, copies.each_ref().map(|p| &p[..]), COPIES))
            };
            parts(i * PIECE..length.min((i + 1) * PIECE), run).map(of_part).collect()
        });
        join_runs(rule, channels, pieces)
    }
}

/// The totals of each channel from those of the parts of its run, in their order.
pub(super) fn join_runs<C, const R: usize, const P: usize, const S: usize>(
    rule: C,
    channels: usize,
    pieces: Vec<Vec<(usize, [Vec<f32>; S])>>,
) -> [Vec<f64>; S]
where
    C: Columns<R, P, S>,
{
    let mut totals = std::array::from_fn(|_| vec![f64::from(C::START); channels]);
    for (channel, part) in pieces.iter().flatten() {
        fold_run(rule, part, &mut totals, *channel);
    }
    totals
}
