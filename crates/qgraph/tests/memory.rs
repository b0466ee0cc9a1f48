//! What a tape keeps alive, to the byte, and when it lets go.

mod common;

use common::normal;
use qgraph::ops::BatchNorm;
use qgraph::{Activation, Conv2dParams, DType, Function, Mode, Result, Saved, Tape, Tensor, Var, Vjp, pool};

use std::sync::{Mutex, MutexGuard};

/// The pool counts for the whole process: tests that read it take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A size class of the pool, so that buffers have exactly the bytes of their elements.
const SIDE: usize = 32;
const BYTES: usize = SIDE * SIDE * 8;

fn square(index: u64) -> Tensor {
    normal(&[SIDE, SIDE], index)
}

/// f32, whose kernels write in place.
fn square_f32(index: u64) -> Tensor {
    square(index).to_dtype(DType::F32).unwrap()
}

const F32_BYTES: usize = SIDE * SIDE * 4;

fn live() -> usize {
    pool::usage().live
}

#[test]
fn an_activation_that_nobody_saved_dies_with_its_variable() {
    let _turn = alone();
    let mut tape = Tape::new();
    let x = tape.leaf(square(1));
    let before = live();
    let a = tape.scale(&x, 2.0).unwrap();
    let b = tape.add_scalar(&a, 1.0).unwrap();
    assert_eq!(live() - before, 2 * BYTES);
    drop(a);
    assert_eq!(live() - before, BYTES, "neither op saves, so `a` is gone while the tape is still recording");
    let c = tape.relu(&b).unwrap();
    drop(b);
    drop(c);
    assert_eq!(live() - before, BYTES, "relu saved its output");
}

#[test]
fn retained_is_exact() {
    let _turn = alone();
    let mut tape = Tape::new();
    let (x, w) = (Var::constant(square(1)), tape.leaf(square(2)));
    let before = live();
    let y = tape.scope("layer1", |tape| {
        let h = tape.matmul(&x, &w)?; // keeps x, for the gradient of w
        let a = tape.relu(&h)?; // keeps a
        let s = tape.scope("0", |tape| tape.mul(&a, &a))?; // keeps a, which is counted already
        tape.matmul(&s, &w) // keeps s and w
    });
    let y = y.unwrap();
    let retained = tape.retained();
    let rows: Vec<_> = retained.rows.iter().map(|r| (r.scope.as_str(), r.op, r.buffers, r.bytes)).collect();
    assert_eq!(rows, [("layer1", "matmul", 3, 3 * BYTES), ("layer1", "relu", 1, BYTES)]);
    assert_eq!((retained.bytes(), retained.buffers()), (4 * BYTES, 4));
    assert_eq!(retained.bytes_of("relu"), BYTES);

    let own = tape.retained_except([x.value(), w.value()]);
    assert_eq!(own.bytes(), 2 * BYTES);
    assert_eq!(live() - before, own.bytes() + BYTES, "what is retained and the result, nothing else");
    let loss = tape.sum_all(&y).unwrap();
    drop(tape.backward(&loss).unwrap());
    drop((y, loss));
    assert_eq!(live(), before);
}

#[test]
fn a_view_pins_its_whole_buffer_and_is_counted_once() {
    let _turn = alone();
    let mut tape = Tape::new();
    let x = tape.leaf(square(1));
    let row = tape.slice(&x, 0, 0..1).unwrap();
    let other = tape.slice(&x, 0, 1..2).unwrap();
    tape.mul(&row, &other).unwrap();
    assert_eq!((tape.retained().bytes(), tape.retained().buffers()), (BYTES, 1));
    assert_eq!(tape.retained_except([x.value()]).bytes(), 0);
}

#[test]
fn only_what_the_needed_gradients_need_is_kept() {
    let _turn = alone();
    let mut tape = Tape::new();
    let (x, w) = (Var::constant(square(1)), tape.leaf(square(2)));
    tape.matmul(&x, &w).unwrap();
    assert_eq!(tape.retained_except([x.value()]).bytes(), 0, "w is not kept: x needs no gradient");
}

/// `tanh(tanh(tanh(x)))`.
#[derive(Clone, Copy, Debug)]
struct Deep;

impl Function for Deep {
    fn name(&self) -> &'static str {
        "deep"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let y = tape.tanh(&x[0])?;
        let y = tape.tanh(&y)?;
        tape.tanh(&y)
    }
}

#[test]
fn recompute_keeps_the_inputs_only() {
    let _turn = alone();
    let run = |mode| {
        let mut tape = Tape::new();
        let x = tape.leaf(square(1));
        let mut y = x.clone();
        for _ in 0..4 {
            y = tape.call(Deep, &[&y], mode).unwrap();
        }
        let retained = tape.retained_except([x.value(), y.value()]).bytes();
        pool::reset_peak();
        let before = live();
        let gradients = tape.backward_from(&y, square(2)).unwrap();
        let peak = pool::usage().peak - before;
        (retained, peak, gradients.get(&x).unwrap().to_vec::<f64>().unwrap())
    };
    let (ad, _, expected) = run(Mode::Ad);
    let (recompute, peak, found) = run(Mode::Recompute);
    assert_eq!((ad, recompute), (11 * BYTES, 3 * BYTES));
    assert_eq!(found, expected);
    assert!(peak <= 5 * BYTES, "one composite at a time is recorded again, peak {} buffers", peak / BYTES);
}

/// `x²`, which offers its input to a rule that does not want it.
#[derive(Clone, Copy, Debug)]
struct Offers;

impl Function for Offers {
    fn name(&self) -> &'static str {
        "offers"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let copy = tape.scale(&x[0], 1.0)?;
        tape.tap(&copy);
        tape.square(&x[0])
    }

    fn symbolic(&self) -> Option<Box<dyn Vjp>> {
        Some(Box::new(*self))
    }
}

impl Vjp for Offers {
    fn name(&self) -> &'static str {
        "offers"
    }

    fn vjp(&self, _: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(dy)])
    }
}

#[test]
fn what_is_offered_and_not_saved_dies() {
    let _turn = alone();
    let mut tape = Tape::new();
    let x = tape.leaf(square(1));
    let before = live();
    let y = tape.call(Offers, &[&x], Mode::Symbolic).unwrap();
    assert_eq!(live() - before, BYTES, "the result alone");
    tape.tap(&y);
    drop(y);
    assert_eq!(live(), before, "outside a composite a tap is nothing");
}

#[test]
fn the_reverse_pass_frees_as_it_goes() {
    let _turn = alone();
    let mut tape = Tape::new();
    let x = tape.leaf(square_f32(1));
    let mut y = x.clone();
    for _ in 0..10 {
        y = tape.tanh(&y).unwrap();
    }
    let dy = square_f32(2);
    let kept = tape.retained_except([y.value()]).bytes();
    assert_eq!(kept, 9 * F32_BYTES);
    pool::reset_peak();
    let before = live();
    let gradients = tape.backward_from(&y, dy).unwrap();
    let peak = pool::usage().peak - before;
    assert_eq!(peak, 0, "each gradient is written over the one before");
    drop(y);
    assert_eq!(live(), before - kept - F32_BYTES, "all saved outputs are gone; one gradient took the place of dy");
    assert!(gradients.get(&x).is_some());
}

#[test]
fn accumulation_is_in_place() {
    let _turn = alone();
    let mut tape = Tape::new();
    let x = tape.leaf(square_f32(1));
    let mut sum = tape.scale(&x, 1.0).unwrap();
    for _ in 0..8 {
        let term = tape.scale(&x, 2.0).unwrap();
        sum = tape.add(&sum, &term).unwrap();
    }
    let dy = square_f32(2);
    pool::reset_peak();
    let before = live();
    let gradients = tape.backward_from(&sum, dy).unwrap();
    let peak = pool::usage().peak - before;
    assert!(peak <= 2 * F32_BYTES, "peak {} buffers", peak / F32_BYTES);
    assert!(gradients.get(&x).is_some());
}

#[test]
fn noise_and_reductions_keep_nothing() {
    let _turn = alone();
    let mut tape = Tape::new();
    let x = tape.leaf(square(1));
    let y = tape.dropout(&x, 0.5, common::dropout_key(0)).unwrap();
    let y = tape.mean(&y, &[0], false).unwrap();
    let y = tape.sum_all(&y).unwrap();
    assert_eq!(tape.retained().bytes(), 0);
    tape.backward(&y).unwrap();
}

#[test]
fn what_a_batch_norm_computes_again_is_not_kept() {
    let _turn = alone();
    let f32s = |shape: &[usize], index| normal(shape, index).to_dtype(DType::F32).unwrap();
    let images = f32s(&[2, 8, 8, 8], 1).to_channels_last();
    let parameters = [f32s(&[8, 8, 3, 3], 2), f32s(&[8, 8, 3, 3], 3), f32s(&[8], 4), f32s(&[8], 5)];
    let dy = f32s(&[2, 8, 8, 8], 6).to_channels_last();
    let run = |view: bool| {
        let mut tape = Tape::new();
        let leaves = parameters.clone().map(|value| tape.leaf(value));
        let [first, second, gamma, beta] = &leaves;
        let params = Conv2dParams { padding: [1; 2], ..Conv2dParams::default() };
        let x = tape.conv2d(&Var::constant(images.clone()), first, None, params).unwrap();
        let op = BatchNorm { eps: 1e-5, key: None, activation: Activation::Relu };
        let mut y = tape.batch_norm(op, &x, gamma, beta).unwrap();
        if view {
            // A view is not what the normalisation gave, so the convolution has to keep it.
            y = tape.reshape(&y, [2, 8, 8, 8]).unwrap();
        }
        let out = tape.conv2d(&y, second, None, params).unwrap();
        drop((x, y));
        let kept = tape.retained_except(parameters.iter().chain([&images])).bytes();
        let mut gradients = tape.backward_from(&out, dy.clone()).unwrap();
        (kept, leaves.map(|leaf| gradients.take(&leaf).unwrap().to_vec::<f32>().unwrap()))
    };
    let ((kept, found), (more, expected)) = (run(false), run(true));
    assert_eq!(more - kept, images.buffer_bytes());
    assert!(found == expected, "the same bits");
}
