//! Where sums of bytes go: f32, or bf16 as networks with halves keep it between layers.

use crate::isa::{Isa, Stored};
use crate::par::SharedOut;
use qtensor::{DType, Result, Tensor, bf16};

/// The memory of a result. Which type it has is asked for every vector that is written, which costs less than a kernel for each.
#[derive(Clone, Copy)]
pub(super) enum Results {
    F32(SharedOut<f32>),
    Bf16(SharedOut<bf16>),
}

impl Results {
    /// Of a tensor in one of these types.
    ///
    /// # Errors
    /// Another type, or memory that is shared.
    pub(super) fn of(y: &mut Tensor) -> Result<Results> {
        Ok(match y.dtype() {
            DType::BF16 => Results::Bf16(SharedOut::new(y.memory_mut()?)),
            _ => Results::F32(SharedOut::new(y.memory_mut()?)),
        })
    }

    /// Bytes of a number.
    #[inline(always)]
    pub(super) fn bytes(self) -> usize {
        match self {
            Results::F32(_) => size_of::<f32>(),
            Results::Bf16(_) => size_of::<bf16>(),
        }
    }

    /// Asks for the line of a number.
    ///
    /// # Safety
    /// The number lies in the memory.
    #[inline(always)]
    pub(super) unsafe fn prefetch<I: Isa>(self, isa: I, index: usize) {
        // SAFETY: the caller's promise; nothing is written.
        unsafe {
            match self {
                Results::F32(to) => isa.prefetch(to.at(index)),
                Results::Bf16(to) => isa.prefetch(to.at(index).cast()),
            }
        }
    }

    /// Writes the first `count` lanes, or all where that is known.
    ///
    /// # Safety
    /// The numbers lie in the memory, and nobody else uses them.
    #[inline(always)]
    pub(super) unsafe fn store<I: Isa>(self, isa: I, index: usize, count: usize, y: I::F32) {
        // SAFETY: the caller's promise; no more lanes than the vector has are written.
        unsafe {
            match self {
                Results::F32(to) if count >= I::LANES => f32::store_at(isa, to.at(index), y),
                Results::F32(to) => f32::store_part_at(isa, to.at(index), count, y),
                Results::Bf16(to) if count >= I::LANES => bf16::store_at(isa, to.at(index), y),
                Results::Bf16(to) => bf16::store_part_at(isa, to.at(index), count, y),
            }
        }
    }
}
