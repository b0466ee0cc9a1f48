//! Quantized products and convolutions beside the f32 kernels of the same shape, on every instruction set. Shares are of the f32 peak, of which dot products of bytes
//! have four times as much.

mod common;

use common::Rates;
use criterion::Criterion;
use qkernels::conv::shapes::STANDARD;
use qkernels::i8::{self, Operands, Output, PackedWeights, Quantization};
use qkernels::{Activation, Conv2dParams, Gemm, conv2d};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

/// Numbers of a range, as a type.
fn random(shape: &[usize], range: [f32; 2], dtype: DType) -> Result<Tensor> {
    let key = StreamKey { seed: 1, purpose: Purpose::Test, epoch: 0, index: 0 };
    Stream::new(key).uniform_tensor(shape, range[0], range[1])?.to_dtype(dtype)
}

/// Activations and weights.
fn operands(x: &[usize], w: &[usize]) -> Result<[Tensor; 2]> {
    Ok([random(x, [0.0, 255.0], DType::U8)?.to_channels_last(), random(w, [-90.0, 90.0], DType::I8)?])
}

const OF_X: Quantization = Quantization { scale: 0.02, zero_point: 0 };
const OF_Y: Quantization = Quantization { scale: 0.5, zero_point: 0 };

fn quantized<'a>(x: &'a Tensor, weights: &'a PackedWeights) -> Operands<'a> {
    Operands { x, input: OF_X, weights, bias: None, residual: None, relu: true, output: Output::U8(OF_Y) }
}

/// Times of the f32 kernel and of the quantized one.
fn print_ratio(float: f64, bytes: f64) {
    if float.is_finite() && bytes.is_finite() {
        println!("{:24}{:.2} times as fast as f32", "", float / bytes);
    }
}

fn layers(criterion: &mut Criterion) {
    let mut rates = Rates::new(criterion, "int8");
    for (m, k, n) in [(256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (128, 4096, 4096)] {
        let [x, w] = operands(&[m, k], &[n, k]).expect("a small shape");
        let weights = PackedWeights::matrix(&w, &[0.01]).expect("a matrix of i8");
        let [a, b] = [&x, &w].map(|x| x.to_dtype(DType::F32).expect("numbers"));
        let b = b.t().expect("a matrix");
        let (name, operations) = (format!("gemm/{m}x{k}x{n}"), 2 * m * k * n);
        let float = rates.bench(&format!("{name}/f32"), operations, || Gemm::new(&a, &b).run());
        print_ratio(float, rates.bench(&name, operations, || i8::matmul(&quantized(&x, &weights))));
    }
    for [n, c, o, side, kernel, stride, padding, groups] in STANDARD {
        let [x, w] = operands(&[n, c, side, side], &[o, c / groups, kernel, kernel]).expect("a small shape");
        let params = Conv2dParams { stride: [stride; 2], padding: [padding; 2], groups, ..Default::default() };
        let weights = PackedWeights::filters(&w, &[0.01], &params).expect("filters of i8");
        let [a, b] = [&x, &w].map(|x| x.to_dtype(DType::F32).expect("numbers"));
        let out = (side + 2 * padding - kernel) / stride + 1;
        let operations = 2 * n * o * out * out * c / groups * kernel * kernel;
        let name = format!("conv/{n}x{c}x{side}x{side}-{o}x{kernel}x{kernel}-s{stride}-g{groups}");
        let float = rates.bench(&format!("{name}/f32"), operations, || conv2d(&a, &b, None, &params, Activation::Relu));
        print_ratio(float, rates.bench(&name, operations, || i8::conv2d(&quantized(&x, &weights))));
    }
}

fn main() {
    common::run(layers);
}
