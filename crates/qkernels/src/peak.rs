//! The machine's measured arithmetic peak, against which kernels are judged.

use crate::isa::{self, Isa, Kernel};
use crate::par;
use qtensor::Result;
use std::time::Instant;

/// Multiply-adds of vectors in a measurement: about a millisecond.
const STEPS: usize = 12 << 19;
/// Measurements, of which the best counts: others are disturbed by other work on the machine.
const ROUNDS: usize = 60;

/// The f32 multiply-add peak of `threads` threads together with the instruction set in use, in GFLOP/s: a loop in registers, best of several rounds.
///
/// # Errors
/// The operating system refuses a thread.
pub fn multiply_add_peak(threads: usize) -> Result<f64> {
    let threads = threads.max(1);
    let floats = (STEPS * isa::current().lanes() * threads) as f64;
    par::with_threads(threads, || {
        let mut best = f64::INFINITY;
        for round in 0..ROUNDS {
            let start = Instant::now();
            // More chains hide more latency, but must fit the registers, of which the portable vectors take several each.
            par::for_each(threads, |_| match round % 2 {
                0 => isa::dispatch(Twelve),
                _ => isa::dispatch(Six),
            });
            best = best.min(start.elapsed().as_secs_f64());
        }
        2.0 * floats / best / 1e9
    })
}

/// Independent chains of multiply-adds in registers, each a variable of its own, so that they stay there.
macro_rules! chains {
    ($name:ident $count:literal: $($sum:ident)*) => {
        struct $name;

        impl Kernel for $name {
            type Output = ();

            #[inline(always)]
            fn run<I: Isa>(self, isa: I) {
                let factor = isa.splat(std::hint::black_box(0.5));
                $(let mut $sum = isa.zero();)*
                for _ in 0..STEPS / $count {
                    $($sum = isa.fma($sum, factor, factor);)*
                }
                // Stored as whole vectors, from which the compiler sees that plain Rust may be vectorised.
                let mut out = [0.0; 16];
                $(isa.store(&mut out, $sum);
                std::hint::black_box(&mut out);)*
            }
        }
    };
}
chains!(Twelve 12: a b c d e f g h i j k l);
chains!(Six 6: a b c d e f);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_a_real_machine() {
        let one = multiply_add_peak(1).unwrap();
        assert!((0.5..2000.0).contains(&one), "{one} GFLOP/s on one core");
    }
}
