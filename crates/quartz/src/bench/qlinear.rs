//! Fully connected layers with weights of 8 bits and inputs that are quantized by their range as they come, from f32 to f32; and the same products in bf16.

use super::linear::{Key, STANDARD};
use super::{Bencher, gemm::normal};
use crate::failure::Failure;
use qkernels::gemm::matmul;
use qkernels::i8::{self, Operands, Output, PackedWeights, Quantization};
use qtensor::{DType, Tensor};

/// A row for each shape `[n, i, o]`; the standard ones where none is given.
pub(super) fn run(bencher: &Bencher, shapes: &[[usize; 3]]) -> Result<(), Failure> {
    let shapes = if shapes.is_empty() { &STANDARD[..] } else { shapes };
    for &[n, i, o] in shapes {
        let (x, w) = (normal([n, i])?, normal([o, i])?);
        let weights = eight_bits(&w)?;
        let seconds = bencher.time(|| dynamic(&x, &weights).map(drop))?;
        let [narrow, transposed] = [x.to_dtype(DType::BF16)?, w.to_dtype(DType::BF16)?.t()?];
        let half = bencher.time(|| matmul(&narrow, &transposed).map(drop))?;
        let gflop = 2.0 * (n * i * o) as f64 / 1e9;
        let measured = [
            ("seconds", seconds),
            ("gops", gflop / seconds),
            ("bf16_seconds", half),
            ("of_peak", bencher.of_peak(gflop / seconds)),
        ];
        bencher.row(Key { bench: "linear_int8_dynamic", n, i, o }, &measured)?;
    }
    Ok(())
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |most: f32, x| most.max(x.abs()))
}

/// Weights `[o, i]` on a grid for each output.
fn eight_bits(w: &Tensor) -> Result<PackedWeights, Failure> {
    let (values, row) = (w.to_vec::<f32>()?, w.shape()[1]);
    let scales: Vec<f32> = values.chunks(row).map(|row| (largest(row) / 127.0).max(f32::MIN_POSITIVE)).collect();
    let codes =
        values.chunks(row).zip(&scales).flat_map(|(row, scale)| row.iter().map(move |w| (w / scale).round() as i8));
    Ok(PackedWeights::matrix(&Tensor::from_vec(*w.shape(), codes.collect())?, &scales)?)
}

/// `x · wᵀ` with `x` on the grid of its own range.
fn dynamic(x: &Tensor, weights: &PackedWeights) -> Result<Tensor, qtensor::Error> {
    let scale = (largest(x.as_slice()?) / 127.0).max(f32::MIN_POSITIVE);
    let input = Quantization { scale, zero_point: 128 };
    let bytes = i8::quantize(x, input)?;
    let operands = Operands { x: &bytes, input, weights, bias: None, residual: None, relu: false, output: Output::F32 };
    i8::matmul(&operands)
}
