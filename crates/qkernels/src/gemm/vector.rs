//! Products with a vector, and sums of a few rows: work that reads each number of the matrix once, so that it runs as fast as memory.
//! Nothing is packed.

use super::matrix::Matrix;
use crate::Activation;
use crate::isa::{Isa, Kernel};
use crate::par::{self, SharedOut};
use std::ops::Range;

/// Elements of the matrix that are worth handing to another thread.
const SMALLEST_JOB: usize = 1 << 16;
/// Rows of a matrix that are added in one pass over the result.
const ADDED: usize = 8;
/// Rows of a matrix that are multiplied by the vector at a time.
const DOTS: usize = 4;
/// Independent sums of a row, to hide the latency of additions.
const SUMS: usize = 2;

/// Bias of the result of a product with a vector.
#[derive(Clone, Copy)]
pub(super) enum VectorBias<'a> {
    /// None, or the same number for all.
    All(f32),
    /// One number an element.
    Each(&'a [f32]),
}

/// What happens to the sums.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) bias: VectorBias<'a>,
    pub(super) activation: Activation,
}

/// `y = finish(matrix * x)`: `matrix` is `[r, k]` and contiguous along one axis, `x` is `[k, 1]`, `y` has `r` elements.
pub(super) struct MatrixVector<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) x: Matrix<'a>,
    pub(super) y: &'a mut [f32],
    pub(super) finish: Finish<'a>,
}

impl MatrixVector<'_> {
    /// Whether the strides suit.
    pub(super) fn fits(matrix: &Matrix, x: &Matrix) -> bool {
        matrix.row_step == 1 && matrix.column_step > 0 || matrix.column_step == 1 && x.row_step == 1
    }
}

impl Kernel for MatrixVector<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let MatrixVector { matrix, x, y, finish } = self;
        let (length, k) = (matrix.rows, matrix.columns);
        let y = SharedOut::new(y);
        let along_k = matrix.column_step == 1 && x.row_step == 1;
        // Groups of rows, or runs of a page of memory, which the prefetchers follow.
        let unit = if along_k { DOTS } else { 1024 };
        let piece = SMALLEST_JOB.div_ceil(k.max(1)).next_multiple_of(unit);
        par::for_each_range(length, piece, |range| {
            if along_k {
                isa.outline(Dots { matrix: &matrix, x: &x, y, finish, range });
            } else {
                isa.outline(AddRows { matrix: &matrix, x: &x, y, finish, range });
            }
        });
    }
}

/// `C = finish(A * B)` for a short `k` and contiguous rows of `B`: each row of `C` is a sum of a few rows of `B`.
pub(super) struct ShortSums<'a> {
    pub(super) a: Matrix<'a>,
    pub(super) b: Matrix<'a>,
    /// Row-major, its rows `b.columns` apart.
    pub(super) c: &'a mut [f32],
    pub(super) finish: Finish<'a>,
}

impl Kernel for ShortSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let ShortSums { a, b, c, finish } = self;
        let n = b.columns;
        let rows = SMALLEST_JOB.div_ceil(n);
        par::for_each_chunk(c, rows * n, |job, c| {
            let matrix = b.transposed();
            for (i, row) in c.chunks_exact_mut(n).enumerate() {
                let x = a.row(job * rows + i).transposed();
                isa.outline(AddRows { matrix: &matrix, x: &x, y: SharedOut::new(row), finish, range: 0..n });
            }
        });
    }
}

/// Elements `range` of `y` where the matrix is contiguous along `k`: one sum of products each.
struct Dots<'a> {
    matrix: &'a Matrix<'a>,
    x: &'a Matrix<'a>,
    y: SharedOut<f32>,
    finish: Finish<'a>,
    range: Range<usize>,
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut row = self.range.start;
        while row + DOTS <= self.range.end {
            self.rows::<I, DOTS>(isa, row);
            row += DOTS;
        }
        while row < self.range.end {
            self.rows::<I, 1>(isa, row);
            row += 1;
        }
    }
}

impl Dots<'_> {
    /// `ROWS` rows from `row` on, each in the same order of summation whatever `ROWS` is.
    #[inline(always)]
    fn rows<I: Isa, const ROWS: usize>(&self, isa: I, row: usize) {
        let k = self.matrix.columns;
        let mut sums = [[isa.zero(); SUMS]; ROWS];
        let step = SUMS * I::LANES;
        let mut at = 0;
        while at + step <= k {
            for s in 0..SUMS {
                // SAFETY: LANES elements from here lie in the vector and in each row.
                let x = unsafe { isa.load_at(self.x.at(at + s * I::LANES, 0)) };
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let a = unsafe { isa.load_at(self.matrix.at(row + r, at + s * I::LANES)) };
                    sums[s] = isa.fma(a, x, sums[s]);
                }
            }
            at += step;
        }
        while at < k {
            let count = (k - at).min(I::LANES);
            // SAFETY: `count` elements from here lie in the vector and in each row.
            let x = unsafe { isa.load_part_at(self.x.at(at, 0), count) };
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let a = unsafe { isa.load_part_at(self.matrix.at(row + r, at), count) };
                sums[0] = isa.fma(a, x, sums[0]);
            }
            at += I::LANES;
        }
        for (r, sums) in sums.iter().enumerate() {
            let sum = isa.sum(isa.add(sums[0], sums[1]));
            let Finish { alpha, beta, bias, activation } = self.finish;
            let mut y = alpha * sum;
            // SAFETY: the element lies in `y`, and this job alone has it.
            let place = unsafe { &mut *self.y.at(row + r) };
            if beta != 0.0 {
                y += beta * *place;
            }
            y += match bias {
                VectorBias::All(bias) => bias,
                VectorBias::Each(bias) => bias[row + r],
            };
            *place = activation.apply(f64::from(y)) as f32;
        }
    }
}

/// Elements `range` of `y` where the matrix is contiguous along `y`: its columns, times a number of `x` each, are added up.
struct AddRows<'a> {
    matrix: &'a Matrix<'a>,
    x: &'a Matrix<'a>,
    y: SharedOut<f32>,
    finish: Finish<'a>,
    range: Range<usize>,
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let k = self.matrix.columns;
        let mut at = 0;
        while at + ADDED < k {
            self.pass::<I, ADDED>(isa, at);
            at += ADDED;
        }
        // The last pass finishes, so there is always one.
        match k - at {
            0 => self.pass::<I, 0>(isa, at),
            1 => self.pass::<I, 1>(isa, at),
            2 => self.pass::<I, 2>(isa, at),
            3 => self.pass::<I, 3>(isa, at),
            4 => self.pass::<I, 4>(isa, at),
            5 => self.pass::<I, 5>(isa, at),
            6 => self.pass::<I, 6>(isa, at),
            7 => self.pass::<I, 7>(isa, at),
            _ => self.pass::<I, ADDED>(isa, at),
        }
    }
}

impl AddRows<'_> {
    /// Adds `COUNT` columns of the matrix from `start` on.
    #[inline(always)]
    fn pass<I: Isa, const COUNT: usize>(&self, isa: I, start: usize) {
        let Finish { alpha, beta, bias, activation } = self.finish;
        let (first, last) = (start == 0, start + COUNT == self.matrix.columns);
        let beta = if first { beta } else { 1.0 };
        let mut xs = [isa.zero(); COUNT];
        for (i, x) in xs.iter_mut().enumerate() {
            // SAFETY: the vector has `k` elements.
            *x = isa.splat(alpha * unsafe { *self.x.at(start + i, 0) });
        }
        let mut at = self.range.start;
        // A plain sum needs no decisions from vector to vector, which cost more than its few products.
        let plain = first && last && beta == 0.0 && activation == Activation::None;
        while plain && matches!(bias, VectorBias::All(bias) if bias == 0.0) && at + I::LANES <= self.range.end {
            let mut sum = isa.zero();
            for (i, x) in xs.iter().enumerate() {
                // SAFETY: LANES elements from here lie in the column.
                sum = isa.fma(unsafe { isa.load_at(self.matrix.at(at, start + i)) }, *x, sum);
            }
            // SAFETY: LANES elements from here lie in `y`, and this job alone has them.
            unsafe { isa.store_at(self.y.at(at), sum) };
            at += I::LANES;
        }
        while at < self.range.end {
            let count = (self.range.end - at).min(I::LANES);
            let whole = count == I::LANES;
            // SAFETY: `count` elements from here lie in `y`, and this job alone has them.
            let place = unsafe { self.y.at(at) };
            let mut sum = if beta == 0.0 {
                isa.zero()
            } else {
                // SAFETY: as above.
                let old = unsafe { if whole { isa.load_at(place) } else { isa.load_part_at(place, count) } };
                isa.mul(old, isa.splat(beta))
            };
            for (i, x) in xs.iter().enumerate() {
                let from = self.matrix.at(at, start + i);
                // SAFETY: `count` elements from here lie in the column.
                let a = unsafe { if whole { isa.load_at(from) } else { isa.load_part_at(from, count) } };
                sum = isa.fma(a, *x, sum);
            }
            if last {
                let bias = match bias {
                    VectorBias::All(bias) => isa.splat(bias),
                    VectorBias::Each(bias) => isa.load_part(&bias[at..at + count]),
                };
                sum = activation.apply_vector(isa, isa.add(sum, bias));
            }
            // SAFETY: `count` elements from here lie in `y`, and this job alone has them.
            unsafe { if whole { isa.store_at(place, sum) } else { isa.store_part_at(place, count, sum) } };
            at += I::LANES;
        }
    }
}
