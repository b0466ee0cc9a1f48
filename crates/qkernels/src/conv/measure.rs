//! Means and variances of values that were just written, taken by the thread that wrote them while its cache still holds them.

use crate::isa::{Isa, Kernel, MOST_LANES, Stored, dispatch};
use crate::norm::moments::Piece;
use crate::par::SharedOut;
use std::ops::Range;

/// What some whole pixels of channels-last values tell.
pub(crate) fn pixels<T: Stored>(values: &mut [T], channels: usize) -> Piece {
    let count = values.len() / channels.max(1);
    dispatch(Region {
        memory: SharedOut::new(values),
        runs: std::slice::from_ref(&(0..count)),
        pixel: channels,
        channels: 0..if count == 0 { 0 } else { channels },
        first: 0,
    })
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
