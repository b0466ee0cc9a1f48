//! Linear maps of which most weights are zero and stay so.

use super::linear::bias_gradient;
use super::sparse_int8::{SparseInt8, backward_int8, forward_int8};
use super::unary::of_epilogue;
use crate::half::fitting;
use crate::{Context, Error, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp};
use qkernels::Activation;
use qkernels::elementwise::unary_grad_assign;
use qkernels::par;
use qkernels::sparse::{Forward, Plan};
use qtensor::random::StreamKey;
use qtensor::{DType, Tensor};
use std::sync::Arc;

/// A linear map or a convolution with the weights of a pattern only, `activation(W x + b)`: `x` `[N, in]` or `[N, C, H, W]`, f32 or bf16, dense f32 weights `[out, in]` or
/// `[O, C / groups, kh, kw]`, of which those outside the pattern are not looked at and have the gradient 0, and, as an optional third input, `b` `[out]`. Results and gradients of
/// inputs have the memory order of the plan ([`qkernels::sparse`]): with the batch innermost, layers that follow one another permute nothing.
///
/// Keeps `x` where the weights need a gradient and the op before cannot compute it again, as bytes where products are made of them; the weights; and the output where there is
/// an activation.
#[derive(Clone, Debug)]
pub struct SparseMap {
    /// Which weights there are, for images of the size of `x`.
    pub plan: Arc<Plan>,
    /// What products are made of.
    pub arithmetic: SparseArithmetic,
    /// Applied before the result is stored; its derivative is taken from the output.
    pub activation: Activation,
    /// Names the noise of stochastic rounding; to nearest without it.
    pub noise: Option<StreamKey>,
}

/// What the products of a [`SparseMap`] are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum SparseArithmetic {
    /// f32.
    F32,
    /// Bytes, with sums of 32 bits.
    Int8(SparseInt8),
}

/// The operands of a forward pass.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub(super) x: &'a Tensor,
    /// Of the pattern.
    pub(super) values: &'a Tensor,
    pub(super) bias: Option<&'a Tensor>,
}

/// The gradients of `x` and of the dense weights, where they are needed.
pub(super) type Gradients = [Option<Tensor>; 2];

/// The most inputs and outputs together whose gradients are made at once.
const SMALL: usize = 1 << 20;

/// Both gradients. Those of small layers are made at once, each on a thread of its own at first, so that little of what one thread has written has to come to another; of large ones that would
/// save little time and keep what both need in memory together.
pub(super) fn both(
    (plan, dy): (&Plan, &Tensor),
    of_weights: Option<impl FnOnce() -> Result<Tensor> + Send>,
    of_inputs: Option<impl FnOnce() -> Result<Tensor> + Send>,
) -> Result<Gradients> {
    let of_weights = || of_weights.map(|make| make()).transpose();
    let of_inputs = || of_inputs.map(|make| make()).transpose();
    let batch = dy.shape().first().copied().unwrap_or(0);
    let numbers = dy.numel() + plan.input_shape(batch).iter().product::<usize>();
    let (dw, dx) = if numbers <= SMALL { par::join(of_weights, of_inputs) } else { (of_weights(), of_inputs()) };
    Ok([dx?, dw?])
}

impl Vjp for SparseMap {
    fn name(&self) -> &'static str {
        "sparse_map"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_if(self.activation != Activation::None, record.output);
        saved.keep(&record.inputs[1]);
        let is_restorable = record.restorable.first().is_some_and(Option::is_some);
        match (&self.arithmetic, record.taps) {
            (SparseArithmetic::Int8(int8), [codes, range]) if record.needs[1] => {
                saved.keep(range);
                if is_restorable || int8.masks_inputs() { saved.keep_input(record, 0) } else { saved.keep(codes) }
            }
            _ if record.needs[1] => saved.keep_input(record, 0),
            _ => {}
        }
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let dtype = dy.dtype();
        if let Some(function) = of_epilogue(self.name(), self.activation)? {
            unary_grad_assign(function, &saved.take()?, &mut dy)?;
        }
        let weights = saved.take()?;
        let [dx, dw] = match &self.arithmetic {
            SparseArithmetic::F32 => {
                // In the order that both gradients are made of.
                let dy = self.plan.order().of(&fitting(dy.clone(), DType::F32)?)?;
                self.backward_f32(&mut saved, [&weights, &dy], needs)?
            }
            SparseArithmetic::Int8(int8) => backward_int8(self, *int8, &mut saved, [&weights, &dy], needs)?,
        };
        let dx = dx.map(|dx| fitting(dx, dtype)).transpose()?;
        let mut gradients = vec![dx, dw];
        if let Some(wanted) = needs.get(2) {
            gradients.push(if *wanted { Some(sums_by_channel(&dy)?) } else { None });
        }
        Ok(gradients)
    }
}

impl SparseMap {
    fn backward_f32(&self, saved: &mut Saved, [weights, dy]: [&Tensor; 2], needs: &[bool]) -> Result<Gradients> {
        let (plan, pattern) = (&self.plan, self.plan.pattern());
        let x = saved.take_if(needs[1])?.map(|x| fitting(x, DType::F32)).transpose()?;
        let of_weights = |x: Tensor| move || Ok(pattern.to_dense(&plan.weight_grad(&x, dy)?)?);
        let of_inputs = || Ok(plan.input_grad(dy, &pattern.gather(weights)?)?);
        both((plan, dy), x.map(of_weights), needs[0].then_some(of_inputs))
    }
}

/// The gradient of a bias.
fn sums_by_channel(dy: &Tensor) -> Result<Tensor> {
    let axes: Vec<usize> = (0..dy.rank()).filter(|axis| *axis != 1).collect();
    bias_gradient(dy, &axes)
}

impl Op for SparseMap {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], context: &mut Context) -> Result<Tensor> {
        of_epilogue(self.name(), self.activation)?;
        let (x, w, bias) = match x {
            [x, w] => (x, w, None),
            [x, w, bias] => (x, w, Some(bias)),
            _ => {
                let message = format!("expected x, w and perhaps a bias, found {}", x.len());
                return Err(Error::argument(self.name(), message));
            }
        };
        let dtype = x.dtype();
        let values = self.plan.pattern().gather(w)?;
        let (y, taps) = match &self.arithmetic {
            SparseArithmetic::F32 => {
                let x = fitting(x.clone(), DType::F32)?;
                let call = Forward { x: &x, values: &values, bias, activation: self.activation };
                (self.plan.forward(&call)?, None)
            }
            SparseArithmetic::Int8(int8) => {
                let (y, taps) = forward_int8(self, *int8, Operands { x, values: &values, bias })?;
                (y, Some(taps))
            }
        };
        taps.into_iter().flatten().for_each(|tap| context.tap(tap));
        fitting(y, dtype)
    }

    fn multiply_adds(&self, _: &[Tensor], output: &Tensor) -> u64 {
        let pattern = self.plan.pattern();
        (output.numel() / pattern.rows().max(1) * pattern.len()) as u64
    }
}

impl Tape {
    /// The map of `x` by the weights of a pattern: see [`SparseMap`].
    ///
    /// # Errors
    /// Shapes that do not fit the plan, types other than f32 and bf16, a leaky ReLU of negative slope; for bytes a value that is infinite or not a number.
    pub fn sparse_map(&mut self, op: SparseMap, x: &Var, w: &Var, bias: Option<&Var>) -> Result<Var> {
        match bias {
            Some(bias) => self.apply(op, &[x, w, bias]),
            None => self.apply(op, &[x, w]),
        }
    }
}
