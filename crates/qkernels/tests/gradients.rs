//! Every gradient against central differences in f64.

use qkernels::elementwise::{self, BinaryOp, Saves, UnaryOp};
use qkernels::norm::{BatchNormGrad, BatchNormTrain, batch_norm_grad, batch_norm_train};
use qkernels::{Activation, pool, reduce, softmax};
use qtensor::{DType, Result, Tensor};

/// Smooth pseudo-random values with a spread of `scale`, all different.
fn values(shape: &[usize], salt: f64, scale: f64) -> Tensor {
    let mut i = salt;
    Tensor::from_fn(shape, || {
        i += 1.0;
        scale * ((i * 12.9898).sin() * 43758.5453).fract()
    })
    .unwrap()
}

/// Checks that `gradient` is that of `Σ f(x) · direction` at `x`.
fn check(name: &str, x: &Tensor, gradient: &Tensor, direction: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) {
    let step = 1e-5;
    let at = x.to_vec::<f64>().unwrap();
    let objective = |i: usize, by: f64| {
        let mut moved = at.clone();
        moved[i] += by;
        let y = f(&Tensor::from_vec(x.shape(), moved).unwrap()).unwrap();
        reduce::dot(&y, direction).unwrap()
    };
    for (i, found) in gradient.to_vec::<f64>().unwrap().into_iter().enumerate() {
        let expected = (objective(i, step) - objective(i, -step)) / (2.0 * step);
        let error = (found - expected).abs();
        assert!(error <= 1e-5 * expected.abs().max(1.0), "{name}: element {i} is {found}, differences say {expected}");
    }
}

#[test]
fn unary() {
    let ops = [
        UnaryOp::Neg,
        UnaryOp::Abs,
        UnaryOp::Square,
        UnaryOp::Sqrt,
        UnaryOp::Recip,
        UnaryOp::Exp,
        UnaryOp::Log,
        UnaryOp::Tanh,
        UnaryOp::Sigmoid,
        UnaryOp::Relu,
        UnaryOp::Relu6,
        UnaryOp::LeakyRelu(0.1),
        UnaryOp::LeakyRelu(-0.5),
    ];
    for op in ops {
        let positive = matches!(op, UnaryOp::Sqrt | UnaryOp::Log | UnaryOp::Recip);
        let mut x = values(&[3, 7], 0.5, if op == UnaryOp::Relu6 { 12.0 } else { 2.0 });
        if positive {
            x = elementwise::add_scalar(&elementwise::unary(UnaryOp::Abs, &x).unwrap(), 0.1).unwrap();
        }
        let (y, dy) = (elementwise::unary(op, &x).unwrap(), values(&[3, 7], 9.5, 1.0));
        let saved = match op.saves() {
            Saves::Nothing => &dy,
            Saves::Input => &x,
            Saves::Output => &y,
        };
        let dx = elementwise::unary_grad(op, saved, &dy).unwrap();
        check(op.name(), &x, &dx, &dy, |x| elementwise::unary(op, x));
    }
}

#[test]
fn binary_with_broadcasting() {
    for op in [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Max, BinaryOp::Min] {
        for (left, right) in
            [(&[2, 3, 4][..], &[2, 3, 4][..]), (&[2, 3, 4], &[3, 1]), (&[4], &[2, 1, 4]), (&[1, 3], &[2, 1])]
        {
            let a = values(left, 1.5, 2.0);
            let b =
                elementwise::add_scalar(&elementwise::unary(UnaryOp::Square, &values(right, 5.5, 2.0)).unwrap(), 0.2);
            let b = b.unwrap();
            let y = elementwise::binary(op, &a, &b).unwrap();
            let dy = values(y.shape(), 3.5, 1.0);
            let [da, db] = elementwise::binary_grad(op, &a, &b, &dy, [true, true]).unwrap();
            check(op.name(), &a, &da.unwrap(), &dy, |a| elementwise::binary(op, a, &b));
            check(op.name(), &b, &db.unwrap(), &dy, |b| elementwise::binary(op, &a, b));
            let [none, some] = elementwise::binary_grad(op, &a, &b, &dy, [false, true]).unwrap();
            assert!(none.is_none() && some.is_some());
        }
    }
}

#[test]
fn prelu() {
    let x = values(&[2, 3, 2, 2], 0.5, 2.0);
    for slope in [values(&[3], 4.5, 0.5), values(&[1], 4.5, 0.5)] {
        let dy = values(x.shape(), 7.5, 1.0);
        let (dx, dslope) = elementwise::prelu_grad(&x, &slope, &dy).unwrap();
        check("dx", &x, &dx, &dy, |x| elementwise::prelu(x, &slope));
        check("dslope", &slope, &dslope, &dy, |slope| elementwise::prelu(&x, slope));
    }
}

#[test]
fn batch_norm() {
    for shape in [&[5, 3][..], &[2, 3, 2, 3]] {
        for activation in [Activation::None, Activation::Relu, Activation::Relu6, Activation::LeakyRelu(0.25)] {
            let (x, residual) = (values(shape, 0.5, 2.0), values(shape, 31.5, 1.0));
            let (gamma, beta) = (values(&[3], 3.5, 1.5), values(&[3], 8.5, 1.0));
            let forward = |x: &Tensor, gamma: &Tensor, beta: &Tensor, residual: &Tensor| {
                let residual = Some(residual);
                batch_norm_train(BatchNormTrain { residual, activation, ..BatchNormTrain::new(x, gamma, beta, 1e-3) })
            };
            let out = forward(&x, &gamma, &beta, &residual).unwrap();
            let dy = values(shape, 17.5, 1.0);
            let grads = batch_norm_grad(BatchNormGrad {
                x: &x,
                dy: dy.clone(),
                also: None,
                gamma: &gamma,
                beta: &beta,
                mean: &out.mean,
                inv_std: &out.inv_std,
                activation,
                y: Some(&out.y),
                residual: true,
            })
            .unwrap();
            check("dx", &x, &grads.dx, &dy, |x| Ok(forward(x, &gamma, &beta, &residual)?.y));
            check("dgamma", &gamma, &grads.dgamma, &dy, |gamma| Ok(forward(&x, gamma, &beta, &residual)?.y));
            check("dbeta", &beta, &grads.dbeta, &dy, |beta| Ok(forward(&x, &gamma, beta, &residual)?.y));
            let dresidual = grads.dresidual.unwrap();
            check("dresidual", &residual, &dresidual, &dy, |residual| Ok(forward(&x, &gamma, &beta, residual)?.y));
        }
    }
}

#[test]
fn pools() {
    let x = values(&[2, 3, 5, 6], 0.5, 2.0);
    let square = pool::PoolParams::new(2);
    let overlapping = pool::PoolParams { kernel: [3, 3], stride: [2, 1], padding: [1, 1], ..square };
    let partial = pool::PoolParams { ceil_mode: true, count_include_pad: false, padding: [1, 0], ..square };
    for params in [square, overlapping, partial] {
        let (y, places) = pool::max_pool2d(&x, &params).unwrap();
        let dy = values(y.shape(), 7.5, 1.0);
        let dx = pool::max_pool2d_grad(&dy, &places, x.shape(), &params).unwrap();
        check("max", &x, &dx, &dy, |x| Ok(pool::max_pool2d(x, &params)?.0));
        let dx = pool::avg_pool2d_grad(&dy, x.shape(), &params).unwrap();
        check("average", &x, &dx, &dy, |x| pool::avg_pool2d(x, &params));
    }
    let dy = values(&[2, 3], 7.5, 1.0);
    let dx = pool::global_avg_pool2d_grad(&dy, x.shape()).unwrap();
    check("global", &x, &dx, &dy, pool::global_avg_pool2d);
}

#[test]
fn softmax_and_cross_entropy() {
    let x = values(&[4, 5], 0.5, 4.0);
    let dy = values(&[4, 5], 7.5, 1.0);
    let y = softmax::log_softmax(&x).unwrap();
    check("log_softmax", &x, &softmax::log_softmax_grad(&y, &dy).unwrap(), &dy, softmax::log_softmax);
    let labels = Tensor::from_vec([4], vec![0i64, 4, 2, 2]).unwrap();
    let soft = elementwise::unary(UnaryOp::Square, &values(&[4, 5], 2.5, 1.0)).unwrap();
    let dloss = Tensor::scalar(-1.5f64);
    for targets in [labels, soft] {
        for smoothing in [0.0, 0.1] {
            let (_, residual) = softmax::softmax_cross_entropy(&x, &targets, smoothing).unwrap();
            let dx = softmax::softmax_cross_entropy_grad(&residual, &dloss).unwrap();
            check("cross entropy", &x, &dx, &dloss, |x| Ok(softmax::softmax_cross_entropy(x, &targets, smoothing)?.0));
        }
    }
}

#[test]
fn sum_to_undoes_broadcasting() {
    let x = values(&[3, 1], 0.5, 1.0);
    let dy = values(&[2, 3, 4], 5.5, 1.0);
    let dx = reduce::sum_to(&dy, &[3, 1]).unwrap();
    check("expand", &x, &dx, &dy, |x| x.expand([2, 3, 4]));
    assert_eq!(dx.dtype(), DType::F64);
}
