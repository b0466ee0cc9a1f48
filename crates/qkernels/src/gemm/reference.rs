//! The f64 path: the product through matrixmultiply, then one pass for bias and activation.

use super::Gemm;
use qtensor::{Result, Tensor};

/// The address of the first element of a matrix, and the steps to the next row and column.
fn view(x: &Tensor) -> Result<(*const f64, isize, isize)> {
    let buffer = x.buffer_slice::<f64>()?;
    let start = buffer[x.layout().offset().min(buffer.len())..].as_ptr();
    Ok((start, x.strides()[0] as isize, x.strides()[1] as isize))
}

/// Runs a checked product into a row-major output that is not empty.
pub(super) fn run(gemm: &Gemm, out: &mut Tensor) -> Result<()> {
    let [m, k, n] = [gemm.a.shape()[0], gemm.a.shape()[1], gemm.b.shape()[1]];
    let ((a, a_row, a_column), (b, b_row, b_column)) = (view(gemm.a)?, view(gemm.b)?);
    let c = out.memory_mut::<f64>()?;
    let (start, row) = (c.as_mut_ptr(), n as isize);
    // SAFETY: shapes and strides come from tensors, which lie in their buffers; `c` is borrowed exclusively and has m * n elements,
    // which are not read where `beta` is 0.
    unsafe {
        matrixmultiply::dgemm(m, k, n, gemm.alpha, a, a_row, a_column, b, b_row, b_column, gemm.beta, start, row, 1);
    }
    let bias = gemm.bias.map(Tensor::to_vec::<f64>).transpose()?;
    for row in c.chunks_mut(n) {
        for (j, x) in row.iter_mut().enumerate() {
            *x = gemm.activation.apply(*x + bias.as_ref().map_or(0.0, |bias| bias[j]));
        }
    }
    Ok(())
}
