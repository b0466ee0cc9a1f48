//! `analyze`: what goes on inside a trained network, as a page and as figures.

use crate::args::{Analyze, SplitName};
use crate::commands::signals;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::report::analysis::{self, Beside, Page, Shown, Stage};
use qzoo::analysis::{Analyzer, LayerMaps, Picture, SamplesOptions, Window, select};
use qzoo::data::Split;
use qzoo::run::RunReader;
use qzoo::train::StopFlag;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Looks at the network, writes the page, and prints where it is or the figures.
pub(crate) fn run(arguments: &Analyze) -> Result<(), Failure> {
    let stop = signals::stop_flag()?;
    let mut progress = Progress::new(arguments.output.quiet, Duration::from_secs(10));
    let interrupted = || Failure::signal(stop.number(), "interrupted; nothing was written");
    let options = options(arguments, &stop.flag);

    let analyzer = Analyzer::open(&arguments.run)?;
    let chosen = select(analyzer.layers(), arguments.layers.as_deref())?;
    let pictures = pictures(&analyzer, arguments, &options.data_root)?;
    let other = arguments.with.as_deref().map(|path| partner(&analyzer, path)).transpose()?;
    let shown = shown(&analyzer, other.as_ref(), &chosen, &pictures, arguments, &options.window)?;

    let mut stages = Vec::new();
    for (names, path) in checkpoints(&arguments.run)? {
        say(arguments, &format!("{}: {} images", names.join(", "), options.samples));
        let Some(report) = Analyzer::open(&path)?.statistics(&options, &mut progress)? else {
            return Err(interrupted());
        };
        stages.push(Stage { name: names.join(", "), report });
    }
    stages.sort_by_key(|stage| stage.report.step);
    let beside = match &other {
        Some(other) => {
            say(arguments, &format!("{}: {} images", other.evaluator().path().display(), options.samples));
            let Some(report) = other.statistics(&options, &mut progress)? else { return Err(interrupted()) };
            Some(Beside { name: run_name(arguments.with.as_deref().unwrap_or(Path::new(""))), report })
        }
        None => None,
    };
    progress.clear();

    let main = stages.iter().position(|stage| stage.report.path == analyzer.evaluator().path()).unwrap_or(0);
    let page = Page {
        name: run_name(&arguments.run),
        experiment: analyzer.evaluator().experiment(),
        shape: analyzer.evaluator().state().shape(),
        chosen: chosen.iter().map(|index| analyzer.layers()[*index].name.clone()).collect(),
        stages,
        main,
        beside,
        shown,
        window: options.window,
        window_is_given: arguments.window.is_some(),
        split: options.split.to_string(),
    };
    let out = out(arguments);
    qzoo::checkpoint::atomic::write(&out, analysis::render(&page))?;
    say(arguments, &format!("page: {}", out.display()));
    if arguments.output.json {
        println!("{}", figures(&page, &out));
    }
    Ok(())
}

fn say(arguments: &Analyze, text: &str) {
    if !arguments.output.quiet {
        anstream::eprintln!("{text}");
    }
}

fn options(arguments: &Analyze, stop: &StopFlag) -> SamplesOptions {
    SamplesOptions {
        data_root: qzoo::data::data_root(arguments.root.data.as_deref()),
        split: if arguments.split == SplitName::Train { Split::Train } else { Split::Test },
        samples: arguments.samples as usize,
        window: arguments.window.unwrap_or(Window::CENTRE),
        stop: stop.clone(),
    }
}

/// The run to show beside this one.
fn partner(analyzer: &Analyzer, path: &Path) -> Result<Analyzer, Failure> {
    let other = Analyzer::open(path)?;
    let (own, its) = (analyzer.evaluator().state().image_shape, other.evaluator().state().image_shape);
    if own != its {
        let message = format!("{} takes images of {its:?}, not of {own:?} as this run does", path.display());
        return Err(Failure::usage(message));
    }
    Ok(other)
}

/// The name of a run's folder or of a checkpoint.
fn run_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn out(arguments: &Analyze) -> PathBuf {
    let beside = || match arguments.run.is_dir() {
        true => arguments.run.join("analysis.html"),
        false => arguments.run.with_file_name("analysis.html"),
    };
    arguments.out.clone().unwrap_or_else(beside)
}

/// The checkpoints of a run with their names, each number of steps once: the same weights may have several names.
fn checkpoints(run: &Path) -> Result<Vec<(Vec<String>, PathBuf)>, Failure> {
    let paths = if run.is_dir() { RunReader::open(run)?.checkpoints()? } else { vec![run.to_path_buf()] };
    let mut found: Vec<(u64, Vec<String>, PathBuf)> = Vec::new();
    for path in paths {
        let step = Analyzer::open(&path)?.evaluator().state().position.step;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match found.iter_mut().find(|(other, ..)| *other == step) {
            Some((_, names, _)) => names.push(name),
            None => found.push((step, vec![name], path)),
        }
    }
    Ok(found.into_iter().map(|(_, names, path)| (names, path)).collect())
}

/// The images that were asked for, by number or by file.
fn pictures(analyzer: &Analyzer, arguments: &Analyze, data_root: &Path) -> Result<Vec<Picture>, Failure> {
    let numbers: Vec<usize> = arguments.images.iter().filter_map(|image| image.trim().parse().ok()).collect();
    let mut of_test = match numbers.is_empty() {
        true => Vec::new(),
        false => analyzer.test_pictures(&numbers, data_root)?,
    }
    .into_iter();
    let picture = |image: &String| match image.trim().parse::<usize>() {
        Ok(number) => {
            of_test.next().ok_or_else(|| Failure::usage(format!("--images: there is no test image {number}")))
        }
        Err(_) => Ok(analyzer.picture(Path::new(image))?),
    };
    arguments.images.iter().map(picture).collect()
}

/// The maps of every picture, with those of the other run's layers.
fn shown(
    analyzer: &Analyzer,
    other: Option<&Analyzer>,
    chosen: &[usize],
    pictures: &[Picture],
    arguments: &Analyze,
    window: &Window,
) -> Result<Vec<Shown>, Failure> {
    let partners: Option<Vec<usize>> =
        other.map(|other| chosen.iter().map(|index| counterpart(analyzer, *index, other)).collect());
    let shown = |picture: &Picture| {
        let maps = analyzer.maps(picture, chosen, &arguments.channels, window)?;
        let beside: Vec<LayerMaps> = match (other, &partners) {
            (Some(other), Some(partners)) => other.maps(picture, partners, &[], window)?,
            _ => Vec::new(),
        };
        Ok(Shown { picture: picture.clone(), maps, beside })
    };
    pictures.iter().map(shown).collect()
}

/// The layer of the same name in the other network, or else the one of its kind at the same share of the depth.
fn counterpart(analyzer: &Analyzer, index: usize, other: &Analyzer) -> usize {
    let layer = &analyzer.layers()[index];
    if let Some(same) = other.layers().iter().position(|its| its.name == layer.name) {
        return same;
    }
    let of_kind = |network: &Analyzer| -> Vec<usize> {
        let layers = network.layers();
        (0..layers.len()).filter(|i| layers[*i].is_convolution == layer.is_convolution).collect()
    };
    let (own, its) = (of_kind(analyzer), of_kind(other));
    let place = own.iter().position(|i| *i == index).unwrap_or(0) as f64 / (own.len().max(2) - 1) as f64;
    let nearest = (place * its.len().saturating_sub(1) as f64).round() as usize;
    its.get(nearest).copied().unwrap_or(0)
}

/// Everything in figures.
fn figures(page: &Page<'_>, out: &Path) -> Value {
    let maps = |layers: &[LayerMaps]| -> Vec<Value> {
        let each = layers.iter().flat_map(|layer| layer.maps.iter().map(move |map| (layer, map)));
        each.map(|(layer, map)| {
            json!({"layer": layer.layer.name, "place": map.place, "channel": map.channel, "size": map.size, "energy": map.energy})
        })
        .collect()
    };
    let images = page.shown.iter().map(|shown| {
        let (picture, own, beside) = (&shown.picture, maps(&shown.maps), maps(&shown.beside));
        json!({"image": picture.label, "class": picture.class, "maps": own, "with": beside})
    });
    let stages = page.stages.iter().map(|stage| json!({"name": stage.name, "statistics": stage.report}));
    json!({
        "page": out,
        "box": page.window,
        "split": page.split,
        "checkpoints": stages.collect::<Vec<_>>(),
        "with": page.beside.as_ref().map(|beside| json!({"name": beside.name, "statistics": beside.report})),
        "images": images.collect::<Vec<_>>(),
    })
}
