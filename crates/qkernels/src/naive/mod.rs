//! Textbook loops, generic over f32 and f64 and accumulated in f64: the oracle of all kernel tests.

pub mod conv;
pub mod gemm;
