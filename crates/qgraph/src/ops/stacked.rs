//! Several convolutions of one input.

use super::linear::bias_gradient;
use super::unary::of_epilogue;
use crate::{Context, Error, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp};
use qkernels::conv::{Projection, conv2d_stacked_input_grad, conv2d_stacked_joined, conv2d_stacked_weight_grad};
use qkernels::elementwise::unary_grad_assign;
use qkernels::{Activation, Conv2dParams};
use qtensor::Tensor;

/// Several convolutions of `x` `[N, C, H, W]` that share their work: `activation(x * w_i + b_i)`. The inputs are `x`, then all `w_i`
/// `[O, C / groups, kh, kw]`, then, where there are biases, all `b_i` `[O]`. The output `[convolutions · N, O, OH, OW]` holds all images of the first
/// convolution, then those of the second, and so on: a [slice](Tape::slice) of the first axis is a view without gaps. Keeps `x` where some `w_i` needs a
/// gradient, all `w_i` where `x` does, and the output where there is an activation.
#[derive(Clone, Copy, Debug, Default)]
pub struct StackedConv2d {
    /// Stride, padding, dilation and groups.
    pub params: Conv2dParams,
    /// Applied before the result is stored; its derivative is taken from the output.
    pub activation: Activation,
    /// How many convolutions there are.
    pub count: usize,
    /// Whether each has a bias.
    pub bias: bool,
}

impl StackedConv2d {
    /// The images of each convolution.
    fn parts(&self, y: &Tensor) -> Result<Vec<Tensor>> {
        let images = y.shape()[0] / self.count;
        (0..self.count).map(|i| Ok(y.slice(0, i * images..(i + 1) * images)?)).collect()
    }
}

impl Vjp for StackedConv2d {
    fn name(&self) -> &'static str {
        "stacked_conv2d"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        let [x, filters @ ..] = record.inputs else { return };
        saved.keep_if(self.activation != Activation::None, record.output);
        saved.keep_if(record.needs[1..=self.count].contains(&true), x);
        filters[..self.count].iter().for_each(|w| saved.keep_if(record.needs[0], w));
        saved.keep_shape(x);
        saved.keep_shape(&filters[0]);
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if let Some(function) = of_epilogue("stacked_conv2d", self.activation)? {
            unary_grad_assign(function, &saved.take()?, &mut dy)?;
        }
        let wanted: Vec<usize> = (0..self.count).filter(|i| needs[1 + i]).collect();
        let x = saved.take_if(!wanted.is_empty())?;
        let filters: Vec<Tensor> =
            if needs[0] { (0..self.count).map(|_| saved.take()).collect::<Result<_>>()? } else { Vec::new() };
        let (x_shape, w_shape) = (saved.take_shape()?, saved.take_shape()?);
        let parts = self.parts(&dy)?;
        let mut gradients = vec![None; needs.len()];
        if needs[0] {
            let outputs: Vec<(&Tensor, &Tensor)> = parts.iter().zip(&filters).collect();
            gradients[0] = Some(conv2d_stacked_input_grad(&outputs, &x_shape, &self.params)?);
        }
        if let Some(x) = x {
            let parts: Vec<&Tensor> = wanted.iter().map(|i| &parts[*i]).collect();
            let found = conv2d_stacked_weight_grad(&x, &parts, &w_shape, &self.params)?;
            wanted.iter().zip(found).for_each(|(i, dw)| gradients[1 + i] = Some(dw));
        }
        for (i, part) in parts.iter().enumerate() {
            let place = 1 + self.count + i;
            if needs.get(place) == Some(&true) {
                gradients[place] = Some(bias_gradient(part, &[0, 2, 3])?);
            }
        }
        Ok(gradients)
    }
}

impl Op for StackedConv2d {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        of_epilogue("stacked_conv2d", self.activation)?;
        let expected = 1 + self.count * if self.bias { 2 } else { 1 };
        if x.len() != expected || self.count == 0 {
            let message = format!("{} convolutions take {expected} inputs, found {}", self.count, x.len());
            return Err(Error::argument("stacked_conv2d", message));
        }
        let bias = |i: usize| self.bias.then(|| &x[1 + self.count + i]);
        let projections: Vec<Projection<'_>> =
            (0..self.count).map(|i| Projection { w: &x[1 + i], bias: bias(i) }).collect();
        Ok(conv2d_stacked_joined(&x[0], &projections, &self.params, self.activation)?)
    }

    fn multiply_adds(&self, inputs: &[Tensor], output: &Tensor) -> u64 {
        inputs.get(1).map_or(0, |w| (output.numel() * w.numel() / w.shape()[0].max(1)) as u64)
    }
}

impl Tape {
    /// The convolutions of `x` with each of `filters`, plus `biases`, none or one for each: see [`StackedConv2d`] for the output.
    ///
    /// # Errors
    /// No filters, or filters of different shapes; some biases missing; else as [`conv2d`](Self::conv2d).
    pub fn stacked_conv2d(&mut self, x: &Var, filters: &[&Var], biases: &[&Var], params: Conv2dParams) -> Result<Var> {
        let op = StackedConv2d { params, activation: Activation::None, count: filters.len(), bias: !biases.is_empty() };
        let inputs: Vec<&Var> =
            std::iter::once(x).chain(filters.iter().copied()).chain(biases.iter().copied()).collect();
        self.apply(op, &inputs)
    }
}
