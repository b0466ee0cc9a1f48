//! Reductions.
//!
//! Sums are taken over blocks whose boundaries depend on the shape alone, and combined in the order of the blocks.

use crate::naive;
use qtensor::{Error, Result, Tensor};

/// Sum over `axes`; the axes disappear, or stay with length 1 where `keep` is set. No axes: a copy.
///
/// # Errors
/// No such axis, an axis named twice, or a type other than f32 and f64.
pub fn sum(x: &Tensor, axes: &[usize], keep: bool) -> Result<Tensor> {
    fold("sum", x, (axes, keep), 0.0, |a, b| a + b)
}

/// Mean over `axes`, as [`sum`]. The mean of nothing is NaN.
///
/// # Errors
/// As [`sum`].
pub fn mean(x: &Tensor, axes: &[usize], keep: bool) -> Result<Tensor> {
    let total = sum(x, axes, keep)?;
    let count: usize = axes.iter().map(|a| x.shape()[*a]).product();
    crate::elementwise::scale(&total, 1.0 / count as f64)
}

/// Largest element over `axes`, as [`sum`]; NaN where any element is NaN, -∞ where there is none.
///
/// # Errors
/// As [`sum`].
pub fn max(x: &Tensor, axes: &[usize], keep: bool) -> Result<Tensor> {
    fold("max", x, (axes, keep), f64::NEG_INFINITY, naive::reduce::larger)
}

fn fold(
    op: &'static str,
    x: &Tensor,
    (axes, keep): (&[usize], bool),
    initial: f64,
    combine: impl Fn(f64, f64) -> f64,
) -> Result<Tensor> {
    let reduced = reduced_axes(op, x, axes)?;
    let values = naive::reduce::fold(&naive::values(op, x)?, x.shape(), &reduced, initial, combine);
    naive::tensor(result_shape(x, &reduced, keep), values, x.dtype())
}

fn reduced_axes(op: &'static str, x: &Tensor, axes: &[usize]) -> Result<Vec<bool>> {
    let mut reduced = vec![false; x.rank()];
    for axis in axes {
        match reduced.get_mut(*axis) {
            Some(seen) if !*seen => *seen = true,
            _ => {
                return Err(Error::shape(
                    op,
                    format!("axes {axes:?} of shape {}: each must exist and be named once", x.shape()),
                ));
            }
        }
    }
    Ok(reduced)
}

fn result_shape(x: &Tensor, reduced: &[bool], keep: bool) -> Vec<usize> {
    let axes = x.shape().iter().zip(reduced);
    axes.filter(|(_, r)| keep || !**r).map(|(d, r)| if *r { 1 } else { *d }).collect()
}

/// Sums the axes that broadcasting `shape` to the shape of `x` stretched or added: the gradient of broadcasting.
///
/// # Errors
/// `shape` does not broadcast to the shape of `x`, or a type other than f32 and f64.
pub fn sum_to(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if x.shape().dims() == shape {
        return Ok(x.clone());
    }
    let added = x.rank().wrapping_sub(shape.len());
    let fits = shape.len() <= x.rank() && (0..shape.len()).all(|i| shape[i] == 1 || shape[i] == x.shape()[i + added]);
    if !fits {
        return Err(Error::shape("sum_to", format!("shape {shape:?} does not broadcast to {}", x.shape())));
    }
    let stretched = |i: &usize| *i < added || (shape[*i - added] == 1 && x.shape()[*i] != 1);
    let axes: Vec<usize> = (0..x.rank()).filter(stretched).collect();
    sum(x, &axes, true)?.reshape(shape)
}

/// Index of the largest element along the last axis, as i64; the first of equal ones, and the first NaN before all.
///
/// # Errors
/// Rank 0, a last axis of length 0, or a type other than f32 and f64.
pub fn argmax_last(x: &Tensor) -> Result<Tensor> {
    let Some((&width, outer)) = x.shape().split_last().filter(|(width, _)| **width > 0) else {
        return Err(Error::shape("argmax_last", format!("shape {} has no last axis to choose from", x.shape())));
    };
    let values = naive::values("argmax_last", x)?;
    let best = |row: &[f64]| {
        let larger = |best: usize, i: usize| row[i] > row[best] || (row[i].is_nan() && !row[best].is_nan());
        (1..width).fold(0, |best, i| if larger(best, i) { i } else { best }) as i64
    };
    Tensor::from_vec(outer, values.chunks(width).map(best).collect())
}

/// Σ a·b over all elements, accumulated in f64.
///
/// # Errors
/// Shapes or types differ, or a type other than f32 and f64.
pub fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    crate::elementwise::same("dot", a, b)?;
    Ok(naive::values("dot", a)?.iter().zip(naive::values("dot", b)?).map(|(a, b)| a * b).sum())
}

/// √Σx² over all elements, accumulated in f64.
///
/// # Errors
/// A type other than f32 and f64.
pub fn norm2(x: &Tensor) -> Result<f64> {
    Ok(naive::values("norm2", x)?.iter().map(|x| x * x).sum::<f64>().sqrt())
}

/// Whether no element is infinite or NaN.
///
/// # Errors
/// A type other than f32 and f64.
pub fn all_finite(x: &Tensor) -> Result<bool> {
    Ok(naive::values("all_finite", x)?.iter().all(|x| x.is_finite()))
}
