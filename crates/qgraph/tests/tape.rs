//! The tape itself: what it records, what it refuses, how gradients meet.

mod common;

use common::{Odd, assert_close, normal};
use qgraph::ops::Reshape;
use qgraph::{DType, Error, Gradients, Pass, PassCost, Profile, Shape, Tape, Tensor, Var};

fn vector(values: &[f64]) -> Tensor {
    Tensor::from_slice([values.len()], values).unwrap()
}

fn gradient(gradients: &Gradients, leaf: &Var) -> Vec<f64> {
    gradients.get(leaf).unwrap().to_vec::<f64>().unwrap()
}

#[test]
fn nothing_is_recorded_without_leaves() {
    let mut tape = Tape::new();
    let x = Var::constant(vector(&[1.0, 2.0]));
    let y = tape.mul(&x, &x).unwrap();
    assert!(tape.is_empty() && !y.needs_gradient());
    assert_eq!(y.value().to_vec::<f64>().unwrap(), [1.0, 4.0]);
    let error = tape.backward(&tape_scalar(&y)).unwrap_err();
    assert!(error.to_string().contains("does not depend on any leaf"), "{error}");
}

fn tape_scalar(y: &Var) -> Var {
    Tape::new().sum_all(y).unwrap()
}

#[test]
fn gradients_meet_in_a_variable_used_often() {
    // d(x·x + x)/dx = 2x + 1
    let mut tape = Tape::new();
    let x = tape.leaf(vector(&[1.0, -2.0, 3.0]));
    let square = tape.mul(&x, &x).unwrap();
    let sum = tape.add(&square, &x).unwrap();
    let loss = tape.sum_all(&sum).unwrap();
    assert_eq!(gradient(&tape.backward(&loss).unwrap(), &x), [3.0, -3.0, 7.0]);
}

#[test]
fn accumulating_never_writes_to_a_shared_gradient() {
    // `add` hands one buffer to both sides; then `a` receives a second contribution, which must not reach `b`.
    let mut tape = Tape::new();
    let (a, b) = (tape.leaf(vector(&[1.0, 2.0])), tape.leaf(vector(&[5.0, 5.0])));
    let twice = tape.scale(&a, 10.0).unwrap();
    let sum = tape.add(&a, &b).unwrap();
    let y = tape.add(&sum, &twice).unwrap();
    let start = vector(&[1.0, -1.0]);
    let gradients = tape.backward_from(&y, start.clone()).unwrap();
    assert_eq!(gradient(&gradients, &a), [11.0, -11.0]);
    assert_eq!(gradient(&gradients, &b), [1.0, -1.0]);
    assert_eq!(start.to_vec::<f64>().unwrap(), [1.0, -1.0]);
}

#[test]
fn a_start_other_than_one_weighs_the_gradient() {
    let mut tape = Tape::new();
    let x = tape.leaf(vector(&[1.0, 2.0]));
    let y = tape.square(&x).unwrap();
    assert_eq!(gradient(&tape.backward_from(&y, vector(&[10.0, 100.0])).unwrap(), &x), [20.0, 400.0]);
}

#[test]
fn leaves_without_influence_have_no_gradient() {
    let mut tape = Tape::new();
    let (x, unused) = (tape.leaf(vector(&[2.0])), tape.leaf(vector(&[3.0])));
    let cut = x.detach();
    let y = tape.mul(&x, &cut).unwrap();
    let mut gradients = tape.backward(&y).unwrap();
    assert!(gradients.get(&unused).is_none() && gradients.get(&cut).is_none());
    assert_eq!(gradients.take(&x).unwrap().item().unwrap(), 2.0);
    assert!(gradients.take(&x).is_none());
}

#[test]
fn a_leaf_is_its_own_result() {
    let mut tape = Tape::new();
    let x = tape.leaf(vector(&[2.0]));
    assert_eq!(gradient(&tape.backward(&x).unwrap(), &x), [1.0]);
}

#[test]
fn broadcasting_is_undone_for_every_op() {
    let mut tape = Tape::new();
    let (x, row) = (tape.leaf(normal(&[3, 4], 1)), tape.leaf(normal(&[4], 2)));
    let column = tape.leaf(normal(&[3, 1], 3));
    let scalar = tape.leaf(normal(&[], 4));
    let mut y = x.clone();
    for other in [&row, &column, &scalar] {
        y = tape.add(&y, other).unwrap();
    }
    let loss = tape.sum_all(&y).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(gradient(&gradients, &row), [3.0; 4]);
    assert_eq!(gradient(&gradients, &column), [4.0; 3]);
    assert_eq!(gradient(&gradients, &scalar), [12.0]);
    assert_eq!(gradients.get(&column).unwrap().shape(), [3, 1]);
}

#[test]
fn f32_and_f64_live_on_one_tape_but_do_not_mix() {
    let mut tape = Tape::new();
    let single = tape.leaf(Tensor::scalar(3.0f32));
    let double = tape.leaf(Tensor::scalar(3.0f64));
    let a = tape.square(&single).unwrap();
    let b = tape.square(&double).unwrap();
    assert!(matches!(tape.mul(&a, &b), Err(Error::Op { op: "mul", .. })));
    let gradients = tape.backward(&a).unwrap();
    assert_eq!(gradients.get(&single).unwrap().dtype(), DType::F32);
    assert!(gradients.get(&double).is_none());
}

#[test]
fn variables_of_another_tape_are_refused() {
    let (mut one, mut two) = (Tape::new(), Tape::new());
    let (x, y) = (one.leaf(vector(&[1.0])), two.leaf(vector(&[1.0])));
    assert!(matches!(one.add(&x, &y), Err(Error::Variable { op: "add", .. })));
    let gradients = one.backward(&x).unwrap();
    assert!(gradients.get(&y).is_none(), "its index is the same, its tape is not");
    assert!(matches!(two.backward(&x), Err(Error::Variable { op: "backward", .. })));
}

#[test]
fn wrong_shapes_are_errors_with_op_and_scope() {
    let mut tape = Tape::new();
    let (a, b) = (tape.leaf(normal(&[2, 3], 1)), tape.leaf(normal(&[2, 3], 2)));
    let error = tape.scope("layer1", |tape| tape.scope("0", |tape| tape.matmul(&a, &b))).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("matmul in layer1.0 (forward): ") && text.contains("2×3"), "{text}");
    assert_eq!(tape.current_scope(), "");
    let error = tape.backward(&a).unwrap_err();
    assert!(error.to_string().contains("a loss has one element, this one has shape 2×3"), "{error}");
}

#[test]
fn a_start_that_does_not_fit_is_refused() {
    for dy in [normal(&[3], 1), Tensor::zeros([2], DType::F32).unwrap()] {
        let mut tape = Tape::new();
        let x = tape.leaf(normal(&[2], 2));
        assert!(tape.backward_from(&x, dy).is_err());
    }
}

#[test]
fn rules_that_break_their_contract_are_named() {
    let wrong: [(Vec<Option<Tensor>>, &str); 3] = [
        (vec![], "0 gradients for 1 inputs"),
        (vec![Some(normal(&[5], 1))], "expected a gradient of shape 2, found 5"),
        (vec![Some(Tensor::zeros([2], DType::F32).unwrap())], "expected elements of type f64"),
    ];
    for (gradients, message) in wrong {
        let mut tape = Tape::new();
        let x = tape.leaf(normal(&[2], 1));
        let y = tape.apply(Odd { gradients }, &[&x]).unwrap();
        let error = tape.backward_from(&y, normal(&[2], 2)).unwrap_err().to_string();
        assert!(error.starts_with("odd (backward)") && error.contains(message), "{error}");
    }
}

#[test]
fn a_rule_without_a_gradient_means_no_influence() {
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2], 1));
    let y = tape.apply(Odd { gradients: vec![None] }, &[&x]).unwrap();
    assert!(tape.backward_from(&y, normal(&[2], 2)).unwrap().get(&x).is_none());
}

#[test]
fn the_check_names_the_first_op_that_is_not_finite() {
    let mut tape = Tape::new().check_finite();
    let x = tape.leaf(vector(&[-1.0, 1.0]));
    let error = tape
        .scope("head", |tape| {
            let root = tape.sqrt(&x)?;
            tape.mul(&root, &root)
        })
        .unwrap_err();
    assert!(matches!(&error, Error::NotFinite { op: "sqrt", scope, pass: Pass::Forward, .. } if scope == "head"));
    assert_eq!(error.to_string(), "output of sqrt in head (forward) is not finite");
}

#[test]
fn the_check_names_the_rule_whose_gradient_is_not_finite() {
    // d√x/dx is infinite at 0, where √x itself is fine.
    let mut tape = Tape::new().check_finite();
    let x = tape.leaf(vector(&[0.0]));
    let y = tape.sqrt(&x).unwrap();
    let y = tape.scale(&y, 2.0).unwrap();
    let error = tape.backward(&y).unwrap_err();
    assert!(matches!(error, Error::NotFinite { op: "sqrt", pass: Pass::Backward, .. }), "{error}");
}

#[test]
fn the_check_names_the_op_that_was_fed_nan() {
    let mut tape = Tape::new().check_finite();
    let x = tape.leaf(vector(&[f64::NAN]));
    let error = tape.relu(&x).unwrap_err();
    assert_eq!(error.to_string(), "input 0 of relu (forward) is not finite");
}

#[test]
fn a_profile_counts_by_scope_and_op() {
    let profile = Profile::new();
    for _ in 0..3 {
        let mut tape = Tape::new().profile(&profile);
        let x = tape.leaf(normal(&[4, 4], 1));
        let h = tape.scope("first", |tape| tape.matmul(&x, &x)).unwrap();
        let y = tape.scope("second", |tape| tape.matmul(&h, &x)).unwrap();
        let loss = tape.sum_all(&y).unwrap();
        tape.backward(&loss).unwrap();
    }
    let rows = profile.rows();
    let names: Vec<_> = rows.iter().map(|r| (r.scope.as_str(), r.op, r.forward.calls)).collect();
    assert_eq!(names, [("first", "matmul", 3), ("second", "matmul", 3), ("", "sum", 3)]);
    assert!(rows.iter().all(|r| !r.forward.time.is_zero() && !r.backward.time.is_zero()));
    assert!(rows.iter().all(|r| r.recompute == PassCost::default()));
    // 4 × 4 × 4 products a matmul, and twice as many backward; three f64 matrices in and out, backward five: two saved, dy, two gradients.
    let figures: Vec<_> = rows
        .iter()
        .map(|r| [r.forward.multiply_adds, r.backward.multiply_adds, r.forward.bytes, r.backward.bytes])
        .collect();
    let (matmul, matrix) = ([3 * 64, 3 * 128, 9 * 128, 15 * 128], 3 * 128);
    assert_eq!(figures, [matmul, matmul, [0, 0, matrix + 3 * 8, 3 * 8 + matrix]]);
    profile.clear();
    assert!(profile.rows().is_empty());
}

#[test]
fn ops_work_on_shapes_without_elements() {
    let mut tape = Tape::new();
    let x = tape.leaf(Tensor::zeros([0, 3], DType::F64).unwrap());
    let w = tape.leaf(normal(&[2, 3], 1));
    let y = tape.linear(&x, &w, None).unwrap();
    let y = tape.relu(&y).unwrap();
    let loss = tape.sum_all(&y).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(gradients.get(&x).unwrap().shape(), [0, 3]);
    assert_close(gradients.get(&w).unwrap(), &Tensor::zeros([2, 3], DType::F64).unwrap(), 0.0);
}

#[test]
fn tapes_and_variables_may_change_threads() {
    fn movable<T: Send + Sync>(_: &T) {}
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2], 1));
    movable(&x);
    movable(&tape);
    let gradients =
        std::thread::scope(|s| s.spawn(|| tape.backward_from(&x, normal(&[2], 2))).join().unwrap()).unwrap();
    movable(&gradients);
}

#[test]
fn a_gradient_that_repeats_one_value_can_be_added_to() {
    // d(Σx)/dx is one value behind strides of 0; in either order it meets the gradient of Σx².
    for sum_first in [true, false] {
        let mut tape = Tape::new();
        let x = tape.leaf(normal(&[3, 2], 1));
        let mut terms = if sum_first {
            [tape.sum_all(&x).unwrap(), tape.sum_of_squares(&x).unwrap()]
        } else {
            [tape.sum_of_squares(&x).unwrap(), tape.sum_all(&x).unwrap()]
        };
        terms.reverse();
        let loss = tape.add(&terms[0], &terms[1]).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        let expected = x.value().to_vec::<f64>().unwrap().iter().map(|x| 1.0 + 2.0 * x).collect();
        assert_close(gradients.get(&x).unwrap(), &Tensor::from_vec([3, 2], expected).unwrap(), 1e-12);
    }
}

#[test]
fn a_wrong_number_of_inputs_is_an_error() {
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2], 1));
    let op = Reshape { shape: Shape::new(&[1, 2]).unwrap() };
    assert!(tape.apply(op.clone(), &[]).is_err());
    assert!(tape.apply(op, &[&x, &x]).is_err());
}
