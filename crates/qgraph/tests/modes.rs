//! Composites: one definition, three modes, and what happens once a step.

mod common;

use common::{assert_close, check, dropout_key, normal};
use qgraph::ops::BatchNorm;
use qgraph::{
    Activation, Context, Error, Function, Mode, Op, Pass, Profile, Record, Result, Saved, Tape, Tensor, Var, Vjp,
    kernels,
};
use std::sync::Arc;

const MODES: [Mode; 3] = [Mode::Ad, Mode::Symbolic, Mode::Recompute];

/// `(x A) ∘ (x B) + x C`, whose hand-derived rule keeps the two projections or computes them again.
#[derive(Clone, Copy, Debug)]
struct Quadratic {
    keep_projections: bool,
}

impl Function for Quadratic {
    fn name(&self) -> &'static str {
        "quadratic"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let (a, b) = (tape.matmul(&x[0], &x[1])?, tape.matmul(&x[0], &x[2])?);
        tape.tap(&a);
        tape.tap(&b);
        let product = tape.mul(&a, &b)?;
        let linear = tape.matmul(&x[0], &x[3])?;
        tape.add(&product, &linear)
    }

    fn symbolic(&self) -> Option<Box<dyn Vjp>> {
        Some(Box::new(*self))
    }
}

impl Vjp for Quadratic {
    fn name(&self) -> &'static str {
        "quadratic"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        record.inputs.iter().for_each(|x| saved.keep(x));
        if self.keep_projections {
            assert_eq!(record.taps.len(), 2);
            record.taps.iter().for_each(|p| saved.keep(p));
        }
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (x, a, b, c) = (saved.take()?, saved.take()?, saved.take()?, saved.take()?);
        let mul = |p: &Tensor, q: &Tensor| kernels::binary(kernels::BinaryOp::Mul, p, q);
        let (xa, xb) = if self.keep_projections {
            (saved.take()?, saved.take()?)
        } else {
            (kernels::matmul(&x, &a)?, kernels::matmul(&x, &b)?)
        };
        let (da, db, xt) = (mul(&dy, &xb)?, mul(&dy, &xa)?, x.t()?);
        let mut dx = kernels::matmul(&da, &a.t()?)?;
        kernels::add_assign(&mut dx, &kernels::matmul(&db, &b.t()?)?)?;
        kernels::add_assign(&mut dx, &kernels::matmul(&dy, &c.t()?)?)?;
        let weights = [&da, &db, &dy].map(|d| kernels::matmul(&xt, d));
        let [da, db, dc] = weights;
        Ok(vec![Some(dx), Some(da?), Some(db?), Some(dc?)])
    }
}

/// Two of them, one inside the other's scope, in modes of their own; no hand-derived rule.
#[derive(Clone, Copy, Debug)]
struct Nested {
    inner: [Mode; 2],
}

impl Function for Nested {
    fn name(&self) -> &'static str {
        "nested"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let inner = Quadratic { keep_projections: true };
        let y = tape.scope("a", |tape| tape.call(inner, &[&x[0], &x[1], &x[2], &x[3]], self.inner[0]))?;
        let y = tape.tanh(&y)?;
        tape.scope("b", |tape| tape.call(inner, &[&y, &x[1], &x[2], &x[3]], self.inner[1]))
    }
}

fn quadratic_inputs() -> Vec<Tensor> {
    vec![normal(&[5, 3], 1), normal(&[3, 3], 2), normal(&[3, 3], 3), normal(&[3, 3], 4)]
}

fn refs(x: &[Var]) -> Vec<&Var> {
    x.iter().collect()
}

#[test]
fn every_mode_passes_the_gradient_check() {
    for mode in MODES {
        for keep_projections in [false, true] {
            check(&quadratic_inputs(), |tape, x| tape.call(Quadratic { keep_projections }, &refs(x), mode));
        }
    }
}

#[test]
fn nested_composites_pass_the_gradient_check_in_all_modes() {
    let inputs = quadratic_inputs();
    for outer in MODES {
        for first in MODES {
            for second in MODES {
                let function = Nested { inner: [first, second] };
                let checked = qgraph::check::GradientCheck::default()
                    .run(&inputs, |tape, x| tape.call(function, &refs(x), outer))
                    .unwrap();
                assert!(checked.worst() <= 1e-6, "{outer} around {first} and {second}: {checked:?}");
            }
        }
    }
}

#[test]
fn one_input_in_two_places_receives_both_gradients() {
    let inputs = [normal(&[3, 3], 1), normal(&[3, 3], 2)];
    for mode in MODES {
        check(&inputs, |tape, x| tape.call(Quadratic { keep_projections: false }, &[&x[0], &x[1], &x[1], &x[0]], mode));
    }
}

#[test]
fn a_composite_becomes_one_entry() {
    for (mode, entries) in [(Mode::Ad, 5), (Mode::Symbolic, 1), (Mode::Recompute, 1)] {
        let mut tape = Tape::new();
        let x: Vec<Var> = quadratic_inputs().into_iter().map(|x| tape.leaf(x)).collect();
        tape.call(Quadratic { keep_projections: true }, &refs(&x), mode).unwrap();
        assert_eq!(tape.len() - x.len(), entries, "{mode}");
    }
}

#[test]
fn without_leaves_no_mode_records() {
    for mode in MODES {
        let mut tape = Tape::new();
        let x: Vec<Var> = quadratic_inputs().into_iter().map(Var::constant).collect();
        let y = tape.call(Quadratic { keep_projections: true }, &refs(&x), mode).unwrap();
        assert!(tape.is_empty() && !y.needs_gradient());
    }
}

/// Its taps must not reach a symbolic composite around it.
#[derive(Clone, Copy, Debug)]
struct TapsOnce;

impl Function for TapsOnce {
    fn name(&self) -> &'static str {
        "taps_once"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let inner = Quadratic { keep_projections: true };
        let inputs = [&x[0], &x[0], &x[0], &x[0]];
        tape.call(inner, &inputs, Mode::Ad)?;
        tape.tap(&x[0]);
        tape.call(inner, &inputs, Mode::Symbolic)
    }

    fn symbolic(&self) -> Option<Box<dyn Vjp>> {
        Some(Box::new(*self))
    }
}

impl Vjp for TapsOnce {
    fn name(&self) -> &'static str {
        "taps_once"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        record.taps.iter().for_each(|tap| saved.keep(tap));
    }

    fn vjp(&self, saved: Saved, _: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        assert_eq!(saved.len(), 1);
        Ok(vec![saved.iter().next().cloned()])
    }
}

#[test]
fn taps_stay_with_their_composite() {
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2, 2], 1));
    let y = tape.call(TapsOnce, &[&x], Mode::Symbolic).unwrap();
    let gradients = tape.backward_from(&y, normal(&[2, 2], 2)).unwrap();
    assert_close(gradients.get(&x).unwrap(), x.value(), 0.0);
}

/// Dropout and batch normalisation: noise and a side effect.
#[derive(Clone, Copy, Debug)]
struct Noisy;

impl Function for Noisy {
    fn name(&self) -> &'static str {
        "noisy"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let y = tape.dropout(&x[0], 0.4, dropout_key(5))?;
        let norm = BatchNorm { eps: 1e-5, key: Some(7), activation: Activation::None };
        let y = tape.batch_norm(norm, &y, &x[1], &x[2])?;
        tape.effect("noisy", 8, vec![y.value().clone()]);
        tape.mul(&y, &x[0])
    }
}

#[test]
fn effects_arrive_once_and_noise_is_the_same_in_every_mode() {
    let inputs = [normal(&[6, 3], 1), normal(&[3], 2), normal(&[3], 3)];
    let run = |mode: Mode| {
        let mut tape = Tape::new();
        let x: Vec<Var> = inputs.iter().map(|x| tape.leaf(x.clone())).collect();
        let y = tape.scope("layer", |tape| tape.call(Noisy, &refs(&x), mode)).unwrap();
        let effects = tape.take_effects();
        assert!(tape.take_effects().is_empty());
        let names: Vec<_> = effects.iter().map(|e| (e.op, e.key, e.values.len(), e.scope.to_string())).collect();
        let scope = || "layer".to_string();
        assert_eq!(names, [("batch_norm", 7, 2, scope()), ("noisy", 8, 1, scope())], "{mode}");
        let gradients = tape.backward_from(&y, normal(&[6, 3], 4)).unwrap();
        let all: Vec<Tensor> = x.iter().map(|x| gradients.get(x).unwrap().clone()).collect();
        (y.into_value(), all)
    };
    let (y, gradients) = run(Mode::Ad);
    for mode in [Mode::Symbolic, Mode::Recompute] {
        let (other, others) = run(mode);
        assert_close(&y, &other, 0.0);
        gradients.iter().zip(&others).for_each(|(a, b)| assert_close(a, b, 0.0));
    }
}

#[test]
fn reruns_are_timed_as_such() {
    let profile = Profile::new();
    let mut tape = Tape::new().profile(&profile);
    let x = tape.leaf(normal(&[4, 4], 1));
    let y = tape.scope("block", |t| t.call(Quadratic { keep_projections: false }, &[&x; 4], Mode::Recompute)).unwrap();
    tape.backward_from(&y, normal(&[4, 4], 2)).unwrap();
    let row = profile.rows().into_iter().find(|row| row.op == "matmul").unwrap();
    assert_eq!((row.scope.as_str(), row.recompute.calls), ("block", 3));
    assert!(!row.recompute.time.is_zero() && !row.backward.time.is_zero());
    assert_eq!((row.recompute.multiply_adds, row.backward.multiply_adds), (3 * 64, 6 * 64));
}

/// Uses a variable that is not among its inputs.
#[derive(Clone, Debug)]
struct Captures(Var);

impl Function for Captures {
    fn name(&self) -> &'static str {
        "captures"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        tape.add(&x[0], &self.0)
    }
}

#[test]
fn a_captured_variable_is_refused_where_its_gradient_would_be_lost() {
    let mut tape = Tape::new();
    let (x, other) = (tape.leaf(normal(&[2], 1)), tape.leaf(normal(&[2], 2)));
    let error = tape.call(Captures(other), &[&x], Mode::Recompute).unwrap_err();
    assert!(matches!(error, Error::Variable { op: "add", .. }), "{error}");
}

#[test]
fn a_composite_that_fails_leaves_the_tape_as_it_was() {
    let mut tape = Tape::new();
    let (x, other) = (tape.leaf(normal(&[2, 2], 1)), tape.leaf(normal(&[3, 3], 2)));
    for mode in [Mode::Symbolic, Mode::Recompute] {
        let quadratic = Quadratic { keep_projections: true };
        tape.call(quadratic, &[&x, &x, &x, &other], mode).unwrap_err();
        assert_eq!(tape.len(), 2, "{mode}");
    }
    let y = tape.square(&x).unwrap();
    assert!(tape.backward_from(&y, normal(&[2, 2], 3)).unwrap().get(&x).is_some());
}

#[test]
fn the_check_looks_into_reruns() {
    /// `√x`, whose derivative is infinite at 0.
    #[derive(Debug)]
    struct Root;
    impl Function for Root {
        fn name(&self) -> &'static str {
            "root"
        }
        fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
            tape.scope("inner", |tape| tape.sqrt(&x[0]))
        }
    }
    let mut tape = Tape::new().check_finite();
    let x = tape.leaf(Tensor::scalar(0.0f64));
    let y = tape.scope("outer", |tape| tape.call(Root, &[&x], Mode::Recompute)).unwrap();
    let error = tape.backward(&y).unwrap_err();
    assert_eq!(error.to_string(), "gradient of input 0 of sqrt in outer.inner (backward) is not finite");
}

/// Its op insists on which inputs need a gradient, and its forward makes a leaf, which it should not.
#[derive(Debug)]
struct Insists;

impl Function for Insists {
    fn name(&self) -> &'static str {
        "insists"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let extra = tape.leaf(normal(&[2], 9));
        let y = tape.apply(InsistsOnNeeds, &[&x[0], &x[1]])?;
        tape.add(&y, &extra)
    }
}

#[derive(Debug)]
struct InsistsOnNeeds;

impl Vjp for InsistsOnNeeds {
    fn name(&self) -> &'static str {
        "insists_on_needs"
    }

    fn vjp(&self, _: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        assert_eq!(needs, [false, true]);
        Ok(vec![None, Some(dy)])
    }
}

impl Op for InsistsOnNeeds {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        Ok(x[1].clone())
    }
}

#[test]
fn a_rerun_computes_the_needed_gradients_only_and_its_leaves_stay_within() {
    let mut tape = Tape::new();
    let (data, x) = (Var::constant(normal(&[2], 1)), tape.leaf(normal(&[2], 2)));
    let y = tape.call(Insists, &[&data, &x], Mode::Recompute).unwrap();
    assert_eq!(tape.len(), 2, "one leaf and one entry");
    let dy = normal(&[2], 3);
    assert_close(tape.backward_from(&y, dy.clone()).unwrap().get(&x).unwrap(), &dy, 0.0);
}

#[test]
fn errors_of_a_rerun_say_so() {
    /// Fails when it is run a second time.
    #[derive(Debug)]
    struct Twice(std::sync::atomic::AtomicBool);
    impl Function for Twice {
        fn name(&self) -> &'static str {
            "twice"
        }
        fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
            if self.0.swap(true, std::sync::atomic::Ordering::Relaxed) {
                tape.matmul(&x[0], &x[0])
            } else {
                tape.relu(&x[0])
            }
        }
    }
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2], 1));
    let y = tape.call(Twice(false.into()), &[&x], Mode::Recompute).unwrap();
    let error = tape.backward_from(&y, normal(&[2], 2)).unwrap_err();
    assert!(matches!(error, Error::Op { op: "matmul", pass: Pass::Recompute, .. }), "{error}");
}

#[test]
fn functions_may_be_shared() {
    let function: Arc<dyn Function> = Arc::new(Quadratic { keep_projections: false });
    let mut tape = Tape::new();
    let x = tape.leaf(normal(&[2, 2], 1));
    let y = tape.call(function.clone(), &[&x; 4], Mode::Symbolic).unwrap();
    let z = tape.call(function, &[&y; 4], Mode::Recompute).unwrap();
    assert!(tape.backward_from(&z, normal(&[2, 2], 2)).unwrap().get(&x).is_some());
}
