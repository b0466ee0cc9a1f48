//! What a person sees of a quantization.

use crate::format::{bytes, count, percent, seconds};
use crate::progress::Progress;
use qzoo::experiment::Quantize;
use qzoo::quantize::{LayerPlan, LayerResult, Point, SearchEvent, SearchResult, Watch};
use qzoo::train::{Event, Observer, Score};

/// What would be done.
pub(super) fn plan(settings: &Quantize, plan: &[LayerPlan]) {
    let list = |values: &[f64]| values.iter().map(|value| number(*value)).collect::<Vec<_>>().join(", ");
    println!(
        "{}: bits {}; scalars {}",
        settings.method,
        list(settings.bits.as_slice()),
        list(settings.alphabet_scalar.as_slice())
    );
    let width = plan.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max(5);
    println!(
        "{:width$}  {:>10}  {:>16}  {:>16}  {:>7}  {:>9}",
        "layer", "weights", "bits", "characters", "form", "memory"
    );
    for layer in plan {
        let characters: Vec<f64> = layer.characters.iter().map(|count| *count as f64).collect();
        println!(
            "{:width$}  {:>10}  {:>16}  {:>16}  {:>7}  {:>9}",
            layer.name,
            count(layer.weights as u64),
            list(&layer.bits),
            list(&characters),
            layer.form.name(),
            bytes(layer.bytes)
        );
    }
    println!("{}", scope(settings, plan));
}

/// Networks that will be made; `None` where that shows on the way.
pub(super) fn networks(settings: &Quantize) -> Option<usize> {
    let bits = match (settings.mixed, &settings.budget) {
        (false, _) => settings.bits.as_slice().len(),
        (true, _) if settings.max_drop.is_some() => return None,
        (true, budget) => budget.as_ref().map_or(1, |budget| budget.as_slice().len()),
    };
    Some(bits * settings.alphabet_scalar.as_slice().len())
}

/// The extent of the work in a line.
pub(super) fn scope(settings: &Quantize, plan: &[LayerPlan]) -> String {
    let weights: usize = plan.iter().map(|layer| layer.weights).sum();
    let plural =
        |count: usize, word: &str| format!("{} {word}{}", self::count(count as u64), if count == 1 { "" } else { "s" });
    let networks =
        networks(settings).map_or_else(|| "networks until one is good enough".into(), |n| plural(n, "network"));
    let layers = plural(plan.len(), "layer");
    format!(
        "{layers} of {} weights; {networks}; up to {}",
        count(weights as u64),
        plural(settings.samples, "calibration image")
    )
}

/// The tables of what came of it.
pub(super) fn print(result: &SearchResult) {
    let best = &result.points[result.best];
    if result.points.len() > 1 {
        let width = result.method.len().max(9);
        println!(
            "{:>6}  {:>6}  {:>width$}  {:>9}  {:>10}  {:>8}",
            "bits", "scalar", result.method, "msq", "size", "seconds"
        );
        for (i, point) in result.points.iter().enumerate() {
            println!(
                "{:>6}  {:>6}  {:>width$}  {:>9}  {:>10}  {:>8.1}{}",
                number(point.bits),
                number(point.alphabet_scalar),
                share(&point.score),
                share(&point.msq),
                bytes(point.size_bytes),
                point.seconds,
                if i == result.best { "  best" } else { "" }
            );
        }
        println!();
    }
    layers(best);
    let before = result.size_before;
    let factor = before as f64 / best.size_bytes.max(1) as f64;
    println!("\nsize {} -> {} ({factor:.1} times smaller)", bytes(before), bytes(best.size_bytes));
    for (name, accuracy) in
        [("original", &result.analog_test), ("msq", &result.msq_test), (result.method.as_str(), &result.test)]
    {
        println!("{name:12}  top-1 {}  top-5 {}", percent(accuracy.top1), percent(accuracy.top5));
    }
}

fn layers(point: &Point) {
    let width = point.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max(5);
    println!(
        "{:width$}  {:>10}  {:>5}  {:>7}  {:>9}  {:>7}  {:>8}  {:>7}  {:>7}  form",
        "layer", "weights", "bits", "error", "msq alone", "SQNR", "distinct", "zeros", "seconds"
    );
    for layer in &point.layers {
        let LayerResult {
            name,
            weights,
            bits,
            relative_error,
            msq_error,
            sqnr,
            distinct,
            characters,
            zeros,
            seconds,
            form,
            ..
        } = layer;
        println!(
            "{name:width$}  {:>10}  {:>5}  {relative_error:>7.4}  {msq_error:>9.4}  {sqnr:>4.1} dB  {:>8}  {:>7}  {seconds:>7.2}  {}",
            count(*weights as u64),
            number(*bits),
            format!("{distinct}/{characters}"),
            percent(*zeros),
            form.name()
        );
    }
    for (name, reason) in &point.left {
        println!("{name} is left as it is: it {reason}");
    }
}

/// A number with at most three decimals.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Right answers in percent.
pub(crate) fn share(score: &Score) -> String {
    percent(score.correct as f64 / score.images.max(1) as f64)
}

/// Shows a search as it goes on.
pub(super) struct Show {
    pub(super) progress: Progress,
    /// The network that is being made.
    network: String,
}

impl Show {
    pub(super) fn new(progress: Progress) -> Self {
        Show { progress, network: String::new() }
    }
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
                let choices = layer.choices.iter();
                let choices: Vec<String> =
                    choices.map(|choice| format!("{:.4} at {}", choice.divergence, number(choice.bits))).collect();
                self.progress.say(&format!("{}: answers diverge by {} bits", layer.name, choices.join(", ")));
            }
            SearchEvent::Begins { number: place, total, bits, alphabet_scalar } => {
                let alphabet = format!("{} bits, scalar {}", number(*bits), number(*alphabet_scalar));
                self.network = format!("network {}/{total}  {alphabet}", place + 1);
            }
            SearchEvent::Layer { done, total, result } => {
                let LayerResult { name, relative_error, .. } = result;
                let about = format!("{name}: relative error {relative_error:.4}");
                self.progress.part(&format!("{}, layer", self.network), *done as u64, *total as u64, &about);
            }
            SearchEvent::Point { number: place, total, point } => {
                let alphabet = format!("{} bits, scalar {}", number(point.bits), number(point.alphabet_scalar));
                let (found, msq, time) = (share(&point.score), share(&point.msq), seconds(point.seconds));
                self.progress.say(&format!("network {}/{total}  {alphabet}: {found}  msq {msq}  {time}", place + 1));
            }
            _ => {}
        }
    }
}
