//! Sums down the columns of a row-major matrix, which may be one column wide: the core of all reductions.
//!
//! The matrix is cut into pieces whose size follows from its own; within a piece sums run over blocks of [`BLOCK`] rows, whose totals are added, so
//! that rounding grows with the block and not with the matrix; the pieces are added in f64 in their order.

use crate::elementwise::sweep::repeats;
use crate::isa::{Isa, Kernel, Stored, dispatch};
use crate::par;

/// Values in a piece, where rows are not very long.
const PIECE: usize = 32 * 1024;
/// Rows that one running sum takes.
const BLOCK: usize = 64;

/// What is accumulated: `S` totals a column from `R` matrices of one shape and `P` parameters a column.
pub(crate) trait Columns<const R: usize, const P: usize, const S: usize>: Copy + Send + Sync {
    /// The total of nothing.
    const START: f32;
    /// Takes one more row into the totals.
    fn step<I: Isa>(self, isa: I, read: [I::F32; R], parameters: [I::F32; P], totals: &mut [I::F32; S]);
    /// Two totals as one.
    fn join<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32;
    /// Two totals as one.
    fn join_f64(self, a: f64, b: f64) -> f64;
}

/// Σx
#[derive(Clone, Copy)]
pub(crate) struct Sum;

impl Columns<1, 0, 1> for Sum {
    const START: f32 = 0.0;
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x]: [I::F32; 1], _: [I::F32; 0], [total]: &mut [I::F32; 1]) {
        *total = isa.add(*total, x);
    }
    #[inline(always)]
    fn join<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
        isa.add(a, b)
    }
    fn join_f64(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// Largest x; NaN where any is NaN.
#[derive(Clone, Copy)]
pub(crate) struct Largest;

impl Columns<1, 0, 1> for Largest {
    const START: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x]: [I::F32; 1], _: [I::F32; 0], [total]: &mut [I::F32; 1]) {
        *total = self.join(isa, *total, x);
    }
    #[inline(always)]
    fn join<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
        isa.select(isa.is_nan(a), a, isa.max(a, b))
    }
    fn join_f64(self, a: f64, b: f64) -> f64 {
        crate::naive::reduce::larger(a, b)
    }
}

/// Σ0·x: 0 where all are finite, NaN otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Finite;

impl Columns<1, 0, 1> for Finite {
    const START: f32 = 0.0;
    #[inline(always)]
    fn step<I: Isa>(self, isa: I, [x]: [I::F32; 1], _: [I::F32; 0], [total]: &mut [I::F32; 1]) {
        *total = isa.fma(x, isa.zero(), *total);
    }
    #[inline(always)]
    fn join<I: Isa>(self, isa: I, a: I::F32, b: I::F32) -> I::F32 {
        isa.add(a, b)
    }
    fn join_f64(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// Several rows taken as one, so that it fills vectors: `(columns of the wide row, values in a piece)`.
pub(crate) fn shape(width: usize) -> (usize, usize) {
    let wide = width.max(1) * repeats(width);
    (wide, wide * (PIECE / wide).clamp(BLOCK, 8 * BLOCK))
}

/// The totals of each of `width` columns. All of `reads` have one length, a multiple of `width`; all of `parameters` have `width` values.
pub(crate) fn columns<C, T, const R: usize, const P: usize, const S: usize>(
    rule: C,
    reads: [&[T]; R],
    parameters: [&[f32]; P],
    width: usize,
) -> [Vec<f64>; S]
where
    C: Columns<R, P, S>,
    T: Stored,
{
    let length = reads.first().map_or(0, |r| r.len());
    let mut totals = std::array::from_fn(|_| vec![f64::from(C::START); width]);
    if length == 0 || width == 0 {
        return totals;
    }
    let (wide, piece) = shape(width);
    let repeated = parameters.map(|p| p.repeat(wide / width));
    let parameters: [&[f32]; P] = std::array::from_fn(|i| &repeated[i][..]);
    let pieces = par::map(length.div_ceil(piece), |i| {
        let range = i * piece..length.min((i + 1) * piece);
        piece_totals(rule, reads.map(|r| &r[range.clone()]), parameters, wide)
    });
    for piece in pieces {
        fold(rule, &piece, &mut totals);
    }
    totals
}

/// Adds the totals of wide rows to those of the columns.
pub(crate) fn fold<C, const R: usize, const P: usize, const S: usize>(
    rule: C,
    wide: &[Vec<f32>; S],
    totals: &mut [Vec<f64>; S],
) where
    C: Columns<R, P, S>,
{
    for (wide, totals) in wide.iter().zip(totals) {
        for row in wide.chunks(totals.len().max(1)) {
            row.iter().zip(totals.iter_mut()).for_each(|(x, total)| *total = rule.join_f64(*total, f64::from(*x)));
        }
    }
}

/// Adds totals side by side, all of the same column, to it.
pub(crate) fn fold_run<C, const R: usize, const P: usize, const S: usize>(
    rule: C,
    wide: &[Vec<f32>; S],
    totals: &mut [Vec<f64>; S],
    column: usize,
) where
    C: Columns<R, P, S>,
{
    for (wide, totals) in wide.iter().zip(totals) {
        totals[column] = wide.iter().fold(totals[column], |total, x| rule.join_f64(total, f64::from(*x)));
    }
}

/// The totals of one piece, on this thread, a number for each of `wide` columns. The last row may be shorter.
pub(crate) fn piece_totals<C, T, const R: usize, const P: usize, const S: usize>(
    rule: C,
    reads: [&[T]; R],
    parameters: [&[f32]; P],
    wide: usize,
) -> [Vec<f32>; S]
where
    C: Columns<R, P, S>,
    T: Stored,
{
    let mut totals = std::array::from_fn(|_| vec![C::START; wide]);
    dispatch(Piece { rule, reads, parameters, totals: &mut totals });
    totals
}

struct Piece<'a, C, T, const R: usize, const P: usize, const S: usize> {
    rule: C,
    reads: [&'a [T]; R],
    parameters: [&'a [f32]; P],
    totals: &'a mut [Vec<f32>; S],
}

impl<C: Columns<R, P, S>, T: Stored, const R: usize, const P: usize, const S: usize> Kernel
    for Piece<'_, C, T, R, P, S>
{
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let wide = self.totals[0].len();
        let rows = self.reads[0].len() / wide;
        let mut column = 0;
        while column + 4 * I::LANES <= wide {
            self.strip::<I, 4>(isa, column, rows);
            column += 4 * I::LANES;
        }
        while column + I::LANES <= wide {
            self.strip::<I, 1>(isa, column, rows);
            column += I::LANES;
        }
        for row in 0..rows {
            self.partial(isa, row * wide, column, wide);
        }
        let rest = self.reads[0].len() - rows * wide;
        let mut column = 0;
        while column < rest {
            let end = rest.min(column + I::LANES);
            self.partial(isa, rows * wide, column, end);
            column = end;
        }
    }
}

impl<C: Columns<R, P, S>, T: Stored, const R: usize, const P: usize, const S: usize> Piece<'_, C, T, R, P, S> {
    /// `V` vectors of columns, over all whole rows.
    #[inline(always)]
    fn strip<I: Isa, const V: usize>(&mut self, isa: I, column: usize, rows: usize) {
        let wide = self.totals[0].len();
        let mut parameters = [[isa.zero(); P]; V];
        for (v, parameters) in parameters.iter_mut().enumerate() {
            for (x, from) in parameters.iter_mut().zip(&self.parameters) {
                *x = isa.load(&from[column + v * I::LANES..]);
            }
        }
        let mut totals = [[isa.splat(C::START); S]; V];
        let mut row = 0;
        while row < rows {
            let end = rows.min(row + BLOCK);
            let mut block = [[isa.splat(C::START); S]; V];
            while row < end {
                let at = row * wide + column;
                let mut reads: [&[T]; R] = [&[]; R];
                for (to, from) in reads.iter_mut().zip(&self.reads) {
                    *to = &from[at..at + V * I::LANES];
                }
                for v in 0..V {
                    let mut read = [isa.zero(); R];
                    for (x, from) in read.iter_mut().zip(&reads) {
                        *x = T::load(isa, &from[v * I::LANES..]);
                    }
                    self.rule.step(isa, read, parameters[v], &mut block[v]);
                }
                row += 1;
            }
            for (totals, block) in totals.iter_mut().zip(block) {
                for (total, block) in totals.iter_mut().zip(block) {
                    *total = self.rule.join(isa, *total, block);
                }
            }
        }
        for (v, totals) in totals.into_iter().enumerate() {
            for (x, to) in totals.into_iter().zip(self.totals.iter_mut()) {
                isa.store(&mut to[column + v * I::LANES..], x);
            }
        }
    }

    /// Columns `column..end`, at most one vector, of the row that starts at `row`.
    #[inline(always)]
    fn partial<I: Isa>(&mut self, isa: I, row: usize, column: usize, end: usize) {
        let (mut read, mut parameters, mut totals) = ([isa.zero(); R], [isa.zero(); P], [isa.zero(); S]);
        for (x, from) in read.iter_mut().zip(&self.reads) {
            *x = T::load_part(isa, &from[row + column..row + end]);
        }
        for (x, from) in parameters.iter_mut().zip(&self.parameters) {
            *x = isa.load_part(&from[column..end]);
        }
        for (x, from) in totals.iter_mut().zip(self.totals.iter()) {
            *x = isa.load_part(&from[column..end]);
        }
        self.rule.step(isa, read, parameters, &mut totals);
        for (x, to) in totals.into_iter().zip(self.totals.iter_mut()) {
            isa.store_part(&mut to[column..end], x);
        }
    }
}
