//! Training runs: the same bits whatever happens to the process, and errors that name their place.

use qtensor::random::{Purpose, Stream, StreamKey};
use qzoo::checkpoint::Checkpoint;
use qzoo::experiment::Experiment;
use qzoo::run::{Environment, RunFolder, RunReader, RunResult};
use qzoo::train::{
    End, EvaluateOptions, Evaluator, Event, Outcome, Predictor, Silent, StopFlag, TrainOptions, Trainer,
};
use qzoo::{Class, Error};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// A run with everything that has a state: 3 epochs of 4 steps of up to 2 batches.
const TINY: &str = r#"
name = "tiny"
seed = 3
[data]
dataset = "folder"
path = "squares"
image_size = 8
train_limit = 56
[data.augment]
flip = true
crop_padding = 1
mixup = 0.2
[model]
name = "mlp"
widths = [12]
dropout = 0.1
[train]
epochs = 3
batch_size = 8
eval_batch_size = 16
label_smoothing = 0.1
clip_norm = 1.0
ema_decay = 0.9
accumulate = 2
[optim]
name = "sgd"
lr = 0.1
momentum = 0.9
nesterov = true
weight_decay = 5e-4
[schedule]
name = "cosine"
warmup_epochs = 0.5
[log]
checkpoint_every_steps = 3
"#;

fn experiment(changes: &[(&str, &str)]) -> Experiment {
    let text = changes.iter().fold(TINY.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    Experiment::parse("tiny.toml", text, &[]).unwrap_or_else(|e| panic!("{e}"))
}

/// An image folder of four classes, 20 training and 28 test images each: a bright quarter in noise.
fn data() -> &'static Path {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let root = tempfile::tempdir().unwrap();
        for (split, count) in [("train", 20), ("test", 28)] {
            for class in 0..4u32 {
                let folder = root.path().join("squares").join(split).join(format!("class{class}"));
                fs::create_dir_all(&folder).unwrap();
                for number in 0..count {
                    let index = u64::from(class) * 1000 + number;
                    let epoch = u32::from(split == "test");
                    let mut random = Stream::new(StreamKey { seed: 9, purpose: Purpose::Test, epoch, index });
                    let image = image::RgbImage::from_fn(8, 8, |x, y| {
                        let bright = (x / 4 + 2 * (y / 4) == class) as u32 * 60;
                        image::Rgb([0; 3].map(|_: u8| (bright + random.below(180)) as u8))
                    });
                    image.save(folder.join(format!("{number}.png"))).unwrap();
                }
            }
        }
        root
    });
    FOLDER.path()
}

fn options() -> TrainOptions {
    TrainOptions { limit_batches: Some(7), data_root: data().into(), ..TrainOptions::default() }
}

/// What is told to a run that remembers its limit.
fn resume_options() -> TrainOptions {
    TrainOptions { limit_batches: None, ..options() }
}

fn run(experiment: Experiment, path: &Path) -> Outcome {
    let folder = RunFolder::create_at(path).unwrap();
    Trainer::new(experiment, folder, options()).unwrap().run(&mut Silent).unwrap()
}

fn resume(path: &Path) -> Outcome {
    Trainer::resume(RunFolder::open(path).unwrap(), resume_options()).unwrap().run(&mut Silent).unwrap()
}

/// `metrics.jsonl` without clocks and speeds.
fn metrics(path: &Path) -> String {
    let text = fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        let object = value.as_object_mut().unwrap();
        for key in ["images_per_s", "seconds", "time"] {
            assert!(object.remove(key).is_some(), "{line}");
        }
        value.to_string() + "\n"
    };
    text.lines().map(line).collect()
}

/// The two runs came to the same end: the same weights, the same state, the same books.
fn assert_same(path: &Path, expected: &Path, what: &str) {
    for file in ["checkpoints/last.safetensors", "checkpoints/best.safetensors"] {
        assert!(fs::read(path.join(file)).unwrap() == fs::read(expected.join(file)).unwrap(), "{file} differs: {what}");
    }
    assert_eq!(metrics(path), metrics(expected), "{what}");
    let read = |path: &Path| RunReader::open(path).unwrap().evaluation().unwrap().unwrap();
    assert_eq!(read(path), read(expected), "{what}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(|_| ()).unwrap()
        }
    }
}

#[test]
fn an_interruption_after_any_step_changes_no_bit() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    let outcome = run(experiment(&[]), &whole);
    assert_eq!((outcome.end, outcome.result.epochs), (End::Completed, 3));
    for stop_after in 1..=12 {
        let path = root.path().join(format!("stopped-{stop_after}"));
        let stop = StopFlag::default();
        let folder = RunFolder::create_at(&path).unwrap();
        let mut trainer =
            Trainer::new(experiment(&[]), folder, TrainOptions { stop: stop.clone(), ..options() }).unwrap();
        let mut steps = Vec::new();
        let mut listen = |event: &Event<'_>| {
            if let Event::Step(step) = event {
                steps.push(step.step);
                if step.step == stop_after {
                    stop.stop();
                }
            }
        };
        assert_eq!(trainer.run(&mut listen).unwrap().end, End::Interrupted);
        assert_eq!(steps, (1..=stop_after).collect::<Vec<_>>(), "it stops within one step");
        drop(trainer);
        assert_eq!(resume(&path).end, End::Completed);
        assert_same(&path, &whole, &format!("interrupted after step {stop_after}"));
    }
}

#[test]
fn interruptions_at_every_step_in_a_row_change_no_bit() {
    let root = tempfile::tempdir().unwrap();
    let (whole, path) = (root.path().join("whole"), root.path().join("stopped"));
    run(experiment(&[]), &whole);
    drop(Trainer::new(experiment(&[]), RunFolder::create_at(&path).unwrap(), options()).unwrap());
    let mut rounds = 0;
    loop {
        let stop = StopFlag::default();
        let options = TrainOptions { stop: stop.clone(), ..options() };
        let mut trainer = Trainer::resume(RunFolder::open(&path).unwrap(), options).unwrap();
        let mut listen = |event: &Event<'_>| {
            if matches!(event, Event::Step(_)) {
                stop.stop()
            }
        };
        rounds += 1;
        if trainer.run(&mut listen).unwrap().end == End::Completed {
            break;
        }
        assert_eq!(trainer.position().step, rounds, "each round makes one step");
    }
    assert_eq!(rounds, 13);
    assert_same(&path, &whole, "interrupted at every step");
}

/// What a `kill -9` leaves is the folder as it is at some moment.
#[test]
fn a_process_killed_at_any_event_resumes_to_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    let mut trainer = Trainer::new(experiment(&[]), RunFolder::create_at(&whole).unwrap(), options()).unwrap();
    let mut count = 0;
    let mut snapshot = |_: &Event<'_>| {
        copy(&whole, &root.path().join(format!("killed-{count}")));
        count += 1;
    };
    trainer.run(&mut snapshot).unwrap();
    drop(trainer);
    assert!(count > 30);
    for number in 0..count {
        let path = root.path().join(format!("killed-{number}"));
        fs::write(path.join("checkpoints").join(".last.safetensors.1-1.partial"), "half").unwrap();
        resume_killed(&path);
        assert_same(&path, &whole, &format!("killed at event {number}"));
        assert!(!path.join("checkpoints").join(".last.safetensors.1-1.partial").exists());
    }
}

fn resume_killed(path: &Path) {
    let folder = RunFolder::open(path).unwrap();
    // Before the first save nothing but the experiment is there, and the limit is told again.
    let outcome = Trainer::resume(folder, options()).unwrap().run(&mut Silent).unwrap();
    assert_eq!(outcome.end, End::Completed);
}

#[test]
fn a_damaged_checkpoint_falls_back_with_a_warning() {
    let root = tempfile::tempdir().unwrap();
    let (whole, path) = (root.path().join("whole"), root.path().join("damaged"));
    run(experiment(&[]), &whole);
    let stop = StopFlag::default();
    let options = TrainOptions { stop: stop.clone(), ..options() };
    let mut trainer = Trainer::new(experiment(&[]), RunFolder::create_at(&path).unwrap(), options).unwrap();
    trainer
        .run(&mut |event: &Event<'_>| {
            if matches!(event, Event::Step(s) if s.step == 8) {
                stop.stop()
            }
        })
        .unwrap();
    drop(trainer);
    let last = path.join("checkpoints/last.safetensors");
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&last, bytes).unwrap();
    let mut warnings = Vec::new();
    let mut trainer = Trainer::resume(RunFolder::open(&path).unwrap(), resume_options()).unwrap();
    trainer
        .run(&mut |event: &Event<'_>| {
            if let Event::Warning(text) = event {
                warnings.push(text.to_string())
            }
        })
        .unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("last.safetensors") && warnings[0].contains("going on from"), "{}", warnings[0]);
    assert_same(&path, &whole, "fallen back");
    drop(trainer);

    for entry in fs::read_dir(path.join("checkpoints")).unwrap() {
        fs::write(entry.unwrap().path(), "no checkpoint").unwrap();
    }
    let error = Trainer::resume(RunFolder::open(&path).unwrap(), resume_options()).unwrap_err();
    assert_eq!(error.class(), Class::Checkpoint, "{error}");
}

#[test]
fn threads_and_workers_change_no_bit() {
    let root = tempfile::tempdir().unwrap();
    let mut results: Vec<RunResult> = Vec::new();
    for (threads, workers) in [(1, 1), (2, 3), (3, 1), (4, 2)] {
        let path = root.path().join(format!("threads-{threads}"));
        let workers = format!("workers = {workers}\ntrain_limit");
        let experiment = experiment(&[("train_limit", &workers)]);
        let outcome = qkernels::par::with_threads(threads, || run(experiment, &path)).unwrap();
        results.push(outcome.result);
    }
    for result in &results[1..] {
        assert_eq!(result.weights_sha256, results[0].weights_sha256);
        assert_eq!((result.best_top1, result.test_loss), (results[0].best_top1, results[0].test_loss));
    }
}

#[test]
fn a_run_folder_holds_everything() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let outcome = run(experiment(&[("ema_decay = 0.9", "ema_decay = 0.0")]), &path);
    let reader = RunReader::open(&path).unwrap();
    assert_eq!(reader.result().unwrap().as_ref(), Some(&outcome.result));
    let metrics = reader.metrics().unwrap();
    assert_eq!((metrics.epochs.len(), metrics.steps.len()), (3, 12));
    let last = &metrics.epochs[2].record;
    assert_eq!(outcome.result.last_top1, Some(last.test_top1));
    assert!(last.train_loss.is_finite() && last.train_loss > 0.0);
    assert!(outcome.result.images_per_s > 0.0 && outcome.result.peak_bytes > 0);
    let evaluation = reader.evaluation().unwrap().unwrap();
    assert_eq!(Some(evaluation.top1), outcome.result.best_top1);
    assert_eq!(evaluation.images, 7 * 16);
    assert_eq!(evaluation.confusion.iter().flatten().sum::<u64>(), evaluation.images);
    let wrong = evaluation.samples.iter().filter(|s| s.label != s.predicted).count();
    assert!(wrong > 0 && wrong <= 16 && evaluation.samples.iter().all(|s| s.index < evaluation.images));
    let profile = reader.profile().unwrap().unwrap();
    assert_eq!(profile.batch, 8);
    assert!(
        profile.layers.iter().any(|l| l.name.contains("fc") && l.forward.gflops() > 0.0 && l.backward.gflops() > 0.0),
        "{profile:?}"
    );
    assert!(profile.retained_bytes > 0 && profile.peak_bytes >= profile.retained_bytes);
    assert_eq!(profile.layers.iter().map(|l| l.retained_bytes).sum::<u64>(), profile.retained_bytes);
    let checkpoint = Checkpoint::load(&reader.last()).unwrap();
    assert_eq!(checkpoint.weights_digest().unwrap(), outcome.result.weights_sha256);
    assert!(checkpoint.state.finished && checkpoint.state.history.len() == 3);
    assert_eq!(Experiment::parse("x", reader.experiment().unwrap(), &[]).unwrap().name, "tiny");
    let log = fs::read_to_string(path.join("log.txt")).unwrap();
    assert!(log.contains("epoch 3: train loss") && log.contains("ended"), "{log}");
    let events = fs::read_dir(&path)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("events.out.tfevents."));
    assert_eq!(events.count(), 1);
}

#[test]
fn an_evaluator_gives_the_figures_of_the_run() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    run(experiment(&[]), &path);
    let reader = RunReader::open(&path).unwrap();
    let expected = reader.evaluation().unwrap().unwrap();
    let options = EvaluateOptions { limit_batches: Some(7), data_root: data().into(), ..EvaluateOptions::default() };
    for source in [path.clone(), reader.best()] {
        let evaluator = Evaluator::open(&source).unwrap();
        let evaluation = evaluator.evaluate(&options, &mut Silent).unwrap().unwrap();
        assert_eq!((evaluation.report.top1, evaluation.report.loss), (expected.top1, expected.loss));
        assert_eq!(evaluation.report.samples, expected.samples);
        assert!(evaluation.images_per_s > 0.0);
    }
    // The last checkpoint holds both the trained and the averaged weights; the averaged ones are evaluated.
    let last = Evaluator::open(&reader.last()).unwrap().evaluate(&options, &mut Silent).unwrap().unwrap();
    let record = reader.metrics().unwrap().epochs[2].record.clone();
    assert_eq!((last.report.top1, last.report.loss), (record.test_top1, record.test_loss));
    let stopped = EvaluateOptions { stop: StopFlag::default(), ..options };
    stopped.stop.stop();
    assert_eq!(Evaluator::open(&path).unwrap().evaluate(&stopped, &mut Silent).unwrap(), None);
    assert_eq!(Evaluator::open(root.path()).unwrap_err().class(), Class::Config);
    assert_eq!(Evaluator::open(&root.path().join("no.safetensors")).unwrap_err().class(), Class::Checkpoint);
}

#[test]
fn divergence_names_step_layer_and_the_last_good_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let changes = [
        ("lr = 0.1", "lr = 1e30"),
        ("clip_norm = 1.0", "clip_norm = 0.0"),
        ("name = \"cosine\"\nwarmup_epochs = 0.5", "name = \"constant\""),
        ("ema_decay = 0.9", "ema_decay = 0.0"),
    ];
    let mut trainer = Trainer::new(experiment(&changes), RunFolder::create_at(&path).unwrap(), options()).unwrap();
    let mut steps = 0;
    let error = trainer.run(&mut |event: &Event<'_>| steps += u64::from(matches!(event, Event::Step(_)))).unwrap_err();
    assert_eq!(error.class().exit_code(), 5, "{error}");
    let text = error.to_string();
    let Error::Diverged(divergence) = error else { panic!("{error}") };
    assert_eq!(divergence.step, steps + 1, "{text}");
    assert!(divergence.what.contains("fc") || divergence.what.contains("batch_norm"), "{text}");
    let last = path.join("checkpoints/last.safetensors");
    assert_eq!(divergence.checkpoint.as_deref(), Some(last.as_path()));
    let state = Checkpoint::load(&last).unwrap().state;
    assert_eq!(state.position.step, 0, "the checkpoint before stays");
    assert!(fs::read_to_string(path.join("log.txt")).unwrap().contains("diverged"));
}

#[test]
fn patience_time_and_epochs_end_a_run() {
    let root = tempfile::tempdir().unwrap();
    // Without a learning rate nothing gets better after the first epoch.
    let frozen = [
        ("lr = 0.1", "lr = 1e-30"),
        ("epochs = 3", "epochs = 20\nearly_stop = 2"),
        ("ema_decay = 0.9", "ema_decay = 0.0"),
    ];
    let path = root.path().join("patience");
    let outcome = run(experiment(&frozen), &path);
    assert_eq!(outcome.end, End::EarlyStop);
    let best = Checkpoint::load(&path.join("checkpoints/last.safetensors")).unwrap().state.best.unwrap();
    assert_eq!(outcome.result.epochs, best.epoch + 2);

    let path = root.path().join("time");
    let limit = TrainOptions { max_time: Some(Duration::ZERO), ..options() };
    let mut trainer = Trainer::new(experiment(&[]), RunFolder::create_at(&path).unwrap(), limit).unwrap();
    let outcome = trainer.run(&mut Silent).unwrap();
    assert_eq!((outcome.end, outcome.result.epochs, outcome.result.best_top1), (End::TimeUp, 0, None));
    drop(trainer);

    let longer = TrainOptions { epochs: Some(4), ..resume_options() };
    let outcome = Trainer::resume(RunFolder::open(&path).unwrap(), longer).unwrap().run(&mut Silent).unwrap();
    assert_eq!((outcome.end, outcome.result.epochs), (End::Completed, 4));
    assert_eq!(resume(&path).result.epochs, 4, "a finished run stays finished");
}

#[test]
fn held_out_images_choose_the_best_epoch() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    run(experiment(&[("train_limit = 56", "train_limit = 80\nvalidation = 0.25")]), &path);
    let state = Checkpoint::load(&path.join("checkpoints/last.safetensors")).unwrap().state;
    let best = state.best.unwrap();
    assert_eq!(best.metric, "validation_top1");
    let values: Vec<f64> = state.history.iter().map(|r| r.validation_top1.unwrap()).collect();
    assert_eq!(best.value, values.iter().copied().fold(f64::MIN, f64::max));
    assert_eq!(best.epoch as usize - 1, values.iter().position(|v| *v == best.value).unwrap());
}

#[test]
fn the_environment_of_every_process_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let named = |name: &str| Some(Environment { version: name.into(), ..Environment::default() });
    let first = TrainOptions { environment: named("first"), max_time: Some(Duration::ZERO), ..options() };
    Trainer::new(experiment(&[]), RunFolder::create_at(&path).unwrap(), first).unwrap().run(&mut Silent).unwrap();
    let second = TrainOptions { environment: named("second"), ..resume_options() };
    drop(Trainer::resume(RunFolder::open(&path).unwrap(), second).unwrap());
    let environment = RunReader::open(&path).unwrap().environment().unwrap().unwrap();
    assert_eq!((environment.version.as_str(), environment.before[0].version.as_str()), ("second", "first"));
}

#[test]
fn a_run_that_cannot_begin_leaves_no_folder() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let no_data = TrainOptions { data_root: root.path().join("nowhere"), ..options() };
    let error = Trainer::new(experiment(&[]), RunFolder::create_at(&path).unwrap(), no_data).unwrap_err();
    assert_eq!(error.class(), Class::Data, "{error}");
    assert!(!path.exists());
    let no_batches = TrainOptions { limit_batches: Some(0), ..options() };
    assert!(Trainer::new(experiment(&[]), RunFolder::create_at(&path).unwrap(), no_batches).is_err());
    assert!(!path.exists());
}

#[test]
fn a_disk_that_refuses_a_checkpoint_fails_the_run() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut trainer = Trainer::new(experiment(&[]), RunFolder::create_at(&path).unwrap(), options()).unwrap();
    let checkpoints = path.join("checkpoints");
    let mut spoil = |event: &Event<'_>| {
        if matches!(event, Event::Step(step) if step.step == 2) {
            fs::rename(&checkpoints, path.join("moved")).unwrap();
            fs::write(&checkpoints, "in the way").unwrap();
        }
    };
    let error = trainer.run(&mut spoil).unwrap_err();
    assert_eq!(error.class(), Class::Failed);
    assert!(error.to_string().contains("last.safetensors: cannot write"), "{error}");
    assert_eq!(Checkpoint::load(&path.join("moved/last.safetensors")).unwrap().state.position.step, 0);
}

#[test]
fn a_predictor_gives_what_the_evaluation_saw() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    run(experiment(&[]), &path);
    let predictor = Predictor::open(&path).unwrap();
    let samples = RunReader::open(&path).unwrap().evaluation().unwrap().unwrap().samples;
    for sample in samples {
        // The files of a class are in the order of their names.
        let mut names: Vec<String> = (0..28).map(|n| format!("{n}.png")).collect();
        names.sort();
        let (class, file) = (sample.index as usize / 28, &names[sample.index as usize % 28]);
        assert_eq!(class, sample.label);
        let image = data().join("squares/test").join(format!("class{class}")).join(file);
        let prediction = predictor.predict(&image, 2).unwrap();
        assert_eq!(prediction.guesses.len(), 2);
        let best = &prediction.guesses[0];
        assert_eq!((best.class, best.name.clone()), (sample.predicted, format!("class{}", sample.predicted)));
        assert!((best.probability - sample.probability).abs() < 1e-5, "{best:?} {sample:?}");
        assert!(best.probability >= prediction.guesses[1].probability);
    }
    assert_eq!(predictor.predict(&path.join("env.json"), 1).unwrap_err().class(), Class::Data);
}

/// Precision and neuron are part of a run: other bits than without them, and the same bits again.
#[test]
fn precisions_and_neurons_train() {
    let root = tempfile::tempdir().unwrap();
    let plain = run(experiment(&[]), &root.path().join("plain"));
    let bf16 = ("batch_size = 8\neval", "batch_size = 8\nprecision = \"bf16\"\neval");
    let ours = ("name = \"mlp\"\nwidths = [12]", "name = \"small_cnn\"\nwidth = 0.25\nneuron = \"ours\"");
    let changes: [(&str, &[(&str, &str)]); 3] = [("bf16", &[bf16]), ("ours", &[ours]), ("both", &[bf16, ours])];
    for (name, changes) in changes {
        let [one, other] = ["one", "other"].map(|copy| run(experiment(changes), &root.path().join(name).join(copy)));
        assert_eq!(one.result.weights_sha256, other.result.weights_sha256, "{name}");
        assert_ne!(one.result.weights_sha256, plain.result.weights_sha256, "{name}");
        assert!(one.result.best_top1.is_some_and(|top1| top1 > 0.0), "{name}");
    }
}
