//! Training of sparse networks: what is gone stays exactly zero, and interruptions change no bit.

use qzoo::checkpoint::Checkpoint;
use qzoo::experiment::Experiment;
use qzoo::run::{RunFolder, RunReader};
use qzoo::train::{End, Event, Silent, StopFlag, TrainOptions, Trainer};
use std::fs;
use std::path::Path;

/// 6 epochs of 2 steps of up to 2 batches, with everything that has a state.
const TINY: &str = r#"
name = "tiny"
seed = 5
[data]
dataset = "shapes"
train_limit = 24
[data.augment]
flip = true
[model]
name = "mlp"
widths = [12, 10]
dropout = 0.1
[train]
epochs = 6
batch_size = 8
eval_batch_size = 16
clip_norm = 1.0
ema_decay = 0.9
accumulate = 2
"#;

const SGD: &str = "[optim]\nname = \"sgd\"\nlr = 0.1\nmomentum = 0.9\nnesterov = true\nweight_decay = 5e-3\n";
// On dense kernels: two runs that measure which layers pay may choose differently, and sparse kernels round differently.
const GMP: &str = "[sparse]\nmethod = \"gmp\"\nskip = []\nscope = \"global\"\narithmetic = \"dense\"\n\
                   [sparse.gmp]\nstart = 1\nend = 4\n";
const ACDC: &str = "[sparse]\nmethod = \"acdc\"\nsparsity = 0.8\nskip = [\"fc1\"]\narithmetic = \"dense\"\n\
                    [sparse.acdc]\nwarmup = 1\nsparse = 1\ndense = 1\nfinish = 2\n";

fn experiment(sections: &[&str]) -> Experiment {
    Experiment::parse("tiny.toml", TINY.to_string() + &sections.concat(), &[]).unwrap_or_else(|e| panic!("{e}"))
}

fn options() -> TrainOptions {
    TrainOptions { limit_batches: Some(4), ..TrainOptions::default() }
}

fn run(experiment: Experiment, path: &Path) {
    let mut trainer = Trainer::new(experiment, RunFolder::create_at(path).unwrap(), options()).unwrap();
    assert_eq!(trainer.run(&mut Silent).unwrap().end, End::Completed);
}

/// Trains until that step has been made.
fn run_until(experiment: Experiment, path: &Path, last: u64) {
    let stop = StopFlag::default();
    let options = TrainOptions { stop: stop.clone(), ..options() };
    let mut trainer = Trainer::new(experiment, RunFolder::create_at(path).unwrap(), options).unwrap();
    let mut listen = |event: &Event<'_>| {
        if matches!(event, Event::Step(step) if step.step == last) {
            stop.stop();
        }
    };
    assert_eq!(trainer.run(&mut listen).unwrap().end, End::Interrupted);
}

fn last(path: &Path) -> Checkpoint {
    Checkpoint::load(&path.join("checkpoints/last.safetensors")).unwrap()
}

/// Everything of a weight that is not there is zero, and of the others nearly nothing is. Returns the number of masks.
fn assert_masked(checkpoint: &Checkpoint, what: &str) -> usize {
    let mut count = 0;
    for (name, mask) in checkpoint.with_prefix("mask:") {
        count += 1;
        let kept = mask.to_vec::<u8>().unwrap();
        for (other, tensor) in checkpoint.tensors.iter().filter(|(other, _)| {
            let rest = other.strip_suffix(name);
            rest.is_some_and(|rest| {
                rest != "mask:" && rest != "optimizer:step:" && (rest.is_empty() || rest.ends_with(':'))
            })
        }) {
            let values = tensor.to_vec::<f32>().unwrap();
            assert_eq!(values.len(), kept.len());
            let gone = values.iter().zip(&kept).filter(|(value, kept)| **kept == 0 && **value != 0.0).count();
            assert_eq!(gone, 0, "{what}: values of {other} where there is no weight");
            let zeros = values.iter().zip(&kept).filter(|(value, kept)| **kept == 1 && **value == 0.0).count();
            assert!(2 * zeros <= kept.len(), "{what}: {zeros} values of {other} are zero without a mask");
        }
    }
    count
}

#[test]
fn an_interruption_after_any_step_changes_neither_masks_nor_bits() {
    let root = tempfile::tempdir().unwrap();
    for (name, sparse) in [("gmp", GMP), ("acdc", ACDC)] {
        let whole = root.path().join(name);
        run(experiment(&[SGD, sparse]), &whole);
        for step in 1..=12 {
            let path = root.path().join(format!("{name}-{step}"));
            run_until(experiment(&[SGD, sparse]), &path, step);
            let what = format!("{name} after step {step}");
            let masks = assert_masked(&last(&path), &what);
            let expected = match (name, (step - 1) / 2) {
                // The first epoch is dense.
                (_, 0) => 0,
                ("gmp", _) => 3,
                // Sparse, dense, sparse, and two sparse ones at the end.
                (_, epoch) => [0, 2, 0, 2, 2, 2][epoch as usize],
            };
            assert_eq!(masks, expected, "{what}");
            let folder = RunFolder::open(&path).unwrap();
            let resumed = Trainer::resume(folder, TrainOptions::default()).unwrap().run(&mut Silent).unwrap();
            assert_eq!(resumed.end, End::Completed);
            for file in ["checkpoints/last.safetensors", "checkpoints/best.safetensors"] {
                let same = fs::read(path.join(file)).unwrap() == fs::read(whole.join(file)).unwrap();
                assert!(same, "{file} differs: {what}");
            }
        }
    }
}

#[test]
fn weights_that_are_gone_stay_zero_with_every_optimizer() {
    let root = tempfile::tempdir().unwrap();
    let optimizers = [
        "[optim]\nname = \"sgd\"\nlr = 0.1\nmomentum = 0.9\nweight_decay = 5e-3\n",
        "[optim]\nname = \"sgd\"\nlr = 0.1\nmomentum = 0\nweight_decay = 5e-3\n",
        "[optim]\nname = \"adam\"\nlr = 0.01\nweight_decay = 1e-2\n",
        "[optim]\nname = \"adamw\"\nlr = 0.01\nweight_decay = 1e-1\n",
        "[optim]\nname = \"adadelta\"\nlr = 1.0\nweight_decay = 1e-2\n",
    ];
    let sparse = "[sparse]\nskip = []\nsparsity = 0.75\nmethod = \"gmp\"\n[sparse.gmp]\nstart = 2\nend = 4\n";
    for (number, optim) in optimizers.into_iter().enumerate() {
        let path = root.path().join(number.to_string());
        run(experiment(&[optim, sparse]), &path);
        let checkpoint = last(&path);
        assert_eq!(assert_masked(&checkpoint, optim), 3);
        for (name, mask) in checkpoint.with_prefix("mask:") {
            let kept = mask.to_vec::<u8>().unwrap();
            let zeros = kept.iter().filter(|kept| **kept == 0).count();
            assert_eq!(zeros, (0.75 * kept.len() as f64).round() as usize, "{name}");
        }
    }
}

#[test]
fn weights_that_a_dense_phase_brings_back_are_trained_again() {
    let root = tempfile::tempdir().unwrap();
    let zeros = |path: &Path, name: &str| {
        let weights = last(path).get(name).unwrap().to_vec::<f32>().unwrap();
        weights.iter().filter(|w| **w == 0.0).count() as f64 / weights.len() as f64
    };
    for (step, expected) in [(2, 0.0), (4, 0.8), (6, 0.0), (8, 0.8)] {
        let path = root.path().join(step.to_string());
        run_until(experiment(&[SGD, ACDC]), &path, step);
        assert_eq!(zeros(&path, "fc1.weight"), 0.0, "it is skipped");
        // In the dense phase a few gradients are zero too, where a unit never was active.
        assert!((zeros(&path, "fc2.weight") - expected).abs() < 0.2, "step {step}: {}", zeros(&path, "fc2.weight"));
    }
}

#[test]
fn the_books_tell_the_sparsity_and_the_best_network_is_sparse() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("acdc");
    run(experiment(&[SGD, ACDC]), &path);
    let told: Vec<f64> =
        RunReader::open(&path).unwrap().metrics().unwrap().epochs.iter().map(|e| e.record.sparsity.unwrap()).collect();
    assert_eq!(told.len(), 6);
    for (epoch, (found, expected)) in told.iter().zip([0.0, 0.8, 0.0, 0.8, 0.8, 0.8]).enumerate() {
        assert!((found - expected).abs() < 5e-3, "{epoch}: {found}");
    }
    let checkpoint = last(&path);
    let best = checkpoint.state.best.as_ref().unwrap();
    assert_eq!(best.sparsity, Some(0.8));
    assert!([2, 4, 5, 6].contains(&best.epoch), "{best:?}");
    let weights = Checkpoint::load(&path.join("checkpoints/best.safetensors")).unwrap();
    let weights = weights.get("fc2.weight").unwrap().to_vec::<f32>().unwrap();
    assert!(weights.iter().filter(|w| **w == 0.0).count() >= (0.8 * weights.len() as f64) as usize);

    let layers = RunReader::open(&path).unwrap().sparsity().unwrap().unwrap();
    assert_eq!(layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["fc2", "fc3"]);
    for layer in &layers {
        let all = layer.shape.iter().product::<usize>() as f64;
        assert_eq!(all - layer.nonzeros as f64, (0.8 * all).round(), "{layer:?}");
    }

    let path = root.path().join("dense");
    run(experiment(&[SGD]), &path);
    assert!(!fs::read_to_string(path.join("metrics.jsonl")).unwrap().contains("sparsity"));
    assert_eq!(RunReader::open(&path).unwrap().sparsity().unwrap(), None);
    let checkpoint = last(&path);
    assert_eq!(checkpoint.with_prefix("mask:").count(), 0);
    assert_eq!(checkpoint.state.best.unwrap().sparsity, None);
}

#[test]
fn patience_waits_for_the_masks() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("patient");
    let mut impatient = experiment(&[SGD, GMP]);
    // Nothing is learnt, so no epoch is better than the one before unless it is sparser.
    impatient.optim.lr = 1e-30;
    (impatient.train.early_stop, impatient.train.epochs) = (1, 9);
    let mut trainer = Trainer::new(impatient, RunFolder::create_at(&path).unwrap(), options()).unwrap();
    let outcome = trainer.run(&mut Silent).unwrap();
    // The masks are final from the fifth epoch on, which is the best; the sixth is not better.
    assert_eq!((outcome.end, outcome.result.epochs), (End::EarlyStop, 6));
    assert_eq!(last(&path).state.best.unwrap().epoch, 5);
}

#[test]
fn a_pattern_that_matches_no_layer_leaves_no_folder() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("wrong");
    let wrong = experiment(&[SGD, "[sparse]\nskip = [\"conv*\"]\n"]);
    let error = Trainer::new(wrong, RunFolder::create_at(&path).unwrap(), options()).unwrap_err();
    assert!(error.to_string().contains("no layer matches conv*; the layers are fc1, fc2, fc3"), "{error}");
    assert!(!path.exists());
}
