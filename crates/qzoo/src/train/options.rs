use crate::run::Environment;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a run is told beside its experiment.
#[derive(Clone, Debug, Default)]
pub struct TrainOptions {
    /// Where the data sets are.
    pub data_root: PathBuf,
    /// At most so many batches of every pass, in training and in evaluation. A continued run takes over the earlier limit
    /// where none is given.
    pub limit_batches: Option<u64>,
    /// Stop after this time, as if interrupted.
    pub max_time: Option<Duration>,
    /// A continued run trains up to this many epochs instead of those of its experiment.
    pub epochs: Option<usize>,
    /// Where and how the process runs, for `env.json`.
    pub environment: Option<Environment>,
    /// Set by another thread to stop the run after the current step.
    pub stop: StopFlag,
}

/// A request to stop, shared with a signal handler or another thread.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks the run to finish its step, to save and to return.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All epochs are done.
    Completed,
    /// No better epoch within the patience of the experiment.
    EarlyStop,
    /// The time was up; the run can be continued.
    TimeUp,
    /// The stop flag was set; the run can be continued.
    Interrupted,
}
