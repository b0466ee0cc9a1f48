//! The path without kernels of ours: the product through matrixmultiply, then one pass for bias and activation.

use super::Gemm;
use qtensor::{Element, Result, Tensor};

/// An element type that matrixmultiply can multiply.
pub(super) trait Real: Element {
    /// `c = alpha * a * b + beta * c`; with `beta` 0 it only writes `c`.
    ///
    /// # Safety
    /// The views must lie in their memory and `c` must be exclusive.
    unsafe fn multiply(size: [usize; 3], alpha: f64, a: View<Self>, b: View<Self>, beta: f64, c: *mut Self);
}

/// A matrix in memory: its first element, and the steps to the next row and column.
#[derive(Clone, Copy)]
pub(super) struct View<T>(*const T, isize, isize);

macro_rules! real {
    ($ty:ty, $gemm:ident) => {
        impl Real for $ty {
            unsafe fn multiply([m, k, n]: [usize; 3], alpha: f64, a: View<$ty>, b: View<$ty>, beta: f64, c: *mut $ty) {
                let (alpha, beta) = (alpha as $ty, beta as $ty);
                // SAFETY: the caller's promise; `c` is row-major.
                unsafe { matrixmultiply::$gemm(m, k, n, alpha, a.0, a.1, a.2, b.0, b.1, b.2, beta, c, n as isize, 1) }
            }
        }
    };
}
real!(f32, sgemm);
real!(f64, dgemm);

/// The strides of a rank-2 tensor that has elements, as a view of its buffer.
fn view<T: Element>(x: &Tensor) -> Result<View<T>> {
    let buffer = x.buffer_slice::<T>()?;
    let start = buffer[x.layout().offset().min(buffer.len())..].as_ptr();
    Ok(View(start, x.strides()[0] as isize, x.strides()[1] as isize))
}

/// Runs a checked product into a row-major output that is not empty.
pub(super) fn run<T: Real>(gemm: &Gemm, out: &mut Tensor) -> Result<()> {
    let [m, k, n] = [gemm.a.shape()[0], gemm.a.shape()[1], gemm.b.shape()[1]];
    let (a, b) = (view::<T>(gemm.a)?, view::<T>(gemm.b)?);
    let c = out.memory_mut::<T>()?;
    // SAFETY: shapes and strides come from tensors, which lie in their buffers; `c` is borrowed exclusively and has m * n elements.
    unsafe { T::multiply([m, k, n], gemm.alpha, a, b, gemm.beta, c.as_mut_ptr()) };
    let bias = gemm.bias.map(Tensor::to_vec::<T>).transpose()?;
    for row in c.chunks_mut(n) {
        for (j, x) in row.iter_mut().enumerate() {
            let sum = x.to_f64() + bias.as_ref().map_or(0.0, |bias| bias[j].to_f64());
            *x = T::from_f64(gemm.activation.apply(sum));
        }
    }
    Ok(())
}
