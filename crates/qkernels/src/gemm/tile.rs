//! Register tiles: the inner loop of every product and convolution.
//!
//! A tile is `MR` rows by `NV` vectors of `C`, kept in registers while it runs over `k`. Each step reads one row of `B` (`NV` vectors, contiguous)
//! and one number of each row of `A`. Rows of `A` are addressed by one pointer each and a common step from one `k` to the next, so the same
//! kernel serves row-major, transposed and packed operands, and images where each row is a pixel. Several segments, each with pointers
//! of its own, run into the same registers: the taps of a convolution.

use crate::Activation;
use crate::isa::{Isa, Kernel};

/// What happens to the sums of a tile before they are stored: `activation(alpha * sum + beta * old + bias)`.
#[derive(Clone, Copy)]
pub struct Epilogue {
    /// Factor of the sums.
    pub alpha: f32,
    /// Factor of the old values, which are not read where it is 0.
    pub beta: f32,
    /// One number a column of the tile, or null.
    pub bias: *const f32,
    /// Applied last.
    pub activation: Activation,
}

impl Epilogue {
    /// The sums as they are.
    pub const STORE: Epilogue =
        Epilogue { alpha: 1.0, beta: 0.0, bias: std::ptr::null(), activation: Activation::None };
    /// The sums added to the old values.
    pub const ADD: Epilogue = Epilogue { beta: 1.0, ..Self::STORE };
}

/// The size of a register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileShape {
    /// Rows: `MR`. The caller's tables have that many pointers a segment.
    pub rows: usize,
    /// Vectors a row: `NV`.
    pub vectors: usize,
}

/// The work of one tile.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// For each segment the start of each of the `MR` rows of `A`. Rows that are not wanted repeat a valid one.
    pub a: &'a [*const f32],
    /// Elements from one `k` to the next in a row of `A`.
    pub a_step: usize,
    /// Length of a segment in `k`.
    pub depth: usize,
    /// Rows of `B`, one for each `k` of each segment in turn, each with `NV * LANES` readable elements.
    pub b: *const f32,
    /// Elements from one row of `B` to the next.
    pub b_step: usize,
    /// The start of each wanted row of `C`; at most `MR`.
    pub c: &'a [*mut f32],
    /// Wanted columns of `C`, at most `NV * LANES`. Only these are read and written.
    pub columns: usize,
    /// What happens before the store.
    pub epilogue: Epilogue,
}

/// Runs `$body` for `$i` in `0..$rows` without a loop: the compiler does not unroll so long a loop by itself, and then the sums would leave the registers.
macro_rules! unrolled {
    ($i:ident < $rows:ident $body:block) => {
        unrolled!(@ $i $rows $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident $rows:ident $body:block $($n:literal)*) => {$({
        const $i: usize = $n;
        if $i < $rows $body
    })*};
}

/// A tile of constant size. With `DOT` every number of `A` and `B` is a pair of bf16, the products of which are both added.
struct Run<'a, const MR: usize, const NV: usize, const DOT: bool>(&'a Tile<'a>);

impl<const MR: usize, const NV: usize, const DOT: bool> Kernel for Run<'_, MR, NV, DOT> {
    type Output = ();
    const DOT_PRODUCTS: bool = DOT;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let tile = self.0;
        // The stores at the end would wait for these lines, and their old values may be wanted too.
        for &c in tile.c {
            for v in 0..NV {
                isa.prefetch(c.wrapping_add(v * I::LANES));
            }
        }
        let mut sums = [[isa.zero(); NV]; MR];
        let mut b = tile.b;
        for rows in tile.a.as_chunks::<MR>().0 {
            // SAFETY: the caller of `run` promises the rows of `A` and `B`.
            unsafe { steps::<I, MR, NV, DOT>(isa, tile, rows, &mut b, &mut sums) };
        }
        // SAFETY: the caller of `run` promises `C` and the bias.
        unsafe { finish(isa, tile, sums) }
    }
}

/// Adds the products of a segment; `b` moves on to the next.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn steps<I: Isa, const MR: usize, const NV: usize, const DOT: bool>(
    isa: I,
    tile: &Tile,
    rows: &[*const f32; MR],
    b: &mut *const f32,
    sums: &mut [[I::F32; NV]; MR],
) {
    const { assert!(MR <= TileShape::MAX_ROWS, "`unrolled` has no more rows") };
    let mut at = 0;
    for _ in 0..tile.depth {
        let mut bs = [isa.zero(); NV];
        for (v, x) in bs.iter_mut().enumerate() {
            // SAFETY: the caller promises the rows of `B`.
            *x = unsafe { isa.load_at(b.wrapping_add(v * I::LANES)) };
        }
        unrolled!(ROW < MR {
            // SAFETY: the caller promises the rows of `A`.
            let a = isa.splat(unsafe { *rows[ROW].wrapping_add(at) });
            for v in 0..NV {
                let sum = sums[ROW][v];
                sums[ROW][v] = if DOT { isa.dot_bf16(a, bs[v], sum) } else { isa.fma(a, bs[v], sum) };
            }
        });
        *b = b.wrapping_add(tile.b_step);
        at += tile.a_step;
    }
}

/// Applies the epilogue to the sums and stores them.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn finish<I: Isa, const MR: usize, const NV: usize>(isa: I, tile: &Tile, sums: [[I::F32; NV]; MR]) {
    // A copy in memory, which the loops below may index without forcing the sums out of their registers before.
    let mut stored = [[isa.zero(); NV]; MR];
    unrolled!(ROW < MR {
        for v in 0..NV {
            stored[ROW][v] = sums[ROW][v];
        }
    });
    let Epilogue { alpha, beta, bias, activation } = tile.epilogue;
    let (alpha, beta_vector) = (isa.splat(alpha), isa.splat(beta));
    let mut counts = [0; NV];
    let mut biases = [isa.zero(); NV];
    for v in 0..NV {
        counts[v] = tile.columns.saturating_sub(v * I::LANES).min(I::LANES);
        if !bias.is_null() {
            // SAFETY: a bias has a number for each wanted column.
            biases[v] = unsafe { isa.load_part_at(bias.wrapping_add(v * I::LANES), counts[v]) };
        }
    }
    let full = tile.columns == NV * I::LANES;
    for (sums, &c) in stored.iter().zip(tile.c) {
        for v in 0..NV {
            let c = c.wrapping_add(v * I::LANES);
            let mut x = isa.mul(sums[v], alpha);
            if beta != 0.0 {
                // SAFETY: the wanted columns of `C` are readable.
                let old = unsafe { if full { isa.load_at(c) } else { isa.load_part_at(c, counts[v]) } };
                x = isa.fma(old, beta_vector, x);
            }
            x = activation.apply_vector(isa, isa.add(x, biases[v]));
            // SAFETY: the wanted columns of `C` are writable.
            unsafe { if full { isa.store_at(c, x) } else { isa.store_part_at(c, counts[v], x) } }
        }
    }
}

/// The sizes that exist for a number of registers: rows in rising order for 1, 2, … vectors.
macro_rules! shapes {
    ($table:ident, $run:ident: $($vectors:literal [$($rows:literal)*])*) => {
        const $table: &[&[usize]] = &[$(&[$($rows),*]),*];

        #[inline(always)]
        fn $run<I: Isa, const DOT: bool>(isa: I, shape: TileShape, tile: &Tile) {
            match (shape.vectors, shape.rows) {
                $($(($vectors, $rows) => isa.outline(Run::<$rows, $vectors, DOT>(tile)),)*)*
                _ => unreachable!("{shape:?} is not in the table"),
            }
        }
    };
}

// All but a few registers hold sums; the rest are for a row of B and one number of A. A tile of one vector multiplies straight from memory;
// with more rows than these its pointers would leave the registers.
shapes!(FOR_32, run_32: 1 [1 2 4 8 12 16] 2 [1 2 4 6 8 10 12 14] 3 [1 3 5 7 9]);
shapes!(FOR_16, run_16: 1 [1 2 4 6 8 10 12] 2 [1 2 3 4 5 6] 3 [1 2 3]);
// A vector of the portable instruction set is several registers.
shapes!(FOR_PORTABLE, run_portable: 1 [1 2 4] 2 [1 2] 3 [1]);

/// Whether a vector of `I` is one register.
const fn is_native<I: Isa>() -> bool {
    std::mem::size_of::<I::F32>() == I::LANES * 4 && std::mem::align_of::<I::F32>() > 4
}

impl TileShape {
    fn table<I: Isa>() -> &'static [&'static [usize]] {
        if !is_native::<I>() {
            FOR_PORTABLE
        } else if I::REGISTERS >= 32 {
            FOR_32
        } else {
            FOR_16
        }
    }

    /// The most vectors that a tile has.
    pub const MAX_VECTORS: usize = 3;
    /// The most rows that a tile has on any CPU.
    pub const MAX_ROWS: usize = 16;

    /// The tallest tile of `vectors` (1 to [`MAX_VECTORS`](Self::MAX_VECTORS)).
    #[inline]
    pub fn tallest<I: Isa>(vectors: usize) -> TileShape {
        Self::for_rows::<I>(vectors, usize::MAX)
    }

    /// The smallest tile of `vectors` that has `rows`, or the tallest.
    #[inline]
    pub fn for_rows<I: Isa>(vectors: usize, rows: usize) -> TileShape {
        let list = Self::table::<I>()[vectors - 1];
        let rows = list.iter().copied().find(|r| *r >= rows).unwrap_or(list[list.len() - 1]);
        TileShape { rows, vectors }
    }
}

/// Computes one tile of a size from [`TileShape::for_rows`].
///
/// # Safety
/// For every segment `s`, `k < depth`: `a[s * rows + i] + k * a_step` is readable for each `i < rows`; `b + (s * depth + k) * b_step` has `vectors * LANES`
/// readable elements. Every pointer of `c` has `columns` elements, readable if `beta` is not 0, and writable by this thread alone.
/// The bias, unless null, has `columns` readable elements. `c` has at most `rows` pointers, `columns` is at most `vectors * LANES`.
#[inline(always)]
pub unsafe fn run<I: Isa>(isa: I, shape: TileShape, tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe { run_with::<I, false>(isa, shape, tile) }
}

/// As [`run`]; with `DOT` for pairs of bf16.
///
/// # Safety
/// As [`run`].
#[inline(always)]
pub(super) unsafe fn run_with<I: Isa, const DOT: bool>(isa: I, shape: TileShape, tile: &Tile) {
    debug_assert!(tile.c.len() <= shape.rows && tile.columns <= shape.vectors * I::LANES);
    debug_assert!(tile.a.len().is_multiple_of(shape.rows));
    if !is_native::<I>() {
        run_portable::<I, DOT>(isa, shape, tile);
    } else if I::REGISTERS >= 32 {
        run_32::<I, DOT>(isa, shape, tile);
    } else {
        run_16::<I, DOT>(isa, shape, tile);
    }
}

#[cfg(test)]
#[path = "tile_tests.rs"]
mod tests;
