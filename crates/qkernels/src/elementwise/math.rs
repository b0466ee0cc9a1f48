//! Exponential, logarithm and what follows from them, on vectors.
//!
//! Every function is within [`ULP`] units in the last place of the true value, on every instruction set, over all inputs; infinities give the
//! limit, NaN stays, subnormal numbers are exact to their spacing. Polynomials are minimax fits of the relative error.

use crate::isa::Isa;
use std::f32::consts::{LOG2_E, SQRT_2};

/// Largest error of exp, log, tanh and sigmoid in units in the last place.
pub const ULP: f64 = 2.5;

// ln 2 as a number of few bits, whose product with an exponent is exact, and the rest.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `-x`, also of zeros
#[inline(always)]
pub(crate) fn neg<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.mul(x, isa.splat(-1.0))
}

/// `|x|`
#[inline(always)]
pub(crate) fn abs<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // 0 is added because the maximum of two zeros may be the negative one.
    isa.add(isa.max(x, neg(isa, x)), isa.zero())
}

/// Σ cᵢ·xⁱ, lowest first.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(isa: I, x: I::F32, coefficients: [f32; N]) -> I::F32 {
    let mut sum = isa.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        sum = isa.fma(sum, x, isa.splat(coefficients[i]));
    }
    sum
}

/// `eˣ`: x = n·ln 2 + r, e^r from a polynomial, scaled by 2ⁿ in two steps, because n may leave the range of exponents.
#[inline(always)]
pub(crate) fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Below and above these the result is 0 and infinity. The input stands second so that NaN stays.
    let x = isa.min(isa.splat(89.0), isa.max(isa.splat(-104.0), x));
    let n = isa.round(isa.mul(x, isa.splat(LOG2_E)));
    let r = isa.fma(n, isa.splat(-LN_2_LOW), isa.fma(n, isa.splat(-LN_2_HIGH), x));
    let tail = polynomial(isa, r, [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_71, 0.001_381_461_2]);
    let y = isa.add(isa.fma(isa.mul(r, r), tail, r), isa.splat(1.0));
    let half = isa.round(isa.mul(n, isa.splat(0.5)));
    isa.scale_by_power_of_two(isa.scale_by_power_of_two(y, half), isa.sub(n, half))
}

/// Natural logarithm: x = m·2ᵉ with m near 1, log m from a polynomial.
#[inline(always)]
pub(crate) fn log<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    const TWO_TO_24: f32 = 16_777_216.0;
    let tiny = isa.gt(isa.splat(f32::MIN_POSITIVE), x);
    let normal = isa.select(tiny, isa.mul(x, isa.splat(TWO_TO_24)), x);
    let (m, e) = isa.split(normal);
    let e = isa.select(tiny, isa.sub(e, isa.splat(24.0)), e);
    let large = isa.gt(m, isa.splat(SQRT_2));
    let m = isa.select(large, isa.mul(m, isa.splat(0.5)), m);
    let e = isa.select(large, isa.add(e, isa.splat(1.0)), e);
    let f = isa.sub(m, isa.splat(1.0));
    let square = isa.mul(f, f);
    let tail = polynomial(
        isa,
        f,
        [
            0.333_333_13,
            -0.250_000_1,
            0.200_021_2,
            -0.166_679_96,
            0.142_195_52,
            -0.124_055_9,
            0.118_881_69,
            -0.116_756_46,
            0.067_466_19,
        ],
    );
    // f - f²/2 + f³·tail, and the exponent's part in two pieces, smallest first.
    let small = isa.fma(isa.mul(f, square), tail, isa.mul(e, isa.splat(LN_2_LOW)));
    let small = isa.fma(square, isa.splat(-0.5), small);
    let y = isa.fma(e, isa.splat(LN_2_HIGH), isa.add(f, small));
    let y = isa.select(isa.gt(x, isa.splat(f32::MAX)), x, y);
    // Zero gives -∞ and NaN stays; below zero there is no logarithm.
    let edge = isa.select(isa.gt(isa.zero(), x), isa.splat(f32::NAN), isa.add(x, isa.splat(f32::NEG_INFINITY)));
    isa.select(isa.gt(x, isa.zero()), y, edge)
}

/// Hyperbolic tangent: an odd polynomial near 0, 1 - 2 / (e^2|x| + 1) elsewhere.
#[inline(always)]
pub(crate) fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let square = isa.mul(x, x);
    let tail = polynomial(
        isa,
        square,
        [-0.333_333_3, 0.133_332_06, -0.053_946_763, 0.021_700_703, -0.008_177_396, 0.002_142_960_2],
    );
    let near = isa.fma(isa.mul(x, square), tail, x);
    let size = isa.max(x, neg(isa, x));
    let e = exp(isa, isa.add(size, size));
    let far = isa.sub(isa.splat(1.0), isa.div(isa.splat(2.0), isa.add(e, isa.splat(1.0))));
    let far = isa.select(isa.gt(isa.zero(), x), neg(isa, far), far);
    isa.select(isa.gt(size, isa.splat(0.625)), far, near)
}

/// `1 / (1 + e⁻ˣ)`, from e^-|x|, which cannot overflow.
#[inline(always)]
pub(crate) fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let minus = neg(isa, x);
    let z = exp(isa, isa.min(minus, x));
    let numerator = isa.select(isa.gt(isa.zero(), x), z, isa.splat(1.0));
    isa.div(numerator, isa.add(z, isa.splat(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Kernel, available, dispatch_on};

    struct Apply<'a, F>(F, &'a mut [f32]);

    /// Selects a function inside a kernel.
    #[derive(Clone, Copy, Debug)]
    enum Function {
        Exp,
        Log,
        Tanh,
        Sigmoid,
    }

    impl Kernel for Apply<'_, Function> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            for chunk in self.1.chunks_exact_mut(I::LANES) {
                let x = isa.load(chunk);
                let y = match self.0 {
                    Function::Exp => exp(isa, x),
                    Function::Log => log(isa, x),
                    Function::Tanh => tanh(isa, x),
                    Function::Sigmoid => sigmoid(isa, x),
                };
                isa.store(chunk, y);
            }
        }
    }

    /// Distance in units in the last place of the nearest f32 to `expected`; the spacing of the subnormal numbers is the smallest.
    fn ulps(found: f32, expected: f64) -> f64 {
        let nearest = expected as f32;
        if found == nearest || (found.is_nan() && nearest.is_nan()) {
            return 0.0;
        }
        let exponent = nearest.abs().max(f32::MIN_POSITIVE).log2().floor().clamp(-126.0, 127.0);
        (f64::from(found) - expected).abs() / f64::from(exponent - 23.0).exp2()
    }

    #[test]
    fn every_function_stays_within_its_bound() {
        // Every 389th number of all signs, exponents and fractions.
        let inputs: Vec<f32> = (0..=u32::MAX / 389).map(|i| f32::from_bits(i * 389)).collect();
        type Truth = fn(f64) -> f64;
        let functions: [(Function, Truth); 4] = [
            (Function::Exp, f64::exp),
            (Function::Log, f64::ln),
            (Function::Tanh, f64::tanh),
            (Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        ];
        for (function, expected) in functions {
            let truth: Vec<f64> = inputs.iter().map(|x| expected(f64::from(*x))).collect();
            for id in available() {
                let mut outputs = inputs.clone();
                outputs.resize(inputs.len().next_multiple_of(16), 0.0);
                dispatch_on(id, Apply(function, &mut outputs));
                let mut worst = (0.0, 0.0, 0.0);
                for ((x, found), expected) in inputs.iter().zip(&outputs).zip(&truth) {
                    let error = ulps(*found, *expected);
                    if error > worst.0 || error.is_nan() {
                        worst = (error, *x, *found);
                    }
                }
                assert!(
                    worst.0 <= ULP,
                    "{function:?} on {} is off by {} at {:e}: {:e}",
                    id.name(),
                    worst.0,
                    worst.1,
                    worst.2
                );
            }
        }
    }
}
