//! `quantize`: the weights of a trained network in few bits.

pub(crate) mod show;

use crate::args::Quantize;
use crate::commands::{signals, source, summary, train};
use crate::failure::Failure;
use crate::progress::Progress;
use qzoo::experiment::{Experiment, Override};
use qzoo::quantize::{LayerPlan, Point, Search, SearchOptions, SearchResult, plan};
use qzoo::run::RunReader;
use qzoo::train::{Evaluator, Score};
use serde_json::json;
use show::Show;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Quantizes, writes the report, and prints the tables.
pub(crate) fn run(arguments: &Quantize) -> Result<(), Failure> {
    let overrides = overrides(arguments);
    let file = arguments.experiment.as_ref().map(|path| Experiment::load(path, &overrides)).transpose()?;
    let stop = signals::stop_flag()?;
    let path = match (arguments.checkpoint.as_ref().or(arguments.run.as_ref()), &file) {
        (Some(path), _) => path.clone(),
        (None, None) => source::most_recent("quantize experiments/gpfq_mnist.toml")?,
        (None, Some(experiment)) => match source::newest(experiment)? {
            Some(path) => path,
            None if arguments.check => return check_untrained(experiment, arguments),
            None if experiment.import.file.is_some() => {
                source::import(experiment, &arguments.root, arguments.output.quiet)?
            }
            None => source::train(experiment, &arguments.root, arguments.output.quiet, &stop)?,
        },
    };
    let evaluator = Evaluator::open(&path)?;
    Search::accepts(&evaluator)?;
    let experiment = match file {
        Some(experiment) => experiment,
        None => of_run(&evaluator, &overrides)?,
    };
    let settings = experiment.quantize.clone().unwrap_or_default();
    // Mistakes show before there is a folder.
    let plan = plan(evaluator.model(), &settings, settings.samples)?;
    if arguments.check {
        return check(&experiment, &plan, arguments);
    }
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => folder(&evaluator, &settings)?,
    };
    let options = SearchOptions {
        data_root: qzoo::data::data_root(arguments.root.data.as_deref()),
        images: 0,
        cumulative_images: arguments.curve_images,
        environment: Some(train::environment(evaluator.experiment(), &arguments.root)),
        stop: stop.flag.clone(),
    };
    let interval = Duration::from_secs_f64(experiment.log.interval_seconds.clamp(0.1, 86_400.0));
    let mut show = Show::new(Progress::new(arguments.output.quiet, interval));
    let from = evaluator.path().display().to_string();
    let mut search = Search::open(evaluator, &settings, &folder, options)?;
    show.progress.say(&format!("{}: {from}: {}", settings.method, show::scope(&settings, &plan)));
    show.progress.say(&format!("run folder: {}", folder.display()));
    let result = search.run(&mut show)?;
    show.progress.clear();
    let Some(result) = result else {
        let message =
            format!("interrupted; what is done is saved in {}, go on with the same command", folder.display());
        return Err(Failure::signal(stop.number(), message));
    };
    drop(search);
    let report = crate::report::write_with_images(&RunReader::open(&folder)?, arguments.root.data.as_deref())?;
    if arguments.output.json {
        println!("{}", object(&result, &folder));
    } else {
        show::print(&result);
        println!("{}", folder.display());
    }
    if !arguments.output.quiet {
        anstream::eprintln!("report: {}", report.display());
    }
    Ok(())
}

/// The experiment of a trained network with what the command line says of its quantization.
fn of_run(evaluator: &Evaluator, overrides: &[Override]) -> Result<Experiment, Failure> {
    let experiment = Experiment::parse(evaluator.path(), evaluator.state().experiment.as_str(), overrides)?;
    if source::same_training(&experiment, evaluator.experiment()) {
        return Ok(experiment);
    }
    Err(Failure::usage("the network is trained already: --set may change keys of [quantize] and [log] only"))
}

/// Says what would be done.
fn check(experiment: &Experiment, plan: &[LayerPlan], arguments: &Quantize) -> Result<(), Failure> {
    let settings = experiment.quantize.clone().unwrap_or_default();
    if arguments.output.json {
        let (bits, scalars) = (settings.bits.as_slice(), settings.alphabet_scalar.as_slice());
        println!(
            "{}",
            json!({ "method": settings.method, "bits": bits, "alphabet_scalar": scalars, "networks": show::networks(&settings), "layers": plan })
        );
    } else {
        show::plan(&settings, plan);
    }
    Ok(())
}

fn check_untrained(experiment: &Experiment, arguments: &Quantize) -> Result<(), Failure> {
    let (model, _) = summary::build(experiment, arguments.root.data.as_deref())?;
    let settings = experiment.quantize.clone().unwrap_or_default();
    if !arguments.output.quiet {
        anstream::eprintln!("{}: no trained run below {}; it would be trained first", experiment.name, train::RUNS);
    }
    check(experiment, &plan(&model, &settings, settings.samples)?, arguments)
}

/// The flags as keys of the experiment.
fn overrides(arguments: &Quantize) -> Vec<Override> {
    let list = |values: &[String]| {
        let items: Vec<String> = values.iter().map(|text| toml_string(text)).collect();
        (!items.is_empty()).then(|| format!("[{}]", items.join(", ")))
    };
    let text = |value: &Option<String>| value.as_ref().map(|text| toml_string(text));
    let flags = [
        ("--bits", "quantize.bits", text(&arguments.bits)),
        ("--alphabet-scalar", "quantize.alphabet_scalar", text(&arguments.alphabet_scalar)),
        ("--method", "quantize.method", text(&arguments.method)),
        ("--mixed", "quantize.mixed", arguments.mixed.then(|| "true".to_string())),
        ("--budget", "quantize.budget", text(&arguments.budget)),
        ("--max-size", "quantize.max_size", text(&arguments.max_size)),
        ("--max-drop", "quantize.max_drop", arguments.max_drop.map(|drop| drop.to_string())),
        ("--activation-bits", "quantize.activation_bits", arguments.activation_bits.map(|bits| bits.to_string())),
        ("--samples", "quantize.samples", arguments.samples.map(|samples| samples.to_string())),
        ("--layers", "quantize.layers", list(&arguments.layers)),
        ("--skip", "quantize.skip", list(&arguments.skip)),
    ];
    let mut overrides: Vec<Override> = arguments.set.iter().map(|set| Override::set(set)).collect();
    overrides.extend(flags.into_iter().filter_map(|(flag, key, value)| Some(Override::flag(flag, key, value?))));
    overrides
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The folder of a search of this network with these settings that has not ended, or a new one.
fn folder(evaluator: &Evaluator, settings: &qzoo::experiment::Quantize) -> Result<PathBuf, Failure> {
    let base = format!("{}-{}", evaluator.experiment().name, settings.method);
    for number in 1.. {
        let path = Path::new(train::RUNS).join(format!("{base}-{number}"));
        if !path.exists() || (RunReader::open(&path).is_err() && Search::is_at(evaluator, settings, &path)?) {
            return Ok(path);
        }
    }
    Err(Failure::run("there is no free folder"))
}

fn object(result: &SearchResult, folder: &Path) -> serde_json::Value {
    let best = &result.points[result.best];
    let share = |score: &Score| score.correct as f64 / score.images.max(1) as f64;
    let row = |point: &Point| {
        json!({
            "bits": point.bits, "alphabet_scalar": point.alphabet_scalar, "top1": share(&point.score), "msq_top1": share(&point.msq),
            "size_bytes": point.size_bytes, "seconds": point.seconds, "layers": point.layers, "left": point.left,
        })
    };
    let grid: Vec<serde_json::Value> = result.points.iter().map(row).collect();
    json!({
        "run": folder, "method": result.method, "bits": best.bits, "alphabet_scalar": best.alphabet_scalar,
        "analog_top1": result.analog_test.top1, "msq_top1": result.msq_test.top1, "best_top1": result.test.top1,
        "analog_top5": result.analog_test.top5, "msq_top5": result.msq_test.top5, "best_top5": result.test.top5,
        "size_before_bytes": result.size_before, "size_bytes": best.size_bytes, "seconds": best.seconds,
        "split": result.split, "samples": result.samples, "best": result.best, "grid": grid,
    })
}
