//! To and from the memory order that sparse layers work in: the batch innermost.

use crate::isa::{self, Isa, Kernel};
use crate::par::{self, SharedOut};
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// Rows of a task, each with a number for every sample.
const ROWS: usize = 256;

/// Whether samples, the first axis, are neighbours in memory, without gaps: `C, H, W, N` for a logical `N, C, H, W`.
pub fn is_batch_innermost(x: &Tensor) -> bool {
    moved(x).is_ok_and(|x| x.layout().is_contiguous())
}

/// The view whose last axis is the batch.
fn moved(x: &Tensor) -> Result<Tensor> {
    let axes: Vec<usize> = (1..x.rank()).chain((x.rank() > 0).then_some(0)).collect();
    x.permute(&axes)
}

/// The view whose first axis is the batch of one whose last is.
pub(super) fn moved_back(x: &Tensor) -> Result<Tensor> {
    let last = x.rank().saturating_sub(1);
    let axes: Vec<usize> = (x.rank() > 0).then_some(last).into_iter().chain(0..last).collect();
    x.permute(&axes)
}

/// Numbers of unspecified value with the batch innermost, for a kernel to write to: of shape `[…, N]`, which [`moved_back`] gives its logical shape.
pub(super) fn empty(shape: &[usize]) -> Result<Tensor> {
    let axes: Vec<usize> = shape[1..].iter().chain(&shape[..1]).copied().collect();
    Tensor::empty(axes, DType::F32)
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
    let exchange = match Exchange::of(x) {
        Some(exchange) if x.dtype() == DType::F32 => exchange,
        _ => return moved_back(&moved(x)?.contiguous()),
    };
    let mut out = empty(x.shape())?;
    let source = &x.buffer_slice::<f32>()?[x.layout().offset()..x.layout().end()];
    exchange.run(source, out.memory_mut::<f32>()?, true);
    moved_back(&out)
}

/// The same values in logical order: this tensor where they are, else a copy, which is quick where the batch is innermost.
///
/// # Errors
/// There is no room.
pub fn to_row_major(x: &Tensor) -> Result<Tensor> {
    if x.layout().is_contiguous() {
        return Ok(x.clone());
    }
    let out = Tensor::empty(x.shape(), DType::F32)?;
    Ok(from_batch_innermost(x, out).unwrap_or_else(|| x.contiguous()))
}

/// The same values channels-last (row-major for ranks other than 4): this tensor where they are, else a copy, which is quick where the batch is innermost.
///
/// # Errors
/// There is no room.
pub fn to_channels_last(x: &Tensor) -> Result<Tensor> {
    let is_already = if x.rank() == 4 { x.layout().is_channels_last() } else { x.layout().is_contiguous() };
    if is_already {
        return Ok(x.clone());
    }
    let out = Tensor::empty_channels_last(x.shape(), DType::F32)?;
    Ok(from_batch_innermost(x, out).unwrap_or_else(|| x.to_channels_last()))
}

/// Copies f32 with the batch innermost to an empty tensor; `None` where that is not what `x` is.
fn from_batch_innermost(x: &Tensor, mut out: Tensor) -> Option<Tensor> {
    if x.dtype() != DType::F32 || !is_batch_innermost(x) {
        return None;
    }
    let exchange = Exchange::of(&out)?;
    exchange.run(x.memory::<f32>().ok()?, out.memory_mut::<f32>().ok()?, false);
    Some(out)
}

/// A transposition between one order of a tensor's rows and the batch innermost. The rows of the latter are numbered `outer + inner · inner_step`.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    batch: usize,
    /// Places along the axis whose numbers are neighbours in the other order.
    inner: usize,
    /// Other places of a sample.
    outer: usize,
    /// Numbers from one sample, and from one outer place, to the next in the other order.
    steps: [usize; 2],
    /// Rows from one inner place to the next.
    inner_step: usize,
}

impl Exchange {
    /// For row-major and channels-last samples any distance apart; `None` for other strides.
    fn of(x: &Tensor) -> Option<Exchange> {
        let (shape, strides) = (x.shape(), x.strides());
        let (batch, between) = (*shape.first()?, *strides.first()?);
        // Axes of length 1 have any stride.
        let places: Vec<[usize; 2]> =
            shape[1..].iter().zip(&strides[1..]).filter(|(d, _)| **d != 1).map(|(d, s)| [*d, *s]).collect();
        let is_run = |axes: &[[usize; 2]]| axes.windows(2).all(|pair| pair[0][1] == pair[1][0] * pair[1][1]);
        let count = |axes: &[[usize; 2]]| axes.iter().map(|axis| axis[0]).product::<usize>();
        let last = places.last()?;
        if last[1] == 1 && is_run(&places) {
            return Some(Exchange { batch, inner: count(&places), outer: 1, steps: [between, 0], inner_step: 1 });
        }
        let (first, rest) = places.split_first()?;
        if shape[1] != 1 && first[1] == 1 && is_run(rest) {
            let (outer, step) = (count(rest), rest.last()?[1]);
            return Some(Exchange { batch, inner: first[0], outer, steps: [between, step], inner_step: outer });
        }
        None
    }

    /// Copies to (or from) the batch innermost.
    fn run(self, from: &[f32], to: &mut [f32], is_to_innermost: bool) {
        if self.batch * self.inner * self.outer == 0 {
            return;
        }
        let [sample, place] = self.steps;
        let innermost = self.batch * self.inner * self.outer;
        let other = (self.batch - 1) * sample + (self.outer - 1) * place + self.inner;
        let wanted = if is_to_innermost { [other, innermost] } else { [innermost, other] };
        assert!(from.len() >= wanted[0] && to.len() >= wanted[1], "a transposition leaves its tensors");
        let inner_piece = self.inner.min(ROWS);
        let outer_piece = ROWS / inner_piece;
        let out = SharedOut::new(to);
        let inner_pieces = self.inner.div_ceil(inner_piece);
        par::for_each(inner_pieces * self.outer.div_ceil(outer_piece), |task| {
            let (inner, outer) = (task % inner_pieces * inner_piece, task / inner_pieces * outer_piece);
            let inner = inner..(inner + inner_piece).min(self.inner);
            let outer = outer..(outer + outer_piece).min(self.outer);
            isa::dispatch(Piece { exchange: self, from, out, inner, outer, is_to_innermost });
        });
    }
}

/// The rows of some inner and outer places.
struct Piece<'a> {
    exchange: Exchange,
    from: &'a [f32],
    out: SharedOut<f32>,
    inner: Range<usize>,
    outer: Range<usize>,
    is_to_innermost: bool,
}

impl Kernel for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Exchange { batch, steps: [sample, place], inner_step, .. } = self.exchange;
        for first in (0..batch).step_by(I::LANES) {
            let samples = I::LANES.min(batch - first);
            for u in self.outer.clone() {
                for v in self.inner.clone().step_by(I::LANES) {
                    let places = I::LANES.min(self.inner.end - v);
                    // A block of places by samples, in either order.
                    let innermost = (u + v * inner_step) * batch + first;
                    let other = first * sample + u * place + v;
                    let (from, from_step, to, to_step, size) = if self.is_to_innermost {
                        (other, sample, innermost, inner_step * batch, [samples, places])
                    } else {
                        (innermost, inner_step * batch, other, sample, [places, samples])
                    };
                    // SAFETY: `run` has checked that the last block lies in both buffers, and no two tasks have the same places.
                    unsafe { block(isa, (self.from.as_ptr().add(from), self.out.at(to)), [from_step, to_step], size) };
                }
            }
        }
    }
}

/// Transposes `size[0]` rows of `size[1]` numbers, at most a vector of either.
///
/// # Safety
/// The rows must be readable at the first place and the transposed ones writable at the second, so many numbers apart.
#[inline(always)]
unsafe fn block<I: Isa>(
    isa: I,
    (from, to): (*const f32, *mut f32),
    [from_step, to_step]: [usize; 2],
    size: [usize; 2],
) {
    if size == [I::LANES; 2] {
        // SAFETY: the caller's promise.
        return unsafe { isa.transpose_at(from, from_step, to, to_step) };
    }
    for row in 0..size[0] {
        for column in 0..size[1] {
            // SAFETY: the caller's promise.
            unsafe { *to.add(column * to_step + row) = *from.add(row * from_step + column) };
        }
    }
}
