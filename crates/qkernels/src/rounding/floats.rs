//! Values in f32 or bf16, read a block at a time.

use crate::cast::widen_into;
use qtensor::{DType, Result, Tensor, bf16};
use std::ops::Range;

/// Values that stay in the nearest cache between two looks at them.
pub(super) const BLOCK: usize = 4096;

/// The values of a tensor without gaps, in the order of its memory.
#[derive(Clone, Copy)]
pub(super) enum Floats<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Floats<'a> {
    /// # Errors
    /// Another type.
    pub(super) fn of(x: &'a Tensor) -> Result<Self> {
        Ok(match x.dtype() {
            DType::BF16 => Floats::Bf16(x.memory()?),
            _ => Floats::F32(x.memory()?),
        })
    }

    pub(super) fn len(self) -> usize {
        match self {
            Floats::F32(values) => values.len(),
            Floats::Bf16(values) => values.len(),
        }
    }

    /// Cuts a range into blocks that [`block`](Self::block) can read.
    pub(super) fn blocks(self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let size = match self {
            Floats::F32(_) => range.len().max(1),
            Floats::Bf16(_) => BLOCK,
        };
        let end = range.end;
        range.step_by(size).map(move |at| at..end.min(at + size))
    }

    /// The values of a range as f32: where they are, or in `room`, which holds a block.
    pub(super) fn block<'r>(self, range: Range<usize>, room: &'r mut [f32; BLOCK]) -> &'r [f32]
    where
        'a: 'r,
    {
        match self {
            Floats::F32(values) => &values[range],
            Floats::Bf16(values) => {
                let to = &mut room[..range.len()];
                widen_into(&values[range], to);
                to
            }
        }
    }
}
