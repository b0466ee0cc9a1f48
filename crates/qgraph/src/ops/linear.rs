//! Matrix products.

use super::unary::of_epilogue;
use crate::half::fitting;
use crate::{Context, Error, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::elementwise::unary_grad_assign;
use qkernels::reduce::sum;
use qkernels::{Activation, Gemm, matmul};
use qtensor::{DType, Tensor};

/// `a b` of `[m, k]` and `[k, n]`. Keeps each operand whose partner needs a gradient.
#[derive(Clone, Copy, Debug)]
pub struct Matmul;

impl Vjp for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_if(record.needs[1], &record.inputs[0]);
        saved.keep_if(record.needs[0], &record.inputs[1]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (a, b) = (saved.take_if(needs[1])?, saved.take_if(needs[0])?);
        let da = b.map(|b| matmul(&dy, &b.t()?)).transpose()?;
        let db = a.map(|a| matmul(&a.t()?, &dy)).transpose()?;
        Ok(vec![da, db])
    }
}

impl Op for Matmul {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [a, b] = inputs(self.name(), x)?;
        Ok(matmul(a, b)?)
    }

    fn multiply_adds(&self, inputs: &[Tensor], output: &Tensor) -> u64 {
        inputs.first().map_or(0, |a| output.numel() as u64 * a.shape()[1] as u64)
    }
}

/// A fully connected layer, `activation(x Wᵀ + b)`: `x` `[N, in]`, `W` `[out, in]`, and, as an optional third input, `b` `[out]`.
/// Keeps `x` where `W` needs a gradient, `W` where `x` does, and the output where there is an activation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear {
    /// Applied before the result is stored; its derivative is taken from the output.
    pub activation: Activation,
}

impl Vjp for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_if(self.activation != Activation::None, record.output);
        saved.keep_if(record.needs[1], &record.inputs[0]);
        saved.keep_if(record.needs[0], &record.inputs[1]);
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if let Some(function) = of_epilogue("linear", self.activation)? {
            unary_grad_assign(function, &saved.take()?, &mut dy)?;
        }
        let (x, w) = (saved.take_if(needs[1])?, saved.take_if(needs[0])?);
        let dx = w.map(|w| Ok::<_, Error>(matmul(&dy, &fitting(w, dy.dtype())?)?)).transpose()?;
        let dw = x.map(|x| weight_gradient(&x, &dy)).transpose()?;
        let mut gradients = vec![dx, dw];
        if let Some(wanted) = needs.get(2) {
            gradients.push(if *wanted { Some(bias_gradient(&dy, &[0])?) } else { None });
        }
        Ok(gradients)
    }
}

/// `dyᵀ x`, f32 where these are bf16.
pub(super) fn weight_gradient(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let rows = dy.t()?;
    if dy.dtype() != DType::BF16 {
        return Ok(matmul(&rows, x)?);
    }
    let mut dw = Tensor::empty([rows.shape()[0], x.shape()[1]], DType::F32)?;
    Gemm::new(&rows, x).run_into(&mut dw)?;
    Ok(dw)
}

/// The sum of an output's gradient over all axes but that of the bias, f32 where it is bf16.
pub(super) fn bias_gradient(dy: &Tensor, axes: &[usize]) -> Result<Tensor> {
    Ok(sum(&fitting(dy.clone(), dy.dtype().of_parameters())?, axes, false)?)
}

impl Op for Linear {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        of_epilogue("linear", self.activation)?;
        let (x, w, bias) = match x {
            [x, w] => (x, w, None),
            [x, w, bias] => (x, w, Some(bias)),
            _ => return Err(Error::argument("linear", format!("expected x, w and perhaps a bias, found {}", x.len()))),
        };
        if x.rank() != 2 || w.rank() != 2 {
            return Err(Error::shape(
                "linear",
                format!("x {} and w {} must be [N, in] and [out, in]", x.shape(), w.shape()),
            ));
        }
        if w.dtype() != x.dtype().of_parameters() {
            let (expected, found) = (x.dtype().of_parameters(), w.dtype());
            return Err(qtensor::Error::DType { op: "linear", expected, found }.into());
        }
        let w = fitting(w.clone(), x.dtype())?;
        Ok(Gemm { bias, activation: self.activation, ..Gemm::new(x, &w.t()?) }.run()?)
    }

    fn multiply_adds(&self, inputs: &[Tensor], output: &Tensor) -> u64 {
        inputs.first().map_or(0, |x| output.numel() as u64 * x.shape()[1] as u64)
    }
}

impl Tape {
    /// The matrix product of `[m, k]` and `[k, n]`; keeps each operand whose partner needs a gradient.
    ///
    /// # Errors
    /// Ranks other than 2, inner dimensions that differ, types that differ or are neither f32 nor f64.
    pub fn matmul(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.apply(Matmul, &[a, b])
    }

    /// `x wᵀ + bias` for `x` `[N, in]`, `w` `[out, in]` and `bias` `[out]`: see [`Linear`].
    ///
    /// # Errors
    /// Shapes that do not fit, types that do not fit or are none of f32, bf16 (with f32 weights and bias) and f64.
    pub fn linear(&mut self, x: &Var, w: &Var, bias: Option<&Var>) -> Result<Var> {
        self.linear_with(Linear::default(), x, w, bias)
    }

    /// [`linear`](Self::linear) with an activation in the same pass.
    ///
    /// # Errors
    /// As [`linear`](Self::linear); or a leaky ReLU of negative slope.
    pub fn linear_with(&mut self, op: Linear, x: &Var, w: &Var, bias: Option<&Var>) -> Result<Var> {
        match bias {
            Some(bias) => self.apply(op, &[x, w, bias]),
            None => self.apply(op, &[x, w]),
        }
    }
}
