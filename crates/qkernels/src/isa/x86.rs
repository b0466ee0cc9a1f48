//! What the x86-64 tokens share.

/// The operations that are one intrinsic each.
macro_rules! arithmetic {
    ($vector:ty, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $fma:ident, $max:ident, $min:ident, $sqrt:ident) => {
        arithmetic!(@ splat(x: f32) -> $vector = $splat);
        arithmetic!(@ add(a: $vector, b: $vector) -> $vector = $add);
        arithmetic!(@ sub(a: $vector, b: $vector) -> $vector = $sub);
        arithmetic!(@ mul(a: $vector, b: $vector) -> $vector = $mul);
        arithmetic!(@ div(a: $vector, b: $vector) -> $vector = $div);
        arithmetic!(@ fma(a: $vector, b: $vector, c: $vector) -> $vector = $fma);
        arithmetic!(@ max(a: $vector, b: $vector) -> $vector = $max);
        arithmetic!(@ min(a: $vector, b: $vector) -> $vector = $min);
        arithmetic!(@ sqrt(a: $vector) -> $vector = $sqrt);
    };
    (@ $method:ident($($x:ident: $ty:ty),*) -> $out:ty = $intrinsic:ident) => {
        #[inline(always)]
        fn $method(self, $($x: $ty),*) -> $out {
            // SAFETY: the token proves that the CPU has the instruction.
            unsafe { $intrinsic($($x),*) }
        }
    };
}

pub(super) use arithmetic;
