//! What quadratic neurons do behind their projections.

use super::unary::of_epilogue;
use crate::{Context, Error, Op, Record, Result, Saved, Tape, Var, Vjp};
use qkernels::Activation;
use qkernels::elementwise::{scale, unary_grad_assign};
use qkernels::quadratic::{
    Normalised, NormalisedGrad, Rule, combine, combine_grad, combine_normalised, combine_normalised_grad, normalise,
};
use qtensor::Tensor;

/// Joined projections `z` `[parts · N, …]` combined to `activation(rule(z1, z2, …) + residual)` `[N, …]`; the residual is an optional second input.
/// Keeps `z` where the op before cannot compute it again, and the output where there is an activation.
#[derive(Clone, Copy, Debug)]
pub struct Combine {
    /// How.
    pub rule: Rule,
    /// Applied last; its derivative is taken from the output.
    pub activation: Activation,
}

impl Vjp for Combine {
    fn name(&self) -> &'static str {
        "combine"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep_if(self.activation != Activation::None, record.output);
        if record.needs[0] {
            saved.keep_input(record, 0);
        }
    }

    fn vjp(&self, mut saved: Saved, mut dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if let Some(function) = of_epilogue(self.name(), self.activation)? {
            unary_grad_assign(function, &saved.take()?, &mut dy)?;
        }
        let z = saved.take_if(needs[0])?;
        let mut gradients = vec![z.map(|z| combine_grad(self.rule, z, &dy)).transpose()?];
        if let Some(wanted) = needs.get(1) {
            gradients.push(wanted.then_some(dy));
        }
        Ok(gradients)
    }
}

impl Op for Combine {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        of_epilogue(self.name(), self.activation)?;
        let (z, residual) = match x {
            [z] => (z, None),
            [z, residual] => (z, Some(residual)),
            _ => {
                return Err(Error::argument(
                    self.name(),
                    format!("expected z and perhaps a residual, found {}", x.len()),
                ));
            }
        };
        Ok(combine(self.rule, z, residual, self.activation)?)
    }
}

/// What the backward pass of normalised projections reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Keep {
    /// The projections, where the op before cannot compute them again; they are normalised on the fly.
    #[default]
    Projections,
    /// The normalised values `(z - mean) / √(var + eps)`, in place of the projections.
    Normalised,
}

/// Joined projections, each normalised with the statistics of the batch and then combined.
///
/// Inputs: `z` `[parts · N, C]` or `[parts · N, C, H, W]`, then the scale `[C]` of each part, then the shift `[C]` of each. Keeps scales, shifts, statistics, and `z` as [`Keep`] says:
/// never both `z` and its normalised values, nor their products.
///
/// Emits an [`Effect`](crate::Effect) for each part with the mean and the unbiased variance of the batch, each `[C]`, for the running statistics.
#[derive(Clone, Debug)]
pub struct NormalisedCombine {
    /// How the normalised projections are combined.
    pub rule: Rule,
    /// Added to the variance.
    pub eps: f64,
    /// Whose running statistics: the key of the effect of each part. Without keys none is emitted.
    pub keys: Vec<usize>,
    /// What it keeps.
    pub keep: Keep,
}

impl NormalisedCombine {
    /// Scales and shifts as `[parts, C]` each.
    fn parameters(&self, x: &[Tensor]) -> Result<[Tensor; 2]> {
        let parts = self.rule.parts();
        let stacked = |from: usize| -> Result<Tensor> {
            let rows = x[from..from + parts].iter().map(|row| row.reshape([1, row.numel()]));
            Ok(Tensor::concatenate(&rows.collect::<qtensor::Result<Vec<_>>>()?, 0)?)
        };
        Ok([stacked(0)?, stacked(parts)?])
    }

    /// One row a part.
    fn rows(&self, by_part: &Tensor) -> Result<Vec<Tensor>> {
        (0..self.rule.parts()).map(|part| Ok(by_part.select(0, part)?)).collect()
    }
}

impl Vjp for NormalisedCombine {
    fn name(&self) -> &'static str {
        "normalised_combine"
    }

    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        let (taps, normalised) = record.taps.split_at(record.taps.len().min(2));
        match normalised.first() {
            Some(normalised) => saved.keep(normalised),
            None => saved.keep_input(record, 0),
        }
        record.inputs[1..].iter().chain(taps).for_each(|tensor| saved.keep(tensor));
    }

    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let z = saved.take()?;
        let parameters = (0..2 * self.rule.parts()).map(|_| saved.take()).collect::<Result<Vec<_>>>()?;
        let [gamma, beta] = self.parameters(&parameters)?;
        let (mean, inv_std) = (saved.take()?, saved.take()?);
        let gradients = combine_normalised_grad(NormalisedGrad {
            rule: self.rule,
            z,
            dy: &dy,
            gamma: &gamma,
            beta: &beta,
            mean: &mean,
            inv_std: &inv_std,
            is_normalised: self.keep == Keep::Normalised,
        })?;
        let mut all = vec![Some(gradients.dz)];
        for by_part in [&gradients.dgamma, &gradients.dbeta] {
            all.extend(self.rows(by_part)?.into_iter().map(Some));
        }
        Ok(all)
    }
}

impl Op for NormalisedCombine {
    fn forward(&self, x: &[Tensor], context: &mut Context) -> Result<Tensor> {
        let parts = self.rule.parts();
        let Some((z, parameters)) = x.split_first().filter(|(_, parameters)| parameters.len() == 2 * parts) else {
            let message = format!("{parts} projections take {} inputs, found {}", 1 + 2 * parts, x.len());
            return Err(Error::argument(self.name(), message));
        };
        let channels = z.shape().get(1).copied().unwrap_or(0).max(1);
        if let Some(wrong) = parameters.iter().find(|p| p.shape().dims() != [channels]) {
            let message =
                format!("scales and shifts of {channels} channels must have shape {channels}, found {}", wrong.shape());
            return Err(Error::shape(self.name(), message));
        }
        let count = z.numel() / parts / channels;
        if count == 1 {
            let message =
                format!("the variance of one value a channel says nothing, found {}; use larger batches", z.shape());
            return Err(Error::shape(self.name(), message));
        }
        let [gamma, beta] = self.parameters(parameters)?;
        let out = combine_normalised(Normalised {
            rule: self.rule,
            z,
            gamma: &gamma,
            beta: &beta,
            eps: self.eps,
            moments: context.moments_of(0),
        })?;
        let unbiased = scale(&out.var, count as f64 / (count as f64 - 1.0))?;
        for ((key, mean), var) in self.keys.iter().zip(self.rows(&out.mean)?).zip(self.rows(&unbiased)?) {
            context.effect(*key, vec![mean, var]);
        }
        let normalised = (self.keep == Keep::Normalised && context.records())
            .then(|| normalise(self.rule, z, [&out.mean, &out.inv_std]))
            .transpose()?;
        context.measured(out.moments);
        context.tap(out.mean);
        context.tap(out.inv_std);
        normalised.into_iter().for_each(|normalised| context.tap(normalised));
        Ok(out.y)
    }
}

impl Tape {
    /// Joined projections `[parts · N, …]` combined by a rule: see [`Combine`].
    ///
    /// # Errors
    /// A first axis that does not hold as many equal parts as the rule takes, or a type that is neither f32 nor f64.
    pub fn combine(&mut self, rule: Rule, z: &Var) -> Result<Var> {
        self.apply(Combine { rule, activation: Activation::None }, &[z])
    }

    /// Joined projections, each normalised with the statistics of the batch and then combined: see [`NormalisedCombine`].
    ///
    /// # Errors
    /// As [`combine`](Self::combine); fewer than two values a channel, or scales and shifts that do not fit.
    pub fn normalised_combine(
        &mut self,
        op: NormalisedCombine,
        z: &Var,
        scales: &[&Var],
        shifts: &[&Var],
    ) -> Result<Var> {
        let inputs: Vec<&Var> =
            std::iter::once(z).chain(scales.iter().copied()).chain(shifts.iter().copied()).collect();
        self.apply(op, &inputs)
    }
}
