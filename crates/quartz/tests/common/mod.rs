//! A small training that every test of the program can run in seconds.

#![allow(dead_code)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An experiment on generated images that takes some tens of steps and saves often.
pub(crate) const TINY: &str = r#"
name = "tiny"
seed = 3
[data]
dataset = "shapes"
train_limit = 256
[data.augment]
crop_padding = 4
flip = true
[model]
name = "small_cnn"
width = 0.25
dropout = 0.1
[train]
epochs = 3
batch_size = 16
eval_batch_size = 250
ema_decay = 0.9
[optim]
name = "sgd"
lr = 0.05
momentum = 0.9
nesterov = true
[schedule]
name = "cosine"
unit = "step"
warmup_epochs = 0.5
[log]
checkpoint_every_steps = 2
"#;

/// The program under test, told to colour nothing.
pub(crate) fn quartz() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("quartz"));
    command.env("NO_COLOR", "1").env_remove("QUARTZ_DATA");
    command
}

/// Writes the tiny experiment into a folder.
pub(crate) fn tiny(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.toml");
    std::fs::write(&path, TINY).unwrap();
    path
}

/// Runs a command, checks its exit code, and returns what it printed.
pub(crate) fn finish(command: &mut Command, code: i32) -> Output {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    output
}

/// The one JSON object on stdout.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// The digest of the final weights of a finished run.
pub(crate) fn digest(run: &Path) -> String {
    let result: Value = serde_json::from_str(&std::fs::read_to_string(run.join("result.json")).unwrap()).unwrap();
    result["weights_sha256"].as_str().unwrap().to_string()
}
