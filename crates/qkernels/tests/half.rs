//! Kernels on images in bf16, against f64 loops on the same rounded values.

mod common;

use common::{ARRANGEMENTS, arranged, assert_same_for_any_threads, values};
use qkernels::norm::{BatchNormGrad, BatchNormTrain, batch_norm_grad, batch_norm_train};
use qkernels::pool::{PoolParams, max_pool2d, max_pool2d_grad};
use qkernels::{Activation, Conv2dParams, add_assign, cast, naive};
use qkernels::{Projection, conv2d, conv2d_add, conv2d_input_grad, conv2d_stacked, conv2d_weight_grad};
use qtensor::{DType, Result, Tensor};

/// Half a unit of bf16, relative.
const ROUNDING: f64 = 0.5 / 128.0;

fn half(shape: &[usize], salt: usize) -> Tensor {
    cast::to_bf16(&values(shape, salt, 1.0)).unwrap()
}

fn f64s(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
}

/// Checks shape, type and values: within `relative` of each, and `absolute` of the largest.
#[track_caller]
fn assert_within(found: &Tensor, dtype: DType, expected: &Tensor, [relative, absolute]: [f64; 2]) {
    assert_eq!((found.shape(), found.dtype()), (expected.shape(), dtype));
    let expected = f64s(expected);
    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (i, (found, expected)) in f64s(found).iter().zip(&expected).enumerate() {
        let bound = relative * expected.abs() + absolute * largest;
        assert!((found - expected).abs() <= bound, "element {i}: {found} instead of {expected}");
    }
}

/// Images, filters, kernel, stride, padding, groups: each algorithm, and numbers of channels that are odd or fill no vector.
const SHAPES: [([usize; 4], usize, usize, usize, usize, usize); 9] = [
    ([2, 16, 12, 12], 32, 3, 1, 1, 1),
    ([2, 17, 9, 11], 24, 3, 1, 1, 1),
    ([3, 3, 10, 9], 16, 3, 1, 1, 1),
    ([2, 16, 10, 9], 20, 3, 2, 1, 1),
    ([2, 19, 6, 5], 33, 1, 1, 0, 1),
    ([2, 16, 7, 7], 8, 1, 2, 0, 1),
    ([2, 24, 8, 8], 24, 3, 1, 1, 24),
    ([2, 16, 8, 8], 16, 3, 1, 1, 4),
    ([1, 8, 9, 9], 8, 5, 1, 2, 1),
];

#[test]
fn convolutions_of_every_kind() -> Result<()> {
    for (i, (x_shape, filters, kernel, stride, padding, groups)) in SHAPES.into_iter().enumerate() {
        let params = Conv2dParams { stride: [stride; 2], padding: [padding; 2], groups, ..Default::default() };
        let w = values(&[filters, x_shape[1] / groups, kernel, kernel], 3 * i, 0.5);
        let (x, bias) = (half(&x_shape, i), values(&[filters], 5, 1.0));
        let leaky = Activation::LeakyRelu(0.1);
        let expected = naive::conv::conv2d(&x, &w, Some(&bias), &params, leaky)?;
        // Winograd's values at the points are rounded, and the filters of 1×1 products.
        let is_winograd = kernel > 1 && stride == 1 && groups == 1 && x_shape[1] >= 8;
        let bound = match (is_winograd, kernel == 1 && stride == 1) {
            (true, _) => [ROUNDING, 0.05],
            (_, true) => [ROUNDING, 0.01],
            _ => [ROUNDING, 1e-6],
        };
        for how in 0..ARRANGEMENTS {
            let x = cast::to_bf16(&arranged(&cast::from_bf16(&x)?, how))?;
            let y = conv2d(&x, &w, Some(&bias), &params, leaky)?;
            assert_within(&y, DType::BF16, &expected, bound);
        }
        let dy = half(expected.shape(), 7);
        let dx = conv2d_input_grad(&dy, &w, &x_shape, &params)?;
        assert_within(&dx, DType::BF16, &naive::conv::conv2d_input_grad(&dy, &w, &x_shape, &params)?, bound);
        let dw = conv2d_weight_grad(&x, &dy, w.shape(), &params)?;
        assert_within(&dw, DType::F32, &naive::conv::conv2d_weight_grad(&x, &dy, w.shape(), &params)?, bound);

        let plain = naive::conv::conv2d(&x, &w, Some(&bias), &params, Activation::None)?;
        let sum: Vec<f64> = f64s(&plain).iter().zip(f64s(&dy)).map(|(a, b)| (a + b).max(0.0)).collect();
        let added = conv2d_add(&x, &w, Some(&bias), &dy, &params, Activation::Relu)?;
        assert_within(&added, DType::BF16, &Tensor::from_vec(plain.shape(), sum)?, bound);

        let both = conv2d_stacked(&x, &[Projection { w: &w, bias: Some(&bias) }; 2], &params, leaky)?;
        for y in &both {
            assert_within(y, DType::BF16, &expected, bound);
        }
    }
    Ok(())
}

#[test]
fn types_of_a_convolution_must_fit() {
    let (x, w) = (half(&[1, 8, 6, 6], 0), values(&[8, 8, 3, 3], 1, 1.0));
    let params = Conv2dParams { padding: [1; 2], ..Default::default() };
    let narrow = cast::to_bf16(&w).unwrap();
    assert!(conv2d(&x, &narrow, None, &params, Activation::None).is_err());
    assert!(conv2d_weight_grad(&x, &cast::from_bf16(&x).unwrap(), w.shape(), &params).is_err());
    assert!(conv2d_input_grad(&x, &narrow, x.shape(), &params).is_err());
}

#[test]
fn normalisation_and_its_gradients() -> Result<()> {
    for (shape, activation, with_residual) in [
        ([6, 24, 5, 7], Activation::Relu, false),
        ([6, 24, 5, 7], Activation::Relu, true),
        ([3, 5, 4, 4], Activation::None, true),
        ([9, 64, 3, 3], Activation::LeakyRelu(0.2), false),
    ] {
        let channels = [shape[1]];
        let (x, gamma, beta) = (half(&shape, 1), values(&channels, 2, 1.0), values(&channels, 3, 1.0));
        let residual = with_residual.then(|| half(&shape, 4));
        let wide = |t: &Tensor| t.to_dtype(DType::F64);
        let (x64, gamma64, beta64) = (wide(&x)?, wide(&gamma)?, wide(&beta)?);
        let residual64 = residual.as_ref().map(wide).transpose()?;
        let out = batch_norm_train(BatchNormTrain {
            residual: residual.as_ref(),
            activation,
            ..BatchNormTrain::new(&x, &gamma, &beta, 1e-5)
        })?;
        let exact = batch_norm_train(BatchNormTrain {
            residual: residual64.as_ref(),
            activation,
            ..BatchNormTrain::new(&x64, &gamma64, &beta64, 1e-5)
        })?;
        assert_within(&out.y, DType::BF16, &exact.y, [ROUNDING, 1e-6]);
        assert_within(&out.mean, DType::F32, &exact.mean, [1e-5, 1e-6]);
        assert_within(&out.var, DType::F32, &exact.var, [1e-5, 1e-6]);
        for parts in 1..3 {
            let (dy, also) = (half(&shape, 5), (parts == 2).then(|| half(&shape, 6)));
            let found = batch_norm_grad(BatchNormGrad {
                x: &x,
                dy: dy.clone(),
                also: also.clone(),
                gamma: &gamma,
                beta: &beta,
                mean: &out.mean,
                inv_std: &out.inv_std,
                activation,
                y: Some(&out.y),
                residual: with_residual,
            })?;
            let y64 = wide(&out.y)?;
            let expected = batch_norm_grad(BatchNormGrad {
                x: &x64,
                dy: wide(&dy)?,
                also: also.as_ref().map(wide).transpose()?,
                gamma: &gamma64,
                beta: &beta64,
                mean: &exact.mean,
                inv_std: &exact.inv_std,
                activation,
                y: Some(&y64),
                residual: with_residual,
            })?;
            // A sum of two gradients is rounded before it is used.
            assert_within(&found.dx, DType::BF16, &expected.dx, [ROUNDING, 0.01]);
            assert_within(&found.dgamma, DType::F32, &expected.dgamma, [0.0, 0.01]);
            assert_within(&found.dbeta, DType::F32, &expected.dbeta, [0.0, 0.01]);
            assert_eq!(found.dresidual.is_some(), with_residual);
            if let (Some(found), Some(expected)) = (&found.dresidual, &expected.dresidual) {
                assert_within(found, DType::BF16, expected, [ROUNDING, 1e-6]);
            }
        }
    }
    Ok(())
}

#[test]
fn max_pooling_is_exact() -> Result<()> {
    for (shape, params) in
        [([2, 20, 8, 6], PoolParams::new(2)), ([1, 3, 7, 7], PoolParams { stride: [2; 2], ..PoolParams::new(3) })]
    {
        let x = half(&shape, 1);
        let wide = cast::from_bf16(&x)?;
        let ((y, places), (expected, expected_places)) = (max_pool2d(&x, &params)?, max_pool2d(&wide, &params)?);
        assert_within(&y, DType::BF16, &expected, [0.0; 2]);
        assert_eq!(places.to_vec::<u8>()?, expected_places.to_vec::<u8>()?);
        let dy = half(y.shape(), 2);
        let dx = max_pool2d_grad(&dy, &places, &shape, &params)?;
        assert_within(
            &dx,
            DType::BF16,
            &max_pool2d_grad(&cast::from_bf16(&dy)?, &places, &shape, &params)?,
            [ROUNDING; 2],
        );
    }
    Ok(())
}

#[test]
fn sums_are_rounded_once() -> Result<()> {
    let shape = [3, 5, 4, 7];
    for how in 0..ARRANGEMENTS {
        let (mut sum, x) =
            (half(&shape, 1).to_channels_last(), cast::to_bf16(&arranged(&values(&shape, 2, 1.0), how))?);
        let kept = sum.clone();
        let exact: Vec<f64> = f64s(&sum).iter().zip(f64s(&x)).map(|(a, b)| a + b).collect();
        add_assign(&mut sum, &x)?;
        assert_within(&sum, DType::BF16, &Tensor::from_vec(shape, exact)?, [ROUNDING, 0.0]);
        assert_eq!(f64s(&kept), f64s(&half(&shape, 1)), "another handle on the buffer keeps its values");
    }
    assert!(add_assign(&mut half(&shape, 1), &values(&shape, 2, 1.0)).is_err());
    Ok(())
}

#[test]
fn bits_do_not_depend_on_threads() {
    let params = Conv2dParams { padding: [1; 2], ..Default::default() };
    let (x, w) = (half(&[9, 40, 20, 20], 0).to_channels_last(), values(&[48, 40, 3, 3], 1, 1.0));
    assert_same_for_any_threads(|| {
        let y = conv2d(&x, &w, None, &params, Activation::Relu).unwrap();
        let dx = conv2d_input_grad(&y, &w, x.shape(), &params).unwrap();
        let dw = conv2d_weight_grad(&x, &y, w.shape(), &params).unwrap();
        vec![cast::from_bf16(&y).unwrap(), cast::from_bf16(&dx).unwrap(), dw]
    });
}
