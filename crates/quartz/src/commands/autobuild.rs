//! `autobuild`: from a network of quadratic neurons to a smaller one, by the importance of its layers.

use crate::args::Autobuild;
use crate::commands::{signals, train};
use crate::failure::Failure;
use crate::format::{count, percent};
use crate::progress::Progress;
use qzoo::autobuild::{
    Images, Importance, LayerImportance, Plan, Round, Search, SearchEvent, SearchOptions, SearchResult, Watch,
};
use qzoo::experiment::{Experiment, Override};
use qzoo::train::{Event, Observer};
use std::path::Path;
use std::time::Duration;

/// Searches, then writes the report and prints the tables and the answer.
pub(crate) fn run(arguments: &Autobuild) -> Result<(), Failure> {
    let overrides: Vec<Override> = arguments.set.iter().map(|set| Override::set(set)).collect();
    let experiment = Experiment::load(&arguments.experiment, &overrides)?;
    let root = qzoo::data::data_root(arguments.root.data.as_deref());
    let info = qzoo::data::describe(&experiment.data, &root)?;
    let shape = [info.shape.channels, info.shape.height, info.shape.width];
    let images = Images { shape, classes: info.classes.len() };
    if arguments.check {
        return check(&Plan::new(&experiment, images)?, arguments.output.quiet);
    }
    let stop = signals::stop_flag()?;
    let options = SearchOptions {
        data_root: root,
        run: arguments.run.clone(),
        environment: Some(train::environment(&experiment, &arguments.root)),
        stop: stop.flag.clone(),
    };
    let default = Path::new(train::RUNS).join(format!("{}-autobuild", experiment.name));
    let mut search = Search::open(&experiment, images, arguments.out.as_deref().unwrap_or(&default), options)?;
    let interval = Duration::from_secs_f64(experiment.log.interval_seconds.clamp(0.1, 86_400.0));
    let mut show = Show { progress: Progress::new(arguments.output.quiet, interval) };
    let result = search.run(&mut show)?;
    show.progress.clear();
    let folder = search.path().display();
    let Some(result) = result else {
        let message = format!("interrupted; everything is saved in {folder}, go on with the same command");
        return Err(Failure::signal(stop.number(), message));
    };
    let report = crate::report::search::write(search.path(), &result, &experiment.to_toml().unwrap_or_default())?;
    if arguments.output.json {
        println!("{}", serde_json::to_string(&result)?);
    } else {
        print(&result);
        if let Some(answer) = search.answer() {
            println!("the reduced network: {}", answer.display());
        }
    }
    if !arguments.output.quiet {
        anstream::eprintln!("report: {}", report.display());
    }
    Ok(())
}

fn check(plan: &Plan, quiet: bool) -> Result<(), Failure> {
    if quiet {
        return Ok(());
    }
    let (full, budget) = (plan.full(), plan.budget());
    anstream::eprintln!("full network: {}", plan.blueprint());
    anstream::eprintln!("{} parameters, {} multiplications an image", count(full.parameters), count(full.macs));
    for (what, limit) in [("parameters", budget.parameters), ("multiplications", budget.macs)] {
        if let Some(limit) = limit {
            anstream::eprintln!("at most {} {what}: can be reached", count(limit));
        }
    }
    Ok(())
}

fn print(result: &SearchResult) {
    for round in &result.rounds {
        println!("{}", heading(round));
        round.changes.iter().for_each(|change| println!("  {change}"));
        let lost = points(result.points_lost(round));
        println!("  {} {}, {lost} points lost", result.metric, percent(round.accuracy));
        if let Some(importance) = &round.importance {
            table(importance);
        }
    }
    let answer = &result.rounds[result.answer];
    let kept = if result.met { "all limits are kept" } else { "the limits are not reached" };
    println!("{}: {kept}; the answer is round {}: {}", result.ended, answer.number, answer.layers);
}

fn heading(round: &Round) -> String {
    let size = round.size;
    format!(
        "round {}: {} ({} parameters, {} multiplications)",
        round.number,
        round.layers,
        count(size.parameters),
        count(size.macs)
    )
}

/// RI with its range, the same in the report.
pub(crate) fn range_of(layer: &LayerImportance) -> String {
    format!("{:.2e} ({:.2e} to {:.2e})", layer.importance, layer.lowest, layer.highest)
}

/// Percentage points, without a sign where they round to zero.
pub(crate) fn points(value: f64) -> String {
    let text = format!("{value:.2}");
    if text == "-0.00" { "0.00".into() } else { text }
}

/// Mean and deviation of the accuracy lost, in points, with a star where the test cannot tell it from none.
pub(crate) fn drop_of(layer: &LayerImportance) -> String {
    let star = if layer.below_resolution { "*" } else { "" };
    let deviation = layer.drop_deviation.map_or_else(String::new, |d| format!(" ± {:.2}", 100.0 * d));
    format!("{}{deviation}{star}", points(100.0 * layer.mean_drop))
}

/// What the figures of a table are, in one sentence each.
pub(crate) fn notes(table: &Importance) -> String {
    let draws = table.layers.first().map_or(0, |layer| layer.drops.len());
    format!(
        "Whole network: {} of {} {} images. Masked: {}, a share of {} of each layer, {draws} draws; running statistics {}. RI = P_M · P_W / δ, δ the accuracy lost as a \
         fraction; δ below {:.2e}, half an image's worth (*), counts as that. The range of RI is over the draws.",
        percent(table.accuracy),
        table.images,
        table.split,
        table.masking,
        table.ratio,
        if table.recalibrated { "measured anew each time" } else { "as trained" },
        table.resolution,
    )
}

fn table(table: &Importance) {
    let width = table.layers.iter().map(|layer| layer.share.name.len()).max().unwrap_or(0).max(5);
    let row = |[name, parameters, macs, p_m, p_w, drop]: [&str; 6], ri: &str| {
        println!("  {name:width$}  {parameters:>12}  {macs:>13}  {p_m:>7}  {p_w:>7}  {drop:>15}  {ri}");
    };
    row(["layer", "parameters", "MACs", "P_M", "P_W", "points lost"], "RI");
    for layer in &table.layers {
        let share = &layer.share;
        let numbers = [count(share.parameters), count(share.macs)];
        let shares = [share.parameter_share, share.mac_share].map(|share| format!("{share:.5}"));
        let cells = [&share.name, &numbers[0], &numbers[1], &shares[0], &shares[1], &drop_of(layer)];
        row(cells.map(String::as_str), &range_of(layer));
    }
    println!("  {}", notes(table));
}

/// Shows a search: trainings as `train` does, and a line for what lies between.
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
            SearchEvent::Network { number, layers, size, changes } => {
                let (parameters, macs) = (count(size.parameters), count(size.macs));
                self.progress
                    .say(&format!("round {number}: {layers}, {parameters} parameters, {macs} multiplications"));
                changes.iter().for_each(|change| self.progress.say(&format!("  {change}")));
            }
            SearchEvent::Trained(round) => {
                self.progress.clear();
                self.progress.say(&format!("round {}: accuracy {}", round.number, percent(round.accuracy)));
            }
            SearchEvent::Measured { layer, draw, score, done, total } => {
                let accuracy = percent(score.correct as f64 / score.images.max(1) as f64);
                let what = match layer {
                    Some(layer) => format!("{layer} masked, draw {}", draw + 1),
                    None => "whole network".into(),
                };
                self.progress.say(&format!("measured {done}/{total}  {what}: {accuracy}"));
            }
            _ => {}
        }
    }
}
