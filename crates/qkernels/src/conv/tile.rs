//! The register tile of the correlations: a few output pixels by one or two vectors of channels, summed over runs of source values.

use super::unroll::unrolled;
use crate::Activation;
use crate::isa::Isa;

/// Consecutive source values that are multiplied with consecutive rows of a panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Distance from the position of the output pixel in the source.
    pub(super) offset: usize,
    pub(super) length: usize,
}

/// Where an output pixel reads and writes, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) source: usize,
    pub(super) output: usize,
}

/// One strip of output pixels by one panel.
#[derive(Clone, Copy)]
pub(super) struct Strip<'a> {
    pub(super) source: *const f32,
    pub(super) output: *mut f32,
    pub(super) places: &'a [Place],
    pub(super) runs: &'a [Run],
    /// Rows of as many lanes as the panel is wide.
    pub(super) panel: *const f32,
    /// Channels that exist; the lanes beyond are not stored.
    pub(super) lanes: usize,
    /// Whether the output holds a partial sum to continue.
    pub(super) resume: bool,
    /// Bias and activation, after the last run of an output pixel.
    pub(super) finish: Option<Finish>,
}

/// What happens to a finished sum.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// As many values as the strip has lanes, or null.
    pub(super) bias: *const f32,
    pub(super) activation: Activation,
}

/// Sums all runs for all places, in tiles of as many pixels as the registers hold. The panel is `V` vectors wide.
///
/// # Safety
/// Every place and run must lie in the source, every place with the strip's lanes in the output, which nobody else uses meanwhile;
/// the panel must have a row for each value of the runs.
#[inline(always)]
pub(super) unsafe fn strip<I: Isa, const V: usize>(isa: I, s: &Strip) {
    let mut places = s.places;
    macro_rules! tiles {
        ($($rows:literal)*) => {{$(
            while let Some((now, later)) = places.split_first_chunk::<$rows>() {
                // SAFETY: as promised by the caller.
                unsafe { tile::<I, $rows, V>(isa, s, now) };
                places = later;
            }
        )*}};
    }
    // Inline constants, so that the tiles of other cases are not even compiled.
    if const { I::REGISTERS >= 32 } {
        match V {
            1 => tiles!(24 16 8 4 2 1),
            2 => tiles!(12 8 4 2 1),
            _ => tiles!(8 4 2 1),
        }
    } else {
        match V {
            1 => tiles!(12 8 4 2 1),
            2 => tiles!(6 4 2 1),
            _ => tiles!(4 2 1),
        }
    }
}

/// `R` pixels by `V` vectors, in registers.
///
/// # Safety
/// As [`strip`].
#[inline(always)]
unsafe fn tile<I: Isa, const R: usize, const V: usize>(isa: I, s: &Strip, places: &[Place; R]) {
    // SAFETY: all addresses below lie where the caller of `strip` promised.
    unsafe {
        let mut sums = [[isa.zero(); V]; R];
        if !s.resume {
            // Stores wait for their lines; these arrive during the sums.
            for place in places {
                for v in 0..V {
                    isa.prefetch(s.output.wrapping_add(place.output + v * I::LANES));
                }
            }
        } else if s.lanes == V * I::LANES {
            unrolled!(ROW < R {
                for (v, sum) in sums[ROW].iter_mut().enumerate() {
                    *sum = isa.load_at(s.output.add(places[ROW].output + v * I::LANES));
                }
            });
        } else {
            unrolled!(ROW < R {
                for (v, sum) in sums[ROW].iter_mut().enumerate() {
                    *sum = load(isa, s.output.add(places[ROW].output), v, s.lanes);
                }
            });
        }
        let mut sums = accumulate(isa, s, places, sums);
        let finish = s.finish.unwrap_or(Finish { bias: std::ptr::null(), activation: Activation::None });
        if !finish.bias.is_null() {
            for v in 0..V {
                let bias = load(isa, finish.bias, v, s.lanes);
                unrolled!(ROW < R {
                    sums[ROW][v] = isa.add(sums[ROW][v], bias);
                });
            }
        }
        if s.lanes == V * I::LANES && finish.activation == Activation::None {
            unrolled!(ROW < R {
                for (v, sum) in sums[ROW].iter().enumerate() {
                    isa.store_at(s.output.add(places[ROW].output + v * I::LANES), *sum);
                }
            });
        } else {
            // A copy in memory, which a loop may index without forcing the sums out of their registers above.
            let mut stored = [[isa.zero(); V]; R];
            unrolled!(ROW < R {
                stored[ROW] = sums[ROW];
            });
            for (sums, place) in stored.iter().zip(places) {
                for (v, sum) in sums.iter().enumerate() {
                    let count = s.lanes.saturating_sub(v * I::LANES).min(I::LANES);
                    let y = finish.activation.apply_vector(isa, *sum);
                    isa.store_part_at(s.output.add(place.output + v * I::LANES), count, y);
                }
            }
        }
    }
}

/// The products. The sums come and go by value: an array that other loops index by a variable would be kept in memory.
///
/// # Safety
/// As [`strip`].
#[inline(always)]
unsafe fn accumulate<I: Isa, const R: usize, const V: usize>(
    isa: I,
    s: &Strip,
    places: &[Place; R],
    mut sums: [[I::F32; V]; R],
) -> [[I::F32; V]; R] {
    const { assert!(R <= 28, "`unrolled` has no more rows") };
    // SAFETY: the caller's promise.
    unsafe {
        let mut panel = s.panel;
        for run in s.runs {
            let mut from = [s.source; R];
            for (from, place) in from.iter_mut().zip(places) {
                *from = s.source.add(place.source + run.offset);
            }
            let mut k = 0;
            if V == 1 && R > 8 {
                // So many pointers do not fit the registers: four values of each are taken at once.
                while k + 4 <= run.length {
                    let mut weights = [isa.zero(); 4];
                    for (step, weights) in weights.iter_mut().enumerate() {
                        *weights = isa.load_at(panel.add(step * I::LANES));
                    }
                    panel = panel.add(4 * I::LANES);
                    sums = four_steps(isa, &from, k, weights, sums);
                    k += 4;
                }
            }
            while k < run.length {
                let mut weights = [isa.zero(); V];
                for (v, weights) in weights.iter_mut().enumerate() {
                    *weights = isa.load_at(panel.add(v * I::LANES));
                }
                panel = panel.add(V * I::LANES);
                unrolled!(ROW < R {
                    let x = isa.splat(*from[ROW].add(k));
                    for (sum, weights) in sums[ROW].iter_mut().zip(&weights) {
                        *sum = isa.fma(x, *weights, *sum);
                    }
                });
                k += 1;
            }
        }
        sums
    }
}

/// Four products for each of `R` pixels, from `k` on.
///
/// # Safety
/// As [`strip`].
#[inline(always)]
unsafe fn four_steps<I: Isa, const R: usize, const V: usize>(
    isa: I,
    from: &[*const f32; R],
    k: usize,
    weights: [I::F32; 4],
    mut sums: [[I::F32; V]; R],
) -> [[I::F32; V]; R] {
    // Eight independent sums at a time hide the latency of an addition.
    unrolled!(GROUP in [0 8 16 24] {
        unrolled!(STEP in [0 1 2 3] {
            unrolled!(ONE in [0 1 2 3 4 5 6 7] {
                const ROW: usize = GROUP + ONE;
                if ROW < R {
                    // SAFETY: the caller's promise.
                    let x = isa.splat(unsafe { *from[ROW].add(k + STEP) });
                    sums[ROW][0] = isa.fma(x, weights[STEP], sums[ROW][0]);
                }
            });
        });
    });
    sums
}

/// Vector `v` of the `lanes` values at `from`.
///
/// # Safety
/// The values must be readable.
#[inline(always)]
unsafe fn load<I: Isa>(isa: I, from: *const f32, v: usize, lanes: usize) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe {
        let from = from.add(v * I::LANES);
        if lanes >= (v + 1) * I::LANES { isa.load_at(from) } else { isa.load_part_at(from, lanes - v * I::LANES) }
    }
}
