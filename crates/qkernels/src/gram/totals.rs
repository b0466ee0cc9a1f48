//! The sums over all rows so far, in f64.

use super::OP;
use super::inputs::{Inputs, Sources};
use qtensor::{DType, Error, Result, Tensor};

/// Sums over rows. Columns are in the order in which rows are gathered; of `H` the upper triangles are unspecified.
#[derive(Debug)]
pub(super) struct Totals {
    /// `N` of each block.
    pub(super) size: usize,
    /// `H`, `[blocks, N, N]`.
    pub(super) h: Tensor,
    /// `C`, where it differs from `H`.
    pub(super) c: Option<Tensor>,
    /// Of each tensor, block after block.
    pub(super) columns: Vec<ColumnTotals>,
}

/// Sums of each column of one tensor.
#[derive(Clone, Debug)]
pub(super) struct ColumnTotals {
    pub(super) sums: Vec<f64>,
    /// Sums of squares.
    pub(super) squares: Vec<f64>,
}

impl Totals {
    /// Of nothing.
    ///
    /// # Errors
    /// Matrices that do not fit the address space.
    pub(super) fn new(inputs: &Inputs, sources: Sources) -> Result<Self> {
        Self::matrix_bytes(inputs)?;
        let matrix = || Tensor::zeros(inputs.shape(), DType::F64);
        let zeros = vec![0.0; inputs.blocks() * inputs.size()];
        let columns = vec![ColumnTotals { sums: zeros.clone(), squares: zeros }; sources.count()];
        let c = if sources == Sources::Two { Some(matrix()?) } else { None };
        Ok(Totals { size: inputs.size(), h: matrix()?, c, columns })
    }

    /// Bytes of `H` of all blocks.
    ///
    /// # Errors
    /// They do not fit the address space.
    pub(super) fn matrix_bytes(inputs: &Inputs) -> Result<usize> {
        let shape = inputs.shape();
        let bytes = shape.iter().try_fold(size_of::<f64>(), |bytes, n| bytes.checked_mul(*n));
        bytes
            .filter(|bytes| *bytes <= isize::MAX as usize)
            .ok_or_else(|| Error::Overflow { op: OP, shape: shape.to_vec() })
    }

    /// What to add to: `H`, and `C` where it differs; and the columns of each tensor.
    ///
    /// # Errors
    /// Never: the matrices have this type.
    pub(super) fn parts(&mut self) -> Result<(Vec<&mut [f64]>, &mut [ColumnTotals])> {
        let matrices =
            std::iter::once(&mut self.h).chain(&mut self.c).map(Tensor::memory_mut).collect::<Result<_>>()?;
        Ok((matrices, &mut self.columns))
    }
}
