//! Products of bf16 matrices with sums in f32.
//!
//! Two bf16 that follow each other in `k` are one number of 32 bits, so the packing and the loops of f32 products serve with half the `k`:
//! only the multiply-add of the register tile is another one, [`Isa::dot_bf16`].

use super::Gemm;
use super::matrix::Matrix;
use super::product::Product;
use crate::cast::{round_into, widen_into};
use crate::isa::{Isa, Kernel, dispatch};
use crate::par;
use qtensor::{DType, Result, Tensor, bf16};

/// Runs a checked product into a row-major output, f32 or bf16, that is not empty.
pub(super) fn run(gemm: &Gemm, out: &mut Tensor) -> Result<()> {
    if out.dtype() == DType::F32 {
        return product(gemm, out.memory_mut()?);
    }
    let mut sums = Tensor::empty(out.shape(), DType::F32)?;
    if gemm.beta != 0.0 {
        widen_into(out.memory()?, sums.memory_mut()?);
    }
    product(gemm, sums.memory_mut()?)?;
    round_into(sums.memory()?, out.memory_mut()?);
    Ok(())
}

fn product(gemm: &Gemm, c: &mut [f32]) -> Result<()> {
    let bias = gemm.bias.map(Tensor::contiguous);
    let bias = bias.as_ref().map(Tensor::as_slice).transpose()?;
    let transposed = gemm.b.t()?;
    let (a, b) = (Pairs::new(gemm.a)?, Pairs::new(&transposed)?);
    let (alpha, beta, activation) = (gemm.alpha as f32, gemm.beta as f32, gemm.activation);
    dispatch(Product::<true> { a: a.matrix()?, b: b.matrix()?.transposed(), c, alpha, beta, bias, activation });
    Ok(())
}

/// An operand `[rows, k]` as `[rows, ⌈k / 2⌉]` pairs.
enum Pairs<'a> {
    /// Rows that are contiguous and hold whole pairs, read where they are.
    Here { pairs: &'a [f32], rows: usize, columns: usize, row_step: usize },
    /// A copy `[⌈k / 2⌉, rows]`.
    Copy(Tensor),
}

impl<'a> Pairs<'a> {
    fn new(operand: &'a Tensor) -> Result<Self> {
        let buffer = operand.buffer_slice::<bf16>()?;
        let values = &buffer[operand.layout().offset().min(buffer.len())..];
        let [rows, k] = [operand.shape()[0], operand.shape()[1]];
        let [row_step, column_step] = [operand.strides()[0], operand.strides()[1]];
        if column_step == 1 && k.is_multiple_of(2) && (row_step.is_multiple_of(2) || rows == 1) {
            let whole = &values[..values.len() / 2 * 2];
            if let Ok(pairs) = bytemuck::try_cast_slice(whole) {
                return Ok(Pairs::Here { pairs, rows, columns: k / 2, row_step: row_step / 2 });
            }
        }
        let mut copy = Tensor::empty([k.div_ceil(2), rows], DType::F32)?;
        let from = Strided { values, k, row_step, column_step };
        dispatch(Pairing { from, rows, to: copy.memory_mut()? });
        Ok(Pairs::Copy(copy))
    }

    fn matrix(&self) -> Result<Matrix<'_>> {
        match self {
            &Pairs::Here { pairs, rows, columns, row_step } => Ok(Matrix::of(pairs, [rows, columns], [row_step, 1])),
            Pairs::Copy(copy) => Ok(Matrix::new(copy)?.transposed()),
        }
    }
}

/// Values of `[rows, k]` with any strides.
#[derive(Clone, Copy)]
struct Strided<'a> {
    values: &'a [bf16],
    k: usize,
    row_step: usize,
    column_step: usize,
}

/// Pairs of all values, to a row of `to` for each pair.
struct Pairing<'a> {
    from: Strided<'a>,
    rows: usize,
    to: &'a mut [f32],
}

/// Pairs that are worth handing to another thread.
const JOB: usize = 1 << 14;

impl Kernel for Pairing<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Pairing { from, rows, to } = self;
        let rows_of_pairs = JOB.div_ceil(rows.max(1));
        par::for_each_chunk(to, rows_of_pairs * rows, |job, to| {
            for (i, to) in to.chunks_exact_mut(rows).enumerate() {
                let at = 2 * (job * rows_of_pairs + i);
                isa.outline(PairRow { from, at, to });
            }
        });
    }
}

/// The pairs `at` and `at + 1` in `k` of all rows; behind the end of `k` comes 0.
struct PairRow<'a> {
    from: Strided<'a>,
    at: usize,
    to: &'a mut [f32],
}

impl Kernel for PairRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let PairRow { from: Strided { values, k, row_step, column_step }, at, to } = self;
        let two = at + 1 < k;
        let mut row = 0;
        while row_step == 1 && row + I::LANES <= to.len() {
            let low = isa.load_bf16(&values[at * column_step + row..]);
            let high = if two { isa.load_bf16(&values[(at + 1) * column_step + row..]) } else { isa.zero() };
            isa.store(&mut to[row..], isa.pair_bf16(low, high));
            row += I::LANES;
        }
        for (row, to) in to.iter_mut().enumerate().skip(row) {
            let bits = |k: usize| u32::from(values[row * row_step + k * column_step].to_bits());
            *to = f32::from_bits(bits(at) | if two { bits(at + 1) << 16 } else { 0 });
        }
    }
}
