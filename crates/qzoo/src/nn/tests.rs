//! Units and layers against the same computation spelled out with ops of the tape.

use super::*;
use crate::experiment::{ActivationName, Backward, BackwardMode};
use crate::init::Init;
use qgraph::ops::BatchNorm as BatchNormOp;
use qgraph::{Gradients, Result, Tape, Tensor, Var};
use qkernels::{Activation as Epilogue, Conv2dParams};
use qtensor::random::{Purpose, Stream, StreamKey};
use std::sync::Arc;

fn random(shape: &[usize], index: u64) -> Tensor {
    let key = StreamKey { seed: 11, purpose: Purpose::Test, epoch: 0, index };
    Stream::new(key).normal_tensor(shape, 0.0, 1.0).unwrap()
}

const TRAIN: Phase = Phase::Train { seed: 1, step: 2 };
const MAP: Conv2dConfig = Conv2dConfig { inputs: 4, outputs: 6, kernel: 3, stride: 2, padding: 1, groups: 2 };

fn unit(store: &mut Parameters, activation: ActivationName, norm: bool, order: Order) -> Composite {
    let projection =
        ProjectionConfig { bias_init: Some(Init::Constant(0.1)), ..ProjectionConfig::new("conv", Map::Conv2d(MAP)) };
    let config =
        UnitConfig { norm: norm.then_some("bn"), activation: Some(activation), order, ..UnitConfig::plain(projection) };
    Composite::unit(&mut Builder::new(store, 0), config).unwrap()
}

/// The unit, from single ops.
fn spelled_out(tape: &mut Tape, x: &Var, leaves: &[Var], residual: Option<&Var>, case: &Case) -> Result<Var> {
    let params = Conv2dParams { stride: [2; 2], padding: [1; 2], groups: 2, ..Default::default() };
    let mut y = tape.conv2d(x, &leaves[0], Some(&leaves[1]), params)?;
    let slope = leaves.last().cloned();
    let norm = |tape: &mut Tape, y: &Var| {
        let op = BatchNormOp { eps: 1e-5, key: None, activation: Epilogue::None };
        tape.batch_norm(op, y, &leaves[2], &leaves[3])
    };
    if case.norm && case.order == Order::NormFirst {
        y = norm(tape, &y)?;
    }
    if let Some(residual) = residual {
        y = tape.add(&y, residual)?;
    }
    y = match (case.activation, slope) {
        (ActivationName::Relu, _) => tape.relu(&y),
        (ActivationName::Relu6, _) => tape.relu6(&y),
        (ActivationName::LeakyRelu, _) => tape.leaky_relu(&y, 0.01),
        (ActivationName::Prelu, Some(slope)) => tape.prelu(&y, &slope),
        (ActivationName::Prelu, None) => panic!("the slope is a parameter"),
        (ActivationName::Tanh, _) => tape.tanh(&y),
        (ActivationName::Sigmoid, _) => tape.sigmoid(&y),
    }?;
    if case.norm && case.order == Order::ActivationFirst { norm(tape, &y) } else { Ok(y) }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    activation: ActivationName,
    norm: bool,
    order: Order,
    residual: bool,
}

/// The output and all gradients of one run.
fn values(output: &Var, variables: &[&Var], gradients: &Gradients) -> Vec<Vec<f32>> {
    let mut all = vec![output.value().to_vec().unwrap()];
    all.extend(variables.iter().map(|v| gradients.get(v).expect("a gradient").to_vec().unwrap()));
    all
}

fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], case: &Case) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= 1e-5 + 1e-4 * e.abs(), "{case:?}, result {i}: {f} against {e}");
        }
    }
}

#[test]
fn units_equal_their_single_ops_in_every_mode() {
    for activation in ActivationName::ALL {
        for (norm, order) in [(true, Order::NormFirst), (true, Order::ActivationFirst), (false, Order::NormFirst)] {
            for residual in [false, true] {
                let case = Case { activation: *activation, norm, order, residual };
                let mut store = Parameters::default();
                let unit = unit(&mut store, *activation, norm, order);
                let dy = random(&[3, 6, 4, 4], 2);
                let run = |spelled: Option<()>, mode| {
                    let mut tape = Tape::new();
                    let leaves = Leaves::on(&mut tape, &store);
                    let x = tape.leaf(random(&[3, 4, 8, 8], 0).to_channels_last());
                    let added = case.residual.then(|| tape.leaf(random(&[3, 6, 4, 4], 1).to_channels_last()));
                    let backward = Arc::new(Backward { mode, ..Backward::default() });
                    let y = match spelled {
                        Some(()) => spelled_out(&mut tape, &x, leaves.parameters(), added.as_ref(), &case),
                        None => unit.forward(&mut tape, &x, added.as_ref(), &Context::new(TRAIN, &leaves, backward)),
                    }
                    .unwrap();
                    let gradients = tape.backward_from(&y, dy.clone()).unwrap();
                    let variables: Vec<&Var> = leaves.parameters().iter().chain([&x]).chain(&added).collect();
                    values(&y, &variables, &gradients)
                };
                let expected = run(Some(()), BackwardMode::Ad);
                let fused = run(None, BackwardMode::Ad);
                assert_close(&fused, &expected, &case);
                assert!(run(None, BackwardMode::Recompute) == fused, "{case:?}: recompute gives other bits");
                assert!(
                    run(None, BackwardMode::Symbolic) == fused,
                    "{case:?}: without a rule of its own, symbolic is ad"
                );
            }
        }
    }
}

#[test]
fn single_layers() {
    let mut store = Parameters::default();
    let mut builder = Builder::new(&mut store, 0);
    let layers = [
        (Layer::BatchNorm(BatchNorm::build(&mut builder, "bn", 4).unwrap()), vec![4, 8, 8]),
        (Layer::Activation(Activation::Tanh), vec![4, 8, 8]),
        (Layer::Dropout(Dropout::new(0.25, 0)), vec![4, 8, 8]),
        (Layer::Pool(Pool::new(PoolKind::Average, 3, 2, 1)), vec![4, 4, 4]),
        (Layer::Pool(Pool::new(PoolKind::Max, 2, 2, 0)), vec![4, 4, 4]),
        (Layer::GlobalAveragePool, vec![4]),
        (Layer::Flatten, vec![256]),
    ];
    let x = Var::constant(random(&[2, 4, 8, 8], 0));
    let leaves = Leaves::constant(&store);
    for (layer, expected) in layers {
        for phase in [TRAIN, Phase::Evaluate] {
            let context = Context::new(phase, &leaves, Arc::default());
            let y = layer.forward(&mut Tape::new(), &x, &context).unwrap();
            assert_eq!(y.shape()[1..], expected, "{layer:?}");
        }
        assert_eq!(layer.describe(&[4, 8, 8], &mut Walk::new()).unwrap(), expected, "{layer:?}");
    }
}

#[test]
fn dropout_keeps_the_expectation() {
    let leaves = Leaves::constant(&Parameters::default());
    let x = Var::constant(Tensor::full([100, 100], 1.0f32).unwrap());
    let dropped = |number, phase| {
        let context = Context::new(phase, &leaves, Arc::default());
        let y = Dropout::new(0.25, number).forward(&mut Tape::new(), &x, &context).unwrap();
        y.value().to_vec::<f32>().unwrap()
    };
    let y = dropped(0, TRAIN);
    assert!(y.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6));
    let mean = y.iter().sum::<f32>() / y.len() as f32;
    assert!((mean - 1.0).abs() < 0.03, "{mean}");
    assert_ne!(dropped(1, TRAIN), y);
    assert!(dropped(0, Phase::Evaluate).iter().all(|v| *v == 1.0));
}

#[test]
fn mistakes_in_a_geometry_are_errors() {
    let mut store = Parameters::default();
    let mut builder = Builder::new(&mut store, 0);
    for map in [
        Conv2dConfig { groups: 0, ..MAP },
        Conv2dConfig { groups: 3, ..MAP },
        Conv2dConfig { kernel: 0, ..MAP },
        Conv2dConfig { stride: 0, ..MAP },
    ] {
        assert!(projection(&mut builder, ProjectionConfig::new("conv", Map::Conv2d(map))).is_err(), "{map:?}");
    }
    let map = Map::Conv2d(MAP);
    assert_eq!(map.output(&[4, 8, 8]).unwrap(), [6, 4, 4]);
    for input in [&[3, 8, 8][..], &[4, 8], &[4]] {
        assert!(map.output(input).is_err(), "{input:?}");
    }
    assert!(Map::Linear(LinearConfig { inputs: 4, outputs: 2 }).output(&[4, 8, 8]).is_err());
    assert!(Residual::new(Vec::new(), None).is_err());
}

#[test]
fn tensors_load_by_name() {
    let mut store = Parameters::default();
    unit(&mut store, ActivationName::Prelu, true, Order::NormFirst);
    let names: Vec<&str> = store.named().map(|(name, _)| name).collect();
    let expected = ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "conv_activation.weight"];
    assert_eq!(names[..5], expected);
    assert_eq!(names[5..], ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]);
    let mut other = Parameters::default();
    unit(&mut other, ActivationName::Prelu, true, Order::NormFirst);
    let shifted: Vec<(String, Tensor)> = store
        .named()
        .map(|(name, value)| (name.to_string(), random(value.shape(), 3).to_dtype(value.dtype()).unwrap()))
        .collect();
    other.load(shifted.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    for ((_, found), (_, expected)) in other.named().zip(&shifted) {
        assert_eq!(
            found.to_dtype(qtensor::DType::F64).unwrap().to_vec::<f64>().unwrap(),
            expected.to_dtype(qtensor::DType::F64).unwrap().to_vec::<f64>().unwrap()
        );
    }
    let missing = other.load(shifted[1..].iter().map(|(n, t)| (n.as_str(), t))).unwrap_err().to_string();
    assert!(missing.contains("conv.weight"), "{missing}");
    assert!(other.set("conv.weight", &Tensor::scalar(1.0f32)).is_err());
    assert!(other.set("conv.wait", &Tensor::scalar(1.0f32)).is_err());
}
