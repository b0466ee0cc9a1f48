//! The passes of a sparse layer in bytes.
//!
//! - Inputs and gradients of outputs are u8 codes with one scale a tensor, [`ByteCodes`]: those of the forward pass are kept for the weight gradient, and those of a gradient serve both passes of
//!   the way back.
//! - Weights are i8 codes, [`ByteWeights`]. A scale that all terms of a sum share can be taken out of it, so the forward pass has one for each output and the input gradient one for each
//!   input: the same weights with codes of their own.
//! - Sums are exact 32-bit integers, and only the result is f32, or that rounded to bf16: it has the same bits on every instruction set and for any number of threads.
//!
//! Four weights of a target channel are taken at a time: the source bytes that they meet are interleaved in registers, so that one instruction multiplies and adds all four of a sample. The
//! weight gradient needs no interleaving, because there the samples are what is added up.

mod codes;
mod gather;
mod index;
mod passes;
mod products;
mod results;
mod sums;
mod weight_grad;
mod weights;

pub use codes::ByteCodes;
pub(super) use index::Index;
pub use passes::ByteForward;
pub use weights::{BytePasses, ByteScheme, ByteWeights};
