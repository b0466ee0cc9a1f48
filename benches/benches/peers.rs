//! Matrix products beside ndarray's, in one run: `cargo bench -p quartz-benches --bench peers`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qkernels::gemm::Gemm;
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Tensor};

/// Rows, inner length, columns: squares, and the shapes of small convolutions.
const SHAPES: [[usize; 3]; 5] =
    [[256, 256, 256], [1024, 1024, 1024], [64, 576, 16384], [16, 144, 65536], [128, 784, 300]];

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm_f32");
    group.sample_size(10);
    let mut random = Stream::new(StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index: 0 });
    for [m, k, n] in SHAPES {
        let a = random.normal_tensor([m, k], 0.0, 1.0).expect("a small shape");
        let b = random.normal_tensor([k, n], 0.0, 1.0).expect("a small shape");
        let mut out = Tensor::empty([m, n], DType::F32).expect("a small shape");
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        let name = format!("{m}x{k}x{n}");
        group.bench_function(BenchmarkId::new("quartz", &name), |bencher| {
            bencher.iter(|| Gemm::new(&a, &b).run_into(&mut out).expect("the shapes fit"));
        });
        let (left, right) = (a.to_ndarray::<f32>().expect("f32"), b.to_ndarray::<f32>().expect("f32"));
        let left = left.into_dimensionality::<ndarray::Ix2>().expect("two axes");
        let right = right.into_dimensionality::<ndarray::Ix2>().expect("two axes");
        let mut product = ndarray::Array2::<f32>::zeros((m, n));
        group.bench_function(BenchmarkId::new("ndarray", &name), |bencher| {
            bencher.iter(|| ndarray::linalg::general_mat_mul(1.0, &left, &right, 0.0, &mut product));
        });
    }
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
