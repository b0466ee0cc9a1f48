//! The published QResNet-14, where its checkpoint is at hand: `QUARTZ_QRESNET14=qresnet14.pth`, and for the accuracy
//! `QUARTZ_CIFAR10_932=test_first932.bin`, the first 932 test images of CIFAR-10. Without them the tests say so and pass.

#![cfg(feature = "import-torch")]

use qtensor::Tensor;
use qzoo::data::DatasetInfo;
use qzoo::experiment::Experiment;
use qzoo::import::{ImportOptions, import};
use qzoo::models::Model;
use qzoo::run::RunFolder;
use qzoo::train::{Beginning, EvaluateOptions, Evaluator, Silent, begin_with, build_model};
use std::path::PathBuf;

fn file(variable: &str) -> Option<PathBuf> {
    let file = std::env::var_os(variable).map(PathBuf::from);
    if file.is_none() {
        eprintln!("skipped: {variable} names no file");
    }
    file
}

fn published(checkpoint: PathBuf) -> (Experiment, DatasetInfo, Model) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../experiments/qresnet14_published.toml");
    let experiment = Experiment::load(path, &[]).unwrap();
    let info = qzoo::data::describe(&experiment.data, "absent".as_ref()).unwrap();
    let mut model = build_model(&experiment, &info).unwrap();
    let options = ImportOptions { rules: experiment.import.clone(), allow_dropped: false };
    let imported = import(&checkpoint, &model, &options).unwrap();
    assert_eq!(imported.report.matched.len(), 296);
    assert_eq!((imported.report.absorbed.len(), imported.report.dropped.len()), (36, 0));
    assert_eq!(imported.report.guessed().count(), 0);
    assert_eq!((&imported.report.values["acc"], &imported.report.values["epoch"]), (&93.23.into(), &199.into()));
    *model.parameters_mut() = imported.parameters;
    (experiment, info, model)
}

/// PyTorch's logits for four inputs that a formula gives, row-major over channels, rows and columns.
#[test]
fn logits_are_those_of_pytorch() {
    let Some(checkpoint) = file("QUARTZ_QRESNET14") else { return };
    let (_, _, model) = published(checkpoint);
    let folded = model.folded().unwrap();
    type Case = (fn(usize) -> f64, [f64; 10]);
    #[rustfmt::skip]
    let cases: [Case; 4] = [
        (|_| 0.0, [2.128815, -0.978407, 0.895751, 1.560962, -0.969094, 0.717906, -0.871763, -1.323054, 0.060313, -1.221027]),
        (|_| 1.0, [2.847012, -0.845626, 1.361911, -0.039835, -0.724178, -0.184819, -0.799064, -1.232882, 0.714810, -1.096964]),
        (|i| (0.1 * i as f64).sin(), [-0.44046747, -1.69795562, 0.33950964, 4.95630349, -0.38515158, -0.68194620, -0.92822304, -1.35182585, 0.97418760, -0.78391328]),
        (|i| (7919 * i % 256) as f64 / 255.0 * 4.0 - 2.0, [2.425177, 4.151639, -0.970257, -1.104458, -1.438238, -1.290542, -1.162261, -1.275467, 1.210534, -0.545810]),
    ];
    for (number, (input, expected)) in cases.into_iter().enumerate() {
        let values: Vec<f32> = (0..3 * 32 * 32).map(|i| input(i) as f32).collect();
        let image = Tensor::from_vec([1, 3, 32, 32], values).unwrap();
        for (how, logits) in [("layer by layer", model.infer(&image)), ("folded", folded.infer(&image))] {
            let logits = logits.unwrap().to_vec::<f32>().unwrap();
            let worst = logits.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            eprintln!("input {number}, {how}: largest difference {worst:.1e}");
            assert!(worst <= 1e-4, "input {number}, {how}: {logits:?}");
        }
    }
}

#[test]
fn accuracy_is_that_of_pytorch() {
    let (Some(checkpoint), Some(images)) = (file("QUARTZ_QRESNET14"), file("QUARTZ_CIFAR10_932")) else { return };
    let (experiment, info, model) = published(checkpoint);
    let root = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(root.path(), "published").unwrap();
    let beginning = Beginning {
        experiment: &experiment,
        info: &info,
        parameters: model.parameters(),
        environment: None,
        origin: "imported",
    };
    begin_with(&beginning, &folder).unwrap();
    let options = EvaluateOptions { data_file: Some(images), ..EvaluateOptions::default() };
    let evaluation = Evaluator::open(folder.path()).unwrap().evaluate(&options, &mut Silent).unwrap().unwrap();
    assert_eq!((evaluation.correct, evaluation.report.images), (872, 932));
}
