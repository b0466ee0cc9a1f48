//! Sparse layers against dense loops in f64: shapes around the edges of strips, borders, strides, groups, memory orders, threads.

mod common;

use common::{ARRANGEMENTS, arranged, assert_close, assert_same_for_any_threads, values};
use qkernels::naive::sparse::Layer;
use qkernels::sparse::{Forward, Order, Pattern, Plan, is_batch_innermost, to_batch_innermost};
use qkernels::{Activation, Conv2dParams, sparse};
use qtensor::{DType, Result, Tensor};

const ORDERS: [Order; 2] = [Order::BatchInnermost, Order::RowMajor];
const PLAIN: Conv2dParams =
    Conv2dParams { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1, winograd: false };

/// Values of which about a share `density` is not zero; without any in every fifth row.
fn pruned(shape: &[usize], density: f32) -> Tensor {
    let row: usize = shape[1..].iter().product();
    let weights = values(shape, 77, 1.0).to_vec::<f32>().unwrap();
    let keep = |(i, w): (usize, f32)| if w.abs() > 1.0 - density && i / row.max(1) % 5 != 3 { w } else { 0.0 };
    Tensor::from_vec(shape, weights.into_iter().enumerate().map(keep).collect()).unwrap()
}

fn is_in(order: Order, x: &Tensor) -> bool {
    match order {
        Order::BatchInnermost => is_batch_innermost(x),
        Order::RowMajor => x.layout().is_contiguous(),
    }
}

/// Compares the three passes of a layer, in both of its orders, on inputs of that shape in some memory order.
fn check(x_shape: &[usize], weights: &Tensor, params: Conv2dParams, memory: usize) -> Result<()> {
    ORDERS.into_iter().try_for_each(|order| check_in(order, x_shape, weights, params, memory))
}

fn check_in(order: Order, x_shape: &[usize], weights: &Tensor, params: Conv2dParams, memory: usize) -> Result<()> {
    let pattern = Pattern::from_dense(weights)?;
    let of_weights = pattern.gather(weights)?;
    let plan = match weights.rank() {
        2 => Plan::linear(&pattern)?,
        _ => Plan::conv2d(&pattern, &params, [x_shape[2], x_shape[3]])?,
    };
    let plan = plan.in_order(order);
    assert_eq!(plan.order(), order);
    let layer = Layer { pattern: &pattern, values: &of_weights, params };
    let x = values(x_shape, 5, 1.0);
    assert_eq!(plan.input_shape(x_shape[0]), x_shape);
    let bias = values(&[pattern.rows()], 9, 1.0);
    // Sums of as many terms as the densest row has, or the longest column, or pixels and samples.
    let tolerance = |terms: usize| 1e-6 * (terms as f64).sqrt().max(1.0);
    let (x_in, row) = (arranged(&x, memory), weights.numel() / pattern.rows().max(1));
    for (bias, activation) in [(None, Activation::None), (Some(&bias), Activation::Relu)] {
        let y = plan.forward(&Forward { x: &x_in, values: &of_weights, bias, activation })?;
        assert!(is_in(order, &y));
        assert_eq!(y.shape().dims(), plan.output_shape(x_shape[0]));
        assert_close(&y, &layer.forward(&x, bias, activation)?, 1e-5, tolerance(row));
    }
    let dy = values(&plan.output_shape(x_shape[0]), 31, 1.0);
    let dy_in = arranged(&dy, memory + 1);
    let dx = plan.input_grad(&dy_in, &of_weights)?;
    assert!(is_in(order, &dx));
    assert_close(&dx, &layer.input_grad(&dy, x_shape)?, 1e-5, tolerance(pattern.len()));
    let dw = plan.weight_grad(&x_in, &dy_in)?;
    assert_close(&dw, &layer.weight_grad(&x, &dy)?, 1e-5, tolerance(dy.numel()));
    Ok(())
}

#[test]
fn linear_layers_of_any_batch() -> Result<()> {
    for batch in (1..=35).chain([48, 63, 64, 65, 127, 255, 256, 257, 300]) {
        check(&[batch, 40], &pruned(&[23, 40], 0.2), PLAIN, batch)?;
    }
    for density in [0.02, 0.5, 1.0] {
        check(&[33, 129], &pruned(&[70, 129], density), PLAIN, 0)?;
    }
    Ok(())
}

#[test]
fn convolutions_of_every_kind() -> Result<()> {
    let mut order = 0;
    for (channels, filters, groups) in [(4, 6, 1), (6, 4, 2), (5, 5, 5)] {
        for kernel in [[1, 1], [3, 3], [5, 5], [1, 3]] {
            let weights = pruned(&[filters, channels / groups, kernel[0], kernel[1]], 0.4);
            for stride in [[1, 1], [2, 2], [3, 3], [1, 3]] {
                for (padding, dilation) in [([0, 0], [1, 1]), ([1, 1], [1, 1]), ([2, 2], [2, 1]), ([0, 2], [1, 2])] {
                    for batch in [1, 3, 16, 33] {
                        order += 1;
                        check(
                            &[batch, channels, 9, 10],
                            &weights,
                            Conv2dParams { stride, padding, dilation, groups, winograd: true },
                            order,
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn batches_of_whole_vectors_and_long_rows() -> Result<()> {
    let padded = Conv2dParams { padding: [1; 2], ..PLAIN };
    for (batch, width) in [(64, 7), (64, 13), (128, 4), (16, 33), (1, 300), (2, 131)] {
        check(&[batch, 9, 3, width], &pruned(&[11, 9, 3, 3], 0.3), padded, 0)?;
        check(&[batch, 9, 3, width], &pruned(&[11, 9, 3, 3], 0.3), Conv2dParams { stride: [2; 2], ..padded }, 2)?;
        check(&[batch, 9, 3, width], &pruned(&[11, 9, 1, 1], 0.3), PLAIN, 1)?;
    }
    Ok(())
}

#[test]
fn sources_larger_than_a_cache_are_read_in_blocks() -> Result<()> {
    check(&[64, 3000], &pruned(&[20, 3000], 0.05), PLAIN, 0)?;
    check(&[70, 17], &pruned(&[4100, 17], 0.3), PLAIN, 0)?;
    check(&[33, 300, 5, 6], &pruned(&[6, 300, 3, 3], 0.05), Conv2dParams { padding: [1; 2], ..PLAIN }, 1)
}

#[test]
fn borders_wider_than_images_and_kernels_larger_than_them() -> Result<()> {
    check(&[5, 3, 2, 1], &pruned(&[4, 3, 5, 5], 0.6), Conv2dParams { padding: [4, 3], ..PLAIN }, 0)?;
    check(&[5, 3, 2, 3], &pruned(&[4, 3, 1, 1], 0.9), Conv2dParams { padding: [2, 1], stride: [2, 3], ..PLAIN }, 0)?;
    let params = Conv2dParams { padding: [3, 4], dilation: [3, 4], stride: [2, 1], ..PLAIN };
    check(&[17, 2, 3, 2], &pruned(&[3, 2, 3, 3], 0.8), params, 0)
}

#[test]
fn layers_without_weights_samples_or_outputs() -> Result<()> {
    check(&[5, 7], &pruned(&[3, 7], 0.0), PLAIN, 0)?;
    check(&[0, 7], &pruned(&[3, 7], 0.5), PLAIN, 0)?;
    check(&[4, 7], &pruned(&[0, 7], 0.5), PLAIN, 0)?;
    check(&[4, 0], &pruned(&[6, 0], 0.5), PLAIN, 0)?;
    check(&[4, 3, 5, 5], &pruned(&[4, 3, 3, 3], 0.0), PLAIN, 0)?;
    check(&[0, 3, 5, 5], &pruned(&[4, 3, 3, 3], 0.5), PLAIN, 0)
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
            let plan = match w_shape.len() {
                2 => Plan::linear(&pattern),
                _ => Plan::conv2d(&pattern, &params, [x_shape[2], x_shape[3]]),
            };
            let plan = plan.unwrap().in_order(order);
            let x = values(x_shape, 5, 1.0);
            let dy = values(&plan.output_shape(x_shape[0]), 6, 1.0);
            let call = Forward { x: &x, values: &of_weights, bias: None, activation: Activation::None };
            vec![
                plan.forward(&call).unwrap(),
                plan.input_grad(&dy, &of_weights).unwrap(),
                plan.weight_grad(&x, &dy).unwrap(),
            ]
        });
    }
    Ok(())
}

#[test]
fn every_memory_order_is_converted_to_the_bit() -> Result<()> {
    for shape in [
        &[3, 5][..],
        &[64, 17],
        &[33, 20, 3, 5],
        &[16, 64, 4, 4],
        &[70, 3, 17, 16],
        &[1, 7, 5, 3],
        &[5, 1, 3, 1],
        &[5, 33, 1, 1],
        &[0, 3],
        &[3, 0],
    ] {
        let x = values(shape, 3, 1.0);
        for order in 0..ARRANGEMENTS {
            let inner = to_batch_innermost(&arranged(&x, order))?;
            assert!(is_batch_innermost(&inner));
            assert_eq!(inner.to_vec::<f32>()?, x.to_vec::<f32>()?, "{shape:?}, order {order}");
        }
        let inner = to_batch_innermost(&x)?;
        let (rows, last) = (sparse::to_row_major(&inner)?, sparse::to_channels_last(&inner)?);
        assert!(rows.layout().is_contiguous() && (last.rank() != 4 || last.layout().is_channels_last()));
        assert_eq!(rows.as_slice::<f32>()?, &x.to_vec::<f32>()?);
        assert_eq!(last.to_vec::<f32>()?, x.to_vec::<f32>()?);
        // What has that order already is not copied.
        assert_eq!(to_batch_innermost(&inner)?.buffer_id(), inner.buffer_id());
        assert_eq!(sparse::to_row_major(&rows)?.buffer_id(), rows.buffer_id());
        let bytes = x.to_dtype(DType::U8)?;
        assert_eq!(to_batch_innermost(&bytes)?.to_vec::<u8>()?, bytes.to_vec::<u8>()?);
    }
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
    let x = values(&[2, 3, 6, 7], 1, 1.0);
    let call = Forward { x: &x, values: &of_weights, bias: None, activation: Activation::None };
    let other = values(&[2, 3, 6, 6], 1, 1.0);
    refused(plan.forward(&Forward { x: &other, ..call }), ["[2, 3, 6, 7]", "2×3×6×6"]);
    refused(plan.forward(&Forward { x: &x.to_dtype(DType::F64)?, ..call }), ["f32", "f64"]);
    refused(plan.forward(&Forward { values: &values(&[3], 1, 1.0), ..call }), ["values", "3"]);
    refused(plan.forward(&Forward { bias: Some(&values(&[5], 1, 1.0)), ..call }), ["biases", "[4]"]);
    refused(plan.input_grad(&x, &of_weights), ["gradients of outputs", "[2, 4, 4, 5]"]);
    refused(plan.weight_grad(&x, &x), ["gradients of outputs", "[2, 4, 4, 5]"]);
    refused(Plan::linear(&pattern), ["two axes", "4×3×3×3"]);
    refused(Plan::conv2d(&pattern, &PLAIN, [2, 7]), ["does not fit", "height"]);
    refused(Plan::conv2d(&pattern, &Conv2dParams { groups: 3, ..PLAIN }, [6, 7]), ["groups", "filters"]);
    refused(Plan::conv2d(&pattern, &Conv2dParams { stride: [0, 1], ..PLAIN }, [6, 7]), ["stride", "positive"]);
    refused(Plan::conv2d(&pattern, &PLAIN, [1 << 16, 1 << 15]), ["pixels", "32 bits"]);
    Ok(())
}
