//! Matrix products: row-major `m × k` by `k × n`.

use super::Bencher;
use crate::failure::Failure;
use qkernels::gemm::Gemm;
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Tensor};
use serde::Serialize;

const STANDARD: [[usize; 3]; 8] = [
    [256, 256, 256],
    [512, 512, 512],
    [1024, 1024, 1024],
    [2048, 2048, 2048],
    [256, 512, 4096],
    [64, 576, 16384],
    [16, 144, 65536],
    [128, 784, 300],
];

#[derive(Serialize)]
struct Key {
    bench: &'static str,
    m: usize,
    k: usize,
    n: usize,
}

/// A row for each shape `[m, k, n]`; the standard ones where none is given.
pub(super) fn run(bencher: &Bencher, shapes: &[[usize; 3]]) -> Result<(), Failure> {
    let shapes = if shapes.is_empty() { &STANDARD[..] } else { shapes };
    for &[m, k, n] in shapes {
        let (a, b) = (normal([m, k])?, normal([k, n])?);
        let mut out = Tensor::empty([m, n], DType::F32)?;
        let seconds = bencher.time(|| Gemm::new(&a, &b).run_into(&mut out))?;
        let gflops = 2.0 * (m * k * n) as f64 / seconds / 1e9;
        let measured = [("seconds", seconds), ("gflops", gflops), ("of_peak", bencher.of_peak(gflops))];
        bencher.row(Key { bench: "gemm_f32", m, k, n }, &measured)?;
    }
    Ok(())
}

/// Standard normal values, the same in every run.
pub(super) fn normal(shape: impl AsRef<[usize]>) -> Result<Tensor, Failure> {
    let key = StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index: 0 };
    Ok(Stream::new(key).normal_tensor(shape, 0.0, 1.0)?)
}
