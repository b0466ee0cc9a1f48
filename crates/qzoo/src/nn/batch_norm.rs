use super::{Activation, Builder, Context, ParameterKind, Parameters};
use crate::init::Init;
use qgraph::ops::{BatchNorm as BatchNormOp, BatchNormInference};
use qgraph::{Effect, Error, Result, Tape, Var};
use qtensor::{DType, Tensor};

/// Share of the batch's statistics in an update of the running ones.
pub(crate) const MOMENTUM: f64 = 0.1;
/// Added to the variance.
pub const EPS: f64 = 1e-5;

/// Batch normalisation (Ioffe and Szegedy, 2015) of `[N, C]` or `[N, C, H, W]`, over all axes but the channels'.
///
/// Training uses the statistics of the batch and emits them for the running ones, whose variance is unbiased; evaluation uses the
/// running ones.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    name: String,
    channels: usize,
    scale: usize,
    shift: usize,
    /// Position of the running mean; the running variance and the counter follow it.
    mean: usize,
}

impl BatchNorm {
    /// A normalisation of `channels` channels, at first by batch statistics alone: scale 1, shift 0.
    ///
    /// # Errors
    /// The size overflows.
    pub fn build(builder: &mut Builder<'_>, name: &str, channels: usize) -> Result<Self> {
        Self::starting_at(builder, name, channels, [1.0, 0.0])
    }

    /// A normalisation with that scale and shift at first.
    ///
    /// # Errors
    /// The size overflows.
    pub(crate) fn starting_at(
        builder: &mut Builder<'_>,
        name: &str,
        channels: usize,
        [scale, shift]: [f64; 2],
    ) -> Result<Self> {
        let mut scope = builder.scope(name);
        let scale = scope.parameter("weight", &[channels], ParameterKind::NormScale, Init::Constant(scale))?;
        let shift = scope.parameter("bias", &[channels], ParameterKind::NormShift, Init::Constant(shift))?;
        let mean = scope.buffer("running_mean", Tensor::full([channels], 0.0f32)?);
        scope.buffer("running_var", Tensor::full([channels], 1.0f32)?);
        scope.buffer("num_batches_tracked", Tensor::scalar(0i64));
        Ok(BatchNorm { name: name.to_string(), channels, scale, shift, mean })
    }

    /// `activation(normalised x + residual)`, in one pass where the activation allows it.
    ///
    /// # Errors
    /// Another number of channels, or a residual of another shape.
    pub fn forward(
        &self,
        tape: &mut Tape,
        x: &Var,
        residual: Option<&Var>,
        activation: Activation,
        context: &Context,
    ) -> Result<Var> {
        let y = tape.scope(&self.name, |tape| self.normalise(tape, x, residual, activation, context))?;
        if activation.epilogue().is_some() { Ok(y) } else { activation.forward(tape, &y, context) }
    }

    fn normalise(
        &self,
        tape: &mut Tape,
        x: &Var,
        residual: Option<&Var>,
        activation: Activation,
        context: &Context,
    ) -> Result<Var> {
        let activation = activation.epilogue().unwrap_or_default();
        let (scale, shift) = (context.parameter(self.scale)?, context.parameter(self.shift)?);
        let mut inputs = vec![x, scale, shift];
        if context.training() {
            inputs.extend(residual);
            return tape.apply(BatchNormOp { eps: EPS, key: Some(self.mean), activation }, &inputs);
        }
        let mean = Var::constant(context.buffer(self.mean)?.clone());
        let variance = Var::constant(context.buffer(self.mean + 1)?.clone());
        inputs.extend([&mean, &variance]);
        inputs.extend(residual);
        tape.apply(BatchNormInference { eps: EPS, activation }, &inputs)
    }

    /// The scale.
    ///
    /// # Errors
    /// The context is that of another composite.
    pub(crate) fn scale<'a>(&self, context: &'a Context) -> Result<&'a Var> {
        context.parameter(self.scale)
    }

    /// Position of the running statistics: the key of their effect.
    pub(crate) fn statistics(&self) -> usize {
        self.mean
    }

    /// Position of the shift.
    pub(crate) fn shift_position(&self) -> usize {
        self.shift
    }

    /// The shift; once [folded](Self::fold) it is the bias of the projection in front.
    ///
    /// # Errors
    /// The context is that of another composite.
    pub(crate) fn shift<'a>(&self, context: &'a Context) -> Result<&'a Var> {
        context.parameter(self.shift)
    }

    /// What it does by its running statistics, for each channel: `x · scale + shift`, where `scale = gamma / √(var + eps)`.
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub fn affine(&self, parameters: &Parameters) -> Result<[Vec<f64>; 2]> {
        let values = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_vec::<f64>();
        let of = |position: usize| values(&parameters.parameters()[position].value);
        let (gamma, beta) = (of(self.scale)?, of(self.shift)?);
        let [mean, var] = [0, 1].map(|offset| values(&parameters.buffers()[self.mean + offset].value));
        let (mean, var) = (mean?, var?);
        let scale: Vec<f64> = gamma.iter().zip(var).map(|(gamma, var)| gamma / (var + EPS).sqrt()).collect();
        let shift = (0..self.channels).map(|c| beta[c] - mean[c] * scale[c]).collect();
        Ok([scale, shift])
    }

    /// Makes this normalisation by its running statistics part of the projection in front of it: `weight · s`, and as the shift
    /// `beta + (bias - mean) · s`, where `s = gamma / √(var + eps)` for each output.
    ///
    /// # Errors
    /// A weight that has not one row for each channel.
    pub(crate) fn fold(&self, parameters: &mut Parameters, weight: usize, bias: Option<usize>) -> Result<()> {
        let [scale, mut shift] = self.affine(parameters)?;
        if let Some(bias) = bias {
            let bias = parameters.parameters()[bias].value.to_vec::<f32>()?;
            shift.iter_mut().zip(bias).zip(&scale).for_each(|((shift, b), s)| *shift += f64::from(b) * s);
        }
        parameters.scale_rows(weight, &scale)?;
        Ok(parameters.set_values(self.shift, &shift)?)
    }

    /// Names and values of its scale, shift, running mean and running variance.
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub fn tensors<'a>(&self, parameters: &'a Parameters) -> Result<[(&'a str, &'a Tensor); 4]> {
        let missing = || Error::argument("batch_norm", format!("{} belongs to another model", self.name));
        let parameter = |i: usize| parameters.parameters().get(i).map(|p| (p.name.as_str(), &p.value));
        let buffer = |i: usize| parameters.buffers().get(i).map(|b| (b.name.as_str(), &b.value));
        let found = [parameter(self.scale), parameter(self.shift), buffer(self.mean), buffer(self.mean + 1)];
        let [Some(scale), Some(shift), Some(mean), Some(variance)] = found else { return Err(missing()) };
        Ok([scale, shift, mean, variance])
    }

    /// Its name within the scope of its parent.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of learnt values.
    pub fn parameters(&self) -> usize {
        2 * self.channels
    }
}

/// Takes the batch statistics that a step emitted into the running ones: `running += share · (batch - running)`, where a training's share is [`MOMENTUM`].
///
/// # Errors
/// An effect of another op, or one that does not fit these buffers.
pub(crate) fn update_running(parameters: &mut Parameters, effect: &Effect, share: f64) -> Result<()> {
    let mismatch =
        || Error::argument("running statistics", format!("the effect of {} does not fit the model", effect.scope));
    let [mean, variance] = effect.values.as_slice() else { return Err(mismatch()) };
    if !["batch_norm", "normalised_combine"].contains(&effect.op) || effect.key + 2 >= parameters.buffers().len() {
        return Err(mismatch());
    }
    for (offset, batch) in [mean, variance].into_iter().enumerate() {
        qkernels::update::lerp(parameters.buffer_mut(effect.key + offset), batch, share)?;
    }
    for count in parameters.buffer_mut(effect.key + 2).memory_mut::<i64>()? {
        *count += 1;
    }
    Ok(())
}
