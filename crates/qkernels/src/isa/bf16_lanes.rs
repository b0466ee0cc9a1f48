//! bf16 lane by lane in plain Rust, for instruction sets without anything better.

use super::Isa;
use qtensor::bf16;

/// `count` bf16 as f32, the rest 0.
#[inline(always)]
pub(super) fn widen(count: usize, value: impl Fn(usize) -> bf16) -> [f32; 16] {
    let mut lanes = [0.0; 16];
    for (i, x) in lanes.iter_mut().enumerate().take(count) {
        *x = f32::from_bits(u32::from(value(i).to_bits()) << 16);
    }
    lanes
}

/// The nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(super) fn round(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    bf16::from_bits(if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded })
}

/// An operation on the bits of each lane.
#[inline(always)]
pub(super) fn zip<I: Isa>(isa: I, a: I::F32, b: I::F32, op: impl Fn(u32, u32) -> u32) -> I::F32 {
    let (mut x, mut y) = ([0.0; 16], [0.0; 16]);
    isa.store(&mut x, a);
    isa.store(&mut y, b);
    for (x, y) in x[..I::LANES].iter_mut().zip(&y) {
        *x = f32::from_bits(op(x.to_bits(), y.to_bits()));
    }
    isa.load(&x)
}
