use super::TrainOptions;
use super::save::{EMA, MASK, OPTIMIZER};
use super::trainer::{Parts, Trainer};
use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointFolder, Purpose};
use crate::experiment::Experiment;
use crate::run::{RunFolder, RunReader};
use crate::{Error, Result};
use std::path::Path;

impl Trainer {
    /// Takes up the run in `folder` from its newest sound checkpoint, to the bit.
    ///
    /// A damaged checkpoint is passed over with a warning. A run that was killed before its first save starts again from its resolved
    /// experiment.
    ///
    /// # Errors
    /// No checkpoint is sound, or the newest does not fit; the data or the model cannot be had; or the disk refuses.
    pub fn resume(folder: RunFolder, options: TrainOptions) -> Result<Self> {
        let mut checkpoints = CheckpointFolder::open(&folder.checkpoints(), 1)?;
        let Some(loaded) = checkpoints.load_newest()? else {
            let path = folder.path().join("config.resolved.toml");
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Error::Config(format!("{}: cannot read: {e}", path.display())))?;
            let experiment = from_toml(&text, &path)?;
            let parts = Parts::open(&experiment, &options)?;
            let mut trainer = Self::begin(experiment, text, folder, (parts, options))?;
            trainer.note_environment()?;
            trainer.warnings.push("there is no checkpoint yet; starting from the beginning".into());
            return Ok(trainer);
        };
        let (checkpoint, path) = (loaded.checkpoint, loaded.path);
        if checkpoint.state.purpose != Purpose::Training {
            let message = "holds weights only; training cannot be continued from it";
            return Err(CheckpointError::incompatible(&path, message).into());
        }
        let experiment = from_toml(&checkpoint.state.experiment, &path)?;
        let limit_batches = options.limit_batches.or(checkpoint.state.limit_batches);
        let epochs = options.epochs.or(Some(checkpoint.state.epochs as usize));
        let options = TrainOptions { limit_batches, epochs, ..options };
        let parts = Parts::open(&experiment, &options)?;
        let mut trainer = Self::begin(experiment, checkpoint.state.experiment.clone(), folder, (parts, options))?;
        checkpoints.set_keep(trainer.experiment.log.keep);
        trainer.checkpoints = checkpoints;
        trainer.take_over(checkpoint, &path)?;
        trainer.note_environment()?;
        for damage in loaded.damaged {
            trainer.warnings.push(format!("{damage}; going on from {} instead", path.display()));
        }
        Ok(trainer)
    }

    /// Enters this process in `env.json`, with those before it.
    fn note_environment(&mut self) -> Result<()> {
        let Some(environment) = self.options.environment.clone() else { return Ok(()) };
        let entry = match RunReader::open(self.folder.path())?.environment() {
            Ok(Some(earlier)) => environment.continuing(earlier),
            Ok(None) => environment,
            Err(error) => {
                self.warnings.push(format!("{error}; it is written anew"));
                environment
            }
        };
        Ok(self.folder.write_json("env.json", &entry)?)
    }

    fn take_over(&mut self, checkpoint: Checkpoint, path: &Path) -> Result<()> {
        let misfit = |error: qtensor::Error| CheckpointError::incompatible(path, error.to_string());
        let now = (&self.state.classes, self.state.image_shape);
        if now != (&checkpoint.state.classes, checkpoint.state.image_shape) {
            return Err(CheckpointError::incompatible(
                path,
                "was trained on data with other classes or another image size",
            )
            .into());
        }
        self.network.load(checkpoint.weights()).map_err(misfit)?;
        self.optimizer.import(self.network.parameters(), checkpoint.with_prefix(OPTIMIZER)).map_err(misfit)?;
        if let Some(ema) = &mut self.ema {
            ema.parameters_mut().load(checkpoint.with_prefix(EMA)).map_err(misfit)?;
            // There is one update a step.
            ema.set_updates(checkpoint.state.position.step);
        }
        if let Some(pruner) = &mut self.pruner {
            pruner.masks_mut().import(self.network.parameters(), checkpoint.with_prefix(MASK)).map_err(misfit)?;
        }
        let (epochs, limit_batches) = (self.state.epochs, self.state.limit_batches);
        self.state = crate::checkpoint::State { epochs, limit_batches, ..checkpoint.state };
        let steps = self.steps_per_epoch();
        if self.state.position.step_in_epoch > steps {
            let message = format!("stands at step {} of an epoch that has {steps}", self.state.position.step_in_epoch);
            return Err(CheckpointError::incompatible(path, message).into());
        }
        self.resumed = Some(self.state.position);
        self.saved = Some(self.state.position);
        Ok(())
    }
}

/// The experiment as the text that a run keeps.
pub(super) fn to_toml(experiment: &Experiment) -> Result<String> {
    experiment.to_toml().map_err(|e| Error::Config(format!("the experiment cannot be written as TOML: {e}")))
}

/// The experiment in the text that a run keeps; `path` is for messages only.
pub(super) fn from_toml(text: &str, path: &Path) -> Result<Experiment> {
    Ok(Experiment::parse(path, text, &[])?)
}
