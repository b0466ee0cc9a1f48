//! One pass over memory from f32 to codes of a byte.

use super::floats::{BLOCK, Floats};
use super::groups::{Grouped, not_finite, parts};
use super::noise::{GROUP, Noise, Rounding};
use super::statistics::{Measure, Statistics, join};
use crate::isa::{Isa, Kernel, dispatch};
use crate::par;
use qtensor::{Result, Tensor};

/// Values that one thread takes at a time: whole groups of noise.
const PIECE: usize = 64 * 1024;

/// The code of a number.
pub(super) trait Code: Copy + Send + Sync {
    /// To the nearest.
    fn nearest(self, x: f32) -> u8;
    /// With `u` uniform in `(0, 1)`.
    fn stochastic(self, x: f32, u: f32) -> u8;
}

/// What a pass looks at besides the codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Whether all values are finite.
    Finite,
    /// Their statistics.
    Statistics,
}

/// Values and where their codes go.
pub(super) struct Pass<'a> {
    pub(super) op: &'static str,
    pub(super) grouped: &'a Grouped,
    pub(super) rounding: Rounding,
    pub(super) look: Look,
}

impl Pass<'_> {
    /// Writes the codes of all groups to `to`, which has the order of the values in memory. The statistics of each group, if they are looked at.
    ///
    /// # Errors
    /// A value that is infinite or not a number.
    pub(super) fn run<C: Code>(&self, to: &mut [u8], code: impl Fn(usize) -> C + Sync) -> Result<Vec<Statistics>> {
        let from = Floats::of(&self.grouped.x)?;
        let pieces = par::map_chunks(to, PIECE, |piece, to| {
            let start = piece * PIECE;
            let mut noise = self.rounding.noise();
            let mut room = [0.0; BLOCK];
            let (mut seen, mut finite) = (Vec::new(), true);
            for (group, part) in parts(&self.grouped.starts, start..start + to.len()) {
                for at in part.clone().step_by(BLOCK) {
                    let block = at..part.end.min(at + BLOCK);
                    let from = from.block(block.clone(), &mut room);
                    if self.look == Look::Statistics {
                        seen.push((group, dispatch(Measure(from))));
                    }
                    let to = &mut to[block.start - start..block.end - start];
                    let run = Run { from, to, first: at as u64, code: code(group), noise: noise.as_mut() };
                    finite &= dispatch(run);
                }
            }
            (seen, finite)
        });
        let finite = pieces.iter().all(|(_, finite)| *finite);
        if !finite {
            return Err(not_finite(self.op, &self.grouped.x));
        }
        Ok(match self.look {
            Look::Finite => Vec::new(),
            Look::Statistics => join(self.grouped.count(), pieces.into_iter().map(|(seen, _)| seen).collect()),
        })
    }
}

/// The codes of values that lie side by side, the first of which is at place `first` of the result. Gives whether all are finite.
pub(super) struct Run<'a, C> {
    pub(super) from: &'a [f32],
    pub(super) to: &'a mut [u8],
    pub(super) first: u64,
    pub(super) code: C,
    pub(super) noise: Option<&'a mut Noise>,
}

impl<C: Code> Kernel for Run<'_, C> {
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(mut self, _: I) -> bool {
        let (mut at, mut largest) = (0, 0);
        while at < self.from.len() {
            let place = self.first + at as u64;
            let (skipped, noise) = match &mut self.noise {
                None => (0, None),
                Some(noise) => ((place % GROUP as u64) as usize, Some(noise.of(place / GROUP as u64))),
            };
            let count = (GROUP - skipped).min(self.from.len() - at);
            let (from, to) = (&self.from[at..at + count], &mut self.to[at..at + count]);
            let magnitude = match (from.first_chunk::<GROUP>(), to.first_chunk_mut::<GROUP>(), noise) {
                (Some(from), Some(to), _) => chunk(self.code, from, to, noise),
                (_, _, None) => short(self.code, from, to),
                _ => {
                    let (mut values, mut codes) = ([0.0; GROUP], [0; GROUP]);
                    values[skipped..skipped + count].copy_from_slice(from);
                    let magnitude = chunk(self.code, &values, &mut codes, noise);
                    to.copy_from_slice(&codes[skipped..skipped + count]);
                    magnitude
                }
            };
            largest = magnitude.max(largest);
            at += count;
        }
        largest < f32::INFINITY.to_bits()
    }
}

/// As [`chunk`] to nearest, for fewer values than a group: rows of a sparse matrix.
#[inline(always)]
fn short<C: Code>(code: C, from: &[f32], to: &mut [u8]) -> u32 {
    const SHORT: usize = 16;
    let mut largest = 0;
    for (from, to) in from.chunks(SHORT).zip(to.chunks_mut(SHORT)) {
        let (mut values, mut codes) = ([0.0; SHORT], [0; SHORT]);
        values[..from.len()].copy_from_slice(from);
        largest = chunk(code, &values, &mut codes, None).max(largest);
        to.copy_from_slice(&codes[..to.len()]);
    }
    largest
}

/// The codes of some values, and the bits of their largest magnitude: NaN is larger than infinity.
#[inline(always)]
fn chunk<C: Code, const N: usize>(code: C, from: &[f32; N], to: &mut [u8; N], noise: Option<&[f32; N]>) -> u32 {
    let mut largest = 0;
    match noise {
        None => {
            for i in 0..N {
                to[i] = code.nearest(from[i]);
                largest = largest.max(from[i].to_bits() & 0x7fff_ffff);
            }
        }
        Some(noise) => {
            for i in 0..N {
                to[i] = code.stochastic(from[i], noise[i]);
                largest = largest.max(from[i].to_bits() & 0x7fff_ffff);
            }
        }
    }
    largest
}

/// The bytes of a tensor of i8 or u8, for writing.
pub(super) fn bytes_mut(x: &mut Tensor) -> Result<&mut [u8]> {
    match x.dtype() {
        qtensor::DType::I8 => Ok(bytemuck::cast_slice_mut(x.memory_mut::<i8>()?)),
        _ => x.memory_mut::<u8>(),
    }
}
