//! Reverse-mode automatic differentiation on an explicit tape.
//!
//! A [`Tape`] records the ops of one step; [`Tape::backward`] consumes it and gives the gradients of its leaves.
#![forbid(unsafe_code)]

mod accumulate;
mod backward;
mod call;
pub mod check;
mod effect;
mod error;
mod finite;
mod function;
mod gradients;
mod op;
pub mod ops;
mod profile;
mod retained;
mod saved;
mod tape;
mod var;

pub use effect::Effect;
pub use error::{Error, Result};
pub use function::{Function, Mode};
pub use gradients::Gradients;
pub use op::{Context, Op, Record, Vjp, inputs};
pub use profile::{OpTime, Pass, Profile};
pub use qkernels as kernels;
pub use qkernels::pool::PoolParams;
pub use qkernels::{Activation, Conv2dParams};
pub use qtensor::{DType, Element, Shape, Tensor, pool, random};
pub use retained::{Retained, RetainedBy};
pub use saved::Saved;
pub use tape::Tape;
pub use var::Var;
