//! Products and convolutions of quantized numbers: u8 activations, i8 weights, i32 sums.
//!
//! A u8 tensor with a [`Quantization`] stands for the real numbers `scale * (q - zero_point)`; signed data are carried with a zero point of 128. Weights are symmetric, with one scale
//! for each filter. The arithmetic is fixed, so every result is the same to the bit on every instruction set and for any number of threads. With all operations but
//! the first in f32, each rounded to nearest, none fused:
//!
//! 1. `s = Σ (x - x_zero) w + b`, exact in i32 (modulo 2^32), where `b` is the bias if that is i32, else 0. Taps in the padding contribute 0.
//! 2. For real results `m = x_scale * w_scale`, `c = b` and `f = r_scale`; for bytes `m = x_scale * w_scale / y_scale`, `c = b / y_scale` and `f = r_scale / y_scale`, from the left to the right,
//!    where `b` is the bias if that is f32, else 0.
//! 3. `v = f32(s) * m + c`, and with a residual `v = v + (r - r_zero) * f`.
//! 4. Real results: `v`, or `max(v, 0)` with a ReLU. Bytes: `round(v) + y_zero`, to nearest and ties to even, limited to `0..=255`, from `y_zero` on with a ReLU.
//!
//! [`quantize`], [`dequantize`], [`add()`] and the pools state theirs. Images are `[N, C, H, W]` with channels-last memory; others are converted once.

mod conv;
mod depthwise;
mod elementwise;
mod ending;
mod operands;
mod pool;
mod round;
mod stage;
mod tile;
mod weights;
mod winograd;

pub use conv::{conv2d, matmul};
pub use elementwise::{add, dequantize, quantize};
pub use operands::{Operands, Output, Quantization};
pub use pool::{avg_pool2d, global_avg_pool2d, max_pool2d};
pub use weights::PackedWeights;
