//! Strided tensors for the Quartz engine.
//!
//! A [`Tensor`] is a shared, 64-byte aligned buffer together with a shape, strides and an offset. Views (permute, slice,
//! expand, reshape where the strides allow it) share the buffer and copy nothing. Buffers come from a caching [`pool`]
//! that counts live and peak bytes. Random numbers are counter-based ([`random`]): a value depends on its seed and its
//! position only, never on the order in which threads ask for it.
//!
//! Images are logically `N, C, H, W`; activations are kept channels-last (`N, H, W, C` in memory) by their strides.
//!
//! ```
//! use qtensor::Tensor;
//! let x = Tensor::from_vec([2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! let t = x.permute(&[1, 0])?;
//! assert_eq!(t.shape(), [3, 2]);
//! assert_eq!(t.to_vec::<f32>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
//! # Ok::<(), qtensor::Error>(())
//! ```

mod copy;
mod dtype;
mod error;
mod layout;
pub mod npy;
pub mod pool;
pub mod random;
mod shape;
mod space;
mod storage;
mod tensor;
mod views;

#[cfg(feature = "ndarray")]
mod ndarray;

pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use half::bf16;
pub use layout::Layout;
pub use shape::{MAX_RANK, Shape};
pub use tensor::Tensor;
