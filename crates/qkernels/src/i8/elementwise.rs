//! Real numbers to bytes and back, and sums of two tensors of bytes.

use super::operands::Quantization;
use super::round::{ToBytes, load};
use crate::isa::{self, Isa, Kernel};
use crate::par::{self, SharedOut};
use qtensor::{DType, Error, Result, Tensor};
use std::ops::Range;

/// `round(x / scale) + zero_point`, to nearest and ties to even, limited to `0..=255`; NaN becomes 0. Images become channels-last, other shapes row-major.
///
/// # Errors
/// A type other than f32; a scale that is not positive and finite.
pub fn quantize(x: &Tensor, to: Quantization) -> Result<Tensor> {
    let op = "i8::quantize";
    expect(op, x, DType::F32)?;
    to.check(op, "result")?;
    let x = x.to_channels_last();
    let mut y = x.empty_like_of(DType::U8);
    let bytes = ToBytes::new(to, false);
    run(Quantize { from: x.memory()?, to: SharedOut::new(y.memory_mut()?), scale: to.scale, bytes }, x.numel());
    Ok(y)
}

/// `(q - zero_point) * scale` in f32. Images become channels-last, other shapes row-major.
///
/// # Errors
/// A type other than u8; a scale that is not positive and finite.
pub fn dequantize(x: &Tensor, from: Quantization) -> Result<Tensor> {
    let op = "i8::dequantize";
    expect(op, x, DType::U8)?;
    from.check(op, "input")?;
    let x = x.to_channels_last();
    let mut y = x.empty_like_of(DType::F32);
    run(Dequantize { from: x.memory()?, to: SharedOut::new(y.memory_mut()?), quantization: from }, x.numel());
    Ok(y)
}

/// `round((a - a_zero) * (a_scale / y_scale) + (b - b_zero) * (b_scale / y_scale)) + y_zero`, to nearest and ties to even, limited to `0..=255`, from `y_zero` on with `relu`.
/// All operations are in f32, none fused. Images become channels-last, other shapes row-major.
///
/// # Errors
/// Types other than u8, shapes that differ, scales that are not positive and finite.
pub fn add(terms: [(&Tensor, Quantization); 2], output: Quantization, relu: bool) -> Result<Tensor> {
    let op = "i8::add";
    for (x, quantization) in terms {
        expect(op, x, DType::U8)?;
        quantization.check(op, "input")?;
    }
    output.check(op, "output")?;
    let [a, b] = terms.map(|(x, _)| x);
    if a.shape() != b.shape() {
        return Err(Error::shape(op, format!("{} and {} differ", a.shape(), b.shape())));
    }
    let (a, b) = (a.to_channels_last(), b.to_channels_last());
    let mut y = a.empty_like_of(DType::U8);
    let sum = Add {
        from: [a.memory()?, b.memory()?],
        zero_points: terms.map(|(_, q)| f32::from(q.zero_point)),
        factors: terms.map(|(_, q)| q.scale / output.scale),
        to: SharedOut::new(y.memory_mut()?),
        bytes: ToBytes::new(output, relu),
    };
    run(sum, a.numel());
    Ok(y)
}

fn expect(op: &'static str, x: &Tensor, expected: DType) -> Result<()> {
    if x.dtype() == expected { Ok(()) } else { Err(Error::DType { op, expected, found: x.dtype() }) }
}

/// A function of elements, a vector at a time.
trait Step: Copy + Sync {
    /// The `count <= LANES` elements from `at` on.
    ///
    /// # Safety
    /// They lie in all operands, and no other thread writes them.
    unsafe fn step<I: Isa>(self, isa: I, at: usize, count: usize);
}

/// Elements that are worth handing to another thread, a whole number of vectors.
const JOB: usize = 1 << 16;

fn run<S: Step>(step: S, length: usize) {
    par::for_each_range(length, JOB, |range| isa::dispatch(Steps { step, range }));
}

struct Steps<S> {
    step: S,
    range: Range<usize>,
}

impl<S: Step> Kernel for Steps<S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Range { start, end } = self.range;
        let whole = start + (end - start) / I::LANES * I::LANES;
        for at in (start..whole).step_by(I::LANES) {
            // SAFETY: ranges lie in the operands and do not overlap.
            unsafe { self.step.step(isa, at, I::LANES) };
        }
        if whole < end {
            // SAFETY: as above.
            unsafe { self.step.step(isa, whole, end - whole) };
        }
    }
}

#[derive(Clone, Copy)]
struct Quantize<'a> {
    from: &'a [f32],
    to: SharedOut<u8>,
    scale: f32,
    bytes: ToBytes,
}

impl Step for Quantize<'_> {
    #[inline(always)]
    unsafe fn step<I: Isa>(self, isa: I, at: usize, count: usize) {
        let x = isa.div(isa.load_part(&self.from[at..at + count]), isa.splat(self.scale));
        // SAFETY: the caller's promise.
        unsafe { self.bytes.store(isa, self.to.at(at), count, x) };
    }
}

#[derive(Clone, Copy)]
struct Dequantize<'a> {
    from: &'a [u8],
    to: SharedOut<f32>,
    quantization: Quantization,
}

impl Step for Dequantize<'_> {
    #[inline(always)]
    unsafe fn step<I: Isa>(self, isa: I, at: usize, count: usize) {
        let Quantization { scale, zero_point } = self.quantization;
        // SAFETY: the caller's promise.
        unsafe {
            let x = load(isa, self.from.as_ptr().add(at), count);
            let x = isa.mul(isa.sub(x, isa.splat(f32::from(zero_point))), isa.splat(scale));
            if count == I::LANES {
                isa.store_at(self.to.at(at), x)
            } else {
                isa.store_part_at(self.to.at(at), count, x)
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Add<'a> {
    from: [&'a [u8]; 2],
    zero_points: [f32; 2],
    factors: [f32; 2],
    to: SharedOut<u8>,
    bytes: ToBytes,
}

impl Step for Add<'_> {
    #[inline(always)]
    unsafe fn step<I: Isa>(self, isa: I, at: usize, count: usize) {
        // SAFETY: the caller's promise.
        let term = |i: usize| unsafe {
            let x = load(isa, self.from[i].as_ptr().add(at), count);
            isa.mul(isa.sub(x, isa.splat(self.zero_points[i])), isa.splat(self.factors[i]))
        };
        // SAFETY: as above.
        unsafe { self.bytes.store(isa, self.to.at(at), count, isa.add(term(0), term(1))) };
    }
}
