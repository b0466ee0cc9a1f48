//! How a quadratic neuron combines its projections: one row of the table each.

use crate::isa::Isa;

/// How the projections `z1`, `z2`, … of one input become the output of a quadratic neuron.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// `z1²`
    Square,
    /// `z1 · z2`
    Product,
    /// `z1 · z2 + z3`
    ProductAndSum,
    /// `z1 · z2 + z1`
    ProductAndFirst,
}

/// A function of `N` projections, and its derivatives.
pub(super) trait Combine<const N: usize>: Copy + Send + Sync {
    /// `y` of each lane.
    fn value<I: Isa>(self, isa: I, z: [I::F32; N]) -> I::F32;
    /// `dy · ∂y/∂z` of each lane.
    fn partials<I: Isa>(self, isa: I, z: [I::F32; N], dy: I::F32) -> [I::F32; N];
}

/// The most projections of a rule.
pub(super) const MOST_PARTS: usize = 3;

/// The rows: number of projections; value and partial derivatives in vectors; the same in f64.
macro_rules! table {
    ($($rule:ident $parts:literal,
        |$isa:ident, $z:ident, $dy:ident| $value:expr => $partials:expr,
        |$x:ident, $g:ident| $exact:expr => $exact_partials:expr;)*) => {
        impl Rule {
            /// All rules.
            pub const ALL: &'static [Rule] = &[$(Rule::$rule),*];

            /// Number of projections.
            pub const fn parts(self) -> usize {
                match self { $(Rule::$rule => $parts,)* }
            }

            /// `y` in f64; numbers beyond those of the projections mean nothing.
            pub(super) fn value(self, z: [f64; MOST_PARTS]) -> f64 {
                match self { $(Rule::$rule => { let $x = z; $exact })* }
            }

            /// `dy · ∂y/∂z` in f64.
            pub(super) fn partials(self, z: [f64; MOST_PARTS], dy: f64) -> [f64; MOST_PARTS] {
                match self { $(Rule::$rule => { let ($x, $g) = (z, dy); $exact_partials })* }
            }
        }

        $(
            /// The row of that name.
            #[derive(Clone, Copy)]
            pub(super) struct $rule;

            impl Combine<$parts> for $rule {
                #[inline(always)]
                fn value<I: Isa>(self, $isa: I, $z: [I::F32; $parts]) -> I::F32 {
                    $value
                }
                #[inline(always)]
                fn partials<I: Isa>(self, $isa: I, $z: [I::F32; $parts], $dy: I::F32) -> [I::F32; $parts] {
                    $partials
                }
            }
        )*
    };
}

table! {
    Square 1,
        |isa, z, dy| isa.mul(z[0], z[0]) => [isa.mul(isa.add(z[0], z[0]), dy)],
        |z, dy| z[0] * z[0] => [2.0 * z[0] * dy, 0.0, 0.0];
    Product 2,
        |isa, z, dy| isa.mul(z[0], z[1]) => [isa.mul(z[1], dy), isa.mul(z[0], dy)],
        |z, dy| z[0] * z[1] => [z[1] * dy, z[0] * dy, 0.0];
    ProductAndSum 3,
        |isa, z, dy| isa.fma(z[0], z[1], z[2]) => [isa.mul(z[1], dy), isa.mul(z[0], dy), dy],
        |z, dy| z[0] * z[1] + z[2] => [z[1] * dy, z[0] * dy, dy];
    ProductAndFirst 2,
        |isa, z, dy| isa.fma(z[0], z[1], z[0]) => [isa.fma(z[1], dy, dy), isa.mul(z[0], dy)],
        |z, dy| z[0] * z[1] + z[0] => [(z[1] + 1.0) * dy, z[0] * dy, 0.0];
}

/// Evaluates `$body` with `$combine`, the type of a rule, and the constant `$parts`, its number of projections.
macro_rules! with_rule {
    ($rule:expr, |$combine:ident, $parts:ident| $body:expr) => {
        with_rule!(@ $rule, $combine, $parts, $body, Square 1, Product 2, ProductAndSum 3, ProductAndFirst 2)
    };
    (@ $rule:expr, $combine:ident, $parts:ident, $body:expr, $($name:ident $count:literal),*) => {
        match $rule {
            $($crate::quadratic::rule::Rule::$name => {
                const $parts: usize = $count;
                let $combine = $crate::quadratic::rule::$name;
                $body
            })*
        }
    };
}
pub(super) use with_rule;
