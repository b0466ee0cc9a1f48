//! Layers and the flat store of their parameters.

mod parameters;

pub use parameters::{Buffer, Parameter, ParameterKind, Parameters};
