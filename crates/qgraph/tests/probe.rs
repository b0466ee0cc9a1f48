//! What an observer of a tape is shown.

mod common;

use common::normal;
use qgraph::{Function, Mode, Pass, Probe, Result, SightingKind, Tape, Tensor, Var, Vjp};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// `tanh(x a) ∘ (x b)`, with a name for the first factor.
#[derive(Clone, Copy, Debug)]
struct Gated {
    by_hand: bool,
}

impl Function for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        tape.scope("gate", |tape| {
            let a = tape.matmul(&x[0], &x[1])?;
            let a = tape.tanh(&a)?;
            tape.mark("first", &a);
            let b = tape.matmul(&x[0], &x[2])?;
            tape.tap(&a);
            tape.tap(&b);
            tape.mul(&a, &b)
        })
    }

    fn symbolic(&self) -> Option<Box<dyn Vjp>> {
        self.by_hand.then(|| Box::new(*self) as Box<dyn Vjp>)
    }
}

impl Vjp for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn vjp(&self, _: qgraph::Saved, _: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; needs.len()])
    }
}

type Seen = Vec<(SightingKind, Pass, String, Tensor)>;

/// How often each name was seen.
fn counts(seen: &Seen, kind: SightingKind, pass: Pass) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for (.., name, _) in seen.iter().filter(|(k, p, ..)| (*k, *p) == (kind, pass)) {
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

fn collecting() -> (Probe, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::new()));
    let notes = seen.clone();
    let probe = Probe::new(move |s| {
        notes.lock().unwrap().push((s.kind, s.pass, format!("{}/{}", s.scope, s.name), s.tensor.clone()));
    });
    (probe, seen)
}

/// Runs a step with two uses of the composite's result, and returns what was seen and the gradients of the leaves.
fn step(mode: Mode, by_hand: bool, probe: Option<&Probe>) -> Vec<Vec<f64>> {
    let mut tape = Tape::new();
    if let Some(probe) = probe {
        tape = tape.probe(probe);
    }
    let leaves: Vec<Var> =
        [[3, 4], [4, 2], [4, 2]].iter().zip(0..).map(|(shape, i)| tape.leaf(normal(shape, i))).collect();
    let y = tape.call(Gated { by_hand }, &leaves.iter().collect::<Vec<_>>(), mode).unwrap();
    tape.mark("result", &y);
    let square = tape.square(&y).unwrap();
    let sum = tape.add(&square, &y).unwrap();
    let loss = tape.sum_all(&sum).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    leaves.iter().map(|leaf| gradients.get(leaf).map_or(Vec::new(), |g| g.to_vec::<f64>().unwrap())).collect()
}

fn named(counts: &[(&str, usize)]) -> Vec<(String, usize)> {
    counts.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

#[test]
fn every_op_is_seen_once_in_every_mode() {
    let ops = [("/add", 1), ("/square", 1), ("/sum", 1), ("gate/matmul", 2), ("gate/mul", 1), ("gate/tanh", 1)];
    for mode in [Mode::Ad, Mode::Recompute] {
        let (probe, seen) = collecting();
        step(mode, false, Some(&probe));
        let seen = seen.lock().unwrap();
        for pass in [Pass::Forward, Pass::Backward] {
            assert_eq!(counts(&seen, SightingKind::Op, pass), named(&ops), "{mode} {pass}");
            let marks = named(&[("/result", 1), ("gate/first", 1)]);
            assert_eq!(counts(&seen, SightingKind::Mark, pass), marks, "{mode} {pass}");
        }
        assert!(seen.iter().all(|(_, pass, ..)| *pass != Pass::Recompute));
    }
}

#[test]
fn a_rule_by_hand_shows_the_gradient_of_its_result_only() {
    let (probe, seen) = collecting();
    step(Mode::Symbolic, true, Some(&probe));
    let seen = seen.lock().unwrap();
    let forward = [("/add", 1), ("/square", 1), ("/sum", 1), ("gate/matmul", 2), ("gate/mul", 1), ("gate/tanh", 1)];
    assert_eq!(counts(&seen, SightingKind::Op, Pass::Forward), named(&forward));
    let backward = [("/add", 1), ("/gated", 1), ("/square", 1), ("/sum", 1)];
    assert_eq!(counts(&seen, SightingKind::Op, Pass::Backward), named(&backward));
    assert_eq!(counts(&seen, SightingKind::Mark, Pass::Backward), named(&[("/result", 1)]));
}

#[test]
fn values_and_gradients_are_the_right_ones() {
    for mode in [Mode::Ad, Mode::Recompute] {
        let (probe, seen) = collecting();
        step(mode, false, Some(&probe));
        let seen = seen.lock().unwrap();
        let of = |pass: Pass, mark: &str| {
            let found = seen.iter().find(|(k, p, name, _)| (*k, *p, name.as_str()) == (SightingKind::Mark, pass, mark));
            found.unwrap().3.to_vec::<f64>().unwrap()
        };
        let (y, dy) = (of(Pass::Forward, "/result"), of(Pass::Backward, "/result"));
        // d(y² + y) / dy, the sum over two uses.
        for (y, dy) in y.iter().zip(&dy) {
            assert!((2.0 * y + 1.0 - dy).abs() < 1e-12);
        }
        let (a, da) = (of(Pass::Forward, "gate/first"), of(Pass::Backward, "gate/first"));
        for i in 0..a.len() {
            assert!((dy[i] * y[i] / a[i] - da[i]).abs() < 1e-9, "da = dy · b with b = y / a");
        }
    }
}

#[test]
fn looking_changes_nothing() {
    for mode in [Mode::Ad, Mode::Symbolic, Mode::Recompute] {
        let (probe, _) = collecting();
        assert_eq!(step(mode, false, None), step(mode, false, Some(&probe)), "{mode}");
    }
}
