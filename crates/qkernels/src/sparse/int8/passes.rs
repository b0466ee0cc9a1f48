//! The three passes of a plan in bytes.

use super::super::plan::{Plan, check_shape};
use super::codes::ByteCodes;
use super::gather::ByteGather;
use super::weight_grad::ByteWeightGrad;
use super::weights::ByteWeights;
use crate::Activation;
use qtensor::{DType, Error, Result, Tensor};

/// The operands of a forward pass in bytes.
#[derive(Clone, Copy, Debug)]
pub struct ByteForward<'a> {
    /// `[N, inputs]` or `[N, C, H, W]`.
    pub x: &'a ByteCodes,
    /// Of the same plan.
    pub weights: &'a ByteWeights,
    /// f32, one for each output.
    pub bias: Option<&'a Tensor>,
    /// Applied to each result.
    pub activation: Activation,
    /// The type of the result: f32, or bf16, to which the f32 is rounded.
    pub dtype: DType,
}

impl Plan {
    /// Memory for a result in that type.
    fn byte_result(&self, op: &'static str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        match dtype {
            DType::F32 | DType::BF16 => self.order.empty(shape, dtype),
            _ => Err(Error::DType { op, expected: DType::F32, found: dtype }),
        }
    }

    /// `activation(W x + bias)` in f32 or bf16, in the memory order of the plan, of the numbers that the codes stand for: `sum · (scale of the output · scale of the inputs) + bias`, where the sum is an exact
    /// integer and each operation is rounded by itself.
    ///
    /// # Errors
    /// Codes of another shape or memory order, weights of another plan, biases of another type or shape, a result of another type, or scales whose product is beyond f32.
    pub fn forward_int8(&self, call: &ByteForward) -> Result<Tensor> {
        let op = "sparse forward_int8";
        let batch = check_shape(op, "inputs", call.x.shape(), |batch| self.input_shape(batch))?;
        let bias = call.bias.map(|bias| self.check_bias(op, bias)).transpose()?;
        let packed = call.weights.of_forward(op, self)?;
        let mut y = self.byte_result(op, &self.output_shape(batch), call.dtype)?;
        let gather = ByteGather {
            walk: &self.forward,
            quads: &self.index()?.forward.lists,
            batch: self.order.batch(batch),
            source: call.x.in_order(op, self.order)?,
            zero_point: call.x.zero_point(),
            weights: &packed.lists,
            factors: &packed.factors(op, call.x.scale(), self.geometry.filters)?,
            bias: bias.as_ref().map(Tensor::as_slice).transpose()?,
            activation: call.activation,
        };
        gather.run(&mut y)?;
        self.order.viewed(&y)
    }

    /// The gradient of a loss with respect to the inputs, `Wᵀ dy`, in f32 or bf16 (`dtype`), in the memory order of the plan, from codes of the gradient with respect to the outputs.
    ///
    /// # Errors
    /// Codes of another shape or memory order; weights of another plan or without codes for it; a result of another type; scales whose product is beyond f32.
    pub fn input_grad_int8(&self, dy: &ByteCodes, weights: &ByteWeights, dtype: DType) -> Result<Tensor> {
        let op = "sparse input_grad_int8";
        let batch = check_shape(op, "gradients of outputs", dy.shape(), |batch| self.output_shape(batch))?;
        let packed = weights.of_input_grad(op, self)?;
        let mut dx = self.byte_result(op, &self.input_shape(batch), dtype)?;
        let gather = ByteGather {
            walk: &self.input_grad,
            quads: &self.index()?.input_grad.lists,
            batch: self.order.batch(batch),
            source: dy.in_order(op, self.order)?,
            zero_point: dy.zero_point(),
            weights: &packed.lists,
            factors: &packed.factors(op, dy.scale(), self.geometry.channels)?,
            bias: None,
            activation: Activation::None,
        };
        gather.run(&mut dx)?;
        self.order.viewed(&dx)
    }

    /// The gradient of a loss with respect to the values, one f32 a weight, from codes of the inputs and of the gradient with respect to the outputs: an exact integer sum times both scales,
    /// rounded to f32 at the end.
    ///
    /// # Errors
    /// Codes of other shapes or memory orders.
    pub fn weight_grad_int8(&self, x: &ByteCodes, dy: &ByteCodes) -> Result<Tensor> {
        let op = "sparse weight_grad_int8";
        let batch = check_shape(op, "inputs", x.shape(), |batch| self.input_shape(batch))?;
        check_shape(op, "gradients of outputs", dy.shape(), |_| self.output_shape(batch))?;
        let grad = ByteWeightGrad {
            walk: &self.forward,
            batch: self.order.batch(batch),
            source: x.in_order(op, self.order)?,
            target: dy.in_order(op, self.order)?,
            zero_points: [x.zero_point(), dy.zero_point()],
        };
        let sums = grad.run(&self.weights())?;
        let factor = f64::from(x.scale()) * f64::from(dy.scale());
        let values = sums.into_iter().map(|sum| (sum as f64 * factor) as f32).collect();
        Tensor::from_vec([self.pattern.len()], values)
    }
}
