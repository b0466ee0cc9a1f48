//! The auto-builder as its users meet it.

mod common;

use common::{finish, json, quartz};
use std::path::{Path, PathBuf};

const TINY: &str = r#"
name = "tiny"
[data]
dataset = "shapes"
train_limit = 64
[model]
name = "vgg7"
layers = [6, 6, "pool", 8, 8, "pool"]
[train]
epochs = 1
batch_size = 32
eval_batch_size = 200
[optim]
name = "sgd"
lr = 0.02
[autobuild]
images = 100
seeds = 2
max_parameters = 0.9
"#;

fn tiny(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.toml");
    std::fs::write(&path, TINY).unwrap();
    path
}

#[test]
fn a_search_prints_tables_and_writes_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let (experiment, out) = (tiny(folder.path()), folder.path().join("search"));
    let output = finish(quartz().arg("autobuild").arg(&experiment).arg("--out").arg(&out), 0);
    let (shown, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    for word in ["P_M", "P_W", "RI", "round 1", "removed", "reduced.toml", "half an image"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(shown.lines().filter(|line| line.trim_start().starts_with("features.")).count() >= 4, "{shown}");
    assert!(log.contains("measured 9/9") && log.contains("report.html"), "{log}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("<circle") && page.contains("features.0") && !page.contains("http"));
    // What is done is only shown again.
    let again = finish(quartz().args(["autobuild", "--json", "--out"]).arg(&out).arg(&experiment), 0);
    let result = json(&again);
    assert_eq!((&result["met"], &result["answer"]), (&true.into(), &1.into()), "{result}");
    assert!(!String::from_utf8_lossy(&again.stderr).contains("measured"));
    // The answer is an experiment as any other, and its run one as any other.
    finish(quartz().args(["train", "--check"]).arg(out.join("reduced.toml")), 0);
    let eval = json(&finish(quartz().args(["eval", "--json"]).arg(out.join("round-1/run")), 0));
    assert_eq!(eval["top1"], result["rounds"][1]["test_top1"]);
}

#[test]
fn mistakes_end_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = tiny(folder.path());
    let out = folder.path().join("search");
    let command = |more: &[&str], code| {
        let output = finish(quartz().arg("autobuild").arg(&experiment).arg("--out").arg(&out).args(more), code);
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(command(&["--check"], 0).contains("can be reached"));
    assert!(command(&["--set", "model={ name = \"mlp\" }"], 2).contains("vgg16"));
    assert!(command(&["--set", "autobuild.max_parameters=0.01"], 2).contains("at best"));
    assert!(command(&["--set", "autobuild.ratio=2"], 2).contains("ratio"));
    assert!(command(&["--run", "absent"], 4).contains("absent"));
    assert!(!out.exists());
}
