use super::{Change, Masks, Phases, Sparsifier};
use crate::Result;
use crate::experiment::Sparse;
use crate::models::Model;
use crate::nn::Parameters;

/// The masks of a training, and how they change.
#[derive(Clone, Debug)]
pub struct Pruner {
    sparsifier: Sparsifier,
    phases: Phases,
    masks: Masks,
}

impl Pruner {
    /// For a training of so many epochs, which begins dense.
    ///
    /// # Errors
    /// As [`layers`](super::layers).
    pub fn new(model: &Model, settings: &Sparse, seed: u64, epochs: u64) -> Result<Self> {
        let sparsifier = Sparsifier::new(model, settings, seed)?;
        Ok(Pruner { sparsifier, phases: Phases::new(settings, epochs), masks: Masks::default() })
    }

    /// The masks of now.
    pub fn masks(&self) -> &Masks {
        &self.masks
    }

    /// The masks of now, to be set from a checkpoint.
    pub fn masks_mut(&mut self) -> &mut Masks {
        &mut self.masks
    }

    /// When masks change.
    pub fn phases(&self) -> &Phases {
        &self.phases
    }

    /// Changes the masks and sets the weights before an epoch, counted from 0, as its phase wants it. Returns whether the masks changed: whatever else belongs to
    /// weights, as the optimizer's state and averages do, has to be masked then.
    ///
    /// # Errors
    /// As [`Sparsifier::draw`].
    pub fn begin_epoch(&mut self, epoch: u64, parameters: &mut Parameters) -> Result<bool> {
        match self.phases.change(epoch) {
            Change::Keep => return Ok(false),
            Change::Dense => self.masks.replace(Masks::default()),
            Change::Prune { remaining } => {
                let masks = self.sparsifier.draw(parameters, remaining)?;
                masks.mask_parameters(parameters)?;
                self.masks.replace(masks);
            }
        }
        Ok(true)
    }
}
