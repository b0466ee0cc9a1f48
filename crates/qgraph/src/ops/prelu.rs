//! The parametric ReLU.

use crate::{Context, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::elementwise::{prelu, prelu_grad};
use qtensor::Tensor;

/// `x` where positive, `slope · x` elsewhere, with learnt slopes (He et al., 2015, arXiv:1502.01852): `slope` is `[1]`, or `[C]`
/// for axis 1 of `x`. Keeps both inputs.
#[derive(Clone, Copy, Debug)]
pub struct Prelu;

impl Vjp for Prelu {
    fn name(&self) -> &'static str {
        "prelu"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep(&record.inputs[0]);
        saved.keep(&record.inputs[1]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (x, slope) = (saved.take()?, saved.take()?);
        let (dx, dslope) = prelu_grad(&x, &slope, &dy)?;
        Ok(vec![needs[0].then_some(dx), needs[1].then_some(dslope)])
    }
}

impl Op for Prelu {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x, slope] = inputs(self.name(), x)?;
        Ok(prelu(x, slope)?)
    }
}

impl Tape {
    /// `x` where positive, `slope · x` elsewhere; `slope` is `[1]`, or `[C]` for axis 1 of `x`. Keeps both.
    ///
    /// # Errors
    /// The number of slopes does not fit, types that differ or are neither f32 nor f64.
    pub fn prelu(&mut self, x: &Var, slope: &Var) -> Result<Var> {
        self.apply(Prelu, &[x, slope])
    }
}
