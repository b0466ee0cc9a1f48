//! Networks whose weights and activations are integers.

use super::{agrees, array, exported, images, model, thin};
use crate::experiment::{self, ModelName, NeuronName};
use crate::models::Model;
use crate::nn::ParameterKind;
use crate::onnx::tests::interpreter::run;
use crate::onnx::{About, ActivationGrid, Grids, Quantization, QuantizedWeights, export};
use crate::quantize::Packed;
use qkernels::feedback::Grid;
use qtensor::Tensor;

/// All weights rounded to so many levels on each side of 0, and the network that has them.
fn rounded(model: &Model, levels: f32) -> (Quantization, Model) {
    let mut rounded = model.clone();
    let mut quantization = Quantization::new();
    for parameter in model.parameters().parameters().iter().filter(|p| p.kind.is_weight()) {
        let mut values = parameter.value.to_vec::<f32>().unwrap();
        let row = values.len() / parameter.value.shape()[0];
        let mut weights = QuantizedWeights::default();
        for row in values.chunks_mut(row) {
            let scale = row.iter().fold(1e-6f32, |m, w| m.max(w.abs())) / levels;
            weights.scales.push(scale);
            for value in row {
                let code = (*value / scale).round_ties_even();
                weights.codes.push(code as i8);
                *value = code * scale;
            }
        }
        rounded
            .parameters_mut()
            .set(&parameter.name, &Tensor::from_vec(parameter.value.shape(), values).unwrap())
            .unwrap();
        quantization.insert(parameter.name.clone(), weights);
    }
    (quantization, rounded)
}

fn quadratic(name: ModelName, neuron: NeuronName) -> experiment::Model {
    experiment::Model { neuron, ..thin(name) }
}

#[test]
fn integer_weights_compute_what_the_rounded_network_does() {
    for (name, neuron) in [
        (ModelName::CifarCnn, NeuronName::Linear),
        (ModelName::ResNet10, NeuronName::Linear),
        (ModelName::MobileNetV1, NeuronName::Linear),
        (ModelName::ResNet10, NeuronName::Ours),
        (ModelName::SmallCnn, NeuronName::Type1),
        (ModelName::Mlp, NeuronName::Type2And4Shared),
    ] {
        let (quantization, rounded) = rounded(&model(&quadratic(name, neuron), [3, 16, 16]), 7.0);
        let graph = exported(&rounded, &quantization);
        agrees(&rounded, &graph, &format!("{name}, {neuron}"));
        let stored = |element: i32| graph.initializers.iter().filter(move |t| t.element == element && t.dims.len() > 1);
        assert_eq!(stored(3).count(), graph.nodes.iter().filter(|n| n.op == "DequantizeLinear").count());
        // No weights are left in f32 but the filters that copy.
        assert!(stored(1).all(|tensor| tensor.name.ends_with("patch_filters")), "{name}, {neuron}");
    }
}

#[test]
fn a_code_without_an_opposite_leaves_the_normalisation_beside_it() {
    let (mut quantization, mut rounded) = rounded(&model(&thin(ModelName::ResNet10), [3, 16, 16]), 127.0);
    let weights = quantization.get_mut("conv1.weight").unwrap();
    weights.codes.fill(-128);
    let values = weights.scales.iter().flat_map(|scale| vec![-128.0 * scale; 27]).collect();
    let shape = [weights.scales.len(), 3, 3, 3];
    rounded.parameters_mut().set("conv1.weight", &Tensor::from_vec(shape, values).unwrap()).unwrap();
    // One channel that a scale of 0 switches off.
    rounded.parameters_mut().set("layer1.0.bn1.weight", &Tensor::from_slice([1], &[0.0f32]).unwrap()).unwrap();
    let norm = rounded.parameters().parameters().iter().find(|p| p.name == "bn1.weight").unwrap();
    assert_eq!(norm.value.shape().to_vec(), [1]);
    let mut negative = rounded.clone();
    negative.parameters_mut().set("bn1.weight", &Tensor::from_slice([1], &[-0.7f32]).unwrap()).unwrap();
    for (model, nodes) in [(&rounded, 0), (&negative, 1)] {
        let graph = exported(model, &quantization);
        agrees(model, &graph, "codes of -128");
        assert_eq!(graph.nodes.iter().filter(|n| n.op == "Mul").count(), nodes);
    }
}

#[test]
fn codes_of_folded_weights_stay_as_they_are() {
    let mut original = model(&thin(ModelName::ResNet10), [3, 16, 16]);
    // The first convolution by itself, with the normalisation made part of it.
    let unit = original.network().composites()[0].units()[0].clone();
    let crate::nn::Body::Unit(unit) = unit.body() else { panic!("no unit") };
    let [scale, shift] = unit.norm().unwrap().affine(original.parameters()).unwrap();
    let weight = original.parameters().get("conv1.weight").unwrap();
    let mut values = weight.to_vec::<f32>().unwrap();
    values.iter_mut().for_each(|w| *w = (f64::from(*w) * scale[0]) as f32);
    let step = values.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 7.0;
    let codes: Vec<i8> = values.iter().map(|w| (w / step).round() as i8).collect();
    let weights = QuantizedWeights { codes: codes.clone(), scales: vec![step], folded: true, ..Default::default() };
    let back = codes.iter().map(|code| (f64::from(*code) * f64::from(step) / scale[0]) as f32).collect();
    let back = Tensor::from_vec(weight.shape(), back).unwrap();
    original.parameters_mut().set("conv1.weight", &back).unwrap();
    let quantization: Quantization = [("conv1.weight".to_string(), weights.clone())].into();
    let graph = exported(&original, &quantization);
    agrees(&original, &graph, "folded");
    // The same bias, said explicitly.
    let bias = Some(vec![shift[0] as f32]);
    let explicit = [("conv1.weight".to_string(), QuantizedWeights { bias, ..weights.clone() })].into();
    assert_eq!(exported(&original, &explicit), graph);
    let other = [("conv1.weight".to_string(), QuantizedWeights { bias: Some(vec![9.0]), ..weights })].into();
    let logits = |graph| run(graph, array(&images([1, 3, 16, 16])));
    assert_ne!(logits(&exported(&original, &other)), logits(&graph));
}

/// An integer perceptron in plain loops: what a layer is given and gives lies on its grid, products are summed as integers.
#[test]
fn activations_on_grids_are_integers_all_the_way() {
    let config = experiment::Model { name: ModelName::Mlp, widths: vec![6], batch_norm: false, ..Default::default() };
    let (mut quantization, rounded) = rounded(&model(&config, [1, 2, 2]), 7.0);
    let grid = |scale, zero_point| Some(ActivationGrid { scale, zero_point });
    let grids =
        [Grids { input: grid(0.01, 128), output: None }, Grids { input: grid(0.02, 0), output: grid(0.05, 100) }];
    for (name, grids) in ["fc1.weight", "fc2.weight"].into_iter().zip(grids) {
        quantization.get_mut(name).unwrap().grids = vec![grids];
    }
    let graph = exported(&rounded, &quantization);
    let ops: Vec<&str> = graph.nodes.iter().map(|node| node.op.as_str()).collect();
    let layer = ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "DequantizeLinear", "Gemm"];
    let end = ["QuantizeLinear", "DequantizeLinear"];
    assert_eq!(ops, [&["Flatten"], &layer[..], &["Relu"], &layer[..], &end[..]].concat());

    let images = images([3, 1, 2, 2]);
    let found = run(&graph, array(&images));
    let code = |x: f64, grid: ActivationGrid| {
        let code = (x / f64::from(grid.scale)).round_ties_even() + f64::from(grid.zero_point);
        code.clamp(0.0, 255.0) as i64 - i64::from(grid.zero_point)
    };
    let layer = |x: &[f64], name: &str, grid: ActivationGrid| -> Vec<f64> {
        let weights = &quantization[&format!("{name}.weight")];
        let bias = rounded.parameters().get(&format!("{name}.bias")).unwrap().to_vec::<f32>().unwrap();
        let x: Vec<i64> = x.iter().map(|x| code(*x, grid)).collect();
        let rows = weights.codes.chunks(x.len()).zip(&weights.scales).zip(bias);
        let row = |((codes, scale), bias): ((&[i8], &f32), f32)| {
            let step = f64::from(scale * grid.scale);
            let sum: i64 = codes.iter().zip(&x).map(|(w, x)| i64::from(*w) * x).sum();
            (sum + (f64::from(bias) / step).round_ties_even() as i64) as f64 * step
        };
        rows.map(row).collect()
    };
    for (image, logits) in array(&images).values.chunks(4).zip(found.values.chunks(5)) {
        let hidden: Vec<f64> = layer(image, "fc1", grids[0].input.unwrap()).iter().map(|x| x.max(0.0)).collect();
        let last = grids[1].output.unwrap();
        for (expected, found) in layer(&hidden, "fc2", grids[1].input.unwrap()).iter().zip(logits) {
            let expected = code(*expected, last) as f64 * f64::from(last.scale);
            assert!((expected - found).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}

#[test]
fn packed_weights_become_codes_where_their_characters_are_whole_numbers() {
    let of = |grid: &Grid, values: &[f32]| {
        let characters = Tensor::from_slice([2, values.len() / 2], values).unwrap();
        let packed = Packed::new("w", &[2, values.len() / 2], 1, (&characters, grid)).unwrap();
        assert_eq!(packed.values().unwrap().to_vec::<f32>().unwrap(), values);
        QuantizedWeights::of(&packed).unwrap()
    };
    let weights = |codes: &[i8], scales: &[f32]| {
        Some(QuantizedWeights { codes: codes.to_vec(), scales: scales.to_vec(), ..Default::default() })
    };
    // Odd numbers have no 0, but a column that no image ever showed is 0.
    let odd = Grid::uniform(4, vec![0.1, 0.3]).unwrap();
    assert_eq!(of(&odd, &[0.1 * -3.0, 0.0, 0.3, 0.0]), weights(&[-3, 0, 1, 0], &[0.1, 0.3]));
    let one = Grid::uniform(255, vec![0.7]).unwrap();
    assert_eq!(of(&one, &[0.7 * -127.0, 0.7 * 127.0, 0.0, 0.7]), weights(&[-127, 127, 0, 1], &[0.7, 0.7]));
    let levels: Vec<f32> = (0..256).map(|i| i as f32).collect();
    let shifted = |zero| Grid::new(levels.clone(), vec![0.5, 0.0]).unwrap().with_zero_points(vec![zero]).unwrap();
    assert_eq!(of(&shifted(128.0), &[-64.0, 63.5, 0.0, 0.0]), weights(&[-128, 127, 0, 0], &[0.5, 1.0]));
    assert_eq!(of(&shifted(10.0), &[-5.0, 122.5, 0.0, 0.0]), None);
    let uneven = Grid::new(vec![-1.5, 0.0, 1.5], vec![0.5]).unwrap();
    assert_eq!(of(&uneven, &[0.75, 0.0, -0.75, 0.0]), None);
}

#[test]
fn integers_that_do_not_fit_are_refused_with_their_name() {
    let model = model(&thin(ModelName::Mlp), [1, 2, 2]);
    let (quantization, _) = rounded(&model, 7.0);
    let refused = |change: &dyn Fn(&mut Quantization)| {
        let mut changed = quantization.clone();
        change(&mut changed);
        let normalization = Default::default();
        let about = About { name: "test", classes: &[], normalization: &normalization, raw_pixels: false };
        export(&model, &about, &changed).err().unwrap().to_string()
    };
    let of = |message: String, words: &str| assert!(message.contains("fc1") && message.contains(words), "{message}");
    of(refused(&|q| q.get_mut("fc1.weight").unwrap().codes.truncate(1)), "codes");
    of(refused(&|q| q.get_mut("fc1.weight").unwrap().scales.truncate(1)), "scales");
    of(refused(&|q| q.get_mut("fc1.weight").unwrap().scales[0] = 0.0), "above 0");
    of(refused(&|q| q.get_mut("fc1.weight").unwrap().scales[0] = f32::NAN), "above 0");
    of(refused(&|q| q.get_mut("fc1.weight").unwrap().bias = Some(Vec::new())), "biases");
    let grid = Grids { input: Some(ActivationGrid { scale: -1.0, zero_point: 0 }), output: None };
    of(refused(&|q| q.get_mut("fc1.weight").unwrap().grids = vec![grid]), "above 0");
    of(refused(&|q| drop(q.insert("fc1.wait".into(), QuantizedWeights::default()))), "no weights of that name");
    of(refused(&|q| drop(q.insert("fc1.bias".into(), QuantizedWeights::default()))), "no weights of that name");
    let kinds = model.parameters().parameters().iter().filter(|p| p.kind == ParameterKind::Weight);
    assert_eq!(kinds.count(), quantization.len());
}
