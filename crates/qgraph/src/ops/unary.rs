//! Functions of each element.

use crate::{Context, Error, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::Activation;
use qkernels::elementwise::{Saves, UnaryOp, unary, unary_grad_assign};
use qtensor::Tensor;

/// A function of each element. Keeps the input or the output, whichever the derivative is written in: the output where both would
/// do, since the next op often keeps it anyway.
#[derive(Clone, Copy, Debug)]
pub struct Unary(
    /// Which function.
    pub UnaryOp,
);

impl Vjp for Unary {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        match self.0.saves() {
            Saves::Nothing => {}
            Saves::Input => saved.keep(&record.inputs[0]),
            Saves::Output => saved.keep(record.output),
        }
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let kept = if self.0.saves() == Saves::Nothing { dy.clone() } else { saved.take()? };
        unary_grad_assign(self.0, &kept, &mut dy)?;
        Ok(vec![Some(dy)])
    }
}

impl Op for Unary {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(unary(self.0, x)?)
    }
}

/// The function that a kernel's epilogue applies, whose derivative is written in its output.
///
/// # Errors
/// A leaky ReLU whose slope is negative: its output does not tell the sign of its input.
pub(super) fn of_epilogue(op: &'static str, activation: Activation) -> Result<Option<UnaryOp>> {
    let Some(function) = activation.function() else { return Ok(None) };
    if function.saves() != Saves::Output {
        return Err(Error::argument(op, format!("{activation:?} has no derivative in its output; apply it as an op")));
    }
    Ok(Some(function))
}

macro_rules! method {
    ($($(#[$doc:meta])* $name:ident => $op:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// `x` is neither f32 nor f64.
        pub fn $name(&mut self, x: &Var) -> Result<Var> {
            self.apply(Unary($op), &[x])
        }
    )*};
}

impl Tape {
    method! {
        /// `-x`; keeps nothing.
        neg => UnaryOp::Neg;
        /// `|x|`, with derivative 0 at 0; keeps the input.
        abs => UnaryOp::Abs;
        /// `x²`; keeps the input.
        square => UnaryOp::Square;
        /// `√x`; keeps the output.
        sqrt => UnaryOp::Sqrt;
        /// `1 / x`; keeps the output.
        recip => UnaryOp::Recip;
        /// `eˣ`; keeps the output.
        exp => UnaryOp::Exp;
        /// The natural logarithm; keeps the input.
        log => UnaryOp::Log;
        /// The hyperbolic tangent; keeps the output.
        tanh => UnaryOp::Tanh;
        /// `1 / (1 + e⁻ˣ)`; keeps the output.
        sigmoid => UnaryOp::Sigmoid;
        /// `max(x, 0)`, with derivative 0 at 0; keeps the output.
        relu => UnaryOp::Relu;
        /// `min(max(x, 0), 6)`, with derivative 0 at 0 and 6; keeps the output.
        relu6 => UnaryOp::Relu6;
    }

    /// `x` where positive, `slope · x` elsewhere; keeps the output, or the input where the slope is negative.
    ///
    /// # Errors
    /// `x` is neither f32 nor f64.
    pub fn leaky_relu(&mut self, x: &Var, slope: f64) -> Result<Var> {
        self.apply(Unary(UnaryOp::LeakyRelu(slope)), &[x])
    }
}
