//! `quantize`: the weights of a trained network in few bits.

use crate::args::Quantize;
use crate::commands::{signals, train};
use crate::failure::Failure;
use crate::format::{bytes, count, percent};
use crate::progress::Progress;
use qzoo::experiment::{Experiment, Override};
use qzoo::quantize::{LayerResult, Search, SearchEvent, SearchOptions, SearchResult, Watch};
use qzoo::run::RunReader;
use qzoo::train::{Evaluator, Event, Observer};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Quantizes, then prints the tables.
pub(crate) fn run(arguments: &Quantize) -> Result<(), Failure> {
    let path = source(arguments)?;
    let evaluator = Evaluator::open(&path)?;
    let text = match &arguments.experiment {
        Some(file) => std::fs::read_to_string(file).unwrap_or_default(),
        None => evaluator.state().experiment.clone(),
    };
    let origin = arguments.experiment.clone().unwrap_or_else(|| evaluator.path().to_path_buf());
    let experiment = Experiment::parse(&origin, text, &overrides(arguments))?;
    let settings = experiment.quantize.clone().unwrap_or_default();
    let stop = signals::stop_flag()?;
    let options = SearchOptions {
        data_root: qzoo::data::data_root(arguments.root.data.as_deref()),
        images: 0,
        environment: Some(train::environment(&experiment, &arguments.root)),
        stop: stop.flag.clone(),
    };
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => folder(&evaluator, &settings)?,
    };
    let mut search = Search::open(evaluator, &settings, &folder, options)?;
    let interval = Duration::from_secs_f64(experiment.log.interval_seconds.clamp(0.1, 86_400.0));
    let mut show = Show { progress: Progress::new(arguments.output.quiet, interval) };
    let result = search.run(&mut show)?;
    show.progress.clear();
    let Some(result) = result else {
        let message =
            format!("interrupted; what is done is saved in {}, go on with the same command", folder.display());
        return Err(Failure::signal(stop.number(), message));
    };
    if arguments.output.json {
        println!("{}", object(&result));
    } else {
        print(&result);
        println!("{}", folder.display());
    }
    Ok(())
}

/// The run or checkpoint to quantize.
fn source(arguments: &Quantize) -> Result<PathBuf, Failure> {
    if let Some(path) = arguments.checkpoint.as_ref().or(arguments.run.as_ref()) {
        return Ok(path.clone());
    }
    let newest = qzoo::run::latest(Path::new(train::RUNS), None)?;
    newest.ok_or_else(|| {
        Failure::usage(format!(
            "there is no trained run below {}; train one with `quartz train experiments/quickstart.toml`, or name one with --run",
            train::RUNS
        ))
    })
}

/// The flags as keys of the experiment.
fn overrides(arguments: &Quantize) -> Vec<Override> {
    let text = |value: &String| toml_string(value);
    let list = |values: &[String]| {
        let items: Vec<String> = values.iter().map(text).collect();
        (!items.is_empty()).then(|| format!("[{}]", items.join(", ")))
    };
    let flags = [
        ("--bits", "quantize.bits", arguments.bits.as_ref().map(text)),
        ("--alphabet-scalar", "quantize.alphabet_scalar", arguments.alphabet_scalar.as_ref().map(text)),
        ("--method", "quantize.method", arguments.method.as_ref().map(text)),
        ("--mixed", "quantize.mixed", arguments.mixed.then(|| "true".to_string())),
        ("--budget", "quantize.budget", arguments.budget.as_ref().map(text)),
        ("--max-size", "quantize.max_size", arguments.max_size.as_ref().map(text)),
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

fn toml_string(text: &String) -> String {
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

fn object(result: &SearchResult) -> serde_json::Value {
    let best = &result.points[result.best];
    json!({
        "method": result.method, "bits": best.bits, "alphabet_scalar": best.alphabet_scalar,
        "analog_top1": result.analog_test.top1, "msq_top1": result.msq_test.top1, "best_top1": result.test.top1,
        "size_bytes": best.size_bytes, "seconds": best.seconds, "points": result.points,
    })
}

fn print(result: &SearchResult) {
    let best = &result.points[result.best];
    let accuracy = |score: &qzoo::train::Score| percent(score.correct as f64 / score.images.max(1) as f64);
    if result.points.len() > 1 {
        println!("{:>6}  {:>6}  {:>9}  {:>9}  {:>8}", "bits", "scalar", result.method, "msq", "seconds");
        for point in &result.points {
            let figures = [accuracy(&point.score), accuracy(&point.msq)];
            println!(
                "{:>6.3}  {:>6}  {:>9}  {:>9}  {:>8.1}",
                point.bits, point.alphabet_scalar, figures[0], figures[1], point.seconds
            );
        }
    }
    let width = best.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max(5);
    println!(
        "{:width$}  {:>9}  {:>5}  {:>7}  {:>7}  {:>8}  {:>6}  {:>7}  form",
        "layer", "weights", "bits", "error", "SQNR", "distinct", "zeros", "seconds"
    );
    for LayerResult { name, weights, bits, relative_error, sqnr, distinct, zeros, seconds, form, .. } in &best.layers {
        println!(
            "{name:width$}  {:>9}  {bits:>5.2}  {relative_error:>7.4}  {sqnr:>6.1}d  {distinct:>8}  {:>6}  {seconds:>7.2}  {form:?}",
            count(*weights as u64),
            percent(*zeros),
        );
    }
    let before = result.size_before;
    println!(
        "size {} -> {} ({:.1} times smaller)",
        bytes(before),
        bytes(best.size_bytes),
        before as f64 / best.size_bytes as f64
    );
    for (name, accuracy) in
        [("original", &result.analog_test), ("msq", &result.msq_test), (&result.method, &result.test)]
    {
        println!("{name:12} top-1 {}  top-5 {}", percent(accuracy.top1), percent(accuracy.top5));
    }
}

/// Shows a search.
struct Show {
    progress: Progress,
}

impl Observer for Show {
    fn event(&mut self, event: &Event<'_>) {
        self.progress.event(event);
    }
}

impl Watch for Show {
    fn search(&mut self, event: &SearchEvent<'_>) {
        match event {
            SearchEvent::Sensitivity { layer } => {
                let choices: Vec<String> = layer
                    .choices
                    .iter()
                    .map(|choice| format!("{:.4} at {:.2}", choice.divergence, choice.bits))
                    .collect();
                self.progress.say(&format!("{}: answers diverge by {} bits", layer.name, choices.join(", ")));
            }
            SearchEvent::Begins { number, total, bits, alphabet_scalar } => {
                self.progress.say(&format!("{}/{total}  {bits:.3} bits, scalar {alphabet_scalar}", number + 1));
            }
            SearchEvent::Layer { done, total, result } => {
                let LayerResult { name, relative_error, seconds, .. } = result;
                self.progress.say(&format!(
                    "  layer {done}/{total}  {name}: relative error {relative_error:.4}, {seconds:.2} s"
                ));
            }
            SearchEvent::Point { number, total, point } => {
                self.progress.clear();
                let accuracy = |score: &qzoo::train::Score| percent(score.correct as f64 / score.images.max(1) as f64);
                let (found, msq) = (accuracy(&point.score), accuracy(&point.msq));
                self.progress.say(&format!("{}/{total}  {found}, msq {msq}, {:.1} s", number + 1, point.seconds));
            }
            _ => {}
        }
    }
}
