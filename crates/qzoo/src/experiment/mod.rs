//! Experiments: one TOML file holds everything that a run needs.
//!
//! | section | type | says |
//! |---|---|---|
//! | (top) | [`Experiment`] | name and seed |
//! | `[data]` | [`Data`] | which images, and their augmentation |
//! | `[model]` | [`Model`] | which network |
//! | `[backward]` | [`Backward`] | how gradients are computed |
//! | `[train]` | [`Train`] | epochs, batches, safeguards |
//! | `[optim]` | [`Optim`] | the update rule |
//! | `[schedule]` | [`Schedule`] | the learning rate over time |
//! | `[log]` | [`Log`] | what the run writes |

mod backward;
mod data;
mod log;
mod model;
mod named;
mod optim;
pub mod pattern;
mod schedule;
mod train;

pub use backward::{Backward, BackwardMode};
pub use data::{Augment, CropMode, Data, Dataset};
pub use log::Log;
pub use model::{ActivationName, InitName, Model, ModelName};
pub use named::{Entry, Named};
pub use optim::{Adadelta, Adam, AdamW, Group, Optim, OptimName, Rule, Sgd};
pub use schedule::{
    Anneal, Constant, Cosine, CosineRestarts, MultiStep, OneCycle, Poly, Schedule, ScheduleName, ScheduleUnit, Shape,
    Step,
};
pub use train::Train;

use serde::Serialize;

/// A whole experiment, every default filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Experiment {
    /// Run folders are `runs/<name>-<n>`: 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit. Required.
    pub name: String,
    /// Key of every random choice of the run. Default 0.
    pub seed: u64,
    /// `[data]`.
    pub data: Data,
    /// `[model]`.
    pub model: Model,
    /// `[backward]`.
    pub backward: Backward,
    /// `[train]`.
    pub train: Train,
    /// `[optim]`.
    pub optim: Optim,
    /// `[schedule]`.
    pub schedule: Schedule,
    /// `[log]`.
    pub log: Log,
}
