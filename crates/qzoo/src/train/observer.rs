use crate::checkpoint::Position;
use crate::run::{EpochLine, RunResult};
use std::path::Path;

/// Something that happened in a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Training begins, or goes on.
    Started(Started<'a>),
    /// An optimizer step is done.
    Step(StepEvent),
    /// A batch of an evaluation is done.
    Evaluating {
        /// `test` or `validation`.
        split: &'a str,
        /// Batches done.
        done: u64,
        /// Batches in all.
        total: u64,
    },
    /// An epoch is done and evaluated.
    Epoch {
        /// Its figures.
        line: &'a EpochLine,
        /// Whether it is the best so far.
        best: bool,
    },
    /// A checkpoint is safe on the disk.
    Saved {
        /// The file.
        path: &'a Path,
        /// Optimizer steps that it holds.
        step: u64,
    },
    /// What the run decided by itself.
    Note(&'a str),
    /// Something that a person should know, and that does not stop the run.
    Warning(&'a str),
    /// The run is over, for now or for good.
    Finished(&'a RunResult),
}

/// What a run is, at its start.
#[derive(Clone, Debug)]
pub struct Started<'a> {
    /// The folder of the run.
    pub run: &'a Path,
    /// The network's name.
    pub model: &'a str,
    /// Number of learnt values.
    pub parameters: usize,
    /// Images of the training split.
    pub train_images: usize,
    /// Images of the test split.
    pub test_images: usize,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Optimizer steps of an epoch.
    pub steps_per_epoch: u64,
    /// Where a continued run goes on.
    pub resumed: Option<Position>,
}

/// An optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepEvent {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Steps done in the epoch.
    pub step_in_epoch: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps done since the start of the run.
    pub step: u64,
    /// Loss of this step.
    pub step_loss: f64,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Training accuracy of the epoch so far, as a fraction.
    pub top1: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Training images a second in this process.
    pub images_per_s: f64,
    /// Seconds until the run is over, by the pace so far.
    pub eta_seconds: f64,
}

/// Watches a run: draws bars, prints lines, or listens in a test.
pub trait Observer {
    /// Something happened. The run waits until this returns.
    fn event(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn event(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _event: &Event<'_>) {}
}
