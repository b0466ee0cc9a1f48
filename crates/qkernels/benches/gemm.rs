//! Matrix products on the instruction set in use (`QUARTZ_ISA` chooses another); a throughput of 1 Gelem/s is 1 GFLOP/s.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qkernels::{Gemm, isa, par, peak};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

fn matrix(rows: usize, columns: usize) -> Result<Tensor> {
    let key = StreamKey { seed: 0, purpose: Purpose::Test, epoch: 0, index: 0 };
    Stream::new(key).uniform_tensor([rows, columns], -1.0, 1.0)
}

/// `(name, a, b)`: large and square, skinny as convolutions are, the three products of a linear layer, and products with a vector.
fn cases() -> Result<Vec<(String, Tensor, Tensor)>> {
    let mut cases = Vec::new();
    for (m, k, n) in [
        (256, 256, 256),
        (512, 512, 512),
        (1024, 1024, 1024),
        (2048, 2048, 2048),
        (64, 576, 16384),
        (16, 144, 65536),
        (65536, 144, 16),
        (128, 784, 300),
        (100, 100, 100),
    ] {
        cases.push((format!("{m}x{k}x{n}"), matrix(m, k)?, matrix(k, n)?));
    }
    for (batch, inputs, outputs) in [(1, 784, 500), (8, 784, 500), (128, 784, 500), (128, 4096, 4096)] {
        let (x, w, dy) = (matrix(batch, inputs)?, matrix(outputs, inputs)?, matrix(batch, outputs)?);
        let name = format!("{batch}x{inputs}x{outputs}");
        cases.push((format!("linear/{name}"), x.clone(), w.t()?));
        cases.push((format!("linear_input_grad/{name}"), dy.clone(), w));
        cases.push((format!("linear_weight_grad/{name}"), dy.t()?, x));
    }
    Ok(cases)
}

fn gemm(criterion: &mut Criterion) {
    let name = isa::current().name();
    if let Ok(peak) = peak::multiply_add_peak(par::threads()) {
        println!("{name}, {} threads: multiply-add peak {peak:.0} GFLOP/s", par::threads());
    }
    let mut group = criterion.benchmark_group(format!("gemm_f32/{name}"));
    for (case, a, b) in cases().expect("shapes that fit") {
        let (m, k, n) = (a.shape()[0], a.shape()[1], b.shape()[1]);
        let mut out = Tensor::zeros([m, n], DType::F32).expect("a shape that fits");
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
        group.bench_function(BenchmarkId::from_parameter(case), |bencher| {
            bencher.iter(|| Gemm::new(&a, &b).run_into(&mut out).expect("shapes that fit"));
        });
    }
    group.finish();
}

criterion_group!(benches, gemm);
criterion_main!(benches);
