//! Two memory orders of images by one kernel: with the batch innermost, images and channels only change their roles.

use super::Windows;
use crate::layout::{is_only_batch_innermost, to_batch_innermost, to_channels_last};
use qtensor::{Result, Tensor};

/// Batches smaller than this do not fill the vectors that run along them.
const SMALLEST_BATCH: usize = 8;

/// How the kernels see a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As channels-last images.
    Last,
    /// As channels-last images whose channels are the samples.
    Exchanged,
    /// As channels-last images, after and before a change of the order: few samples with the batch innermost.
    Converted,
}

impl Order {
    /// The order in which a tensor of rank 4 is worked on, and the channels-last view of it, or copy, that kernels read.
    pub(super) fn of(x: &Tensor) -> Result<(Order, Tensor)> {
        let order = match is_only_batch_innermost(x) {
            true if x.shape()[0] < SMALLEST_BATCH => Order::Converted,
            true => Order::Exchanged,
            false => Order::Last,
        };
        Ok((order, order.bring(x)?))
    }

    /// What kernels read of a tensor of any order.
    pub(super) fn bring(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Order::Exchanged => exchanged(&to_batch_innermost(x)?),
            Order::Last | Order::Converted => to_channels_last(x),
        }
    }

    /// The logical tensor of what a kernel wrote.
    pub(super) fn back(self, y: &Tensor) -> Result<Tensor> {
        match self {
            Order::Last => Ok(y.clone()),
            Order::Exchanged => exchanged(y),
            Order::Converted => to_batch_innermost(y),
        }
    }

    /// The shape of images as kernels see them.
    pub(super) fn shape(self, shape: [usize; 4]) -> [usize; 4] {
        let [images, channels, height, width] = shape;
        if self == Order::Exchanged { [channels, images, height, width] } else { shape }
    }

    /// The windows as kernels see them.
    pub(super) fn windows(self, windows: &Windows) -> Windows {
        let [images, channels, ..] = self.shape(windows.output_shape());
        Windows { images, channels, ..*windows }
    }
}

/// The view with images and channels exchanged.
fn exchanged(x: &Tensor) -> Result<Tensor> {
    x.permute(&[1, 0, 2, 3])
}

/// The values in the order that the kernels would have given the result of a pool of `x`.
pub(super) fn ordered_as(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if is_only_batch_innermost(x) { to_batch_innermost(y) } else { to_channels_last(y) }
}
