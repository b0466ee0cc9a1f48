//! The rules of the optimizers, written once for numbers and vectors.

use crate::elementwise::sweep::Sweep;
use crate::isa::Isa;

/// Arithmetic that an update rule needs, for numbers and for vectors alike, so that each rule is written once.
pub(super) trait Arithmetic: Copy {
    type Value: Copy;
    fn constant(self, x: f64) -> Self::Value;
    fn add(self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn sub(self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn mul(self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn div(self, a: Self::Value, b: Self::Value) -> Self::Value;
    fn sqrt(self, a: Self::Value) -> Self::Value;
    /// `a · b + c`
    fn fma(self, a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value;
}

/// Vectors of f32.
#[derive(Clone, Copy)]
pub(super) struct Vectors<I>(I);

/// Single f64.
#[derive(Clone, Copy)]
pub(super) struct Doubles;

macro_rules! arithmetic {
    ($($method:ident($($x:ident),*) = $double:expr;)*) => {
        impl<I: Isa> Arithmetic for Vectors<I> {
            type Value = I::F32;
            #[inline(always)]
            fn constant(self, x: f64) -> I::F32 {
                self.0.splat(x as f32)
            }
            $(#[inline(always)]
            fn $method(self, $($x: I::F32),*) -> I::F32 {
                self.0.$method($($x),*)
            })*
        }

        impl Arithmetic for Doubles {
            type Value = f64;
            #[inline(always)]
            fn constant(self, x: f64) -> f64 {
                x
            }
            $(#[inline(always)]
            fn $method(self, $($x: f64),*) -> f64 {
                $double
            })*
        }
    };
}

arithmetic! {
    add(a, b) = a + b;
    sub(a, b) = a - b;
    mul(a, b) = a * b;
    div(a, b) = a / b;
    sqrt(a) = a.sqrt();
    fma(a, b, c) = a * b + c;
}

/// How one element of the parameter and its state (`W` values in all) follow from its gradient.
pub(super) trait Rule<const W: usize>: Copy + Send + Sync {
    fn apply<A: Arithmetic>(self, a: A, gradient: A::Value, state: &mut [A::Value; W]);
}

#[derive(Clone, Copy)]
pub(super) struct Vectorised<R>(pub(super) R);

impl<R: Rule<W>, const W: usize> Sweep<1, 0, W> for Vectorised<R> {
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [gradient]: [I::F32; 1], _: [I::F32; 0], write: &mut [I::F32; W]) {
        self.0.apply(Vectors(isa), gradient, write);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
}

impl Rule<1> for Plain {
    #[inline(always)]
    fn apply<A: Arithmetic>(self, a: A, gradient: A::Value, [p]: &mut [A::Value; 1]) {
        let g = a.fma(a.constant(self.weight_decay), *p, gradient);
        *p = a.fma(a.constant(-self.lr), g, *p);
    }
}

/// `keep` and `take` are the shares of the old velocity and of the gradient in the new velocity.
#[derive(Clone, Copy)]
pub(super) struct Momentum<const NESTEROV: bool> {
    pub(super) lr: f64,
    pub(super) momentum: f64,
    pub(super) keep: f64,
    pub(super) take: f64,
    pub(super) weight_decay: f64,
}

impl<const NESTEROV: bool> Rule<2> for Momentum<NESTEROV> {
    #[inline(always)]
    fn apply<A: Arithmetic>(self, a: A, gradient: A::Value, [p, v]: &mut [A::Value; 2]) {
        let g = a.fma(a.constant(self.weight_decay), *p, gradient);
        *v = a.fma(a.constant(self.keep), *v, a.mul(a.constant(self.take), g));
        let direction = if NESTEROV { a.fma(a.constant(self.momentum), *v, g) } else { *v };
        *p = a.fma(a.constant(-self.lr), direction, *p);
    }
}

/// `size` is the step with the first correction of bias, `root` the square root of the second one.
#[derive(Clone, Copy)]
pub(super) struct Adam {
    pub(super) betas: [f64; 2],
    pub(super) size: f64,
    pub(super) root: f64,
    pub(super) eps: f64,
    pub(super) coupled: f64,
    pub(super) shrink: f64,
}

impl Rule<3> for Adam {
    #[inline(always)]
    fn apply<A: Arithmetic>(self, a: A, gradient: A::Value, [p, mean, square]: &mut [A::Value; 3]) {
        let g = a.fma(a.constant(self.coupled), *p, gradient);
        let shrunk = a.mul(a.constant(self.shrink), *p);
        *mean = a.fma(a.constant(1.0 - self.betas[0]), a.sub(g, *mean), *mean);
        *square = a.fma(a.constant(1.0 - self.betas[1]), a.mul(g, g), a.mul(a.constant(self.betas[1]), *square));
        let spread = a.add(a.div(a.sqrt(*square), a.constant(self.root)), a.constant(self.eps));
        *p = a.fma(a.constant(-self.size), a.div(*mean, spread), shrunk);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Adadelta {
    pub(super) lr: f64,
    pub(super) rho: f64,
    pub(super) eps: f64,
    pub(super) weight_decay: f64,
}

impl Rule<3> for Adadelta {
    #[inline(always)]
    fn apply<A: Arithmetic>(self, a: A, gradient: A::Value, [p, square, update]: &mut [A::Value; 3]) {
        let (keep, take, eps) = (a.constant(self.rho), a.constant(1.0 - self.rho), a.constant(self.eps));
        let g = a.fma(a.constant(self.weight_decay), *p, gradient);
        *square = a.fma(take, a.mul(g, g), a.mul(keep, *square));
        let ratio = a.div(a.sqrt(a.add(*update, eps)), a.sqrt(a.add(*square, eps)));
        let delta = a.mul(ratio, g);
        *update = a.fma(take, a.mul(delta, delta), a.mul(keep, *update));
        *p = a.fma(a.constant(-self.lr), delta, *p);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Lerp {
    pub(super) weight: f64,
}

impl Rule<1> for Lerp {
    #[inline(always)]
    fn apply<A: Arithmetic>(self, a: A, other: A::Value, [x]: &mut [A::Value; 1]) {
        *x = a.fma(a.constant(self.weight), a.sub(other, *x), *x);
    }
}
