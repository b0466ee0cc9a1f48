//! Gradients that meet in one variable.

use crate::{Error, Result};
use qtensor::{DType, Element, Shape, Tensor};

/// Adds `new` to what has arrived so far, in place where one of the two buffers is not shared.
pub(crate) fn accumulate(slot: &mut Option<Tensor>, new: Tensor) -> Result<()> {
    *slot = Some(match slot.take() {
        None => new,
        Some(old) => {
            let (mut sum, other) = if !old.is_unique() && new.is_unique() { (new, old) } else { (old, new) };
            add_assign(&mut sum, &other)?;
            sum
        }
    });
    Ok(())
}

fn add_assign(sum: &mut Tensor, other: &Tensor) -> Result<()> {
    fn run<T: Element + std::ops::AddAssign>(sum: &mut Tensor, other: &Tensor) -> Result<()> {
        let mut same_order = sum.empty_like();
        same_order.copy_from(other)?;
        for (a, b) in sum.memory_mut::<T>()?.iter_mut().zip(same_order.memory::<T>()?) {
            *a += *b;
        }
        Ok(())
    }
    match sum.dtype() {
        DType::F32 => run::<f32>(sum, other),
        DType::F64 => run::<f64>(sum, other),
        other => Err(Error::argument("add_assign", format!("gradients of type {other} cannot be added"))),
    }
}

/// Sums a tensor over the axes that broadcasting stretched or added, so that it has `shape`.
pub(crate) fn sum_to(tensor: &Tensor, shape: &Shape) -> Result<Tensor> {
    fn run<T: Element + std::ops::AddAssign>(tensor: &Tensor, shape: &Shape) -> Result<Tensor> {
        let mut out = Tensor::zeros(shape, T::DTYPE)?;
        let target = out.layout().expand(tensor.shape())?;
        let values = tensor.to_vec::<T>()?;
        let sums = out.memory_mut::<T>()?;
        let mut index = vec![0; tensor.rank()];
        for value in values {
            let place: usize = index.iter().zip(target.strides()).map(|(i, s)| i * s).sum();
            sums[place] += value;
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < tensor.shape()[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(out)
    }
    match tensor.dtype() {
        DType::F32 => run::<f32>(tensor, shape),
        DType::F64 => run::<f64>(tensor, shape),
        other => Err(Error::argument("sum_to", format!("gradients of type {other} cannot be summed"))),
    }
}

/// Ones of a float type.
pub(crate) fn ones(shape: &Shape, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::F32 => Ok(Tensor::full(shape, 1.0f32)?),
        DType::F64 => Ok(Tensor::full(shape, 1.0f64)?),
        other => {
            Err(Error::argument("backward", format!("a loss of type {other} has no gradient; it must be f32 or f64")))
        }
    }
}
