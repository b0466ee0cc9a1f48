//! The products of the weight gradient at a point: sums over tiles of outer products, channels by filters.

use super::transform::unrolled;
use crate::isa::{Isa, Stored};

/// `c (+)= aᵀ b` for one point: `tiles` by `rows` channels, transposed, times `tiles` by some vectors of filters. A word holds a tile, or a pair of them.
#[derive(Clone, Copy)]
pub(super) struct Outer {
    pub(super) a: *const f32,
    /// Words from one tile, or pair of tiles, to the next.
    pub(super) a_step: usize,
    pub(super) rows: usize,
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    pub(super) tiles: usize,
    pub(super) c: *mut f32,
    /// Elements from one row to the next: all of its vectors.
    pub(super) c_step: usize,
    /// Whether `c` holds a sum to continue.
    pub(super) resume: bool,
}

impl Outer {
    /// Multiplies all rows with all vectors.
    ///
    /// # Safety
    /// `a` and `b` must be readable and `c` writable in the sizes said, `c` by this thread alone.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa, T: Stored>(mut self, isa: I) {
        let mut vectors = self.c_step / I::LANES;
        // SAFETY: the caller's promise; every step stays inside a row.
        unsafe {
            while vectors >= 2 {
                self.column::<I, T, 2>(isa);
                self.b = self.b.add(2 * I::LANES);
                self.c = self.c.add(2 * I::LANES);
                vectors -= 2;
            }
            if vectors > 0 {
                self.column::<I, T, 1>(isa);
            }
        }
    }

    /// All rows of `V` vectors.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn column<I: Isa, T: Stored, const V: usize>(mut self, isa: I) {
        macro_rules! tiles {
            ($($rows:literal)*) => {$(
                while self.rows >= $rows {
                    // SAFETY: the caller's promise.
                    unsafe {
                        self.tile::<I, T, $rows, V>(isa);
                        self.a = self.a.add($rows);
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
        let mut sums = [[isa.zero(); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            if self.resume {
                unrolled!(ROW < R {
                    for (v, sum) in sums[ROW].iter_mut().enumerate() {
                        *sum = isa.load_at(self.c.add(ROW * self.c_step + v * I::LANES));
                    }
                });
            }
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.tiles {
                let mut lanes = [isa.zero(); V];
                for (v, lanes) in lanes.iter_mut().enumerate() {
                    *lanes = isa.load_at(b.add(v * I::LANES));
                }
                unrolled!(ROW < R {
                    let x = isa.splat(*a.add(ROW));
                    for v in 0..V {
                        sums[ROW][v] = T::multiply_add(isa, x, lanes[v], sums[ROW][v]);
                    }
                });
                a = a.wrapping_add(self.a_step);
                b = b.wrapping_add(self.b_step);
            }
            unrolled!(ROW < R {
                for (v, sum) in sums[ROW].iter().enumerate() {
                    isa.store_at(self.c.add(ROW * self.c_step + v * I::LANES), *sum);
                }
            });
        }
    }
}
