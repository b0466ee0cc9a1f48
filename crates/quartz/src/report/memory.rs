//! The memory profile in the report.

use super::html::{bar, escape, table as html_table};
use crate::format::{bytes, seconds};
use qzoo::run::MemoryProfile;

/// One row a layer, two columns a backward mode.
pub(super) fn table(profile: &MemoryProfile) -> String {
    let most =
        profile.layers.iter().flat_map(|layer| &layer.modes).map(|mode| mode.kept_bytes).max().unwrap_or(0).max(1);
    let mut head = vec!["layer".to_string()];
    for total in &profile.modes {
        head.extend([format!("{}: kept", total.mode), "time".to_string()]);
    }
    let rows = profile.layers.iter().map(|layer| {
        let mut cells = vec![if layer.name.is_empty() { "other".into() } else { escape(&layer.name) }];
        for mode in &layer.modes {
            cells.push(bar(&bytes(mode.kept_bytes), mode.kept_bytes as f64 / most as f64));
            cells.push(seconds(mode.seconds));
        }
        cells
    });
    let mut rows: Vec<Vec<String>> = rows.collect();
    let mut all = vec!["all".to_string()];
    let mut peak = vec!["most in tensors".to_string()];
    for total in &profile.modes {
        all.extend([bytes(total.kept_bytes), seconds(total.seconds)]);
        peak.extend([bytes(total.peak_bytes), String::new()]);
    }
    rows.extend([all, peak]);
    let plan = profile.plan.as_ref().map_or_else(String::new, |plan| {
        let chosen: Vec<String> = plan.layers.iter().map(|(layer, mode)| format!("{layer}: {mode}")).collect();
        let chosen = if chosen.is_empty() { "all symbolic".to_string() } else { chosen.join(", ") };
        format!(
            " For a budget of {} this run chose {chosen}; {} at the peak.",
            bytes(plan.budget_bytes),
            bytes(plan.peak_bytes)
        )
    });
    let about = format!(
        "What a step of {} images keeps between forward and backward pass, and the time of both, with all layers in one mode.{plan}",
        profile.batch
    );
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    format!("<p class=\"dim\">{}</p>{}", escape(&about), html_table(&head, &rows))
}
