//! Gradient checks of convolution, pooling and batch normalisation, with every layout of every input.

mod common;

use common::{check, distinct, normal, positive};
use qgraph::ops::{BatchNorm, BatchNormInference, Conv2d};
use qgraph::{Activation, Conv2dParams, PoolParams, Tape, Tensor};

#[test]
fn convolutions() {
    let plain = Conv2dParams::default();
    // x, w, parameters
    let cases: [([usize; 4], [usize; 4], Conv2dParams); 8] = [
        ([2, 3, 5, 4], [4, 3, 3, 3], Conv2dParams { padding: [1, 1], ..plain }),
        ([1, 2, 6, 6], [3, 2, 3, 2], Conv2dParams { stride: [2, 3], padding: [1, 0], ..plain }),
        ([2, 4, 7, 7], [6, 2, 3, 3], Conv2dParams { dilation: [2, 3], padding: [2, 3], groups: 2, ..plain }),
        ([2, 4, 5, 5], [4, 1, 3, 3], Conv2dParams { padding: [1, 1], groups: 4, ..plain }),
        ([2, 3, 4, 4], [8, 3, 1, 1], plain),
        ([2, 3, 5, 5], [2, 3, 1, 1], Conv2dParams { stride: [2, 2], ..plain }),
        ([0, 3, 5, 5], [2, 3, 3, 3], plain),
        ([1, 1, 2, 3], [1, 1, 2, 3], plain),
    ];
    for (x, w, params) in cases {
        let inputs = [normal(&x, 1), normal(&w, 2), normal(&w[..1], 3)];
        check(&inputs[..2], |tape, x| tape.conv2d(&x[0], &x[1], None, params));
        check(&inputs, |tape, x| tape.conv2d(&x[0], &x[1], Some(&x[2]), params));
    }
    let inputs = [normal(&[2, 3, 5, 4], 1), normal(&[4, 3, 3, 3], 2), normal(&[4], 3)];
    for activation in [Activation::Relu, Activation::LeakyRelu(0.2)] {
        let op = Conv2d { params: plain, activation, measures: false };
        check(&inputs, |tape, x| tape.conv2d_with(op, &x[0], &x[1], Some(&x[2])));
    }
}

#[test]
fn convolutions_with_a_residual() {
    let params = Conv2dParams { padding: [1, 1], ..Conv2dParams::default() };
    let inputs = [normal(&[2, 3, 5, 4], 1), normal(&[4, 3, 3, 3], 2), normal(&[2, 4, 5, 4], 3), normal(&[4], 4)];
    for activation in [Activation::None, Activation::Relu, Activation::LeakyRelu(0.2)] {
        let op = Conv2d { params, activation, measures: false };
        check(&inputs[..3], |tape, x| tape.conv2d_add(op, &x[0], &x[1], None, &x[2]));
        check(&inputs, |tape, x| tape.conv2d_add(op, &x[0], &x[1], Some(&x[3]), &x[2]));
    }
}

#[test]
fn pooling() {
    let plain =
        PoolParams { kernel: [2, 2], stride: [2, 2], padding: [0, 0], ceil_mode: false, count_include_pad: true };
    let cases = [
        plain,
        PoolParams { kernel: [3, 3], stride: [2, 2], padding: [1, 1], ..plain },
        PoolParams { kernel: [3, 2], stride: [1, 2], padding: [1, 0], count_include_pad: false, ..plain },
        PoolParams { kernel: [2, 3], stride: [2, 2], ceil_mode: true, ..plain },
    ];
    for params in cases {
        for shape in [[2, 3, 7, 6], [0, 3, 7, 6]] {
            check(&[distinct(&shape, 1)], |tape, x| tape.max_pool2d(&x[0], params));
            check(&[normal(&shape, 2)], |tape, x| tape.avg_pool2d(&x[0], params));
        }
    }
    check(&[normal(&[2, 3, 4, 5], 3)], |tape, x| tape.global_avg_pool2d(&x[0]));
}

fn norm(activation: Activation) -> BatchNorm {
    BatchNorm { eps: 1e-3, key: Some(0), activation }
}

#[test]
fn batch_normalisation() {
    for shape in [&[6, 3][..], &[2, 3, 4, 3]] {
        let inputs = [normal(shape, 1), normal(&[3], 2), normal(&[3], 3), normal(shape, 4)];
        for activation in [Activation::None, Activation::Relu, Activation::LeakyRelu(0.1)] {
            check(&inputs[..3], |tape, x| tape.batch_norm(norm(activation), &x[0], &x[1], &x[2]));
            check(&inputs, |tape, x| tape.apply(norm(activation), &[&x[0], &x[1], &x[2], &x[3]]));
        }
    }
}

#[test]
fn batch_normalisation_with_given_statistics() {
    for shape in [&[6, 3][..], &[2, 3, 4, 3]] {
        let (mean, var) = (normal(&[3], 5), positive(&[3], 6));
        let inputs = [normal(shape, 1), normal(&[3], 2), normal(&[3], 3)];
        for activation in [Activation::None, Activation::Relu] {
            let op = BatchNormInference { eps: 1e-3, activation };
            check(&inputs, |tape, x| tape.batch_norm_inference(op, &x[0], [&x[1], &x[2]], [&mean, &var]));
        }
    }
}

#[test]
fn batch_normalisation_of_a_residual_with_given_statistics() {
    let (mean, var) = (normal(&[3], 5), positive(&[3], 6));
    let inputs = [normal(&[2, 3, 4, 3], 1), normal(&[3], 2), normal(&[3], 3), normal(&[2, 3, 4, 3], 4)];
    let op = BatchNormInference { eps: 1e-3, activation: Activation::Relu };
    check(&inputs, |tape, x| {
        let (mean, var) = (mean.clone().into(), var.clone().into());
        tape.apply(op, &[&x[0], &x[1], &x[2], &mean, &var, &x[3]])
    });
}

#[test]
fn the_effect_of_batch_normalisation_holds_mean_and_unbiased_variance() {
    let mut tape = Tape::new();
    let x = Tensor::from_vec([4, 2], vec![1.0, 10.0, 2.0, 10.0, 3.0, 10.0, 6.0, 14.0]).unwrap().into();
    let (gamma, beta) = (Tensor::full([2], 1.0).unwrap().into(), Tensor::full([2], 0.0).unwrap().into());
    tape.batch_norm(norm(Activation::None), &x, &gamma, &beta).unwrap();
    let effects = tape.take_effects();
    assert_eq!(effects.len(), 1, "also where no gradient is needed");
    let values: Vec<Vec<f64>> = effects[0].values.iter().map(|v| v.to_vec().unwrap()).collect();
    assert_eq!(values[0], [3.0, 11.0]);
    // Squared deviations 4 + 1 + 0 + 9 and 1 + 1 + 1 + 9, over n - 1 = 3.
    common::assert_close(&effects[0].values[1], &Tensor::from_vec([2], vec![14.0 / 3.0, 4.0]).unwrap(), 1e-12);
    let silent = BatchNorm { key: None, ..norm(Activation::None) };
    tape.batch_norm(silent, &x, &gamma, &beta).unwrap();
    assert!(tape.take_effects().is_empty());
}

#[test]
fn bad_arguments_are_errors() {
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2, 3, 4, 4], 1));
    let (w, v) = (tape.leaf(normal(&[4, 2, 3, 3], 2)), tape.leaf(normal(&[3], 3)));
    let one = tape.leaf(normal(&[1, 3], 4));
    assert!(tape.conv2d(&x, &w, None, Conv2dParams::default()).is_err());
    assert!(tape.conv2d(&x, &v, None, Conv2dParams::default()).is_err());
    assert!(tape.global_avg_pool2d(&v).is_err());
    assert!(tape.batch_norm(norm(Activation::None), &x, &v, &one).is_err());
    let error = tape.batch_norm(norm(Activation::None), &one, &v, &v).unwrap_err().to_string();
    assert!(error.contains("one value a channel"), "{error}");
    assert!(tape.batch_norm(norm(Activation::LeakyRelu(-1.0)), &x, &v, &v).is_err());
    // Statistics are constants: a leaf among them is an error of the rule, not a gradient that is lost.
    let op = BatchNormInference { eps: 1e-3, activation: Activation::None };
    let y = tape.apply(op, &[&x, &v, &v, &v, &v]).unwrap();
    assert!(tape.backward_from(&y, normal(&[2, 3, 4, 4], 5)).is_err());
}
