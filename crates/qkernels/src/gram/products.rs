//! Sums of products of taps, lane by lane, in squares of as many taps as the registers hold sums for.

use super::lanes::BLOCK;
use crate::isa::{Isa, Kernel};

/// The squares of taps in which the products of one block of places are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Squares {
    taps: usize,
    /// Taps along a side.
    pub(super) side: usize,
    /// Tensors.
    sources: usize,
}

/// Where a square belongs: `H`, which is matrix 0, or `C`; row and column count squares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    matrix: usize,
    row: usize,
    column: usize,
}

/// Where a sum belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// An element of `H`, which is matrix 0, or of `C`: matrix, row and column.
    Product(usize, [usize; 2]),
    /// The sum of a column of a tensor.
    Sum(usize, usize),
    /// The sum of its squares.
    Square(usize, usize),
}

impl Squares {
    /// Squares for neurons of so many taps, with the least work for vectors of this instruction set.
    #[inline(always)]
    pub(super) fn new<I: Isa>(taps: usize, sources: usize) -> Self {
        let of = |side| Squares { taps, side, sources };
        // Sums of a square, a row of one operand and one number of the other must fit the registers.
        let wide = of(if I::REGISTERS >= 32 { 5 } else { 3 });
        let narrow = of(if taps == 1 { 1 } else { 3 });
        if wide.work() < narrow.work() { wide } else { narrow }
    }

    /// Products for each place.
    fn work(&self) -> usize {
        let count = self.taps.div_ceil(self.side);
        (count * (count + 1) / 2 + (self.sources - 1) * count * count) * self.side * self.side
    }

    /// Taps rounded up to whole squares.
    pub(super) fn padded(&self) -> usize {
        self.taps.next_multiple_of(self.side)
    }

    /// Sums in a vector each.
    pub(super) fn sums(&self) -> usize {
        self.work() + 2 * self.sources * self.padded()
    }

    /// All squares: the lower triangle of `H`, then all of `C`.
    pub(super) fn places(&self) -> Vec<Place> {
        let count = self.taps.div_ceil(self.side);
        let rows = (0..self.sources).flat_map(|matrix| (0..count).map(move |row| (matrix, row)));
        let columns = |(matrix, row)| {
            let columns = if matrix == 0 { row + 1 } else { count };
            (0..columns).map(move |column| Place { matrix, row, column })
        };
        rows.flat_map(columns).collect()
    }

    /// Where each sum belongs; `None` of those that only fill up squares.
    pub(super) fn targets(&self) -> Vec<Option<Target>> {
        let Squares { taps, side, sources } = *self;
        let mut targets = Vec::with_capacity(self.sums());
        for Place { matrix, row, column } in self.places() {
            for (i, j) in (0..side).flat_map(|i| (0..side).map(move |j| (row * side + i, column * side + j))) {
                let is_wanted = i < taps && j < taps && (matrix > 0 || j <= i);
                targets.push(is_wanted.then_some(Target::Product(matrix, [i, j])));
            }
        }
        for source in 0..sources {
            for start in (0..self.padded()).step_by(side) {
                let taps = |target: fn(usize, usize) -> Target| {
                    (start..start + side).map(move |tap| (tap < taps).then(|| target(source, tap)))
                };
                targets.extend(taps(Target::Sum));
                targets.extend(taps(Target::Square));
            }
        }
        targets
    }
}

/// Adds the products of one block of places to the sums of all squares. `SIDE` must be that of the squares.
pub(super) struct AddBlock<'a, const SIDE: usize> {
    pub(super) squares: Squares,
    /// All places of the squares.
    pub(super) places: &'a [Place],
    /// Of each tensor [`BLOCK`] numbers for each padded tap.
    pub(super) taps: [&'a [f32]; 2],
    /// A vector for each sum.
    pub(super) sums: &'a mut [f32],
}

impl<const SIDE: usize> Kernel for AddBlock<'_, SIDE> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [quantized, analog] = self.taps.map(|taps| taps.as_chunks::<BLOCK>().0.as_chunks::<SIDE>().0);
        let (products, columns) = self.sums.split_at_mut(self.squares.work() * I::LANES);
        for (place, sums) in self.places.iter().zip(products.chunks_exact_mut(SIDE * SIDE * I::LANES)) {
            let right = if place.matrix == 0 { quantized } else { analog };
            square(isa, &quantized[place.row], &right[place.column], sums);
        }
        let sources = [quantized, analog].into_iter().take(self.squares.sources);
        for (taps, sums) in sources.flatten().zip(columns.chunks_exact_mut(2 * SIDE * I::LANES)) {
            sums_and_squares(isa, taps, sums);
        }
    }
}

/// Adds `left[i] · right[j]` for all `i` and `j`.
#[inline(always)]
fn square<I: Isa, const SIDE: usize>(
    isa: I,
    left: &[[f32; BLOCK]; SIDE],
    right: &[[f32; BLOCK]; SIDE],
    to: &mut [f32],
) {
    let mut sums = [[isa.zero(); SIDE]; SIDE];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = isa.load(&to[(i * SIDE + j) * I::LANES..]);
        }
    }
    for at in 0..BLOCK / I::LANES {
        let at = at * I::LANES;
        let mut b = [isa.zero(); SIDE];
        for (b, right) in b.iter_mut().zip(right) {
            *b = isa.load(&right[at..]);
        }
        for (sums, left) in sums.iter_mut().zip(left) {
            let a = isa.load(&left[at..]);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = isa.fma(a, b, *sum);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            isa.store(&mut to[(i * SIDE + j) * I::LANES..], *sum);
        }
    }
}

/// Adds each tap, and its square.
#[inline(always)]
fn sums_and_squares<I: Isa, const SIDE: usize>(isa: I, taps: &[[f32; BLOCK]; SIDE], to: &mut [f32]) {
    let (mut sums, mut squares) = ([isa.zero(); SIDE], [isa.zero(); SIDE]);
    for i in 0..SIDE {
        sums[i] = isa.load(&to[i * I::LANES..]);
        squares[i] = isa.load(&to[(SIDE + i) * I::LANES..]);
    }
    for at in 0..BLOCK / I::LANES {
        for i in 0..SIDE {
            let x = isa.load(&taps[i][at * I::LANES..]);
            sums[i] = isa.add(sums[i], x);
            squares[i] = isa.fma(x, x, squares[i]);
        }
    }
    for i in 0..SIDE {
        isa.store(&mut to[i * I::LANES..], sums[i]);
        isa.store(&mut to[(SIDE + i) * I::LANES..], squares[i]);
    }
}
