use crate::{Error, Pass, Result};
use qtensor::{DType, Tensor};

/// Fails with the place where the tensor holds an infinity or NaN. Integers are always finite.
pub(crate) fn expect_finite(
    tensor: &Tensor,
    op: &'static str,
    scope: &str,
    pass: Pass,
    what: impl FnOnce() -> String,
) -> Result<()> {
    if is_finite(tensor)? {
        return Ok(());
    }
    Err(Error::NotFinite { op, scope: scope.to_string(), pass, what: what() })
}

/// Whether no element is infinite or NaN.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool> {
    let tensor = if tensor.layout().is_dense() { tensor.clone() } else { tensor.contiguous() };
    Ok(match tensor.dtype() {
        DType::F32 => tensor.memory::<f32>()?.iter().all(|x| x.is_finite()),
        DType::F64 => tensor.memory::<f64>()?.iter().all(|x| x.is_finite()),
        DType::BF16 => tensor.memory::<qtensor::bf16>()?.iter().all(|x| x.is_finite()),
        _ => true,
    })
}
