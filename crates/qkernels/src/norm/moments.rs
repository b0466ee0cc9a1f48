//! Means and variances of values that were just written, taken by the thread that wrote them while its cache still holds them.

use crate::isa::{Isa, Kernel, MOST_LANES, Stored, dispatch};
use crate::par::SharedOut;
use qtensor::{Error, Result};
use std::ops::Range;

/// Mean and biased variance of each channel of a tensor, which the kernel took that wrote it: see [`conv2d_measured`](crate::conv::conv2d_measured).
///
/// Of joined tensors all channels of the first come first, then all of the second, and so on.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Values of a channel.
    count: usize,
    mean: Vec<f64>,
    var: Vec<f64>,
}

impl Moments {
    /// Those of a whole whose pieces are given in an order of its own.
    pub(crate) fn of_pieces(channels: usize, pieces: &[Piece]) -> Moments {
        let mut count = vec![0; channels];
        let mut mean = vec![0.0; channels];
        let mut squares = vec![0.0; channels];
        for (c, piece, [m, _]) in pieces.iter().flat_map(Piece::by_channel) {
            count[c] += piece.count;
            mean[c] += piece.count as f64 * m;
        }
        let of = |c: usize, sum: f64| sum / count[c].max(1) as f64;
        mean.iter_mut().enumerate().for_each(|(c, mean)| *mean = of(c, *mean));
        for (c, piece, [m, square]) in pieces.iter().flat_map(Piece::by_channel) {
            squares[c] += square + piece.count as f64 * (m - mean[c]).powi(2);
        }
        let var = squares.iter().enumerate().map(|(c, square)| of(c, *square).max(0.0)).collect();
        Moments { count: count.first().copied().unwrap_or(0), mean, var }
    }

    /// Those of tensors of one shape, joined in this order; `None` of none.
    pub fn joined(parts: impl IntoIterator<Item = Moments>) -> Option<Moments> {
        parts.into_iter().reduce(|mut all, part| {
            all.mean.extend(part.mean);
            all.var.extend(part.var);
            all
        })
    }

    /// Means and variances of `channels` channels of `count` values each.
    ///
    /// # Errors
    /// They are those of another tensor.
    pub(crate) fn of(&self, op: &'static str, [channels, count]: [usize; 2]) -> Result<(Vec<f64>, Vec<f64>)> {
        if self.mean.len() != channels || self.count != count {
            let message = format!(
                "the statistics are those of {} channels of {} values, not of {channels} of {count}",
                self.mean.len(),
                self.count
            );
            return Err(Error::argument(op, message));
        }
        Ok((self.mean.clone(), self.var.clone()))
    }

    /// Means and variances.
    pub(crate) fn into_parts(self) -> (Vec<f64>, Vec<f64>) {
        (self.mean, self.var)
    }
}

/// What a part of the values tells of some neighbouring channels.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The first of the channels.
    pub(crate) first: usize,
    /// Values of each channel.
    pub(crate) count: usize,
    /// Of each channel the mean, and the sum of the squares of the deviations from it.
    pub(crate) values: Vec<[f64; 2]>,
}

impl Piece {
    /// What some whole pixels of channels-last values tell.
    pub(crate) fn of<T: Stored>(pixels: &mut [T], channels: usize) -> Piece {
        let count = pixels.len() / channels.max(1);
        dispatch(Region {
            memory: SharedOut::new(pixels),
            runs: std::slice::from_ref(&(0..count)),
            pixel: channels,
            channels: 0..if count == 0 { 0 } else { channels },
            first: 0,
        })
    }

    fn by_channel(&self) -> impl Iterator<Item = (usize, &Piece, [f64; 2])> {
        self.values.iter().enumerate().map(move |(i, value)| (self.first + i, self, *value))
    }
}

/// Some pixels and some channels of a channels-last tensor in memory.
pub(crate) struct Region<'a, T> {
    pub(crate) memory: SharedOut<T>,
    /// Runs of neighbouring pixels; none is empty.
    pub(crate) runs: &'a [Range<usize>],
    /// Channels of a pixel.
    pub(crate) pixel: usize,
    /// Those that are looked at.
    pub(crate) channels: Range<usize>,
    /// What the first channel of the tensor is called in the result.
    pub(crate) first: usize,
}

/// Pixels that one running sum takes, a fourth of them each of its four parts.
const BLOCK: usize = 256;
/// Pixels that tell about where a mean lies.
const SAMPLES: usize = 8;

impl<T: Stored> Kernel for Region<'_, T> {
    type Output = Piece;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Piece {
        let count = self.runs.iter().map(|run| run.len()).sum();
        let mut values = Vec::with_capacity(self.channels.len());
        for first in self.channels.clone().step_by(I::LANES) {
            let lanes = I::LANES.min(self.channels.end - first);
            // SAFETY: the runs lie in the tensor, which this thread has just written there.
            let sums = unsafe {
                if lanes == I::LANES {
                    self.sums::<I, true>(isa, first, lanes)
                } else {
                    self.sums::<I, false>(isa, first, lanes)
                }
            };
            let [mut near, mut first_order, mut second_order] = [[0.0; MOST_LANES]; 3];
            isa.store(&mut near, sums[0]);
            isa.store(&mut first_order, sums[1]);
            isa.store(&mut second_order, sums[2]);
            for lane in 0..lanes {
                let [near, d, dd] = [near[lane], first_order[lane], second_order[lane]].map(f64::from);
                values.push([near + d / count as f64, dd - d * d / count as f64]);
            }
        }
        Piece { first: self.first + self.channels.start, count, values }
    }
}

impl<T: Stored> Region<'_, T> {
    /// For a vector of channels a value near the mean `m`, Σ(x - m) and Σ(x - m)².
    ///
    /// # Safety
    /// The pixels of the runs must be readable.
    #[inline(always)]
    unsafe fn sums<I: Isa, const WHOLE: bool>(&self, isa: I, first: usize, lanes: usize) -> [I::F32; 3] {
        // SAFETY: the caller's promise.
        let load = |pixel: usize| unsafe {
            let from = self.memory.at(pixel * self.pixel + first).cast_const();
            if WHOLE { T::load_at(isa, from) } else { T::load_part_at(isa, from, lanes) }
        };
        let mut near = isa.zero();
        for i in 0..SAMPLES {
            let run = &self.runs[i * self.runs.len() / SAMPLES];
            near = isa.add(near, load(run.start + i * run.len() / SAMPLES));
        }
        let near = isa.mul(near, isa.splat(1.0 / SAMPLES as f32));
        let mut totals = [isa.zero(); 2];
        for run in self.runs {
            for start in run.clone().step_by(BLOCK) {
                let end = run.end.min(start + BLOCK);
                let (mut d, mut dd) = ([isa.zero(); 4], [isa.zero(); 4]);
                let mut pixel = start;
                while pixel + 4 <= end {
                    for i in 0..4 {
                        let x = isa.sub(load(pixel + i), near);
                        d[i] = isa.add(d[i], x);
                        dd[i] = isa.fma(x, x, dd[i]);
                    }
                    pixel += 4;
                }
                while pixel < end {
                    let x = isa.sub(load(pixel), near);
                    d[0] = isa.add(d[0], x);
                    dd[0] = isa.fma(x, x, dd[0]);
                    pixel += 1;
                }
                for (total, [a, b, c, d]) in totals.iter_mut().zip([d, dd]) {
                    *total = isa.add(*total, isa.add(isa.add(a, b), isa.add(c, d)));
                }
            }
        }
        [near, totals[0], totals[1]]
    }
}
