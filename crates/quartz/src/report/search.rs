//! `report.html` of the auto-builder's search: all networks and the tables of their layers on one page.

use super::bars::{Axis, Mark, bars};
use super::html::{self, bar, escape, figure, page, section, table};
use super::sections;
use crate::commands::autobuild::{drop_of, notes, points, range_of};
use crate::failure::Failure;
use crate::format::{count, percent};
use qzoo::autobuild::{Importance, LayerImportance, Round, SearchResult};
use std::path::{Path, PathBuf};

/// Writes `report.html` into the folder of the search and returns its path.
pub(crate) fn write(folder: &Path, result: &SearchResult, experiment: &str) -> Result<PathBuf, Failure> {
    let path = folder.join("report.html");
    qzoo::checkpoint::atomic::write(&path, render(result, experiment))?;
    Ok(path)
}

fn render(result: &SearchResult, experiment: &str) -> String {
    let title = format!("{}: auto-builder", result.name);
    let mut body = format!("<h1>{}</h1><div class=\"dim\">{}</div>\n", escape(&title), escape(&verdict(result)));
    body += &tiles(result);
    body += &section("Networks", &networks(result));
    for round in &result.rounds {
        if let Some(importance) = &round.importance {
            body += &section(&format!("Layers of round {}", round.number), &layers(importance));
        }
    }
    body += &section("Experiment", &sections::experiment(experiment));
    page(&title, &body)
}

fn verdict(result: &SearchResult) -> String {
    let kept = if result.met { "all limits are kept" } else { "the limits are not reached" };
    format!("{}: {kept}; the answer is the network of round {}", result.ended, result.answer)
}

fn tiles(result: &SearchResult) -> String {
    let (full, answer) = (&result.rounds[0], &result.rounds[result.answer]);
    let share = |part: u64, whole: u64| percent(part as f64 / whole.max(1) as f64);
    let tiles = [
        ("accuracy of the full network", percent(full.accuracy)),
        ("accuracy of the answer", percent(answer.accuracy)),
        ("of the parameters", share(answer.size.parameters, full.size.parameters)),
        ("of the multiplications", share(answer.size.macs, full.size.macs)),
    ];
    html::tiles(&tiles)
}

fn networks(result: &SearchResult) -> String {
    let rows: Vec<Vec<String>> = result
        .rounds
        .iter()
        .map(|round| {
            vec![
                round.number.to_string(),
                escape(&round.layers),
                count(round.size.parameters),
                count(round.size.macs),
                percent(round.accuracy),
                points(result.points_lost(round)),
                percent(round.test_top1),
            ]
        })
        .collect();
    let metric = result.metric.as_str();
    let head = ["round", "layers", "parameters", "MACs", metric, "points lost", "test_top1"];
    let list = |round: &Round| {
        let changes: Vec<String> = round.changes.iter().map(|change| escape(&change.to_string())).collect();
        format!("<li>Round {}: {}</li>", round.number, changes.join(", "))
    };
    let changes: String = result.rounds.iter().skip(1).map(list).collect();
    format!("{}<ul>{changes}</ul>", table(&head, &rows))
}

fn layers(importance: &Importance) -> String {
    let mark = |layer: &LayerImportance, value, range| {
        // Numbers of VGG's layers have room beside each other.
        let name = layer.share.name.trim_start_matches("features.").to_string();
        Mark { name, value, range }
    };
    let scores: Vec<Mark> = importance.layers.iter().map(|l| mark(l, l.importance, [l.lowest, l.highest])).collect();
    let drops: Vec<Mark> = importance
        .layers
        .iter()
        .map(|l| {
            let (mean, deviation) = (100.0 * l.mean_drop, 100.0 * l.drop_deviation.unwrap_or(0.0));
            mark(l, mean, [mean - deviation, mean + deviation])
        })
        .collect();
    let charts = [
        ("RI: the mean's, and the range over the draws", bars(&scores, "RI", Axis::Logarithmic)),
        ("Accuracy lost where the layer is masked: mean and standard deviation", bars(&drops, "points", Axis::Linear)),
    ];
    let figures: String =
        charts.into_iter().filter_map(|(caption, svg)| svg.map(|svg| figure(&svg, caption))).collect();
    let highest = importance.layers.iter().map(|l| l.importance).fold(f64::MIN_POSITIVE, f64::max);
    let rows: Vec<Vec<String>> = importance
        .layers
        .iter()
        .map(|layer| {
            let share = &layer.share;
            vec![
                escape(&share.name),
                count(share.parameters),
                count(share.macs),
                bar(&format!("{:.5}", share.parameter_share), share.parameter_share),
                bar(&format!("{:.5}", share.mac_share), share.mac_share),
                escape(&drop_of(layer)),
                bar(&range_of(layer), layer.importance / highest),
            ]
        })
        .collect();
    let head = ["layer", "parameters", "MACs", "P_M", "P_W", "points lost", "RI"];
    let notes = escape(&notes(importance));
    format!("<div class=\"charts\">{figures}</div>{}<p class=\"dim\">{notes}</p>", table(&head, &rows))
}
