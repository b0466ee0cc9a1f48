//! Arithmetic with a number that needs no gradient.

use crate::{Context, Op, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::elementwise::{add_scalar, scale, scale_assign};
use qtensor::Tensor;

/// `factor · x`. Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The factor.
    pub factor: f64,
}

impl Vjp for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn vjp(&self, _: Saved, mut dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        scale_assign(&mut dy, self.factor)?;
        Ok(vec![Some(dy)])
    }
}

impl Op for Scale {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(scale(x, self.factor)?)
    }
}

/// `x + value`. Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct AddScalar {
    /// What is added.
    pub value: f64,
}

impl Vjp for AddScalar {
    fn name(&self) -> &'static str {
        "add_scalar"
    }

    fn vjp(&self, _: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(dy)])
    }
}

impl Op for AddScalar {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(add_scalar(x, self.value)?)
    }
}

impl Tape {
    /// `factor · x`; keeps nothing.
    ///
    /// # Errors
    /// `x` is neither f32 nor f64.
    pub fn scale(&mut self, x: &Var, factor: f64) -> Result<Var> {
        self.apply(Scale { factor }, &[x])
    }

    /// `x + value`; keeps nothing.
    ///
    /// # Errors
    /// `x` is neither f32 nor f64.
    pub fn add_scalar(&mut self, x: &Var, value: f64) -> Result<Var> {
        self.apply(AddScalar { value }, &[x])
    }
}
