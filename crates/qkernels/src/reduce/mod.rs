//! Reductions.
//!
//! Sums are taken over blocks whose boundaries depend on the shape alone, and combined in the order of the blocks.

mod axes;
pub(crate) mod columns;
mod products;

use crate::elementwise::operands::{aligned, dense};
use crate::naive;
use columns::{Columns, Finite, Largest, Sum, columns};
use qtensor::{DType, Error, Result, Tensor};

/// Sum over `axes`; the axes disappear, or stay with length 1 where `keep` is set. No axes: a copy.
///
/// # Errors
/// No such axis, an axis named twice, or a type other than f32 and f64.
pub fn sum(x: &Tensor, axes: &[usize], keep: bool) -> Result<Tensor> {
    fold("sum", x, (axes, keep), Sum, 1.0)
}

/// Mean over `axes`, as [`sum`]. The mean of nothing is NaN.
///
/// # Errors
/// As [`sum`].
pub fn mean(x: &Tensor, axes: &[usize], keep: bool) -> Result<Tensor> {
    let count: usize = axes.iter().filter_map(|a| x.shape().get(*a)).product();
    fold("mean", x, (axes, keep), Sum, 1.0 / count as f64)
}

/// Largest element over `axes`, as [`sum`]; NaN where any element is NaN, -∞ where there is none.
///
/// # Errors
/// As [`sum`].
pub fn max(x: &Tensor, axes: &[usize], keep: bool) -> Result<Tensor> {
    fold("max", x, (axes, keep), Largest, 1.0)
}

fn fold<C: Columns<1, 0, 1>>(
    op: &'static str,
    x: &Tensor,
    (axes, keep): (&[usize], bool),
    rule: C,
    factor: f64,
) -> Result<Tensor> {
    let reduced = reduced_axes(op, x, axes)?;
    let shape = result_shape(x, &reduced, keep);
    if x.dtype() == DType::F32 {
        return axes::reduce(rule, x, &reduced, factor)?.reshape(shape);
    }
    let join = |a, b| rule.join_f64(a, b);
    let mut values = naive::reduce::fold(&naive::values(op, x)?, x.shape(), &reduced, f64::from(C::START), join);
    values.iter_mut().for_each(|v| *v *= factor);
    naive::tensor(shape, values, x.dtype())
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
    let best = match x.dtype() {
        DType::F32 => x.contiguous().as_slice::<f32>()?.chunks(width).map(argmax).collect(),
        _ => naive::values("argmax_last", x)?.chunks(width).map(argmax).collect(),
    };
    Tensor::from_vec(outer, best)
}

fn argmax<T: PartialOrd + Copy>(row: &[T]) -> i64 {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        let is_nan = |x: T| x.partial_cmp(&x).is_none();
        if *x > row[best] || (is_nan(*x) && !is_nan(row[best])) {
            best = i;
        }
    }
    best as i64
}

/// Σ a·b over all elements, accumulated in f64.
///
/// # Errors
/// Shapes or types differ, or a type other than f32 and f64.
pub fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    crate::elementwise::same("dot", a, b)?;
    if a.dtype() == DType::F32 {
        let a = dense(a);
        return Ok(products::dot(a.memory()?, aligned(b, &a)?.memory()?));
    }
    Ok(naive::values("dot", a)?.iter().zip(naive::values("dot", b)?).map(|(a, b)| a * b).sum())
}

/// √Σx² over all elements, accumulated in f64.
///
/// # Errors
/// A type other than f32 and f64.
pub fn norm2(x: &Tensor) -> Result<f64> {
    if x.dtype() == DType::F32 {
        let x = dense(x);
        return Ok(products::dot(x.memory()?, x.memory()?).sqrt());
    }
    Ok(naive::values("norm2", x)?.iter().map(|x| x * x).sum::<f64>().sqrt())
}

/// Whether no element is infinite or NaN.
///
/// # Errors
/// A type other than f32 and f64.
pub fn all_finite(x: &Tensor) -> Result<bool> {
    if x.dtype() == DType::F32 {
        let [total] = columns(Finite, [dense(x).memory::<f32>()?], [], 1);
        return Ok(total[0] == 0.0);
    }
    Ok(naive::values("all_finite", x)?.iter().all(|x| x.is_finite()))
}
