//! Sparse layers beside dense ones: forward pass, and both gradients together, from row-major inputs and gradients as other engines give them. Changes of the memory order, the roundings to
//! bytes, and the way of weights and their gradients between dense and sparse form are a part of it.

use super::{Bencher, gemm::normal};
use crate::args::{Bench, MaskKind, OrderKind};
use crate::failure::Failure;
use qgraph::ops::{Conv2d, Linear, SparseArithmetic, SparseInt8, SparseMap};
use qgraph::{Activation, Conv2dParams, Tape, Tensor, Var};
use qkernels::par;
use qkernels::sparse::{Pattern, Plan};
use qtensor::random::{Purpose, Stream, StreamKey};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Batch, inputs, outputs: `compare_linear` of SparseProp, and the linear layer of its notebook.
const LINEAR: [[usize; 3]; 2] = [[128, 512, 256], [2048, 768, 3072]];
/// `compare_conv2d` of SparseProp: n, c, k, hw, kernel, stride, pad, groups.
const CONV: [[usize; 8]; 1] = [[64, 128, 128, 32, 3, 1, 0, 1]];
/// The prunable convolutions of ResNet-18 for images of 224 pixels: c, k, hw, kernel, stride, and how many of them the network has.
const RESNET18: [[usize; 6]; 10] = [
    [64, 64, 56, 3, 1, 4],
    [64, 128, 56, 3, 2, 1],
    [64, 128, 56, 1, 2, 1],
    [128, 128, 28, 3, 1, 3],
    [128, 256, 28, 3, 2, 1],
    [128, 256, 28, 1, 2, 1],
    [256, 256, 14, 3, 1, 3],
    [256, 512, 14, 3, 2, 1],
    [256, 512, 14, 1, 2, 1],
    [512, 512, 7, 3, 1, 3],
];
const SPARSITIES: [f64; 5] = [0.8, 0.9, 0.95, 0.98, 0.99];

/// What names a row, as in the peer's figures.
#[derive(Serialize)]
struct Key {
    bench: &'static str,
    #[serde(flatten)]
    shape: Shape,
    sparsity: f64,
    #[serde(flatten)]
    kind: Kind,
}

/// Which weights are zero, and how the sparse kernels work.
#[derive(Clone, Copy, Serialize)]
struct Kind {
    mask: MaskKind,
    order: OrderKind,
}

#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
enum Shape {
    Linear { n: usize, i: usize, o: usize },
    Conv { n: usize, c: usize, k: usize, hw: usize, kernel: usize, stride: usize, pad: usize },
}

/// The kernels of a row, with the beginnings of their fields' names.
const KERNELS: [(&str, Option<SparseArithmetic>); 2] = [("dense", None), ("f32", Some(SparseArithmetic::F32))];

/// A row for each shape and sparsity.
pub(super) fn run(bencher: &Bencher, arguments: &Bench) -> Result<(), Failure> {
    let kind = Kind { mask: arguments.mask, order: arguments.order };
    let sparsities = if arguments.sparsity.is_empty() { &SPARSITIES[..] } else { &arguments.sparsity[..] };
    let of = |length: usize| arguments.shapes.iter().map(|shape| &shape.0).filter(move |shape| shape.len() == length);
    let is_standard = arguments.shapes.is_empty();
    let linear = of(3).map(|s| [s[0], s[1], s[2]]).chain(LINEAR.into_iter().filter(|_| is_standard));
    for [n, i, o] in linear {
        layer(bencher, ("sparse_linear", Shape::Linear { n, i, o }), (sparsities, 1), kind)?;
    }
    let conv = of(8).map(|s| [s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]]);
    for [n, c, k, hw, kernel, stride, pad, groups] in conv.chain(CONV.into_iter().filter(|_| is_standard)) {
        let shape = Shape::Conv { n, c, k, hw, kernel, stride, pad };
        layer(bencher, ("sparse_conv", shape), (sparsities, groups), kind)?;
    }
    let batches: Vec<usize> = arguments.batches.iter().map(|batch| *batch as usize).collect();
    for n in if batches.is_empty() { vec![64] } else { batches } {
        let mut totals = [0.0; 3];
        for [c, k, hw, kernel, stride, count] in RESNET18.into_iter().filter(|_| is_standard) {
            let shape = Shape::Conv { n, c, k, hw, kernel, stride, pad: kernel / 2 };
            let times = layer(bencher, ("sparse_resnet18", shape), (&[0.95], 1), kind)?;
            totals.iter_mut().zip(times).for_each(|(total, time)| *total += count as f64 * time);
        }
        if is_standard {
            let key =
                serde_json::json!({"bench": "sparse_resnet18_total", "n": n, "sparsity": 0.95, "mask": arguments.mask});
            let [dense, f32, int8] = totals;
            bencher.row(key, &[("dense_seconds", dense), ("f32_seconds", f32), ("int8_seconds", int8)])?;
        }
    }
    Ok(())
}

/// The rows of a layer; the seconds of forward and backward pass of each kind of kernels at the last sparsity.
fn layer(
    bencher: &Bencher,
    (bench, shape): (&'static str, Shape),
    (sparsities, groups): (&[f64], usize),
    kind: Kind,
) -> Result<[f64; 3], Failure> {
    let [x, w, dy] = operands(shape, groups)?;
    let mut dense = None;
    let mut last = [0.0; 3];
    for sparsity in sparsities {
        let w = pruned(&w, *sparsity, kind.mask)?;
        let pattern = Pattern::from_dense(&w)?;
        let plan = match shape {
            Shape::Linear { .. } => Plan::linear(&pattern)?,
            Shape::Conv { hw, .. } => Plan::conv2d(&pattern, &shape.params(groups), [hw; 2])?,
        };
        let plan = Arc::new(plan.in_order(kind.order.into()));
        let work = |arithmetic: Option<SparseArithmetic>| Work { shape, groups, plan: plan.clone(), arithmetic };
        let int8 = SparseArithmetic::Int8(SparseInt8::default());
        let all = KERNELS.into_iter().chain([("int8", Some(int8))]);
        let mut fields: Vec<(String, f64)> = Vec::new();
        let mut results = Vec::new();
        for (i, (name, arithmetic)) in all.enumerate() {
            let work = work(arithmetic);
            // Dense kernels take the same time for any weights.
            let [forward, backward] = match dense {
                Some(times) if i == 0 => times,
                _ => work.time(bencher, [&x, &w, &dy])?,
            };
            if i == 0 {
                dense = Some([forward, backward]);
            }
            last[i] = forward + backward;
            fields.push((format!("{name}_fwd_seconds"), forward));
            fields.push((format!("{name}_bwd_seconds"), backward));
            results.push(work.pass([&x, &w, &dy])?.0);
        }
        let [exact, _, bytes] = &results[..] else { continue };
        for (i, name) in ["output", "input_grad", "weight_grad"].into_iter().enumerate() {
            let exact = if i == 2 { pattern.gather(&exact[i])? } else { exact[i].clone() };
            let found = if i == 2 { pattern.gather(&bytes[i])? } else { bytes[i].clone() };
            fields.push((format!("int8_{name}_error"), relative_error(&exact, &found)?));
        }
        let fields: Vec<(&str, f64)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        bencher.row(Key { bench, shape, sparsity: *sparsity, kind }, &fields)?;
    }
    Ok(last)
}

impl Shape {
    fn params(self, groups: usize) -> Conv2dParams {
        match self {
            Shape::Linear { .. } => Conv2dParams::default(),
            Shape::Conv { stride, pad, .. } => {
                Conv2dParams { stride: [stride; 2], padding: [pad; 2], groups, ..Conv2dParams::default() }
            }
        }
    }
}

/// Inputs, none of them negative, dense weights, and gradients of outputs.
fn operands(shape: Shape, groups: usize) -> Result<[Tensor; 3], Failure> {
    use qkernels::elementwise::{UnaryOp, unary};
    Ok(match shape {
        Shape::Linear { n, i, o } => [unary(UnaryOp::Relu, &normal([n, i])?)?, normal([o, i])?, normal([n, o])?],
        Shape::Conv { n, c, k, hw, kernel, stride, pad } => {
            let out = (hw + 2 * pad - kernel) / stride + 1;
            let x = unary(UnaryOp::Relu, &normal([n, c, hw, hw])?)?;
            [x, normal([k, c / groups, kernel, kernel])?, normal([n, k, out, out])?]
        }
    })
}

/// The weights with a share of zeros: the smallest, or random ones.
fn pruned(w: &Tensor, sparsity: f64, mask: MaskKind) -> Result<Tensor, Failure> {
    let values = w.to_vec::<f32>()?;
    let ranks: Vec<f32> = match mask {
        MaskKind::Magnitude => values.iter().map(|w| w.abs()).collect(),
        MaskKind::Random => {
            let mut stream = Stream::new(StreamKey { seed: 0, purpose: Purpose::Mask, epoch: 0, index: 0 });
            values.iter().map(|_| stream.uniform()).collect()
        }
    };
    let mut sorted = ranks.clone();
    sorted.sort_by(f32::total_cmp);
    let least = sorted[((sparsity * sorted.len() as f64) as usize).min(sorted.len() - 1)];
    let left = values.into_iter().zip(ranks).map(|(w, rank)| if rank < least { 0.0 } else { w });
    Ok(Tensor::from_vec(*w.shape(), left.collect())?)
}

/// A layer on some kernels.
struct Work {
    shape: Shape,
    groups: usize,
    plan: Arc<Plan>,
    /// None for dense kernels.
    arithmetic: Option<SparseArithmetic>,
}

impl Work {
    /// Output, gradient of the inputs and of the weights, and the seconds of both passes.
    fn pass(&self, operands: [&Tensor; 3]) -> Result<([Tensor; 3], [f64; 2]), Failure> {
        par::install(|| self.pass_here(operands))
    }

    fn pass_here(&self, [x, w, dy]: [&Tensor; 3]) -> Result<([Tensor; 3], [f64; 2]), Failure> {
        let mut tape = Tape::new();
        let (x, w) = (tape.leaf(x.clone()), tape.leaf(w.clone()));
        let start = Instant::now();
        let y = self.forward(&mut tape, &x, &w)?;
        let forward = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let mut gradients = tape.backward_from(&y, dy.clone())?;
        let backward = start.elapsed().as_secs_f64();
        let missing = || Failure::run("a gradient is missing");
        let results =
            [y.into_value(), gradients.take(&x).ok_or_else(missing)?, gradients.take(&w).ok_or_else(missing)?];
        Ok((results, [forward, backward]))
    }

    fn forward(&self, tape: &mut Tape, x: &Var, w: &Var) -> Result<Var, Failure> {
        let activation = Activation::None;
        Ok(match (&self.arithmetic, self.shape) {
            (Some(arithmetic), _) => {
                let noise = Some(StreamKey { seed: 0, purpose: Purpose::Rounding, epoch: 0, index: 0 });
                let op = SparseMap { plan: self.plan.clone(), arithmetic: arithmetic.clone(), activation, noise };
                tape.sparse_map(op, x, w, None)?
            }
            (None, Shape::Linear { .. }) => tape.linear_with(Linear::default(), x, w, None)?,
            (None, Shape::Conv { .. }) => {
                let op = Conv2d { params: self.shape.params(self.groups), ..Conv2d::default() };
                tape.conv2d_with(op, x, w, None)?
            }
        })
    }

    /// The median seconds of both passes.
    fn time(&self, bencher: &Bencher, operands: [&Tensor; 3]) -> Result<[f64; 2], Failure> {
        bencher.times(|| Ok(self.pass(operands)?.1))
    }
}

/// The norm of the difference by the norm of the first.
fn relative_error(exact: &Tensor, found: &Tensor) -> Result<f64, Failure> {
    let (exact, found) = (exact.to_vec::<f32>()?, found.to_vec::<f32>()?);
    let pairs = || exact.iter().zip(&found).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let error: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(a, _)| a * a).sum();
    Ok((error / norm.max(f64::MIN_POSITIVE)).sqrt())
}
