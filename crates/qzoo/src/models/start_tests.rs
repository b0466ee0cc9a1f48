//! Quadratic networks that start first-order, and the rate of their second-order part.

use super::Model;
use super::tests::{images, thin};
use crate::experiment::{self, ModelName, NeuronName, Optim, OptimName, QuadraticInit};
use crate::nn::{Leaves, Neuron, Phase, Role};
use crate::optim::Optimizer;
use qgraph::{Tape, Tensor, Var};

const CIFAR: [usize; 3] = [3, 32, 32];
/// What batch norm makes of a value by the running statistics of a new network, mean 0 and variance 1.
const NEW_NORM: f64 = 1.0 / 1.000_01;

fn starting(name: ModelName, neuron: NeuronName, branch_norm: bool) -> experiment::Model {
    let width = if name == ModelName::Mlp { 1.0 } else { 0.125 };
    let rank = (name == ModelName::Mlp).then_some(2);
    experiment::Model { neuron, branch_norm, width, rank, quadratic_init: QuadraticInit::Linear, ..thin(name) }
}

/// The first-order network whose layers are the first-order parts of the quadratic ones.
fn first_order_part(model: &Model, config: &experiment::Model) -> Model {
    let twin = experiment::Model { neuron: NeuronName::Linear, ..config.clone() };
    let mut twin = Model::build(&twin, CIFAR, 5, 9).unwrap();
    let neuron = Neuron::of(config.neuron, config.rank.filter(|_| is_form(config.neuron))).unwrap();
    let carrier = (0..neuron.matrices()).find(|matrix| neuron.role_of(*matrix) == Role::Linear).unwrap() + 1;
    let names: Vec<String> = twin.parameters().named().map(|(name, _)| name.to_string()).collect();
    for name in names {
        let (layer, last) = name.rsplit_once('.').unwrap();
        let inner = ["conv", "fc"].map(|kind| format!("{layer}.{kind}{carrier}.{last}"));
        let own = inner.iter().find_map(|name| model.parameters().get(name));
        let value = match own {
            Some(value) if config.branch_norm => {
                let scaled = value.to_vec::<f32>().unwrap().into_iter();
                let scaled = scaled.map(|w| (f64::from(w) * NEW_NORM.sqrt()) as f32).collect();
                Tensor::from_vec(*value.shape(), scaled).unwrap()
            }
            Some(value) => value.clone(),
            None => model.parameters().get(&name).unwrap().clone(),
        };
        twin.parameters_mut().set(&name, &value).unwrap();
    }
    twin
}

fn is_form(neuron: NeuronName) -> bool {
    matches!(neuron, NeuronName::Type1 | NeuronName::Type1Pure | NeuronName::Type1And2)
}

fn assert_same(found: &Tensor, expected: &Tensor, what: &str) {
    let (found, expected) = (found.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
    let size = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(size > 1e-3 && size.is_finite(), "{what}: {size}");
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= 1e-5 * size.max(1.0), "{what}: {a} instead of {b}");
    }
}

#[test]
fn a_linear_start_is_the_network_of_the_first_order_parts() {
    let names = [ModelName::ResNet10, ModelName::Vgg7, ModelName::MobileNetB, ModelName::Mlp];
    let cases = names.into_iter().flat_map(|name| NeuronName::ALL.iter().map(move |neuron| (name, *neuron)));
    let mut compared = 0;
    for (name, neuron) in cases.filter(|(_, neuron)| *neuron != NeuronName::Linear) {
        for branch_norm in [false, true] {
            let config = starting(name, neuron, branch_norm);
            let row = Neuron::of(neuron, config.rank.filter(|_| is_form(neuron))).unwrap();
            let needs_bias = row.roles().contains(&Role::One) && !branch_norm;
            let has_bias = matches!(name, ModelName::Vgg7 | ModelName::Mlp);
            let what = format!("{name}, {neuron}, branch norm {branch_norm}");
            if !row.starts_linear() || needs_bias && !has_bias {
                let message = Model::build(&config, CIFAR, 5, 1).unwrap_err().to_string();
                assert!(message.contains("cannot start linear") && message.contains(neuron.name()), "{message}");
                continue;
            }
            let model = Model::build(&config, CIFAR, 5, 1).unwrap();
            let x = images([3, 3, 32, 32], 4);
            // The bias that makes a shared factor 1 also stands beside the product, which only a batch norm hides.
            if neuron == NeuronName::Type2And4Shared && !branch_norm {
                continue;
            }
            let twin = first_order_part(&model, &config);
            assert_same(&model.infer(&x).unwrap(), &twin.infer(&x).unwrap(), &what);
            assert_same(&model.folded().unwrap().infer(&x).unwrap(), &twin.infer(&x).unwrap(), &what);
            compared += 1;
        }
    }
    assert!(compared >= 30, "{compared}");
}

/// The second-order part is not stuck where it starts: every unit's has a gradient.
#[test]
fn a_linear_start_learns_its_second_order_part() {
    for neuron in [NeuronName::Ours, NeuronName::QRes, NeuronName::Type4, NeuronName::Type2And4, NeuronName::Type1] {
        let model = Model::build(&starting(ModelName::ResNet10, neuron, true), CIFAR, 5, 1).unwrap();
        let mut tape = Tape::new();
        let leaves = Leaves::on(&mut tape, model.parameters());
        let x = Var::constant(images([4, 3, 32, 32], 3));
        let logits = model.forward(&mut tape, &leaves, &x, Phase::Train { seed: 0, step: 0 }).unwrap();
        let labels = Tensor::from_slice([4], &[0i64, 3, 4, 1]).unwrap();
        let loss = tape.cross_entropy(&logits, &labels, 0.0).unwrap();
        let gradients = leaves.into_gradients(tape.backward(&loss).unwrap());
        for unit in ["layer1.0.conv1.", "layer1.0.conv2.", "layer2.0.conv1.", "layer3.0.conv2."] {
            let marked = model
                .parameters()
                .parameters()
                .iter()
                .zip(&gradients)
                .enumerate()
                .filter(|(i, (p, _))| model.parameters().is_quadratic(*i) && p.name.starts_with(unit));
            let largest = marked.flat_map(|(_, (_, g))| g.as_ref().unwrap().to_vec::<f32>().unwrap());
            assert!(largest.fold(0.0f32, |m, g| m.max(g.abs())) > 1e-6, "{neuron}, {unit}");
        }
    }
}

#[test]
fn the_second_order_part_has_a_rate_of_its_own() {
    let config = experiment::Model { neuron: NeuronName::Ours, ..thin(ModelName::ResNet10) };
    let model = Model::build(&config, CIFAR, 5, 1).unwrap();
    let group = experiment::Group { pattern: "layer3.0.conv2.*".into(), lr: Some(0.03), weight_decay: None };
    let optim = Optim { lr: 0.2, quadratic_lr: 0.1, groups: vec![group], ..Optim::of(OptimName::Sgd) };
    let rates: Vec<f64> = Optimizer::new(&optim, model.parameters()).learning_rates().collect();
    let rate = |name: &str| {
        let position = model.parameters().parameters().iter().position(|p| p.name == name);
        rates[position.unwrap_or_else(|| panic!("no {name}"))]
    };
    for name in ["conv1.weight", "bn1.bias", "layer1.0.conv1.conv3.weight", "layer1.0.conv1.bn3.weight"] {
        assert_eq!(rate(name), 0.2, "{name}");
    }
    for name in ["layer1.0.bn1.weight", "layer2.0.shortcut.0.weight", "fc.weight"] {
        assert_eq!(rate(name), 0.2, "{name}");
    }
    for name in ["conv1.weight", "conv2.weight", "bn1.weight", "bn2.bias"] {
        assert_eq!(rate(&format!("layer1.0.conv1.{name}")), 0.1 * 0.2, "{name}");
    }
    assert_eq!(rate("layer3.0.conv2.conv1.weight"), 0.03);
}
