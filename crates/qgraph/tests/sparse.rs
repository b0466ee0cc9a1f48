//! Sparse maps beside dense ones with zeros.

use qgraph::ops::{Conv2d, GradientCodes, Linear, SparseArithmetic, SparseInt8, SparseMap};
use qgraph::{Activation, Conv2dParams, DType, Result, Tape, Tensor};
use qkernels::par;
use qkernels::rounding::Clip;
use qkernels::sparse::{Order, Pattern, Plan, is_batch_innermost, to_batch_innermost};
use qtensor::random::{Purpose, Stream, StreamKey};
use std::sync::Arc;

fn key(index: u64) -> StreamKey {
    StreamKey { seed: 5, purpose: Purpose::Test, epoch: 0, index }
}

fn random(shape: &[usize], index: u64) -> Tensor {
    Stream::new(key(index)).normal_tensor(shape, 0.0, 1.0).unwrap()
}

/// The largest of random weights, about one of four.
fn pruned(shape: &[usize]) -> Tensor {
    let weights = random(shape, 1).to_vec::<f32>().unwrap();
    Tensor::from_vec(shape, weights.into_iter().map(|w| if w.abs() < 1.15 { 0.0 } else { w }).collect()).unwrap()
}

/// A layer: its operands, and what they are.
struct Layer {
    params: Option<Conv2dParams>,
    x: Tensor,
    w: Tensor,
    bias: Tensor,
    order: Order,
}

impl Layer {
    fn linear() -> Layer {
        let (x, w, bias) = (random(&[9, 20], 2), pruned(&[12, 20]), random(&[12], 3));
        Layer { params: None, x, w, bias, order: Order::BatchInnermost }
    }

    fn conv() -> Layer {
        let params = Conv2dParams { stride: [2; 2], padding: [1; 2], groups: 2, ..Conv2dParams::default() };
        let (x, w, bias) = (random(&[5, 8, 9, 7], 2), pruned(&[6, 4, 3, 3]), random(&[6], 3));
        Layer { params: Some(params), x, w, bias, order: Order::BatchInnermost }
    }

    /// The same along rows.
    fn in_rows() -> Layer {
        Layer { order: Order::RowMajor, ..Layer::conv() }
    }

    fn plan(&self) -> Arc<Plan> {
        let pattern = Pattern::from_dense(&self.w).unwrap();
        let plan = match &self.params {
            None => Plan::linear(&pattern),
            Some(params) => Plan::conv2d(&pattern, params, [self.x.shape()[2], self.x.shape()[3]]),
        };
        Arc::new(plan.unwrap().in_order(self.order))
    }

    /// Output, and gradients of the input, the weights and the bias for a random gradient of the output.
    fn run(&self, arithmetic: Option<SparseArithmetic>, activation: Activation, noise: u64) -> Result<Vec<Tensor>> {
        let mut tape = Tape::new();
        let [x, w, bias] = [&self.x, &self.w, &self.bias].map(|tensor| tape.leaf(tensor.clone()));
        let y = match (arithmetic, &self.params) {
            (Some(arithmetic), _) => {
                let noise = Some(StreamKey { purpose: Purpose::Rounding, ..key(noise) });
                tape.sparse_map(SparseMap { plan: self.plan(), arithmetic, activation, noise }, &x, &w, Some(&bias))?
            }
            (None, None) => tape.linear_with(Linear { activation }, &x, &w, Some(&bias))?,
            (None, Some(params)) => {
                tape.conv2d_with(Conv2d { params: *params, activation, measures: false }, &x, &w, Some(&bias))?
            }
        };
        let dy = random(y.shape(), 4).to_dtype(y.dtype())?;
        let mut gradients = tape.backward_from(&y, dy)?;
        let found = [&x, &w, &bias].map(|leaf| gradients.take(leaf).unwrap());
        Ok(std::iter::once(y.into_value()).chain(found).collect())
    }

    /// The gradient of dense weights where there are weights.
    fn of_pattern(&self, dw: &Tensor) -> Tensor {
        Pattern::from_dense(&self.w).unwrap().gather(dw).unwrap()
    }
}

/// The norm of the difference by the norm of the first.
fn error(exact: &Tensor, found: &Tensor) -> f64 {
    assert_eq!(exact.shape(), found.shape());
    let [exact, found] = [exact, found].map(|t| t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap());
    let square: f64 = exact.iter().zip(&found).map(|(a, b)| (a - b).powi(2)).sum();
    (square / exact.iter().map(|a| a * a).sum::<f64>()).sqrt()
}

#[test]
fn f32_maps_are_dense_ones_with_zeros() {
    for layer in [Layer::linear(), Layer::conv(), Layer::in_rows()] {
        for activation in [Activation::None, Activation::Relu] {
            let dense = layer.run(None, activation, 0).unwrap();
            let sparse = layer.run(Some(SparseArithmetic::F32), activation, 0).unwrap();
            for images in &sparse[..2] {
                assert_eq!(is_batch_innermost(images), layer.order == Order::BatchInnermost);
                assert_eq!(images.layout().is_contiguous(), layer.order == Order::RowMajor);
            }
            for (i, (dense, sparse)) in dense.iter().zip(&sparse).enumerate() {
                if i == 2 {
                    assert!(error(&layer.of_pattern(dense), &layer.of_pattern(sparse)) < 1e-5);
                    let zeros = Pattern::from_dense(sparse).unwrap();
                    assert!(zeros.len() <= layer.plan().pattern().len(), "only weights that there are have gradients");
                } else {
                    assert!(error(dense, sparse) < 1e-5, "{i}");
                }
            }
        }
    }
}

#[test]
fn bytes_are_near() {
    for layer in [Layer::linear(), Layer::conv(), Layer::in_rows()] {
        let exact = layer.run(Some(SparseArithmetic::F32), Activation::None, 0).unwrap();
        let found = layer.run(Some(SparseArithmetic::Int8(SparseInt8::default())), Activation::None, 0).unwrap();
        let bounds = [0.02, 0.05, 0.05, 1e-6];
        for (i, bound) in bounds.into_iter().enumerate() {
            let error = error(&exact[i], &found[i]);
            assert!(error < bound, "{i}: {error}");
        }
        assert_ne!(exact[0].to_vec::<f32>().unwrap(), found[0].to_vec::<f32>().unwrap());
    }
}

#[test]
fn gradients_of_bytes_are_unbiased() {
    let codes = [GradientCodes::Uniform(Clip::Dither(1.0)), GradientCodes::Logarithmic];
    for (layer, gradients) in
        [Layer::conv(), Layer::in_rows()].iter().flat_map(|layer| codes.map(|codes| (layer, codes)))
    {
        let exact = layer.run(Some(SparseArithmetic::F32), Activation::None, 0).unwrap();
        let arithmetic = SparseArithmetic::Int8(SparseInt8 { gradients, ..SparseInt8::default() });
        let once = layer.run(Some(arithmetic.clone()), Activation::None, 0).unwrap();
        let mut mean = vec![0.0; once[1].numel()];
        const ROUNDS: u64 = 256;
        for round in 0..ROUNDS {
            let found = layer.run(Some(arithmetic.clone()), Activation::None, round).unwrap();
            let values = found[1].to_vec::<f32>().unwrap();
            mean.iter_mut().zip(values).for_each(|(mean, x)| *mean += f64::from(x) / ROUNDS as f64);
        }
        let mean = Tensor::from_vec(*once[1].shape(), mean).unwrap();
        let [single, averaged] = [error(&exact[1], &once[1]), error(&exact[1], &mean)];
        // The noise of a mean of 256 is a sixteenth; codes of the weights leave an error of less than a percent.
        assert!(single > 0.1 && averaged < single / 8.0 + 0.01, "{gradients:?}: {single} and {averaged}");
    }
}

#[test]
fn the_noise_has_a_name() {
    let layer = Layer::linear();
    let run = |noise| {
        let arithmetic = SparseArithmetic::Int8(SparseInt8::default());
        layer.run(Some(arithmetic), Activation::None, noise).unwrap()[1].to_vec::<f32>().unwrap()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn clipped_weights_and_inputs_have_no_gradient() {
    let layer = Layer::linear();
    let arithmetic = |weights, inputs| SparseArithmetic::Int8(SparseInt8 { weights, inputs, ..SparseInt8::default() });
    let clip = Clip::Percentile(50.0);
    let run = |weights, inputs| layer.run(Some(arithmetic(weights, inputs)), Activation::None, 0).unwrap();
    let zeros = |tensor: &Tensor| tensor.to_vec::<f32>().unwrap().iter().filter(|x| **x == 0.0).count();
    let [plain, weights, inputs] = [run(Clip::AbsMax, Clip::AbsMax), run(clip, Clip::AbsMax), run(Clip::AbsMax, clip)];
    let [before, after] = [&plain, &weights].map(|found| zeros(&layer.of_pattern(&found[2])));
    assert!(after > before + layer.plan().pattern().len() / 4, "{before} and {after} of the weights");
    let [before, after] = [&plain, &inputs].map(|found| zeros(&found[1]));
    let values = layer.x.numel();
    assert!((values / 3..=2 * values / 3).contains(&(after - before)), "{before} and {after} of {values} inputs");
}

#[test]
fn any_order_of_the_input_gives_the_same_bits() {
    let arithmetics = [SparseArithmetic::F32, SparseArithmetic::Int8(SparseInt8::default())];
    for (mut layer, arithmetic) in arithmetics
        .into_iter()
        .flat_map(|arithmetic| [(Layer::conv(), arithmetic.clone()), (Layer::in_rows(), arithmetic)])
    {
        let run = |layer: &Layer| {
            let found = layer.run(Some(arithmetic.clone()), Activation::None, 0).unwrap();
            found.iter().map(|tensor| tensor.to_vec::<f32>().unwrap()).collect::<Vec<_>>()
        };
        let expected = run(&layer);
        let row_major = layer.x.clone();
        let wide = Tensor::concatenate(&[row_major.clone(), row_major.clone()], 3).unwrap();
        let orders =
            [row_major.to_channels_last(), to_batch_innermost(&row_major).unwrap(), wide.slice(3, 7..14).unwrap()];
        for x in orders {
            layer.x = x;
            assert_eq!(run(&layer), expected);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    // Large enough for some tasks in each pass.
    let conv =
        Layer { x: random(&[32, 8, 14, 14], 2), w: pruned(&[32, 4, 3, 3]), bias: random(&[32], 3), ..Layer::conv() };
    let linear = Layer { x: random(&[96, 300], 2), w: pruned(&[200, 300]), bias: random(&[200], 3), ..Layer::linear() };
    let clipping =
        SparseInt8 { inputs: Clip::Percentile(99.0), weights: Clip::Percentile(90.0), ..SparseInt8::default() };
    // Whose gradients are made one after the other.
    let wide = Layer { x: random(&[1100, 600], 2), w: pruned(&[400, 600]), bias: random(&[400], 3), ..Layer::linear() };
    for layer in [&conv, &linear, &wide] {
        for arithmetic in [None, Some(SparseInt8::default()), Some(clipping)] {
            let arithmetic = arithmetic.map_or(SparseArithmetic::F32, SparseArithmetic::Int8);
            let of = |threads| {
                let work = || layer.run(Some(arithmetic.clone()), Activation::Relu, 0).unwrap();
                let results = par::with_threads(threads, work).unwrap();
                results.iter().map(|t| t.to_vec::<f32>().unwrap()).collect::<Vec<_>>()
            };
            let one = of(1);
            for threads in 2..=4 {
                assert_eq!(of(threads), one, "{threads} threads, {arithmetic:?}");
            }
        }
    }
}

#[test]
fn halves_go_in_and_come_out() {
    let arithmetics = [SparseArithmetic::F32, SparseArithmetic::Int8(SparseInt8::default())];
    for (mut layer, arithmetic) in arithmetics
        .into_iter()
        .flat_map(|arithmetic| [(Layer::conv(), arithmetic.clone()), (Layer::in_rows(), arithmetic)])
    {
        let exact = layer.run(Some(arithmetic.clone()), Activation::None, 0).unwrap();
        layer.x = layer.x.to_dtype(DType::BF16).unwrap();
        let found = layer.run(Some(arithmetic), Activation::None, 0).unwrap();
        let types = found.iter().map(Tensor::dtype);
        assert!(types.eq([DType::BF16, DType::BF16, DType::F32, DType::F32]));
        exact.iter().zip(&found).enumerate().for_each(|(i, (a, b))| assert!(error(a, b) < 0.03, "{i}"));
    }
}

#[test]
fn what_is_kept_is_small() {
    let layer = Layer { x: random(&[64, 20], 2), ..Layer::linear() };
    let kept = |arithmetic| {
        let mut tape = Tape::new();
        let (x, w) = (tape.leaf(layer.x.clone()), tape.leaf(layer.w.clone()));
        // A copy of its own, so that the input counts.
        let x = tape.scale(&x, 2.0).unwrap();
        let op = SparseMap { plan: layer.plan(), arithmetic, activation: Activation::None, noise: None };
        let y = tape.sparse_map(op, &x, &w, None).unwrap();
        drop((x, y));
        tape.retained().bytes()
    };
    let [f32, int8] = [SparseArithmetic::F32, SparseArithmetic::Int8(SparseInt8::default())].map(kept);
    // Step and code of 0 take a line of memory.
    assert!(f32 + 64 >= int8 + 3 * layer.x.numel(), "{f32} and {int8} bytes");
}

#[test]
fn what_does_not_fit_is_refused() {
    let layer = Layer::linear();
    let mut tape = Tape::new();
    let (x, w) = (tape.leaf(random(&[9, 21], 1)), tape.leaf(layer.w.clone()));
    let op =
        SparseMap { plan: layer.plan(), arithmetic: SparseArithmetic::F32, activation: Activation::None, noise: None };
    let message = tape.sparse_map(op.clone(), &x, &w, None).unwrap_err().to_string();
    assert!(message.contains("sparse_map") || message.contains("inputs"), "{message}");
    let mut values = layer.x.to_vec::<f32>().unwrap();
    values[7] = f32::NAN;
    let x = tape.leaf(Tensor::from_vec([9, 20], values).unwrap());
    let op = SparseMap { arithmetic: SparseArithmetic::Int8(SparseInt8::default()), ..op };
    let message = tape.sparse_map(op, &x, &w, None).unwrap_err().to_string();
    assert!(message.contains("NaN") && message.contains("[0, 7]"), "{message}");
}
