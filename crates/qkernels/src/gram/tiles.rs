//! Neurons that see several channels: rows are gathered in tiles, and the kernels of the matrix product multiply the columns of each with each other.

use super::batch::Batch;
use super::inputs::{Inputs, Sources};
use super::totals::Totals;
use super::{OP, ROWS};
use crate::gemm::add_products;
use crate::isa::Isa;
use crate::par;
use crate::reduce::columns::{Columns, columns};
use qtensor::{DType, Error, Result, Tensor};
use std::ops::Range;

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

    /// Bytes of the tiles, and of their packed copies.
    pub(super) fn bytes(inputs: &Inputs, sources: Sources) -> Result<usize> {
        let copies = 2 * sources.count() + 1;
        let floats = inputs.size().checked_mul(inputs.blocks()).and_then(|n| n.checked_mul(ROWS * copies));
        floats
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
        let mut matrices = matrices.into_iter().map(|matrix| matrix.chunks_exact_mut(size * size));
        let (own, mut cross) = (matrices.next().into_iter().flatten(), matrices.next().into_iter().flatten());
        let mut blocks: Vec<Block> =
            own.enumerate().map(|(i, h)| Block { columns: i * size..(i + 1) * size, h, c: cross.next() }).collect();
        par::map_whole_items(&mut blocks, |block| block.add(&tiles)).into_iter().collect()
    }
}

/// The matrices of one block, and its columns in a tile.
struct Block<'a> {
    columns: Range<usize>,
    h: &'a mut [f64],
    c: Option<&'a mut [f64]>,
}

impl Block<'_> {
    fn add(&mut self, tiles: &[Tensor]) -> Result<()> {
        let columns = tiles.iter().map(|tile| tile.slice(1, self.columns.clone())).collect::<Result<Vec<Tensor>>>()?;
        let cross = self.c.as_deref_mut().and_then(|c| Some((columns.get(1)?, c)));
        add_products(&columns[0], self.h, cross)
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
