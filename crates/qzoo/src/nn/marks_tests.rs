//! The marked parts of every neuron: they add up to the neuron, and they are of the degree that their names say.

use super::*;
use crate::experiment::{Backward, BackwardMode, NeuronName};
use qgraph::{Pass, Probe, SightingKind, Tape, Tensor, Var};
use qtensor::DType;
use qtensor::random::{Purpose, Stream, StreamKey};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

fn random(shape: &[usize]) -> Tensor {
    let key = StreamKey { seed: 5, purpose: Purpose::Test, epoch: 0, index: 0 };
    Stream::new(key).normal_tensor(shape, 0.0, 1.0).unwrap().to_dtype(DType::F64).unwrap()
}

/// A unit that is a neuron alone, without biases, and its parameters in f64.
fn unit(neuron: NeuronConfig, map: Map) -> (Composite, Parameters) {
    let mut store = Parameters::default();
    let projection = ProjectionConfig { bias: false, ..ProjectionConfig::new("q", map) };
    let config = UnitConfig { neuron, ..UnitConfig::plain(projection) };
    let unit = Composite::unit(&mut Builder::new(&mut store, 3), config).unwrap();
    let mut wide = Parameters::default();
    for parameter in store.parameters() {
        wide.push(Parameter { value: parameter.value.to_dtype(DType::F64).unwrap(), ..parameter.clone() });
    }
    for buffer in store.buffers() {
        wide.push_buffer(Buffer { value: buffer.value.to_dtype(DType::F64).unwrap(), ..buffer.clone() });
    }
    (unit, wide)
}

/// The sum of the values of each mark, by scope and name.
fn marked(unit: &Composite, store: &Parameters, x: Tensor, phase: Phase) -> BTreeMap<String, Vec<f64>> {
    let seen: Arc<Mutex<BTreeMap<String, Vec<f64>>>> = Arc::default();
    let notes = seen.clone();
    let probe = Probe::new(move |s| {
        if (s.kind, s.pass) == (SightingKind::Mark, Pass::Forward) {
            let values = s.tensor.to_vec::<f64>().unwrap();
            let mut notes = notes.lock().unwrap();
            let sum = notes.entry(format!("{}/{}", s.scope, s.name)).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
        }
    });
    let mut tape = Tape::new().probe(&probe);
    let leaves = Leaves::on(&mut tape, store);
    let backward = Arc::new(Backward { mode: BackwardMode::Ad, ..Backward::default() });
    unit.forward(&mut tape, &Var::constant(x), None, &Context::new(phase, &leaves, backward)).unwrap();
    let seen = seen.lock().unwrap();
    seen.clone()
}

fn assert_close(found: &[f64], expected: impl Iterator<Item = f64>, what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{what}: {found} and {expected}");
    }
}

#[test]
fn parts_of_every_neuron() {
    let maps = [
        (vec![6, 5], Map::Linear(LinearConfig { inputs: 5, outputs: 4 })),
        (vec![2, 3, 4, 4], Map::Conv2d(Conv2dConfig::three(3, 4, 1))),
    ];
    let rows = NeuronName::ALL.iter().flat_map(|name| [None, Some(3)].map(|rank| (*name, rank)));
    for ((name, rank), branch_norm) in rows.flat_map(|row| [false, true].map(|norm| (row, norm))) {
        let Some(neuron) = Neuron::of(name, rank) else { continue };
        for (shape, map) in &maps {
            let what = format!("{name} of rank {rank:?}, branch norm {branch_norm}, {map:?}");
            let config = NeuronConfig { name, rank, branch_norm, ..NeuronConfig::LINEAR };
            let (unit, store) = unit(config, *map);
            let x = random(shape);
            let train = Phase::Train { seed: 0, step: 0 };
            let marks = marked(&unit, &store, x.clone(), if branch_norm { train } else { Phase::Evaluate });
            let part = |marks: &BTreeMap<String, Vec<f64>>, name: &str| {
                marks.get(&format!("q/{name}")).cloned().unwrap_or_else(|| vec![0.0; marks["q/neuron"].len()])
            };
            let (second, linear) = (part(&marks, marks::SECOND_ORDER), part(&marks, marks::LINEAR));
            assert_close(&marks["q/neuron"], second.iter().zip(&linear).map(|(a, b)| a + b), &what);
            assert_eq!(marks["/q"], marks["q/neuron"], "{what}: nothing follows the neuron");
            let branches = marks.keys().filter(|name| name.starts_with("q/branch")).count();
            assert_eq!(branches, neuron.projections(), "{what}");
            let has_linear = matches!(name, NeuronName::Type1 | NeuronName::Ours | NeuronName::QRes);
            assert_eq!(marks.contains_key("q/linear"), has_linear, "{what}");
            assert!(second.iter().any(|x| *x != 0.0), "{what}");
            if !branch_norm {
                let twice = qkernels::elementwise::scale(&x, 2.0).unwrap();
                let doubled = marked(&unit, &store, twice, Phase::Evaluate);
                assert_close(&part(&doubled, marks::SECOND_ORDER), second.iter().map(|x| 4.0 * x), &what);
                assert_close(&part(&doubled, marks::LINEAR), linear.iter().map(|x| 2.0 * x), &what);
            }
        }
    }
}
