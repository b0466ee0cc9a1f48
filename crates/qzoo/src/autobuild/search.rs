use super::{Blueprint, Change, Ended, Images, Plan, Round, SearchEvent, SearchResult, Watch};
use crate::checkpoint::atomic;
use crate::experiment::{Experiment, Model};
use crate::run::{Environment, RunError, RunFolder, RunReader, read_json};
use crate::train::{End, Evaluator, StopFlag, TrainOptions, Trainer};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// What a search is told beside its experiment.
#[derive(Clone, Debug, Default)]
pub struct SearchOptions {
    /// Where the data sets are.
    pub data_root: PathBuf,
    /// A run or a checkpoint of the full network, to be taken instead of training one.
    pub run: Option<PathBuf>,
    /// Where and how the process runs, for the runs within.
    pub environment: Option<Environment>,
    /// Set by another thread to stop after the current step.
    pub stop: StopFlag,
}

/// A search in its folder.
#[derive(Debug)]
pub struct Search {
    pub(super) plan: Plan,
    pub(super) folder: RunFolder,
    pub(super) options: SearchOptions,
}

/// What the search began with: `search.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Beginning {
    run: Option<PathBuf>,
}

const EXPERIMENT: &str = "search.toml";
const BEGINNING: &str = "search.json";
const RESULT: &str = "result.json";
const ANSWER: &str = "reduced.toml";

impl Search {
    /// Begins a search in the folder, which is made where it does not exist, or takes up the one that is there.
    ///
    /// # Errors
    /// The [plan](Plan::new) cannot be made, the given run is not one of the full network, or the folder holds something else than this search.
    pub fn open(experiment: &Experiment, images: Images, path: &Path, options: SearchOptions) -> Result<Self> {
        let plan = Plan::new(experiment, images)?;
        if let Some(run) = &options.run {
            fits(&plan.round(0, plan.blueprint())?, Evaluator::open(run)?.experiment(), run)?;
        }
        let run = options.run.as_ref().map(|run| fs::canonicalize(run).unwrap_or_else(|_| run.clone()));
        let beginning = Beginning { run };
        let folder = RunFolder::take(path)?;
        let file = path.join(EXPERIMENT);
        if file.is_file() {
            let text = fs::read_to_string(&file).map_err(RunError::io(&file, "read"))?;
            let same = Experiment::parse(&file, text, &[])? == *experiment;
            if !same || read_json::<Beginning>(&path.join(BEGINNING))?.is_none_or(|other| other != beginning) {
                let message = "holds the search of another experiment, or one that began with another run; choose another folder with --out";
                return Err(RunError::NotARun { path: path.to_path_buf(), message: message.into() }.into());
            }
        } else {
            let mut entries = fs::read_dir(path).map_err(RunError::io(path, "read"))?;
            if entries.any(|entry| entry.is_ok_and(|e| e.file_name() != "lock" && e.file_name() != BEGINNING)) {
                return Err(RunError::Exists { path: path.to_path_buf() }.into());
            }
            folder.write_json(BEGINNING, &beginning)?;
            folder.write(EXPERIMENT, to_toml(experiment)?)?;
        }
        Ok(Search { plan, folder, options })
    }

    /// What the search is about to do.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Goes through all steps that were not done before. `None` where it was stopped; everything is saved then.
    ///
    /// # Errors
    /// The data, the disk or the engine fails, or a training diverges.
    pub fn run(&mut self, watch: &mut dyn Watch) -> Result<Option<SearchResult>> {
        if let Some(result) = self.read(RESULT)? {
            return Ok(Some(result));
        }
        let mut rounds: Vec<Round> = Vec::new();
        let mut blueprint = self.plan.blueprint().clone();
        let mut changes: Vec<Change> = Vec::new();
        let (answer, ended, metric) = loop {
            let number = rounds.len();
            let experiment = self.begin_round(number, &blueprint, &changes)?;
            let (layers, size) = (blueprint.to_string(), self.plan.size(&blueprint)?);
            watch.search(&SearchEvent::Network { number, layers: &layers, size, changes: &changes });
            let Some(run) = self.train(number, experiment, watch)? else { return Ok(None) };
            let evaluator = Evaluator::open(&run)?;
            let Some(best) = evaluator.state().best.clone() else {
                return Err(Error::Config(format!("{}: the run has no finished epoch yet", run.display())));
            };
            let (accuracy, test_top1) = (best.value, best.test_top1);
            let metric = best.metric;
            let changes_made = std::mem::take(&mut changes);
            let importance = None;
            rounds.push(Round { number, layers, size, changes: changes_made, accuracy, test_top1, importance });
            watch.search(&SearchEvent::Trained(&rounds[number]));
            let lost = 100.0 * (rounds[0].accuracy - accuracy);
            // Differences of fractions are not exact to the last bit.
            if number > 0 && self.plan.settings.max_drop.is_some_and(|most| lost > most + 1e-9) {
                break (number - 1, Ended::AccuracyLimit, metric);
            }
            let small_enough = self.plan.budget().is_some() && self.plan.budget().holds(size);
            if number > 0 && small_enough {
                break (number, Ended::BudgetMet, metric);
            }
            let parts = self.plan.parts(&blueprint)?;
            let Some(importance) = self.measure(number, evaluator, &parts, watch)? else { return Ok(None) };
            watch.search(&SearchEvent::Table(&importance));
            let scored: Vec<_> = importance.layers.iter().map(|l| (l.share.name.clone(), l.importance)).collect();
            rounds[number].importance = Some(importance);
            if small_enough {
                break (number, Ended::BudgetMet, metric);
            }
            let reduced = self.plan.reduce(&renumbered(&blueprint, &self.plan)?, &scored)?;
            if reduced.changes.is_empty() {
                break (number, Ended::NothingLeft, metric);
            }
            (blueprint, changes) = (reduced.blueprint, reduced.changes);
        };
        let budget = self.plan.budget();
        let met = budget.holds(rounds[answer].size);
        let (name, max_drop) = (self.plan.experiment.name.clone(), self.plan.settings.max_drop);
        let result = SearchResult { name, metric, budget, max_drop, rounds, answer, met, ended };
        if answer > 0 {
            let path = self.round_folder(answer)?.join("experiment.toml");
            self.folder.write(ANSWER, fs::read(&path).map_err(RunError::io(&path, "read"))?)?;
        }
        self.folder.write_json(RESULT, &result)?;
        Ok(Some(result))
    }

    /// The experiment of the answer, where that is not the full network.
    pub fn answer(&self) -> Option<PathBuf> {
        Some(self.path().join(ANSWER)).filter(|path| path.is_file())
    }

    /// Writes the experiment of a round.
    fn begin_round(&self, number: usize, blueprint: &Blueprint, changes: &[Change]) -> Result<Experiment> {
        let experiment = self.plan.round(number, blueprint)?;
        let list: String = changes.iter().map(|change| format!("\n#   {change}")).collect();
        let about = match number {
            0 => format!("# {}: the full network of its auto-builder's search.", self.plan.experiment.name),
            _ => format!("# {} after round {number} of its auto-builder's search:{list}", self.plan.experiment.name),
        };
        self.round_folder(number)?;
        self.folder.write(&format!("round-{number}/experiment.toml"), format!("{about}\n{}", to_toml(&experiment)?))?;
        Ok(experiment)
    }

    fn round_folder(&self, number: usize) -> Result<PathBuf> {
        let path = self.path().join(format!("round-{number}"));
        fs::create_dir_all(&path).map_err(RunError::io(&path, "create"))?;
        atomic::remove_stale(&path).map_err(RunError::io(&path, "remove temporary files"))?;
        Ok(path)
    }

    /// Trains the network of a round, or goes on with that; the folder of the finished run, or `None` where it was stopped.
    fn train(&self, number: usize, experiment: Experiment, watch: &mut dyn Watch) -> Result<Option<PathBuf>> {
        if let Some(run) = self.options.run.as_ref().filter(|_| number == 0) {
            return Ok(Some(run.clone()));
        }
        if self.options.stop.is_set() {
            return Ok(None);
        }
        let path = self.round_folder(number)?.join("run");
        let options = TrainOptions {
            data_root: self.options.data_root.clone(),
            environment: self.options.environment.clone(),
            stop: self.options.stop.clone(),
            ..TrainOptions::default()
        };
        let mut trainer = match RunReader::open(&path) {
            Ok(run) if run.result()?.is_some() => return Ok(Some(path)),
            Ok(_) => Trainer::resume(RunFolder::open(&path)?, options)?,
            Err(_) => {
                // A process that was killed before it wrote the run's experiment has left nothing to go on with.
                if path.exists() {
                    fs::remove_dir_all(&path).map_err(RunError::io(&path, "remove"))?;
                }
                Trainer::new(experiment, RunFolder::create_at(&path)?, options)?
            }
        };
        let outcome = trainer.run(watch)?;
        Ok(matches!(outcome.end, End::Completed | End::EarlyStop).then_some(path))
    }

    /// A file of the search; `None` where it is not there.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        Ok(read_json(&self.path().join(name))?)
    }
}

/// The blueprint with its layers numbered as in the network that was built of it.
fn renumbered(blueprint: &Blueprint, plan: &Plan) -> Result<Blueprint> {
    let mut model = plan.experiment.model.clone();
    blueprint.write(&mut model);
    Blueprint::of(&model)
}

fn to_toml(experiment: &Experiment) -> Result<String> {
    experiment.to_toml().map_err(|e| Error::Config(format!("the experiment cannot be written as TOML: {e}")))
}

/// A run is one of the full network where its model and its data are the same.
fn fits(full: &Experiment, found: &Experiment, run: &Path) -> Result<()> {
    // How weights were drawn, what was dropped in training and which algorithm convolved does not change what the network is.
    let network = |model: &Model| {
        let Model { init, dropout, winograd, .. } = Model::default();
        Model { init, dropout, winograd, ..model.clone() }
    };
    let message = match () {
        () if network(&full.model) != network(&found.model) => "another network",
        () if full.data.dataset != found.data.dataset || full.data.path != found.data.path => "another data set",
        () if full.data.validation != found.data.validation => "other held-out images",
        () => return Ok(()),
    };
    let path = run.display();
    let (wanted, neuron) = (full.model.name, full.model.neuron);
    Err(Error::Config(format!(
        "{path} was trained with {message} than the search needs: {wanted} of {neuron} neurons, as its [model] says"
    )))
}
