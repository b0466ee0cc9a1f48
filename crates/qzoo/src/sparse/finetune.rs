//! A trained network, pruned and trained on, on several kinds of kernels side by side.

use super::decision::{Kernels, SwapTable};
use crate::checkpoint::atomic;
use crate::data::describe;
use crate::experiment::{Arithmetic, Cosine, Experiment, Finetune, Schedule, Shape, Sparse};
use crate::run::{Environment, RunError, RunFolder, RunReader, read_json};
use crate::train::{Beginning, End, Evaluator, Observer, Outcome, SWAPS, StopFlag, TrainOptions, Trainer, begin_with};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A training that the network goes through.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Share of zeros.
    pub sparsity: f64,
    /// What sparse layers compute in.
    pub arithmetic: Arithmetic,
}

/// What became of a variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantResult {
    /// Which.
    pub variant: Variant,
    /// Share of zeros among the weights of pruned layers at the end.
    pub sparsity: f64,
    /// Layers on sparse kernels.
    pub sparse_layers: usize,
    /// Pruned layers.
    pub pruned_layers: usize,
    /// Top-1 accuracy on the test images after the last epoch, a fraction; absent where there was none.
    pub top1: Option<f64>,
    /// Seconds of an epoch's training, without evaluation.
    pub epoch_seconds: f64,
    /// Seconds of the forward and the backward pass of a step.
    pub step_seconds: f64,
    /// Bytes kept between forward and backward pass.
    pub activation_bytes: u64,
    /// The most bytes in tensors at any moment of a step.
    pub peak_bytes: u64,
    /// The folder of the run.
    pub run: PathBuf,
}

/// What a finetuning came to: `finetuning.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinetuneTable {
    /// The checkpoint that was pruned.
    pub source: PathBuf,
    /// Its top-1 accuracy on the test images, a fraction, where the run has measured it.
    pub source_top1: Option<f64>,
    /// Epochs of each variant.
    pub epochs: usize,
    /// Images of a step.
    pub batch: usize,
    /// One a variant.
    pub variants: Vec<VariantResult>,
}

/// What a finetuning is told beside its network.
#[derive(Clone, Debug, Default)]
pub struct FinetuneOptions {
    /// Where the data sets are.
    pub data_root: PathBuf,
    /// At most so many batches of every pass.
    pub limit_batches: Option<u64>,
    /// Where and how the process runs.
    pub environment: Option<Environment>,
    /// Set by another thread to stop.
    pub stop: StopFlag,
}

/// Hears of a finetuning, and of the trainings within.
pub trait FinetuneWatch: Observer {
    /// A variant begins, or goes on: its number from 0, out of so many.
    fn begins(&mut self, number: usize, total: usize, variant: &Variant);
    /// A variant is done, or was done before.
    fn done(&mut self, result: &VariantResult);
}

/// The table of a finetuning, in its folder.
pub const FINETUNING: &str = "finetuning.json";
/// What a finetuning began with, in its folder.
pub const BEGINNING: &str = "sparsify.json";
/// What became of a variant, in the folder of its run.
const VARIANT: &str = "variant.json";

/// What tells a finetuning from others: the text of [`BEGINNING`].
pub fn beginning(evaluator: &Evaluator, settings: &Sparse) -> String {
    let weights = evaluator.digest().unwrap_or_default();
    format!(
        "{:#}\n",
        serde_json::json!({ "weights": weights, "sparse": settings, "batch": evaluator.experiment().train.batch_size })
    )
}

/// The variants of a section, in the order in which they are trained.
pub fn variants(settings: &Sparse) -> Vec<Variant> {
    let finetune = settings.finetune.clone().unwrap_or_default();
    let own = [settings.sparsity];
    let sparsities = if finetune.sparsity.is_empty() { &own[..] } else { &finetune.sparsity[..] };
    let of =
        |sparsity: f64| finetune.arithmetic.iter().map(move |arithmetic| Variant { sparsity, arithmetic: *arithmetic });
    sparsities.iter().copied().flat_map(of).collect()
}

/// The experiment of a variant.
fn experiment(base: &Experiment, settings: &Sparse, variant: Variant) -> Experiment {
    let finetune = settings.finetune.clone().unwrap_or_default();
    let mut experiment = Experiment { autobuild: None, quantize: None, ..base.clone() };
    experiment.name = format!("{}-{}", base.name, folder_name(variant));
    experiment.train.epochs = finetune.epochs;
    experiment.train.early_stop = 0;
    if let (Arithmetic::Int8, Some(precision)) = (variant.arithmetic, finetune.int8_precision) {
        experiment.train.precision = precision;
    }
    experiment.optim.lr = finetune.lr;
    experiment.schedule = Schedule { shape: Shape::Cosine(Cosine::default()), ..Schedule::default() };
    let Variant { sparsity, arithmetic } = variant;
    experiment.sparse = Some(Sparse { sparsity, arithmetic, finetune: None, ..settings.clone() });
    experiment
}

fn folder_name(variant: Variant) -> String {
    let percent = format!("{:.2}", 100.0 * variant.sparsity);
    format!("{}-{}", percent.trim_end_matches('0').trim_end_matches('.'), variant.arithmetic)
}

/// Prunes and trains every variant in a folder of its own below `path`, and writes the table. What an earlier process has done is not done again; `None` where it was stopped.
///
/// # Errors
/// The network is a quantized one, the data cannot be had, training fails, or the disk refuses.
pub fn finetune(
    evaluator: &Evaluator,
    settings: &Sparse,
    path: &Path,
    options: &FinetuneOptions,
    watch: &mut dyn FinetuneWatch,
) -> Result<Option<FinetuneTable>> {
    if !evaluator.packed().is_empty() {
        let message = "its weights are quantized; name the run that trained it";
        return Err(Error::Config(format!("{}: {message}", evaluator.path().display())));
    }
    let file = path.join(BEGINNING);
    let beginning = beginning(evaluator, settings);
    match std::fs::read_to_string(&file) {
        Ok(other) if other == beginning => {}
        Ok(_) => {
            let message =
                "holds the finetuning of another network or with other settings; choose another folder with --out";
            return Err(RunError::NotARun { path: path.to_path_buf(), message: message.into() }.into());
        }
        Err(_) => {
            std::fs::create_dir_all(path).map_err(RunError::io(path, "create"))?;
            atomic::write(&file, beginning).map_err(RunError::io(&file, "write"))?;
        }
    }
    let all = variants(settings);
    let mut results = Vec::with_capacity(all.len());
    for (number, variant) in all.iter().enumerate() {
        let folder = path.join(folder_name(*variant));
        let result = match read_json::<VariantResult>(&folder.join(VARIANT))? {
            Some(result) => result,
            None => {
                watch.begins(number, all.len(), variant);
                match train(evaluator, settings, *variant, &folder, options, watch)? {
                    Some(result) => result,
                    None => return Ok(None),
                }
            }
        };
        watch.done(&result);
        results.push(result);
    }
    let table = FinetuneTable {
        source: evaluator.path().to_path_buf(),
        source_top1: evaluator.state().best.as_ref().map(|best| best.test_top1),
        epochs: settings.finetune.as_ref().map_or_else(|| Finetune::default().epochs, |finetune| finetune.epochs),
        batch: evaluator.experiment().train.batch_size,
        variants: results,
    };
    let file = path.join(FINETUNING);
    let text = serde_json::to_string_pretty(&table).map_err(|e| RunError::io(&file, "write")(e.into()))?;
    atomic::write(&file, text + "\n").map_err(RunError::io(&file, "write"))?;
    Ok(Some(table))
}

/// Trains a variant, or goes on with it.
fn train(
    evaluator: &Evaluator,
    settings: &Sparse,
    variant: Variant,
    path: &Path,
    options: &FinetuneOptions,
    watch: &mut dyn FinetuneWatch,
) -> Result<Option<VariantResult>> {
    let has_begun = path.join("config.resolved.toml").is_file();
    let folder = if has_begun { RunFolder::open(path)? } else { RunFolder::take(path)? };
    if !has_begun {
        let experiment = experiment(evaluator.experiment(), settings, variant);
        let info = describe(&experiment.data, &options.data_root)?;
        let beginning = Beginning {
            experiment: &experiment,
            info: &info,
            parameters: evaluator.parameters(),
            environment: options.environment.as_ref(),
            origin: &format!("the weights of {}", evaluator.path().display()),
        };
        begin_with(&beginning, &folder)?;
    }
    let train_options = TrainOptions {
        data_root: options.data_root.clone(),
        limit_batches: options.limit_batches,
        environment: options.environment.clone(),
        stop: options.stop.clone(),
        ..TrainOptions::default()
    };
    let mut trainer = Trainer::resume(folder, train_options)?;
    let Outcome { end, result } = trainer.run(watch)?;
    if end != End::Completed {
        return Ok(None);
    }
    let profile = trainer.profile()?;
    let tables = read_json::<Vec<SwapTable>>(&path.join(SWAPS))?.unwrap_or_default();
    let layers = tables.last().map_or(&[][..], |table| &table.layers[..]);
    // From the books: this process may have found the run at its end.
    let pace = RunReader::open(path)?.metrics()?.epochs.last().map_or(0.0, |epoch| epoch.images_per_s);
    let images = trainer.steps_per_epoch() * profile.batch as u64;
    let found = VariantResult {
        variant,
        sparsity: trainer.zeros(),
        sparse_layers: layers.iter().filter(|layer| layer.choice != Kernels::Dense).count(),
        pruned_layers: layers.iter().filter(|layer| layer.sparsity > 0.0).count(),
        top1: result.last_top1,
        epoch_seconds: if pace > 0.0 { images as f64 / pace } else { 0.0 },
        step_seconds: profile.forward_seconds + profile.backward_seconds,
        activation_bytes: profile.retained_bytes,
        peak_bytes: profile.peak_bytes,
        run: path.to_path_buf(),
    };
    trainer.folder().write_json(VARIANT, &found)?;
    Ok(Some(found))
}
