use super::feed::{image_shape, normalization};
use super::network::Network;
use super::restore::to_toml;
use super::save::training_tensors;
use crate::Result;
use crate::checkpoint::{Checkpoint, CheckpointFolder, Position, Purpose, RunningTotals, State};
use crate::data::DatasetInfo;
use crate::ema::Ema;
use crate::experiment::Experiment;
use crate::models::Model;
use crate::nn::Parameters;
use crate::optim::Optimizer;
use crate::run::{Environment, LogFile, RunFolder};

/// The model of an experiment for images like those of `info`, with its initial weights.
///
/// # Errors
/// The model cannot take such images, or has no layer of a name in `[backward]` or `[sparse]`.
pub fn build_model(experiment: &Experiment, info: &DatasetInfo) -> Result<Model> {
    let model = Network::build(experiment, image_shape(info), info.classes.len())?.into_model();
    experiment.sparse.as_ref().map(|sparse| crate::sparse::layers(&model, sparse)).transpose()?;
    Ok(model)
}

/// A run whose first weights come from elsewhere.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// The experiment that goes on with them, or is evaluated.
    pub experiment: &'a Experiment,
    /// What the images are like.
    pub info: &'a DatasetInfo,
    /// All parameters and buffers of the experiment's model.
    pub parameters: &'a Parameters,
    /// Where and how the process runs.
    pub environment: Option<&'a Environment>,
    /// A line of the log that says where the weights come from.
    pub origin: &'a str,
}

/// Makes `folder` the folder of a run that stands before its first step, with these weights as its `best` and `last` checkpoint. It can be evaluated, and
/// trained on as an interrupted run can.
///
/// # Errors
/// The weights are not those of the experiment's model, or the disk refuses.
pub fn begin_with(beginning: &Beginning<'_>, folder: &RunFolder) -> Result<()> {
    let Beginning { experiment, info, parameters, environment, origin } = *beginning;
    let mut network = Network::build(experiment, image_shape(info), info.classes.len())?;
    network.load(parameters.named())?;
    let text = to_toml(experiment)?;
    let state = first_state(experiment, text.clone(), info);
    let optimizer = Optimizer::new(&experiment.optim, network.parameters());
    let decay = experiment.train.ema_decay;
    let ema = if decay > 0.0 { Some(Ema::new(decay, network.parameters())?) } else { None };

    if let Some(environment) = environment {
        folder.write_json("env.json", environment)?;
    }
    let mut checkpoints = CheckpointFolder::open(&folder.checkpoints(), experiment.log.keep)?;
    let weights = State { purpose: Purpose::Weights, ..state.clone() };
    checkpoints.save_best(&Checkpoint { state: weights, tensors: network.named() })?;
    let tensors = training_tensors(&network, &optimizer, ema.as_ref());
    checkpoints.save_last(&Checkpoint { state, tensors })?;
    LogFile::open(&folder.path().join("log.txt"))?.line(origin)?;
    // Last, because it makes the folder that of a run.
    folder.write("config.resolved.toml", text)?;
    Ok(())
}

/// The state of a run before its first step.
pub(super) fn first_state(experiment: &Experiment, text: String, info: &DatasetInfo) -> State {
    State {
        purpose: Purpose::Training,
        experiment: text,
        classes: info.classes.clone(),
        image_shape: image_shape(info),
        normalization: normalization(info, experiment.data.normalize),
        limit_batches: None,
        epochs: experiment.train.epochs as u64,
        position: Position::default(),
        totals: RunningTotals::default(),
        history: Vec::new(),
        best: None,
        metric_lines: 0,
        finished: false,
        quantization: None,
    }
}
