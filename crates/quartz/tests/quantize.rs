//! Post-training quantization as its users meet it.

mod common;

use common::{TINY, finish, json, quartz};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A folder with the tiny experiment and how to quantize it.
fn workplace(section: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let small = TINY.replace("train_limit = 256", "train_limit = 256\nimage_size = 12");
    std::fs::write(folder.path().join("tiny.toml"), format!("{small}[quantize]\nsamples = 100\n{section}")).unwrap();
    folder
}

fn quantize(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = quartz();
    command.current_dir(folder).arg("quantize").args(arguments);
    command
}

fn error(folder: &Path, arguments: &[&str], code: i32) -> String {
    String::from_utf8(finish(&mut quantize(folder, arguments), code).stderr).unwrap()
}

/// The cells of a table in which no cell has a comma.
fn csv(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split(',').map(String::from).collect()).collect()
}

fn train(folder: &Path) -> PathBuf {
    finish(quartz().current_dir(folder).args(["train", "--quiet", "tiny.toml"]), 0);
    folder.join("runs/tiny-1")
}

#[test]
fn one_command_from_nothing_to_table_and_page() {
    let root = workplace("bits = [2, 4]\nalphabet_scalar = \"1:2\"\n");
    let folder = root.path();
    let first = finish(&mut quantize(folder, &["tiny.toml", "--json"]), 0);
    let log = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(log.contains("epoch   3") && log.contains("network 4/4") && log.contains("report.html"), "{log}");
    let result = json(&first);
    assert_eq!(result["grid"].as_array().unwrap().len(), 4);
    let numbers =
        ["bits", "alphabet_scalar", "analog_top1", "msq_top1", "best_top1", "analog_top5", "size_bytes", "seconds"];
    for key in numbers {
        assert!(result[key].is_number(), "{key}: {result}");
    }
    assert_eq!(result["method"], "aligned_ldlq");
    assert!(result["size_bytes"].as_u64().unwrap() * 3 < result["size_before_bytes"].as_u64().unwrap());
    let (trained, run) = (folder.join("runs/tiny-1"), folder.join("runs/tiny-aligned_ldlq-1"));
    assert!(trained.join("result.json").is_file());

    // The tables, of which the first columns are those of the reference.
    let layers = result["grid"][0]["layers"].as_array().unwrap();
    let grid = csv(&run.join("quantization.csv"));
    let reference = "data_set,serialized_model,q_train_size,ignore_layers,bits,alphabet_scalar,analog_test_acc,sd_test_acc,msq_test_acc,quantization_time";
    assert!(grid[0].join(",").starts_with(reference), "{:?}", grid[0]);
    assert_eq!((grid.len(), &grid[1][0], &grid[1][2], &grid[4][4]), (5, &"shapes".into(), &"100".into(), &"4".into()));
    assert!(grid.iter().all(|row| row.len() == grid[0].len()), "{grid:?}");
    let shares: Vec<f64> = grid[1..].iter().map(|row| row[7].parse().unwrap()).collect();
    let found: Vec<f64> = result["grid"].as_array().unwrap().iter().map(|row| row["top1"].as_f64().unwrap()).collect();
    assert_eq!(shares, found);
    let by_layer = csv(&run.join("quantization_layers.csv"));
    assert_eq!(by_layer.len(), 1 + 4 * layers.len());
    assert!(by_layer.iter().all(|row| row.len() == by_layer[0].len()), "{by_layer:?}");

    // What a check says beforehand is what is done.
    let planned = json(&finish(&mut quantize(folder, &["tiny.toml", "--check", "--json"]), 0));
    let about = |layer: &Value| ["name", "weights", "form"].map(|key| layer[key].clone());
    let planned: Vec<_> = planned["layers"].as_array().unwrap().iter().map(about).collect();
    assert_eq!(planned, layers.iter().map(about).collect::<Vec<_>>());

    // The page, and the same page again.
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    for part in ["Before and after", "Grid", "Layers", "Weights before and after", "Classes", "Experiment", "stroke="] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http") && page.contains(layers[0]["name"].as_str().unwrap()));
    finish(quartz().current_dir(folder).arg("report").arg(&run), 0);
    assert_eq!(std::fs::read_to_string(run.join("report.html")).unwrap(), page);

    // The run is one as any other.
    let eval = json(&finish(quartz().args(["eval", "--json"]).arg(&run), 0));
    assert_eq!(eval["top1"], result["best_top1"]);
    let original = json(&finish(quartz().args(["eval", "--json"]).arg(&trained), 0));
    assert_eq!(original["top1"], result["analog_top1"]);
    let details: Value =
        serde_json::from_str(&std::fs::read_to_string(run.join("quantization_details.json")).unwrap()).unwrap();
    let curve = &details["cumulative"];
    let last = curve["quantized"].as_array().unwrap().last().unwrap().as_u64().unwrap();
    let share = |correct: &Value| correct.as_f64().unwrap() / curve["images"].as_f64().unwrap();
    assert_eq!(curve["quantized"].as_array().unwrap().len(), layers.len());
    // All test images fit the curve's, so that its ends are the two networks.
    assert_eq!((share(&curve["original"]), share(&last.into())), (share_of(&original), share_of(&eval)));
    let image = folder.join("image.png");
    image::RgbImage::from_fn(12, 12, |x, y| image::Rgb([x as u8 * 20, y as u8 * 20, 90])).save(&image).unwrap();
    let guess = json(&finish(quartz().args(["predict", "--json"]).arg(&run).arg(&image), 0));
    assert_eq!(guess["images"].as_array().unwrap().len(), 1);

    // Again: nothing is trained, and the network is the same.
    let second = finish(&mut quantize(folder, &["tiny.toml", "--json", "--curve-images", "0"]), 0);
    assert!(!String::from_utf8_lossy(&second.stderr).contains("epoch"));
    assert!(!folder.join("runs/tiny-2").exists());
    assert_eq!(weights(&folder.join("runs/tiny-aligned_ldlq-2")), weights(&run));
    // Without a name: the newest run that is not quantized.
    let third = finish(&mut quantize(folder, &["--bits", "8", "--method", "msq", "--curve-images", "0"]), 0);
    let shown = String::from_utf8(third.stdout).unwrap();
    for word in ["layer", "SQNR", "times smaller", "original", "top-5", "runs/tiny-msq-1"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(String::from_utf8_lossy(&third.stderr).contains("runs/tiny-1/checkpoints/best.safetensors"));
    let refused = error(folder, &["--run", "runs/tiny-aligned_ldlq-1"], 2);
    assert!(refused.contains("quantized already"), "{refused}");
}

fn share_of(evaluation: &Value) -> f64 {
    evaluation["correct"].as_f64().unwrap() / evaluation["images"].as_f64().unwrap()
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("checkpoints/best.safetensors")).unwrap()
}

#[test]
fn mistakes_end_before_anything_is_written() {
    let root = workplace("");
    let folder = root.path();
    let nothing = error(folder, &[], 2);
    assert!(nothing.contains("no trained run below runs") && nothing.contains("quartz train"), "{nothing}");
    // Without a run, a check says what would be done.
    let check =
        finish(&mut quantize(folder, &["tiny.toml", "--check", "--bits", "1.58,3", "--alphabet-scalar", "1:3"]), 0);
    let shown = String::from_utf8(check.stdout).unwrap();
    assert!(shown.contains("6 networks") && shown.contains("gram") && shown.contains("3, 7"), "{shown}");
    let wrong = error(folder, &["tiny.toml", "--method", "gpqf"], 2);
    assert!(wrong.contains("--method") && wrong.contains("gpfq"), "{wrong}");
    assert!(error(folder, &["tiny.toml", "--bits", "9"], 2).contains("from 1 to 8"));
    assert!(error(folder, &["tiny.toml", "--bits", "three"], 2).contains("--bits"));
    let pattern = error(folder, &["tiny.toml", "--check", "--skip", "encoder*"], 2);
    assert!(pattern.contains("no layer matches encoder*; the layers are"), "{pattern}");
    assert!(!folder.join("runs").exists());

    let run = train(folder);
    let before = std::fs::read_dir(folder.join("runs")).unwrap().count();
    let pattern = error(folder, &["--layers", "nothing"], 2);
    assert!(pattern.contains("no layer matches nothing; the layers are"), "{pattern}");
    assert!(error(folder, &["--set", "model.width=0.5"], 2).contains("trained already"));
    assert!(error(folder, &["tiny.toml", "--set", "model.width=0.5"], 2).contains("another [model]"));
    assert!(error(folder, &["tiny.toml", "--set", "data.train_limit=64"], 2).contains("another [data]"));
    assert!(error(folder, &["--run", "absent"], 4).contains("absent"));
    let checked = json(&finish(&mut quantize(folder, &["--check", "--json", "--run", "runs/tiny-1"]), 0));
    assert_eq!(checked["networks"], 1);
    assert_eq!(std::fs::read_dir(folder.join("runs")).unwrap().count(), before);
    // What is there already is not written over.
    let taken = error(folder, &["--out", run.to_str().unwrap()], 2);
    assert!(taken.contains("tiny-1"), "{taken}");
}

/// Starts a grid and waits until it has some points; false where it ended before.
fn until(mut child: Child, run: &Path, points: usize, end: impl FnOnce(&mut Child)) -> (bool, std::process::Output) {
    let point = run.join(format!("points/{:04}.json", points - 1));
    let mut was_running = true;
    while !point.exists() && was_running {
        std::thread::sleep(Duration::from_millis(2));
        was_running = child.try_wait().unwrap().is_none();
    }
    if was_running {
        end(&mut child);
    }
    (was_running, child.wait_with_output().unwrap())
}

#[test]
fn a_grid_that_was_stopped_and_killed_ends_with_the_same_network() {
    let root = workplace("method = \"gpfq\"\nbits = [2, 4]\nalphabet_scalar = \"1:4\"\nalphabet = \"mid_rise\"\n");
    let folder = root.path();
    train(folder);
    let whole = json(&finish(&mut quantize(folder, &["--json", "--quiet", "--out", "whole"]), 0));
    let run = folder.join("parts");
    let start = || {
        quantize(folder, &["--json", "--out", "parts"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };

    let (was_running, output) = until(start(), &run, 2, |child| {
        #[cfg(unix)]
        assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
        #[cfg(not(unix))]
        child.kill().unwrap();
    });
    assert!(was_running, "a grid of 8 networks ended too soon");
    if cfg!(unix) {
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(143), "{log}");
        assert!(log.contains("go on with the same command"), "{log}");
    }
    let (was_running, _) = until(start(), &run, 4, |child| child.kill().unwrap());
    assert!(was_running, "a grid of 8 networks ended too soon");
    let stamp = |i: usize| std::fs::metadata(run.join(format!("points/{i:04}.json"))).unwrap().modified().unwrap();
    let before: Vec<_> = (0..4).map(stamp).collect();
    let parts = json(&finish(&mut quantize(folder, &["--json", "--quiet", "--out", "parts"]), 0));
    assert_eq!((0..4).map(stamp).collect::<Vec<_>>(), before, "points that are done are not done again");
    assert_eq!(weights(&run), weights(&folder.join("whole")));
    for key in ["best", "best_top1", "msq_top1", "size_bytes", "bits", "alphabet_scalar"] {
        assert_eq!(parts[key], whole[key], "{key}");
    }
    let details = |name: &str| std::fs::read(folder.join(name).join("quantization_details.json")).unwrap();
    assert_eq!(details("parts"), details("whole"));
    // What has ended is only shown again.
    let again = json(&finish(&mut quantize(folder, &["--json", "--out", "parts"]), 0));
    assert_eq!(again["grid"], parts["grid"]);
}
