//! Vector forms of the unary operations.

use super::sweep::{Into, Map, Over, sweep};
use super::{UnaryOp, math};
use crate::isa::Isa;

/// For each operation the function of `x`, and the gradient from what is saved and `dy`.
macro_rules! table {
    ($($op:ident $(($slope:ident))?: |$isa:ident, $x:ident| $forward:expr, |$s:ident, $dy:ident| $backward:expr;)*) => {
        $(
            #[derive(Clone, Copy)]
            struct $op { $($slope: f32)? }

            impl Map<1> for $op {
                #[inline(always)]
                fn of<I: Isa>(self, $isa: I, [$x]: [I::F32; 1]) -> I::F32 {
                    $(let $slope = $isa.splat(self.$slope);)?
                    $forward
                }
            }

            impl Map<2> for $op {
                #[inline(always)]
                fn of<I: Isa>(self, $isa: I, [$s, $dy]: [I::F32; 2]) -> I::F32 {
                    $(let $slope = $isa.splat(self.$slope);)?
                    $backward
                }
            }
        )*

        /// `out = f(x)`, or `out = f(out)` without an `x`.
        pub(super) fn forward(op: UnaryOp, x: Option<&[f32]>, out: &mut [f32]) {
            match op {
                $(UnaryOp::$op $(($slope))? => {
                    let op = $op { $($slope: $slope as f32)? };
                    match x {
                        Some(x) => sweep(Into::<$op>(op), [x], [], [out]),
                        None => sweep::<_, _, 0, 0, 1>(Over(op), [], [], [out]),
                    }
                })*
            }
        }

        /// `out = f'(x) · dy` from what is saved, or with `dy` in `out`.
        pub(super) fn backward(op: UnaryOp, saved: &[f32], dy: Option<&[f32]>, out: &mut [f32]) {
            match op {
                $(UnaryOp::$op $(($slope))? => {
                    let op = $op { $($slope: $slope as f32)? };
                    match dy {
                        Some(dy) => sweep(Into::<$op>(op), [saved, dy], [], [out]),
                        None => sweep::<_, _, 1, 0, 1>(Over(op), [saved], [], [out]),
                    }
                })*
            }
        }
    };
}

table! {
    Neg: |isa, x| math::neg(isa, x), |_s, dy| math::neg(isa, dy);
    Abs: |isa, x| math::abs(isa, x),
        |s, dy| isa.mul(dy, isa.select(isa.gt(s, isa.zero()), isa.splat(1.0), isa.select(isa.gt(isa.zero(), s), isa.splat(-1.0), s)));
    Square: |isa, x| isa.mul(x, x), |s, dy| isa.mul(isa.add(s, s), dy);
    Sqrt: |isa, x| isa.sqrt(x), |s, dy| isa.div(isa.mul(isa.splat(0.5), dy), s);
    Recip: |isa, x| isa.div(isa.splat(1.0), x), |s, dy| isa.mul(math::neg(isa, isa.mul(s, s)), dy);
    Exp: |isa, x| math::exp(isa, x), |s, dy| isa.mul(s, dy);
    Log: |isa, x| math::log(isa, x), |s, dy| isa.div(dy, s);
    Tanh: |isa, x| math::tanh(isa, x), |s, dy| isa.mul(dy, isa.sub(isa.splat(1.0), isa.mul(s, s)));
    Sigmoid: |isa, x| math::sigmoid(isa, x), |s, dy| isa.mul(dy, isa.mul(s, isa.sub(isa.splat(1.0), s)));
    Relu: |isa, x| isa.max(isa.zero(), x), |s, dy| isa.select(isa.gt(s, isa.zero()), dy, isa.zero());
    Relu6: |isa, x| isa.min(isa.splat(6.0), isa.max(isa.zero(), x)),
        |s, dy| isa.select(isa.gt(s, isa.zero()), isa.select(isa.gt(isa.splat(6.0), s), dy, isa.zero()), isa.zero());
    LeakyRelu(slope): |isa, x| isa.select(isa.gt(x, isa.zero()), x, isa.mul(slope, x)),
        |s, dy| isa.select(isa.gt(s, isa.zero()), dy, isa.mul(slope, dy));
}
