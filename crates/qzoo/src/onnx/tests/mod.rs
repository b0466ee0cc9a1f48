mod interpreter;
mod quantized;

use super::proto::{self, Graph};
use super::{About, Quantization, export};
use crate::checkpoint::Normalization;
use crate::experiment::{self, ActivationName, ModelName, NeuronName};
use crate::models::Model;
use crate::nn::{Leaves, ParameterKind, Phase};
use interpreter::{Array, run};
use prost::Message;
use qgraph::{Tape, Var};
use qtensor::Tensor;
use std::collections::HashSet;

/// Values of both signs, for images of that shape.
fn images(shape: [usize; 4]) -> Tensor {
    let values = (0..shape.iter().product::<usize>()).map(|i| (i * 7919 % 1013) as f32 / 506.0 - 1.0).collect();
    Tensor::from_vec(shape, values).unwrap()
}

/// A network with running statistics of its own, and normalisations that scale by both signs.
fn model(config: &experiment::Model, input: [usize; 3]) -> Model {
    let mut model = Model::build(config, input, 5, 1).unwrap();
    let parameters = model.parameters_mut();
    for index in 0..parameters.parameters().len() {
        let kind = parameters.parameters()[index].kind;
        if ![ParameterKind::NormScale, ParameterKind::NormShift, ParameterKind::Bias].contains(&kind) {
            continue;
        }
        for (i, value) in parameters.parameter_mut(index).memory_mut::<f32>().unwrap().iter_mut().enumerate() {
            let change = (i * 5 + index) % 7;
            *value =
                if kind == ParameterKind::NormScale { 0.6 + 0.1 * change as f32 } else { 0.1 * change as f32 - 0.3 };
            if kind == ParameterKind::NormScale && i % 3 == 1 {
                *value = -*value;
            }
        }
    }
    // The statistics of what it will be asked about: deep powers of what is not normalised overflow.
    let images = Var::constant(images([3, input[0], input[1], input[2]]));
    let mut tape = Tape::new();
    let leaves = Leaves::constant(model.parameters());
    model.forward(&mut tape, &leaves, &images, Phase::Train { seed: 0, step: 0 }).unwrap();
    drop(leaves);
    model.apply_share(&tape.take_effects(), 1.0).unwrap();
    model
}

fn about(normalization: &Normalization, raw_pixels: bool) -> About<'_> {
    About { name: "test", classes: &[], normalization, raw_pixels }
}

fn exported(model: &Model, quantization: &Quantization) -> Graph {
    let bytes = export(model, &about(&Normalization::default(), false), quantization).unwrap();
    proto::Model::decode(&bytes[..]).unwrap().graph.unwrap()
}

fn array(x: &Tensor) -> Array {
    Array::new(x.shape(), x.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect())
}

/// Compares the graph with the engine.
fn agrees(model: &Model, graph: &Graph, what: &str) {
    let [c, h, w] = model.input();
    let images = images([3, c, h, w]);
    let ours = model.infer(&images).unwrap().to_vec::<f32>().unwrap();
    let largest = ours.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    let names: HashSet<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names.len(), graph.nodes.len(), "{what}: nodes of one name");
    let logits = run(graph, array(&images));
    assert_eq!(logits.dims, [3, 5]);
    for (found, expected) in logits.values.iter().zip(ours) {
        let difference = (found - f64::from(expected)).abs() / f64::from(largest);
        assert!(difference <= 1e-4, "{what}: {found} instead of {expected}");
    }
}

fn thin(name: ModelName) -> experiment::Model {
    let width = if name == ModelName::Mlp { 1.0 } else { 0.0625 };
    experiment::Model { name, width, widths: vec![12, 9], ..Default::default() }
}

#[test]
fn every_network_computes_what_the_engine_does() {
    for name in ModelName::ALL {
        let model = model(&thin(*name), [3, 32, 32]);
        agrees(&model, &exported(&model, &Quantization::new()), &name.to_string());
    }
}

#[test]
fn every_neuron_computes_what_the_engine_does() {
    for (name, neuron, branch_norm) in [ModelName::SmallCnn, ModelName::Mlp, ModelName::ResNet10]
        .into_iter()
        .flat_map(|name| NeuronName::ALL.iter().map(move |neuron| (name, *neuron)))
        .flat_map(|(name, neuron)| [true, false].map(|norm| (name, neuron, norm)))
    {
        let input = if name == ModelName::Mlp { [3, 5, 5] } else { [3, 16, 16] };
        for rank in [None, Some(2)] {
            let config = experiment::Model { neuron, branch_norm, rank, ..thin(name) };
            let model = model(&config, input);
            let what = format!("{name}, {neuron}, rank {rank:?}, branch norm {branch_norm}");
            agrees(&model, &exported(&model, &Quantization::new()), &what);
        }
    }
}

#[test]
fn weights_that_two_projections_share_are_stored_once() {
    let config = experiment::Model { neuron: NeuronName::Type2And4Shared, ..thin(ModelName::SmallCnn) };
    let graph = exported(&model(&config, [3, 16, 16]), &Quantization::new());
    let stored = graph.initializers.iter().filter(|tensor| tensor.name.starts_with("conv2.conv2.weight"));
    let used = graph.nodes.iter().filter(|node| node.inputs.contains(&"conv2.conv2.weight".to_string()));
    assert_eq!((stored.count(), used.count()), (1, 2));
}

#[test]
fn every_activation_computes_what_the_engine_does() {
    for activation in ActivationName::ALL {
        for name in [ModelName::CifarCnn, ModelName::ResNet10, ModelName::Mlp] {
            let config = experiment::Model {
                activation: *activation,
                branch_activation: Some(*activation),
                neuron: NeuronName::Ours,
                ..thin(name)
            };
            let model = model(&config, [3, 32, 32]);
            agrees(&model, &exported(&model, &Quantization::new()), &format!("{name}, {activation}"));
        }
    }
}

#[test]
fn a_residual_network_has_the_nodes_that_a_runtime_fuses() {
    let config = experiment::Model { blocks: Some(vec![1, 1, 1]), ..thin(ModelName::ResNet10) };
    let graph = exported(&model(&config, [3, 16, 16]), &Quantization::new());
    let nodes: Vec<String> = graph.nodes.iter().map(|node| format!("{} {}", node.op, node.name)).collect();
    let block = |name: &str, shortcut: bool| {
        let mut nodes = vec![
            format!("Conv {name}.conv1"),
            format!("Relu {name}.conv1.relu"),
            format!("Conv {name}.conv2"),
            format!("Add {name}.conv2.add"),
            format!("Relu {name}.conv2.relu"),
        ];
        if shortcut {
            nodes.insert(2, format!("Conv {name}.shortcut.0"));
        }
        nodes
    };
    let mut expected = vec!["Conv conv1".to_string(), "Relu conv1.relu".into()];
    expected.extend(block("layer1.0", false));
    expected.extend(block("layer2.0", true));
    expected.extend(block("layer3.0", true));
    expected.extend(["GlobalAveragePool global_average_pool", "Flatten flatten", "Gemm fc"].map(String::from));
    assert_eq!(nodes, expected);
    let add = graph.nodes.iter().find(|node| node.name == "layer2.0.conv2.add").unwrap();
    assert_eq!(add.inputs, ["layer2.0.conv2", "layer2.0.shortcut.0"]);
    let conv = graph.nodes.iter().find(|node| node.name == "layer2.0.conv1").unwrap();
    assert_eq!(conv.inputs, ["layer1.0.conv2.relu", "layer2.0.conv1.weight", "layer2.0.conv1.bias"]);
    assert_eq!(graph.nodes.last().unwrap().outputs, ["logits"]);
    assert_eq!((graph.inputs[0].name.as_str(), graph.outputs[0].name.as_str()), ("images", "logits"));
}

#[test]
fn pixels_are_normalised_within_where_that_is_wanted() {
    let model = model(&thin(ModelName::Mlp), [3, 4, 4]);
    let normalization = Normalization { mean: vec![0.4, 0.5], std: vec![0.2, 0.3] };
    let bytes = export(&model, &about(&normalization, true), &Quantization::new()).unwrap();
    assert_eq!(bytes, export(&model, &about(&normalization, true), &Quantization::new()).unwrap());
    let file = proto::Model::decode(&bytes[..]).unwrap();
    assert_eq!((file.ir_version, file.opset_import[0].version), (10, 21));
    let property = |key: &str| file.metadata.iter().find(|p| p.key == key).unwrap().value.as_str();
    assert_eq!((property("mean"), property("std"), property("pixels")), ("[0.4,0.5]", "[0.2,0.3]", "raw"));
    assert_eq!((property("classes"), property("experiment"), property("model")), ("[]", "test", "mlp"));
    let pixels: Vec<u8> = (0..48).map(|i| (i * 41 % 256) as u8).collect();
    let shape = crate::data::ImageShape { channels: 3, height: 4, width: 4 };
    let ours = model.infer(&normalization.apply(&pixels, shape).unwrap()).unwrap().to_vec::<f32>().unwrap();
    let logits = run(&file.graph.unwrap(), Array::new(&[1, 3, 4, 4], pixels.into_iter().map(f64::from).collect()));
    for (found, expected) in logits.values.iter().zip(ours) {
        assert!((found - f64::from(expected)).abs() < 1e-4, "{found} instead of {expected}");
    }
}

#[test]
fn a_form_with_too_many_pairs_is_refused_with_its_name() {
    let config = experiment::Model {
        name: ModelName::SmallCnn,
        neurons: [("conv2".to_string(), NeuronName::Type1)].into(),
        ..Default::default()
    };
    let model = Model::build(&config, [3, 256, 256], 2, 0).unwrap();
    let refused = export(&model, &about(&Normalization::default(), false), &Quantization::new());
    let message = refused.err().unwrap().to_string();
    assert!(message.starts_with("conv2") && message.contains("[model] rank"), "{message}");
}
