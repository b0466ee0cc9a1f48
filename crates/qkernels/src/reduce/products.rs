//! Sums of products in f64.

use crate::isa::{Isa, Kernel, dispatch};
use crate::par;

/// Values that one thread takes at a time.
const PIECE: usize = 32 * 1024;
/// Running sums side by side: enough to hide the latency of an addition.
const LANES: usize = 32;

/// Σ a·b of slices of one length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let pieces = par::map(a.len().div_ceil(PIECE), |i| {
        let range = i * PIECE..a.len().min((i + 1) * PIECE);
        dispatch(Dot(&a[range.clone()], &b[range]))
    });
    pieces.iter().sum()
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> f64 {
        // Plain arrays of a fixed size, which the compiler keeps in vectors of f64.
        let (a, a_rest) = self.0.as_chunks::<LANES>();
        let (b, b_rest) = self.1.as_chunks::<LANES>();
        let mut sums = [0.0f64; LANES];
        for (a, b) in a.iter().zip(b) {
            for i in 0..LANES {
                sums[i] += f64::from(a[i]) * f64::from(b[i]);
            }
        }
        let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        sums.iter().sum::<f64>() + rest
    }
}
