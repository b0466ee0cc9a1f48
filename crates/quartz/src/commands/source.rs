//! Which trained network a command starts from.

use crate::args::DataRoot;
use crate::commands::signals::Stop;
use crate::commands::{import, train};
use crate::failure::Failure;
use qzoo::experiment::Experiment;
use qzoo::quantize::RESULT;
use qzoo::run::{RunReader, latest_where};
use qzoo::train::{End, TrainOptions};
use std::path::{Path, PathBuf};

/// The run of a training that ended, or of an import, whose weights are not quantized.
fn is_trained(run: &Path) -> bool {
    let has = |name: &str| run.join(name).is_file();
    (has("result.json") || has("import.json")) && !has(RESULT)
}

/// The most recent trained run; `command` is what `--run` or an experiment would be told.
pub(super) fn most_recent(command: &str) -> Result<PathBuf, Failure> {
    latest_where(Path::new(train::RUNS), None, is_trained)?.ok_or_else(|| {
        Failure::usage(format!(
            "there is no trained run below {0}; train one with `quartz train experiments/quickstart.toml`, name one, \
             or name an experiment, which is trained first: `quartz {command}`",
            train::RUNS
        ))
    })
}

/// The newest trained run of an experiment; `None` where there is none.
pub(super) fn newest(experiment: &Experiment) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = latest_where(Path::new(train::RUNS), Some(&experiment.name), is_trained)? else { return Ok(None) };
    let own = experiment_of(&path)?;
    let differs = match () {
        () if own.model != experiment.model => "model",
        () if own.data != experiment.data => "data",
        () => return Ok(Some(path)),
    };
    let path = path.display();
    Err(Failure::usage(format!(
        "{path}: the newest run of {} has another [{differs}] than the experiment; name a run with --run, or give the experiment another name",
        experiment.name
    )))
}

/// Makes a run of the checkpoint that the experiment names.
pub(super) fn import(experiment: &Experiment, root: &DataRoot, quiet: bool) -> Result<PathBuf, Failure> {
    let source = import::Source { experiment, file: None, root, out: None, allow_dropped: false };
    let (report, folder) = source.import()?;
    if !quiet {
        let (tensors, path) = (report.matched.len(), folder.path().display());
        anstream::eprintln!("{path}: {tensors} tensors from {}", report.file);
    }
    Ok(folder.path().to_path_buf())
}

/// Trains the experiment, or goes on with a training of it that has not ended, and returns the folder of the run.
pub(super) fn train(experiment: &Experiment, root: &DataRoot, quiet: bool, stop: &Stop) -> Result<PathBuf, Failure> {
    let options = TrainOptions {
        data_root: qzoo::data::data_root(root.data.as_deref()),
        stop: stop.flag.clone(),
        ..TrainOptions::default()
    };
    let trainer = match unfinished(experiment)? {
        Some(path) => train::go_on(&path, root, options)?,
        None => train::begin(experiment.clone(), None, root, options)?,
    };
    let (path, outcome) = train::complete(trainer, root, quiet)?;
    match outcome.end {
        End::Interrupted => {
            Err(Failure::signal(stop.number(), "interrupted; everything is saved, go on with the same command"))
        }
        _ => Ok(path),
    }
}

/// The newest run of the experiment whose training has not ended and would be the same today.
fn unfinished(experiment: &Experiment) -> Result<Option<PathBuf>, Failure> {
    let is_begun = |run: &Path| {
        let has = |name: &str| run.join(name).is_file();
        !has("result.json") && !has("import.json") && !has(RESULT) && has("checkpoints/last.safetensors")
    };
    let Some(path) = latest_where(Path::new(train::RUNS), Some(&experiment.name), is_begun)? else { return Ok(None) };
    Ok(same_training(&experiment_of(&path)?, experiment).then_some(path))
}

/// Whether two experiments train the same network: they may differ in what is done with it, and in what is logged.
pub(super) fn same_training(one: &Experiment, other: &Experiment) -> bool {
    let plain = |experiment: &Experiment| Experiment {
        quantize: None,
        // With a finetuning the training before it is dense.
        sparse: experiment.sparse.clone().filter(|sparse| sparse.finetune.is_none()),
        log: qzoo::experiment::Log::default(),
        ..experiment.clone()
    };
    plain(one) == plain(other)
}

fn experiment_of(run: &Path) -> Result<Experiment, Failure> {
    Ok(Experiment::parse(run.join("config.resolved.toml"), RunReader::open(run)?.experiment()?, &[])?)
}
