//! The primitives, one file a family. Each is a method of [`Tape`](crate::Tape), and a public type, so that it can be looked at,
//! wrapped or applied with [`Tape::apply`](crate::Tape::apply).
//!
//! An op says in its documentation what it keeps for its backward pass. f32 and f64 work everywhere; [`Op::on_half`](crate::Op::on_half) says what an op makes of bf16.

mod bilinear;
mod binary;
mod conv;
mod dropout;
mod linear;
mod loss;
mod norm;
mod pool;
mod prelu;
mod projections;
mod quadratic;
mod reduce;
mod scalar;
mod shape;
mod sparse;
mod sparse_int8;
mod unary;

pub use binary::{AddRelu, Binary};
pub use conv::{Conv2d, Conv2dAdd};
pub use dropout::Dropout;
pub use linear::{Linear, Matmul};
pub use loss::{LogSoftmax, SoftmaxCrossEntropy, SumOfSquares};
pub use norm::{BatchNorm, BatchNormInference};
pub use pool::{AvgPool2d, GlobalAvgPool2d, MaxPool2d};
pub use prelu::Prelu;
pub use projections::{LinearMap, Projections, Sees};
pub use quadratic::{Combine, Keep, NormalisedCombine};
pub use reduce::{Mean, Sum};
pub use scalar::{AddScalar, Scale};
pub use shape::{Concatenate, Permute, Reshape, Slice};
pub use sparse::{SparseArithmetic, SparseMap};
pub use sparse_int8::{GradientCodes, SparseInt8};
pub use unary::Unary;
