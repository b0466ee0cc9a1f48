//! Kernels of the Quartz engine: written once over an instruction-set token, stamped for each CPU, chosen at run time.

mod activation;
pub mod conv;
pub mod gemm;
pub mod isa;
pub mod naive;
pub mod par;

pub use activation::Activation;
pub use conv::{Conv2dParams, conv2d, conv2d_input_grad, conv2d_weight_grad};
pub use gemm::{Gemm, matmul};
