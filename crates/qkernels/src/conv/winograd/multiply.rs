//! The products at the points: for each, the values of some tiles by a panel of filters.

use super::transform::unrolled;
use crate::isa::{Isa, Stored};

/// `c = a b` for one point: `rows` tiles by `depth` words, times `depth` words by the lanes of a panel. A word is a channel, or a pair of them.
#[derive(Clone, Copy)]
pub(super) struct Multiply {
    pub(super) a: *const f32,
    /// Elements from one tile to the next.
    pub(super) a_step: usize,
    pub(super) rows: usize,
    pub(super) depth: usize,
    /// `depth` rows of as many vectors as the panel has.
    pub(super) b: *const f32,
    pub(super) c: *mut f32,
    /// Elements from one tile to the next.
    pub(super) c_step: usize,
}

impl Multiply {
    /// Multiplies, in tiles of as many rows as the registers hold. The panel is `V` vectors wide.
    ///
    /// # Safety
    /// `a` and `b` must be readable and `c` writable in the sizes said, `c` by this thread alone.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa, T: Stored, const V: usize>(mut self, isa: I) {
        macro_rules! tiles {
            ($($rows:literal)*) => {$(
                while self.rows >= $rows {
                    // SAFETY: the caller's promise.
                    unsafe {
                        self.tile::<I, T, $rows, V>(isa);
                        self.a = self.a.add($rows * self.a_step);
                        self.c = self.c.add($rows * self.c_step);
                    }
                    self.rows -= $rows;
                }
            )*};
        }
        if I::REGISTERS >= 32 {
            tiles!(12 8 4 2 1);
        } else {
            tiles!(6 4 2 1);
        }
    }

    /// The first `R` rows.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn tile<I: Isa, T: Stored, const R: usize, const V: usize>(&self, isa: I) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut from = [self.a; R];
            unrolled!(ROW < R {
                from[ROW] = self.a.add(ROW * self.a_step);
            });
            let sums = accumulate::<I, T, R, V>(isa, from, self.depth, self.b);
            unrolled!(ROW < R {
                for (v, sum) in sums[ROW].iter().enumerate() {
                    isa.store_at(self.c.add(ROW * self.c_step + v * I::LANES), *sum);
                }
            });
        }
    }
}

/// The sums of a tile; by value, so that they stay in registers.
///
/// # Safety
/// As [`Multiply::run`].
#[inline(always)]
unsafe fn accumulate<I: Isa, T: Stored, const R: usize, const V: usize>(
    isa: I,
    from: [*const f32; R],
    depth: usize,
    mut b: *const f32,
) -> [[I::F32; V]; R] {
    let mut sums = [[isa.zero(); V]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for k in 0..depth {
            let mut weights = [isa.zero(); V];
            for (v, weights) in weights.iter_mut().enumerate() {
                *weights = isa.load_at(b.add(v * I::LANES));
            }
            b = b.add(V * I::LANES);
            unrolled!(ROW < R {
                let x = isa.splat(*from[ROW].add(k));
                for v in 0..V {
                    sums[ROW][v] = T::multiply_add(isa, x, weights[v], sums[ROW][v]);
                }
            });
        }
    }
    sums
}
