//! The one-dimensional transforms of F(4, 3), each on vectors of channels, and the two-dimensional ones made of them.
//!
//! Winograd's minimal filtering (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015): four outputs of a filter of three taps are
//! `Aᵀ [(G w) ⊙ (Bᵀ d)]` for six inputs `d`, with six products instead of twelve; in two dimensions 36 instead of 144. The matrices come from six points at which
//! polynomials are evaluated: 0, ±3/4, ±3/2 and infinity. They cost as much as the usual 0, ±1, ±2, and being nearer to 1 they
//! keep the powers in the transforms, and with them the rounding errors, small (docs/numerics.md).

use crate::isa::Isa;

/// Outputs of a tile along an axis.
pub(super) const TILE: usize = 4;
/// Inputs of a tile along an axis.
pub(super) const PATCH: usize = 6;
/// Products of a tile and a pair of channels: the points in two dimensions.
pub(super) const POINTS: usize = PATCH * PATCH;
/// Taps along an axis.
pub(super) const TAPS: usize = 3;

/// The pair of points nearer to 0, and the farther.
const NEAR: f32 = 0.75;
const FAR: f32 = 1.5;
const NEAR_2: f32 = NEAR * NEAR;
const FAR_2: f32 = FAR * FAR;
const NEAR_3: f32 = NEAR_2 * NEAR;
const FAR_3: f32 = FAR_2 * FAR;
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

/// `Aᵀ m`: values at the points to four outputs.
#[inline(always)]
pub(super) fn output<I: Isa>(isa: I, m: [I::F32; PATCH]) -> [I::F32; TILE] {
    let (near, far) = (isa.add(m[1], m[2]), isa.add(m[3], m[4]));
    let (near_odd, far_odd) = (isa.sub(m[1], m[2]), isa.sub(m[3], m[4]));
    [
        isa.add(isa.add(m[0], near), far),
        isa.fma(isa.splat(FAR), far_odd, isa.mul(isa.splat(NEAR), near_odd)),
        isa.fma(isa.splat(FAR_2), far, isa.mul(isa.splat(NEAR_2), near)),
        isa.fma(isa.splat(FAR_3), far_odd, isa.fma(isa.splat(NEAR_3), near_odd, m[5])),
    ]
}

/// `A y`, the transposition of [`output`]: the gradients of four outputs to those of the values at the points.
#[inline(always)]
pub(super) fn output_grad<I: Isa>(isa: I, y: [I::F32; TILE]) -> [I::F32; PATCH] {
    let even = isa.fma(isa.splat(NEAR_2), y[2], y[0]);
    let odd = isa.fma(isa.splat(NEAR_3), y[3], isa.mul(isa.splat(NEAR), y[1]));
    let even_far = isa.fma(isa.splat(FAR_2), y[2], y[0]);
    let odd_far = isa.fma(isa.splat(FAR_3), y[3], isa.mul(isa.splat(FAR), y[1]));
    [y[0], isa.add(even, odd), isa.sub(even, odd), isa.add(even_far, odd_far), isa.sub(even_far, odd_far), y[3]]
}

/// `G w`: three taps to their values at the points.
#[inline(always)]
pub(super) fn filter<I: Isa>(isa: I, w: [I::F32; TAPS]) -> [I::F32; PATCH] {
    let scaled = |factor: f32, x| isa.mul(isa.splat(factor), x);
    let even = isa.fma(isa.splat(OF_NEAR * NEAR_2), w[2], scaled(OF_NEAR, w[0]));
    let odd = scaled(OF_NEAR * NEAR, w[1]);
    let even_far = isa.fma(isa.splat(OF_FAR * FAR_2), w[2], scaled(OF_FAR, w[0]));
    let odd_far = scaled(OF_FAR * FAR, w[1]);
    [
        scaled(OF_ZERO, w[0]),
        isa.add(even, odd),
        isa.sub(even, odd),
        isa.add(even_far, odd_far),
        isa.sub(even_far, odd_far),
        w[2],
    ]
}

/// `Gᵀ m`, the transposition of [`filter`]: the gradients of values at the points to those of three taps.
#[inline(always)]
pub(super) fn filter_grad<I: Isa>(isa: I, m: [I::F32; PATCH]) -> [I::F32; TAPS] {
    let (near, far) = (isa.add(m[1], m[2]), isa.add(m[3], m[4]));
    let (near_odd, far_odd) = (isa.sub(m[1], m[2]), isa.sub(m[3], m[4]));
    let scaled = |factor: f32, x| isa.mul(isa.splat(factor), x);
    [
        isa.fma(isa.splat(OF_FAR), far, isa.fma(isa.splat(OF_NEAR), near, scaled(OF_ZERO, m[0]))),
        isa.fma(isa.splat(OF_FAR * FAR), far_odd, scaled(OF_NEAR * NEAR, near_odd)),
        isa.fma(isa.splat(OF_FAR * FAR_2), far, isa.fma(isa.splat(OF_NEAR * NEAR_2), near, m[5])),
    ]
}

/// Runs `$body` for `$i` in `0..$count` without a loop. The compiler neither unrolls so long loops nor inlines so many iterators by itself, and then arrays of
/// vectors would leave the registers.
macro_rules! unrolled {
    ($i:ident < PATCH $body:block) => { unrolled!(@ $i $body 0 1 2 3 4 5) };
    ($i:ident < TILE $body:block) => { unrolled!(@ $i $body 0 1 2 3) };
    ($i:ident < TAPS $body:block) => { unrolled!(@ $i $body 0 1 2) };
    ($i:ident < $count:ident $body:block) => {
        unrolled!(@ $i { if $i < $count $body } 0 1 2 3 4 5 6 7 8 9 10 11)
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
    ($isa:ident, $transform:path, [$from:ident to $to:ident], |$r:ident, $c:ident| $get:expr, |$i:ident, $j:ident, $x:ident| $put:expr) => {{
        let mut half = [[$isa.zero(); $from]; $to];
        unrolled!(COLUMN < $from {
            let mut x = [$isa.zero(); $from];
            unrolled!(ROW < $from {
                let ($r, $c) = (ROW, COLUMN);
                x[ROW] = $get;
            });
            let x = $transform($isa, x);
            unrolled!(ROW < $to {
                half[ROW][COLUMN] = x[ROW];
            });
        });
        unrolled!(ROW < $to {
            let x = $transform($isa, half[ROW]);
            unrolled!(COLUMN < $to {
                let ($i, $j, $x) = (ROW, COLUMN, x[COLUMN]);
                $put;
            });
        });
    }};
}
pub(super) use both_axes;
