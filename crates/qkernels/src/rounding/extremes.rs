//! The smallest and the largest value of each group: all that ranges by the largest magnitude need, read as fast as memory gives it.

use super::floats::{BLOCK, Floats};
use super::groups::{Groups, not_finite, parts};
use super::statistics::{Statistics, join};
use crate::isa::{Isa, Kernel, dispatch};
use crate::par;
use qtensor::{Result, Tensor};

/// Values side by side, whatever the width of a vector: two of the widest, whose operations overlap.
const LANES: usize = 32;
/// Values that one thread takes at a time.
const PIECE: usize = 128 * 1024;

/// Count, smallest and largest value of each group of a tensor in f32 or bf16; the other statistics are 0.
///
/// # Errors
/// As [`Statistics::of`].
pub(super) fn extremes(x: &Tensor, groups: &Groups) -> Result<Vec<Statistics>> {
    let op = "rounding range";
    let grouped = groups.of_floats(op, x)?;
    let values = Floats::of(&grouped.x)?;
    let pieces = par::map(values.len().div_ceil(PIECE), |i| {
        let mut room = [0.0; BLOCK];
        let (mut seen, mut is_finite) = (Vec::new(), true);
        for (group, part) in parts(&grouped.starts, i * PIECE..values.len().min((i + 1) * PIECE)) {
            for block in values.blocks(part) {
                let (statistics, finite) = dispatch(Extremes(values.block(block, &mut room)));
                seen.push((group, statistics));
                is_finite &= finite;
            }
        }
        (seen, is_finite)
    });
    if !pieces.iter().all(|(_, is_finite)| *is_finite) {
        return Err(not_finite(op, x));
    }
    Ok(join(grouped.count(), pieces.into_iter().map(|(seen, _)| seen).collect()))
}

/// Those of a slice, and whether all values are finite.
struct Extremes<'a>(&'a [f32]);

impl Kernel for Extremes<'_> {
    type Output = (Statistics, bool);

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> (Statistics, bool) {
        let mut lanes = Lanes::new();
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            lanes = lanes.with(chunk);
        }
        if let Some(value) = rest.first() {
            // One of the values again changes nothing.
            let mut last = [*value; LANES];
            last[..rest.len()].copy_from_slice(rest);
            lanes = lanes.with(&last);
        }
        let Lanes { min, max, largest } = lanes;
        let min = folded(min, |a, b| if b < a { b } else { a });
        let max = folded(max, |a, b| if b > a { b } else { a });
        let count = self.0.len() as f64;
        let statistics = Statistics { count, min: min.into(), max: max.into(), ..Statistics::default() };
        (statistics, folded(largest, u32::max) < f32::INFINITY.to_bits())
    }
}

/// Plain arrays, which the compiler keeps in vectors.
#[derive(Clone, Copy)]
struct Lanes {
    min: [f32; LANES],
    max: [f32; LANES],
    /// Bits of the largest magnitude: they have the order of magnitudes, and those of NaN come last.
    largest: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn new() -> Lanes {
        Lanes { min: [f32::INFINITY; LANES], max: [f32::NEG_INFINITY; LANES], largest: [0; LANES] }
    }

    /// Takes in a value for each lane.
    #[inline(always)]
    fn with(mut self, x: &[f32; LANES]) -> Lanes {
        self.min.iter_mut().zip(x).for_each(|(min, x)| *min = if *x < *min { *x } else { *min });
        self.max.iter_mut().zip(x).for_each(|(max, x)| *max = if *x > *max { *x } else { *max });
        self.largest.iter_mut().zip(x).for_each(|(bits, x)| *bits = (*bits).max(x.to_bits() & 0x7fff_ffff));
        self
    }
}

/// All lanes as one, by halves.
#[inline(always)]
fn folded<T: Copy>(mut lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = join(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}
