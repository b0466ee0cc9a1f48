//! Memory by backward mode: what a profile says, and runs that choose their modes by a budget.

use qzoo::Error;
use qzoo::checkpoint::{Checkpoint, weights_digest};
use qzoo::experiment::Experiment;
use qzoo::run::{MemoryProfile, RunFolder, RunReader};
use qzoo::train::{Silent, TrainOptions, Trainer, memory_profile};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The count of the pool is one for the whole process: these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const QUADRATIC: &str = r#"
name = "small"
[data]
dataset = "shapes"
train_limit = 64
[model]
name = "resnet10"
neuron = "ours"
[backward]
mode = "symbolic"
[train]
epochs = 1
batch_size = 32
[optim]
name = "sgd"
lr = 0.05
momentum = 0.9
"#;

fn experiment(backward: &str) -> Experiment {
    let text = QUADRATIC.replace("mode = \"symbolic\"", backward);
    Experiment::parse("small.toml", text, &[]).unwrap_or_else(|e| panic!("{e}"))
}

/// Trains in a folder of its own and returns the digest of the weights and the memory profile.
fn trained(root: &Path, backward: &str) -> Result<(String, MemoryProfile), Error> {
    let name = format!("run{}", std::fs::read_dir(root).unwrap().count());
    let folder = RunFolder::create_at(&root.join(name)).unwrap();
    let path = folder.path().to_path_buf();
    let options = TrainOptions { limit_batches: Some(2), ..TrainOptions::default() };
    Trainer::new(experiment(backward), folder, options)?.run(&mut Silent)?;
    let run = RunReader::open(&path).unwrap();
    let weights = weights_digest(Checkpoint::load(&run.last()).unwrap().weights()).unwrap();
    Ok((weights, run.memory().unwrap().expect("a finished run has memory.json")))
}

#[test]
fn modes_that_compute_again_keep_less() {
    let _turn = turn();
    let profile = memory_profile(&experiment("mode = \"symbolic\""), [3, 32, 32], 10).unwrap();
    let names: Vec<&str> = profile.modes.iter().map(|total| total.mode.as_str()).collect();
    assert_eq!(names, ["ad", "symbolic", "symbolic_normalised", "symbolic_recompute", "recompute"]);
    let kept: Vec<u64> = profile.modes.iter().map(|total| total.kept_bytes).collect();
    assert!(kept[0] >= kept[1] && kept[1] == kept[2] && kept[2] > kept[3] && kept[3] > kept[4], "{kept:?}");
    let peaks: Vec<u64> = profile.modes.iter().map(|total| total.peak_bytes).collect();
    assert!(peaks[1] > peaks[3] && peaks[3] > peaks[4], "{peaks:?}");
    for (mode, total) in profile.modes.iter().enumerate() {
        let sum: u64 = profile.layers.iter().map(|layer| layer.modes[mode].kept_bytes).sum();
        assert_eq!(sum, total.kept_bytes, "{}", total.mode);
    }
    // Three projections of 16 channels of 32 by 32 pixels for each of 32 images.
    let first = profile.layers.iter().find(|layer| layer.name == "layer1.0.conv1").unwrap();
    assert_eq!(first.modes[1].kept_bytes - first.modes[3].kept_bytes, 3 * 32 * 16 * 32 * 32 * 4);
}

#[test]
fn a_budget_is_met_with_the_same_weights() {
    let _turn = turn();
    let root = tempfile::tempdir().unwrap();
    let (weights, free) = trained(root.path(), "mode = \"symbolic\"").unwrap();
    assert!(free.plan.is_none());
    let [most, least] = [1, 4].map(|mode| free.modes[mode].peak_bytes);
    // Between the two, with the momentum of the optimizer, which is as large as the parameters.
    let budget = (least + (most - least) / 3 + (1 << 20)) >> 10;
    let text = format!("mode = \"auto\"\nmemory_budget = \"{budget}KiB\"");
    let (planned, profile) = trained(root.path(), &text).unwrap();
    assert_eq!(planned, weights, "modes change memory and time, not results");
    let plan = profile.plan.unwrap();
    assert!(plan.peak_bytes <= plan.budget_bytes && plan.budget_bytes == budget << 10, "{plan:?}");
    assert!(!plan.layers.is_empty(), "{plan:?}");
    let (same, profile) = trained(root.path(), "mode = \"auto\"\nmemory_budget = \"1GiB\"").unwrap();
    assert_eq!((same, profile.plan.unwrap().layers.len()), (weights, 0), "nothing is computed again where all fits");
}

#[test]
fn a_budget_that_cannot_be_met_is_an_error_that_says_so() {
    let _turn = turn();
    let root = tempfile::tempdir().unwrap();
    let error = trained(root.path(), "mode = \"auto\"\nmemory_budget = \"64KiB\"").unwrap_err().to_string();
    assert!(error.contains("memory_budget") && error.contains("batch_size"), "{error}");
    let unknown = QUADRATIC.replace("neuron = \"ours\"", "neurons = { \"stage*\" = \"ours\" }");
    let experiment = Experiment::parse("small.toml", unknown, &[]).unwrap();
    let error = memory_profile(&experiment, [3, 32, 32], 10).unwrap_err().to_string();
    assert!(error.contains("stage*") && error.contains("layer1.0.conv1"), "{error}");
}
