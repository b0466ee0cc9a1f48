//! Layers, the composites that they form, and the flat store of their parameters.
//!
//! A layer is a small struct that knows the positions of its parameters in [`Parameters`]; a model is a tree of [`Layer`]s. The
//! forward of every layer takes the tape, the input and a [`Context`], which hands out the parameters of the step.

mod activation;
mod batch_norm;
mod builder;
mod chain;
mod composite;
mod context;
mod dropout;
mod layer;
pub mod marks;
mod neuron;
mod parameters;
mod pool;
mod projection;
mod quadratic;
mod quantized;
mod residual;
mod role;
mod sparse;
mod start;
mod summary;
mod unit;

pub use activation::Activation;
pub use batch_norm::{BatchNorm, EPS};
pub(crate) use batch_norm::{MOMENTUM, update_running};
pub use builder::Builder;
pub(crate) use chain::hand_over_bytes;
pub use composite::{Body, Composite};
pub use context::{Context, Leaves, Phase};
pub use dropout::Dropout;
pub use layer::{Layer, Sequential};
pub use neuron::{Neuron, NeuronConfig, Sees, Term};
pub use parameters::{Buffer, Parameter, ParameterKind, Parameters};
pub use pool::{Pool, PoolKind};
pub use projection::{Conv2dConfig, LinearConfig, Map, Projection, ProjectionConfig, projection};
pub use quadratic::Quadratic;
#[cfg(feature = "export-onnx")]
pub(crate) use quantized::whole_bias;
pub use quantized::{Codes, Given, InputGrid, Inputs};
pub use residual::Residual;
pub use role::Role;
pub use sparse::{SparseLayer, SparseLayers};
pub use summary::{Row, Walk};
pub use unit::{Order, Unit, UnitConfig};

#[cfg(test)]
mod marks_tests;
#[cfg(test)]
mod quadratic_tests;
#[cfg(test)]
mod tests;
