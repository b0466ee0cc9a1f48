//! Fully connected layers: `x · wᵀ`, and the gradients `dy · w` and `dyᵀ · x` together.

use super::{Bencher, gemm::normal};
use crate::failure::Failure;
use qkernels::gemm::matmul;
use serde::Serialize;

/// Batch, inputs, outputs.
pub(super) const STANDARD: [[usize; 3]; 5] =
    [[128, 784, 500], [128, 512, 512], [256, 1024, 1024], [256, 4096, 1024], [128, 4096, 4096]];

#[derive(Serialize)]
pub(super) struct Key {
    pub(super) bench: &'static str,
    pub(super) n: usize,
    pub(super) i: usize,
    pub(super) o: usize,
}

/// A row for each shape `[n, i, o]`; the standard ones where none is given.
pub(super) fn run(bencher: &Bencher, shapes: &[[usize; 3]]) -> Result<(), Failure> {
    let shapes = if shapes.is_empty() { &STANDARD[..] } else { shapes };
    for &[n, i, o] in shapes {
        let (x, w, dy) = (normal([n, i])?, normal([o, i])?, normal([n, o])?);
        let (transposed, gradient) = (w.t()?, dy.t()?);
        let forward = bencher.time(|| matmul(&x, &transposed).map(drop))?;
        let backward = bencher.time(|| {
            matmul(&dy, &w)?;
            matmul(&gradient, &x).map(drop)
        })?;
        let gflop = 2.0 * (n * i * o) as f64 / 1e9;
        let measured = [
            ("fwd_seconds", forward),
            ("bwd_seconds", backward),
            ("of_peak", bencher.of_peak(3.0 * gflop / (forward + backward))),
        ];
        bencher.row(Key { bench: "linear_f32", n, i, o }, &measured)?;
    }
    Ok(())
}
