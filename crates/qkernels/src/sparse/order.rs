//! The memory orders in which the passes of a layer work.

use crate::layout::{empty, moved_back, to_batch_innermost, to_row_major};
use crate::rounding::{Quantizer, Rounding};
use qtensor::{DType, Result, Tensor};

/// The memory order in which the passes of a [`Plan`](super::Plan) read and write, along which their vectors run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// `C, H, W, N`: along the pixels and samples of an output row, which any batch fills.
    #[default]
    BatchInnermost,
    /// `N, C, H, W`: along the pixels of an output row, one sample after the other. What a sample's sums read lies close together, but its borders and short rows leave much of a vector
    /// empty: this is for convolutions that look at one pixel, whose rows are whole images.
    RowMajor,
}

/// A batch as the passes walk it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Numbers of a pixel, next to each other.
    pub(super) innermost: usize,
    /// Images of such pixels, one after the other.
    pub(super) images: usize,
}

impl Order {
    /// So many samples in this order.
    pub(super) fn batch(self, samples: usize) -> Batch {
        match self {
            Order::BatchInnermost => Batch { innermost: samples, images: 1 },
            Order::RowMajor => Batch { innermost: 1, images: samples },
        }
    }

    /// The same values in this order: this tensor where they are, else a copy.
    ///
    /// # Errors
    /// There is no room.
    pub fn of(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Order::BatchInnermost => to_batch_innermost(x),
            Order::RowMajor => to_row_major(x),
        }
    }

    /// A tensor `[N, …]` as it lies in memory in this order, contiguous: of shape `[…, N]` with the batch innermost. It is a copy where it has another order.
    ///
    /// # Errors
    /// There is no room.
    pub fn memory(self, x: &Tensor) -> Result<Tensor> {
        let x = self.of(x)?;
        match self {
            Order::BatchInnermost => x.permute(&(1..x.rank()).chain((x.rank() > 0).then_some(0)).collect::<Vec<_>>()),
            Order::RowMajor => Ok(x),
        }
    }

    /// Numbers of unspecified value for a result `[N, …]`, contiguous: [`viewed`](Self::viewed) gives them that shape.
    pub(super) fn empty(self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        match self {
            Order::BatchInnermost => empty(shape, dtype),
            Order::RowMajor => Tensor::empty(shape, dtype),
        }
    }

    /// The logical view `[N, …]` of numbers in this order.
    pub(super) fn viewed(self, memory: &Tensor) -> Result<Tensor> {
        match self {
            Order::BatchInnermost => moved_back(memory),
            Order::RowMajor => Ok(memory.clone()),
        }
    }

    /// The codes of a tensor `[N, …]` of any strides as contiguous numbers in this order, by a quantizer with one scale. Changing the order and rounding are one pass over
    /// row-major, channels-last and batch-innermost values in f32; bf16 in another order is moved first.
    pub(super) fn quantize(self, x: &Tensor, quantizer: &Quantizer, rounding: Rounding) -> Result<Tensor> {
        if self == Order::BatchInnermost {
            return quantizer.quantize_batch_innermost(x, rounding);
        }
        let &[batch, channels, height, width] = x.shape().dims() else {
            return quantizer.quantize(&to_row_major(x)?, rounding);
        };
        if x.layout().is_contiguous() {
            return quantizer.quantize(x, rounding);
        }
        // With the pixels in place of the batch, that pass moves them to the end.
        let pixels = x.reshape([batch, channels, height * width])?.permute(&[2, 0, 1])?;
        match quantizer.quantize_batch_innermost(&pixels, rounding) {
            Ok(codes) => codes.reshape(x.shape()),
            // With the place of a value that has no code.
            Err(_) => quantizer.quantize(&to_row_major(x)?, rounding),
        }
    }
}
