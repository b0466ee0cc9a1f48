//! Gradient checks of the ops on matrices and plain tensors, with every layout of every input.

mod common;

use common::{check, distinct, dropout_key, normal, positive};
use qgraph::ops::Linear;
use qgraph::{Activation, DType, Result, Tape, Tensor, Var};

type Method = fn(&mut Tape, &Var) -> Result<Var>;
type Method2 = fn(&mut Tape, &Var, &Var) -> Result<Var>;

#[test]
fn functions_of_one_element() {
    let smooth: [Method; 7] = [
        Tape::neg,
        Tape::square,
        Tape::exp,
        Tape::tanh,
        Tape::sigmoid,
        |t, x| t.scale(x, -2.5),
        |t, x| t.add_scalar(x, 3.0),
    ];
    let at_positive: [Method; 3] = [Tape::sqrt, Tape::log, Tape::recip];
    let with_kinks: [Method; 6] = [
        Tape::abs,
        Tape::relu,
        // The kink at 6 lies between two of the values.
        Tape::relu6,
        |t, x| t.leaky_relu(x, 0.1),
        |t, x| t.leaky_relu(x, 0.0),
        |t, x| t.leaky_relu(x, -0.3),
    ];
    for shape in [&[][..], &[7], &[3, 4], &[2, 3, 2, 2], &[0, 3]] {
        smooth.iter().for_each(|f| check(&[normal(shape, 1)], |tape, x| f(tape, &x[0])));
        at_positive.iter().for_each(|f| check(&[positive(shape, 2)], |tape, x| f(tape, &x[0])));
    }
    with_kinks.iter().for_each(|f| check(&[distinct(&[9, 13], 3)], |tape, x| f(tape, &x[0])));
}

#[test]
fn functions_of_two_elements_broadcast() {
    let pairs: [(&[usize], &[usize]); 7] = [
        (&[3, 4], &[3, 4]),
        (&[3, 4], &[4]),
        (&[4], &[3, 4]),
        (&[3, 1], &[1, 4]),
        (&[], &[2, 3]),
        (&[2, 3, 2, 2], &[3, 1, 1]),
        (&[0, 4], &[4]),
    ];
    let methods: [Method2; 4] = [Tape::add, Tape::sub, Tape::mul, Tape::div];
    for (a, b) in pairs {
        for f in methods {
            check(&[normal(a, 1), positive(b, 2)], |tape, x| f(tape, &x[0], &x[1]));
        }
    }
    let kinked: [Method2; 3] = [Tape::maximum, Tape::minimum, Tape::add_relu];
    for f in kinked {
        let (a, b) = (distinct(&[5, 4], 3), distinct(&[5, 1], 4));
        let shifted = b.to_vec::<f64>().unwrap().iter().map(|x| x + 0.021).collect();
        let b = Tensor::from_vec([5, 1], shifted).unwrap();
        check(&[a, b], |tape, x| f(tape, &x[0], &x[1]));
    }
}

#[test]
fn both_operands_may_be_one_variable() {
    let methods: [Method2; 4] = [Tape::add, Tape::sub, Tape::mul, Tape::div];
    for f in methods {
        check(&[positive(&[3, 4], 1)], |tape, x| f(tape, &x[0], &x[0]));
    }
    check(&[normal(&[3, 3], 1)], |tape, x| tape.matmul(&x[0], &x[0]));
    check(&[normal(&[3, 3], 1)], |tape, x| tape.linear(&x[0], &x[0], None));
    check(&[normal(&[3, 3], 1)], |tape, x| tape.concatenate(&[&x[0], &x[0], &x[0]], 1));
}

#[test]
fn expanded_inputs() {
    let row = normal(&[1, 4], 1).expand([3, 4]).unwrap();
    let dense = normal(&[3, 4], 2);
    check(&[row.clone(), dense.clone()], |tape, x| tape.mul(&x[0], &x[1]));
    check(std::slice::from_ref(&row), |tape, x| tape.tanh(&x[0]));
    check(&[row.clone(), normal(&[4, 2], 3)], |tape, x| tape.matmul(&x[0], &x[1]));
    check(&[row, normal(&[2, 4], 3), normal(&[2], 4)], |tape, x| tape.linear(&x[0], &x[1], Some(&x[2])));
}

#[test]
fn products() {
    for [m, k, n] in [[3, 4, 5], [1, 7, 1], [2, 0, 3], [0, 2, 3], [17, 9, 33]] {
        check(&[normal(&[m, k], 1), normal(&[k, n], 2)], |tape, x| tape.matmul(&x[0], &x[1]));
        let inputs = [normal(&[m, k], 1), normal(&[n, k], 2), normal(&[n], 3)];
        check(&inputs[..2], |tape, x| tape.linear(&x[0], &x[1], None));
        check(&inputs, |tape, x| tape.linear(&x[0], &x[1], Some(&x[2])));
    }
}

#[test]
fn products_with_an_activation_in_the_same_pass() {
    let inputs = [distinct(&[4, 3], 1), normal(&[5, 3], 2), normal(&[5], 3)];
    for activation in [Activation::Relu, Activation::Relu6, Activation::LeakyRelu(0.25)] {
        let op = Linear { activation };
        check(&inputs, |tape, x| tape.linear_with(op, &x[0], &x[1], Some(&x[2])));
    }
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2, 2], 1));
    assert!(tape.linear_with(Linear { activation: Activation::LeakyRelu(-1.0) }, &x, &x, None).is_err());
}

#[test]
fn parametric_relu() {
    let x = distinct(&[3, 4, 5, 2], 1);
    check(&[x.clone(), normal(&[4], 2)], |tape, x| tape.prelu(&x[0], &x[1]));
    check(&[x, normal(&[1], 3)], |tape, x| tape.prelu(&x[0], &x[1]));
    check(&[distinct(&[6, 4], 4), normal(&[4], 5)], |tape, x| tape.prelu(&x[0], &x[1]));
}

#[test]
fn reductions() {
    let x = [normal(&[3, 4, 2], 1)];
    for axes in [&[][..], &[0], &[1], &[2, 0], &[0, 1, 2]] {
        for keep in [false, true] {
            check(&x, |tape, x| tape.sum(&x[0], axes, keep));
            check(&x, |tape, x| tape.mean(&x[0], axes, keep));
        }
    }
    check(&x, |tape, x| tape.sum_all(&x[0]));
    check(&x, |tape, x| tape.mean_all(&x[0]));
    check(&x, |tape, x| tape.sum_of_squares(&x[0]));
    check(&[normal(&[0, 3], 1)], |tape, x| tape.sum(&x[0], &[0], false));
    check(&[normal(&[0, 3], 1)], |tape, x| tape.sum_of_squares(&x[0]));
    // The gradient of a reduction is an expanded view: the next rule must take it.
    check(&x, |tape, x| {
        let y = tape.tanh(&x[0])?;
        let y = tape.sum(&y, &[1], false)?;
        tape.mean_all(&y)
    });
}

#[test]
fn shapes() {
    let x = [normal(&[2, 3, 4, 2], 1)];
    check(&x, |tape, x| tape.reshape(&x[0], [6, 8]));
    check(&x, |tape, x| tape.flatten(&x[0]));
    check(&x, |tape, x| tape.permute(&x[0], &[3, 1, 0, 2]));
    for (axis, range) in [(0, 0..1), (1, 1..3), (2, 2..2), (3, 0..2)] {
        check(&x, |tape, x| tape.slice(&x[0], axis, range.clone()));
    }
    let parts = [normal(&[2, 3], 1), normal(&[2, 1], 2), normal(&[2, 0], 3)];
    check(&parts, |tape, x| tape.concatenate(&[&x[0], &x[1], &x[2]], 1));
    check(&x, |tape, x| {
        let y = tape.permute(&x[0], &[0, 2, 3, 1])?;
        let y = tape.slice(&y, 1, 1..3)?;
        let y = tape.reshape(&y, [4, 6])?;
        tape.mul(&y, &y)
    });
}

#[test]
fn losses() {
    let logits = normal(&[4, 5], 1);
    let labels = Tensor::from_vec([4], vec![0i64, 4, 2, 2]).unwrap();
    let rows = positive(&[4, 5], 2).to_vec::<f64>().unwrap();
    let rows = rows.chunks(5).flat_map(|row| row.iter().map(|p| p / row.iter().sum::<f64>())).collect();
    let probabilities = Tensor::from_vec([4, 5], rows).unwrap();
    for smoothing in [0.0, 0.1, 1.0] {
        for targets in [&labels, &probabilities] {
            check(std::slice::from_ref(&logits), |tape, x| tape.cross_entropy(&x[0], targets, smoothing));
        }
    }
    check(std::slice::from_ref(&logits), |tape, x| tape.log_softmax(&x[0]));
    check(&[normal(&[2, 3, 4], 3)], |tape, x| tape.log_softmax(&x[0]));
    check(&[logits, normal(&[4, 5], 4)], |tape, x| tape.mean_squared_error(&x[0], &x[1]));
}

#[test]
fn dropout() {
    for probability in [0.0, 0.3, 0.9, 1.0] {
        check(&[normal(&[3, 4, 2, 2], 1)], |tape, x| tape.dropout(&x[0], probability, dropout_key(1)));
    }
}

#[test]
fn dropout_keeps_the_expectation_and_depends_on_its_key_only() {
    let x = Tensor::full([100, 100], 1.0f32).unwrap();
    let run = |index: u64, x: &Tensor| {
        let y = Tape::new().dropout(&Var::constant(x.clone()), 0.25, dropout_key(index)).unwrap();
        y.into_value().to_vec::<f32>().unwrap()
    };
    let y = run(1, &x);
    let zeros = y.iter().filter(|y| **y == 0.0).count();
    assert!((2_300..2_700).contains(&zeros), "{zeros} of 10000");
    assert!(y.iter().all(|y| *y == 0.0 || (*y - 4.0 / 3.0).abs() < 1e-6));
    assert_eq!(y, run(1, &x.t().unwrap()), "the mask follows the logical position");
    assert_ne!(y, run(2, &x));
}

#[test]
fn bad_arguments_are_errors() {
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2, 3], 1));
    let scalar = tape.leaf(normal(&[], 1));
    let int = Var::constant(Tensor::zeros([2, 3], DType::I32).unwrap());
    assert!(tape.dropout(&x, 1.5, dropout_key(1)).is_err());
    assert!(tape.dropout(&int, 0.5, dropout_key(1)).is_err());
    assert!(tape.flatten(&scalar).is_err());
    assert!(tape.reshape(&x, [7]).is_err());
    assert!(tape.permute(&x, &[0, 0]).is_err());
    assert!(tape.slice(&x, 2, 0..1).is_err());
    assert!(tape.concatenate(&[], 0).is_err());
    assert!(tape.sum(&x, &[5], false).is_err());
    assert!(tape.mean(&x, &[0, 0], false).is_err());
    assert!(tape.relu(&int).is_err());
    assert!(tape.linear(&x, &scalar, None).is_err());
    let wrong_labels = Tensor::from_vec([2], vec![0i64, 3]).unwrap();
    let error = tape.cross_entropy(&x, &wrong_labels, 0.0).unwrap_err().to_string();
    assert!(error.contains("label 3 of row 1"), "{error}");
}
