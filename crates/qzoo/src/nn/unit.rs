use super::{Activation, BatchNorm, Builder, Context, Parameters, Projection, ProjectionConfig, Walk, projection};
use crate::experiment::ActivationName;
use qgraph::{Result, Tape, Var};
use qkernels::Activation as Epilogue;

/// What comes first behind the projection of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Projection, normalisation, activation.
    NormFirst,
    /// Projection, activation, normalisation.
    ActivationFirst,
}

/// What a model says about one of its units.
#[derive(Clone, Copy, Debug)]
pub struct UnitConfig<'a> {
    /// The linear or convolutional layer.
    pub projection: ProjectionConfig<'a>,
    /// Name of the batch normalisation within the builder's path; `None` for none.
    pub norm: Option<&'a str>,
    /// The activation; `None` for none.
    pub activation: Option<ActivationName>,
    /// Which of the two comes first.
    pub order: Order,
}

impl<'a> UnitConfig<'a> {
    /// A projection alone.
    pub fn plain(projection: ProjectionConfig<'a>) -> Self {
        UnitConfig { projection, norm: None, activation: None, order: Order::NormFirst }
    }
}

/// A projection with its normalisation and activation: what networks are made of. A residual may come in before the activation.
#[derive(Clone, Debug)]
pub struct Unit {
    projection: Projection,
    norm: Option<BatchNorm>,
    activation: Activation,
    order: Order,
}

impl Unit {
    /// Builds the layers in the order projection, normalisation, activation.
    ///
    /// # Errors
    /// As [`projection`].
    pub fn build(builder: &mut Builder<'_>, config: UnitConfig<'_>) -> Result<Self> {
        let projection = projection(builder, config.projection)?;
        let channels = projection.map().outputs();
        let norm = config.norm.map(|name| BatchNorm::build(builder, name, channels)).transpose()?;
        let activation = match config.activation {
            Some(name) => Activation::build(builder, &format!("{}_activation", config.projection.name), name)?,
            None => Activation::Identity,
        };
        Ok(Unit { projection, norm, activation, order: config.order })
    }

    /// `activation(norm(projection(x)) + residual)`, or `norm(activation(projection(x) + residual))`. Activations and the residual
    /// are part of the pass of the layer before them where its kernel can do it.
    ///
    /// # Errors
    /// The input or the residual does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, residual: Option<&Var>, context: &Context) -> Result<Var> {
        match (&self.norm, self.order) {
            (Some(norm), Order::NormFirst) if context.is_folded() => {
                self.activated(tape, x, residual, Some(norm.shift(context)?), context)
            }
            (Some(norm), Order::NormFirst) => {
                let y = self.projection.forward(tape, x, Epilogue::None, context)?;
                norm.forward(tape, &y, residual, self.activation, context)
            }
            (Some(norm), Order::ActivationFirst) => {
                let y = self.activated(tape, x, residual, self.bias(context)?, context)?;
                norm.forward(tape, &y, None, Activation::Identity, context)
            }
            (None, _) => self.activated(tape, x, residual, self.bias(context)?, context),
        }
    }

    fn bias<'a>(&self, context: &'a Context) -> Result<Option<&'a Var>> {
        self.projection.bias().map(|bias| context.parameter(bias)).transpose()
    }

    /// `activation(projection(x) + residual)` with that bias.
    fn activated(
        &self,
        tape: &mut Tape,
        x: &Var,
        residual: Option<&Var>,
        bias: Option<&Var>,
        context: &Context,
    ) -> Result<Var> {
        let epilogue = self.activation.epilogue();
        if residual.is_none()
            && let Some(epilogue) = epilogue
        {
            return self.projection.forward_with_bias(tape, x, epilogue, bias, context);
        }
        if let Some(epilogue) = epilogue
            && let Some(y) = self.projection.forward_with_residual(tape, x, epilogue, [bias, residual], context)?
        {
            return Ok(y);
        }
        let mut y = self.projection.forward_with_bias(tape, x, Epilogue::None, bias, context)?;
        if let Some(residual) = residual {
            y = tape.add(&y, residual)?;
        }
        self.activation.forward(tape, &y, context)
    }

    /// Makes a normalisation that directly follows the projection part of its weights.
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub(crate) fn fold(&self, parameters: &mut Parameters) -> Result<()> {
        match (&self.norm, self.order) {
            (Some(norm), Order::NormFirst) => norm.fold(parameters, self.projection.weight(), self.projection.bias()),
            _ => Ok(()),
        }
    }

    /// The projection.
    pub fn projection(&self) -> &Projection {
        &self.projection
    }

    /// The normalisation.
    pub fn norm(&self) -> Option<&BatchNorm> {
        self.norm.as_ref()
    }

    /// Adds a row for each layer that stores a result; returns the output's shape.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn describe(&self, input: &[usize], walk: &mut Walk) -> Result<Vec<usize>> {
        let output = self.projection.map().output(input)?;
        let macs = self.projection.macs(&output);
        let activation = self.activation.name();
        let with = |kind: String, fused: bool| {
            if fused && !activation.is_empty() { format!("{kind}, {activation}") } else { kind }
        };
        let early = self.norm.is_none() || self.order == Order::ActivationFirst;
        let slopes = self.activation.parameters();
        let extra = |fused: bool| if fused { slopes } else { 0 };
        let parameters = self.projection.parameters() + extra(early);
        walk.row(self.projection.name(), with(self.projection.kind(), early), &output, parameters, macs);
        if let Some(norm) = &self.norm {
            let parameters = norm.parameters() + extra(!early);
            walk.row(norm.name(), with("batch_norm".into(), !early), &output, parameters, 0);
        }
        Ok(output)
    }
}
