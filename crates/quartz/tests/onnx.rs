//! `export --format onnx` as its users meet it, and what onnxruntime makes of the files where `python3` has it.

mod common;

use common::{finish, json, quartz};
use qgraph::{Tape, Var};
use qtensor::Tensor;
use qzoo::checkpoint::Normalization;
use qzoo::data::{DatasetInfo, ImageShape};
use qzoo::experiment::{self, ActivationName, ModelName, NeuronName, Quantize};
use qzoo::models::Model;
use qzoo::nn::{Leaves, Phase};
use qzoo::onnx::{About, ActivationGrid, Grids, Quantization, QuantizedWeights, export};
use qzoo::quantize::{Quantizer, Recipe};
use qzoo::train::{CalibrationImages, Silent};
use std::path::Path;
use std::process::Command;

/// Images that running statistics are taken of.
const IMAGES: usize = 64;
/// Of these, those that a network is asked about.
const ASKED: usize = 16;
/// Networks that are compared with integer weights and activations too.
const QUANTIZED: [ModelName; 4] = [ModelName::Mlp, ModelName::CifarCnn, ModelName::Vgg7, ModelName::ResNet20];

/// For every `NAME.onnx` in a folder: the checker's verdict and the largest relative error of the logits, `NAME ERROR`. For every `NAME.qdq`: the share of
/// logits that the optimised graph gives within a code, 0.02, as it does without optimisation, their deviation, and the number of its integer kernels, `NAME SHARE DEVIATION KERNELS`.
/// For every `NAME.packed`: the error of the logits in units of their deviation, the share of images whose best class stands out, and the shares of these and of all images that get
/// the same class, `NAME ERROR SURE SAME ALL packed`.
const COMPARE: &str = "
import sys, glob, os
import numpy, onnx, onnxruntime
folder = sys.argv[1]
levels = onnxruntime.GraphOptimizationLevel
def logits(path, level, optimised=None):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    if optimised: options.optimized_model_filepath = optimised
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    images = numpy.fromfile(folder + '/images', numpy.float32).reshape(-1, *session.get_inputs()[0].shape[1:])
    assert session.get_inputs()[0].shape[0] == 'N', session.get_inputs()[0].shape
    found = session.run(['logits'], {'images': images})[0]
    alone = session.run(['logits'], {'images': images[:1]})[0]
    assert alone.shape == (1, found.shape[1])
    return found
for path in sorted(glob.glob(folder + '/*.onnx')):
    onnx.checker.check_model(path, full_check=True)
    found = logits(path, levels.ORT_ENABLE_ALL)
    ours = numpy.fromfile(path[:-5] + '.logits', numpy.float32).reshape(found.shape)
    error = abs(found - ours).max() / abs(ours).max()
    print(os.path.basename(path)[:-5], error)
for path in sorted(glob.glob(folder + '/*.qdq')):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    plain = logits(path, levels.ORT_DISABLE_ALL)
    fused = logits(path, levels.ORT_ENABLE_ALL, path + '.fused')
    kernels = [node.op_type in ('QLinearConv', 'QGemm') for node in onnx.load(path + '.fused').graph.node]
    print(os.path.basename(path)[:-4], (abs(plain - fused) < 0.03).mean(), plain.std(), sum(kernels))
for path in sorted(glob.glob(folder + '/*.packed')):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    found = logits(path, levels.ORT_DISABLE_ALL)
    ours = numpy.fromfile(path[:-7] + '.answers', numpy.float32).reshape(found.shape)
    best = numpy.sort(ours)[:, -2:]
    sure = best[:, 1] - best[:, 0] > 0.02 * abs(ours).max()
    same = found.argmax(1) == ours.argmax(1)
    error = ((found - ours) ** 2).mean() ** 0.5 / ours.std()
    print(os.path.basename(path)[:-7], error, sure.mean(), same[sure].mean(), same.mean(), 'packed')
";

/// What Python says, or `None` with a word about it where it lacks a module.
fn python(folder: &Path) -> Option<String> {
    let Ok(output) = Command::new("python3").args(["-c", COMPARE]).arg(folder).output() else {
        eprintln!("skipped: python3 is not installed");
        return None;
    };
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("No module named"), "{message}");
    eprintln!("skipped: python3 lacks numpy, onnx or onnxruntime");
    None
}

/// Normalised test images: of CIFAR-10 where it is installed, else generated ones.
fn images() -> (DatasetInfo, Tensor) {
    let of = |dataset| experiment::Data { dataset, ..experiment::Data::default() };
    let root = qzoo::data::data_root(None);
    let found = qzoo::data::open_test(&of(experiment::Dataset::Cifar10), &root);
    let dataset = found.or_else(|_| qzoo::data::open_test(&of(experiment::Dataset::Shapes), &root)).unwrap();
    eprintln!("images of {}", dataset.info().name);
    let normalization = normalization(dataset.info());
    let mut scratch = Vec::new();
    let image = |i| normalization.apply(dataset.image(i, &mut scratch).unwrap(), dataset.info().shape).unwrap();
    let images: Vec<Tensor> = (0..IMAGES).map(image).collect();
    (dataset.info().clone(), Tensor::concatenate(&images, 0).unwrap())
}

fn normalization(info: &DatasetInfo) -> Normalization {
    let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect();
    Normalization { mean: wide(&info.mean), std: wide(&info.std) }
}

/// An untrained network whose running statistics are those of the images.
fn network(config: &experiment::Model, info: &DatasetInfo, images: &Tensor) -> Model {
    let ImageShape { channels, height, width } = info.shape;
    let mut model = Model::build(config, [channels, height, width], info.classes.len(), 3).unwrap();
    let mut tape = Tape::new();
    let leaves = Leaves::constant(model.parameters());
    model.forward(&mut tape, &leaves, &Var::constant(images.clone()), Phase::Train { seed: 0, step: 0 }).unwrap();
    drop(leaves);
    let effects = tape.take_effects();
    (0..100).for_each(|_| model.apply(&effects).unwrap());
    model
}

fn floats(path: &Path, values: &Tensor) {
    let bytes: Vec<u8> = values.to_vec::<f32>().unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}

/// All weights in 7 bits, and what every projection is given in 8.
fn quantized(model: &Model) -> Quantization {
    let weights = model.parameters().parameters().iter().filter(|parameter| parameter.kind.is_weight());
    let count = weights.clone().count();
    let each = weights.enumerate().map(|(i, parameter)| {
        let values = parameter.value.to_vec::<f32>().unwrap();
        let mut weights = QuantizedWeights::default();
        for row in values.chunks(values.len() / parameter.value.shape()[0]) {
            let scale = row.iter().fold(1e-6f32, |m, w| m.max(w.abs())) / 63.0;
            weights.scales.push(scale);
            weights.codes.extend(row.iter().map(|w| (w / scale).round() as i8));
        }
        // Behind batch norm and ReLU values are of the order of 1; pixels, what is added to a shortcut, and logits are of both signs.
        let [fine, positive, signed] =
            [(0.02, 128), (0.03, 0), (0.1, 128)].map(|(scale, zero_point)| Some(ActivationGrid { scale, zero_point }));
        let name = &parameter.name;
        let is_added = name.starts_with("layer") && (name.contains("conv2") || name.contains("shortcut"));
        let input = if i == 0 { fine } else { positive };
        let output = if is_added { signed } else { positive };
        let output = if i + 1 == count { fine } else { output };
        weights.grids = vec![Grids { input, output }];
        (parameter.name.clone(), weights)
    });
    each.collect()
}

fn configurations() -> Vec<(String, experiment::Model)> {
    let plain = |name: ModelName| experiment::Model { name, ..Default::default() };
    let mut all: Vec<(String, experiment::Model)> = [
        ModelName::Mlp,
        ModelName::CifarCnn,
        ModelName::ResNet20,
        ModelName::Vgg7,
        ModelName::MobileNetV1,
        ModelName::ResNet18,
        ModelName::SmallCnn,
    ]
    .map(|name| (name.to_string(), plain(name)))
    .into();
    let qresnet = experiment::Model { neuron: NeuronName::Ours, ..plain(ModelName::ResNet14) };
    all.push(("qresnet14".into(), qresnet));
    for &neuron in NeuronName::ALL {
        let conv = experiment::Model { neuron, width: 0.25, ..plain(ModelName::SmallCnn) };
        let bare = experiment::Model { branch_norm: false, ..conv.clone() };
        let dense = experiment::Model { neuron, rank: Some(2), widths: vec![32], ..plain(ModelName::Mlp) };
        all.extend([("conv", conv), ("bare", bare), ("dense", dense)].map(|(kind, m)| (format!("{kind}-{neuron}"), m)));
    }
    for &activation in ActivationName::ALL {
        let model = experiment::Model { activation, width: 0.5, ..plain(ModelName::ResNet10) };
        all.push((format!("{activation}"), model));
    }
    all
}

#[test]
fn onnxruntime_gives_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let (info, images) = images();
    let normalization = normalization(&info);
    let about = About { name: "peer", classes: &info.classes, normalization: &normalization, raw_pixels: false };
    let asked = images.slice(0, 0..ASKED).unwrap();
    floats(&folder.path().join("images"), &asked);
    let configurations = configurations();
    for (name, config) in &configurations {
        let model = network(config, &info, &images);
        let file = folder.path().join(name);
        let bytes = export(&model, &about, &Quantization::new()).unwrap();
        std::fs::write(file.with_extension("onnx"), bytes).unwrap();
        floats(&file.with_extension("logits"), &model.infer(&asked).unwrap());
    }
    for name in QUANTIZED {
        let config = experiment::Model { name, width: 0.5, ..Default::default() };
        let model = network(&config, &info, &images);
        let quantization = quantized(&model);
        let bytes = export(&model, &about, &quantization).unwrap();
        std::fs::write(folder.path().join(format!("{name}.{}.qdq", quantization.len())), bytes).unwrap();
    }
    for name in QUANTIZED {
        let config = experiment::Model { name, width: 0.5, ..Default::default() };
        let model = network(&config, &info, &images);
        let settings = Quantize { activation_bits: Some(8), ..Quantize::default() };
        let given = CalibrationImages::of(vec![images.clone()]).unwrap();
        let mut quantizer = Quantizer::new(&model, &settings, 0, given).unwrap();
        let found = quantizer.quantize(&Recipe::uniform(4.0, 1.0), &mut Silent).unwrap().unwrap();
        let model = found.model(&model).unwrap();
        let (quantization, left) = qzoo::onnx::quantization(&model, &found.packed).unwrap();
        assert!(left.is_empty(), "{left:?}");
        let file = folder.path().join(format!("{name}-packed"));
        std::fs::write(file.with_extension("packed"), export(&model, &about, &quantization).unwrap()).unwrap();
        floats(&file.with_extension("answers"), &model.folded().unwrap().infer(&asked).unwrap());
    }
    let Some(said) = python(folder.path()) else { return };
    let mut compared = 0;
    for line in said.lines() {
        eprintln!("{line}");
        match line.split(' ').collect::<Vec<_>>()[..] {
            [_, error] => assert!(error.parse::<f64>().unwrap() <= 1e-4, "{line}"),
            [name, share, spread, kernels] => {
                // Integer sums are exact, so only what lies half way between two codes may differ.
                let [share, spread] = [share, spread].map(|number| number.parse::<f64>().unwrap());
                assert!(share >= 0.9 && spread > 0.04 && name.split('.').nth(1) == Some(kernels), "{line}");
            }
            [_, error, sure, same, _, _] => {
                let [error, sure, same] = [error, sure, same].map(|number| number.parse::<f64>().unwrap());
                assert!(error <= 0.05 && sure >= 0.3 && same == 1.0, "{line}");
            }
            _ => panic!("{line}"),
        }
        compared += 1;
    }
    assert_eq!(compared, configurations.len() + 2 * QUANTIZED.len());
}

#[test]
fn a_run_becomes_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (experiment, run) = (common::tiny(folder.path()), folder.path().join("run"));
    finish(quartz().args(["train", "--quiet", "--epochs", "1", "--out"]).arg(&run).arg(&experiment), 0);
    let onnx = |more: &[&str], code| finish(quartz().args(["export", "--format", "onnx"]).args(more).arg(&run), code);
    let beside = onnx(&[], 0);
    let path = run.join("export.onnx");
    assert_eq!(String::from_utf8_lossy(&beside.stdout).trim(), path.display().to_string());
    let bytes = std::fs::read(&path).unwrap();
    for word in ["images", "logits", "tiny", "small_cnn", "triangle", "normalized", env!("CARGO_PKG_VERSION")] {
        assert!(bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
    }
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said(&onnx(&[], 2)).contains("--force"));
    assert_eq!(json(&onnx(&["--force", "--json"], 0))["bytes"], bytes.len());
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    onnx(&["--force", "--raw-pixels"], 0);
    assert_ne!(std::fs::read(&path).unwrap(), bytes);

    let absent = folder.path().join("absent").join("model.onnx");
    let message = said(&onnx(&["--out", absent.to_str().unwrap()], 1));
    assert!(message.contains("cannot write") && message.contains("model.onnx"), "{message}");
    let weights = finish(quartz().args(["export", "--format", "pth", "--raw-pixels"]).arg(&run), 2);
    assert!(said(&weights).contains("--format onnx"));
}
