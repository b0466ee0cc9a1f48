//! The matrix product as three loops.

use crate::gemm::Gemm;
use qtensor::{DType, Result, Tensor};

/// `gemm` by its definition, in f64, into an f64 tensor; `old` is the previous output, read only where `beta` is not 0.
///
/// # Errors
/// Element types that cannot be converted.
pub fn gemm(gemm: &Gemm, old: Option<&Tensor>) -> Result<Tensor> {
    let values = |x: &Tensor| x.to_dtype(DType::F64)?.to_vec::<f64>();
    let [m, k, n] = [gemm.a.shape()[0], gemm.a.shape()[1], gemm.b.shape()[1]];
    let (a, b) = (values(gemm.a)?, values(gemm.b)?);
    let bias = gemm.bias.map(values).transpose()?;
    let old = old.filter(|_| gemm.beta != 0.0).map(values).transpose()?;
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let product: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
            let mut sum = gemm.alpha * product;
            if let Some(old) = &old {
                sum += gemm.beta * old[i * n + j];
            }
            if let Some(bias) = &bias {
                sum += bias[j];
            }
            out.push(gemm.activation.apply(sum));
        }
    }
    Tensor::from_vec([m, n], out)
}
