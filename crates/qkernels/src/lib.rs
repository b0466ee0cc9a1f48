//! Kernels of the Quartz engine: written once over an instruction-set token, stamped for each CPU, chosen at run time.

mod activation;
pub mod cast;
pub mod conv;
pub mod elementwise;
pub mod feedback;
pub mod gemm;
pub mod gram;
pub mod i8;
pub mod isa;
mod layout;
pub mod naive;
pub mod norm;
pub mod par;
pub mod peak;
pub mod pool;
pub mod quadratic;
pub mod reduce;
pub mod rounding;
pub mod softmax;
pub mod sparse;
pub mod update;

pub use activation::Activation;
pub use conv::{Conv2dParams, conv2d, conv2d_add, conv2d_input_grad, conv2d_weight_grad};
pub use conv::{
    Projection, conv2d_stacked, conv2d_stacked_input_grad, conv2d_stacked_joined, conv2d_stacked_weight_grad,
};
pub use elementwise::{BinaryOp, UnaryOp, add_assign, binary, unary};
pub use gemm::{Gemm, matmul};
