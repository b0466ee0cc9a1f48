//! Sparse layers in bytes against exact integer sums from dense loops, to the bit, and against the f32 passes.

mod common;

use common::{ARRANGEMENTS, arranged, assert_same_for_any_threads, bits, values};
use qkernels::naive::sparse::Layer;
use qkernels::rounding::{Clip, Format, Groups, Quantizer, Rounding};
use qkernels::sparse::{
    ByteCodes, ByteForward, BytePasses, ByteScheme, Forward, Order, Pattern, Plan, is_batch_innermost,
};
use qkernels::{Activation, Conv2dParams, cast};
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{DType, Result, Tensor};

const PLAIN: Conv2dParams =
    Conv2dParams { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1, winograd: false };
const ORDERS: [Order; 2] = [Order::BatchInnermost, Order::RowMajor];
const FORMATS: [Format; 2] = [Format::Unsigned, Format::Offset];

/// Values of which about a share `density` is not zero; without any in every fifth row.
fn pruned(shape: &[usize], density: f32) -> Tensor {
    let row: usize = shape[1..].iter().product();
    let weights = values(shape, 77, 1.0).to_vec::<f32>().unwrap();
    let keep = |(i, w): (usize, f32)| if w.abs() > 1.0 - density && i / row.max(1) % 5 != 3 { w } else { 0.0 };
    Tensor::from_vec(shape, weights.into_iter().enumerate().map(keep).collect()).unwrap()
}

fn plan_of(pattern: &Pattern, params: &Conv2dParams, x_shape: &[usize]) -> Plan {
    match x_shape {
        [_, _, height, width] => Plan::conv2d(pattern, params, [*height, *width]).unwrap(),
        _ => Plan::linear(pattern).unwrap(),
    }
}

fn codes_of(x: &Tensor, format: Format, rounding: Rounding) -> ByteCodes {
    codes_in(Order::BatchInnermost, x, format, rounding)
}

fn codes_in(order: Order, x: &Tensor, format: Format, rounding: Rounding) -> ByteCodes {
    let quantizer = Quantizer::choose(x, Groups::Tensor, format, Clip::AbsMax).unwrap();
    ByteCodes::quantize(x, &quantizer, rounding, order).unwrap()
}

fn is_in(order: Order, x: &Tensor) -> bool {
    match order {
        Order::BatchInnermost => is_batch_innermost(x),
        Order::RowMajor => x.layout().is_contiguous(),
    }
}

/// Steps from zero, as f32 in logical order.
fn steps(order: Order, x: &ByteCodes) -> Tensor {
    let last = x.codes().rank() - 1;
    let axes: Vec<usize> = match order {
        Order::BatchInnermost => std::iter::once(last).chain(0..last).collect(),
        Order::RowMajor => (0..=last).collect(),
    };
    let zero_point = f32::from(x.zero_point());
    let codes = x.codes().permute(&axes).unwrap().contiguous();
    assert_eq!(codes.shape(), x.shape());
    Tensor::from_vec(x.shape(), codes.to_vec::<u8>().unwrap().into_iter().map(|c| f32::from(c) - zero_point).collect())
        .unwrap()
}

/// Compares results with sums that f64 holds exactly, times a factor a channel, plus a bias.
#[track_caller]
fn assert_scaled(found: &Tensor, sums: &Tensor, factor: impl Fn(usize) -> f32, ending: impl Fn(usize, f32) -> f32) {
    assert_eq!(found.shape(), sums.shape());
    let (channels, pixels) = (sums.shape()[1], sums.shape()[2..].iter().product::<usize>().max(1));
    let sums = sums.to_vec::<f64>().unwrap();
    for (i, (found, sum)) in found.to_vec::<f32>().unwrap().into_iter().zip(sums).enumerate() {
        let channel = i / pixels % channels;
        let expected = ending(channel, sum as f32 * factor(channel));
        assert!(found == expected, "element {i}: {found} instead of {expected}");
    }
}

/// A layer with inputs of a shape, and how they become bytes.
struct Case<'a> {
    x_shape: &'a [usize],
    weights: &'a Tensor,
    params: Conv2dParams,
    /// Of inputs and of gradients of outputs.
    formats: [Format; 2],
    memory: usize,
    per_channel: bool,
    order: Order,
}

impl Case<'_> {
    /// Compares the three passes.
    fn check(&self) -> Result<()> {
        let Case { x_shape, weights, params, formats, memory, per_channel, order } = *self;
        let pattern = Pattern::from_dense(weights)?;
        let of_weights = pattern.gather(weights)?;
        let plan = plan_of(&pattern, &params, x_shape).in_order(order);
        let scheme = ByteScheme { per_channel, ..ByteScheme::default() };
        let bytes = plan.quantize(&of_weights, &scheme)?;
        let x = codes_in(order, &arranged(&values(x_shape, 5, 1.0), memory), formats[0], Rounding::Nearest);
        let bias = values(&[pattern.rows()], 9, 1.0);
        let as_f32 = |codes: &Tensor| codes.to_dtype(DType::F32);
        let (x_steps, codes) = (steps(order, &x), as_f32(bytes.forward_codes().unwrap())?);
        let layer = Layer { pattern: &pattern, values: &codes, params };
        let sums = layer.forward(&x_steps, None, Activation::None)?;
        let scale = |scales: &[f32], channel: usize| if per_channel { scales[channel] } else { scales[0] };
        let factor = |channel: usize| scale(bytes.forward_scales().unwrap(), channel) * x.scale();
        let call = ByteForward { x: &x, weights: &bytes, bias: None, activation: Activation::None, dtype: DType::F32 };
        let y = plan.forward_int8(&call)?;
        assert!(is_in(order, &y));
        assert_scaled(&y, &sums, factor, |_, y| y);
        let rounded = plan.forward_int8(&ByteForward { dtype: DType::BF16, ..call })?;
        assert!(is_in(order, &rounded) && bits(&rounded) == bits(&cast::to_bf16(&y)?));
        let y =
            plan.forward_int8(&ByteForward { bias: Some(&bias), activation: Activation::LeakyRelu(0.25), ..call })?;
        let biases = bias.to_vec::<f32>()?;
        let leaky = |channel: usize, y: f32| y + biases[channel];
        assert_scaled(&y, &sums, factor, |channel, y| match leaky(channel, y) {
            y if y > 0.0 => y,
            y => 0.25 * y,
        });
        let dy = values(&plan.output_shape(x_shape[0]), 31, 1.0);
        let dy = codes_in(order, &arranged(&dy, memory + 1), formats[1], Rounding::Nearest);
        let dx = plan.input_grad_int8(&dy, &bytes, DType::F32)?;
        assert!(is_in(order, &dx));
        let codes = as_f32(&bytes.input_grad_codes()?.unwrap())?;
        let transposed = Layer { pattern: &pattern, values: &codes, params };
        let sums = transposed.input_grad(&steps(order, &dy), x_shape)?;
        assert_scaled(&dx, &sums, |c| scale(bytes.input_grad_scales().unwrap(), c) * dy.scale(), |_, dx| dx);
        assert!(bits(&plan.input_grad_int8(&dy, &bytes, DType::BF16)?) == bits(&cast::to_bf16(&dx)?));
        let dw = plan.weight_grad_int8(&x, &dy)?;
        let sums = layer.weight_grad(&x_steps, &steps(order, &dy))?.to_dtype(DType::F64)?.to_vec::<f64>()?;
        let factor = f64::from(x.scale()) * f64::from(dy.scale());
        let expected: Vec<f32> = sums.into_iter().map(|sum| (sum * factor) as f32).collect();
        assert_eq!(dw.to_vec::<f32>()?, expected);
        Ok(())
    }
}

/// Checks with both formats of inputs, and those of gradients and the memory order that `salt` picks.
fn check(x_shape: &[usize], weights: &Tensor, params: Conv2dParams, salt: usize) -> Result<()> {
    for (i, format) in FORMATS.into_iter().enumerate() {
        let formats = [format, FORMATS[usize::from(!(salt + i).is_multiple_of(3))]];
        let (memory, per_channel) = (salt + i, salt % 4 != 1);
        for order in ORDERS {
            Case { x_shape, weights, params, formats, memory, per_channel, order }.check()?;
        }
    }
    Ok(())
}

#[test]
fn linear_layers_of_any_batch() -> Result<()> {
    for batch in (1..=35).chain([48, 63, 64, 65, 127, 128, 200, 255, 256, 257, 320, 400, 1030]) {
        check(&[batch, 40], &pruned(&[23, 40], 0.2), PLAIN, batch)?;
    }
    for density in [0.02, 0.5, 1.0] {
        check(&[33, 129], &pruned(&[70, 129], density), PLAIN, 0)?;
    }
    Ok(())
}

#[test]
fn convolutions_of_every_kind() -> Result<()> {
    let mut salt = 0;
    for (channels, filters, groups) in [(4, 6, 1), (6, 4, 2), (5, 5, 5)] {
        for kernel in [[1, 1], [3, 3], [1, 3]] {
            let weights = pruned(&[filters, channels / groups, kernel[0], kernel[1]], 0.4);
            for stride in [[1, 1], [2, 2], [3, 1]] {
                for (padding, dilation) in [([0, 0], [1, 1]), ([1, 1], [1, 1]), ([2, 2], [2, 1]), ([0, 2], [1, 2])] {
                    for batch in [1, 3, 64, 65] {
                        salt += 1;
                        let params = Conv2dParams { stride, padding, dilation, groups, winograd: true };
                        check(&[batch, channels, 7, 8], &weights, params, salt)?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn long_rows_and_sources_larger_than_a_cache() -> Result<()> {
    let padded = Conv2dParams { padding: [1; 2], ..PLAIN };
    for (batch, width) in [(64, 13), (16, 33), (1, 300), (2, 531)] {
        check(&[batch, 9, 3, width], &pruned(&[11, 9, 3, 3], 0.3), padded, 0)?;
        check(&[batch, 9, 3, width], &pruned(&[11, 9, 3, 3], 0.3), Conv2dParams { stride: [2; 2], ..padded }, 2)?;
        check(&[batch, 9, 3, width], &pruned(&[11, 9, 1, 1], 0.3), PLAIN, 1)?;
    }
    check(&[257, 3000], &pruned(&[20, 3000], 0.05), PLAIN, 0)?;
    check(&[64, 900, 4, 5], &pruned(&[6, 900, 3, 3], 0.05), padded, 1)
}

#[test]
fn layers_without_weights_samples_or_outputs() -> Result<()> {
    check(&[5, 7], &pruned(&[3, 7], 0.0), PLAIN, 0)?;
    check(&[0, 7], &pruned(&[3, 7], 0.5), PLAIN, 0)?;
    check(&[4, 7], &pruned(&[0, 7], 0.5), PLAIN, 0)?;
    check(&[4, 0], &pruned(&[6, 0], 0.5), PLAIN, 0)?;
    check(&[4, 3, 5, 5], &pruned(&[4, 3, 3, 3], 0.0), PLAIN, 0)?;
    check(&[5, 3, 2, 1], &pruned(&[4, 3, 5, 5], 0.6), Conv2dParams { padding: [4, 3], ..PLAIN }, 0)
}

#[test]
fn the_largest_sums_are_exact_and_larger_ones_refused() -> Result<()> {
    let most = i32::MAX as usize / (255 * 127);
    let plan = |inputs: usize| Plan::linear(&Pattern::from_mask(&Tensor::full([1, inputs], 1u8)?)?);
    let (ones, x) = (Tensor::full([most], 1.0f32)?, Tensor::full([1, most], 1.0f32)?);
    let codes = codes_of(&x, Format::Unsigned, Rounding::Nearest);
    let (plan, more) = (plan(most)?, plan(most + 1)?);
    let weights = plan.quantize(&ones, &ByteScheme::default())?;
    let y = plan.forward_int8(&ByteForward {
        x: &codes,
        weights: &weights,
        bias: None,
        activation: Activation::None,
        dtype: DType::F32,
    })?;
    let factor = weights.forward_scales().unwrap()[0] * codes.scale();
    assert_eq!(y.to_vec::<f32>()?, [(most * 255 * 127) as f32 * factor]);
    refused(more.quantize(&Tensor::full([most + 1], 1.0f32)?, &ByteScheme::default()), ["66312", "66311"]);

    // More samples than lanes of 32 bits hold the products of.
    let batch = 600_000;
    let one = Pattern::from_mask(&Tensor::full([1, 1], 1u8)?)?;
    let x = Tensor::full([batch, 1], 1.0f32)?;
    for format in FORMATS {
        let (x, dy) = (codes_of(&x, Format::Unsigned, Rounding::Nearest), codes_of(&x, format, Rounding::Nearest));
        let sum = batch as f64 * 255.0 * if format == Format::Unsigned { 255.0 } else { 127.0 };
        let expected = sum * f64::from(x.scale()) * f64::from(dy.scale());
        assert_eq!(Plan::linear(&one)?.weight_grad_int8(&x, &dy)?.to_vec::<f32>()?, [expected as f32]);
    }
    Ok(())
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() -> Result<()> {
    let cases: [(&[usize], &[usize], Conv2dParams); 4] = [
        (&[130, 200], &[150, 200], PLAIN),
        (&[33, 24, 17, 18], &[40, 24, 3, 3], Conv2dParams { padding: [1; 2], ..PLAIN }),
        (&[64, 24, 17, 18], &[40, 24, 3, 3], Conv2dParams { stride: [2; 2], ..PLAIN }),
        (&[7, 32, 20, 21], &[48, 32, 1, 1], PLAIN),
    ];
    for ((x_shape, w_shape, params), order) in cases.into_iter().flat_map(|case| ORDERS.map(|order| (case, order))) {
        let weights = pruned(w_shape, 0.3);
        let pattern = Pattern::from_dense(&weights)?;
        let of_weights = pattern.gather(&weights)?;
        assert_same_for_any_threads(|| {
            let plan = plan_of(&pattern, &params, x_shape).in_order(order);
            let dy = values(&plan.output_shape(x_shape[0]), 6, 1.0);
            let rounding = Rounding::Stochastic(key(3));
            let x = codes_in(order, &values(x_shape, 5, 1.0), FORMATS[0], rounding);
            let dy = codes_in(order, &dy, FORMATS[1], rounding);
            let scheme = ByteScheme { rounding, ..ByteScheme::default() };
            let weights = plan.quantize(&of_weights, &scheme).unwrap();
            let call =
                ByteForward { x: &x, weights: &weights, bias: None, activation: Activation::Relu, dtype: DType::F32 };
            vec![
                plan.forward_int8(&call).unwrap(),
                plan.input_grad_int8(&dy, &weights, DType::F32).unwrap(),
                plan.weight_grad_int8(&x, &dy).unwrap(),
            ]
        });
    }
    Ok(())
}

fn key(index: u64) -> StreamKey {
    StreamKey { seed: 4, purpose: Purpose::Test, epoch: 0, index }
}

fn normal(shape: &[usize], index: u64) -> Tensor {
    Stream::new(key(index)).normal_tensor(shape, 0.0, 1.0).unwrap()
}

/// The root of the mean square difference, as a share of that of `exact`.
fn error(found: &Tensor, exact: &Tensor) -> f64 {
    let (found, exact) = (found.to_vec::<f32>().unwrap(), exact.to_vec::<f32>().unwrap());
    let square = |x: f64| x * x;
    let difference: f64 = found.iter().zip(&exact).map(|(f, e)| square(f64::from(f - e))).sum();
    (difference / exact.iter().map(|e| square(f64::from(*e))).sum::<f64>()).sqrt()
}

#[test]
fn passes_are_near_those_of_f32_and_gradients_unbiased() -> Result<()> {
    // Pruned by magnitude: what is left lies far from 0.
    let weights = normal(&[32, 24, 3, 3], 1).to_vec::<f32>()?;
    let kept = weights.into_iter().map(|w| if w.abs() < 1.645 { 0.0 } else { w }).collect();
    let weights = Tensor::from_vec([32, 24, 3, 3], kept)?;
    let pattern = Pattern::from_dense(&weights)?;
    let of_weights = pattern.gather(&weights)?;
    let plan = Plan::conv2d(&pattern, &Conv2dParams { padding: [1; 2], ..PLAIN }, [9, 9])?;
    let x = normal(&[16, 24, 9, 9], 2).to_vec::<f32>()?;
    let x = Tensor::from_vec([16, 24, 9, 9], x.into_iter().map(|x| x.max(0.0)).collect())?;
    let dy = normal(&[16, 32, 9, 9], 3);
    let bytes = plan.quantize(&of_weights, &ByteScheme::default())?;
    let x_codes = codes_of(&x, Format::Unsigned, Rounding::Nearest);
    let none = Activation::None;
    let y = plan.forward_int8(&ByteForward {
        x: &x_codes,
        weights: &bytes,
        bias: None,
        activation: none,
        dtype: DType::F32,
    })?;
    let exact = plan.forward(&Forward { x: &x, values: &of_weights, bias: None, activation: none })?;
    assert!(error(&y, &exact) < 0.02, "{}", error(&y, &exact));

    let exact = [plan.input_grad(&dy, &of_weights)?, plan.weight_grad(&x, &dy)?];
    let mut means = exact.each_ref().map(|exact| vec![0.0; exact.numel()]);
    let mut errors = [0.0; 2];
    let runs = 64;
    for run in 0..runs {
        let rounding = Rounding::Stochastic(key(100 + run));
        let dy = codes_of(&dy, Format::Offset, rounding);
        let scheme = ByteScheme { rounding, ..ByteScheme::default() };
        let x = codes_of(&x, Format::Unsigned, Rounding::Stochastic(key(500 + run)));
        let found = [
            plan.input_grad_int8(&dy, &plan.quantize(&of_weights, &scheme)?, DType::F32)?,
            plan.weight_grad_int8(&x, &dy)?,
        ];
        for (i, found) in found.iter().enumerate() {
            errors[i] = error(found, &exact[i]);
            assert!(errors[i] < 0.05, "gradient {i}: {}", errors[i]);
            let found = found.to_vec::<f32>()?;
            means[i].iter_mut().zip(found).for_each(|(mean, x)| *mean += f64::from(x) / runs as f64);
        }
    }
    for (i, mean) in means.into_iter().enumerate() {
        let mean = Tensor::from_vec(exact[i].shape(), mean.into_iter().map(|x| x as f32).collect())?;
        // Independent errors of mean 0 shrink with the root of their number; a bias would not.
        assert!(error(&mean, &exact[i]) < 1.5 * errors[i] / (runs as f64).sqrt(), "gradient {i} is biased");
    }
    Ok(())
}

#[test]
fn codes_of_any_memory_order_are_the_same() -> Result<()> {
    for (shape, order) in
        [&[5, 3, 4, 6][..], &[70, 20, 3, 9], &[7, 33]].into_iter().flat_map(|s| ORDERS.map(|o| (s, o)))
    {
        let x = cast::from_bf16(&cast::to_bf16(&values(shape, 8, 1.0))?)?;
        for rounding in [Rounding::Nearest, Rounding::Stochastic(key(1))] {
            let codes = codes_in(order, &x, Format::Offset, rounding);
            for memory in 0..ARRANGEMENTS {
                let arranged = arranged(&x, memory);
                for x in [&arranged, &cast::to_bf16(&arranged)?] {
                    let other = codes_in(order, x, Format::Offset, rounding);
                    assert_eq!(other.codes().to_vec::<u8>()?, codes.codes().to_vec::<u8>()?, "{order:?}, {memory}");
                }
            }
        }
    }
    let codes = codes_of(&values(&[5, 3, 4, 6], 8, 1.0), Format::Offset, Rounding::Nearest);
    // Codes that come from elsewhere, not row-major.
    let quantizer = Quantizer::new(Format::Offset, Groups::Tensor, vec![codes.scale()])?;
    let turned = codes.codes().permute(&[3, 2, 1, 0])?.contiguous().permute(&[3, 2, 1, 0])?;
    let again = ByteCodes::new(turned, &quantizer, Order::BatchInnermost)?;
    assert_eq!((again.codes().to_vec::<u8>()?, again.shape()), (codes.codes().to_vec::<u8>()?, codes.shape()));
    let pattern = Pattern::from_dense(&pruned(&[4, 3, 3, 3], 0.5))?;
    let plan = Plan::conv2d(&pattern, &PLAIN, [4, 6])?;
    let dy = codes_of(&values(&[5, 4, 2, 4], 9, 1.0), Format::Offset, Rounding::Nearest);
    assert_eq!(bits(&plan.weight_grad_int8(&codes, &dy)?), bits(&plan.weight_grad_int8(&again, &dy)?));
    Ok(())
}

/// Both parts of a message.
#[track_caller]
fn refused<T>(result: Result<T>, parts: [&str; 2]) {
    let message = result.err().expect("an error").to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let weights = pruned(&[4, 3, 3, 3], 0.5);
    let pattern = Pattern::from_dense(&weights)?;
    let of_weights = pattern.gather(&weights)?;
    let plan = Plan::conv2d(&pattern, &PLAIN, [6, 7])?;
    let bytes = plan.quantize(&of_weights, &ByteScheme::default())?;
    let x = values(&[2, 3, 6, 7], 1, 1.0);
    let of = |shape: &[usize]| codes_of(&values(shape, 1, 1.0), Format::Offset, Rounding::Nearest);
    let codes = of(&[2, 3, 6, 7]);
    let call = ByteForward { x: &codes, weights: &bytes, bias: None, activation: Activation::None, dtype: DType::F32 };
    refused(plan.forward_int8(&ByteForward { x: &of(&[2, 3, 6, 6]), ..call }), ["[2, 3, 6, 7]", "2×3×6×6"]);
    refused(plan.forward_int8(&ByteForward { bias: Some(&values(&[5], 1, 1.0)), ..call }), ["biases", "[4]"]);
    refused(plan.input_grad_int8(&codes, &bytes, DType::F32), ["gradients of outputs", "[2, 4, 4, 5]"]);
    refused(plan.weight_grad_int8(&codes, &codes), ["gradients of outputs", "[2, 4, 4, 5]"]);
    refused(plan.weight_grad_int8(&of(&[2, 3, 7, 6]), &of(&[2, 4, 4, 5])), ["inputs", "[2, 3, 6, 7]"]);
    // Weights of another plan, or of the forward pass alone; those of a copy are its own.
    let other = Plan::conv2d(&pattern, &PLAIN, [6, 7])?.quantize(&of_weights, &ByteScheme::default())?;
    refused(plan.forward_int8(&ByteForward { weights: &other, ..call }), ["another plan", "quantize"]);
    refused(plan.forward_int8(&ByteForward { dtype: DType::F64, ..call }), ["f32", "f64"]);
    let inference = plan.quantize(&of_weights, &ByteScheme { passes: BytePasses::Forward, ..ByteScheme::default() })?;
    assert!(inference.input_grad_scales().is_none() && inference.input_grad_codes()?.is_none());
    refused(plan.input_grad_int8(&of(&[2, 4, 4, 5]), &inference, DType::F32), ["this pass", "passes"]);
    let backward =
        plan.quantize(&of_weights, &ByteScheme { passes: BytePasses::InputGrad, ..ByteScheme::default() })?;
    assert!(backward.forward_scales().is_none() && backward.forward_codes().is_none());
    refused(plan.forward_int8(&ByteForward { weights: &backward, ..call }), ["this pass", "passes"]);
    assert!(plan.clone().forward_int8(&call).is_ok());
    // Values, quantizers and scales.
    refused(plan.quantize(&values(&[3], 1, 1.0), &ByteScheme::default()), ["values", "3"]);
    let not_finite = Tensor::full([pattern.len()], f32::NAN)?;
    refused(plan.quantize(&not_finite, &ByteScheme::default()), ["NaN", "finite"]);
    let quantizer = |format, groups, scales| Quantizer::new(format, groups, scales);
    let order = Order::BatchInnermost;
    let signed = quantizer(Format::Signed, Groups::Tensor, vec![1.0])?;
    refused(ByteCodes::quantize(&x, &signed, Rounding::Nearest, order), ["Signed", "Offset"]);
    let many = quantizer(Format::Offset, Groups::Channels, vec![1.0; 2])?;
    refused(ByteCodes::quantize(&x, &many, Rounding::Nearest, order), ["2 scales", "one"]);
    let offset = quantizer(Format::Offset, Groups::Tensor, vec![1.0])?;
    let infinite = Tensor::full([2, 3], f32::INFINITY)?;
    refused(ByteCodes::quantize(&infinite, &offset, Rounding::Nearest, order), ["inf", "[0, 0]"]);
    let mut numbers = x.to_vec::<f32>()?;
    numbers[3 * 6 * 7 + 2 * 6 * 7 + 4 * 7 + 5] = f32::NEG_INFINITY;
    let one = Tensor::from_vec(x.shape(), numbers)?.to_channels_last();
    for order in ORDERS {
        refused(ByteCodes::quantize(&one, &offset, Rounding::Nearest, order), ["-inf", "[1, 2, 4, 5]"]);
    }
    refused(ByteCodes::new(x.clone(), &offset, order), ["u8", "f32"]);
    refused(ByteCodes::new(Tensor::full([0usize; 0], 1u8)?, &offset, order), ["scalar", "batch"]);
    let rows = codes_in(Order::RowMajor, &x, Format::Offset, Rounding::Nearest);
    refused(plan.forward_int8(&ByteForward { x: &rows, ..call }), ["RowMajor", "BatchInnermost"]);
    let huge = quantizer(Format::Offset, Groups::Tensor, vec![3e38])?;
    let codes = ByteCodes::new(Tensor::full([3, 6, 7, 2], 1u8)?, &huge, order)?;
    let large = plan.quantize(&Tensor::full([pattern.len()], 1e6f32)?, &ByteScheme::default())?;
    refused(plan.forward_int8(&ByteForward { x: &codes, weights: &large, ..call }), ["scale", "f32"]);
    Ok(())
}
