use super::{
    Activation, BatchNorm, Builder, Context, Map, Neuron, NeuronConfig, Parameters, Projection, ProjectionConfig,
    Quadratic, Walk, projection,
};
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
    /// What is made of projections of the input.
    pub neuron: NeuronConfig,
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
        UnitConfig { projection, neuron: NeuronConfig::LINEAR, norm: None, activation: None, order: Order::NormFirst }
    }
}

/// What a unit computes first.
#[derive(Clone, Debug)]
enum Source {
    Projection(Projection),
    Quadratic(Quadratic),
}

/// A projection or a quadratic neuron with its normalisation and activation: what networks are made of. A residual may come in before the activation.
#[derive(Clone, Debug)]
pub struct Unit {
    source: Source,
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
        let channels = config.projection.map.outputs();
        let source = match Neuron::of(config.neuron.name, config.neuron.rank) {
            Some(neuron) => Source::Quadratic(Quadratic::build(builder, config.projection, neuron, config.neuron)?),
            None => Source::Projection(projection(builder, config.projection)?),
        };
        let norm = config.norm.map(|name| BatchNorm::build(builder, name, channels)).transpose()?;
        let activation = match config.activation {
            Some(name) => Activation::build(builder, &format!("{}_activation", config.projection.name), name)?,
            None => Activation::Identity,
        };
        Ok(Unit { source, norm, activation, order: config.order })
    }

    /// `activation(norm(source(x)) + residual)`, or `norm(activation(source(x) + residual))`. Activations and the residual
    /// are part of the pass of the layer before them where its kernel can do it.
    ///
    /// # Errors
    /// The input or the residual does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, residual: Option<&Var>, context: &Context) -> Result<Var> {
        match (&self.norm, self.order) {
            (Some(norm), Order::NormFirst) => match &self.source {
                Source::Projection(projection) if context.is_folded() => {
                    self.activated(tape, projection, x, [Some(norm.shift(context)?), residual], context)
                }
                Source::Quadratic(quadratic) if context.is_folded() && quadratic.takes_outer() => {
                    let epilogue = self.activation.epilogue();
                    let y = quadratic.forward_folded(tape, x, residual, epilogue.unwrap_or_default(), context)?;
                    if epilogue.is_some() { Ok(y) } else { self.activation.forward(tape, &y, context) }
                }
                source => {
                    let y = source.forward(tape, x, context)?;
                    norm.forward(tape, &y, residual, self.activation, context)
                }
            },
            (Some(norm), Order::ActivationFirst) => {
                let y = self.without_norm(tape, x, residual, context)?;
                norm.forward(tape, &y, None, Activation::Identity, context)
            }
            (None, _) => self.without_norm(tape, x, residual, context),
        }
    }

    /// `activation(source(x) + residual)`
    fn without_norm(&self, tape: &mut Tape, x: &Var, residual: Option<&Var>, context: &Context) -> Result<Var> {
        match &self.source {
            Source::Projection(projection) => {
                let bias = projection.bias().map(|bias| context.parameter(bias)).transpose()?;
                self.activated(tape, projection, x, [bias, residual], context)
            }
            Source::Quadratic(quadratic) => {
                let y = quadratic.forward(tape, x, context)?;
                self.finished(tape, y, residual, context)
            }
        }
    }

    /// `activation(projection(x) + residual)` with that bias.
    fn activated(
        &self,
        tape: &mut Tape,
        projection: &Projection,
        x: &Var,
        [bias, residual]: [Option<&Var>; 2],
        context: &Context,
    ) -> Result<Var> {
        let epilogue = self.activation.epilogue();
        if residual.is_none()
            && let Some(epilogue) = epilogue
        {
            return projection.forward_with_bias(tape, x, epilogue, bias, context);
        }
        if let Some(epilogue) = epilogue
            && let Some(y) = projection.forward_with_residual(tape, x, epilogue, [bias, residual], context)?
        {
            return Ok(y);
        }
        let y = projection.forward_with_bias(tape, x, Epilogue::None, bias, context)?;
        self.finished(tape, y, residual, context)
    }

    /// `activation(y + residual)`
    fn finished(&self, tape: &mut Tape, y: Var, residual: Option<&Var>, context: &Context) -> Result<Var> {
        let y = match residual {
            Some(residual) => tape.add(&y, residual)?,
            None => y,
        };
        self.activation.forward(tape, &y, context)
    }

    /// Makes a normalisation that directly follows the projection part of its weights.
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub(crate) fn fold(&self, parameters: &mut Parameters) -> Result<()> {
        match (&self.source, &self.norm, self.order) {
            (Source::Projection(projection), Some(norm), Order::NormFirst) => {
                norm.fold(parameters, projection.weight(), projection.bias())
            }
            (Source::Quadratic(quadratic), norm, order) => {
                quadratic.fold(parameters)?;
                match norm {
                    Some(norm) if order == Order::NormFirst => quadratic.fold_outer(parameters, norm),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Positions of the weights of each projection that a normalisation directly follows, and of that normalisation's running mean.
    pub(crate) fn normalised(&self) -> Vec<[usize; 2]> {
        match (&self.source, &self.norm, self.order) {
            (Source::Projection(projection), Some(norm), Order::NormFirst) => {
                vec![[projection.weight(), norm.statistics()]]
            }
            (Source::Projection(_), ..) => Vec::new(),
            (Source::Quadratic(quadratic), ..) => quadratic.normalised(),
        }
    }

    /// The projection; `None` where the unit is made of a quadratic neuron.
    pub fn projection(&self) -> Option<&Projection> {
        match &self.source {
            Source::Projection(projection) => Some(projection),
            Source::Quadratic(_) => None,
        }
    }

    /// The quadratic neuron, where it is made of one.
    pub fn quadratic(&self) -> Option<&Quadratic> {
        match &self.source {
            Source::Projection(_) => None,
            Source::Quadratic(quadratic) => Some(quadratic),
        }
    }

    /// The activation, wherever it stands.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Which of normalisation and activation comes first.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The linear map, or that of each projection of a quadratic neuron.
    pub fn map(&self) -> &Map {
        match &self.source {
            Source::Projection(projection) => projection.map(),
            Source::Quadratic(quadratic) => quadratic.map(),
        }
    }

    /// The projection, or those of a quadratic neuron, one for each matrix of weights.
    pub fn projections(&self) -> &[Projection] {
        match &self.source {
            Source::Projection(projection) => std::slice::from_ref(projection),
            Source::Quadratic(quadratic) => quadratic.matrices(),
        }
    }

    /// The projection of a first-order unit, with the normalisation that can be folded into it.
    pub(crate) fn first_order(&self) -> Option<(&Projection, Option<&BatchNorm>)> {
        match &self.source {
            Source::Projection(projection) => {
                Some((projection, self.norm.as_ref().filter(|_| self.order == Order::NormFirst)))
            }
            Source::Quadratic(_) => None,
        }
    }

    /// Whether it is made of a quadratic neuron.
    pub fn is_quadratic(&self) -> bool {
        matches!(self.source, Source::Quadratic(_))
    }

    /// The activation, where nothing follows it.
    pub fn last_activation(&self) -> Option<Activation> {
        (self.norm.is_none() || self.order == Order::NormFirst).then_some(self.activation)
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
        let output = self.map().output(input)?;
        let activation = self.activation.name();
        let with = |kind: String, fused: bool| {
            if fused && !activation.is_empty() { format!("{kind}, {activation}") } else { kind }
        };
        let early = self.norm.is_none() || self.order == Order::ActivationFirst;
        let slopes = self.activation.parameters();
        let extra = |fused: bool| if fused { slopes } else { 0 };
        match &self.source {
            Source::Projection(projection) => {
                let parameters = projection.parameters() + extra(early);
                let macs = projection.macs(&output);
                walk.row(projection.name(), with(projection.kind(), early), &output, parameters, macs);
            }
            Source::Quadratic(quadratic) => {
                quadratic.describe(&output, walk);
                walk.row(quadratic.name(), with("combination".into(), early), &output, extra(early), 0);
            }
        }
        if let Some(norm) = &self.norm {
            let parameters = norm.parameters() + extra(!early);
            walk.row(norm.name(), with("batch_norm".into(), !early), &output, parameters, 0);
        }
        Ok(output)
    }
}

impl Source {
    /// What a normalisation takes.
    fn forward(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        match self {
            Source::Projection(projection) => projection.forward_to_norm(tape, x, context),
            Source::Quadratic(quadratic) => quadratic.forward(tape, x, context),
        }
    }
}
