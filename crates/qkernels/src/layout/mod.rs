//! Memory orders of activations, and the quick changes from one to another.
//!
//! Dense layers keep images channels-last, sparse layers with the batch innermost, and files and other libraries row-major. Kernels that want another order than they are given convert
//! here, so that every change between two orders is the blocked transposition.

mod transposition;

use crate::isa::Stored;
use qtensor::{DType, Result, Tensor, bf16};
use transposition::Transposition;

/// Whether samples, the first axis, are neighbours in memory, without gaps: `C, H, W, N` for a logical `N, C, H, W`.
pub fn is_batch_innermost(x: &Tensor) -> bool {
    moved(x).is_ok_and(|x| x.layout().is_contiguous())
}

/// Whether the batch is innermost and the order is not also that of dense layers, as it is for a sample of one place: kernels of dense layers are the quicker for those.
pub(crate) fn is_only_batch_innermost(x: &Tensor) -> bool {
    is_batch_innermost(x) && !is_last(x)
}

/// Channels-last images, or other tensors in logical order.
fn is_last(x: &Tensor) -> bool {
    if x.rank() == 4 { x.layout().is_channels_last() } else { x.layout().is_contiguous() }
}

/// The view whose last axis is the batch.
fn moved(x: &Tensor) -> Result<Tensor> {
    let axes: Vec<usize> = (1..x.rank()).chain((x.rank() > 0).then_some(0)).collect();
    x.permute(&axes)
}

/// The view whose first axis is the batch of one whose last is.
pub(crate) fn moved_back(x: &Tensor) -> Result<Tensor> {
    let last = x.rank().saturating_sub(1);
    let axes: Vec<usize> = (x.rank() > 0).then_some(last).into_iter().chain(0..last).collect();
    x.permute(&axes)
}

/// Numbers of unspecified value with the batch innermost, for a kernel to write to: of shape `[…, N]`, which [`moved_back`] gives its logical shape.
pub(crate) fn empty(shape: &[usize], dtype: DType) -> Result<Tensor> {
    let axes: Vec<usize> = shape.iter().skip(1).chain(shape.first()).copied().collect();
    Tensor::empty(axes, dtype)
}

/// The same values with samples next to each other in memory: this tensor where they are, else a copy. Row-major and channels-last f32 are transposed in blocks
/// on all threads; the samples may be any distance apart.
///
/// # Errors
/// There is no room.
pub fn to_batch_innermost(x: &Tensor) -> Result<Tensor> {
    if is_batch_innermost(x) {
        return Ok(x.clone());
    }
    let mut out = moved_back(&empty(x.shape(), x.dtype())?)?;
    copy(x, &mut out)?;
    Ok(out)
}

/// The same values in logical order: this tensor where they are, else a copy, which is quick where the batch is innermost.
///
/// # Errors
/// There is no room.
pub fn to_row_major(x: &Tensor) -> Result<Tensor> {
    if x.layout().is_contiguous() {
        return Ok(x.clone());
    }
    let mut out = Tensor::empty(x.shape(), x.dtype())?;
    copy(x, &mut out)?;
    Ok(out)
}

/// The same values channels-last (row-major for ranks other than 4): this tensor where they are, else a copy, which is quick where the batch is innermost.
///
/// # Errors
/// There is no room.
pub fn to_channels_last(x: &Tensor) -> Result<Tensor> {
    if is_last(x) {
        return Ok(x.clone());
    }
    let mut out = Tensor::empty_channels_last(x.shape(), x.dtype())?;
    copy(x, &mut out)?;
    Ok(out)
}

/// The same values with neighbouring channels next to each other in memory, for kernels that read images any distance apart.
///
/// # Errors
/// There is no room.
pub(crate) fn channels_innermost(x: &Tensor) -> Result<Tensor> {
    if x.strides()[1] == 1 { Ok(x.clone()) } else { to_channels_last(x) }
}

/// As [`to_channels_last`], for kernels that read images of any strides and are slow only with the batch innermost: others are left as they are.
///
/// # Errors
/// There is no room.
pub(crate) fn not_batch_innermost(x: &Tensor) -> Result<Tensor> {
    if is_only_batch_innermost(x) { to_channels_last(x) } else { Ok(x.clone()) }
}

/// Copies all values to a tensor of the same shape and type: f32 and bf16 that change their memory order in blocks on all threads.
///
/// # Errors
/// Shapes or types differ.
pub(crate) fn copy(from: &Tensor, to: &mut Tensor) -> Result<()> {
    let is_plain = from.shape() == to.shape() && to.is_unique() && to.layout().is_dense();
    match [from.dtype(), to.dtype()] {
        [DType::F32, DType::F32] if is_plain => transpose::<f32>(from, to),
        [DType::BF16, DType::BF16] if is_plain => transpose::<bf16>(from, to),
        _ => to.copy_from(from),
    }
}

fn transpose<T: Stored>(from: &Tensor, to: &mut Tensor) -> Result<()> {
    let Some(exchange) = Transposition::of(from.layout(), to.layout()) else { return to.copy_from(from) };
    let source = &from.buffer_slice::<T>()?[from.layout().offset()..from.layout().end()];
    exchange.run(source, to.memory_mut()?);
    Ok(())
}
