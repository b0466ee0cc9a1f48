//! The statistics and maps of networks whose figures can be had by hand.

use qtensor::Tensor;
use qzoo::analysis::{Analyzer, LayerReport, SamplesOptions, Window};
use qzoo::data::{self, Split};
use qzoo::experiment::Experiment;
use qzoo::run::{RunFolder, RunReader};
use qzoo::train::{Beginning, Silent, StopFlag, begin_with, build_model};
use std::path::Path;

/// One quadratic neuron of the three values of an image of one pixel, and a classifier.
const NEURON: &str = r#"
name = "neuron"
[data]
dataset = "shapes"
image_size = 1
normalize = false
[model]
name = "mlp"
widths = [1]
neuron = "ours"
branch_norm = false
batch_norm = false
[optim]
name = "sgd"
"#;

const WEIGHTS: [[f32; 3]; 3] = [[1.5, -0.5, 0.25], [-0.75, 1.0, 0.5], [0.3, -0.9, 0.2]];
const BIASES: [f32; 3] = [0.1, -0.2, 0.05];

fn options(samples: usize) -> SamplesOptions {
    SamplesOptions {
        data_root: "absent".into(),
        split: Split::Test,
        samples,
        window: Window::CENTRE,
        stop: StopFlag::default(),
    }
}

/// A run with the initial weights of an experiment, some of them replaced.
fn run(folder: &Path, text: &str, weights: &[(&str, Tensor)]) -> Experiment {
    let experiment = Experiment::parse("x.toml", text, &[]).unwrap();
    let info = data::describe(&experiment.data, Path::new("absent")).unwrap();
    let mut model = build_model(&experiment, &info).unwrap();
    for (name, value) in weights {
        model.parameters_mut().set(name, value).unwrap();
    }
    let parameters = model.parameters();
    let beginning =
        Beginning { experiment: &experiment, info: &info, parameters, environment: None, origin: "by hand" };
    begin_with(&beginning, &RunFolder::create_at(folder).unwrap()).unwrap();
    experiment
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 2e-4 * expected.abs() + 1e-6, "{what}: {found}, expected {expected}");
}

fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|x| x.exp()).sum();
    logits.iter().map(|x| x.exp() / total).collect()
}

#[test]
fn a_neuron_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let classifier: Vec<f32> = (0..10).map(|k| (k as f32 - 4.0) * 0.3).collect();
    let mut weights = vec![
        ("fc2.weight", Tensor::from_vec([10, 1], classifier.clone()).unwrap()),
        ("fc2.bias", Tensor::full([10], 0.0f32).unwrap()),
    ];
    let names = ["fc1.fc1.weight", "fc1.fc2.weight", "fc1.fc3.weight"];
    let biases = ["fc1.fc1.bias", "fc1.fc2.bias", "fc1.fc3.bias"];
    for i in 0..3 {
        weights.push((names[i], Tensor::from_vec([1, 3], WEIGHTS[i].to_vec()).unwrap()));
        weights.push((biases[i], Tensor::from_vec([1], vec![BIASES[i]]).unwrap()));
    }
    let path = folder.path().join("run");
    let experiment = run(&path, NEURON, &weights);

    // 96 images go in two batches.
    let count = 96;
    let dataset = data::open_test(&experiment.data, Path::new("absent")).unwrap();
    let (mut second, mut linear, mut output, mut slopes) = (vec![], vec![], vec![], vec![]);
    let mut third_gradient = [0.0; 3];
    for i in 0..count {
        let index = i * dataset.len() / count;
        let mut scratch = Vec::new();
        let x: Vec<f64> =
            dataset.image(index, &mut scratch).unwrap().iter().map(|byte| f64::from(*byte) / 255.0).collect();
        let z: Vec<f64> = (0..3)
            .map(|b| (0..3).map(|j| f64::from(WEIGHTS[b][j]) * x[j]).sum::<f64>() + f64::from(BIASES[b]))
            .collect();
        let y = (z[0] * z[1] + z[2]).max(0.0);
        let p = softmax(&classifier.iter().map(|w| f64::from(*w) * y).collect::<Vec<_>>());
        let slope =
            (0..10).map(|k| (p[k] - f64::from(u8::from(k as u32 == dataset.label(index)))) * f64::from(classifier[k]));
        let slope: f64 = slope.sum();
        if y > 0.0 {
            (0..3).for_each(|j| third_gradient[j] += slope * x[j] / count as f64);
        }
        second.push(z[0] * z[1]);
        linear.push(z[2]);
        output.push(y);
        slopes.push(slope);
    }
    assert!(output.contains(&0.0) && output.iter().any(|y| *y > 0.0), "both sides of the activation are met");

    let analyzer = Analyzer::open(&path).unwrap();
    let report = analyzer.statistics(&options(count), &mut Silent).unwrap().unwrap();
    let layer = &report.layers[0];
    assert_eq!((layer.layer.name.as_str(), layer.layer.is_quadratic, report.samples), ("fc1", true, count));
    let places: Vec<&str> = layer.places.iter().map(|place| place.place.as_str()).collect();
    assert_eq!(places, ["output", "neuron", "second_order", "linear", "branch1", "branch2", "branch3"]);
    for (place, values) in [("second_order", &second), ("linear", &linear), ("output", &output)] {
        let found = &layer.place(place).unwrap().values;
        assert_eq!(found.count, count as u64);
        assert_close(found.mean, values.iter().sum::<f64>() / count as f64, place);
        assert_close(found.rms, rms(values), place);
        assert_close(found.max, values.iter().copied().fold(f64::MIN, f64::max), place);
    }
    assert_close(layer.ratio.unwrap(), rms(&second) / rms(&linear), "ratio");
    let zeros = output.iter().filter(|y| **y == 0.0).count() as f64 / count as f64;
    assert_close(layer.place("output").unwrap().values.zeros, zeros, "zeros");
    assert_eq!(layer.place("output").unwrap().values.dead, 0.0);
    let gradient = |place: &str| layer.place(place).unwrap().gradients.as_ref().unwrap().rms;
    assert_close(gradient("output"), rms(&slopes), "gradient of the output");
    let passed: Vec<f64> = slopes.iter().zip(&output).map(|(s, y)| if *y > 0.0 { *s } else { 0.0 }).collect();
    assert_close(gradient("neuron"), rms(&passed), "gradient of the neuron");
    assert!(layer.place("linear").unwrap().gradients.is_none());
    let third = &layer.weights[2];
    assert_eq!(third.name, "fc1.fc3.weight");
    assert_close(third.norm, WEIGHTS[2].iter().map(|w| f64::from(w * w)).sum::<f64>().sqrt(), "norm");
    assert_close(third.gradient_norm, third_gradient.iter().map(|g| g * g).sum::<f64>().sqrt(), "gradient norm");
}

#[test]
fn a_dead_layer_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let text = NEURON.replace("neuron = \"ours\"\nbranch_norm = false\n", "");
    let weights =
        [("fc1.weight", Tensor::full([1, 3], -1.0f32).unwrap()), ("fc1.bias", Tensor::full([1], -1.0f32).unwrap())];
    run(&folder.path().join("run"), &text, &weights);
    let analyzer = Analyzer::open(&folder.path().join("run")).unwrap();
    let report = analyzer.statistics(&options(10), &mut Silent).unwrap().unwrap();
    let output = &report.layers[0].place("output").unwrap().values;
    assert_eq!((output.dead, output.zeros, output.rms), (1.0, 1.0, 0.0));
    assert_eq!((report.layers[0].ratio, report.layers[0].places.len()), (None, 1), "a first-order layer has no parts");
    assert_eq!(report.layers[0].weights[0].gradient_norm, 0.0);
}

#[test]
fn maps_of_a_convolutional_network() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name = \"x\"\n[data]\ndataset = \"shapes\"\n[model]\nname = \"small_cnn\"\nwidth = 0.25\nneuron = \"ours\"\n[optim]\nname = \"sgd\"\n";
    run(&folder.path().join("run"), text, &[]);
    let analyzer = Analyzer::open(&folder.path().join("run")).unwrap();
    let pictures = analyzer.test_pictures(&[3, 0], Path::new("absent")).unwrap();
    assert_eq!((pictures[0].label.as_str(), pictures[0].planes.len()), ("test image 3", 3 * 32 * 32));
    let layers = qzoo::analysis::select(analyzer.layers(), None).unwrap();
    let maps = analyzer.maps(&pictures[0], &layers, &[1], &Window::CENTRE).unwrap();
    assert_eq!(maps.len(), layers.len());
    for layer in &maps {
        let kinds: Vec<_> = layer.maps.iter().map(|map| (map.place, map.channel)).collect();
        let places = ["output", "second_order", "linear"];
        assert_eq!(kinds[..3], places.map(|place| (place, None)), "{}", layer.layer.name);
        assert_eq!(kinds[3..], places.map(|place| (place, Some(1))));
        for map in &layer.maps {
            assert_eq!(map.values.len(), map.size[0] * map.size[1]);
            assert!(map.energy.is_none_or(|energy| (0.0..=1.0).contains(&energy.share)));
        }
        assert!(layer.maps[0].values.iter().any(|x| *x > 0.0));
    }
    let error = analyzer.maps(&pictures[0], &layers, &[4000], &Window::CENTRE).unwrap_err();
    assert!(error.to_string().contains("no channel 4000") && error.class().exit_code() == 2, "{error}");
    let error = analyzer.test_pictures(&[1 << 40], Path::new("absent")).unwrap_err();
    assert!(error.to_string().contains("counted from 0") && error.class().exit_code() == 2, "{error}");

    let report = analyzer.statistics(&options(32), &mut Silent).unwrap().unwrap();
    let convolution = |layer: &&LayerReport| layer.layer.is_convolution;
    for layer in report.layers.iter().filter(convolution) {
        assert!(layer.ratio.is_some_and(|ratio| ratio > 0.0), "{}", layer.layer.name);
        assert!(layer.place("output").unwrap().energy.is_some());
        assert_eq!(layer.weights.len(), 3);
        assert!(layer.weights.iter().all(|weights| weights.gradient_norm > 0.0));
    }
}

#[test]
fn checkpoints_of_a_run_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    run(&folder.path().join("run"), NEURON, &[]);
    let reader = RunReader::open(&folder.path().join("run")).unwrap();
    let checkpoints = folder.path().join("run").join("checkpoints");
    for name in ["epoch-10", "step-7"] {
        std::fs::copy(reader.best(), checkpoints.join(format!("{name}.safetensors"))).unwrap();
    }
    std::fs::write(checkpoints.join("notes.safetensors"), "").unwrap();
    let names = reader.checkpoints().unwrap();
    let names: Vec<_> = names.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["best", "epoch-10", "last", "step-7"]);
}
