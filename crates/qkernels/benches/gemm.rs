//! Matrix products of f32 and of bf16 on every instruction set; a throughput of 1 Gelem/s is 1 GFLOP/s, shares are of the f32 peak.

mod common;

use common::Rates;
use criterion::Criterion;
use qkernels::{Gemm, cast};
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

fn products(criterion: &mut Criterion) {
    let cases = cases().expect("shapes that fit");
    for (name, half) in [("gemm_f32", false), ("gemm_bf16", true)] {
        let mut rates = Rates::new(criterion, name);
        for (case, a, b) in &cases {
            let of = |x: &Tensor| if half { cast::to_bf16(x).expect("an f32 matrix") } else { x.clone() };
            let (a, b) = (of(a), of(b));
            let (m, k, n) = (a.shape()[0], a.shape()[1], b.shape()[1]);
            let mut out = Tensor::zeros([m, n], DType::F32).expect("a shape that fits");
            rates.bench(case, 2 * m * k * n, || Gemm::new(&a, &b).run_into(&mut out).expect("shapes that fit"));
        }
    }
}

fn main() {
    common::run(products);
}
