//! Functions of two elements, with NumPy's broadcasting.

use crate::{Context, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::elementwise::{BinaryOp, UnaryOp, add_relu, binary, binary_grad, unary_assign, unary_grad_assign};
use qtensor::Tensor;

/// A function of two elements, broadcast together. A sum or a difference keeps nothing, a product each operand whose partner
/// needs a gradient, a quotient the divisor and, where that needs a gradient, the result.
#[derive(Clone, Copy, Debug)]
pub struct Binary(
    /// Which function.
    pub BinaryOp,
);

impl Vjp for Binary {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        let (a, b, needs) = (&record.inputs[0], &record.inputs[1], record.needs);
        match self.0 {
            BinaryOp::Add | BinaryOp::Sub => {}
            BinaryOp::Mul => {
                saved.keep_if(needs[1], a);
                saved.keep_if(needs[0], b);
            }
            BinaryOp::Div => {
                saved.keep(b);
                saved.keep_if(needs[1], record.output);
            }
            BinaryOp::Max | BinaryOp::Min => {
                saved.keep(a);
                saved.keep(b);
            }
        }
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let needs = [needs[0], needs[1]];
        Ok(match self.0 {
            BinaryOp::Add => vec![needs[0].then(|| dy.clone()), needs[1].then_some(dy)],
            BinaryOp::Sub => vec![needs[0].then(|| dy.clone()), negative(dy, needs[1])?],
            BinaryOp::Mul => {
                let (a, b) = (saved.take_if(needs[1])?, saved.take_if(needs[0])?);
                let partial = |other: Option<Tensor>| other.map(|x| binary(BinaryOp::Mul, &dy, &x)).transpose();
                vec![partial(b)?, partial(a)?]
            }
            BinaryOp::Div => {
                let (b, quotient) = (saved.take()?, saved.take_if(needs[1])?);
                let da = binary(BinaryOp::Div, &dy, &b)?;
                // d(a/b)/db = -(a/b)/b
                let db = quotient.map(|q| binary(BinaryOp::Mul, &da, &q)).transpose()?;
                vec![needs[0].then_some(da), db.map(|db| negative(db, true)).transpose()?.flatten()]
            }
            BinaryOp::Max | BinaryOp::Min => {
                let (a, b) = (saved.take()?, saved.take()?);
                binary_grad(self.0, &a, &b, &dy, needs)?.into()
            }
        })
    }
}

fn negative(mut x: Tensor, wanted: bool) -> Result<Option<Tensor>> {
    if !wanted {
        return Ok(None);
    }
    unary_assign(UnaryOp::Neg, &mut x)?;
    Ok(Some(x))
}

impl Op for Binary {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [a, b] = inputs(self.name(), x)?;
        Ok(binary(self.0, a, b)?)
    }
}

/// `max(a + b, 0)` in one pass, the end of a residual block. Keeps the output.
#[derive(Clone, Copy, Debug)]
pub struct AddRelu;

impl Vjp for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep(record.output);
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        unary_grad_assign(UnaryOp::Relu, &saved.take()?, &mut dy)?;
        Ok(vec![needs[0].then(|| dy.clone()), needs[1].then_some(dy)])
    }
}

impl Op for AddRelu {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [a, b] = inputs(self.name(), x)?;
        Ok(add_relu(a, b)?)
    }
}

macro_rules! method {
    ($($(#[$doc:meta])* $name:ident => $op:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// Shapes that do not broadcast together, types that differ or are neither f32 nor f64.
        pub fn $name(&mut self, a: &Var, b: &Var) -> Result<Var> {
            self.apply($op, &[a, b])
        }
    )*};
}

impl Tape {
    method! {
        /// `a + b` with broadcasting; keeps nothing.
        add => Binary(BinaryOp::Add);
        /// `a - b` with broadcasting; keeps nothing.
        sub => Binary(BinaryOp::Sub);
        /// `a · b`, element by element with broadcasting; keeps each operand whose partner needs a gradient.
        mul => Binary(BinaryOp::Mul);
        /// `a / b`, element by element with broadcasting; keeps `b`, and the result where `b` needs a gradient.
        div => Binary(BinaryOp::Div);
        /// The larger element, with broadcasting; keeps both operands.
        maximum => Binary(BinaryOp::Max);
        /// The smaller element, with broadcasting; keeps both operands.
        minimum => Binary(BinaryOp::Min);
        /// `max(a + b, 0)` in one pass with broadcasting; keeps the output.
        add_relu => AddRelu;
    }
}
