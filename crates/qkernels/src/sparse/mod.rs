//! Layers whose weights are mostly zero and stay so: only the others are stored, multiplied and given gradients.
//!
//! A [`Pattern`] says which weights there are; their values are one f32 vector in its order. A [`Plan`] holds what follows from a pattern and the size of the images: for every output
//! (in the forward pass) and for every input (in the input gradient) the list of places and values that it sums. So all three passes read their operands
//! and write each result once, from registers.
//!
//! Vectors run along the batch: activations are kept with it innermost, `C, H, W, N` in memory for a logical `N, C, H, W` ([`to_batch_innermost`]), in which neighbouring
//! pixels and samples lie one after the other, so any batch fills vectors where rows of pixels are long. Operands may have any strides; others than these are converted
//! once. Results have the logical shape and the batch innermost, so layers that follow one another permute nothing. A plan can also work in [`Order::RowMajor`], sample by sample: which
//! order is faster depends on the layer and on those beside it, and is to be measured.
//!
//! # Examples
//! ```
//! use qkernels::sparse::{Forward, Pattern, Plan};
//! use qkernels::{Activation, Conv2dParams};
//! use qtensor::Tensor;
//!
//! let w = Tensor::from_vec([2, 3], vec![0.0f32, 2.0, 0.0, 1.0, 0.0, -1.0])?;
//! let pattern = Pattern::from_dense(&w)?;
//! let values = pattern.gather(&w)?;
//! let x = Tensor::from_vec([1, 3], vec![1.0f32, 2.0, 3.0])?;
//! let plan = Plan::linear(&pattern)?;
//! let y = plan.forward(&Forward { x: &x, values: &values, bias: None, activation: Activation::None })?;
//! assert_eq!(y.to_vec::<f32>()?, [4.0, -2.0]);
//! # Ok::<(), qtensor::Error>(())
//! ```

mod axis;
mod gather;
mod int8;
mod order;
mod pattern;
mod plan;
mod strips;
mod tasks;
mod tile;
mod transposed;
mod walk;
mod weight_grad;

pub use crate::layout::{is_batch_innermost, to_batch_innermost, to_channels_last, to_row_major};
pub use int8::{ByteCodes, ByteForward, BytePasses, ByteScheme, ByteWeights};
pub use order::Order;
pub use pattern::{Pattern, Pruned};
pub use plan::{Forward, Plan};
