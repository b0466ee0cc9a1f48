//! The program as its users meet it: output, messages, exit codes.

mod common;

use common::{finish, json, quartz, tiny};
use std::process::Stdio;
use std::time::Duration;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn train_eval_predict_report() {
    let folder = tempfile::tempdir().unwrap();
    let (experiment, run) = (tiny(folder.path()), folder.path().join("run"));
    let output = finish(quartz().args(["train", "--json", "--profile", "--out"]).arg(&run).arg(&experiment), 0);
    let result = json(&output);
    for key in ["run", "epochs", "best_top1", "last_top1", "test_loss", "images_per_s", "peak_bytes", "seconds"] {
        assert!(!result[key].is_null(), "{key}: {result}");
    }
    assert!((0.0..=1.0).contains(&result["best_top1"].as_f64().unwrap()));
    let log = text(&output.stderr);
    assert!(log.contains("epoch   3") && !log.contains('\u{1b}'), "{log}");
    let fc = log.lines().find(|line| line.starts_with("fc ")).unwrap_or_else(|| panic!("no layer fc: {log}"));
    assert!(
        log.contains("GFLOP/s") && fc.matches('%').count() == 2,
        "both directions with their share of the peak: {fc}"
    );

    let eval = json(&finish(quartz().args(["eval", "--json"]).arg(&run), 0));
    assert_eq!(eval["images"], 2000);
    assert_eq!(eval["top1"], result["best_top1"]);

    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(
        page.contains("data:image/png;base64,")
            && page.contains("<polyline")
            && page.contains("<th>of peak</th>")
            && !page.contains("http")
    );
    let image = folder.path().join("image.png");
    image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([x as u8 * 6, y as u8 * 6, 90])).save(&image).unwrap();
    let predicted = json(&finish(quartz().args(["predict", "--json", "--topk", "2"]).arg(&run).arg(&image), 0));
    assert_eq!(predicted["images"][0]["guesses"].as_array().unwrap().len(), 2);

    // A run is never overwritten.
    let again = finish(quartz().args(["train", "--out"]).arg(&run).arg(&experiment), 2);
    assert!(text(&again.stderr).contains("--resume"), "{}", text(&again.stderr));
}

#[test]
fn mistakes_are_explained_and_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = tiny(folder.path());
    let bad = folder.path().join("bad.toml");
    std::fs::write(
        &bad,
        common::TINY.replace("momentum = 0.9", "momentun = 0.9").replace("batch_size = 16", "batch_size = 0"),
    )
    .unwrap();
    let output = finish(quartz().args(["train", "--check"]).arg(&bad), 2);
    let message = text(&output.stderr);
    assert!(
        message.contains("momentun = 0.9") && message.contains("did you mean \"momentum\"") && message.contains('^'),
        "{message}"
    );
    assert!(message.contains("batch_size"), "both mistakes at once: {message}");
    let output = finish(quartz().args(["train", "--check", "--set", "optim.lrr=0.1"]).arg(&experiment), 2);
    assert!(text(&output.stderr).contains("optim.lrr"));
    finish(quartz().args(["train", "--check"]).arg(&experiment), 0);
    finish(quartz().args(["train", "absent.toml"]), 2);
    finish(quartz().args(["nonsense"]), 2);
    finish(quartz().args(["doctor"]).env("QUARTZ_ISA", "sparc"), 2);
}

#[test]
fn missing_data_exit_with_3_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = folder.path().join("mnist.toml");
    std::fs::write(&experiment, "name = \"m\"\n[data]\ndataset = \"mnist\"\n[model]\nname = \"mlp\"\nwidths = [8]\n[optim]\nname = \"sgd\"\nlr = 0.1\n").unwrap();
    let output = finish(quartz().arg("train").arg(&experiment).arg("--data").arg(folder.path()), 3);
    let message = text(&output.stderr);
    assert!(message.contains("mnist") && message.contains("data fetch"), "{message}");
}

#[test]
fn damaged_checkpoints_exit_with_4() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.safetensors");
    std::fs::write(&file, b"not a checkpoint").unwrap();
    let output = finish(quartz().arg("eval").arg(&file), 4);
    assert!(text(&output.stderr).contains("x.safetensors"));
}

#[test]
fn divergence_exits_with_5_and_names_the_step() {
    let folder = tempfile::tempdir().unwrap();
    let (experiment, run) = (tiny(folder.path()), folder.path().join("run"));
    let set = ["--set", "optim.lr=1e30", "--set", "schedule.warmup_epochs=0.0"];
    let output = finish(quartz().args(["train", "--quiet"]).args(set).arg("--out").arg(&run).arg(&experiment), 5);
    let message = text(&output.stderr);
    assert!(message.contains("diverged in step"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_the_run_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = tiny(folder.path());
    let calm = folder.path().join("calm");
    finish(quartz().args(["train", "--quiet", "--out"]).arg(&calm).arg(&experiment), 0);
    let run = folder.path().join("stopped");
    let mut command = quartz();
    command.args(["train", "--quiet", "--out"]).arg(&run).arg(&experiment).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // The handler stands once the run's folder is there.
    while !run.join("metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    finish(std::process::Command::new("kill").arg("-TERM").arg(child.id().to_string()), 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output.stderr));
    finish(quartz().args(["train", "--quiet", "--resume"]).arg(&run), 0);
    assert_eq!(common::digest(&run), common::digest(&calm));
}

#[test]
fn listings() {
    let models = text(&finish(quartz().args(["list", "models"]), 0).stdout);
    assert!(models.contains("resnet20") && models.contains("mobilenet_v1"));
    let data = text(&finish(quartz().args(["data", "list"]), 0).stdout);
    assert!(data.contains("cifar10") && data.contains("shapes"));
    let folder = tempfile::tempdir().unwrap();
    let summary = text(&finish(quartz().arg("summary").arg(tiny(folder.path())), 0).stdout);
    assert!(summary.contains("parameters"), "{summary}");
}
