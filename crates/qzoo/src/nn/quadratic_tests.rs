//! Every neuron in every mode: the hand-derived rules against automatic differentiation of elementary ops, in f64 and f32.

use super::*;
use crate::experiment::{ActivationName, Backward, BackwardMode, NeuronName};
use qgraph::{Tape, Tensor};
use qtensor::DType;
use qtensor::random::{Purpose, Stream, StreamKey};
use std::sync::Arc;

fn random(shape: &[usize], index: u64) -> Tensor {
    let key = StreamKey { seed: 12, purpose: Purpose::Test, epoch: 0, index };
    Stream::new(key).normal_tensor(shape, 0.0, 1.0).unwrap()
}

/// An input and a map: dense, convolutional, strided, grouped, depthwise.
fn maps() -> Vec<(Vec<usize>, Map)> {
    let conv = Conv2dConfig::three(4, 6, 1);
    vec![
        (vec![6, 5], Map::Linear(LinearConfig { inputs: 5, outputs: 4 })),
        (vec![3, 4, 5, 4], Map::Conv2d(conv)),
        (vec![2, 4, 6, 5], Map::Conv2d(Conv2dConfig { stride: 2, kernel: 2, padding: 0, ..conv })),
        (vec![2, 4, 4, 4], Map::Conv2d(Conv2dConfig { groups: 2, ..conv })),
        (vec![2, 4, 4, 4], Map::Conv2d(Conv2dConfig { outputs: 4, groups: 4, ..conv })),
    ]
}

/// The same values in another type.
fn converted(store: &Parameters, dtype: DType) -> Parameters {
    let mut other = Parameters::default();
    for parameter in store.parameters() {
        other.push(Parameter { value: parameter.value.to_dtype(dtype).unwrap(), ..parameter.clone() });
    }
    for buffer in store.buffers() {
        other.push_buffer(Buffer { value: buffer.value.to_dtype(dtype).unwrap(), ..buffer.clone() });
    }
    other
}

struct Case {
    store: Parameters,
    units: [Composite; 2],
    input: Vec<usize>,
}

impl Case {
    /// Two units one behind the other, so that the input of the second can be computed again.
    fn new(neuron: NeuronConfig, map: Map, input: &[usize]) -> Case {
        let mut store = Parameters::default();
        let mut builder = Builder::new(&mut store, 3);
        let mut unit = |name: &str, map: Map| {
            let projection = ProjectionConfig::new(name, map);
            let norm = format!("{name}_bn");
            let config = UnitConfig {
                neuron,
                norm: Some(&norm),
                activation: Some(ActivationName::Relu),
                ..UnitConfig::plain(projection)
            };
            Composite::unit(&mut builder, config).unwrap()
        };
        let outputs = map.outputs();
        let second = match map {
            Map::Linear(_) => Map::Linear(LinearConfig { inputs: outputs, outputs: 3 }),
            Map::Conv2d(_) => Map::Conv2d(Conv2dConfig::three(outputs, 3, 1)),
        };
        let units = [unit("a", map), unit("b", second)];
        Case { store, units, input: input.to_vec() }
    }

    /// The output, all gradients, and the bytes that were kept beyond parameters and input.
    fn run(&self, mode: BackwardMode, dtype: DType) -> (Vec<Vec<f64>>, usize) {
        let store = converted(&self.store, dtype);
        let mut tape = Tape::new();
        let leaves = Leaves::on(&mut tape, &store);
        let x = tape.leaf(random(&self.input, 0).to_dtype(dtype).unwrap());
        let backward = Arc::new(Backward { mode, ..Backward::default() });
        let context = Context::new(Phase::Train { seed: 1, step: 2 }, &leaves, backward);
        let y = self.units.iter().fold(x.clone(), |x, unit| unit.forward(&mut tape, &x, None, &context).unwrap());
        let kept = tape.retained_except(leaves.parameters().iter().chain([&x]).map(|v| v.value())).bytes();
        let dy = random(y.shape(), 1).to_dtype(dtype).unwrap();
        let gradients = tape.backward_from(&y, dy).unwrap();
        let values = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
        let mut all = vec![values(y.value())];
        all.extend(leaves.parameters().iter().chain([&x]).map(|v| values(gradients.get(v).expect("a gradient"))));
        (all, kept)
    }
}

fn assert_close(found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    // The largest of all gradients: those of what a normalisation follows are sums that cancel.
    let largest = expected.iter().flatten().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= tolerance * largest, "{what}: {f} against {e}");
        }
    }
}

const OTHERS: [BackwardMode; 4] = [
    BackwardMode::Symbolic,
    BackwardMode::SymbolicNormalised,
    BackwardMode::SymbolicRecompute,
    BackwardMode::Recompute,
];

#[test]
fn every_rule_gives_the_gradients_of_elementary_ops() {
    for name in NeuronName::ALL {
        let has_form = matches!(name, NeuronName::Type1 | NeuronName::Type1Pure | NeuronName::Type1And2);
        for rank in [None, Some(2)].into_iter().filter(|rank| rank.is_none() || has_form) {
            for branch_norm in [false, true] {
                for branch_activation in [None, Some(ActivationName::Tanh)] {
                    let neuron =
                        NeuronConfig { name: *name, rank, branch_norm, branch_activation, ..NeuronConfig::LINEAR };
                    for (input, map) in maps() {
                        let case = Case::new(neuron, map, &input);
                        let (expected, _) = case.run(BackwardMode::Ad, DType::F64);
                        let (single, _) = case.run(BackwardMode::Ad, DType::F32);
                        for mode in OTHERS {
                            let what = format!("{neuron:?}, {map:?}, {mode}");
                            assert_close(&case.run(mode, DType::F64).0, &expected, 1e-10, &what);
                            assert_close(&case.run(mode, DType::F32).0, &single, 1e-4, &what);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn rules_that_compute_again_keep_less() {
    let neuron = NeuronConfig { name: NeuronName::Ours, branch_norm: true, ..NeuronConfig::LINEAR };
    let (input, map) = (vec![8, 16, 16, 16], Map::Conv2d(Conv2dConfig::three(16, 16, 1)));
    let case = Case::new(neuron, map, &input);
    let kept = |mode| case.run(mode, DType::F32).1;
    let [symbolic, normalised, again, whole] = OTHERS.map(kept);
    let output = 8 * 16 * 16 * 16 * 4;
    assert_eq!(symbolic, normalised);
    // The three projections of the first unit; of the second, which has three channels, three times that many values.
    assert!(symbolic - again >= 3 * output, "{symbolic} and {again}");
    assert!(whole < again && kept(BackwardMode::Ad) >= symbolic, "{whole}, {again}, {symbolic}");
}
