//! `export` and `import` as their users meet them.

mod common;

use common::{TINY, finish, json, quartz};
use std::path::{Path, PathBuf};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A run of one epoch, and its experiment.
fn trained(folder: &Path) -> (PathBuf, PathBuf) {
    let (experiment, run) = (common::tiny(folder), folder.join("run"));
    finish(quartz().args(["train", "--quiet", "--epochs", "1", "--out"]).arg(&run).arg(&experiment), 0);
    (experiment, run)
}

fn import(file: &Path, experiment: &Path, out: &Path) -> std::process::Command {
    let mut command = quartz();
    command.arg("import").arg(file).arg("--experiment").arg(experiment).arg("--out").arg(out);
    command
}

#[test]
fn a_run_goes_out_and_comes_back_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (experiment, run) = trained(folder.path());
    let file = folder.path().join("model.pth");
    let exported = json(&finish(
        quartz().args(["export", "--json", "--format", "pth-compatible", "--out"]).arg(&file).arg(&run),
        0,
    ));
    assert!(exported["tensors"].as_u64().unwrap() > 10 && exported["bytes"].as_u64().unwrap() > 1000);
    let again = finish(quartz().args(["export", "--format", "pth", "--out"]).arg(&file).arg(&run), 2);
    assert!(text(&again.stderr).contains("--force"));
    let beside = finish(quartz().args(["export", "--format", "safetensors"]).arg(&run), 0);
    assert_eq!(text(&beside.stdout).trim(), run.join("export.safetensors").display().to_string());

    let back = folder.path().join("back");
    let report = json(&finish(import(&file, &experiment, &back).arg("--json"), 0));
    assert_eq!(report["matched"].as_array().unwrap().len() as u64, exported["tensors"]);
    assert_eq!((report["dropped"].as_array().unwrap().len(), &report["prefix"]), (0, &"".into()));
    assert_eq!(report["run"], back.display().to_string());
    let second = folder.path().join("second.pth");
    finish(quartz().args(["export", "--format", "pth", "--out"]).arg(&second).arg(&back), 0);
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&second).unwrap());

    // A safetensors file does as well, and the experiment may name it.
    let third = folder.path().join("third.pth");
    let from = folder.path().join("from");
    let file = format!("import.file=\"{}\"", "run/export.safetensors");
    let mut command = quartz();
    command
        .args(["import", "--json", "--set", &file, "--data"])
        .arg(folder.path())
        .arg("--experiment")
        .arg(&experiment);
    let report = json(&finish(command.arg("--out").arg(&from), 0));
    assert_eq!(
        (&report["format"], report["matched"].as_array().unwrap().len() as u64),
        (&"safetensors".into(), exported["tensors"].as_u64().unwrap())
    );
    finish(quartz().args(["export", "--format", "pth", "--out"]).arg(&third).arg(&from), 0);
    assert_eq!(std::fs::read(&third).unwrap(), std::fs::read(&second).unwrap());
    let nothing = finish(quartz().args(["import", "--experiment"]).arg(&experiment), 2);
    assert!(text(&nothing.stderr).contains("[import]"));

    // What takes the output of a training takes this.
    let top1 = |run: &Path| json(&finish(quartz().args(["eval", "--json"]).arg(run), 0))["top1"].clone();
    assert_eq!(top1(&back), top1(&run));
    finish(quartz().arg("report").arg(&back), 0);
    let result =
        json(&finish(quartz().args(["train", "--quiet", "--json", "--epochs", "1", "--resume"]).arg(&back), 0));
    assert_eq!(result["epochs"], 1);
}

#[test]
fn what_does_not_fit_is_explained_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (experiment, run) = trained(folder.path());
    let file = folder.path().join("model.pth");
    finish(quartz().args(["export", "--format", "pth", "--out"]).arg(&file).arg(&run), 0);
    let out = folder.path().join("out");
    let refused = |command: &mut std::process::Command| {
        let message = text(&finish(command, 4).stderr);
        assert!(message.contains(".pth") && !out.exists(), "{message}");
        message
    };
    let wider = refused(import(&file, &experiment, &out).args(["--set", "model.width=0.5"]));
    assert!(wider.contains("another shape") && wider.contains("conv"), "{wider}");
    let mut deeper = import(&file, &experiment, &out);
    deeper.args(["--set", "model.name=cifar_cnn"]);
    assert!(refused(&mut deeper).contains("not in the file"));
    let damaged = folder.path().join("damaged.pth");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
    refused(&mut import(&damaged, &experiment, &out));
    refused(&mut import(&folder.path().join("absent.pth"), &experiment, &out));
}

#[test]
fn values_that_would_be_lost_need_consent() {
    let folder = tempfile::tempdir().unwrap();
    let mlp = folder.path().join("mlp.toml");
    std::fs::write(&mlp, TINY.replace("small_cnn\"\nwidth = 0.25", "mlp\"\nwidths = [8]")).unwrap();
    let run = folder.path().join("run");
    finish(quartz().args(["train", "--quiet", "--epochs", "1", "--out"]).arg(&run).arg(&mlp), 0);
    let file = folder.path().join("mlp.pth");
    finish(quartz().args(["export", "--format", "pth", "--out"]).arg(&file).arg(&run), 0);
    let without = |out: &str| {
        let mut command = import(&file, &mlp, &folder.path().join(out));
        command.args(["--set", "model.batch_norm=false"]);
        command
    };
    let message = text(&finish(&mut without("refused"), 4).stderr);
    assert!(message.contains("--allow-dropped") && message.contains("such as"), "{message}");
    let said = text(&finish(without("taken").arg("--allow-dropped"), 0).stdout);
    assert!(said.contains("tensors dropped") && said.contains("largest"), "{said}");
}
