//! Kernels of the Quartz engine: written once over an instruction-set token, stamped for each CPU, chosen at run time.

mod activation;
pub mod gemm;
pub mod isa;
pub mod naive;
pub mod par;

pub use activation::Activation;
pub use gemm::{Gemm, matmul};
