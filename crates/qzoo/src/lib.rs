//! Layers, models, data, training and checkpoints of the Quartz engine.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod experiment;
pub mod init;
pub mod metrics;
pub mod nn;
pub mod run;
pub mod schedule;
