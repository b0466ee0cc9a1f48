//! `analyze` as its users meet it.

mod common;

use common::{finish, json, quartz, tiny};
use std::path::Path;

fn message(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn train(run: &Path, experiment: &Path, settings: &[&str]) {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    finish(
        quartz().args(["train", "--quiet", "--limit-batches", "3"]).args(set).arg("--out").arg(run).arg(experiment),
        0,
    );
}

#[test]
fn a_page_and_figures_of_two_runs() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = tiny(folder.path());
    let (quadratic, plain) = (folder.path().join("quadratic"), folder.path().join("plain"));
    train(&quadratic, &experiment, &["model.neuron=\"ours\"", "log.keep_every=1"]);
    train(&plain, &experiment, &["train.epochs=1"]);
    let image = folder.path().join("image.png");
    image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([x as u8 * 6, y as u8 * 6, 90])).save(&image).unwrap();

    let images = format!("6,{}", image.display());
    let mut command = quartz();
    command.args(["analyze", "--json", "--samples", "40", "--channels", "0,1", "--images", &images, "--with"]);
    let figures = json(&finish(command.arg(&plain).arg(&quadratic), 0));
    let stages = figures["checkpoints"].as_array().unwrap();
    let epochs: Vec<_> = stages.iter().map(|stage| stage["statistics"]["epoch"].as_u64().unwrap()).collect();
    assert!(epochs.is_sorted() && [1, 2, 3].iter().all(|epoch| epochs.contains(epoch)), "{epochs:?}");
    let layer = &stages[0]["statistics"]["layers"][0];
    assert!(layer["ratio"].as_f64().unwrap() > 0.0 && layer["is_quadratic"] == true, "{layer}");
    assert_eq!(figures["with"]["statistics"]["layers"][0]["is_quadratic"], false);
    assert_eq!(figures["images"].as_array().unwrap().len(), 2);
    assert_eq!(figures["images"][1]["image"], image.display().to_string());

    let page = std::fs::read_to_string(quadratic.join("analysis.html")).unwrap();
    let parts = [
        "Activation maps",
        "Energy on the object",
        "Second-order and linear parts by depth",
        "Gradients by depth",
        "Over training",
        "Histograms",
        "Activations and gradients",
        "Weights",
        "second-order part",
        "linear part",
        "channel 1",
        "the middle of the image stands for the object",
        "plain: overlay",
        "data:image/png;base64,",
        "<polyline",
    ];
    for part in parts {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http") && !page.contains("<script"), "nothing comes from elsewhere");
}

#[test]
fn mistakes_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (experiment, run) = (tiny(folder.path()), folder.path().join("run"));
    train(&run, &experiment, &["train.epochs=1"]);
    let fails = |arguments: &[&str], code| {
        message(&finish(quartz().args(["analyze", "--quiet"]).args(arguments).arg(&run), code))
    };
    let wrong = fails(&["--layers", "convv1"], 2);
    assert!(wrong.contains("no layer matches") && wrong.contains("did you mean"), "{wrong}");
    assert!(fails(&["--images", "99999"], 2).contains("no test image 99999"));
    assert!(fails(&["--images", "absent.png"], 3).contains("absent.png"));
    assert!(fails(&["--channels", "77"], 2).contains("no channel 77"));
    assert!(fails(&["--box", "0.5,0,0.4,1"], 2).contains("four shares"));
    assert!(!run.join("analysis.html").exists(), "a command that failed writes nothing");

    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    assert!(fails(&[], 4).contains("last.safetensors"));
    let nothing = folder.path().join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    assert!(message(&finish(quartz().arg("analyze").arg(&nothing), 2)).contains("config.resolved.toml"));
}
