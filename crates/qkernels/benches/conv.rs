//! Convolution layers of the usual small networks, forward and both gradients; throughput is in products and sums a second (FLOP/s).
//! Each instruction set is a run of its own: `QUARTZ_ISA=avx2 cargo bench -p qkernels --bench conv`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qkernels::{Activation, Conv2dParams, conv2d, conv2d_input_grad, conv2d_weight_grad, isa};
use qtensor::random::{Purpose, Stream, StreamKey};

/// Batch, channels, filters, side of the image, side of the kernel, stride, padding, groups.
const SHAPES: [[usize; 8]; 12] = [
    [128, 3, 16, 32, 3, 1, 1, 1],
    [128, 16, 16, 32, 3, 1, 1, 1],
    [128, 16, 32, 32, 3, 2, 1, 1],
    [128, 32, 32, 16, 3, 1, 1, 1],
    [128, 64, 64, 8, 3, 1, 1, 1],
    [64, 64, 64, 32, 3, 1, 1, 1],
    [64, 128, 128, 16, 3, 1, 1, 1],
    [64, 256, 256, 8, 3, 1, 1, 1],
    [64, 512, 512, 4, 3, 1, 1, 1],
    [128, 64, 128, 16, 1, 2, 0, 1],
    [64, 128, 128, 16, 3, 1, 1, 128],
    [8, 64, 64, 56, 3, 1, 1, 1],
];

fn layers(criterion: &mut Criterion) {
    for [n, c, o, side, kernel, stride, padding, groups] in SHAPES {
        let mut stream = Stream::new(StreamKey { seed: 1, purpose: Purpose::Test, epoch: 0, index: 0 });
        let mut random = |shape: [usize; 4]| stream.uniform_tensor(shape, -1.0, 1.0).expect("a small shape");
        let x = random([n, c, side, side]).to_channels_last();
        let w = random([o, c / groups, kernel, kernel]);
        let params = Conv2dParams { stride: [stride; 2], padding: [padding; 2], groups, ..Default::default() };
        let out = (side + 2 * padding - kernel) / stride + 1;
        let dy = random([n, o, out, out]).to_channels_last();
        let name =
            format!("conv-{}-{n}x{c}x{side}x{side}-{o}x{kernel}x{kernel}-s{stride}-g{groups}", isa::current().name());
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements((2 * dy.numel() * c / groups * kernel * kernel) as u64));
        group.bench_function("forward", |b| b.iter(|| conv2d(&x, &w, None, &params, Activation::None)));
        group.bench_function("input_grad", |b| b.iter(|| conv2d_input_grad(&dy, &w, x.shape(), &params)));
        group.bench_function("weight_grad", |b| b.iter(|| conv2d_weight_grad(&x, &dy, w.shape(), &params)));
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
