//! Textbook loops, for f32, bf16 and f64, accumulated in f64: the oracle of all kernel tests.

pub mod conv;
pub mod elementwise;
pub mod feedback;
pub mod gemm;
pub mod gram;
pub mod int8;
pub mod norm;
pub mod pool;
pub mod reduce;
pub mod softmax;
pub mod sparse;

use qtensor::{DType, Error, Result, Tensor};

/// The elements of an f32, bf16 or f64 tensor in logical order, whatever its strides.
///
/// # Errors
/// Another element type; the message names `op`.
pub fn values(op: &'static str, x: &Tensor) -> Result<Vec<f64>> {
    match x.dtype() {
        DType::F32 => Ok(x.contiguous().as_slice::<f32>()?.iter().map(|v| f64::from(*v)).collect()),
        DType::F64 => x.to_vec::<f64>(),
        DType::BF16 => x.to_dtype(DType::F64)?.to_vec::<f64>(),
        found => Err(Error::DType { op, expected: DType::F32, found }),
    }
}

/// A row-major tensor of type `dtype` (f32, bf16 or f64) from f64 values.
///
/// # Errors
/// The number of values is not the product of the shape, or another element type.
pub fn tensor(shape: impl AsRef<[usize]>, values: Vec<f64>, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::from_vec(shape, values.into_iter().map(|v| v as f32).collect()),
        DType::F64 => Tensor::from_vec(shape, values),
        DType::BF16 => Tensor::from_vec(shape, values)?.to_dtype(DType::BF16),
        found => Err(Error::DType { op: "naive", expected: DType::F32, found }),
    }
}

/// A tensor with the shape, type and memory order of `like` from f64 values in logical order.
///
/// # Errors
/// The number of values is not that of the elements of `like`.
pub fn tensor_like(like: &Tensor, values: Vec<f64>) -> Result<Tensor> {
    let mut out = like.empty_like();
    out.copy_from(&tensor(like.shape(), values, like.dtype())?)?;
    Ok(out)
}
