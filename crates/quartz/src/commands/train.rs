//! `train`: an experiment from its file, or a run from where it stopped.

use crate::args::{DataRoot, Train};
use crate::commands::signals;
use crate::failure::Failure;
use crate::progress::Progress;
use qzoo::experiment::{Experiment, Override};
use qzoo::run::{Environment, RunFolder, RunReader, Surroundings, latest_where};
use qzoo::train::{End, Outcome, TrainOptions, Trainer};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where runs go that are given no folder.
pub(super) const RUNS: &str = "runs";

/// Trains, then writes the report and prints the totals.
pub(crate) fn run(arguments: &Train) -> Result<(), Failure> {
    let experiment = match &arguments.experiment {
        Some(path) => Some(load(arguments, path)?),
        None => None,
    };
    if arguments.check {
        let Some(experiment) = &experiment else {
            return Err(Failure::usage("--check needs an experiment file"));
        };
        return check(experiment, arguments);
    }
    let stop = signals::stop_flag()?;
    let options = TrainOptions {
        data_root: qzoo::data::data_root(arguments.root.data.as_deref()),
        limit_batches: arguments.limit_batches,
        max_time: max_time(arguments.max_time)?,
        epochs: arguments.epochs.map(|epochs| epochs as usize),
        environment: None,
        stop: stop.flag.clone(),
    };
    let mut trainer = match (&arguments.resume, experiment) {
        (Some(run), experiment) => resume(run.as_deref(), experiment.as_ref(), arguments, options)?,
        (None, Some(experiment)) => begin(experiment, arguments.out.as_deref(), &arguments.root, options)?,
        (None, None) => return Err(Failure::usage("an experiment file or --resume RUN is needed")),
    };
    if arguments.profile {
        super::profile::print(&trainer.profile()?);
    }
    let (path, outcome) = complete(trainer, &arguments.root, arguments.output.quiet)?;
    if arguments.output.json {
        println!("{}", serde_json::to_string(&outcome.result)?);
    }
    match outcome.end {
        End::Interrupted => Err(Failure::signal(
            stop.number(),
            format!("interrupted; everything is saved, go on with: train --resume {}", path.display()),
        )),
        _ => Ok(()),
    }
}

/// Trains to the end or to a signal, writes the report, and returns the folder of the run.
pub(super) fn complete(mut trainer: Trainer, root: &DataRoot, quiet: bool) -> Result<(PathBuf, Outcome), Failure> {
    let interval = Duration::from_secs_f64(trainer.experiment().log.interval_seconds.clamp(0.1, 86_400.0));
    let outcome = trainer.run(&mut Progress::new(quiet, interval))?;
    let path = trainer.folder().path().to_path_buf();
    drop(trainer);
    let report = crate::report::write_with_images(&RunReader::open(&path)?, root.data.as_deref())?;
    if !quiet {
        anstream::eprintln!("report: {}", report.display());
    }
    Ok((path, outcome))
}

fn load(arguments: &Train, path: &Path) -> Result<Experiment, Failure> {
    let mut overrides: Vec<Override> = arguments.set.iter().map(|set| Override::set(set)).collect();
    overrides.extend(arguments.seed.map(|seed| Override::flag("--seed", "seed", seed)));
    overrides.extend(arguments.epochs.map(|epochs| Override::flag("--epochs", "train.epochs", epochs)));
    Ok(Experiment::load(path, &overrides)?)
}

fn max_time(minutes: Option<f64>) -> Result<Option<Duration>, Failure> {
    let Some(minutes) = minutes else { return Ok(None) };
    let time = Duration::try_from_secs_f64(minutes * 60.0).ok().filter(|time| !time.is_zero());
    time.map(Some)
        .ok_or_else(|| Failure::usage(format!("--max-time is {minutes}; a number of minutes above 0 is needed")))
}

/// A run in the folder, or in a new one below [`RUNS`].
pub(super) fn begin(
    experiment: Experiment,
    out: Option<&Path>,
    root: &DataRoot,
    mut options: TrainOptions,
) -> Result<Trainer, Failure> {
    let folder = match out {
        Some(path) => RunFolder::create_at(path)?,
        None => RunFolder::create(Path::new(RUNS), &experiment.name)?,
    };
    options.environment = Some(environment(&experiment, root));
    Ok(Trainer::new(experiment, folder, options)?)
}

fn resume(
    run: Option<&Path>,
    experiment: Option<&Experiment>,
    arguments: &Train,
    options: TrainOptions,
) -> Result<Trainer, Failure> {
    if !arguments.set.is_empty() || arguments.seed.is_some() || arguments.out.is_some() {
        return Err(Failure::usage(
            "a run goes on with its own experiment: --set, --seed and --out do not fit --resume",
        ));
    }
    let path = match run {
        Some(path) => path.to_path_buf(),
        None => newest(experiment)?,
    };
    go_on(&path, &arguments.root, options)
}

/// A run from where it stopped.
pub(super) fn go_on(path: &Path, root: &DataRoot, mut options: TrainOptions) -> Result<Trainer, Failure> {
    let own = Experiment::parse(path.join("config.resolved.toml"), &RunReader::open(path)?.experiment()?, &[])?;
    options.environment = Some(environment(&own, root));
    Ok(Trainer::resume(RunFolder::open(path)?, options)?)
}

fn newest(experiment: Option<&Experiment>) -> Result<PathBuf, Failure> {
    let name = experiment.map(|experiment| experiment.name.as_str());
    let is_quantized = |run: &Path| run.join(qzoo::quantize::RESULT).is_file();
    latest_where(Path::new(RUNS), name, |run| !is_quantized(run))?.ok_or_else(|| {
        let of = name.map_or_else(String::new, |name| format!(" of {name}"));
        Failure::usage(format!("--resume: there is no run{of} below {RUNS}; name the run's folder"))
    })
}

/// Where and how this process runs.
pub(super) fn environment(experiment: &Experiment, root: &DataRoot) -> Environment {
    let data_root = match (&root.data, std::env::var_os("QUARTZ_DATA")) {
        (Some(_), _) => "--data",
        (None, Some(value)) if !value.is_empty() => "QUARTZ_DATA",
        _ => "default",
    };
    Environment::collect(Surroundings {
        isa: qkernels::isa::current().name().into(),
        threads: qkernels::par::threads(),
        seed: experiment.seed,
        data_root: data_root.into(),
        arguments: std::env::args().collect(),
    })
}

/// Builds the model for the data set's images without reading any, and says what a run would be.
fn check(experiment: &Experiment, arguments: &Train) -> Result<(), Failure> {
    let (model, _) = super::summary::build(experiment, arguments.root.data.as_deref())?;
    if !arguments.output.quiet {
        let parameters: usize = model.parameters().parameters().iter().map(|p| p.value.numel()).sum();
        anstream::eprintln!(
            "{}: {} with {} parameters: fine",
            experiment.name,
            model.name(),
            crate::format::count(parameters as u64)
        );
    }
    Ok(())
}
