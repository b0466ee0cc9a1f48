//! Shapes, parameter counts against published ones, and a step of every model.

use super::Model;
use crate::experiment::{self, ActivationName, Backward, BackwardMode, InitName, ModelName, NeuronName, VggLayer};
use crate::nn::{Context, Leaves, Phase, Walk};
use qgraph::{Tape, Tensor, Var};
use qtensor::random::{Purpose, Stream, StreamKey};

fn config(name: ModelName) -> experiment::Model {
    experiment::Model { name, ..experiment::Model::default() }
}

fn quadratic(name: ModelName, neuron: NeuronName) -> experiment::Model {
    experiment::Model { neuron, ..config(name) }
}

pub(super) fn thin(name: ModelName) -> experiment::Model {
    experiment::Model { width: 0.125, widths: vec![12, 9], ..config(name) }
}

pub(super) fn images(shape: [usize; 4], index: u64) -> Tensor {
    let key = StreamKey { seed: 5, purpose: Purpose::Test, epoch: 0, index };
    Stream::new(key).normal_tensor(shape, 0.0, 1.0).unwrap().to_channels_last()
}

const CIFAR: [usize; 3] = [3, 32, 32];
const IMAGENET: [usize; 3] = [3, 224, 224];

/// Sources: spec tables of the quadratic networks' code for VGG and the thin networks, torchvision for `resnet18/34/50`, Lybrand and
/// Saab for `cifar_cnn` (running statistics included there), the sum by hand for the rest.
#[test]
fn parameter_counts() {
    let cases = [
        (ModelName::MnistCnn, [1, 28, 28], 10, 320 + 18_496 + 12_544 * 128 + 128 + 1290),
        (ModelName::Mlp, [1, 28, 28], 10, 500 * 785 + 300 * 501 + 10 * 301 + 2 * 800),
        (ModelName::SmallCnn, CIFAR, 10, 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * 192 + 650),
        (ModelName::Vgg11, CIFAR, 10, 9_231_114),
        (ModelName::Vgg13, CIFAR, 10, 9_416_010),
        (ModelName::Vgg16, CIFAR, 10, 14_728_266),
        (ModelName::Vgg19, CIFAR, 10, 20_040_522),
        // 175 258 parameters are two blocks a stage; a third adds two 3x3 convolutions with their norms.
        (ModelName::ResNet20, CIFAR, 10, 175_258 + 18 * (16 * 16 + 32 * 32 + 64 * 64) + 4 * (16 + 32 + 64)),
        (ModelName::ResNet32, CIFAR, 10, 466_906),
        (ModelName::ResNet32, CIFAR, 100, 472_756),
        (ModelName::ResNet44, CIFAR, 10, 466_906 + 2 * (18 * 5376 + 448)),
        (ModelName::ResNet56, CIFAR, 10, 466_906 + 4 * (18 * 5376 + 448)),
        (ModelName::ResNet18, IMAGENET, 1000, 11_689_512),
        (ModelName::ResNet34, IMAGENET, 1000, 21_797_672),
        (ModelName::ResNet50, IMAGENET, 1000, 25_557_032),
        // 3 219 146 with a quadratic stem, which has two convolutions and three inner norms more.
        (ModelName::MobileNetV1, CIFAR, 10, 3_219_146 - 2 * 864 - 3 * 64),
    ];
    for (name, input, classes, expected) in cases {
        let model = Model::build(&config(name), input, classes, 0).unwrap();
        assert_eq!(model.parameters().count(), expected, "{name}");
        let rows = model.summary().unwrap();
        assert_eq!(rows.iter().map(|r| r.parameters).sum::<usize>(), expected, "{name}: summary");
    }
    let cnn = Model::build(&config(ModelName::CifarCnn), CIFAR, 10, 0).unwrap();
    assert_eq!(cnn.parameters().count() + cnn.parameters().buffer_count(), 552_874);
}

/// Parameters and millions of multiplications of quadratic networks, from the table of QuadraLib's models; its `qvgg13` is VGG configuration D.
#[test]
fn quadratic_networks_have_the_published_sizes() {
    let cases = [
        (ModelName::ResNet14, NeuronName::Linear, 10, 175_258, 26.66),
        (ModelName::ResNet10, NeuronName::Ours, 10, 226_842, 36.09),
        (ModelName::ResNet14, NeuronName::Ours, 10, 518_938, 78.56),
        (ModelName::ResNet14, NeuronName::Ours, 100, 524_788, 78.57),
        (ModelName::Vgg7, NeuronName::Ours, 10, 12_304_330, 429.99),
        (ModelName::Vgg7, NeuronName::Ours, 100, 12_350_500, 430.04),
        (ModelName::Vgg16, NeuronName::Ours, 10, 44_182_986, 939.59),
        (ModelName::Vgg16, NeuronName::Ours, 100, 44_229_156, 939.64),
        (ModelName::Vgg16, NeuronName::Ours, 200, 44_280_456, 939.69),
        // Both of QuadraLib's MobileNets have a quadratic stem.
        (ModelName::MobileNetV1, NeuronName::Linear, 10, 3_219_146, 48.12),
        (ModelName::MobileNetB, NeuronName::Ours, 10, 3_229_514, 75.13),
        (ModelName::MobileNetB, NeuronName::Ours, 100, 3_321_764, 75.22),
    ];
    for (name, neuron, classes, parameters, millions) in cases {
        let mut config = quadratic(name, neuron);
        if matches!(name, ModelName::MobileNetV1 | ModelName::MobileNetB) {
            config.neurons.insert("conv1".into(), NeuronName::Ours);
        }
        let model = Model::build(&config, CIFAR, classes, 0).unwrap();
        assert_eq!(model.parameters().count(), parameters, "{name}, {neuron}");
        let rows = model.summary().unwrap();
        assert_eq!(rows.iter().map(|r| r.parameters).sum::<usize>(), parameters, "{name}, {neuron}: summary");
        let macs = rows.iter().map(|r| r.macs).sum::<u64>() as f64 / 1e6;
        assert!((macs / millions - 1.0).abs() < 2e-4, "{name}, {neuron}: {macs} against {millions}");
    }
}

/// Every neuron in networks of convolutions, of depthwise ones and of linear layers: a step gives finite gradients for all parameters, evaluation agrees with
/// its folded form, and every backward mode gives the same gradients.
#[test]
fn every_neuron_learns_in_every_mode() {
    for (name, neuron, branch_norm) in
        [ModelName::SmallCnn, ModelName::MobileNetV1, ModelName::Mlp, ModelName::ResNet10]
            .into_iter()
            .flat_map(|name| NeuronName::ALL.iter().map(move |neuron| (name, *neuron)))
            .flat_map(|(name, neuron)| [true, false].map(|norm| (name, neuron, norm)))
    {
        let width = if name == ModelName::Mlp { 1.0 } else { 0.125 };
        // The full form of all pixels would have millions of weights for each output.
        let rank = (name == ModelName::Mlp).then_some(2);
        let config = experiment::Model { neuron, branch_norm, width, rank, ..thin(name) };
        let mut model = Model::build(&config, CIFAR, 5, 1).unwrap();
        let (images, labels) = (images([4, 3, 32, 32], 1), Tensor::from_slice([4], &[0i64, 3, 1, 4]).unwrap());
        let mut modes = Vec::new();
        for mode in [BackwardMode::Symbolic, BackwardMode::SymbolicRecompute, BackwardMode::Recompute] {
            model.set_backward(&Backward { mode, ..Backward::default() }).unwrap();
            let mut tape = Tape::new();
            let leaves = Leaves::on(&mut tape, model.parameters());
            let phase = Phase::Train { seed: 0, step: 0 };
            let logits = model.forward(&mut tape, &leaves, &Var::constant(images.clone()), phase).unwrap();
            let loss = tape.cross_entropy(&logits, &labels, 0.0).unwrap();
            let effects = tape.take_effects();
            let gradients = leaves.into_gradients(tape.backward(&loss).unwrap());
            let gradients: Vec<Vec<f32>> = gradients.into_iter().map(|g| g.unwrap().to_vec().unwrap()).collect();
            assert!(gradients.iter().flatten().all(|g| g.is_finite()), "{name}, {neuron}, {mode:?}");
            if mode == BackwardMode::Symbolic {
                // Until the running statistics are those of the batch: deep powers of what is not normalised overflow.
                (0..80).for_each(|_| model.apply(&effects).unwrap());
            }
            modes.push(gradients);
        }
        // Sums of several gradients may be taken in another order.
        let largest = modes[0].iter().flatten().fold(0.0f32, |m, g| m.max(g.abs()));
        let differs = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-4 * largest;
        for other in &modes[1..] {
            let pairs = modes[0].iter().flatten().zip(other.iter().flatten());
            assert!(!pairs.into_iter().any(differs), "{name}, {neuron}, branch norm {branch_norm}");
        }
        let has_form = matches!(neuron, NeuronName::Type1 | NeuronName::Type1Pure | NeuronName::Type1And2);
        if name == ModelName::MobileNetV1 && (!branch_norm || has_form) {
            // Twenty-six powers in a row: what is not exactly the batch's scale overflows.
            continue;
        }
        let logits = |t: Tensor| t.to_vec::<f32>().unwrap();
        let (plain, folded) =
            (logits(model.infer(&images).unwrap()), logits(model.folded().unwrap().infer(&images).unwrap()));
        let largest = plain.iter().fold(1.0f32, |m, x| m.max(x.abs()));
        for (a, b) in plain.iter().zip(&folded) {
            assert!((a - b).abs() <= 1e-4 * largest, "{name}, {neuron}, branch norm {branch_norm}: {a} and folded {b}");
        }
    }
}

/// Multiplications in millions, from the same tables.
#[test]
fn macs() {
    let cases = [
        (ModelName::ResNet32, CIFAR, 10, 69.12),
        (ModelName::Vgg11, CIFAR, 10, 152.8),
        (ModelName::Vgg13, CIFAR, 10, 228.3),
        (ModelName::Vgg16, CIFAR, 10, 313.2),
        (ModelName::Vgg19, CIFAR, 10, 398.1),
        // The figures that torchvision gives for its weights, in billions of multiplications.
        (ModelName::ResNet18, IMAGENET, 1000, 1814.0),
        (ModelName::ResNet34, IMAGENET, 1000, 3664.0),
        (ModelName::ResNet50, IMAGENET, 1000, 4089.0),
    ];
    for (name, input, classes, millions) in cases {
        let model = Model::build(&config(name), input, classes, 0).unwrap();
        let macs = model.summary().unwrap().iter().map(|r| r.macs).sum::<u64>() as f64 / 1e6;
        assert!((macs / millions - 1.0).abs() < 1e-3, "{name}: {macs} against {millions}");
    }
}

#[test]
fn names_are_those_of_pytorch() {
    let names = |name, input| {
        let model = Model::build(&config(name), input, 10, 0).unwrap();
        model.parameters().named().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    let resnet = names(ModelName::ResNet20, CIFAR);
    for name in [
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer2.0.bn2.num_batches_tracked",
        "layer2.0.shortcut.0.weight",
        "layer3.0.shortcut.1.running_var",
        "layer3.2.conv2.weight",
        "fc.bias",
    ] {
        assert!(resnet.iter().any(|n| n == name), "{name}");
    }
    assert!(!resnet.iter().any(|n| n.starts_with("layer1.0.shortcut")));
    let names_of = |name, input, wanted: &[&str]| {
        let all = names(name, input);
        wanted.iter().for_each(|w| assert!(all.iter().any(|n| n == w), "{name}: {w}"));
    };
    names_of(ModelName::ResNet50, IMAGENET, &["layer1.0.downsample.0.weight", "layer4.2.bn3.bias", "fc.weight"]);
    names_of(
        ModelName::Vgg11,
        CIFAR,
        &["features.0.bias", "features.1.weight", "features.4.weight", "features.25.weight"],
    );
    names_of(ModelName::Mlp, CIFAR, &["fc1.weight", "bn1.bias", "fc3.weight"]);
    names_of(ModelName::MobileNetV1, CIFAR, &["layers.12.conv2.weight", "layers.0.bn1.weight"]);
}

/// Layers that are first-order in a model's own table take a neuron by their full name, and by nothing else.
#[test]
fn first_order_layers_are_quadratic_only_by_name() {
    let with = |name, neurons: &[(&str, NeuronName)]| {
        let mut config = quadratic(name, NeuronName::Linear);
        config.neurons.extend(neurons.iter().map(|(layer, neuron)| (layer.to_string(), *neuron)));
        Model::build(&config, CIFAR, 10, 0)
    };
    let has = |model: &Model, name: &str| model.parameters().get(name).is_some();
    let model = with(ModelName::ResNet10, &[("*", NeuronName::Ours)]).unwrap();
    for name in ["conv1.weight", "layer2.0.shortcut.0.weight", "fc.weight", "layer2.0.conv1.conv3.weight"] {
        assert!(has(&model, name), "{name}");
    }
    let named = ["conv1", "layer2.0.shortcut.0", "fc"].map(|layer| (layer, NeuronName::Type4));
    let model = with(ModelName::ResNet10, &named).unwrap();
    for name in ["conv1.conv2.weight", "layer2.0.shortcut.0.bn1.weight", "fc.fc2.bias", "layer2.0.conv1.weight"] {
        assert!(has(&model, name), "{name}");
    }
    let message = with(ModelName::ResNet10, &[("layer4.*", NeuronName::Ours)]).unwrap_err().to_string();
    assert!(message.contains("layer4.*") && message.contains("layer3.0.conv2"), "{message}");
    let demo = experiment::Model { branch_norm: false, ..quadratic(ModelName::MnistCnn, NeuronName::Linear) };
    let neurons = [("fc2".to_string(), NeuronName::Ours)].into();
    let model = Model::build(&experiment::Model { neurons, ..demo }, [1, 28, 28], 10, 0).unwrap();
    assert_eq!(model.parameters().count(), 320 + 18_496 + 12_544 * 128 + 128 + 3 * 1290);
}

#[test]
fn every_model_takes_a_step() {
    for name in ModelName::ALL {
        let mut config = thin(*name);
        if *name == ModelName::Mlp {
            config.width = 1.0;
        }
        let mut model = Model::build(&config, CIFAR, 7, 1).unwrap();
        let mut tape = Tape::new();
        let leaves = Leaves::on(&mut tape, model.parameters());
        let x = Var::constant(images([4, 3, 32, 32], 0));
        let logits = model.forward(&mut tape, &leaves, &x, Phase::Train { seed: 0, step: 0 }).unwrap();
        assert_eq!(*logits.shape(), [4, 7], "{name}");
        let effects = tape.take_effects();
        let loss = tape.cross_entropy(&logits, &Tensor::from_slice([4], &[0i64, 3, 6, 1]).unwrap(), 0.1).unwrap();
        let gradients = leaves.into_gradients(tape.backward(&loss).unwrap());
        for (parameter, gradient) in model.parameters().parameters().iter().zip(&gradients) {
            let gradient = gradient.as_ref().unwrap_or_else(|| panic!("{name}: no gradient for {}", parameter.name));
            assert_eq!(gradient.shape(), parameter.value.shape(), "{name}: {}", parameter.name);
        }
        let norms = model.parameters().buffers().len() / 3;
        assert_eq!(effects.len(), norms, "{name}");
        model.apply(&effects).unwrap();
        for buffer in model.parameters().buffers().iter().filter(|b| b.name.ends_with("num_batches_tracked")) {
            assert_eq!(buffer.value.item().unwrap(), 1.0, "{name}: {}", buffer.name);
        }
        assert_eq!(*model.infer(&images([2, 3, 32, 32], 1)).unwrap().shape(), [2, 7]);
    }
}

/// Losses, gradients and statistics of one step in a mode.
fn step(config: &experiment::Model, backward: &Backward) -> (Vec<Vec<f32>>, usize) {
    let mut model = Model::build(config, CIFAR, 5, 3).unwrap();
    model.set_backward(backward).unwrap();
    let mut tape = Tape::new();
    let leaves = Leaves::on(&mut tape, model.parameters());
    let x = Var::constant(images([3, 3, 32, 32], 2));
    let logits = model.forward(&mut tape, &leaves, &x, Phase::Train { seed: 9, step: 4 }).unwrap();
    let loss = tape.cross_entropy(&logits, &Tensor::from_slice([3], &[0i64, 3, 4]).unwrap(), 0.0).unwrap();
    let effects = tape.take_effects();
    let retained = tape.retained_except(model.parameters().named().map(|(_, value)| value)).bytes();
    let gradients = leaves.into_gradients(tape.backward(&loss).unwrap());
    model.apply(&effects).unwrap();
    let mut values = vec![logits.value().to_vec().unwrap()];
    values.extend(gradients.into_iter().map(|g| g.unwrap().to_vec().unwrap()));
    let statistics = model.parameters().buffers().iter().filter(|b| b.value.dtype().is_float());
    values.extend(statistics.map(|b| b.value.to_vec().unwrap()));
    (values, retained)
}

#[test]
fn recompute_gives_the_same_bits_from_less_memory() {
    for (name, pattern) in [
        (ModelName::ResNet20, "layer2.*"),
        (ModelName::ResNet50, "layer1.0.conv*"),
        (ModelName::MobileNetV1, "layers.3.conv1"),
        (ModelName::CifarCnn, "conv*"),
        (ModelName::Vgg11, "features.*"),
    ] {
        let config = experiment::Model { dropout: Some(0.3), activation: ActivationName::Prelu, ..thin(name) };
        let (expected, all) = step(&config, &Backward::default());
        let mut backward = Backward { mode: BackwardMode::Recompute, ..Backward::default() };
        let (found, least) = step(&config, &backward);
        assert!(found == expected, "{name}: recompute everywhere");
        assert!(least < all, "{name}: {least} of {all} bytes");
        backward.mode = BackwardMode::Ad;
        backward.layers.insert(pattern.into(), BackwardMode::Recompute);
        let (found, some) = step(&config, &backward);
        assert!(found == expected, "{name}: recompute of {pattern}");
        assert!(least <= some && some < all, "{name}: {some} between {least} and {all} bytes");
    }
}

#[test]
fn patterns_must_match_a_layer() {
    let mut model = Model::build(&thin(ModelName::ResNet20), CIFAR, 5, 0).unwrap();
    let composites = model.composites();
    assert!(composites.contains(&"layer3.0") && composites.contains(&"layer3.0.shortcut.0"));
    let mut backward = Backward::default();
    backward.layers.insert("layer4.*".into(), BackwardMode::Recompute);
    assert!(model.set_backward(&backward).unwrap_err().to_string().contains("layer4.*"));
}

#[test]
fn dropout_depends_on_the_step_and_only_in_training() {
    let config = experiment::Model { dropout: Some(0.5), ..thin(ModelName::SmallCnn) };
    let model = Model::build(&config, CIFAR, 5, 0).unwrap();
    let x = Var::constant(images([3, 3, 32, 32], 0));
    let logits = |phase| {
        let leaves = Leaves::constant(model.parameters());
        model.forward(&mut Tape::new(), &leaves, &x, phase).unwrap().value().to_vec::<f32>().unwrap()
    };
    let train = |seed, step| logits(Phase::Train { seed, step });
    assert_eq!(train(0, 1), train(0, 1));
    assert_ne!(train(0, 1), train(0, 2));
    assert_ne!(train(0, 1), train(1, 1));
    assert_ne!(train(0, 1), train(0, 1 | 1 << 32));
    assert_eq!(logits(Phase::Evaluate), logits(Phase::Evaluate));
}

#[test]
fn initial_weights_depend_on_the_seed_and_the_rule() {
    let weights = |seed, init| {
        let config = experiment::Model { init, ..thin(ModelName::SmallCnn) };
        Model::build(&config, CIFAR, 5, seed)
            .unwrap()
            .parameters()
            .get("conv2.weight")
            .unwrap()
            .to_vec::<f32>()
            .unwrap()
    };
    assert_eq!(weights(0, InitName::Default), weights(0, InitName::Default));
    assert_ne!(weights(0, InitName::Default), weights(1, InitName::Default));
    let bound = |init| weights(0, init).into_iter().fold(0.0f32, |m, w| m.max(w.abs()));
    // Four channels in and out, 3x3.
    let (xavier, kaiming) = ((6.0f32 / 72.0).sqrt(), (6.0f32 / 36.0).sqrt());
    assert!((0.9 * xavier..=xavier).contains(&bound(InitName::XavierUniform)));
    assert!((0.9 * kaiming..=kaiming).contains(&bound(InitName::KaimingUniform)));
}

#[test]
fn unfit_inputs_are_refused() {
    assert!(Model::build(&config(ModelName::Vgg11), [3, 16, 16], 10, 0).is_err());
    assert!(Model::build(&config(ModelName::SmallCnn), [3, 0, 16], 10, 0).is_err());
    assert!(Model::build(&config(ModelName::SmallCnn), CIFAR, 0, 0).is_err());
    let model = Model::build(&thin(ModelName::SmallCnn), CIFAR, 5, 0).unwrap();
    assert!(model.infer(&images([2, 3, 16, 16], 0)).is_err());
    let other = Model::build(&thin(ModelName::ResNet20), CIFAR, 5, 0).unwrap();
    assert!(model.infer_with(other.parameters(), &images([2, 3, 32, 32], 0)).is_err());
}

#[test]
fn running_statistics_follow_pytorch() {
    // One channel with mean 2 and unbiased variance 4/3: `torch.nn.BatchNorm1d(1)` after one batch of [0, 4, 2, 2] has a running
    // mean of 0.2 and a running variance of 0.9 + 0.1 · 8/3.
    let config = experiment::Model { widths: vec![1], activation: ActivationName::Relu, ..config(ModelName::Mlp) };
    let mut model = Model::build(&config, [1, 1, 1], 2, 0).unwrap();
    model.parameters_mut().set("fc1.weight", &Tensor::full([1, 1], 1.0f32).unwrap()).unwrap();
    let mut tape = Tape::new();
    let leaves = Leaves::on(&mut tape, model.parameters());
    let x = Var::constant(Tensor::from_slice([4, 1, 1, 1], &[0.0f32, 4.0, 2.0, 2.0]).unwrap());
    model.forward(&mut tape, &leaves, &x, Phase::Train { seed: 0, step: 0 }).unwrap();
    model.apply(&tape.take_effects()).unwrap();
    let value = |name: &str| {
        model.parameters().get(name).unwrap().to_dtype(qtensor::DType::F64).unwrap().to_vec::<f64>().unwrap()[0]
    };
    assert!((value("bn1.running_mean") - 0.2).abs() < 1e-6);
    assert!((value("bn1.running_var") - (0.9 + 0.1 * 8.0 / 3.0)).abs() < 1e-6);
}

/// The shapes of a summary are those of a forward pass.
#[test]
fn summaries_tell_the_truth() {
    for name in ModelName::ALL {
        let config = experiment::Model { width: if *name == ModelName::Mlp { 1.0 } else { 0.125 }, ..thin(*name) };
        let model = Model::build(&config, [3, 64, 32], 7, 1).unwrap();
        let leaves = Leaves::constant(model.parameters());
        let context = Context::new(Phase::Evaluate, &leaves, Default::default());
        let (mut x, mut shape) = (Var::constant(images([1, 3, 64, 32], 0)), vec![3, 64, 32]);
        for layer in model.network().layers() {
            x = layer.forward(&mut Tape::new(), &x, &context).unwrap();
            shape = layer.describe(&shape, &mut Walk::new()).unwrap();
            assert_eq!(x.shape()[1..], shape, "{name}: {layer:?}");
        }
    }
}

/// A folded network gives the logits of the network as it is, up to rounding, whatever its running statistics.
#[test]
fn folding_changes_roundings_only() {
    for (i, name) in ModelName::ALL.iter().enumerate() {
        for activation in [ActivationName::Relu, ActivationName::Prelu] {
            let model = experiment::Model { activation, ..thin(*name) };
            let mut model = Model::build(&model, [3, 64, 32], 7, 1).unwrap();
            let random = |shape: &[usize], index: usize, mean: f32| {
                let key = StreamKey { seed: 9, purpose: Purpose::Test, epoch: i as u32, index: index as u64 };
                Stream::new(key).normal_tensor(shape, mean, 0.2).unwrap()
            };
            for index in 0..model.parameters().parameters().len() {
                let parameter = &model.parameters().parameters()[index];
                if !parameter.kind.is_weight() {
                    let mean = if parameter.name.ends_with("weight") { 1.0 } else { 0.0 };
                    *model.parameters_mut().parameter_mut(index) = random(parameter.value.shape(), index, mean);
                }
            }
            for index in 0..model.parameters().buffers().len() {
                let buffer = &model.parameters().buffers()[index];
                if buffer.value.dtype().is_float() {
                    let mean = if buffer.name.ends_with("var") { 1.5 } else { 0.0 };
                    *model.parameters_mut().buffer_mut(index) = random(buffer.value.shape(), 1000 + index, mean);
                }
            }
            // More than a slice of the residual networks.
            let images = images([19, 3, 64, 32], 0);
            let expected = model.infer(&images).unwrap().to_vec::<f32>().unwrap();
            let found = model.folded().unwrap().infer(&images).unwrap().to_vec::<f32>().unwrap();
            let size = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-4 * size, "{name}: {found} instead of {expected}");
            }
            assert!(size > 0.0 && size.is_finite(), "{name}");
        }
    }
}

/// A table in the experiment makes the network that is named for it, and one of another depth.
#[test]
fn tables_of_the_experiment_replace_those_of_the_names() {
    let count = |config: &experiment::Model| Model::build(config, CIFAR, 10, 0).unwrap().parameters().count();
    let a = [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
    let table = a.map(|c| if c == 0 { VggLayer::Pool } else { VggLayer::Conv(c) }).to_vec();
    assert_eq!(count(&experiment::Model { layers: Some(table), ..config(ModelName::Vgg16) }), 9_231_114);
    let short = vec![VggLayer::Conv(8), VggLayer::Pool];
    let layers = experiment::Model { layers: Some(short), width: 0.5, ..config(ModelName::Vgg16) };
    assert_eq!(count(&layers), 4 * 27 + 4 + 8 + 10 * (4 * 16 * 16) + 10, "width multiplies the table");
    let blocks = |name, blocks: &[usize]| experiment::Model { blocks: Some(blocks.to_vec()), ..config(name) };
    assert_eq!(count(&blocks(ModelName::ResNet10, &[5, 5, 5])), 466_906);
    // Between two and three blocks a stage.
    let third = 18 * 32 * 32 + 4 * 32;
    assert_eq!(count(&blocks(ModelName::ResNet56, &[2, 3, 2])), 175_258 + third);
    // QuadraLib's resnet34.
    assert_eq!(count(&blocks(ModelName::ResNet32, &[3, 4, 6])), 512_986);
    for wrong in [blocks(ModelName::ResNet20, &[1, 1]), blocks(ModelName::ResNet18, &[1, 1, 1])] {
        let error = Model::build(&wrong, CIFAR, 10, 0).unwrap_err().to_string();
        assert!(error.contains("stages"), "{error}");
    }
    let many = experiment::Model { layers: Some(vec![VggLayer::Pool; 6]), ..config(ModelName::Vgg7) };
    assert!(Model::build(&many, CIFAR, 10, 0).is_err(), "32 pixels cannot be halved six times");
}

/// Taking in statistics with the shares 1, 1/2, 1/3 leaves their mean.
#[test]
fn shares_of_statistics_make_a_mean() {
    let config = experiment::Model { neuron: NeuronName::Ours, width: 0.125, ..config(ModelName::Vgg7) };
    let mut model = Model::build(&config, CIFAR, 5, 1).unwrap();
    let mut sums: Vec<Vec<f64>> = Vec::new();
    for step in 0..3u64 {
        let mut tape = Tape::new();
        let images = Var::constant(images([4, 3, 32, 32], step));
        model
            .forward(&mut tape, &Leaves::constant(model.parameters()), &images, Phase::Train { seed: 0, step })
            .unwrap();
        let effects = tape.take_effects();
        assert_eq!(effects.len(), 7 * 4, "three inner and one outer normalisation for each of seven layers");
        sums.resize(effects.len(), Vec::new());
        for (sum, effect) in sums.iter_mut().zip(&effects) {
            let mean = effect.values[0].to_vec::<f32>().unwrap();
            sum.resize(mean.len(), 0.0);
            sum.iter_mut().zip(mean).for_each(|(sum, mean)| *sum += f64::from(mean) / 3.0);
        }
        model.apply_share(&effects, 1.0 / (step + 1) as f64).unwrap();
        if step == 2 {
            for (sum, effect) in sums.iter().zip(&effects) {
                let running = model.parameters().buffers()[effect.key].value.to_vec::<f32>().unwrap();
                let largest = sum.iter().fold(1e-6f64, |m, x| m.max(x.abs()));
                for (expected, found) in sum.iter().zip(running) {
                    assert!((expected - f64::from(found)).abs() < 1e-5 * largest, "{expected} and {found}");
                }
            }
        }
    }
}
