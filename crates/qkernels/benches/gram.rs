//! Gram matrices of layers on every instruction set, beside the f32 matrix product of the same shape; a throughput of 1 Gelem/s is 1 GFLOP/s.
//!
//! Operations are those that are needed: the lower triangle of `H`, and all of `C` where the inputs come from two tensors.

mod common;

use common::Rates;
use criterion::Criterion;
use qkernels::gram::{Gram, Grouping, Inputs, Patches, Sources, Window};
use qkernels::{Conv2dParams, Gemm};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Tensor};

fn uniform(shape: &[usize]) -> Tensor {
    let key = StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index: 0 };
    Stream::new(key).uniform_tensor(shape, 0.0, 1.0).expect("a small shape").to_channels_last()
}

fn convolution(channels: usize, kernel: usize, grouping: Grouping) -> Inputs {
    let params = Conv2dParams { padding: [kernel / 2; 2], ..Default::default() };
    let window = Window::Conv2d { params, kernel: [kernel; 2] };
    Inputs { window, channels, grouping, patches: Patches::All }
}

fn layers(criterion: &mut Criterion) {
    let mut rates = Rates::new(criterion, "gram");
    let (whole, alone) = (Grouping::WholeFilter, Grouping::PerChannel);
    let cases = [
        ("dense 576", Inputs::dense(576), vec![8192, 576]),
        ("dense 2048", Inputs::dense(2048), vec![4096, 2048]),
        ("filter 32x3x3", convolution(32, 3, whole), vec![16, 32, 32, 32]),
        ("filter 64x3x3", convolution(64, 3, whole), vec![16, 64, 16, 16]),
        ("filter 128x3x3", convolution(128, 3, whole), vec![64, 128, 8, 8]),
        ("channel 3x3x3", convolution(3, 3, alone), vec![64, 3, 32, 32]),
        ("channel 32x3x3", convolution(32, 3, alone), vec![64, 32, 32, 32]),
        ("channel 128x1x1", convolution(128, 1, alone), vec![64, 128, 16, 16]),
        ("channel 64x5x5", convolution(64, 5, alone), vec![16, 64, 16, 16]),
    ];
    for (name, inputs, shape) in cases {
        let (x, y) = (uniform(&shape), uniform(&shape));
        let (blocks, size) = (inputs.blocks(), inputs.size());
        let rows = if shape.len() == 2 { shape[0] } else { shape[0] * shape[2] * shape[3] };
        let triangle = blocks * rows * size * (size + 1);
        for (sources, operations) in
            [(Sources::One, triangle), (Sources::Two, triangle + 2 * blocks * rows * size * size)]
        {
            let mut gram = Gram::new(inputs, sources).expect("a layer");
            let analog = (sources == Sources::Two).then_some(&y);
            rates.bench(&format!("{name} of {sources:?}"), operations, || gram.add(&x, analog).expect("this shape"));
        }
        let side = size.max(144);
        let (a, b) = (uniform(&[1024, side]), uniform(&[1024, side]));
        let mut out = Tensor::zeros([side, side], DType::F32).expect("a small shape");
        let (a, name) = (a.t().expect("a matrix"), format!("{side}x1024x{side}: matrix product beside {name}"));
        rates.bench(&name, 2 * 1024 * side * side, || Gemm::new(&a, &b).run_into(&mut out).expect("shapes that fit"));
    }
}

fn main() {
    common::run(layers);
}
