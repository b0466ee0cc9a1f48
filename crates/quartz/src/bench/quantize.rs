//! Ternary GPFQ of dense layers with random weights, on data like those behind a ReLU. Each layer is quantized once: the large ones take seconds.

use super::Bencher;
use super::gemm::normal;
use super::process::status;
use crate::failure::Failure;
use qkernels::feedback::{Grid, Rounding, Rule, Walk};
use qkernels::{Activation, Gemm};
use qtensor::Tensor;
use serde::Serialize;
use std::time::Instant;

/// Samples, inputs and outputs: the dense layers of VGG-16 on ImageNet.
const STANDARD: [[usize; 3]; 3] = [[1500, 25088, 4096], [1500, 4096, 4096], [1500, 4096, 1000]];

#[derive(Serialize)]
struct Key {
    bench: &'static str,
    samples: usize,
    inputs: usize,
    outputs: usize,
}

/// A row for each shape; the standard ones where none is given. The data of the two networks differ, as behind a first quantized layer.
pub(super) fn run(bencher: &Bencher, shapes: &[[usize; 3]]) -> Result<(), Failure> {
    let shapes = if shapes.is_empty() { &STANDARD[..] } else { shapes };
    for &[samples, inputs, outputs] in shapes {
        let analog = behind_relu(samples, inputs)?;
        // The other network's data: a bit less of each value.
        let quantized = scaled(&analog)?;
        let weights = normal([outputs, inputs])?;
        // Three times the median of |w| of a standard normal value.
        let rounding = Rounding::nearest(Grid::uniform(3, vec![3.0 * 0.6745])?);
        let walk = Walk { quantized: &quantized, analog: Some(&analog), rule: Rule::Lybrand2021 };
        let start = Instant::now();
        walk.quantize(&weights, &rounding)?;
        let seconds = start.elapsed().as_secs_f64();
        let gflops = 6.0 * samples as f64 * inputs as f64 * outputs as f64 / seconds / 1e9;
        let measured = [("seconds", seconds), ("gflops", gflops), ("of_peak", bencher.of_peak(gflops))];
        let memory = status("VmHWM:").map(|bytes| ("bytes", bytes as f64));
        bencher.row_with(Key { bench: "gpfq", samples, inputs, outputs }, &measured, memory.as_slice())?;
    }
    Ok(())
}

fn behind_relu(samples: usize, inputs: usize) -> Result<Tensor, Failure> {
    let one = Tensor::full([1, 1], 1.0f32)?;
    let values = normal([samples * inputs, 1])?;
    let values = Gemm { activation: Activation::Relu, ..Gemm::new(&values, &one) }.run()?;
    Ok(values.reshape([samples, inputs])?)
}

fn scaled(x: &Tensor) -> Result<Tensor, Failure> {
    let mut scaled = x.copy();
    for (i, value) in scaled.memory_mut::<f32>()?.iter_mut().enumerate() {
        *value *= 1.0 - 0.01 * (i % 7) as f32;
    }
    Ok(scaled)
}
