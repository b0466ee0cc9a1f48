//! f32 batch normalisation against the f64 path, in all memory orders.

mod common;

use common::*;
use proptest::prelude::*;
use qkernels::conv::{conv2d_measured, conv2d_stacked_measured};
use qkernels::norm::*;
use qkernels::quadratic::{Normalised, Rule, combine_normalised};
use qkernels::{Activation, Conv2dParams, Projection, conv2d};
use qtensor::{DType, Error, Tensor};

const ACTIVATIONS: [Activation; 4] =
    [Activation::None, Activation::Relu, Activation::Relu6, Activation::LeakyRelu(0.1)];

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        (2usize..40, 0usize..90).prop_map(|(n, c)| vec![n, c]),
        (1usize..4, 1usize..70, 2usize..9, 1usize..9).prop_map(|(n, c, h, w)| vec![n, c, h, w]),
        Just(vec![900, 17]),
        Just(vec![40, 1030]),
        Just(vec![2, 16, 33, 35]),
    ]
}

fn largest(x: &Tensor) -> f64 {
    f64s(x).to_vec::<f64>().unwrap().iter().fold(0.0, |m, v| m.max(v.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forward_and_backward(shape in shapes(), how in 0..ARRANGEMENTS, other in 0..ARRANGEMENTS, act in 0..4usize, with_residual: bool, in_two_parts: bool) {
        let channels = shape[1];
        let x = arranged(&values(&shape, 1, 3.0), how);
        let [skip, dy] = [11, 77].map(|salt| arranged(&values(&shape, salt, 1.0), other));
        let [gamma, beta] = [5, 6].map(|salt| values(&[channels], salt, 1.5));
        let (activation, residual) = (ACTIVATIONS[act], with_residual.then_some(&skip));
        let wide_skip = f64s(&skip);
        let wide = [&x, &gamma, &beta].map(f64s);
        let out = batch_norm_train(BatchNormTrain { residual, activation, ..BatchNormTrain::new(&x, &gamma, &beta, 1e-5) }).unwrap();
        let arguments = BatchNormTrain::new(&wide[0], &wide[1], &wide[2], 1e-5);
        let expected = batch_norm_train(BatchNormTrain { residual: residual.map(|_| &wide_skip), activation, ..arguments }).unwrap();
        assert_close(&out.mean, &expected.mean, 1e-6, 1e-6);
        assert_close(&out.var, &expected.var, 1e-5, 1e-7);
        assert_close(&out.inv_std, &expected.inv_std, 1e-5, 0.0);
        assert_close(&out.y, &expected.y, 1e-5, 1e-5 * (1.0 + largest(&out.inv_std)));
        if x.layout().is_dense() {
            prop_assert_eq!(out.y.strides(), x.strides());
        }

        let infer = batch_norm_infer(BatchNormInfer { x: &x, gamma: &gamma, beta: &beta, mean: &out.mean, var: &out.var, eps: 1e-5, residual, activation }).unwrap();
        assert_close(&infer, &expected.y, 1e-5, 1e-5 * (1.0 + largest(&out.inv_std)));

        // The same saved values for both, so that no activation switches between them.
        let saved = [&out.mean, &out.inv_std, &out.y, &dy].map(f64s);
        let also = in_two_parts.then(|| arranged(&values(&shape, 78, 1.0), how));
        let arguments = |dy: Tensor, by_output: bool| BatchNormGrad {
            x: &x, dy, also: also.clone(), gamma: &gamma, beta: &beta, mean: &out.mean, inv_std: &out.inv_std,
            activation, y: by_output.then_some(&out.y), residual: with_residual,
        };
        let grads = batch_norm_grad(arguments(dy.clone(), true)).unwrap();
        let expected = batch_norm_grad(BatchNormGrad {
            x: &wide[0], dy: saved[3].clone(), also: also.as_ref().map(f64s), gamma: &wide[1], beta: &wide[2],
            mean: &saved[0], inv_std: &saved[1], activation, y: Some(&saved[2]), residual: with_residual,
        }).unwrap();
        // Written over the only handle, and with the activation's gradient from `x`: the same bits.
        let in_place = batch_norm_grad(arguments(dy.copy(), true)).unwrap();
        prop_assert!(bits(&in_place.dx) == bits(&grads.dx));
        if !with_residual {
            let by_input = batch_norm_grad(arguments(dy.copy(), false)).unwrap();
            prop_assert!(bits(&by_input.dx) == bits(&grads.dx));
            prop_assert!(bits(&by_input.dgamma) == bits(&grads.dgamma));
            prop_assert!(bits(&batch_norm_again(&x, [&gamma, &beta], [&out.mean, &out.inv_std], activation).unwrap()) == bits(&out.y));
        }
        let count = (x.numel() / channels.max(1)) as f64;
        assert_close(&grads.dbeta, &expected.dbeta, 1e-5, 1e-6 * count.sqrt());
        assert_close(&grads.dgamma, &expected.dgamma, 1e-5, 3e-6 * count.sqrt());
        assert_close(&grads.dx, &expected.dx, 1e-5, 1e-5 * (1.0 + largest(&out.inv_std)));
        prop_assert_eq!(grads.dresidual.is_some(), with_residual);
        if let (Some(found), Some(expected)) = (&grads.dresidual, &expected.dresidual) {
            assert_close(found, expected, 1e-6, 0.0);
        }
    }
}

#[test]
fn variance_survives_a_large_mean() {
    // One part in 10⁴: the difference of E[x²] and E[x]² would have no correct digit in f32.
    let noise = values(&[5000, 20], 3, 1.0);
    let x = qkernels::elementwise::add_scalar(&noise, 8192.0).unwrap();
    let (gamma, beta) = (Tensor::full([20], 1.0f32).unwrap(), Tensor::zeros([20], DType::F32).unwrap());
    let out = batch_norm_train(BatchNormTrain::new(&x, &gamma, &beta, 0.0)).unwrap();
    let [wx, wg, wb] = [&x, &gamma, &beta].map(f64s);
    let expected = batch_norm_train(BatchNormTrain::new(&wx, &wg, &wb, 0.0)).unwrap();
    assert_close(&out.var, &expected.var, 1e-5, 0.0);
    assert_close(&out.mean, &expected.mean, 1e-7, 0.0);
}

#[test]
fn a_constant_channel_has_no_variance() {
    let x = Tensor::full([64, 3], 0.3f32).unwrap();
    let (gamma, beta) = (Tensor::full([3], 2.0f32).unwrap(), Tensor::full([3], 0.5f32).unwrap());
    let out = batch_norm_train(BatchNormTrain::new(&x, &gamma, &beta, 1e-5)).unwrap();
    assert_eq!(out.var.to_vec::<f32>().unwrap(), [0.0; 3]);
    assert_close(&out.y, &Tensor::full([64, 3], 0.5f32).unwrap(), 1e-4, 0.0);
}

/// Statistics that convolutions take while they write, of f32 and bf16, against those of the stored values in f64.
#[test]
fn statistics_of_a_convolution() {
    let plain = Conv2dParams { padding: [1; 2], ..Conv2dParams::default() };
    let strided = Conv2dParams { stride: [2; 2], ..plain };
    let grouped = Conv2dParams { groups: 2, winograd: false, ..plain };
    // Batch, channels, filters, height, width: by Winograd's algorithm with tiles at the borders, with several panels, and directly.
    let cases = [
        ([3, 16, 16, 13, 18], plain),
        ([5, 40, 72, 9, 7], plain),
        ([2, 3, 20, 33, 31], plain),
        ([4, 16, 40, 15, 16], strided),
        ([3, 64, 80, 8, 8], grouped),
    ];
    for ([n, channels, filters, h, w], params) in cases {
        for dtype in [DType::F32, DType::BF16] {
            let x = values(&[n, channels, h, w], 1, 2.0).to_channels_last().to_dtype(dtype).unwrap();
            let weights: Vec<Tensor> =
                (0..3).map(|i| values(&[filters, channels / params.groups, 3, 3], 2 + i, 0.3)).collect();
            // Means far from zero.
            let bias = values(&[filters], 5, 300.0);
            let (y, moments) = conv2d_measured(&x, &weights[0], Some(&bias), &params, Activation::None).unwrap();
            let plainly = conv2d(&x, &weights[0], Some(&bias), &params, Activation::None).unwrap();
            assert_eq!(bits(&y.to_dtype(DType::F32).unwrap()), bits(&plainly.to_dtype(DType::F32).unwrap()));
            // Other algorithms round to bf16 behind their kernel.
            assert_eq!(
                moments.is_some(),
                dtype == DType::F32 || params == plain && channels > 3,
                "{channels} {dtype:?}"
            );
            check_moments(&y, moments.as_ref());
            let stack: Vec<_> = weights.iter().map(|w| Projection { w, bias: Some(&bias) }).collect();
            let (joined, all) = conv2d_stacked_measured(&x, &stack, &params, Activation::None).unwrap();
            let Some(all) = all else { continue };
            let one = [3, 4].map(|salt| values(&[3, filters], salt, 1.0));
            let wide = joined.to_dtype(DType::F32).unwrap();
            let arguments = Normalised {
                rule: Rule::ProductAndSum,
                z: &wide,
                gamma: &one[0],
                beta: &one[1],
                eps: 1e-5,
                moments: None,
            };
            let expected = combine_normalised(arguments).unwrap();
            let found = combine_normalised(Normalised { moments: Some(&all), ..arguments }).unwrap();
            assert_close(&found.mean, &expected.mean, 1e-6, 1e-5);
            assert_close(&found.var, &expected.var, 1e-5, 0.0);
            assert!(
                combine_normalised(Normalised { moments: moments.as_ref(), ..arguments }).is_ok() == moments.is_none()
            );
            assert_same_for_any_threads(|| {
                let (z, moments) = conv2d_stacked_measured(&x, &stack, &params, Activation::None).unwrap();
                let z = z.to_dtype(DType::F32).unwrap();
                let out = combine_normalised(Normalised { z: &z, moments: moments.as_ref(), ..arguments }).unwrap();
                vec![out.mean, out.var]
            });
        }
    }
}

fn check_moments(y: &Tensor, moments: Option<&Moments>) {
    let channels = y.shape()[1];
    let [gamma, beta] = [3, 4].map(|salt| values(&[channels], salt, 1.0));
    let wide = [y, &gamma, &beta].map(f64s);
    let expected = batch_norm_train(BatchNormTrain::new(&wide[0], &wide[1], &wide[2], 1e-5)).unwrap();
    let found = batch_norm_train(BatchNormTrain { moments, ..BatchNormTrain::new(y, &gamma, &beta, 1e-5) }).unwrap();
    assert_close(&found.mean, &expected.mean, 1e-6, 1e-6);
    assert_close(&found.var, &expected.var, 1e-5, 0.0);
    let other = values(&[3, channels], 1, 1.0).to_dtype(y.dtype()).unwrap();
    let other = BatchNormTrain { moments, ..BatchNormTrain::new(&other, &gamma, &beta, 1e-5) };
    assert_eq!(batch_norm_train(other).is_err(), moments.is_some(), "statistics of another tensor");
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let [x, dy] = [1, 2].map(|salt| values(&[8, 24, 40, 41], salt, 2.0).to_channels_last());
    let [gamma, beta] = [3, 4].map(|salt| values(&[24], salt, 1.0));
    assert_same_for_any_threads(|| {
        let activation = Activation::Relu;
        let arguments = BatchNormTrain { activation, ..BatchNormTrain::new(&x, &gamma, &beta, 1e-5) };
        let out = batch_norm_train(arguments).unwrap();
        let grads = |also: Option<&Tensor>, y: Option<&Tensor>| {
            let arguments = BatchNormGrad {
                x: &x,
                dy: dy.copy(),
                also: also.cloned(),
                gamma: &gamma,
                beta: &beta,
                mean: &out.mean,
                inv_std: &out.inv_std,
                activation,
                y,
                residual: y.is_some(),
            };
            let grads = batch_norm_grad(arguments).unwrap();
            [grads.dx, grads.dgamma, grads.dbeta]
        };
        let (simple, full) = (grads(None, None), grads(Some(&dy), Some(&out.y)));
        [out.y, out.mean, out.var, out.inv_std].into_iter().chain(simple).chain(full).collect()
    });
}

#[test]
fn errors() {
    let [gamma, beta] = [3, 4].map(|salt| values(&[4], salt, 1.0));
    let train = |x: &Tensor| batch_norm_train(BatchNormTrain::new(x, &gamma, &beta, 1e-5));
    assert!(matches!(train(&values(&[3, 5], 1, 1.0)), Err(Error::Shape { op: "batch_norm_train", .. })));
    assert!(matches!(train(&values(&[3, 4, 2], 1, 1.0)), Err(Error::Shape { .. })));
    assert!(matches!(train(&values(&[0, 4], 1, 1.0)), Err(Error::Shape { .. })));
    assert!(matches!(train(&f64s(&values(&[3, 4], 1, 1.0))), Err(Error::DType { .. })));
    let (x, short) = (values(&[3, 4], 1, 1.0), values(&[2, 4], 1, 1.0));
    let arguments = BatchNormTrain { residual: Some(&short), ..BatchNormTrain::new(&x, &gamma, &beta, 1e-5) };
    assert!(batch_norm_train(arguments).is_err());
}
