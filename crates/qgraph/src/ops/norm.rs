//! Batch normalisation (Ioffe and Szegedy, 2015, arXiv:1502.03167) of `[N, C]` and `[N, C, H, W]`.

use super::unary::of_epilogue;
use crate::accumulate::ones;
use crate::{Context, Error, OnHalf, Op, Record, Result, Saved, Tape, Var, Vjp, inputs};
use qkernels::Activation;
use qkernels::elementwise::{BinaryOp, UnaryOp, add_scalar, binary, scale, unary, unary_grad_assign};
use qkernels::norm::{
    BatchNormGrad, BatchNormInfer, BatchNormTrain, batch_norm_again, batch_norm_grad, batch_norm_infer,
    batch_norm_train,
};
use qkernels::reduce::sum;
use qtensor::Tensor;

/// Normalisation with the statistics of the batch:
/// `y = activation((x - mean) / √(var + eps) · gamma + beta + residual)`.
///
/// Inputs: `x`, `gamma` `[C]`, `beta` `[C]` and, as an optional fourth, `residual` of the shape of `x`. Keeps `x` where the op before cannot compute it again, `gamma`, `beta`, the mean
/// and the inverse standard deviation, and the output where there are an activation and a residual; without a residual an op that follows need not
/// keep the output either, since it is computed from these again.
///
/// Emits an [`Effect`](crate::Effect) with the mean and the unbiased variance of the batch, each `[C]`, for the running statistics.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Whose running statistics: the key of the effect. Without it none is emitted.
    pub key: Option<usize>,
    /// Applied last, in the same pass; its derivative is taken from the output.
    pub activation: Activation,
}

impl Vjp for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_input(record, 0);
        record.inputs[1..3].iter().chain(record.taps).for_each(|tensor| saved.keep(tensor));
        saved.keep_if(self.activation != Activation::None && record.inputs.len() > 3, record.output);
    }

    fn vjp(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self.gradients(saved, (dy, None), needs)
    }

    fn takes_two(&self) -> bool {
        true
    }

    fn vjp_of_two(&self, saved: Saved, [dy, also]: [Tensor; 2], needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self.gradients(saved, (dy, Some(also)), needs)
    }

    fn restores(&self, inputs: usize) -> bool {
        inputs == 3
    }

    fn restore(&self, saved: &Saved) -> Result<Tensor> {
        let kept: Vec<&Tensor> = saved.iter().collect();
        let [x, gamma, beta, mean, inv_std] = kept[..] else {
            return Err(Error::argument(self.name(), "the output cannot be restored"));
        };
        Ok(batch_norm_again(x, [gamma, beta], [mean, inv_std], self.activation)?)
    }
}

impl BatchNorm {
    fn gradients(
        &self,
        mut saved: Saved,
        (dy, also): (Tensor, Option<Tensor>),
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, gamma, beta) = (saved.take()?, saved.take()?, saved.take()?);
        let (mean, inv_std) = (saved.take()?, saved.take()?);
        let residual = needs.get(3).copied();
        let y = saved.take_if(self.activation != Activation::None && residual.is_some())?;
        let gradients = batch_norm_grad(BatchNormGrad {
            x: &x,
            dy,
            also,
            gamma: &gamma,
            beta: &beta,
            mean: &mean,
            inv_std: &inv_std,
            activation: self.activation,
            y: y.as_ref(),
            residual: residual.unwrap_or(false),
        })?;
        let mut all = vec![Some(gradients.dx), Some(gradients.dgamma), Some(gradients.dbeta)];
        all.extend(residual.map(|_| gradients.dresidual));
        Ok(all)
    }
}

impl Op for BatchNorm {
    fn on_half(&self) -> OnHalf {
        OnHalf::Native
    }

    fn forward(&self, x: &[Tensor], context: &mut Context) -> Result<Tensor> {
        of_epilogue(self.name(), self.activation)?;
        let (first, residual) = with_residual(self.name(), x, 3)?;
        let [x, gamma, beta] = inputs(self.name(), first)?;
        let count = x.shape().get(1).map_or(0, |channels| x.numel() / channels.max(&1));
        if count == 1 {
            let message =
                format!("the variance of one value a channel says nothing, found {}; use larger batches", x.shape());
            return Err(Error::shape(self.name(), message));
        }
        let arguments = BatchNormTrain::new(x, gamma, beta, self.eps);
        let moments = context.moments_of(0);
        let out = batch_norm_train(BatchNormTrain { residual, activation: self.activation, moments, ..arguments })?;
        if let Some(key) = self.key {
            let unbiased = scale(&out.var, count as f64 / (count as f64 - 1.0))?;
            context.effect(key, vec![out.mean.clone(), unbiased]);
        }
        context.tap(out.mean);
        context.tap(out.inv_std);
        Ok(out.y)
    }
}

/// Normalisation with given statistics, which are constants: `y = activation((x - mean) / √(var + eps) · gamma + beta + residual)`.
///
/// Inputs: `x`, `gamma`, `beta`, `mean`, `var`, each `[C]` but the first, and, as an optional sixth, `residual` of the shape of `x`.
/// Keeps `x` where `gamma` needs a gradient, `gamma`, `mean` and `var`, and the output where there is an activation.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormInference {
    /// Added to the variance.
    pub eps: f64,
    /// Applied last, in the same pass; its derivative is taken from the output.
    pub activation: Activation,
}

impl Vjp for BatchNormInference {
    fn name(&self) -> &'static str {
        "batch_norm_inference"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_if(self.activation != Activation::None, record.output);
        saved.keep_if(record.needs[1], &record.inputs[0]);
        [1, 3, 4].iter().for_each(|i| saved.keep(&record.inputs[*i]));
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if needs[3] || needs[4] {
            return Err(Error::argument(self.name(), "given statistics have no gradient; detach them"));
        }
        if let Some(function) = of_epilogue(self.name(), self.activation)? {
            unary_grad_assign(function, &saved.take()?, &mut dy)?;
        }
        let x = saved.take_if(needs[1])?;
        let (gamma, mean, var) = (saved.take()?, saved.take()?, saved.take()?);
        let inv_std = unary(UnaryOp::Recip, &unary(UnaryOp::Sqrt, &add_scalar(&var, self.eps)?)?)?;
        let other_axes: Vec<usize> = (0..dy.rank()).filter(|axis| *axis != 1).collect();
        let dx = if needs[0] {
            let mut channels = vec![1; dy.rank()];
            channels[1] = gamma.numel();
            let slope = binary(BinaryOp::Mul, &gamma, &inv_std)?.reshape(channels)?;
            Some(binary(BinaryOp::Mul, &dy, &slope)?)
        } else {
            None
        };
        let dgamma = match x {
            Some(x) => {
                let normalised = batch_norm_infer(BatchNormInfer {
                    x: &x,
                    gamma: &ones(gamma.shape(), gamma.dtype())?,
                    beta: &gamma.zeros_like(),
                    mean: &mean,
                    var: &var,
                    eps: self.eps,
                    residual: None,
                    activation: Activation::None,
                })?;
                Some(sum(&binary(BinaryOp::Mul, &dy, &normalised)?, &other_axes, false)?)
            }
            None => None,
        };
        let dbeta = if needs[2] { Some(sum(&dy, &other_axes, false)?) } else { None };
        let mut gradients = vec![dx, dgamma, dbeta, None, None];
        if let Some(wanted) = needs.get(5) {
            gradients.push(wanted.then_some(dy));
        }
        Ok(gradients)
    }
}

impl Op for BatchNormInference {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        of_epilogue(self.name(), self.activation)?;
        let (first, residual) = with_residual(self.name(), x, 5)?;
        let [x, gamma, beta, mean, var] = inputs(self.name(), first)?;
        let BatchNormInference { eps, activation } = *self;
        Ok(batch_norm_infer(BatchNormInfer { x, gamma, beta, mean, var, eps, residual, activation })?)
    }
}

/// The first `count` inputs, and the one after them where it is given.
fn with_residual<'a>(op: &'static str, x: &'a [Tensor], count: usize) -> Result<(&'a [Tensor], Option<&'a Tensor>)> {
    match x.len().checked_sub(count) {
        Some(0) => Ok((x, None)),
        Some(1) => Ok((&x[..count], x.last())),
        _ => Err(Error::argument(op, format!("expected {count} inputs and perhaps a residual, found {}", x.len()))),
    }
}

impl Tape {
    /// Batch normalisation with the statistics of the batch, which are emitted as an effect: see [`BatchNorm`].
    ///
    /// # Errors
    /// `x` is neither `[N, C]` nor `[N, C, H, W]` or has fewer than two values a channel; shapes or types that do not fit.
    pub fn batch_norm(&mut self, op: BatchNorm, x: &Var, gamma: &Var, beta: &Var) -> Result<Var> {
        self.apply(op, &[x, gamma, beta])
    }

    /// Batch normalisation with given statistics `[mean, var]`: see [`BatchNormInference`].
    ///
    /// # Errors
    /// `x` is neither `[N, C]` nor `[N, C, H, W]`; shapes or types that do not fit.
    pub fn batch_norm_inference(
        &mut self,
        op: BatchNormInference,
        x: &Var,
        [gamma, beta]: [&Var; 2],
        [mean, var]: [&Tensor; 2],
    ) -> Result<Var> {
        let (mean, var) = (Var::constant(mean.clone()), Var::constant(var.clone()));
        self.apply(op, &[x, gamma, beta, &mean, &var])
    }
}
