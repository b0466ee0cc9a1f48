//! Optimizer updates against PyTorch's formulas, written out for one number.

mod common;

use common::*;
use proptest::prelude::*;
use qkernels::update::*;
use qtensor::Tensor;

/// Runs `steps` of both sides on every element and compares parameter and state.
fn compare(
    shape: &[usize],
    how: usize,
    states: usize,
    mut step: impl FnMut(u64, &Tensor, &mut [Tensor]),
    mut scalar: impl FnMut(u64, f64, &mut [f64]),
) {
    for double in [false, true] {
        let typed = |t: Tensor| if double { f64s(&t) } else { t };
        let start = arranged(&values(shape, 1, 1.0), how);
        let mut fast = vec![typed(start.copy())];
        fast.extend((0..states).map(|_| typed(start.copy()).zeros_like()));
        let mut expected: Vec<Vec<f64>> = fast.iter().map(|t| f64s(t).to_vec().unwrap()).collect();
        for t in 1..=4 {
            let gradient = arranged(&values(shape, 100 * t as usize, 0.5), how + t as usize);
            step(t, &typed(gradient.clone()), &mut fast);
            for (i, g) in f64s(&gradient).to_vec::<f64>().unwrap().into_iter().enumerate() {
                let mut all: Vec<f64> = expected.iter().map(|e| e[i]).collect();
                scalar(t, g, &mut all);
                expected.iter_mut().zip(all).for_each(|(e, v)| e[i] = v);
            }
        }
        for (found, expected) in fast.iter().zip(expected) {
            let expected = Tensor::from_vec(shape, expected).unwrap();
            let tolerance = if double { 1e-12 } else { 1e-5 };
            for (f, e) in f64s(found).to_vec::<f64>().unwrap().into_iter().zip(expected.to_vec::<f64>().unwrap()) {
                assert!((f - e).abs() <= tolerance * e.abs().max(0.1), "{f} instead of {e}");
            }
        }
    }
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![0]),
        Just(vec![1]),
        (1usize..70).prop_map(|n| vec![n]),
        (1usize..9, 1usize..9, 1usize..4, 1usize..4).prop_map(|(a, b, c, d)| vec![a, b, c, d])
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sgd(shape in shapes(), how in 0..ARRANGEMENTS, momentum in prop::sample::select(vec![0.0, 0.9]), dampening in prop::sample::select(vec![0.0, 0.3]), nesterov: bool) {
        let (lr, decay) = (0.1, 0.01);
        let states = usize::from(momentum != 0.0);
        compare(&shape, how, states, |t, gradient, all| {
            let (parameter, rest) = all.split_first_mut().unwrap();
            if t == 1 && let Some(velocity) = rest.first_mut() {
                *velocity = qkernels::elementwise::add_scalar(velocity, f64::NAN).unwrap();
            }
            let velocity = rest.first_mut();
            sgd_step(SgdStep { parameter, gradient, velocity, first: t == 1, lr, momentum, dampening, nesterov, weight_decay: decay }).unwrap();
        }, |t, g, all| {
            let g = g + decay * all[0];
            if momentum == 0.0 {
                all[0] -= lr * g;
                return;
            }
            all[1] = if t == 1 { g } else { momentum * all[1] + (1.0 - dampening) * g };
            all[0] -= lr * if nesterov { g + momentum * all[1] } else { all[1] };
        });
    }

    #[test]
    fn adam(shape in shapes(), how in 0..ARRANGEMENTS, decoupled: bool) {
        let (lr, [b1, b2], eps, weight_decay) = (0.01, [0.9, 0.999], 1e-6, 0.05);
        compare(&shape, how, 2, |step, gradient, all| {
            let [parameter, mean, square] = all else { unreachable!() };
            adam_step(AdamStep { parameter, gradient, mean, square, step, lr, betas: [b1, b2], eps, weight_decay, decoupled }).unwrap();
        }, |t, mut g, all| {
            if decoupled {
                all[0] *= 1.0 - lr * weight_decay;
            } else {
                g += weight_decay * all[0];
            }
            all[1] = b1 * all[1] + (1.0 - b1) * g;
            all[2] = b2 * all[2] + (1.0 - b2) * g * g;
            let (m, v) = (all[1] / (1.0 - b1.powi(t as i32)), all[2] / (1.0 - b2.powi(t as i32)));
            all[0] -= lr * m / (v.sqrt() + eps);
        });
    }

    #[test]
    fn adadelta(shape in shapes(), how in 0..ARRANGEMENTS) {
        let (lr, rho, eps, weight_decay) = (1.0, 0.9, 1e-6, 0.05);
        compare(&shape, how, 2, |_, gradient, all| {
            let [parameter, square, update] = all else { unreachable!() };
            adadelta_step(AdadeltaStep { parameter, gradient, square, update, lr, rho, eps, weight_decay }).unwrap();
        }, |_, g, all| {
            let g = g + weight_decay * all[0];
            all[1] = rho * all[1] + (1.0 - rho) * g * g;
            let delta = (all[2] + eps).sqrt() / (all[1] + eps).sqrt() * g;
            all[2] = rho * all[2] + (1.0 - rho) * delta * delta;
            all[0] -= lr * delta;
        });
    }

    #[test]
    fn moving_average(shape in shapes(), how in 0..ARRANGEMENTS) {
        compare(&shape, how, 0, |_, b, all| lerp(&mut all[0], b, 0.25).unwrap(), |_, b, all| all[0] += 0.25 * (b - all[0]));
    }
}

#[test]
fn buffers_stay_and_others_keep_their_values() {
    let mut parameter = values(&[100_000], 1, 1.0);
    let (gradient, buffer) = (values(&[100_000], 2, 1.0), parameter.buffer_id());
    lerp(&mut parameter, &gradient, 0.5).unwrap();
    assert_eq!(parameter.buffer_id(), buffer, "a unique buffer was replaced");
    let snapshot = parameter.clone();
    let before = bits(&snapshot);
    lerp(&mut parameter, &gradient, 0.5).unwrap();
    assert_eq!(bits(&snapshot), before, "a shared buffer changed");
    assert_ne!(bits(&parameter), before);
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    assert_same_for_any_threads(|| {
        let [mut parameter, mut mean, mut square] = [1, 2, 3].map(|salt| values(&[130_001], salt, 1.0));
        square = qkernels::unary(qkernels::UnaryOp::Abs, &square).unwrap();
        let arguments = AdamStep {
            parameter: &mut parameter,
            gradient: &values(&[130_001], 4, 1.0),
            mean: &mut mean,
            square: &mut square,
            step: 3,
            lr: 0.1,
            betas: [0.9, 0.99],
            eps: 1e-8,
            weight_decay: 0.1,
            decoupled: false,
        };
        adam_step(arguments).unwrap();
        vec![parameter, mean, square]
    });
}

#[test]
fn errors() {
    let (mut a, b) = (values(&[2], 1, 1.0), values(&[3], 1, 1.0));
    assert!(lerp(&mut a, &b, 0.5).is_err());
    let (mut m, mut s) = (a.copy(), a.copy());
    let gradient = a.copy();
    let wrong = AdamStep {
        parameter: &mut a,
        gradient: &gradient,
        mean: &mut m,
        square: &mut s,
        step: 0,
        lr: 0.1,
        betas: [0.9, 0.99],
        eps: 1e-8,
        weight_decay: 0.0,
        decoupled: true,
    };
    assert!(adam_step(wrong).is_err());
}
