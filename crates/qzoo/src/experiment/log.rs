//! `[log]`: what a run writes, and how often.

use serde::{Deserialize, Serialize};

use super::check::Checker;

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Seconds between two progress lines where there is no terminal, above 0. Default 10.
    pub interval_seconds: f64,
    /// Updates between two checkpoints within an epoch; 0 = at the end of every epoch only. Default 0.
    pub checkpoint_every_steps: usize,
    /// How many earlier checkpoints are kept beside `last`, 1 to 1000. Default 1.
    pub keep: usize,
    /// Epochs between two checkpoints of the evaluated weights that are kept for good, as `epoch-<n>`; 0 = none. Default 0.
    pub keep_every: usize,
    /// Write TensorBoard events beside `metrics.jsonl`. Default true.
    pub tensorboard: bool,
}

impl Default for Log {
    fn default() -> Self {
        Log { interval_seconds: 10.0, checkpoint_every_steps: 0, keep: 1, keep_every: 0, tensorboard: true }
    }
}

impl Log {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.positive("interval_seconds", self.interval_seconds);
        checker.whole("keep", self.keep, 1, 1000);
        checker.whole("keep_every", self.keep_every, 0, 1_000_000);
    }
}
