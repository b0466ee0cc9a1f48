//! The table of `train --profile`.

use crate::format::{bytes, rate, seconds, share_of_peak};
use qzoo::run::{PassCost, Profile};

/// Prints one line a layer, in the order of the forward pass, and the totals.
pub(super) fn print(profile: &Profile) {
    let name = |name: &str| if name.is_empty() { "loss".to_string() } else { name.to_string() };
    let width = profile.layers.iter().map(|layer| name(&layer.name).chars().count()).max().unwrap_or(0).max(5);
    let head = format!("{:>9} {:>7} {:>6} {:>10}", "time", "GFLOP/s", "peak", "bytes");
    anstream::eprintln!("{:width$}  {:^35}   {:^35}   {:>10}", "", "forward", "backward", "kept");
    anstream::eprintln!("{:width$}  {head}   {head}", "layer");
    for layer in &profile.layers {
        let [forward, backward] = [&layer.forward, &layer.backward].map(|pass| cells(pass, profile.peak_gflops));
        anstream::eprintln!(
            "{:width$}  {forward}   {backward}   {:>10}",
            name(&layer.name),
            bytes(layer.retained_bytes)
        );
    }
    let total = |pass: &dyn Fn(&qzoo::run::LayerCost) -> PassCost, seconds: f64| {
        let sum = profile.layers.iter().map(pass).fold(PassCost::default(), |sum, cost| PassCost {
            seconds,
            multiply_adds: sum.multiply_adds + cost.multiply_adds,
            bytes: sum.bytes + cost.bytes,
        });
        cells(&sum, profile.peak_gflops)
    };
    let forward = total(&|layer| layer.forward, profile.forward_seconds);
    let backward = total(&|layer| layer.backward, profile.backward_seconds);
    anstream::eprintln!("{:width$}  {forward}   {backward}   {:>10}", "all", bytes(profile.retained_bytes));
    anstream::eprintln!(
        "a step of {} images: {} and {} for the update; medians of {} steps; multiply-add peak {:.0} GFLOP/s; most memory in tensors {}",
        profile.batch,
        seconds(profile.forward_seconds + profile.backward_seconds),
        seconds(profile.update_seconds),
        profile.steps,
        profile.peak_gflops,
        bytes(profile.peak_bytes)
    );
}

fn cells(pass: &PassCost, peak: f64) -> String {
    let gflops = pass.gflops();
    format!(
        "{:>9} {:>7} {:>6} {:>10}",
        seconds(pass.seconds),
        rate(gflops),
        share_of_peak(gflops, peak),
        bytes(pass.bytes)
    )
}
