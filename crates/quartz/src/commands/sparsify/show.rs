//! What a person sees of a pruned network and its finetuning.

use crate::format::{bytes, columns, count, percent, seconds};
use crate::progress::Progress;
use qzoo::sparse::{Decision, FinetuneTable, FinetuneWatch, Kernels, Masks, SwapTable, Variant, VariantResult};
use qzoo::train::{Event, Observer};

/// Shows the trainings, and says what became of each.
pub(super) struct Show {
    pub(super) progress: Progress,
}

impl Show {
    pub(super) fn new(progress: Progress) -> Self {
        Show { progress }
    }
}

impl Observer for Show {
    fn event(&mut self, event: &Event<'_>) {
        self.progress.event(event);
    }
}

impl FinetuneWatch for Show {
    fn begins(&mut self, number: usize, total: usize, variant: &Variant) {
        let Variant { sparsity, arithmetic } = variant;
        self.progress.say(&format!("{}/{total}: {} % zeros, {arithmetic}", number + 1, 100.0 * sparsity));
    }

    fn done(&mut self, result: &VariantResult) {
        let top1 = result.top1.map_or("no accuracy".into(), percent);
        let Variant { sparsity, arithmetic } = result.variant;
        let time = seconds(result.epoch_seconds);
        self.progress.say(&format!("{} % zeros, {arithmetic}: {top1}, {time} an epoch", 100.0 * sparsity));
    }
}

/// What masks leave.
pub(super) fn heading(sparsity: f64, masks: &Masks) -> String {
    let left: usize = masks.patterns().map(|(_, pattern)| pattern.len()).sum();
    format!(
        "{} % wanted: {} weights left, {:.2} % zeros",
        100.0 * sparsity,
        count(left as u64),
        100.0 * masks.sparsity()
    )
}

/// The decision table.
pub(super) fn decisions(table: &SwapTable) {
    println!(
        "batch {} in {}, {} threads, {}; forward and backward pass in ms, between layers alike (alone among dense ones)",
        table.batch, table.precision, table.threads, table.isa
    );
    let measured = table.measured();
    let times = measured.iter().map(Kernels::to_string);
    let head = ["layer", "kind", "input", "zeros"].map(String::from).into_iter().chain(times);
    let mut lines = vec![head.chain(["choice", "why"].map(String::from)).collect::<Vec<String>>()];
    for layer in &table.layers {
        let input: Vec<String> = layer.input[1..].iter().map(usize::to_string).collect();
        let zeros = format!("{:.1} %", 100.0 * layer.sparsity);
        let cells = [layer.layer.clone(), layer.kind.clone(), input.join("×"), zeros];
        let times = measured.iter().map(|kernels| time(layer, *kernels));
        lines.push(cells.into_iter().chain(times).chain([layer.choice.to_string(), layer.why.clone()]).collect());
    }
    columns(&lines).iter().for_each(|line| println!("{line}"));
}

fn time(layer: &Decision, kernels: Kernels) -> String {
    match layer.timing(kernels) {
        None => "-".into(),
        Some(timing) if timing.within == timing.alone => format!("{:.2}", 1e3 * timing.within),
        Some(timing) => format!("{:.2} ({:.2})", 1e3 * timing.within, 1e3 * timing.alone),
    }
}

/// The table of a finetuning.
pub(super) fn print(table: &FinetuneTable) {
    let before = table.source_top1.map_or("unknown".into(), percent);
    println!(
        "{}: top-1 {before}; {} epochs of finetuning in batches of {}",
        table.source.display(),
        table.epochs,
        table.batch
    );
    println!(
        "{:>7}  {:>10}  {:>13}  {:>8}  {:>10}  {:>10}  {:>11}  {:>10}",
        "zeros", "arithmetic", "sparse layers", "top-1", "epoch", "step", "activations", "peak"
    );
    for result in &table.variants {
        println!(
            "{:>5.2} %  {:>10}  {:>13}  {:>8}  {:>10}  {:>8.1}ms  {:>11}  {:>10}",
            100.0 * result.sparsity,
            result.variant.arithmetic.to_string(),
            format!("{} of {}", result.sparse_layers, result.pruned_layers),
            result.top1.map_or("-".into(), percent),
            seconds(result.epoch_seconds),
            1e3 * result.step_seconds,
            bytes(result.activation_bytes),
            bytes(result.peak_bytes)
        );
    }
}
