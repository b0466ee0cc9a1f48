//! Softmax of f32 rows.

use crate::elementwise::math;
use crate::isa::{Isa, Kernel, dispatch};
use crate::par;

/// Values that one thread takes at a time.
const PIECE: usize = 8 * 1024;
/// Rows are padded to whole vectors of any instruction set.
const PADDING: usize = 16;

/// Rows that one thread takes at a time.
fn rows_together(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// `y = log softmax(x)` of each row.
pub(super) fn log_softmax(x: &[f32], width: usize, y: &mut [f32]) {
    if width == 0 {
        return;
    }
    let piece = rows_together(width) * width;
    par::for_each_chunk(y, piece, |i, y| {
        let mut scratch = vec![f32::NEG_INFINITY; width.next_multiple_of(PADDING)];
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            let from = i * piece + row * width;
            let (max, sum) = dispatch(Exponentials { x: &x[from..from + width], scratch: &mut scratch });
            let log_sum = sum.ln() as f32;
            y.iter_mut().zip(&x[from..]).for_each(|(y, x)| *y = (x - max) - log_sum);
        }
    });
}

/// `dx = dy - exp(y) · Σ dy` of each row.
pub(super) fn log_softmax_grad(y: &[f32], dy: &[f32], width: usize, dx: &mut [f32]) {
    if width == 0 {
        return;
    }
    let piece = rows_together(width) * width;
    par::for_each_chunk(dx, piece, |i, dx| {
        let mut scratch = vec![f32::NEG_INFINITY; width.next_multiple_of(PADDING)];
        for (row, dx) in dx.chunks_exact_mut(width).enumerate() {
            let from = i * piece + row * width;
            scratch[..width].copy_from_slice(&y[from..from + width]);
            dispatch(Exp(&mut scratch));
            let dy = &dy[from..from + width];
            let sum = dy.iter().map(|v| f64::from(*v)).sum::<f64>() as f32;
            for ((dx, dy), p) in dx.iter_mut().zip(dy).zip(&scratch) {
                *dx = dy - p * sum;
            }
            scratch[width..].fill(f32::NEG_INFINITY);
        }
    });
}

/// What a row should be.
#[derive(Clone, Copy)]
pub(super) enum Targets<'a> {
    /// The class of each row, below the number of classes.
    Labels(&'a [usize]),
    /// A probability for each class of each row.
    Probabilities(&'a [f32]),
}

/// Mean cross-entropy and its gradient.
#[derive(Clone, Copy)]
pub(super) struct CrossEntropy<'a> {
    pub(super) x: &'a [f32],
    pub(super) classes: usize,
    pub(super) targets: Targets<'a>,
    pub(super) label_smoothing: f64,
}

impl CrossEntropy<'_> {
    /// The loss; `residual` becomes its gradient with respect to the logits.
    pub(super) fn run(self, residual: &mut [f32]) -> f64 {
        let rows = self.x.len() / self.classes;
        let together = rows_together(self.classes);
        let mut losses = vec![0.0; rows];
        let mut work: Vec<(&mut [f32], &mut f64)> =
            residual.chunks_exact_mut(self.classes).zip(losses.iter_mut()).collect();
        par::for_each_chunk(&mut work, together, |i, part| {
            let mut scratch = vec![f32::NEG_INFINITY; self.classes.next_multiple_of(PADDING)];
            for (j, (residual, loss)) in part.iter_mut().enumerate() {
                **loss = self.row(i * together + j, 1.0 / rows as f64, &mut scratch, residual);
            }
        });
        losses.iter().sum::<f64>() / rows as f64
    }

    /// The loss of one row, whose gradient is multiplied by `share`.
    fn row(self, row: usize, share: f64, scratch: &mut [f32], residual: &mut [f32]) -> f64 {
        let x = &self.x[row * self.classes..(row + 1) * self.classes];
        let (max, sum) = dispatch(Exponentials { x, scratch });
        let (shift, uniform) = (f64::from(max) + sum.ln(), self.label_smoothing / self.classes as f64);
        let target = |class: usize| {
            let q = match self.targets {
                Targets::Labels(labels) => f64::from(u8::from(labels[row] == class)),
                Targets::Probabilities(q) => f64::from(q[row * self.classes + class]),
            };
            (1.0 - self.label_smoothing) * q + uniform
        };
        let (mut loss, mut mass) = (0.0, 0.0);
        for (class, x) in x.iter().enumerate() {
            let q = target(class);
            mass += q;
            // An impossible class that nobody expects costs nothing, where ∞ · 0 would be NaN.
            loss -= if q == 0.0 && *x == f32::NEG_INFINITY { 0.0 } else { q * (f64::from(*x) - shift) };
        }
        for (class, (residual, e)) in residual.iter_mut().zip(scratch.iter()).enumerate() {
            *residual = (share * (f64::from(*e) / sum * mass - target(class))) as f32;
        }
        loss
    }
}

/// Fills `scratch` with `exp(x - max)` and returns the maximum and the sum of the exponentials. The scratch is padded and starts at -∞ beyond the row.
struct Exponentials<'a> {
    x: &'a [f32],
    scratch: &'a mut [f32],
}

impl Kernel for Exponentials<'_> {
    type Output = (f32, f64);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (f32, f64) {
        let (row, padding) = self.scratch.split_at_mut(self.x.len());
        row.copy_from_slice(self.x);
        padding.fill(f32::NEG_INFINITY);
        let mut largest = isa.splat(f32::NEG_INFINITY);
        for x in self.scratch.chunks_exact(I::LANES) {
            largest = isa.max(largest, isa.load(x));
        }
        let max = isa.maximum(largest);
        let mut total = 0.0;
        // Sums of a few hundred terms in f32, then f64.
        for block in self.scratch.chunks_mut(256) {
            let mut sum = isa.zero();
            for x in block.chunks_exact_mut(I::LANES) {
                let e = math::exp(isa, isa.sub(isa.load(x), isa.splat(max)));
                isa.store(x, e);
                sum = isa.add(sum, e);
            }
            total += f64::from(isa.sum(sum));
        }
        (max, total)
    }
}

/// Exponentials in place of a padded row.
struct Exp<'a>(&'a mut [f32]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for x in self.0.chunks_exact_mut(I::LANES) {
            let e = math::exp(isa, isa.load(x));
            isa.store(x, e);
        }
    }
}
