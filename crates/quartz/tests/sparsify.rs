//! The command `sparsify`, from nothing to the table.

mod common;

use common::{finish, quartz};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const TINY: &str = r#"
name = "tiny"
seed = 4
[data]
dataset = "shapes"
image_size = 12
train_limit = 128
[model]
name = "mlp"
widths = [128, 64]
[train]
epochs = 2
batch_size = 32
[optim]
name = "adam"
lr = 1e-3
[sparse]
skip = ["fc3"]
[sparse.finetune]
sparsity = [0.8, 0.95]
epochs = 2
lr = 1e-3
int8_precision = "bf16"
"#;

fn workplace() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("tiny.toml"), TINY).unwrap();
    root
}

fn sparsify(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = quartz();
    command.current_dir(folder).arg("sparsify").args(arguments);
    command
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_slice(&finish(&mut sparsify(folder, arguments), 0).stdout).unwrap()
}

fn error(folder: &Path, arguments: &[&str]) -> String {
    String::from_utf8(finish(&mut sparsify(folder, arguments), 2).stderr).unwrap()
}

#[test]
fn one_command_from_nothing_to_table_and_page() {
    let root = workplace();
    let folder = root.path();
    let table = json(folder, &["tiny.toml", "--json"]);
    assert_eq!((&table["epochs"], &table["batch"]), (&Value::from(2), &Value::from(32)));
    let variants = table["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 6, "two sparsities, three arithmetics");
    for (i, variant) in variants.iter().enumerate() {
        let wanted = [0.8, 0.95][i / 3];
        let arithmetic = ["dense", "f32", "int8"][i % 3];
        assert_eq!(variant["variant"]["arithmetic"], arithmetic);
        let zeros = variant["sparsity"].as_f64().unwrap();
        assert!((zeros - wanted).abs() < 1e-3, "{zeros}");
        assert_eq!(variant["pruned_layers"], 2);
        assert!(arithmetic != "dense" || variant["sparse_layers"] == 0);
        for field in ["top1", "epoch_seconds", "step_seconds", "activation_bytes", "peak_bytes"] {
            assert!(variant[field].as_f64().unwrap() > 0.0, "{field}");
        }
        let run = folder.join(variant["run"].as_str().unwrap());
        let tables: Value = serde_json::from_str(&std::fs::read_to_string(run.join("kernels.json")).unwrap()).unwrap();
        let layers = tables[0]["layers"].as_array().unwrap();
        assert!(layers.iter().all(|layer| !layer["why"].as_str().unwrap().is_empty()));
        let report = std::fs::read_to_string(run.join("report.html")).unwrap();
        assert!(report.contains("Kernels by layer") && report.contains("Zeros by layer"));
    }
    let page = std::fs::read_to_string(folder.join("runs/tiny-sparsify-1/report.html")).unwrap();
    assert!(page.contains("95-int8/report.html") && page.contains("80-dense"));

    // A second time it begins anew; with half of the work done it goes on.
    std::fs::remove_file(folder.join("runs/tiny-sparsify-1/finetuning.json")).unwrap();
    std::fs::remove_file(folder.join("runs/tiny-sparsify-1/95-int8/variant.json")).unwrap();
    let again = json(folder, &["tiny.toml", "--json"]);
    assert_eq!(again["variants"][5]["run"], variants[5]["run"]);
    for field in ["top1", "epoch_seconds", "sparse_layers"] {
        assert_eq!(again["variants"][5][field], variants[5][field], "{field}");
    }
    assert_eq!(again["variants"][0], variants[0]);
}

#[test]
fn a_check_trains_nothing() {
    let root = workplace();
    let folder = root.path();
    finish(quartz().current_dir(folder).args(["train", "--quiet", "tiny.toml"]), 0);
    let found = json(folder, &["runs/tiny-1", "--sparsity", "0.9", "--global", "--check", "--json"]);
    let layers = found["networks"][0]["table"]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    assert_eq!(found["networks"][0]["sparsity"], 0.9);
    let measured = |layer: &Value| layer["timings"].as_array().unwrap().len();
    assert!(layers.iter().all(|layer| matches!(measured(layer), 0 | 3)));
    assert!(!folder.join("runs/tiny-sparsify-1").exists());
    let text = finish(&mut sparsify(folder, &["runs/tiny-1", "--sparsity", "0.9", "--check"]), 0).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("choice") && text.contains("fc1") && text.contains("not pruned"), "{text}");
}

#[test]
fn mistakes_say_what_to_do() {
    let root = workplace();
    let folder = root.path();
    assert!(error(folder, &[]).contains("there is no trained run"));
    let message = error(folder, &["tiny.toml", "--sparsity", "1.5"]);
    assert!(message.contains("below 1") && message.contains("1.5"), "{message}");
    let message = error(folder, &["tiny.toml", "--arithmetic", "int4"]);
    assert!(message.contains("int4") && message.contains("int8"), "{message}");
    let message = error(folder, &["tiny.toml", "--epochs", "0"]);
    assert!(message.contains("epochs"), "{message}");
}
