//! Conversion between f32 and bf16.

use crate::isa::{Isa, Kernel, dispatch};
use crate::par;
use qtensor::{DType, Error, Result, Tensor, bf16};

/// Elements that are worth handing to another thread.
const JOB: usize = 1 << 16;

/// An f32 tensor rounded to bf16, to the nearest value and ties to even; NaN stays NaN. The order in memory stays where it has no gaps.
///
/// # Errors
/// Another element type.
pub fn to_bf16(x: &Tensor) -> Result<Tensor> {
    convert(x, DType::F32, DType::BF16)
}

/// A bf16 tensor as f32, exactly. The order in memory stays where it has no gaps.
///
/// # Errors
/// Another element type.
pub fn from_bf16(x: &Tensor) -> Result<Tensor> {
    convert(x, DType::BF16, DType::F32)
}

fn convert(x: &Tensor, from: DType, to: DType) -> Result<Tensor> {
    if x.dtype() != from {
        return Err(Error::DType { op: "cast", expected: from, found: x.dtype() });
    }
    let source = if x.layout().is_dense() { x.clone() } else { x.contiguous() };
    let mut out = source.empty_like_of(to);
    match to {
        DType::BF16 => round_into(source.memory()?, out.memory_mut()?),
        _ => widen_into(source.memory()?, out.memory_mut()?),
    }
    Ok(out)
}

/// Rounds each number to the nearest bf16. Both slices are equally long.
pub(crate) fn round_into(from: &[f32], to: &mut [bf16]) {
    dispatch(Round { from, to });
}

/// Each bf16 as f32. Both slices are equally long.
pub(crate) fn widen_into(from: &[bf16], to: &mut [f32]) {
    dispatch(Widen { from, to });
}

/// A conversion as a kernel: slices of whole vectors and a rest, on all threads.
macro_rules! conversion {
    ($name:ident: $from:ty => $to:ty, $load:ident $load_part:ident $store:ident $store_part:ident) => {
        struct $name<'a> {
            from: &'a [$from],
            to: &'a mut [$to],
        }

        impl Kernel for $name<'_> {
            type Output = ();

            #[inline(always)]
            fn run<I: Isa>(self, isa: I) {
                let from = self.from;
                if from.len() > JOB {
                    par::for_each_chunk(self.to, JOB, |job, to| {
                        isa.outline($name { from: &from[job * JOB..][..to.len()], to });
                    });
                    return;
                }
                let whole = from.len() / I::LANES * I::LANES;
                let (to, to_rest) = self.to.split_at_mut(whole);
                for (from, to) in from.chunks_exact(I::LANES).zip(to.chunks_exact_mut(I::LANES)) {
                    isa.$store(to, isa.$load(from));
                }
                isa.$store_part(to_rest, isa.$load_part(&from[whole..]));
            }
        }
    };
}
conversion!(Round: f32 => bf16, load load_part store_bf16 store_bf16_part);
conversion!(Widen: bf16 => f32, load_bf16 load_bf16_part store store_part);
