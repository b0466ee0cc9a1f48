//! Convolution layers of the usual small networks, forward and both gradients, in f32 and in bf16, on every instruction set; a throughput of 1 Gelem/s is 1 GFLOP/s.

mod common;

use common::Rates;
use criterion::Criterion;
use qkernels::conv::shapes::STANDARD;
use qkernels::{Activation, Conv2dParams, conv2d, conv2d_input_grad, conv2d_weight_grad};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Tensor};

fn layers(criterion: &mut Criterion) {
    of_type(criterion, "conv_f32", DType::F32);
    of_type(criterion, "conv_bf16", DType::BF16);
}

/// All layers with images of a type.
fn of_type(criterion: &mut Criterion, name: &str, dtype: DType) {
    let mut rates = Rates::new(criterion, name);
    for [n, c, o, side, kernel, stride, padding, groups] in STANDARD {
        let mut stream = Stream::new(StreamKey { seed: 1, purpose: Purpose::Test, epoch: 0, index: 0 });
        let mut random = |shape: [usize; 4]| stream.uniform_tensor(shape, -1.0, 1.0).expect("a small shape");
        let images = |x: Tensor| x.to_dtype(dtype).expect("floats").to_channels_last();
        let x = images(random([n, c, side, side]));
        let w = random([o, c / groups, kernel, kernel]);
        let params = Conv2dParams { stride: [stride; 2], padding: [padding; 2], groups, ..Default::default() };
        let out = (side + 2 * padding - kernel) / stride + 1;
        let dy = images(random([n, o, out, out]));
        let operations = 2 * dy.numel() * c / groups * kernel * kernel;
        let name = |pass: &str| format!("{n}x{c}x{side}x{side}-{o}x{kernel}x{kernel}-s{stride}-g{groups}/{pass}");
        rates.bench(&name("forward"), operations, || conv2d(&x, &w, None, &params, Activation::None));
        rates.bench(&name("input_grad"), operations, || conv2d_input_grad(&dy, &w, x.shape(), &params));
        rates.bench(&name("weight_grad"), operations, || conv2d_weight_grad(&x, &dy, w.shape(), &params));
    }
}

fn main() {
    common::run(layers);
}
