//! Layers, models, data, training and checkpoints of the Quartz engine.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod experiment;
pub mod run;
