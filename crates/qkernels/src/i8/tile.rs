//! The register tile of all integer products: a few rows of sources by one or two vectors of filters.
//!
//! A row is a place in memory from which runs of words are read: the pixels under a kernel row, or a row of a matrix. Each step broadcasts one word of every row and
//! multiplies it with vectors of words of the filters. The sums stay in registers over all runs, however long they are, so the result is written once.

use super::ending::Ending;
use crate::isa::{Integers, Isa, Kernel};

/// Consecutive words that are multiplied with consecutive rows of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Bytes from the place of a row.
    pub(super) offset: usize,
    pub(super) words: usize,
}

/// Where the sums of a tile go.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// Through an ending to the pixels of the rows; the first of these lanes of the ending's tables.
    Pixels(&'a Ending<'a>, &'a [usize], usize),
    /// As they are, to rows that are so many words apart.
    Raw(*mut i32, usize),
}

/// The work of one tile.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// The place of each row; rows that are not wanted repeat another.
    pub(super) rows: &'a [*const u8],
    pub(super) runs: &'a [Run],
    /// For each word of each run as many vectors as the tile is wide.
    pub(super) panel: *const i32,
    /// Wanted rows.
    pub(super) wanted: usize,
    pub(super) target: Target<'a>,
}

/// The size of a register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TileShape {
    pub(super) rows: usize,
    pub(super) vectors: usize,
}

/// A tile of constant size. Words are four u8 of a source and four i8 of a filter, or with `HALVES` two i16 of either.
struct Sized<'a, const R: usize, const V: usize, const HALVES: bool>(&'a Tile<'a>);

impl<const R: usize, const V: usize, const HALVES: bool> Kernel for Sized<'_, R, V, HALVES> {
    type Output = ();
    const DOT_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let tile = self.0;
        let mut rows = [std::ptr::null::<u8>(); R];
        rows.copy_from_slice(tile.rows);
        // SAFETY: the caller of `run` promises the sources and the panel.
        let sums = unsafe { accumulate::<I, R, V, HALVES>(isa, &rows, tile.runs, tile.panel) };
        if let (Target::Raw(to, step), true) = (tile.target, tile.wanted == R) {
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    // SAFETY: the caller of `run` promises the target.
                    unsafe { isa.store_i32_at(to.add(r * step + v * I::LANES), *sum) };
                }
            }
            return;
        }
        // A copy in memory, which loops may index without forcing the sums out of their registers before.
        let mut stored = [[isa.splat_i32(0); V]; R];
        for (stored, sums) in stored.iter_mut().zip(&sums) {
            *stored = *sums;
        }
        let stored = &stored[..tile.wanted];
        match tile.target {
            // SAFETY: as above.
            Target::Pixels(ending, pixels, lane) => unsafe { ending.apply(isa, stored, pixels, lane) },
            Target::Raw(to, step) => {
                for (r, sum) in stored.iter().flatten().enumerate() {
                    // SAFETY: as above.
                    unsafe { isa.store_i32_at(to.add(r / V * step + r % V * I::LANES), *sum) };
                }
            }
        }
    }
}

/// The sums of a tile, by value, so that they stay in registers.
///
/// # Safety
/// Every run must be readable at every row, and the panel must have `V` vectors for each of their words.
#[inline(always)]
unsafe fn accumulate<I: Isa, const R: usize, const V: usize, const HALVES: bool>(
    isa: I,
    rows: &[*const u8; R],
    runs: &[Run],
    mut panel: *const i32,
) -> [[I::I32; V]; R] {
    let mut sums = [[isa.splat_i32(0); V]; R];
    for run in runs {
        let mut from = *rows;
        for from in &mut from {
            *from = from.wrapping_add(run.offset);
        }
        for k in 0..run.words {
            let mut filters = [isa.splat_i32(0); V];
            for (v, filters) in filters.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *filters = unsafe { isa.load_i32_at(panel.add(v * I::LANES)) };
            }
            panel = panel.wrapping_add(V * I::LANES);
            for (sums, from) in sums.iter_mut().zip(&from) {
                // SAFETY: the caller's promise.
                let x = isa.splat_i32(unsafe { from.cast::<i32>().add(k).read_unaligned() });
                for (sum, filters) in sums.iter_mut().zip(&filters) {
                    *sum = if HALVES { isa.dot_i16(x, *filters, *sum) } else { isa.dot_u8_i8(x, *filters, *sum) };
                }
            }
        }
    }
    sums
}

/// The sizes that exist for a number of registers: rows in rising order for one vector and for two.
macro_rules! shapes {
    ($table:ident, $run:ident: $($vectors:literal [$($rows:literal)*])*) => {
        const $table: &[&[usize]] = &[$(&[$($rows),*]),*];

        #[inline(always)]
        fn $run<I: Isa, const HALVES: bool>(isa: I, shape: TileShape, tile: &Tile) {
            match (shape.vectors, shape.rows) {
                $($(($vectors, $rows) => isa.outline(Sized::<$rows, $vectors, HALVES>(tile)),)*)*
                _ => unreachable!("{shape:?} is not in the table"),
            }
        }
    };
}

// Without instructions for dot products, operands take more registers than their own.
shapes!(FOR_32, run_32: 1 [1 2 4 8 12] 2 [1 2 4 6 8 10 12]);
shapes!(FOR_16, run_16: 1 [1 2 4 6] 2 [1 2 4]);
// A vector of the portable instruction set is several registers.
shapes!(FOR_PORTABLE, run_portable: 1 [1 2] 2 [1 2]);

/// Whether a vector of `I` is one register.
const fn is_native<I: Isa>() -> bool {
    std::mem::align_of::<<I as Integers>::I32>() > 4
}

impl TileShape {
    /// The most vectors that a tile has.
    pub(super) const MAX_VECTORS: usize = 2;
    /// The most rows that a tile has on any CPU.
    pub(super) const MAX_ROWS: usize = 12;

    fn table<I: Isa>() -> &'static [&'static [usize]] {
        match (is_native::<I>(), I::REGISTERS >= 32) {
            (false, _) => FOR_PORTABLE,
            (true, true) => FOR_32,
            (true, false) => FOR_16,
        }
    }

    /// The smallest tile of `vectors` that has `rows`, or the tallest.
    #[inline]
    pub(super) fn for_rows<I: Isa>(vectors: usize, rows: usize) -> TileShape {
        let list = Self::table::<I>()[vectors - 1];
        let rows = list.iter().copied().find(|r| *r >= rows).unwrap_or(list[list.len() - 1]);
        TileShape { rows, vectors }
    }
}

/// Computes one tile of a size from [`TileShape::for_rows`].
///
/// # Safety
/// `tile` has as many rows as `shape`, every run is readable at each of them, and the panel has as many vectors as `shape` for each of their words.
/// The target is as [`Ending::apply`] wants it, or rows of whole vectors that nobody else uses.
#[inline(always)]
pub(super) unsafe fn run<I: Isa, const HALVES: bool>(isa: I, shape: TileShape, tile: &Tile) {
    debug_assert!(tile.rows.len() == shape.rows && tile.wanted <= shape.rows);
    match (is_native::<I>(), I::REGISTERS >= 32) {
        (false, _) => run_portable::<I, HALVES>(isa, shape, tile),
        (true, true) => run_32::<I, HALVES>(isa, shape, tile),
        (true, false) => run_16::<I, HALVES>(isa, shape, tile),
    }
}
