//! Strided views of f32 matrices, as kernels address them.

use qtensor::{Result, Tensor};

/// A matrix of f32 with any strides. Every element lies in `data`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_step: usize,
    pub(super) column_step: usize,
}

impl<'a> Matrix<'a> {
    /// A view of a tensor of rank 2.
    pub(super) fn new(tensor: &'a Tensor) -> Result<Self> {
        let buffer = tensor.buffer_slice::<f32>()?;
        let [rows, columns] = [tensor.shape()[0], tensor.shape()[1]];
        let [row_step, column_step] = [tensor.strides()[0], tensor.strides()[1]];
        Ok(Matrix { data: &buffer[tensor.layout().offset().min(buffer.len())..], rows, columns, row_step, column_step })
    }

    /// A view of numbers that start with the first element.
    pub(super) fn of(data: &'a [f32], [rows, columns]: [usize; 2], [row_step, column_step]: [usize; 2]) -> Self {
        Matrix { data, rows, columns, row_step, column_step }
    }

    /// Rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            ..self
        }
    }

    /// One row, as a matrix.
    pub(super) fn row(self, row: usize) -> Self {
        let start = (row * self.row_step).min(self.data.len());
        Matrix { data: &self.data[start..], rows: 1, ..self }
    }

    /// The address of an element; of no use for one outside.
    #[inline(always)]
    pub(super) fn at(&self, row: usize, column: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(row * self.row_step + column * self.column_step)
    }
}
