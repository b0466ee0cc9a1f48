use super::network::Network;
use super::recorder::Recorder;
use super::trainer::Trainer;
use crate::Result;
use crate::checkpoint::{Checkpoint, Purpose};
use crate::ema::Ema;
use crate::optim::Optimizer;
use qtensor::{DType, Tensor};

/// Begins the names of the optimizer's tensors.
pub(super) const OPTIMIZER: &str = "optimizer:";
/// Begins the names of the averaged weights.
pub(super) const EMA: &str = "ema:";
/// Begins the names of masks.
pub(super) const MASK: &str = "mask:";

impl Trainer {
    /// Saves everything that is needed to go on to the bit.
    pub(super) fn save_last(&mut self, recorder: &mut Recorder<'_>) -> Result<()> {
        let mut tensors = training_tensors(&self.network, &self.optimizer, self.ema.as_ref());
        let masks = self.pruner.iter().flat_map(|pruner| pruner.masks().export(self.network.parameters()));
        tensors.extend(masks.map(|(name, tensor)| (format!("{MASK}{name}"), tensor)));
        // A step may leave weights that only the next one would notice.
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !is_finite(tensor)) {
            let loss = self.state.totals.loss / self.state.totals.images.max(1) as f64;
            return Err(self.diverged(format!("a value of {name} is not finite"), loss, None));
        }
        recorder.sync()?;
        self.state.metric_lines = recorder.lines();
        let checkpoint = Checkpoint { state: self.state.clone(), tensors };
        self.checkpoints.save_last(&checkpoint)?;
        self.saved = Some(self.state.position);
        recorder.saved(&self.checkpoints.last(), self.state.position.step)
    }

    /// The network that evaluation sees: the averaged weights where there are such.
    pub(super) fn evaluated_network(&self) -> Network {
        match &self.ema {
            Some(ema) => self.network.with_parameters(ema.parameters().clone()),
            None => self.network.clone(),
        }
    }

    /// Saves the weights that were evaluated last: the averaged ones where there are such.
    pub(super) fn save_best(&mut self, recorder: &mut Recorder<'_>) -> Result<()> {
        self.checkpoints.save_best(&self.evaluated_weights(recorder))?;
        recorder.saved(&self.checkpoints.best(), self.state.position.step)
    }

    /// Keeps the weights of this epoch for good where the experiment wants it.
    pub(super) fn keep_epoch(&mut self, recorder: &mut Recorder<'_>) -> Result<()> {
        let (every, epoch) = (self.experiment.log.keep_every as u64, self.state.position.epoch);
        if every == 0 || !epoch.is_multiple_of(every) {
            return Ok(());
        }
        self.checkpoints.save_epoch(&self.evaluated_weights(recorder))?;
        recorder.saved(&self.checkpoints.epoch(epoch), self.state.position.step)
    }

    fn evaluated_weights(&self, recorder: &Recorder<'_>) -> Checkpoint {
        let state = crate::checkpoint::State {
            purpose: Purpose::Weights,
            metric_lines: recorder.lines(),
            ..self.state.clone()
        };
        Checkpoint { state, tensors: self.evaluated_network().named() }
    }
}

/// All tensors of a training checkpoint.
pub(super) fn training_tensors(network: &Network, optimizer: &Optimizer, ema: Option<&Ema>) -> Vec<(String, Tensor)> {
    let mut tensors = network.named();
    let state = optimizer.export(network.parameters());
    tensors.extend(state.into_iter().map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor)));
    if let Some(ema) = ema {
        tensors.extend(ema.parameters().named().map(|(name, tensor)| (format!("{EMA}{name}"), tensor.clone())));
    }
    tensors
}

/// Whether no element is infinite or not a number.
pub(super) fn is_finite(tensor: &Tensor) -> bool {
    if tensor.dtype() != DType::F32 {
        return true;
    }
    let dense = if tensor.layout().is_dense() { tensor.clone() } else { tensor.contiguous() };
    dense.memory::<f32>().is_ok_and(|values| values.iter().all(|x| x.is_finite()))
}
