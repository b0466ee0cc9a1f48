//! `[sparse.gmp]` and `[sparse.acdc]`: the epochs in which the weights of a network become zero.

use serde::{Deserialize, Serialize};

use super::check::Checker;

/// Most epochs that a key accepts, as for `train.epochs`.
const MOST: usize = 1_000_000;

/// `[sparse.gmp]`: gradual magnitude pruning. Epochs count from 0; masks change before an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gmp {
    /// The epoch before which weights are pruned for the first time, at most 1000000. Default 0.
    pub start: usize,
    /// The epoch from which on the sparsity is the final one, at most 1000000. Default: three quarters of the epochs, rounded down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<usize>,
    /// Epochs from one pruning to the next, 1 to 1000000. Default 1.
    pub every: usize,
    /// Share of zeros from `start` on, 0 or larger and below 1. Default 0.
    pub initial_sparsity: f64,
}

impl Default for Gmp {
    fn default() -> Self {
        Gmp { start: 0, end: None, every: 1, initial_sparsity: 0.0 }
    }
}

impl Gmp {
    /// The epoch from which on the sparsity is the final one, in a run of so many epochs.
    pub fn end_of(&self, epochs: usize) -> usize {
        self.end.unwrap_or((3 * epochs / 4).max(self.start))
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.whole("start", self.start, 0, MOST);
        checker.whole("every", self.every, 1, MOST);
        checker.share("initial_sparsity", self.initial_sparsity);
        if let Some(end) = self.end {
            checker.whole("end", end, 0, MOST);
            if end < self.start {
                let message = format!("\"end\" must not be before \"start\": {end} is below {}", self.start);
                checker.conflict("end", message, None);
            }
        }
    }

    pub(super) fn check_beside(&self, epochs: usize, checker: &mut Checker<'_>) {
        if self.end_of(epochs) >= epochs {
            let key = if self.end.is_some() { "end" } else { "start" };
            let last = self.end_of(epochs);
            let message =
                format!("the last pruning is before epoch {last}, counted from 0, but there are {epochs} epochs");
            checker.conflict(key, message, Some("at least one epoch has to train the weights that are left"));
        }
    }
}

/// `[sparse.acdc]`: a dense warm-up, sparse and dense phases in turn, and a sparse phase at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcDc {
    /// Dense epochs at the beginning, at most 1000000. Default 10.
    pub warmup: usize,
    /// Epochs of a sparse phase, 1 to 1000000; the first follows the warm-up. Default 5.
    pub sparse: usize,
    /// Epochs of a dense phase, 1 to 1000000. Default 5.
    pub dense: usize,
    /// Sparse epochs at the end, 1 to 1000000, whatever phase it would be the turn of. Default 15.
    pub finish: usize,
}

impl Default for AcDc {
    fn default() -> Self {
        AcDc { warmup: 10, sparse: 5, dense: 5, finish: 15 }
    }
}

impl AcDc {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.whole("warmup", self.warmup, 0, MOST);
        checker.whole("sparse", self.sparse, 1, MOST);
        checker.whole("dense", self.dense, 1, MOST);
        checker.whole("finish", self.finish, 1, MOST);
    }

    pub(super) fn check_beside(&self, epochs: usize, checker: &mut Checker<'_>) {
        if self.warmup + self.finish > epochs {
            let AcDc { warmup, finish, .. } = self;
            let message =
                format!("{warmup} dense epochs and {finish} sparse ones are more than the {epochs} of the run");
            checker.conflict("finish", message, Some("shorten \"warmup\" or \"finish\", or train for more epochs"));
        }
    }
}
