use super::evaluate::evaluate;
use super::feed::{EvaluationFeed, image_shape};
use super::network::Network;
use super::report::{Samples, evaluation_report};
use super::restore::from_toml;
use super::save::EMA;
use super::{Event, Observer, StopFlag};
use crate::Result;
use crate::checkpoint::{Checkpoint, CheckpointError, State};
use crate::data::DatasetInfo;
use crate::experiment::Experiment;
use crate::models::Model;
use crate::nn::{Inputs, Parameters};
use crate::quantize::{Packed, inputs, unpack};
use crate::run::{EvaluationReport, RunReader};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What an evaluation is told beside its checkpoint.
#[derive(Clone, Debug, Default)]
pub struct EvaluateOptions {
    /// Where the data sets are.
    pub data_root: PathBuf,
    /// Evaluate on the images of this file instead of the data set's test images, see [`open_test_file`](crate::data::open_test_file).
    pub data_file: Option<PathBuf>,
    /// At most so many batches.
    pub limit_batches: Option<u64>,
    /// Set by another thread to stop.
    pub stop: StopFlag,
}

/// An evaluation with its speed.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Figures, confusion matrix and samples.
    pub report: EvaluationReport,
    /// Images a second, with the loading of the data.
    pub images_per_s: f64,
    /// Images that were recognised.
    pub correct: u64,
}

/// A trained network, read from the folder of a run or from a checkpoint.
#[derive(Clone, Debug)]
pub struct Evaluator {
    pub(super) network: Network,
    pub(super) experiment: Experiment,
    pub(super) state: State,
    /// Weights that are stored as characters of an alphabet.
    packed: Vec<Packed>,
    path: PathBuf,
}

impl Evaluator {
    /// Reads a network: the best weights of a run's folder (the last where there are none yet), or those of a checkpoint.
    ///
    /// # Errors
    /// There is no checkpoint, or it is damaged or does not fit its experiment.
    pub fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() { weights_of(&RunReader::open(path)?) } else { path.to_path_buf() };
        let checkpoint = Checkpoint::load(&path)?;
        let misfit = |error: &dyn std::fmt::Display| CheckpointError::incompatible(&path, error.to_string());
        let experiment = from_toml(&checkpoint.state.experiment, &path)?;
        let state = &checkpoint.state;
        let mut network =
            Network::build(&experiment, state.image_shape, state.classes.len()).map_err(|error| misfit(&error))?;
        let packed = unpack(&checkpoint, &path)?;
        let values = packed.iter().map(|packed| Ok((packed.about.name.as_str(), packed.values()?)));
        let values = values.collect::<qgraph::Result<Vec<_>>>()?;
        let quantized = values.iter().map(|(name, tensor)| (*name, tensor));
        network.load(checkpoint.weights().chain(quantized)).map_err(|error| misfit(&error))?;
        let parameters = network.parameters().parameters();
        let inputs = inputs(&packed, |name| parameters.iter().position(|parameter| parameter.name == name))?;
        network.model_mut().set_inputs(inputs);
        if checkpoint.with_prefix(EMA).next().is_some() {
            network.load(checkpoint.with_prefix(EMA)).map_err(|error| misfit(&error))?;
        }
        Ok(Evaluator { network, experiment, state: checkpoint.state, packed, path })
    }

    /// The checkpoint that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The parameters and buffers that are evaluated.
    pub fn parameters(&self) -> &Parameters {
        self.network.parameters()
    }

    /// The network with the parameters that are evaluated.
    pub fn model(&self) -> &Model {
        self.network.model()
    }

    /// The same network with other parameters and buffers, none of them quantized.
    ///
    /// # Errors
    /// They are those of another model.
    pub fn with_parameters(&self, parameters: &Parameters) -> Result<Self> {
        let mut network = self.network.clone();
        network.load(parameters.named())?;
        network.model_mut().set_inputs(Inputs::new());
        Ok(Evaluator { network, packed: Vec::new(), ..self.clone() })
    }

    /// Weights that are stored as characters of an alphabet; none for a network that is not quantized.
    pub fn packed(&self) -> &[Packed] {
        &self.packed
    }

    /// The experiment that trained the network.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// The state of the run when the checkpoint was made.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// SHA-256 of the weights.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn digest(&self) -> Result<String> {
        self.network.digest()
    }

    /// Refuses data other than those of the training.
    pub(crate) fn expect_same_data(&self, info: &DatasetInfo) -> Result<()> {
        if (&info.classes, image_shape(info)) == (&self.state.classes, self.state.image_shape) {
            return Ok(());
        }
        let message = "was trained on data with other classes or another image size";
        Err(CheckpointError::incompatible(&self.path, message).into())
    }

    /// Evaluates on the test images of the experiment's data set; `None` where it was stopped.
    ///
    /// # Errors
    /// The data cannot be had, or is not that of the training.
    pub fn evaluate(&self, options: &EvaluateOptions, observer: &mut dyn Observer) -> Result<Option<Evaluation>> {
        let feed = EvaluationFeed::open_test(&self.experiment, options)?;
        self.expect_same_data(feed.info())?;
        let start = Instant::now();
        let split = "test";
        let mut samples = Samples::default();
        let metrics = evaluate(&self.network, &feed, |judged, done, total| {
            observer.event(&Event::Evaluating { split, done, total });
            samples.add(judged)?;
            Ok(done == total || !options.stop.is_set())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(metrics.map(|metrics| {
            let mut report = evaluation_report(&metrics, &self.state.classes, samples);
            report.split = split.into();
            report.checkpoint = self.path.display().to_string();
            let correct = metrics.correct();
            Evaluation { images_per_s: report.images as f64 / seconds.max(1e-9), correct, report }
        }))
    }
}

fn weights_of(run: &RunReader) -> PathBuf {
    let best = run.best();
    if best.exists() { best } else { run.last() }
}
