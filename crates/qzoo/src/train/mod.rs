//! Training, evaluation and prediction.
//!
//! A [`Trainer`] drives an experiment step by step. All that a step depends on is in its checkpoint or follows from the seed and
//! the position in the run, so a run that was stopped or killed goes on to the same bits as one that was not.

mod calibrate;
mod divergence;
mod epoch;
mod evaluate;
mod evaluator;
mod feed;
mod given;
mod masking;
mod memory;
mod network;
mod observer;
mod options;
mod pace;
mod plan;
mod predictor;
mod probe;
mod profile;
mod recorder;
mod report;
mod restore;
mod save;
mod step;
mod swapping;
mod trainer;

pub use calibrate::CalibrationImages;
pub use divergence::Divergence;
pub use evaluator::{EvaluateOptions, Evaluation, Evaluator};
pub use given::{Beginning, begin_with, build_model};
pub use memory::memory_profile;
pub use observer::{Event, Observer, Silent, Started, StepEvent};
pub use options::{End, StopFlag, TrainOptions};
pub use predictor::{Guess, Prediction, Predictor};
pub use probe::{Probe, ProbeOptions, Score};
pub use swapping::SWAPS;
pub use trainer::{Outcome, Trainer};
