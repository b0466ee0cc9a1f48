//! The parts of the report, each from one file of the run.

use super::html::{bar, escape, figure, table, tiles as html_tiles};
use super::plots::{Labels, Series, Style, confusion, curves};
use super::{ImageSource, pixels};
use crate::format::{bytes, count, loss, percent, rate, seconds, share_of_peak};
use qzoo::run::{Environment, EvaluationReport, Metrics, Profile, RunResult};

pub(super) fn heading(name: &str, environment: Option<&Environment>) -> String {
    let about = environment.map_or_else(String::new, |e| {
        let cpu = e.cpu.as_deref().unwrap_or("unknown CPU");
        format!("{} · {} threads · {} · seed {} · {}", cpu, e.threads, e.isa, e.seed, e.started)
    });
    format!("<h1>{}</h1><div class=\"dim\">{}</div>\n", escape(name), escape(&about))
}

pub(super) fn tiles(result: Option<&RunResult>, metrics: &Metrics, evaluation: Option<&EvaluationReport>) -> String {
    let mut tiles: Vec<(&str, String)> = Vec::new();
    if let Some(top1) = result.and_then(|r| r.best_top1) {
        tiles.push(("best test accuracy", percent(top1)));
    }
    if let Some(evaluation) = evaluation {
        tiles.push(("top-5 accuracy", percent(evaluation.top5)));
        tiles.push(("test loss", loss(evaluation.loss)));
    }
    tiles.push(("epochs", count(metrics.epochs.len() as u64)));
    if let Some(result) = result {
        // A process that only looked at a run that was over has no speed of its own.
        let before = metrics.epochs.last().map_or(0.0, |epoch| epoch.images_per_s);
        let speed = if result.images_per_s > 0.0 { result.images_per_s } else { before };
        tiles.push(("training speed", format!("{} images/s", count(speed.round() as u64))));
        tiles.push(("peak tensor memory", bytes(result.peak_bytes)));
        tiles.push(("time", seconds(result.seconds)));
    }
    html_tiles(&tiles)
}

/// Times the highest training loss beyond which a test loss is left out of the chart.
const OFF_THE_CHART: f64 = 10.0;

pub(super) fn charts(metrics: &Metrics) -> String {
    let first = metrics.epochs.first();
    let steps_per_epoch = first.map_or(0.0, |e| e.record.step as f64 / e.record.epoch.max(1) as f64);
    let at = |step: u64| if steps_per_epoch > 0.0 { step as f64 / steps_per_epoch } else { step as f64 };
    let by_epoch = |name, value: &dyn Fn(&qzoo::checkpoint::EpochRecord) -> Option<f64>| Series {
        name,
        points: metrics.epochs.iter().filter_map(|e| Some((e.record.epoch as f64, value(&e.record)?))).collect(),
        style: Style::default(),
    };
    let by_step = |name, value: &dyn Fn(&qzoo::run::StepLine) -> f64| Series {
        name,
        points: metrics.steps.iter().map(|s| (at(s.step), value(s))).collect(),
        style: Style::default(),
    };
    let x = if steps_per_epoch > 0.0 { "epoch" } else { "step" };
    // A mean that a few extreme images dominate would flatten everything else.
    let highest = metrics.epochs.iter().fold(0.0f64, |most, e| most.max(e.record.train_loss));
    let test_loss =
        |e: &qzoo::checkpoint::EpochRecord| Some(e.test_loss).filter(|loss| *loss <= OFF_THE_CHART * highest);
    let charts = [
        (
            "Loss: mean of the training epoch, and on the test images",
            curves(
                &[by_epoch("training", &|e| Some(e.train_loss)), by_epoch("test", &test_loss)],
                &Labels { x, y: "loss", percent: false },
            ),
        ),
        (
            "Top-1 accuracy",
            curves(
                &[by_epoch("training", &|e| Some(e.train_top1)), by_epoch("test", &|e| Some(e.test_top1))],
                &Labels { x, y: "accuracy", percent: true },
            ),
        ),
        (
            "Zeros among the weights of pruned layers",
            curves(&[by_epoch("zeros", &|e| e.sparsity)], &Labels { x, y: "zeros", percent: true }),
        ),
        (
            "Learning rate",
            curves(&[by_step("learning rate", &|s| s.lr)], &Labels { x, y: "learning rate", percent: false }),
        ),
        (
            "Loss of single steps, and norm of their gradients",
            curves(
                &[by_step("step loss", &|s| s.step_loss), by_step("gradient norm", &|s| s.grad_norm)],
                &Labels { x, y: "", percent: false },
            ),
        ),
    ];
    let figures: String =
        charts.into_iter().filter_map(|(caption, svg)| svg.map(|svg| figure(&svg, caption))).collect();
    if figures.is_empty() { figures } else { format!("<div class=\"charts\">{figures}</div>") }
}

pub(super) fn classes(evaluation: &EvaluationReport) -> String {
    let names: Vec<String> = evaluation.classes.iter().map(|class| class.name.clone()).collect();
    let matrix = figure(
        &confusion(&evaluation.confusion, &names),
        "Rows: true class. Columns: answer. Shade: share of the row.",
    );
    let share = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| bar(&percent(v), v));
    let rows: Vec<Vec<String>> = evaluation
        .classes
        .iter()
        .map(|class| vec![escape(&class.name), count(class.images), share(class.recall), share(class.precision)])
        .collect();
    format!("<div class=\"charts\">{matrix}{}</div>", table(&["class", "images", "recognised", "precision"], &rows))
}

pub(super) fn samples(evaluation: &EvaluationReport, images: &ImageSource<'_>) -> String {
    let name = |class: usize| evaluation.classes.get(class).map_or_else(|| class.to_string(), |c| escape(&c.name));
    let mut cards = String::new();
    for sample in &evaluation.samples {
        let Some(png) = images(&evaluation.split, sample.index) else { continue };
        let data = pixels::embedded(&png);
        let wrong = sample.label != sample.predicted;
        let truth = if wrong {
            format!("<br>really {} ({})", name(sample.label), percent(sample.label_probability))
        } else {
            String::new()
        };
        cards += &format!(
            "<div class=\"sample{}\"><img alt=\"image {}\" src=\"{data}\"><b>{}</b> {}{truth}</div>",
            if wrong { " wrong" } else { "" },
            sample.index,
            name(sample.predicted),
            percent(sample.probability),
        );
    }
    if cards.is_empty() { cards } else { format!("<div class=\"samples\">{cards}</div>") }
}

pub(super) fn layers(profile: &Profile) -> String {
    let most = |value: &dyn Fn(&qzoo::run::LayerCost) -> f64| {
        profile.layers.iter().map(value).fold(0.0, f64::max).max(f64::MIN_POSITIVE)
    };
    let time = most(&|l| l.forward.seconds.max(l.backward.seconds));
    let memory = most(&|l| l.retained_bytes as f64);
    let rows: Vec<Vec<String>> = profile
        .layers
        .iter()
        .map(|layer| {
            let mut cells = vec![if layer.name.is_empty() { "loss".into() } else { escape(&layer.name) }];
            for pass in [&layer.forward, &layer.backward] {
                let share = share_of_peak(pass.gflops(), profile.peak_gflops);
                cells.push(bar(&seconds(pass.seconds), pass.seconds / time));
                cells.push(rate(pass.gflops()));
                cells.push(share);
                cells.push(bytes(pass.bytes));
            }
            cells.push(bar(&bytes(layer.retained_bytes), layer.retained_bytes as f64 / memory));
            cells
        })
        .collect();
    let about = format!(
        "A step of {} images, medians of {}: {} forward, {} backward, {} update; {} kept for the backward pass, {} at the peak. \
         The multiply-add peak is {:.0} GFLOP/s; multiplications are counted as in the textbook, so that Winograd's algorithm can exceed it. \
         Bytes are those of the tensors that the layer's ops take and give.",
        profile.batch,
        profile.steps,
        seconds(profile.forward_seconds),
        seconds(profile.backward_seconds),
        seconds(profile.update_seconds),
        bytes(profile.retained_bytes),
        bytes(profile.peak_bytes),
        profile.peak_gflops
    );
    format!(
        "<p class=\"dim\">{}</p>{}",
        escape(&about),
        table(
            &[
                "layer",
                "forward",
                "GFLOP/s",
                "of peak",
                "bytes",
                "backward",
                "GFLOP/s",
                "of peak",
                "bytes",
                "kept for backward",
            ],
            &rows
        )
    )
}

pub(super) fn epochs(metrics: &Metrics) -> String {
    let rows: Vec<Vec<String>> = metrics
        .epochs
        .iter()
        .map(|line| {
            let e = &line.record;
            vec![
                e.epoch.to_string(),
                loss(e.train_loss),
                percent(e.train_top1),
                loss(e.test_loss),
                percent(e.test_top1),
                format!("{:.0}", line.images_per_s),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["epoch", "training loss", "training accuracy", "test loss", "test accuracy", "images/s"];
    format!(
        "<details{}><summary>{} epochs</summary>{}</details>",
        if rows.len() <= 12 { " open" } else { "" },
        rows.len(),
        table(&head, &rows)
    )
}

pub(super) fn experiment(toml: &str) -> String {
    format!("<pre>{}</pre>", escape(toml))
}

pub(super) fn environment(environment: &Environment) -> String {
    let git = environment.git.as_ref().map_or_else(
        || "–".into(),
        |git| format!("{}{}", git.revision, if git.dirty { ", with local changes" } else { "" }),
    );
    let rows = [
        ("version", environment.version.clone()),
        ("revision", git),
        ("processor", environment.cpu.clone().unwrap_or_else(|| "–".into())),
        ("platform", environment.platform.clone()),
        ("instruction set", environment.isa.clone()),
        ("threads", environment.threads.to_string()),
        ("command", environment.arguments.join(" ")),
        ("started", environment.started.clone()),
        ("continued", format!("{} times", environment.before.len())),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_string(), escape(&value)]).collect();
    table(&["", ""], &rows)
}
