//! A sparse layer for images of one size, and its three passes.

use super::Pattern;
use super::gather::Gather;
use super::int8::Index;
use super::order::Order;
use super::tasks::Weights;
use super::walk::{Direction, Walk};
use super::weight_grad::WeightGrad;
use crate::Activation;
use crate::conv::{Conv2dParams, Geometry};
use qtensor::{DType, Error, Result, Shape, Tensor};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// What the passes of a layer read of its pattern, for one size of images and any batch. It is made once for a pattern: values are given to each pass.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) pattern: Pattern,
    /// Of one sample.
    pub(super) geometry: Geometry,
    pub(super) forward: Walk,
    pub(super) input_grad: Walk,
    pub(super) order: Order,
    /// What passes with bytes read besides, made when it is first wanted.
    pub(super) bytes: Arc<OnceLock<Index>>,
}

/// The operands of a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// f32 `[N, inputs]` or `[N, C, H, W]` of any strides; used in place where it has the order of the plan.
    pub x: &'a Tensor,
    /// f32, one for each weight of the pattern.
    pub values: &'a Tensor,
    /// f32, one for each output.
    pub bias: Option<&'a Tensor>,
    /// Applied to each result.
    pub activation: Activation,
}

impl Plan {
    /// Of a linear layer, for a pattern of shape `[outputs, inputs]`.
    ///
    /// # Errors
    /// A pattern of another rank.
    pub fn linear(pattern: &Pattern) -> Result<Self> {
        let &[outputs, inputs] = pattern.shape().dims() else {
            let message = format!("the weights of a linear layer have two axes, found {}", pattern.shape());
            return Err(Error::shape("sparse linear", message));
        };
        let params = Conv2dParams::default();
        Self::new(pattern, Geometry::new("sparse linear", &[1, inputs, 1, 1], &[outputs, inputs, 1, 1], &params)?)
    }

    /// Of a convolution, for a pattern of shape `[O, C/groups, KH, KW]` and images of that height and width.
    ///
    /// # Errors
    /// A pattern of another rank; sizes that do not fit each other, as in [`conv2d`](crate::conv2d); images whose channels and pixels are more than 32 bits count.
    pub fn conv2d(pattern: &Pattern, params: &Conv2dParams, [height, width]: [usize; 2]) -> Result<Self> {
        let op = "sparse conv2d";
        let &[_, depth, _, _] = pattern.shape().dims() else {
            let message = format!("the weights of a convolution have four axes, found {}", pattern.shape());
            return Err(Error::shape(op, message));
        };
        let channels = depth.saturating_mul(params.groups);
        Self::new(pattern, Geometry::new(op, &[1, channels, height, width], pattern.shape(), params)?)
    }

    fn new(pattern: &Pattern, geometry: Geometry) -> Result<Self> {
        // Pixels that see one pixel each may as well lie in one row.
        let is_pointwise = geometry.kernel == [1; 2] && geometry.stride == [1; 2] && geometry.padding == [0; 2];
        let pixels = geometry.input[0] * geometry.input[1];
        let flat = if is_pointwise { Geometry { input: [1, pixels], out: [1, pixels], ..geometry } } else { geometry };
        let forward = Walk::new(pattern, &flat, Direction::Forward)?;
        let input_grad = Walk::new(pattern, &flat, Direction::InputGrad)?;
        let (order, bytes) = (Order::default(), Arc::default());
        Ok(Plan { pattern: pattern.clone(), geometry, forward, input_grad, order, bytes })
    }

    /// The same layer with passes that work in that memory order, and give their results in it.
    #[must_use]
    pub fn in_order(self, order: Order) -> Self {
        Plan { order, ..self }
    }

    /// The memory order of the passes: with the batch innermost unless [`in_order`](Self::in_order) asks for another.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Which weights there are.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Output pixels next to each other, at most, that read the same places around them: what fills vectors in [`Order::RowMajor`], and that times the batch with the batch innermost.
    pub fn longest_run(&self) -> usize {
        self.forward.columns.runs.iter().map(|run| run.count).max().unwrap_or(0)
    }

    /// The shape of a batch of inputs.
    pub fn input_shape(&self, batch: usize) -> Vec<usize> {
        self.shape(batch, self.geometry.input_shape())
    }

    /// The shape of a batch of outputs.
    pub fn output_shape(&self, batch: usize) -> Vec<usize> {
        self.shape(batch, self.geometry.output_shape())
    }

    fn shape(&self, batch: usize, [_, channels, height, width]: [usize; 4]) -> Vec<usize> {
        let shape = [batch, channels, height, width];
        shape[..self.pattern.shape().rank()].to_vec()
    }

    /// For the weight gradient.
    pub(super) fn weights(&self) -> Weights<impl Fn(usize) -> Range<usize> + Sync> {
        Weights { count: self.pattern.len(), row: |output| self.pattern.row(output) }
    }

    /// A bias of each output, contiguous.
    ///
    /// # Errors
    /// Another type or shape.
    pub(super) fn check_bias(&self, op: &'static str, bias: &Tensor) -> Result<Tensor> {
        check(op, "biases", bias, |_| vec![self.geometry.filters])?;
        Ok(bias.contiguous())
    }

    /// `activation(W x + bias)`, in the memory order of the plan.
    ///
    /// # Errors
    /// Types other than f32, or shapes that do not fit the layer.
    pub fn forward(&self, call: &Forward) -> Result<Tensor> {
        let op = "sparse forward";
        let batch = check(op, "inputs", call.x, |batch| self.input_shape(batch))?;
        let bias = call.bias.map(|bias| self.check_bias(op, bias)).transpose()?;
        let values = self.pattern.check_values(op, call.values)?;
        let x = self.order.of(call.x)?;
        let mut y = self.order.empty(&self.output_shape(batch), DType::F32)?;
        let gather = Gather {
            walk: &self.forward,
            batch: self.order.batch(batch),
            source: x.memory()?,
            values: values.as_slice()?,
            bias: bias.as_ref().map(Tensor::as_slice).transpose()?,
            activation: call.activation,
        };
        gather.run(y.memory_mut()?);
        self.order.viewed(&y)
    }

    /// The gradient of a loss with respect to the inputs from the gradient `dy` with respect to the outputs, `Wᵀ dy`, in the memory order of the plan.
    ///
    /// # Errors
    /// Types other than f32, or shapes that do not fit the layer.
    pub fn input_grad(&self, dy: &Tensor, values: &Tensor) -> Result<Tensor> {
        let op = "sparse input_grad";
        let batch = check(op, "gradients of outputs", dy, |batch| self.output_shape(batch))?;
        let values = self.pattern.check_values(op, values)?;
        let dy = self.order.of(dy)?;
        let mut dx = self.order.empty(&self.input_shape(batch), DType::F32)?;
        let gather = Gather {
            walk: &self.input_grad,
            batch: self.order.batch(batch),
            source: dy.memory()?,
            values: values.as_slice()?,
            bias: None,
            activation: Activation::None,
        };
        gather.run(dx.memory_mut()?);
        self.order.viewed(&dx)
    }

    /// The gradient of a loss with respect to the values from the inputs and the gradient `dy` with respect to the outputs: one number a weight.
    ///
    /// # Errors
    /// Types other than f32, or shapes that do not fit the layer or each other.
    pub fn weight_grad(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let op = "sparse weight_grad";
        let batch = check(op, "inputs", x, |batch| self.input_shape(batch))?;
        check(op, "gradients of outputs", dy, |_| self.output_shape(batch))?;
        let (x, dy) = (self.order.of(x)?, self.order.of(dy)?);
        let batch = self.order.batch(batch);
        let grad = WeightGrad { walk: &self.forward, batch, source: x.memory()?, target: dy.memory()? };
        let sums = grad.run(&self.weights())?;
        Tensor::from_vec([sums.len()], sums)
    }
}

/// Refuses another type than f32 and another shape than that for its first length, which is returned.
pub(super) fn check(op: &'static str, what: &str, x: &Tensor, shape: impl Fn(usize) -> Vec<usize>) -> Result<usize> {
    if x.dtype() != DType::F32 {
        return Err(Error::DType { op, expected: DType::F32, found: x.dtype() });
    }
    check_shape(op, what, x.shape(), shape)
}

/// Refuses another shape than that for its first length, which is returned.
pub(super) fn check_shape(
    op: &'static str,
    what: &str,
    found: &Shape,
    shape: impl Fn(usize) -> Vec<usize>,
) -> Result<usize> {
    let first = found.first().copied().unwrap_or(0);
    let expected = shape(first);
    if found != &expected[..] {
        return Err(Error::shape(op, format!("the {what} must have shape {expected:?}, found {found}")));
    }
    Ok(first)
}
