//! The finished matrices, in the order of a filter's weights.

use super::inputs::Inputs;
use super::totals::{ColumnTotals, Totals};
use crate::par;
use qtensor::{DType, Result, Tensor};
use std::ops::Range;

/// `H`, `C` and column sums over all rows, in f64. The inputs of a neuron are in the order channel, row, column, as in weights `[O, C/groups, KH, KW]`.
#[derive(Debug)]
pub struct GramMatrices {
    blocks: usize,
    size: usize,
    rows: u64,
    h: Tensor,
    c: Option<Tensor>,
    columns: Vec<ColumnTotals>,
}

/// Side of the squares in which a triangle is mirrored: two of them fit the nearest cache.
const SQUARE: usize = 32;

impl GramMatrices {
    pub(super) fn new(inputs: &Inputs, totals: Totals, rows: u64) -> Result<Self> {
        let Totals { size, mut h, mut c, mut columns } = totals;
        for matrix in h.memory_mut()?.chunks_exact_mut(size * size) {
            mirror(matrix, size);
        }
        if !inputs.is_in_order() {
            let (taps, depth) = (inputs.taps(), inputs.depth());
            let order: Vec<usize> = (0..size).map(|i| i % taps * depth + i / taps).collect();
            h = reordered(h, &order)?;
            c = c.map(|c| reordered(c, &order)).transpose()?;
            for values in columns.iter_mut().flat_map(|c| [&mut c.sums, &mut c.squares]) {
                let of_block = |block: &[f64]| order.iter().map(|i| block[*i]).collect::<Vec<f64>>();
                *values = values.chunks_exact(size).flat_map(of_block).collect();
            }
        }
        Ok(GramMatrices { blocks: inputs.blocks(), size, rows, h, c, columns })
    }

    /// Blocks: 1 of a dense layer, the groups of whole filters, or the channels.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// `N`, the inputs of a neuron.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Rows that were added: samples or patches.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether `X~` and `X` are two tensors; else `C` is `H`.
    pub fn is_of_two(&self) -> bool {
        self.c.is_some()
    }

    /// `X~ᵀ X~`, `N×N`, row-major, symmetric to the bit.
    ///
    /// # Panics
    /// There is no such block.
    pub fn h(&self, block: usize) -> &[f64] {
        self.matrix(&self.h, block)
    }

    /// `X~ᵀ X`, `N×N`, row-major: a row for each column of `X~`.
    ///
    /// # Panics
    /// There is no such block.
    pub fn c(&self, block: usize) -> &[f64] {
        self.matrix(self.c.as_ref().unwrap_or(&self.h), block)
    }

    /// Sums of the columns of `X~`.
    ///
    /// # Panics
    /// There is no such block.
    pub fn quantized_sums(&self, block: usize) -> &[f64] {
        &self.columns[0].sums[self.of_block(block)]
    }

    /// Sums of the columns of `X`.
    ///
    /// # Panics
    /// There is no such block.
    pub fn analog_sums(&self, block: usize) -> &[f64] {
        &self.columns[self.columns.len() - 1].sums[self.of_block(block)]
    }

    /// Sums of squares of the columns of `X`, the diagonal of `Xᵀ X`.
    ///
    /// # Panics
    /// There is no such block.
    pub fn analog_squares(&self, block: usize) -> &[f64] {
        &self.columns[self.columns.len() - 1].squares[self.of_block(block)]
    }

    fn of_block(&self, block: usize) -> Range<usize> {
        block * self.size..(block + 1) * self.size
    }

    fn matrix<'a>(&self, matrix: &'a Tensor, block: usize) -> &'a [f64] {
        let length = self.size * self.size;
        let values = matrix.memory().expect("dense, and of this type");
        &values[block * length..(block + 1) * length]
    }
}

/// Copies the lower triangle of a matrix to the upper one.
fn mirror(matrix: &mut [f64], size: usize) {
    for row in (0..size).step_by(SQUARE) {
        for column in (0..=row).step_by(SQUARE) {
            for i in row..(row + SQUARE).min(size) {
                for j in column..(column + SQUARE).min(i) {
                    matrix[j * size + i] = matrix[i * size + j];
                }
            }
        }
    }
}

/// Matrices whose row and column `i` are those of number `order[i]`.
fn reordered(matrices: Tensor, order: &[usize]) -> Result<Tensor> {
    let size = order.len();
    let mut out = Tensor::empty(matrices.shape(), DType::F64)?;
    let from = matrices.memory::<f64>()?;
    par::for_each_chunk(out.memory_mut::<f64>()?, size, |row, to| {
        let from = &from[(row / size * size + order[row % size]) * size..][..size];
        to.iter_mut().zip(order).for_each(|(to, column)| *to = from[*column]);
    });
    Ok(out)
}
