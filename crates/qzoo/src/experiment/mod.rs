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
//! | `[import]` | [`Import`] | which tensor of a foreign checkpoint is which |
//! | `[autobuild]` | [`Autobuild`] | what the auto-builder does; may be absent |
//! | `[quantize]` | [`Quantize`] | how a trained network is quantized; may be absent |
//! | `[sparse]` | [`Sparse`] | which weights are zero, and when; may be absent |

mod autobuild;
mod backward;
mod check;
mod data;
mod decode;
mod diagnostics;
mod finetune;
mod import;
mod load;
mod log;
mod model;
mod named;
mod optim;
mod overrides;
pub mod pattern;
mod quantize;
mod schedule;
mod sections;
mod source;
mod sparse;
mod sparse_phases;
pub(crate) mod suggest;
mod train;
mod value;
mod values;
mod vgg_layer;

pub use autobuild::{Autobuild, Masking, ReductionName};
pub use backward::{Backward, BackwardMode};
pub use check::{PathPart, Problem};
pub use data::{Augment, CropMode, Data, Dataset};
pub use diagnostics::{Diagnostic, Diagnostics, Origin};
pub use finetune::Finetune;
pub use import::Import;
pub use load::LARGEST_FILE;
pub use log::Log;
pub use model::{ActivationName, InitName, Model, ModelName, NeuronName, QuadraticInit};
pub use named::{Entry, Named};
pub use optim::{Adadelta, Adam, AdamW, Group, Optim, OptimName, Rule, Sgd};
pub use overrides::Override;
pub use quantize::{
    AlphabetName, Compat, ConvMode, FeatureOrder, Quantize, QuantizerName, RadiusName, RangeName, Sparsity,
};
pub use schedule::{
    Anneal, Constant, Cosine, CosineRestarts, MultiStep, OneCycle, Poly, Schedule, ScheduleName, ScheduleUnit, Shape,
    Step,
};
pub use sparse::{Arithmetic, Int8Gradients, Int8Range, Sparse, SparseInt8, SparseScope, SparsifierName};
pub use sparse_phases::{AcDc, Gmp};
pub use train::{Precision, Train};
pub use values::Values;
pub use vgg_layer::VggLayer;

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
    /// `[import]`.
    pub import: Import,
    /// `[autobuild]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autobuild: Option<Autobuild>,
    /// `[quantize]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantize>,
    /// `[sparse]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse: Option<Sparse>,
}

impl Experiment {
    fn check(&self, checker: &mut check::Checker<'_>) {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let starts = self.name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || self.name.len() > 64 || !self.name.chars().all(inner) {
            let message = format!("\"name\" must be fit for a folder, not {:?}", decode::shorten(&self.name));
            let hint = "1 to 64 letters, digits, -, _ and ., the first a letter or digit";
            checker.wrong("name", message, Some(hint));
        }
        if i64::try_from(self.seed).is_err() {
            checker.wrong("seed", format!("\"seed\" must be at most {}, not {}", i64::MAX, self.seed), None);
        }
        self.data.check(&mut checker.within("data"));
        self.model.check(&mut checker.within("model"));
        self.backward.check(&mut checker.within("backward"));
        self.train.check(&mut checker.within("train"));
        self.optim.check(&mut checker.within("optim"));
        self.schedule.check(&mut checker.within("schedule"));
        self.log.check(&mut checker.within("log"));
        self.import.check(&mut checker.within("import"));
        if let Some(autobuild) = &self.autobuild {
            autobuild.check(&mut checker.within("autobuild"));
            if !autobuild.has_budget() {
                let hint = "max_parameters = 0.5, max_macs = 0.5 or max_drop = 1.0";
                checker.conflict("autobuild", "[autobuild] needs a budget".into(), Some(hint));
            }
        }
        if let Some(quantize) = &self.quantize {
            quantize.check(&mut checker.within("quantize"));
        }
        if let Some(sparse) = &self.sparse {
            sparse.check(&mut checker.within("sparse"));
            sparse.check_beside(self.train.epochs, &mut checker.within("sparse"));
        }
        self.schedule.check_beside(self.train.epochs, self.optim.lr, &mut checker.within("schedule"));
    }
}
