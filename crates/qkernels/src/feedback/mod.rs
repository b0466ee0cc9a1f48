//! Error-feedback quantization of the weights of a linear map: `q_t = Q((E w)_t - Σ_{j<t} F_tj q_j)`, for all neurons at once.
//!
//! `w` are the `N` weights of a neuron, `E` and `F` are lower triangular matrices that the calibration data give, `Q` is a [`Rounding`]. The
//! choice of the two matrices and of the rounding makes the method. With `H = X~ᵀ X~` and `C = X~ᵀ X` of the inputs `X` of the original network
//! and `X~` of the quantized one:
//!
//! | method | E | F |
//! |---|---|---|
//! | rounding each weight by itself | I | 0 |
//! | GPFQ (Lybrand and Saab 2021) | D⁻¹ tril(C), D = diag(H) | D⁻¹ stril(H) |
//! | GPTQ (Frantar et al. 2022), LDLQ (Chee et al. 2023) | I + Uᵀ | Uᵀ, where H + λ I = (I + U) D (I + U)ᵀ |
//!
//! [`Recursion`] is the blocked form on the matrices, [`Walk`] the same recursion on the data themselves, for a map with more inputs than samples.
//! [`Factor`] gives `U`, and solves with `H + λ I`.

mod block;
mod factor;
mod recursion;
mod rounding;
mod walk;

pub use block::Rule;
pub use factor::Factor;
pub use recursion::{Recursion, Target};
pub use rounding::{Grid, Mode, Rounding, Ties};
pub use walk::{Walk, Walked};

/// Features whose characters are chosen one after the other before the rest hears of them.
const BLOCK: usize = 64;
/// Neurons that a task takes.
const PANEL: usize = 128;
