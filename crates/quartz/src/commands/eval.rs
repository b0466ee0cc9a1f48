//! `eval`: the accuracy of a run or a checkpoint on the test images.

use crate::args::Eval;
use crate::commands::signals;
use crate::failure::Failure;
use crate::format::{count, loss, percent};
use crate::progress::Progress;
use qzoo::train::{EvaluateOptions, Evaluator};
use serde_json::json;
use std::time::Duration;

/// Evaluates and prints the figures.
pub(crate) fn run(arguments: &Eval) -> Result<(), Failure> {
    let stop = signals::stop_flag()?;
    let evaluator = Evaluator::open(&arguments.run)?;
    let options = EvaluateOptions {
        data_root: qzoo::data::data_root(arguments.root.data.as_deref()),
        data_file: arguments.data_file.clone(),
        limit_batches: arguments.limit_batches,
        stop: stop.flag.clone(),
    };
    let mut progress = Progress::new(arguments.output.quiet, Duration::from_secs(10));
    let evaluation = evaluator.evaluate(&options, &mut progress)?;
    progress.clear();
    let Some(evaluation) = evaluation else { return Err(Failure::signal(stop.number(), "interrupted")) };
    let report = &evaluation.report;
    if arguments.output.json {
        let result = json!({
            "top1": report.top1, "top5": report.top5, "loss": report.loss,
            "images": report.images, "correct": evaluation.correct, "images_per_s": evaluation.images_per_s,
        });
        println!("{result}");
    } else {
        println!("{}", evaluator.path().display());
        println!("top-1 {}  top-5 {}  loss {}", percent(report.top1), percent(report.top5), loss(report.loss));
        let (correct, images) = (count(evaluation.correct), count(report.images));
        println!("{correct} of {images} images, {} images/s", count(evaluation.images_per_s.round() as u64));
        for class in &report.classes {
            let share = class.recall.map_or_else(|| "–".into(), percent);
            println!("  {:20} {share:>9}  of {}", class.name, count(class.images));
        }
    }
    Ok(())
}
