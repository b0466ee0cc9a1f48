//! Neurons that see several channels: rows are gathered in tiles, and the matrix product multiplies each tile by itself.

use super::batch::Batch;
use super::inputs::{Inputs, Sources};
use super::totals::Totals;
use super::{OP, ROWS};
use crate::gemm::Gemm;
use crate::isa::{Isa, Kernel, dispatch};
use crate::par;
use crate::reduce::columns::{Columns, columns};
use qtensor::{DType, Error, Result, Tensor};
use std::ops::Range;

/// The most rows of a matrix that one product gives: few enough that little above the diagonal is computed for nothing, and enough that the right operand is not packed
/// too often.
const SLAB: usize = 256;
/// Rows of a matrix that a thread adds to at a time.
const ADDED: usize = 16;

/// Rows on their way to the matrix product, of each tensor. A tile is full before it is multiplied, so that sums do not depend on the cut into mini-batches.
#[derive(Debug)]
pub(super) struct Tiles {
    /// `[ROWS, columns of all blocks]`
    tiles: Vec<Tensor>,
    filled: usize,
}

impl Tiles {
    pub(super) fn new(inputs: &Inputs, sources: Sources) -> Result<Self> {
        let tile = || Tensor::empty([ROWS, inputs.blocks() * inputs.size()], DType::F32);
        Ok(Tiles { tiles: (0..sources.count()).map(|_| tile()).collect::<Result<_>>()?, filled: 0 })
    }

    /// Bytes of the tiles, and of the products that are on their way to the sums.
    pub(super) fn bytes(inputs: &Inputs, sources: Sources) -> Result<usize> {
        let floats = inputs.size().checked_mul(inputs.blocks()).and_then(|n| n.checked_mul(ROWS * sources.count()));
        floats
            .and_then(|n| n.checked_add(par::threads() * SLAB * inputs.size()))
            .and_then(|n| n.checked_mul(size_of::<f32>()))
            .ok_or_else(|| Error::Overflow { op: OP, shape: inputs.shape().to_vec() })
    }

    /// Takes in the rows of a batch, given as the memory of each tensor.
    pub(super) fn add(&mut self, batch: &Batch, images: &[&[f32]], totals: &mut Totals) -> Result<()> {
        let (rows, columns) = (batch.rows(), batch.columns());
        let mut row = 0;
        while row < rows {
            let taken = (ROWS - self.filled).min(rows - row);
            for (tile, images) in self.tiles.iter_mut().zip(images) {
                let to = &mut tile.memory_mut()?[self.filled * columns..][..taken * columns];
                batch.gather(images, row, to);
            }
            row += taken;
            self.filled += taken;
            if self.filled == ROWS {
                self.flush(totals)?;
            }
        }
        Ok(())
    }

    /// Adds the products of the rows that wait.
    pub(super) fn flush(&mut self, totals: &mut Totals) -> Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.filled);
        let tiles = self.tiles.iter().map(|tile| tile.slice(0, 0..rows)).collect::<Result<Vec<Tensor>>>()?;
        let size = totals.size;
        let (matrices, of_columns) = totals.parts()?;
        for (tile, totals) in tiles.iter().zip(of_columns) {
            let [sums, squares] = columns(SumAndSquares, [tile.as_slice::<f32>()?], [], tile.shape()[1]);
            totals.sums.iter_mut().zip(sums).for_each(|(total, x)| *total += x);
            totals.squares.iter_mut().zip(squares).for_each(|(total, x)| *total += x);
        }
        let height = size.div_ceil(size.div_ceil(SLAB));
        let mut slabs = Vec::new();
        for (source, matrices) in matrices.into_iter().enumerate() {
            for (block, matrix) in matrices.chunks_exact_mut(size * size).enumerate() {
                for (i, sums) in matrix.chunks_mut(height * size).enumerate() {
                    let rows = i * height..i * height + sums.len() / size;
                    // Of H, what lies above the diagonal is mirrored in the end.
                    let width = if source == 0 { rows.end } else { size };
                    slabs.push(Slab { source, first: block * size, rows, width, size, sums });
                }
            }
        }
        // The largest first, so that no thread is left with one in the end.
        slabs.sort_by_key(|slab| std::cmp::Reverse(slab.width));
        par::map_whole_items(&mut slabs, |slab| slab.add(&tiles)).into_iter().collect()
    }
}

/// Some rows of a matrix of one block.
struct Slab<'a> {
    /// The tensor whose columns are those of the matrix.
    source: usize,
    /// The first column of the block in a tile.
    first: usize,
    rows: Range<usize>,
    /// Columns that are computed.
    width: usize,
    size: usize,
    sums: &'a mut [f64],
}

impl Slab<'_> {
    fn add(&mut self, tiles: &[Tensor]) -> Result<()> {
        let left = tiles[0].slice(1, self.first + self.rows.start..self.first + self.rows.end)?.t()?;
        let right = tiles[self.source].slice(1, self.first..self.first + self.width)?;
        let product = Gemm::new(&left, &right).run()?;
        let product = product.as_slice::<f32>()?;
        let (width, size) = (self.width, self.size);
        par::for_each_chunk(self.sums, ADDED * size, |i, sums| {
            let product = &product[i * ADDED * width..][..sums.len() / size * width];
            dispatch(AddRows { product, width, sums, size });
        });
        Ok(())
    }
}

/// Adds rows of `width` f32 to the beginnings of rows of `size` f64.
struct AddRows<'a> {
    product: &'a [f32],
    width: usize,
    sums: &'a mut [f64],
    size: usize,
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for (sums, product) in self.sums.chunks_exact_mut(self.size).zip(self.product.chunks_exact(self.width)) {
            sums.iter_mut().zip(product).for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }
}

/// Σx and Σx²
#[derive(Clone, Copy)]
struct SumAndSquares;

impl Columns<1, 0, 2> for SumAndSquares {
    const START: f32 = 0.0;
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x]: [I::F32; 1], _: [I::F32; 0], [sum, square]: &mut [I::F32; 2]) {
        *sum = isa.add(*sum, x);
        *square = isa.fma(x, x, *square);
    }
    #[inline(always)]
    fn join<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
        isa.add(a, b)
    }
    fn join_f64(self, a: f64, b: f64) -> f64 {
        a + b
    }
}
