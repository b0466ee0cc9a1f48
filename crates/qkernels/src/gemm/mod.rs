//! Matrix products: `C = activation(alpha * A * B + beta * C + bias)`.
//!
//! `A` is `[m, k]`, `B` is `[k, n]`, `C` is `[m, n]`, `bias` is `[n]`. The operands may have any strides: transposed, sliced with gaps, or
//! stretched from one row (stride 0). f32 and bf16 run on the vector kernels, f64 on the reference path.
//! Products of bf16 are summed in f32: see [`Isa::dot_bf16`](crate::isa::Isa::dot_bf16) for their rounding.

mod blocking;
mod gram;
mod half;
mod matrix;
mod pack;
mod product;
mod reference;
mod rows;
mod strips;
pub mod tile;
mod vector;

use crate::Activation;
use crate::isa::dispatch;
pub(crate) use gram::add_products;
use matrix::Matrix;
use product::Product;
use qtensor::{DType, Error, Result, Tensor};
use vector::{Finish, MatrixVector, ShortSums, VectorBias};

/// One matrix product and what happens to its result before it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// Left operand, `[m, k]`.
    pub a: &'a Tensor,
    /// Right operand, `[k, n]`.
    pub b: &'a Tensor,
    /// Factor of the product.
    pub alpha: f64,
    /// Factor of what the output held before. At 0 the old values are never read, not even NaN.
    pub beta: f64,
    /// Added to every row, `[n]`; f32 where the operands are bf16.
    pub bias: Option<&'a Tensor>,
    /// Applied last.
    pub activation: Activation,
}

/// `a * b` for `[m, k]` and `[k, n]`.
///
/// # Errors
/// Ranks other than 2, inner dimensions that differ, or element types that differ or are none of f32, f64 and bf16.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Gemm::new(a, b).run()
}

impl<'a> Gemm<'a> {
    /// `a * b` alone: alpha 1, beta 0, no bias, no activation.
    pub fn new(a: &'a Tensor, b: &'a Tensor) -> Self {
        Gemm { a, b, alpha: 1.0, beta: 0.0, bias: None, activation: Activation::None }
    }

    /// The result as a new row-major tensor. There is no old output, so `beta` has no part in it.
    ///
    /// # Errors
    /// As [`matmul`]; or a bias that is not `[n]` of the right type.
    pub fn run(&self) -> Result<Tensor> {
        let [m, n] = self.check()?;
        let mut out = Tensor::empty([m, n], self.a.dtype())?;
        Gemm { beta: 0.0, ..*self }.compute(&mut out)?;
        Ok(out)
    }

    /// The result into `out` of shape `[m, n]`, which keeps its memory order; with gaps it becomes row-major. The product of bf16 may go to bf16 or to f32.
    ///
    /// # Errors
    /// As [`run`](Self::run); or an output of another shape or type.
    pub fn run_into(&self, out: &mut Tensor) -> Result<()> {
        let shape = self.check()?;
        if out.shape() != shape {
            return Err(Error::shape(
                "gemm",
                format!("the product is {}×{}, the output {}", shape[0], shape[1], out.shape()),
            ));
        }
        if out.dtype() != self.a.dtype() && (self.a.dtype(), out.dtype()) != (DType::BF16, DType::F32) {
            return Err(Error::DType { op: "gemm", expected: self.a.dtype(), found: out.dtype() });
        }
        if out.layout().is_contiguous() {
            return self.compute(out);
        }
        let mut row_major = if self.beta == 0.0 { Tensor::empty(shape, out.dtype())? } else { out.contiguous() };
        self.compute(&mut row_major)?;
        out.copy_from(&row_major)
    }

    /// Validates everything but the output, whose shape it returns.
    fn check(&self) -> Result<[usize; 2]> {
        let (a, b) = (self.a.shape(), self.b.shape());
        let (&[m, k], &[inner, n]) = (&a[..], &b[..]) else {
            return Err(Error::shape("gemm", format!("operands must be matrices, found {a} and {b}")));
        };
        if k != inner {
            return Err(Error::shape(
                "gemm",
                format!("cannot multiply {a} by {b}: inner dimensions {k} and {inner} differ"),
            ));
        }
        let dtype = self.a.dtype();
        if !matches!(dtype, DType::F32 | DType::F64 | DType::BF16) {
            return Err(Error::DType { op: "gemm", expected: DType::F32, found: dtype });
        }
        let of_bias = if dtype == DType::BF16 { DType::F32 } else { dtype };
        for (other, expected) in std::iter::once((self.b, dtype)).chain(self.bias.map(|bias| (bias, of_bias))) {
            if other.dtype() != expected {
                return Err(Error::DType { op: "gemm", expected, found: other.dtype() });
            }
        }
        match self.bias {
            Some(bias) if bias.shape() != [n] => Err(Error::shape(
                "gemm",
                format!("the bias of {n} columns must have shape {n}, found {}", bias.shape()),
            )),
            _ => Ok([m, n]),
        }
    }

    /// Everything is checked and `out` is row-major.
    fn compute(&self, out: &mut Tensor) -> Result<()> {
        if out.numel() == 0 {
            return Ok(());
        }
        match self.a.dtype() {
            DType::F64 => return reference::run(self, out),
            DType::BF16 => return half::run(self, out),
            _ => {}
        }
        let bias = self.bias.map(Tensor::contiguous);
        let bias = bias.as_ref().map(Tensor::as_slice).transpose()?;
        run_f32(self, bias, out.memory_mut()?)
    }
}

/// The longest `k` for which rows of `B` are added to `C` without tiles.
const SHORT: usize = 4;
/// The fewest columns for that: shorter rows are done better several at a time.
const LONG_ROW: usize = 64;

/// Chooses the algorithm by the shape and the strides. `c` is row-major and not empty.
fn run_f32(gemm: &Gemm, bias: Option<&[f32]>, c: &mut [f32]) -> Result<()> {
    let (a, b) = (Matrix::new(gemm.a)?, Matrix::new(gemm.b)?);
    let (alpha, beta, activation) = (gemm.alpha as f32, gemm.beta as f32, gemm.activation);
    let finish = |bias| Finish { alpha, beta, bias, activation };
    let each = bias.map_or(VectorBias::All(0.0), VectorBias::Each);
    let (row, column) = (a.transposed(), b.transposed());
    if b.columns == 1 && MatrixVector::fits(&a, &b) {
        let finish = finish(VectorBias::All(bias.map_or(0.0, |bias| bias[0])));
        dispatch(MatrixVector { matrix: a, x: b, y: c, finish });
    } else if a.rows == 1 && MatrixVector::fits(&column, &row) {
        dispatch(MatrixVector { matrix: column, x: row, y: c, finish: finish(each) });
    } else if a.columns <= SHORT && b.column_step == 1 && b.columns >= LONG_ROW {
        dispatch(ShortSums { a, b, c, finish: finish(each) });
    } else {
        dispatch(Product::<false> { a, b, c, alpha, beta, bias, activation });
    }
    Ok(())
}
