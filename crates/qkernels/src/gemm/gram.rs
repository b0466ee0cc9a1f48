//! Products of the columns of matrices with each other, `AᵀA` and `AᵀB`, added to sums in f64.
//!
//! Both are taken from one packed copy of `A`. Of `AᵀA`, register tiles above the diagonal are left out. Sums of f32 go to f64 while they are in the second-level cache.

use super::blocking::{Blocking, Size};
use super::matrix::Matrix;
use super::pack::packed_length;
use super::product::{PANEL_VECTORS, PackGroup, Packing, memory, packed_b_start, scratch};
use super::strips::Strips;
use super::tile::{Epilogue, Tile, TileShape, run};
use crate::isa::{Isa, Kernel, dispatch};
use crate::par::{self, SharedOut};
use qtensor::{Error, Result, Tensor};
use std::ops::Range;

/// Rows of sums of a job, about: so many read a block of columns of the right operand while the second-level cache holds it.
const SLAB: usize = 112;
/// Columns of such a block, a multiple of every panel.
const COLUMNS: usize = 256;

/// Adds the lower triangle of `AᵀA` to `own`, where what lies above the diagonal stays as it is, and `AᵀB` to `cross`. `A` and `B` are `[k, n]` of f32, fast where rows
/// are contiguous; sums are row-major, `n×n`. Products are added in f32 over all of `k`.
///
/// # Errors
/// Shapes that differ, another type than f32, or sums of another size.
pub(crate) fn add_products(a: &Tensor, own: &mut [f64], cross: Option<(&Tensor, &mut [f64])>) -> Result<()> {
    let op = "gram product";
    let wrong = || Error::shape(op, format!("a of shape {}; b and the sums must fit it", a.shape()));
    if a.rank() != 2 {
        return Err(wrong());
    }
    let matrix = Matrix::new(a)?;
    let fits = |sums: &[f64]| Some(sums.len()) == matrix.columns.checked_mul(matrix.columns);
    let mut products = vec![(matrix, own)];
    if let Some((b, sums)) = cross {
        if b.shape() != a.shape() {
            return Err(wrong());
        }
        products.push((Matrix::new(b)?, sums));
    }
    if !products.iter().all(|(_, sums)| fits(sums)) {
        return Err(wrong());
    }
    if a.numel() > 0 {
        dispatch(Products(products));
    }
    Ok(())
}

/// The numbers of scratch memory.
fn packed(scratch: &Tensor) -> &[f32] {
    scratch.memory().expect("fresh memory of this type")
}

/// Right operands, the first of which is the left operand too, and the sums to add to. Their sizes fit each other, and nothing is empty.
struct Products<'a>(Vec<(Matrix<'a>, &'a mut [f64])>);

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let a = self.0[0].0;
        let (k, n) = (a.rows, a.columns);
        let panel = PANEL_VECTORS * I::LANES;
        let height = TileShape::tallest::<I>(PANEL_VECTORS).rows;
        let depth = Blocking::new(Size { m: n, k, n, panel, tile: height }).depth;
        let strips = Strips { source: a.transposed(), height };
        let mut left = scratch(strips.count() * strips.step());
        let mut rights: Vec<Tensor> = self.0.iter().map(|_| scratch(packed_length(n, k, I::LANES))).collect();
        for (i, (right, (source, _))) in rights.iter_mut().zip(&self.0).enumerate() {
            let to_a = (i == 0).then(|| SharedOut::new(memory(&mut left)));
            let to_b = Some(SharedOut::new(memory(right)));
            let packing = Packing { strips, b: *source, depth, to_a, to_b };
            let groups = packing.groups();
            par::for_each(groups[0] + groups[1], |group| isa.outline(PackGroup { packing: &packing, groups, group }));
        }
        let left = packed(&left);
        let rows = (SLAB / height).max(1) * height;
        let mut slabs = Vec::new();
        for (i, (right, (_, sums))) in rights.iter().zip(self.0).enumerate() {
            for (slab, sums) in sums.chunks_mut(rows * n).enumerate() {
                let rows = slab * rows..slab * rows + sums.len() / n;
                slabs.push(Slab { left, right: packed(right), strips, depth, rows, is_lower: i == 0, sums });
            }
        }
        par::for_each_chunk(&mut slabs, 1, |_, slab| slab.iter_mut().for_each(|slab| isa.outline(slab)));
    }
}

/// Some rows of sums, from the start of a strip on.
struct Slab<'a> {
    /// The left operand in strips.
    left: &'a [f32],
    /// The right operand in panels, block of `k` after block.
    right: &'a [f32],
    strips: Strips<'a>,
    depth: usize,
    rows: Range<usize>,
    /// Whether columns behind the row's own number are left out.
    is_lower: bool,
    sums: &'a mut [f64],
}

impl Kernel for &mut Slab<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (k, n) = (self.strips.source.columns, self.strips.source.rows);
        let limit = if self.is_lower { self.rows.end } else { n };
        let mut scratch = scratch(self.rows.len() * COLUMNS);
        let products = memory(&mut scratch);
        for column in (0..limit).step_by(COLUMNS) {
            for start in (0..k).step_by(self.depth) {
                let block = start..(start + self.depth).min(k);
                self.block(isa, block, column..(column + COLUMNS).min(n), products);
            }
            for (i, (sums, products)) in self.sums.chunks_exact_mut(n).zip(products.chunks_exact(COLUMNS)).enumerate() {
                let end = if self.is_lower { (self.rows.start + i + 1).min(n) } else { n };
                let sums = &mut sums[column.min(end)..end];
                sums.iter_mut().zip(products).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        }
    }
}

impl Slab<'_> {
    /// The products of one block of `k` and one block of columns, into rows of [`COLUMNS`] numbers: the first block of `k` overwrites them.
    #[inline(always)]
    fn block<I: Isa>(&self, isa: I, block: Range<usize>, columns: Range<usize>, products: &mut [f32]) {
        let (height, n) = (self.strips.height, self.strips.source.rows);
        let panel = PANEL_VECTORS * I::LANES;
        let epilogue = if block.start == 0 { Epilogue::STORE } else { Epilogue::ADD };
        let (left, right) = (self.left.as_ptr(), self.right.as_ptr());
        for first in self.rows.clone().step_by(height) {
            let rows = (self.rows.end - first).min(height);
            let strip = left.wrapping_add(first / height * self.strips.step() + block.start * height);
            let a: [*const f32; TileShape::MAX_ROWS] = std::array::from_fn(|i| strip.wrapping_add(i.min(rows - 1)));
            let of_strip = &mut products[(first - self.rows.start) * COLUMNS..][..rows * COLUMNS];
            for column in columns.clone().step_by(panel) {
                if self.is_lower && column >= first + rows {
                    break;
                }
                let width = (n - column).min(panel);
                let vectors = width.div_ceil(I::LANES);
                let shape = TileShape::for_rows::<I>(vectors, rows);
                let to = of_strip.as_mut_ptr().wrapping_add(column - columns.start);
                let c: [*mut f32; TileShape::MAX_ROWS] =
                    std::array::from_fn(|i| to.wrapping_add(i.min(rows - 1) * COLUMNS));
                let tile = Tile {
                    a: &a[..shape.rows],
                    a_step: height,
                    depth: block.len(),
                    b: right.wrapping_add(packed_b_start::<I>(n, &block, column)),
                    b_step: vectors * I::LANES,
                    c: &c[..rows],
                    columns: width,
                    epilogue,
                };
                // SAFETY: the strip has `height` numbers for each `k`, the panel `b_step`, zeros behind the last column; the slice of products has
                // `rows` rows of `COLUMNS`, of which a panel takes `width` from a multiple of its own on, and the first block wrote them all.
                unsafe { run(isa, shape, &tile) };
            }
        }
    }
}
