//! Quantizers for training with bytes: weights, activations and output gradients of f32 become codes and back, by tensor or by group.
//!
//! - A [`Quantizer`] has equally spaced codes, `x ≈ scale · (code − zero point)`: signed, unsigned or affine ([`Format`]), one scale for each of its [`Groups`]. [`Clip`] says how the range is
//!   chosen.
//! - [`Logarithmic`] codes are powers of two apart, for gradients.
//! - [`Rounding`] is to nearest or stochastic, with noise that is a function of a key and of the place of an element: the same codes for any number of threads and on every instruction set.
//! - [`RunningRange`] takes the range from earlier steps, so that one pass over a tensor makes its codes and measures it.
//!
//! Scales are relative to the values, so tensors of any magnitude are quantized equally well; a tensor of zeros has the scale 1. Values that are infinite or not a number are errors.

mod batch_innermost;
mod clip;
mod extremes;
mod floats;
mod groups;
mod logarithmic;
mod mse;
mod noise;
mod pass;
mod quantizer;
mod running;
mod sawb;
mod statistics;
mod uniform;

pub use clip::Clip;
pub use groups::Groups;
pub use logarithmic::Logarithmic;
pub use noise::Rounding;
pub use quantizer::{Format, Quantizer};
pub use running::{Order, RunningRange};
pub use sawb::Sawb;
pub use statistics::Statistics;
