use crate::half::fitting;
use crate::{Error, Pass, Result};
use qkernels::reduce::all_finite;
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

/// Whether no element is infinite or NaN. Only floats carry gradients, so nothing else is looked at.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(!tensor.dtype().is_float() || all_finite(&fitting(tensor.clone(), DType::F32)?)?)
}
