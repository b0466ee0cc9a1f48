//! The one-dimensional transforms of F(4, 3) and F(2, 5), each on vectors of channels, and the two-dimensional ones made of them.
//!
//! Winograd's minimal filtering (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015): four outputs of a filter of three taps are
//! `Aᵀ [(G w) ⊙ (Bᵀ d)]` for six inputs `d`, with six products instead of twelve; in two dimensions 36 instead of 144. Two outputs of a filter of five taps take six products instead of ten, 36 instead
//! of 100, with the same `B`. The matrices come from six points at which
//! polynomials are evaluated: 0, ±3/4, ±3/2 and infinity. They cost as much as the usual 0, ±1, ±2, and being nearer to 1 they
//! keep the powers in the transforms, and with them the rounding errors, small (docs/numerics.md).

use crate::isa::Isa;

/// Inputs of a tile along an axis.
pub(super) const PATCH: usize = 6;
/// Products of a tile and a pair of channels: the points in two dimensions.
pub(super) const POINTS: usize = PATCH * PATCH;

/// How the points are shared between outputs and taps: `TILE + TAPS` is one more than the points along an axis.
pub(super) trait Form: Copy + Send + Sync + 'static {
    /// Outputs of a tile along an axis.
    const TILE: usize;
    /// Taps along an axis.
    const TAPS: usize;
    /// Taps of a filter.
    const ALL_TAPS: usize = Self::TAPS * Self::TAPS;
}

/// F(4×4, 3×3)
#[derive(Clone, Copy)]
pub(super) struct FourByThree;

impl Form for FourByThree {
    const TILE: usize = 4;
    const TAPS: usize = 3;
}

/// F(2×2, 5×5)
#[derive(Clone, Copy)]
pub(super) struct TwoByFive;

impl Form for TwoByFive {
    const TILE: usize = 2;
    const TAPS: usize = 5;
}

/// The pair of points nearer to 0, and the farther.
const NEAR: f32 = 0.75;
const FAR: f32 = 1.5;
const NEAR_2: f32 = NEAR * NEAR;
const FAR_2: f32 = FAR * FAR;
const NEAR_3: f32 = NEAR_2 * NEAR;
const FAR_3: f32 = FAR_2 * FAR;
const NEAR_4: f32 = NEAR_2 * NEAR_2;
const FAR_4: f32 = FAR_2 * FAR_2;
/// The factors of `G`: one over the product of a point's distances from the other finite points.
const OF_ZERO: f32 = 1.0 / (NEAR_2 * FAR_2);
const OF_NEAR: f32 = 1.0 / (2.0 * NEAR_2 * (NEAR_2 - FAR_2));
const OF_FAR: f32 = 1.0 / (2.0 * FAR_2 * (FAR_2 - NEAR_2));

/// `Bᵀ x`: six inputs to their values at the points.
#[inline(always)]
pub(super) fn input<I: Isa>(isa: I, x: [I::F32; PATCH]) -> [I::F32; PATCH] {
    let [x0, x1, x2, x3, x4, x5] = x;
    let (near, minus_near) = (isa.splat(NEAR), isa.splat(-NEAR));
    let (far, minus_far) = (isa.splat(FAR), isa.splat(-FAR));
    let (near_2, far_2) = (isa.splat(-NEAR_2), isa.splat(-FAR_2));
    let (product, sum) = (isa.splat(NEAR_2 * FAR_2), isa.splat(-(NEAR_2 + FAR_2)));
    let (even, odd) = (isa.fma(far_2, x2, x4), isa.fma(far_2, x1, x3));
    let (even_far, odd_far) = (isa.fma(near_2, x2, x4), isa.fma(near_2, x1, x3));
    [
        isa.fma(product, x0, isa.fma(sum, x2, x4)),
        isa.fma(near, odd, even),
        isa.fma(minus_near, odd, even),
        isa.fma(far, odd_far, even_far),
        isa.fma(minus_far, odd_far, even_far),
        isa.fma(product, x1, isa.fma(sum, x3, x5)),
    ]
}

/// The polynomial whose coefficients are the first `count` of `x`, two to five, at the points: `A y` for outputs, which is the transposition of [`output`],
/// and `G w` without its factors for taps.
#[inline(always)]
fn evaluate<I: Isa>(isa: I, x: [I::F32; PATCH], count: usize) -> [I::F32; PATCH] {
    let at = |[one, two, three, four]: [f32; 4]| {
        let even = if count > 2 { isa.fma(isa.splat(two), x[2], x[0]) } else { x[0] };
        let even = if count > 4 { isa.fma(isa.splat(four), x[4], even) } else { even };
        let odd = isa.mul(isa.splat(one), x[1]);
        (even, if count > 3 { isa.fma(isa.splat(three), x[3], odd) } else { odd })
    };
    let (even, odd) = at([NEAR, NEAR_2, NEAR_3, NEAR_4]);
    let (even_far, odd_far) = at([FAR, FAR_2, FAR_3, FAR_4]);
    let last = x[count - 1];
    [x[0], isa.add(even, odd), isa.sub(even, odd), isa.add(even_far, odd_far), isa.sub(even_far, odd_far), last]
}

/// The transposition of [`evaluate`]: values at the points to `count` coefficients; the others are 0.
#[inline(always)]
fn collect<I: Isa>(isa: I, m: [I::F32; PATCH], count: usize) -> [I::F32; PATCH] {
    let (near, far) = (isa.add(m[1], m[2]), isa.add(m[3], m[4]));
    let (near_odd, far_odd) = (isa.sub(m[1], m[2]), isa.sub(m[3], m[4]));
    let power =
        |[of_near, of_far]: [f32; 2], near, far| isa.fma(isa.splat(of_far), far, isa.mul(isa.splat(of_near), near));
    let mut x = [isa.zero(); PATCH];
    x[0] = isa.add(isa.add(m[0], near), far);
    x[1] = power([NEAR, FAR], near_odd, far_odd);
    if count > 2 {
        x[2] = power([NEAR_2, FAR_2], near, far);
    }
    if count > 3 {
        x[3] = power([NEAR_3, FAR_3], near_odd, far_odd);
    }
    if count > 4 {
        x[4] = power([NEAR_4, FAR_4], near, far);
    }
    x[count - 1] = isa.add(x[count - 1], m[5]);
    x
}

/// The factors of `G` at the points.
#[inline(always)]
fn scaled<I: Isa>(isa: I, x: [I::F32; PATCH]) -> [I::F32; PATCH] {
    let by = |factor: f32, x| isa.mul(isa.splat(factor), x);
    [by(OF_ZERO, x[0]), by(OF_NEAR, x[1]), by(OF_NEAR, x[2]), by(OF_FAR, x[3]), by(OF_FAR, x[4]), x[5]]
}

/// `Aᵀ m`: values at the points to the outputs of a tile.
#[inline(always)]
pub(super) fn output<I: Isa, F: Form>(isa: I, m: [I::F32; PATCH]) -> [I::F32; PATCH] {
    collect(isa, m, F::TILE)
}

/// `A y`: the gradients of the outputs of a tile to those of the values at the points.
#[inline(always)]
pub(super) fn output_grad<I: Isa, F: Form>(isa: I, y: [I::F32; PATCH]) -> [I::F32; PATCH] {
    evaluate(isa, y, F::TILE)
}

/// `G w`: taps to their values at the points.
#[inline(always)]
pub(super) fn filter<I: Isa, F: Form>(isa: I, w: [I::F32; PATCH]) -> [I::F32; PATCH] {
    scaled(isa, evaluate(isa, w, F::TAPS))
}

/// `Gᵀ m`, the transposition of [`filter`]: the gradients of values at the points to those of the taps.
#[inline(always)]
pub(super) fn filter_grad<I: Isa, F: Form>(isa: I, m: [I::F32; PATCH]) -> [I::F32; PATCH] {
    collect(isa, scaled(isa, m), F::TAPS)
}

/// Runs `$body` for `$i` in `0..$count` without a loop. The compiler neither unrolls so long loops nor inlines so many iterators by itself, and then arrays of
/// vectors would leave the registers.
macro_rules! unrolled {
    ($i:ident < $count:ident $body:block) => {
        unrolled!(@ $i { if const { $i < $count } $body } 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    // At most PATCH.
    ($i:ident < ($count:expr) $body:block) => {
        unrolled!(@ $i { if const { $i < $count } $body } 0 1 2 3 4 5)
    };
    (@ $i:ident $body:block $($n:literal)*) => {$({
        const $i: usize = $n;
        $body
    })*};
}
pub(super) use unrolled;

/// Transforms the columns of a matrix of vectors and then its rows. `|row, column|` reads an element, `|row, column, x|` takes a result;
/// both are expanded in place, as a closure would be a function without the instruction set.
macro_rules! both_axes {
    ($isa:ident, $transform:expr, [$from:expr, $to:expr], |$r:ident, $c:ident| $get:expr, |$i:ident, $j:ident, $x:ident| $put:expr) => {{
        let mut half = [[$isa.zero(); PATCH]; PATCH];
        unrolled!(COLUMN < ($from) {
            let mut x = [$isa.zero(); PATCH];
            unrolled!(ROW < ($from) {
                let ($r, $c) = (ROW, COLUMN);
                x[ROW] = $get;
            });
            let x = $transform($isa, x);
            unrolled!(ROW < ($to) {
                half[ROW][COLUMN] = x[ROW];
            });
        });
        unrolled!(ROW < ($to) {
            let x = $transform($isa, half[ROW]);
            unrolled!(COLUMN < ($to) {
                let ($i, $j, $x) = (ROW, COLUMN, x[COLUMN]);
                $put;
            });
        });
    }};
}
pub(super) use both_axes;
