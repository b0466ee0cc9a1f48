//! Small networks, and what tests ask of them.

use qtensor::Tensor;
use qzoo::data;
use qzoo::experiment::{Experiment, Override};
use qzoo::models::Model;
use qzoo::nn::Parameters;
use qzoo::quantize::{LayerResult, Progress, Quantized, Quantizer, Recipe};
use qzoo::run::RunFolder;
use qzoo::train::{Beginning, CalibrationImages, Evaluator, begin_with, build_model};
use std::path::{Path, PathBuf};

pub(crate) const BASE: &str = r#"
name = "small"
seed = 5
[data]
dataset = "shapes"
image_size = 12
train_limit = 60
[model]
name = "mlp"
[train]
eval_batch_size = 32
[optim]
name = "sgd"
[quantize]
samples = 50
"#;

pub(crate) fn experiment(sets: &[&str]) -> Experiment {
    // Only a perceptron has widths.
    let widths = (!sets.iter().any(|set| set.starts_with("model.name"))).then_some("model.widths=[24, 12]");
    let sets: Vec<Override> = sets.iter().copied().chain(widths).map(Override::set).collect();
    Experiment::parse("small.toml", BASE, &sets).unwrap_or_else(|e| panic!("{e}"))
}

/// The folder of a run with the initial weights of an experiment.
pub(crate) fn run(root: &Path, experiment: &Experiment) -> PathBuf {
    let info = data::describe(&experiment.data, Path::new("absent")).unwrap();
    let model = build_model(experiment, &info).unwrap();
    let begin = |name: &str, parameters: &Parameters| {
        let beginning = Beginning { experiment, info: &info, parameters, environment: None, origin: "by hand" };
        begin_with(&beginning, &RunFolder::create_at(&root.join(name)).unwrap()).unwrap();
        root.join(name)
    };
    // Running statistics like those of a trained network.
    let fresh = Evaluator::open(&begin("fresh", model.parameters())).unwrap();
    let mut images = CalibrationImages::open(&fresh, Path::new("absent"), 60).unwrap();
    begin("run", &images.recalibrate(&fresh, fresh.parameters(), 60).unwrap())
}

/// Goes on to the end.
pub(crate) struct Patient;

impl Progress for Patient {
    fn layer(&mut self, done: usize, total: usize, _: &LayerResult) -> bool {
        assert!(done <= total);
        true
    }
}

pub(crate) fn quantizer(evaluator: &Evaluator, experiment: &Experiment) -> Quantizer {
    let settings = experiment.quantize.clone().unwrap();
    let images = CalibrationImages::open(evaluator, Path::new("absent"), settings.samples).unwrap();
    Quantizer::new(evaluator.model(), &settings, experiment.seed, images).unwrap()
}

pub(crate) fn quantize(evaluator: &Evaluator, experiment: &Experiment, bits: f64) -> Quantized {
    let scalar = experiment.quantize.as_ref().unwrap().alphabet_scalar.as_slice()[0];
    quantizer(evaluator, experiment).quantize(&Recipe::uniform(bits, scalar), &mut Patient).unwrap().unwrap()
}

pub(crate) fn same(a: &Parameters, b: &Parameters) -> bool {
    a.named().zip(b.named()).all(|((name, x), (other, y))| {
        let bits = |x: &Tensor| x.to_vec::<f32>().map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        name == other && bits(x).ok() == bits(y).ok()
    })
}

pub(crate) fn evaluator(sets: &[&str]) -> (tempfile::TempDir, Experiment, Evaluator) {
    let (root, experiment) = (tempfile::tempdir().unwrap(), experiment(sets));
    let evaluator = Evaluator::open(&run(root.path(), &experiment)).unwrap();
    (root, experiment, evaluator)
}

/// All calibration images as they are, `[N, C · H · W]` in f64, row-major.
pub(crate) fn images(evaluator: &Evaluator, count: usize) -> Tensor {
    let mut images = CalibrationImages::open(evaluator, Path::new("absent"), count).unwrap();
    let batches: Vec<Tensor> = (0..images.batches()).map(|i| images.batch(i).unwrap().contiguous()).collect();
    Tensor::concatenate(&batches, 0).unwrap()
}

pub(crate) fn values(model: &Parameters, name: &str) -> Vec<f64> {
    model.get(name).unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

pub(crate) const NETWORKS: [&[&str]; 5] = [
    &["model.name=\"mlp\"", "model.widths=[24, 12]"],
    &["model.name=\"cifar_cnn\"", "model.width=0.125", "data.image_size=16"],
    &["model.name=\"resnet10\"", "model.width=0.25", "data.image_size=16"],
    &["model.name=\"resnet10\"", "model.width=0.125", "data.image_size=16", "model.neuron=\"type2&4\""],
    &["model.name=\"mobilenet_v1\"", "model.width=0.1", "data.image_size=32"],
];

pub(crate) fn logits(parameters: &Parameters, model: &Model, images: &Tensor) -> Vec<f32> {
    model.infer_with(parameters, images).unwrap().to_vec().unwrap()
}
