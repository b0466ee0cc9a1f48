//! Bringing operands into one memory order.

use crate::layout;
use qtensor::{DType, Error, Result, Tensor};

/// Refuses types other than f32 and f64, and pairs that differ.
pub(crate) fn same_type(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    for t in [a, b] {
        if !matches!(t.dtype(), DType::F32 | DType::F64) {
            return Err(Error::DType { op, expected: DType::F32, found: t.dtype() });
        }
    }
    if a.dtype() != b.dtype() {
        return Err(Error::DType { op, expected: a.dtype(), found: b.dtype() });
    }
    Ok(())
}

/// Refuses types other than f32, bf16 and f64, and pairs whose shapes or types differ.
pub(crate) fn same_stored(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dtype() != DType::BF16 {
        return same(op, a, b);
    }
    if b.dtype() != DType::BF16 {
        return Err(Error::DType { op, expected: DType::BF16, found: b.dtype() });
    }
    same_shape(op, a, b)
}

fn same_shape(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.shape() != b.shape() {
        return Err(Error::shape(op, format!("shapes {} and {} must be equal", a.shape(), b.shape())));
    }
    Ok(())
}

/// Refuses pairs whose shapes or types differ, and types other than f32 and f64.
pub(crate) fn same(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    same_shape(op, a, b)?;
    same_type(op, a, b)
}

/// `x` where it is dense, else a dense copy.
pub(crate) fn dense(x: &Tensor) -> Tensor {
    if x.layout().is_dense() { x.clone() } else { x.contiguous() }
}

/// `x` in the memory order of the dense tensor `like` of the same shape and type: itself where that is its order, else a copy.
pub(crate) fn aligned(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    if same_order(x, like) {
        return Ok(x.clone());
    }
    let mut out = like.empty_like();
    layout::copy(x, &mut out)?;
    Ok(out)
}

/// Whether both are dense with the axes in the same order; the shapes are equal.
pub(crate) fn same_order(a: &Tensor, b: &Tensor) -> bool {
    let equal = |i: usize| a.shape()[i] == 1 || a.strides()[i] == b.strides()[i];
    a.layout().is_dense() && b.layout().is_dense() && (a.numel() == 0 || (0..a.rank()).all(equal))
}

/// Axes longer than 1 of a dense tensor, fastest in memory first.
pub(crate) fn memory_axes(x: &Tensor) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..x.rank()).filter(|a| x.shape()[*a] != 1).collect();
    axes.sort_by_key(|a| x.strides()[*a]);
    axes
}

/// Where `x`, broadcast to the shape of the dense tensor `like`, repeats one run of values along its memory: that run.
pub(crate) fn repeated_run(x: &Tensor, like: &Tensor) -> Result<Option<Tensor>> {
    let wide = x.expand(like.shape())?;
    let axes = memory_axes(like);
    let mut period = 1;
    let matched = axes
        .iter()
        .take_while(|a| {
            let follows = wide.strides()[**a] == period;
            period *= if follows { like.shape()[**a] } else { 1 };
            follows
        })
        .count();
    if axes[matched..].iter().any(|a| wide.strides()[*a] != 0) {
        return Ok(None);
    }
    // One index of every axis that repeats leaves the run, which is dense.
    let mut run = wide;
    for axis in &axes[matched..] {
        run = run.slice(*axis, 0..run.shape()[*axis].min(1))?;
    }
    Ok(Some(run))
}

/// Runs shorter than this are not worth a pass of their own.
const SHORTEST_RUN: usize = 64;

/// Where `x`, broadcast to the shape of the dense tensor `like`, stays the same along runs of its memory, as a value for each channel does with the batch innermost: the value of each
/// run, in the order of memory.
pub(crate) fn value_of_runs(x: &Tensor, like: &Tensor) -> Result<Option<Tensor>> {
    let wide = x.expand(like.shape())?;
    let axes = memory_axes(like);
    let fast = axes.iter().take_while(|a| wide.strides()[**a] == 0).count();
    let (fast, slow) = axes.split_at(fast);
    if fast.iter().map(|a| like.shape()[*a]).product::<usize>() < SHORTEST_RUN {
        return Ok(None);
    }
    let mut values = wide;
    for axis in fast {
        values = values.slice(*axis, 0..values.shape()[*axis].min(1))?;
    }
    let mut order: Vec<usize> = (0..like.rank()).filter(|axis| !slow.contains(axis)).collect();
    order.extend(slow.iter().rev());
    Ok(Some(values.permute(&order)?.contiguous()))
}
