use super::recorder::Recorder;
use super::trainer::Trainer;
use crate::Result;
use crate::optim::global_norm;
use qtensor::Tensor;

impl Trainer {
    /// Changes the masks where an epoch begins and its phase wants it, and takes away with the weights what is remembered of them.
    ///
    /// The state at the start of an epoch is saved before this happens, so that it happens again in a run that goes on from there, to the same bits; masks of
    /// an epoch that has begun are read from the checkpoint.
    pub(super) fn change_masks(&mut self, recorder: &mut Recorder<'_>) -> Result<()> {
        let position = self.state.position;
        let Some(pruner) = self.pruner.as_mut().filter(|_| position.step_in_epoch == 0) else { return Ok(()) };
        if !pruner.begin_epoch(position.epoch, self.network.parameters_mut())? {
            return Ok(());
        }
        let masks = pruner.masks();
        self.optimizer.mask(masks)?;
        if let Some(ema) = &mut self.ema {
            masks.mask_parameters(ema.parameters_mut())?;
        }
        let message = match masks.is_empty() {
            true => format!("epoch {}: all weights are trained", position.epoch + 1),
            false => format!("epoch {}: {:.2} % of the weights are zero", position.epoch + 1, 100.0 * masks.sparsity()),
        };
        recorder.log(&message)
    }

    /// Sets to zero the gradients of weights that are not there. Returns the norm of the others; `norm` where there are no masks.
    pub(super) fn mask_gradients(&self, gradients: &mut [Option<Tensor>], norm: f64) -> Result<f64> {
        let Some(pruner) = self.pruner.as_ref().filter(|pruner| !pruner.masks().is_empty()) else { return Ok(norm) };
        pruner.masks().mask_gradients(gradients)?;
        Ok(global_norm(gradients)?)
    }

    /// The share of weights that masks hold at zero, and the share that this epoch's phase wanted; `None` where the experiment is not a sparse one.
    pub(super) fn sparsity(&self, epoch: u64) -> Option<[f64; 2]> {
        let pruner = self.pruner.as_ref()?;
        Some([pruner.masks().sparsity(), pruner.phases().sparsity(epoch)])
    }
}
