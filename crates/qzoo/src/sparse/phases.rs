//! The epochs of a training before which masks change.

use super::sparsifier::share_on_the_way;
use crate::experiment::{AcDc, Gmp, Sparse, SparsifierName};

/// What happens to masks before an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// They stay.
    Keep,
    /// They are taken away: all weights are trained again, those without a mask from zero.
    Dense,
    /// They are drawn by the weights, with this part of the way to the final sparsity still to go.
    Prune {
        /// From 1 for the initial sparsity to 0 for the final one.
        remaining: f64,
    },
}

/// The phases of a training by its settings: a pure function of the epoch, so that a run that was killed goes on as if it had not been.
#[derive(Clone, Debug)]
pub struct Phases {
    settings: Sparse,
    epochs: u64,
}

impl Phases {
    /// Of a training of so many epochs. Beyond them it stays as sparse as at their end.
    pub fn new(settings: &Sparse, epochs: u64) -> Self {
        Phases { settings: settings.clone(), epochs }
    }

    /// What happens before an epoch, counted from 0. Nothing depends on what happened in a process before.
    pub fn change(&self, epoch: u64) -> Change {
        let before = epoch.checked_sub(1).and_then(|before| self.remaining(before));
        match self.remaining(epoch) {
            now if now == before => Change::Keep,
            None => Change::Dense,
            Some(remaining) => Change::Prune { remaining },
        }
    }

    /// The share of zeros that most layers are to have in an epoch: that of the settings, not of single layers.
    pub fn sparsity(&self, epoch: u64) -> f64 {
        let wanted = match self.settings.n_of_m {
            Some([n, m]) => 1.0 - n as f64 / m as f64,
            None => self.settings.sparsity,
        };
        self.remaining(epoch).map_or(0.0, |remaining| share_on_the_way(&self.settings, wanted, remaining))
    }

    /// Whether masks stay as they are from this epoch on.
    pub fn is_settled(&self, epoch: u64) -> bool {
        match self.settings.method {
            SparsifierName::Magnitude | SparsifierName::Random => true,
            SparsifierName::Gmp => epoch >= self.settings.gmp.end_of(self.epochs as usize) as u64,
            SparsifierName::AcDc => epoch + self.settings.acdc.finish as u64 >= self.epochs,
        }
    }

    /// The part of the way to the final sparsity that is still to go in an epoch; `None` where the network is dense.
    fn remaining(&self, epoch: u64) -> Option<f64> {
        match self.settings.method {
            SparsifierName::Magnitude | SparsifierName::Random => Some(0.0),
            SparsifierName::Gmp => gradual(&self.settings.gmp, epoch, self.epochs),
            SparsifierName::AcDc => alternating(&self.settings.acdc, epoch, self.epochs).then_some(0.0),
        }
    }
}

/// `(1 - (t - t0) / (n Δ))³` at the pruning step t that the epoch belongs to (Zhu and Gupta 2017, formula 1).
fn gradual(gmp: &Gmp, epoch: u64, epochs: u64) -> Option<f64> {
    let (start, end, every) = (gmp.start as u64, gmp.end_of(epochs as usize) as u64, gmp.every.max(1) as u64);
    if epoch >= end {
        return Some(0.0);
    }
    let since = epoch.checked_sub(start)? / every * every;
    Some((1.0 - since as f64 / (end - start) as f64).powi(3))
}

/// Whether an epoch is sparse: a dense warm-up, then sparse and dense phases in turn, then sparse to the end (Peste et al. 2021).
fn alternating(acdc: &AcDc, epoch: u64, epochs: u64) -> bool {
    if epoch + acdc.finish as u64 >= epochs {
        return true;
    }
    let (sparse, dense) = (acdc.sparse as u64, acdc.dense as u64);
    let period = (sparse + dense).max(1);
    epoch.checked_sub(acdc.warmup as u64).is_some_and(|since| since % period < sparse)
}
