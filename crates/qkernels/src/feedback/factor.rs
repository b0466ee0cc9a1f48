use super::recursion::accumulate;
use crate::{Gemm, par};
use qtensor::{DType, Error, Result, Tensor};

/// Columns that are factored one after the other.
const BLOCK: usize = 64;
/// Rows of a task.
const ROWS: usize = 256;

/// `H + λ I = L Lᵀ` with `L` lower triangular, f64.
#[derive(Clone, Debug)]
pub struct Factor {
    /// `L`; what lies above the diagonal is 0.
    lower: Tensor,
}

impl Factor {
    /// Factors a symmetric matrix `[N, N]`, f64, of which the lower triangle is read, with `damping` added to its diagonal.
    ///
    /// # Errors
    /// Another shape or type, or a matrix that is not positive definite with that damping.
    pub fn new(matrix: &Tensor, damping: f64) -> Result<Self> {
        let size = matrix.shape().first().copied().unwrap_or(0);
        super::recursion::fits("the matrix to factor", matrix, [size, size], DType::F64)?;
        // A copy in row-major order, whatever order the matrix has.
        let mut lower = Tensor::zeros([size, size], DType::F64)?;
        lower.copy_from(matrix)?;
        let values = lower.memory_mut::<f64>()?;
        for (i, row) in values.chunks_exact_mut(size.max(1)).enumerate() {
            row[i] += damping;
            row[i + 1..].fill(0.0);
        }
        for start in (0..size).step_by(BLOCK) {
            let end = (start + BLOCK).min(size);
            factor_columns(lower.memory_mut()?, size, start..end, damping)?;
            update(&mut lower, start..end)?;
        }
        Ok(Factor { lower })
    }

    /// `Uᵀ` of `H = (I + U) D (I + U)ᵀ` where this is the factor of `H` with its rows and columns in reverse order: strictly lower triangular, `[N, N]`.
    ///
    /// # Errors
    /// None for a factor that was made here.
    pub fn feedback(&self) -> Result<Tensor> {
        let size = self.lower.shape()[0];
        let lower = self.lower.memory::<f64>()?;
        let mut feedback = Tensor::zeros([size, size], DType::F64)?;
        let values = feedback.memory_mut::<f64>()?;
        // In reverse order, L D^(-1/2) with a unit diagonal is I + U; here it is transposed as well.
        par::for_each_chunk(values, size.max(1), |t, row| {
            for (j, value) in row[..t].iter_mut().enumerate() {
                let (i, column) = (size - 1 - j, size - 1 - t);
                *value = lower[i * size + column] / lower[column * size + column];
            }
        });
        Ok(feedback)
    }

    /// `(H + λ I)⁻¹ b` for `b` of shape `[N, columns]`, f64.
    ///
    /// # Errors
    /// Another shape or type.
    pub fn solve(&self, b: &Tensor) -> Result<Tensor> {
        let size = self.lower.shape()[0];
        let columns = b.shape().get(1).copied().unwrap_or(0);
        super::recursion::fits("the right side", b, [size, columns], DType::F64)?;
        let panels = par::map(columns.div_ceil(ROWS), |i| {
            let range = i * ROWS..((i + 1) * ROWS).min(columns);
            let mut x = Tensor::zeros([size, range.len()], DType::F64)?;
            x.copy_from(&b.slice(1, range)?)?;
            self.solve_panel(x)
        });
        let panels = panels.into_iter().collect::<Result<Vec<_>>>()?;
        if panels.is_empty() { Ok(b.copy()) } else { Tensor::concatenate(&panels, 1) }
    }

    fn solve_panel(&self, mut x: Tensor) -> Result<Tensor> {
        let (size, columns) = (self.lower.shape()[0], x.shape()[1]);
        let starts = (0..size).step_by(BLOCK);
        for start in starts.clone() {
            let rows = start..(start + BLOCK).min(size);
            let mut part = x.slice(0, rows.clone())?.copy();
            accumulate(
                &mut part,
                -1.0,
                &self.lower.slice(0, rows.clone())?.slice(1, 0..start)?,
                &x.slice(0, 0..start)?,
            )?;
            let (lower, values) = (self.lower.memory::<f64>()?, part.memory_mut::<f64>()?);
            for t in 0..rows.len() {
                let (before, row) = values.split_at_mut(t * columns);
                let row = &mut row[..columns];
                let factors = &lower[(start + t) * size + start..];
                for (j, other) in before.chunks_exact(columns).enumerate() {
                    row.iter_mut().zip(other).for_each(|(x, y)| *x -= factors[j] * y);
                }
                row.iter_mut().for_each(|x| *x /= factors[t]);
            }
            x.memory_mut::<f64>()?[start * columns..rows.end * columns].copy_from_slice(part.memory()?);
        }
        for start in starts.rev() {
            let rows = start..(start + BLOCK).min(size);
            let after = rows.end..size;
            let mut part = x.slice(0, rows.clone())?.copy();
            let lower = self.lower.slice(0, after.clone())?.slice(1, rows.clone())?;
            accumulate(&mut part, -1.0, &lower.t()?, &x.slice(0, after)?)?;
            let (lower, values) = (self.lower.memory::<f64>()?, part.memory_mut::<f64>()?);
            for t in (0..rows.len()).rev() {
                let (row, after) = values[t * columns..].split_at_mut(columns);
                for (j, other) in after.chunks_exact(columns).enumerate() {
                    let factor = lower[(start + t + 1 + j) * size + start + t];
                    row.iter_mut().zip(other).for_each(|(x, y)| *x -= factor * y);
                }
                let own = lower[(start + t) * size + start + t];
                row.iter_mut().for_each(|x| *x /= own);
            }
            x.memory_mut::<f64>()?[start * columns..rows.end * columns].copy_from_slice(part.memory()?);
        }
        Ok(x)
    }
}

/// Factors the columns of a block, all rows from its first on; what other columns say was taken off before.
fn factor_columns(values: &mut [f64], size: usize, columns: std::ops::Range<usize>, damping: f64) -> Result<()> {
    for k in columns.clone() {
        let pivot = values[k * size + k];
        if !(pivot > 0.0 && pivot.is_finite()) {
            let message = format!(
                "the matrix is not positive definite at feature {k} with a damping of {damping:e}: use more of it"
            );
            return Err(Error::argument("factor", message));
        }
        let root = pivot.sqrt();
        values[k * size + k] = root;
        let column: Vec<f64> = (k + 1..columns.end).map(|j| values[j * size + k] / root).collect();
        let tail = &mut values[(k + 1) * size..];
        par::for_each_chunk(tail, ROWS * size, |chunk, rows| {
            for (i, row) in rows.chunks_exact_mut(size).enumerate() {
                row[k] /= root;
                let (own, i) = (row[k], chunk * ROWS + i);
                // Above the diagonal nothing is kept.
                let end = (k + 2 + i).min(columns.end);
                let row = &mut row[k + 1..end.max(k + 1)];
                row.iter_mut().zip(&column).for_each(|(x, y)| *x -= own * y);
            }
        });
    }
    Ok(())
}

/// Takes what a block of columns says off all later ones.
fn update(lower: &mut Tensor, columns: std::ops::Range<usize>) -> Result<()> {
    let size = lower.shape()[0];
    let first = columns.end;
    let done = lower.slice(1, columns)?.slice(0, first..size)?.copy();
    let tail = &mut lower.memory_mut::<f64>()?[first * size..];
    let results = par::map_chunks(tail, ROWS * size, |i, rows| {
        let (start, count) = (i * ROWS, rows.len() / size);
        let seen = done.slice(0, 0..start + count)?;
        let product = Gemm::new(&done.slice(0, start..start + count)?, &seen.t()?).run()?;
        let product = product.memory::<f64>()?.chunks_exact(start + count);
        for (t, (row, product)) in rows.chunks_exact_mut(size).zip(product).enumerate() {
            let kept = start + t + 1;
            row[first..first + kept].iter_mut().zip(product).for_each(|(x, y)| *x -= y);
        }
        Ok(())
    });
    results.into_iter().collect()
}
