//! Convolution of images.

use super::linear::bias_gradient;
use super::unary::of_epilogue;
use crate::{Context, Error, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp};
use qkernels::conv::conv2d_measured;
use qkernels::elementwise::unary_grad_assign;
use qkernels::{Activation, Conv2dParams, conv2d, conv2d_add, conv2d_input_grad, conv2d_weight_grad};
use qtensor::Tensor;

/// A convolution, `activation(x * w + b)`: `x` `[N, C, H, W]`, `w` `[O, C / groups, kh, kw]`, and, as an optional third input,
/// `b` `[O]`. Keeps `x` where `w` needs a gradient and the op before cannot compute it again, `w` where `x` does, and the output where there is an activation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conv2d {
    /// Stride, padding, dilation and groups.
    pub params: Conv2dParams,
    /// Applied before the result is stored; its derivative is taken from the output.
    pub activation: Activation,
    /// Whether means and variances of the result are taken while it is written, for a batch normalisation that follows.
    pub measures: bool,
}

impl Vjp for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_if(self.activation != Activation::None, record.output);
        if record.needs[1] {
            saved.keep_input(record, 0);
        }
        saved.keep_if(record.needs[0], &record.inputs[1]);
        saved.keep_shape(&record.inputs[0]);
        saved.keep_shape(&record.inputs[1]);
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if let Some(function) = of_epilogue("conv2d", self.activation)? {
            unary_grad_assign(function, &saved.take()?, &mut dy)?;
        }
        let (x, w) = (saved.take_if(needs[1])?, saved.take_if(needs[0])?);
        let (x_shape, w_shape) = (saved.take_shape()?, saved.take_shape()?);
        // The weights first: `x` may go then, and where it was just computed again it is still in the cache.
        let dw = x.map(|x| conv2d_weight_grad(&x, &dy, &w_shape, &self.params)).transpose()?;
        let dx = w.map(|w| conv2d_input_grad(&dy, &w, &x_shape, &self.params)).transpose()?;
        let mut gradients = vec![dx, dw];
        if let Some(wanted) = needs.get(2) {
            gradients.push(if *wanted { Some(bias_gradient(&dy, &[0, 2, 3])?) } else { None });
        }
        Ok(gradients)
    }
}

impl Op for Conv2d {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], context: &mut Context) -> Result<Tensor> {
        of_epilogue("conv2d", self.activation)?;
        let (x, w, bias) = match x {
            [x, w] => (x, w, None),
            [x, w, bias] => (x, w, Some(bias)),
            _ => return Err(Error::argument("conv2d", format!("expected x, w and perhaps a bias, found {}", x.len()))),
        };
        if !self.measures {
            return Ok(conv2d(x, w, bias, &self.params, self.activation)?);
        }
        let (y, moments) = conv2d_measured(x, w, bias, &self.params, self.activation)?;
        context.measured(moments);
        Ok(y)
    }

    fn multiply_adds(&self, inputs: &[Tensor], output: &Tensor) -> u64 {
        inputs.get(1).map_or(0, |w| (output.numel() * w.numel() / w.shape()[0].max(1)) as u64)
    }
}

/// A convolution that takes in a residual, `activation(x * w + b + r)`: inputs as [`Conv2d`], and `r` of the output's shape as the last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conv2dAdd(pub Conv2d);

impl Vjp for Conv2dAdd {
    fn name(&self) -> &'static str {
        "conv2d_add"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        self.0.save(record, saved);
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if let Some(function) = of_epilogue("conv2d_add", self.0.activation)? {
            unary_grad_assign(function, &saved.take()?, &mut dy)?;
        }
        let Some((needs_residual, needs)) = needs.split_last() else { return Ok(Vec::new()) };
        let residual = needs_residual.then(|| dy.clone());
        let plain = Conv2d { activation: Activation::None, ..self.0 };
        let mut gradients = plain.vjp(saved, dy, needs)?;
        gradients.push(residual);
        Ok(gradients)
    }
}

impl Op for Conv2dAdd {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let Conv2d { params, activation, .. } = &self.0;
        of_epilogue("conv2d_add", *activation)?;
        let (x, w, bias, residual) = match x {
            [x, w, residual] => (x, w, None, residual),
            [x, w, bias, residual] => (x, w, Some(bias), residual),
            _ => {
                let message = format!("expected x, w, perhaps a bias, and a residual, found {}", x.len());
                return Err(Error::argument("conv2d_add", message));
            }
        };
        Ok(conv2d_add(x, w, bias, residual, params, *activation)?)
    }

    fn multiply_adds(&self, inputs: &[Tensor], output: &Tensor) -> u64 {
        self.0.multiply_adds(inputs, output)
    }
}

impl Tape {
    /// [`conv2d_with`](Self::conv2d_with) that takes in a residual of the output's shape before the activation: see [`Conv2dAdd`].
    ///
    /// # Errors
    /// As [`conv2d_with`](Self::conv2d_with); or a residual of another shape or type.
    pub fn conv2d_add(&mut self, op: Conv2d, x: &Var, w: &Var, bias: Option<&Var>, residual: &Var) -> Result<Var> {
        match bias {
            Some(bias) => self.apply(Conv2dAdd(op), &[x, w, bias, residual]),
            None => self.apply(Conv2dAdd(op), &[x, w, residual]),
        }
    }

    /// The convolution of `x` `[N, C, H, W]` with `w` `[O, C / groups, kh, kw]`, plus `bias` `[O]`: see [`Conv2d`].
    ///
    /// # Errors
    /// Shapes that do not fit each other and `params`, types that do not fit or are none of f32, bf16 (with f32 filters and bias) and f64.
    pub fn conv2d(&mut self, x: &Var, w: &Var, bias: Option<&Var>, params: Conv2dParams) -> Result<Var> {
        self.conv2d_with(Conv2d { params, ..Conv2d::default() }, x, w, bias)
    }

    /// [`conv2d`](Self::conv2d) with an activation in the same pass.
    ///
    /// # Errors
    /// As [`conv2d`](Self::conv2d); or a leaky ReLU of negative slope.
    pub fn conv2d_with(&mut self, op: Conv2d, x: &Var, w: &Var, bias: Option<&Var>) -> Result<Var> {
        match bias {
            Some(bias) => self.apply(op, &[x, w, bias]),
            None => self.apply(op, &[x, w]),
        }
    }
}
