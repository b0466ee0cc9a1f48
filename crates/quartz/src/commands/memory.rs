//! The table of `summary --memory`.

use crate::format::{bytes, seconds};
use qzoo::run::{LayerMode, MemoryProfile};

/// Prints one line a layer with what it keeps and takes in each backward mode, and the totals.
pub(super) fn print(profile: &MemoryProfile) {
    let name = |name: &str| if name.is_empty() { "other".to_string() } else { name.to_string() };
    let width = profile.layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0).max(18);
    let columns: Vec<usize> = profile.modes.iter().map(|total| total.mode.chars().count().max(21)).collect();
    let line = |first: &str, cells: Vec<String>| {
        let cells = cells.iter().zip(&columns).map(|(cell, width)| format!("  {cell:>width$}"));
        println!("{first:width$}{}", cells.collect::<String>());
    };
    println!(
        "\nkept for the backward pass, and time of both passes, of a step of {} images in each backward mode:",
        profile.batch
    );
    line("layer", profile.modes.iter().map(|total| total.mode.clone()).collect());
    let cell = |mode: &LayerMode| format!("{:>10} {:>10}", bytes(mode.kept_bytes), seconds(mode.seconds));
    for layer in &profile.layers {
        line(&name(&layer.name), layer.modes.iter().map(cell).collect());
    }
    let each = |value: &dyn Fn(&qzoo::run::ModeTotal) -> String| profile.modes.iter().map(value).collect();
    line("all", each(&|total| format!("{:>10} {:>10}", bytes(total.kept_bytes), seconds(total.seconds))));
    line(
        "an image",
        each(&|total| format!("{:>10} {:>10}", bytes(total.kept_bytes / profile.batch.max(1) as u64), "")),
    );
    line("most in tensors", each(&|total| format!("{:>10} {:>10}", bytes(total.peak_bytes), "")));
}
