//! The kernels that are bound by memory: elements a second, at the size of an early layer of a CIFAR residual network (batch 128), on every instruction set.

mod common;

use criterion::{BatchSize, Criterion, Throughput};
use qkernels::elementwise::{UnaryOp, add_relu, unary, unary_grad};
use qkernels::norm::{BatchNormGrad, BatchNormTrain, batch_norm_grad, batch_norm_train};
use qkernels::quadratic::{Normalised, NormalisedGrad, Rule, combine_normalised, combine_normalised_grad};
use qkernels::update::{SgdStep, sgd_step};
use qkernels::{Activation, cast, isa, pool, reduce, softmax};
use qtensor::{DType, Tensor};
use std::hint::black_box;

fn values(shape: &[usize]) -> Tensor {
    let mut i = 0.0f64;
    Tensor::from_fn(shape, || {
        i += 1.0;
        (i * 12.9898).sin() as f32
    })
    .expect("a shape that fits")
    .to_channels_last()
}

fn passes(criterion: &mut Criterion) {
    let shape = [128, 16, 32, 32];
    let (x, dy) = (values(&shape), values(&shape));
    let (gamma, beta) = (values(&[16]), values(&[16]));
    let mut group = criterion.benchmark_group(format!("passes/{}", isa::current().name()));
    group.throughput(Throughput::Elements(x.numel() as u64));
    for op in [UnaryOp::Relu, UnaryOp::Exp, UnaryOp::Log, UnaryOp::Tanh, UnaryOp::Sigmoid] {
        group.bench_function(op.name(), |b| b.iter(|| unary(op, black_box(&x))));
    }
    group.bench_function("relu_grad", |b| b.iter(|| unary_grad(UnaryOp::Relu, black_box(&x), &dy)));
    group.bench_function("add_relu", |b| b.iter(|| add_relu(black_box(&x), &dy)));
    group.bench_function("channel_sums", |b| b.iter(|| reduce::sum(black_box(&x), &[0, 2, 3], false)));
    group.bench_function("to_bf16", |b| b.iter(|| cast::to_bf16(black_box(&x))));
    group.bench_function("norm2", |b| b.iter(|| reduce::norm2(black_box(&x))));
    group.bench_function("all_finite", |b| b.iter(|| reduce::all_finite(black_box(&x))));
    let arguments = BatchNormTrain { activation: Activation::Relu, ..BatchNormTrain::new(&x, &gamma, &beta, 1e-5) };
    group.bench_function("batch_norm_train", |b| b.iter(|| batch_norm_train(black_box(arguments))));
    let out = batch_norm_train(arguments).expect("shapes that fit");
    let arguments = BatchNormGrad {
        x: &x,
        dy: dy.clone(),
        also: None,
        gamma: &gamma,
        beta: &beta,
        mean: &out.mean,
        inv_std: &out.inv_std,
        activation: Activation::Relu,
        y: None,
        residual: false,
    };
    group.bench_function("batch_norm_grad", |b| b.iter(|| batch_norm_grad(black_box(arguments.clone()))));
    // Three projections of a quadratic layer.
    let z = values(&[3 * 128, 16, 32, 32]);
    let (gamma, beta) = (values(&[3, 16]), values(&[3, 16]));
    let rule = Rule::ProductAndSum;
    let arguments = Normalised { rule, z: &z, gamma: &gamma, beta: &beta, eps: 1e-5, moments: None };
    group.bench_function("combine_normalised", |b| b.iter(|| combine_normalised(black_box(arguments))));
    let out = combine_normalised(arguments).expect("shapes that fit");
    let (mean, inv_std) = (&out.mean, &out.inv_std);
    group.bench_function("combine_normalised_grad", |b| {
        b.iter_batched(
            || z.copy(),
            |z| {
                combine_normalised_grad(NormalisedGrad {
                    rule,
                    z,
                    dy: &dy,
                    gamma: &gamma,
                    beta: &beta,
                    mean,
                    inv_std,
                    is_normalised: false,
                })
            },
            BatchSize::LargeInput,
        );
    });
    let params = pool::PoolParams::new(2);
    group.bench_function("max_pool2d", |b| b.iter(|| pool::max_pool2d(black_box(&x), &params)));
    let (y, places) = pool::max_pool2d(&x, &params).expect("shapes that fit");
    group.bench_function("max_pool2d_grad", |b| {
        b.iter(|| pool::max_pool2d_grad(black_box(&y), &places, &shape, &params))
    });
    let (mut parameter, mut velocity) = (x.copy(), x.zeros_like());
    group.bench_function("sgd_step", |b| {
        b.iter(|| {
            sgd_step(SgdStep {
                parameter: &mut parameter,
                gradient: black_box(&dy),
                velocity: Some(&mut velocity),
                first: false,
                lr: 1e-3,
                momentum: 0.9,
                dampening: 0.0,
                nesterov: true,
                weight_decay: 5e-4,
            })
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group(format!("loss/{}", isa::current().name()));
    let logits = values(&[128, 100]);
    let labels = Tensor::zeros([128], DType::I64).expect("a shape that fits");
    group.throughput(Throughput::Elements(logits.numel() as u64));
    group.bench_function("softmax_cross_entropy", |b| {
        b.iter(|| softmax::softmax_cross_entropy(black_box(&logits), &labels, 0.1));
    });
    group.finish();
}

fn main() {
    common::run(passes);
}
