//! What a network is trained with.

use crate::{Context, Error, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::elementwise::scale;
use qkernels::reduce::dot;
use qkernels::softmax::{log_softmax, log_softmax_grad, softmax_cross_entropy, softmax_cross_entropy_grad};
use qtensor::{DType, Tensor};

/// `log(exp(x) / Σ exp(x))` along the last axis. Keeps the output.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax;

impl Vjp for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep(record.output);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(log_softmax_grad(&saved.take()?, &dy)?)])
    }
}

impl Op for LogSoftmax {
    fn on_half(&self) -> OnHalf {
        OnHalf::Widen
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        Ok(log_softmax(x)?)
    }
}

/// The mean over the rows of the cross-entropy between `softmax(logits)` `[N, K]` and the targets: class indices (i64, `[N]`) or
/// probabilities `[N, K]`, which are constants. Keeps the gradient with respect to the logits, which the forward gives for free.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftmaxCrossEntropy {
    /// `ε` in `0..=1`: targets become `(1 - ε) q + ε / K` (Szegedy et al., 2016, arXiv:1512.00567).
    pub label_smoothing: f64,
}

impl Vjp for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        record.taps.iter().for_each(|residual| saved.keep(residual));
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if needs[1] {
            return Err(Error::argument("cross_entropy", "targets have no gradient; detach them"));
        }
        Ok(vec![Some(softmax_cross_entropy_grad(&saved.take()?, &dy)?), None])
    }
}

impl Op for SoftmaxCrossEntropy {
    fn on_half(&self) -> OnHalf {
        OnHalf::Widen
    }

    fn forward(&self, x: &[Tensor], context: &mut Context) -> Result<Tensor> {
        let [logits, targets] = inputs(self.name(), x)?;
        let (loss, residual) = softmax_cross_entropy(logits, targets, self.label_smoothing)?;
        context.tap(residual);
        Ok(loss)
    }
}

/// `Σ x²` over all elements, a scalar accumulated in f64: an L2 penalty is half of it times its weight. Keeps the input.
#[derive(Clone, Copy, Debug)]
pub struct SumOfSquares;

impl Vjp for SumOfSquares {
    fn name(&self) -> &'static str {
        "sum_of_squares"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep(&record.inputs[0]);
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(scale(&saved.take()?, 2.0 * dy.item()?)?)])
    }
}

impl Op for SumOfSquares {
    fn on_half(&self) -> OnHalf {
        OnHalf::Widen
    }

    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs(self.name(), x)?;
        let value = dot(x, x)?;
        Ok(if x.dtype() == DType::F64 { Tensor::scalar(value) } else { Tensor::scalar(value as f32) })
    }
}

impl Tape {
    /// `log(exp(x) / Σ exp(x))` along the last axis, computed without overflow; keeps the output.
    ///
    /// # Errors
    /// Rank 0, or a type that is neither f32 nor f64.
    pub fn log_softmax(&mut self, x: &Var) -> Result<Var> {
        self.apply(LogSoftmax, &[x])
    }

    /// Softmax and cross-entropy in one, averaged over the rows of `logits` `[N, K]`; `targets` are class indices (i64, `[N]`) or
    /// probabilities `[N, K]`, and no gradient flows to them: see [`SoftmaxCrossEntropy`].
    ///
    /// # Errors
    /// Shapes that do not fit, a label that is no class, smoothing outside `0..=1`, or logits that are neither f32 nor f64.
    pub fn cross_entropy(&mut self, logits: &Var, targets: &Tensor, label_smoothing: f64) -> Result<Var> {
        self.apply(SoftmaxCrossEntropy { label_smoothing }, &[logits, &Var::constant(targets.clone())])
    }

    /// `Σ x²` over all elements: see [`SumOfSquares`].
    ///
    /// # Errors
    /// A type that is neither f32 nor f64.
    pub fn sum_of_squares(&mut self, x: &Var) -> Result<Var> {
        self.apply(SumOfSquares, &[x])
    }

    /// The mean of `(y - target)²` over all elements, a scalar.
    ///
    /// # Errors
    /// Shapes that do not broadcast together, types that differ or are neither f32 nor f64, or no elements.
    pub fn mean_squared_error(&mut self, y: &Var, target: &Var) -> Result<Var> {
        let difference = self.sub(y, target)?;
        let count = difference.value().numel();
        if count == 0 {
            return Err(Error::argument("mean_squared_error", "there are no elements to average"));
        }
        let total = self.sum_of_squares(&difference)?;
        self.scale(&total, 1.0 / count as f64)
    }
}
