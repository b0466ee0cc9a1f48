//! The register tile of the correlations: a few output pixels by one or two vectors of channels, summed over runs of source values.

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
    match const { (I::REGISTERS >= 32, V < 3) } {
        (true, true) => tiles!(12 8 4 2 1),
        (true, false) => tiles!(8 4 2 1),
        (false, true) => tiles!(6 4 2 1),
        (false, false) => tiles!(4 2 1),
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
        let mut start = [[isa.zero(); V]; R];
        if s.resume {
            for (sums, place) in start.iter_mut().zip(places) {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load::<I>(isa, s.output.add(place.output), v, s.lanes);
                }
            }
        }
        let mut sums = accumulate(isa, s, places, start);
        if let Some(finish) = s.finish {
            complete(isa, finish, s.lanes, &mut sums);
        }
        for (sums, place) in sums.iter().zip(places) {
            for (v, sum) in sums.iter().enumerate() {
                let to = s.output.add(place.output + v * I::LANES);
                if s.lanes >= (v + 1) * I::LANES {
                    isa.store_at(to, *sum);
                } else {
                    isa.store_part_at(to, s.lanes - v * I::LANES, *sum);
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
    // SAFETY: the caller's promise.
    unsafe {
        let mut panel = s.panel;
        for run in s.runs {
            let mut from = [s.source; R];
            for (from, place) in from.iter_mut().zip(places) {
                *from = s.source.add(place.source + run.offset);
            }
            for k in 0..run.length {
                let mut weights = [isa.zero(); V];
                for (v, weights) in weights.iter_mut().enumerate() {
                    *weights = isa.load_at(panel.add(v * I::LANES));
                }
                panel = panel.add(V * I::LANES);
                for (sums, from) in sums.iter_mut().zip(&from) {
                    let x = isa.splat(*from.add(k));
                    for (sum, weights) in sums.iter_mut().zip(&weights) {
                        *sum = isa.fma(x, *weights, *sum);
                    }
                }
            }
        }
        sums
    }
}

/// Bias and activation.
///
/// # Safety
/// `lanes` values must be readable at the bias, where there is one.
#[inline(always)]
unsafe fn complete<I: Isa, const R: usize, const V: usize>(
    isa: I,
    finish: Finish,
    lanes: usize,
    sums: &mut [[I::F32; V]; R],
) {
    if !finish.bias.is_null() {
        for v in 0..V {
            // SAFETY: the caller's promise.
            let bias = unsafe { load::<I>(isa, finish.bias, v, lanes) };
            for sums in sums.iter_mut() {
                sums[v] = isa.add(sums[v], bias);
            }
        }
    }
    if finish.activation != Activation::None {
        for sum in sums.iter_mut().flatten() {
            *sum = finish.activation.apply_vector(isa, *sum);
        }
    }
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
