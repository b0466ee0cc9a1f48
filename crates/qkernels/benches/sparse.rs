//! Sparse layers beside the dense kernels of the same shape, on magnitude-pruned weights: forward pass and both gradients, from row-major inputs and gradients, the change
//! of the memory order included; dense convolutions get theirs channels-last. Then the same in bytes, where weights, inputs and gradients are quantized each time, by ranges that are known.
//! Shares are of the multiply-adds that are left, and of the peak of f32.

mod common;

use common::Rates;
use criterion::Criterion;
use qkernels::rounding::{Clip, Format, Groups, Quantizer, Rounding};
use qkernels::sparse::{ByteCodes, ByteForward, ByteScheme, Forward, Order, Pattern, Plan};
use qkernels::{Activation, Conv2dParams, Gemm, conv2d, conv2d_input_grad, conv2d_weight_grad};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

const fn key(index: u64) -> StreamKey {
    StreamKey { seed: 1, purpose: Purpose::Test, epoch: 0, index }
}

/// Numbers near a normal distribution.
fn random(shape: &[usize], index: u64) -> Result<Tensor> {
    Stream::new(key(index)).normal_tensor(shape, 0.0, 1.0)
}

/// Weights of which the share `sparsity` that is smallest is 0.
fn pruned(shape: &[usize], sparsity: f64) -> Result<Tensor> {
    let weights = random(shape, 0)?.to_vec::<f32>()?;
    let mut sizes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let least = sizes[(sparsity * sizes.len() as f64) as usize];
    Tensor::from_vec(shape, weights.into_iter().map(|w| if w.abs() < least { 0.0 } else { w }).collect())
}

/// Batch, channels, filters, height and width, kernel, stride, padding.
const CONVOLUTIONS: [[usize; 7]; 5] = [
    [64, 128, 128, 32, 3, 1, 0],
    [64, 64, 64, 56, 3, 1, 1],
    [64, 128, 256, 28, 3, 2, 1],
    [64, 512, 512, 7, 3, 1, 1],
    [64, 256, 256, 28, 1, 1, 0],
];
/// Batch, inputs, outputs.
const LINEAR: [[usize; 3]; 2] = [[128, 512, 256], [2048, 768, 3072]];

/// All three passes.
fn step(plan: &Plan, values: &Tensor, x: &Tensor, dy: &Tensor) -> Result<[Tensor; 3]> {
    let x = plan.order().of(x)?;
    let y = plan.forward(&Forward { x: &x, values, bias: None, activation: Activation::None })?;
    let dy = plan.order().of(dy)?;
    Ok([y, plan.input_grad(&dy, values)?, plan.weight_grad(&x, &dy)?])
}

/// All three passes in bytes.
fn byte_step(plan: &Plan, values: &Tensor, [x, dy]: [(&Tensor, &Quantizer); 2]) -> Result<[Tensor; 3]> {
    let weights = plan.quantize(values, &ByteScheme::default())?;
    let x = ByteCodes::quantize(x.0, x.1, Rounding::Nearest, plan.order())?;
    let y = plan.forward_int8(&ByteForward {
        x: &x,
        weights: &weights,
        bias: None,
        activation: Activation::None,
        dtype: DType::F32,
    })?;
    let dy = ByteCodes::quantize(dy.0, dy.1, Rounding::Stochastic(key(3)), plan.order())?;
    Ok([y, plan.input_grad_int8(&dy, &weights, DType::F32)?, plan.weight_grad_int8(&x, &dy)?])
}

/// A layer to measure.
struct Layer<'a> {
    name: String,
    w_shape: &'a [usize],
    x: &'a Tensor,
}

impl Layer<'_> {
    /// The three passes at each sparsity beside those of the dense kernels.
    fn bench(&self, rates: &mut Rates, plan: impl Fn(&Pattern) -> Result<Plan>, dense: impl Fn(&Tensor, &Tensor)) {
        let Layer { name, w_shape, x } = self;
        let full = Pattern::from_mask(&Tensor::full(w_shape, 1u8).expect("a small shape")).expect("weights");
        let y_shape = plan(&full).expect("sizes that fit").output_shape(x.shape()[0]);
        let dy = random(&y_shape, 2).expect("a small shape");
        let operations = |weights: usize| 6 * weights * dy.numel() / w_shape[0];
        let quantizer = |x: &Tensor| Quantizer::choose(x, Groups::Tensor, Format::Offset, Clip::AbsMax);
        let quantizers = [x, &dy].map(|x| quantizer(x).expect("finite numbers"));
        let (weights, last) = (random(w_shape, 0).expect("a small shape"), dy.to_channels_last());
        let time = rates.bench(&format!("{name}/dense"), operations(full.len()), || dense(&weights, &last));
        for sparsity in [0.8, 0.9, 0.95, 0.98, 0.99] {
            let weights = pruned(w_shape, sparsity).expect("a small shape");
            let pattern = Pattern::from_dense(&weights).expect("weights");
            let values = pattern.gather(&weights).expect("weights");
            let plan = plan(&pattern).expect("sizes that fit");
            let name = format!("{name}/{sparsity}");
            let sparse = rates.bench(&name, operations(pattern.len()), || step(&plan, &values, x, &dy));
            if time.is_finite() && sparse.is_finite() {
                println!("{:24}{:.2} times as fast as dense", "", time / sparse);
            }
            if x.rank() == 4 {
                let rows = plan.clone().in_order(Order::RowMajor);
                rates.bench(&format!("{name}/rows"), operations(pattern.len()), || step(&rows, &values, x, &dy));
            }
            let operands = [(*x, &quantizers[0]), (&dy, &quantizers[1])];
            let bytes =
                rates.bench(&format!("{name}/int8"), operations(pattern.len()), || byte_step(&plan, &values, operands));
            if sparse.is_finite() && bytes.is_finite() {
                println!("{:24}{:.2} times as fast as f32", "", sparse / bytes);
            }
        }
    }
}

fn layers(criterion: &mut Criterion) {
    let mut rates = Rates::new(criterion, "sparse");
    for [batch, inputs, outputs] in LINEAR {
        let x = random(&[batch, inputs], 1).expect("a small shape");
        let dense = |w: &Tensor, dy: &Tensor| {
            let (of_w, of_dy) = (w.t().expect("a matrix"), dy.t().expect("a matrix"));
            for (a, b) in [(&x, &of_w), (dy, w), (&of_dy, &x)] {
                std::hint::black_box(Gemm::new(a, b).run().expect("shapes that fit"));
            }
        };
        let name = format!("linear/{batch}x{inputs}-{outputs}");
        Layer { name, w_shape: &[outputs, inputs], x: &x }.bench(&mut rates, Plan::linear, dense);
    }
    for [batch, channels, filters, side, kernel, stride, padding] in CONVOLUTIONS {
        let params = Conv2dParams { stride: [stride; 2], padding: [padding; 2], ..Default::default() };
        let x = random(&[batch, channels, side, side], 1).expect("a small shape");
        let last = x.to_channels_last();
        let dense = |w: &Tensor, dy: &Tensor| {
            let passes = (
                conv2d(&last, w, None, &params, Activation::None),
                conv2d_input_grad(dy, w, last.shape(), &params),
                conv2d_weight_grad(&last, dy, w.shape(), &params),
            );
            std::hint::black_box((passes.0.expect("shapes"), passes.1.expect("shapes"), passes.2.expect("shapes")));
        };
        let name = format!("conv/{batch}x{channels}x{side}x{side}-{filters}x{kernel}x{kernel}-s{stride}-p{padding}");
        let plan = |pattern: &Pattern| Plan::conv2d(pattern, &params, [side, side]);
        Layer { name, w_shape: &[filters, channels, kernel, kernel], x: &x }.bench(&mut rates, plan, dense);
    }
}

fn main() {
    common::run(layers);
}
