//! Layers, models, data, training and checkpoints of the Quartz engine.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod autobuild;
pub mod checkpoint;
pub mod data;
pub mod ema;
mod error;
pub mod experiment;
#[cfg(feature = "import-torch")]
pub mod import;
pub mod init;
pub mod metrics;
pub mod models;
pub mod nn;
#[cfg(feature = "export-onnx")]
pub mod onnx;
pub mod optim;
pub mod quantize;
pub mod run;
pub mod schedule;
pub mod sparse;
pub mod train;

pub use error::{Class, Error, Result};
