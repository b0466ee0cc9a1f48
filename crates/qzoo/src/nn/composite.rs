use super::{Builder, Context, Parameters, Residual, Unit, UnitConfig, Walk};
use qgraph::{Error, Function, Result, Tape, Var};
use std::ops::Range;
use std::sync::Arc;

/// What a composite can hold.
#[derive(Clone, Debug)]
pub enum Body {
    /// A projection with normalisation and activation.
    Unit(Unit),
    /// A residual block.
    Residual(Residual),
}

/// A part of a network whose backward mode can be chosen by its name: its parameters are explicit inputs of a
/// [`Function`], so it can run as one node of the tape.
#[derive(Clone, Debug)]
pub struct Composite {
    path: String,
    /// Name within the scope of the parent; empty where the layers within name themselves.
    scope: String,
    /// Positions of all parameters within.
    parameters: Range<usize>,
    body: Arc<Body>,
}

impl Composite {
    /// Builds a unit, which goes by the name of its projection.
    ///
    /// # Errors
    /// As [`Unit::build`].
    pub fn unit(builder: &mut Builder<'_>, config: UnitConfig<'_>) -> Result<Self> {
        let path = builder.join(config.projection.name);
        let first = builder.position();
        let body = Body::Unit(Unit::build(builder, config)?);
        Ok(Composite { path, scope: String::new(), parameters: first..builder.position(), body: Arc::new(body) })
    }

    /// Builds a residual block below `name`.
    ///
    /// # Errors
    /// Whatever `build` refuses.
    pub fn residual(
        builder: &mut Builder<'_>,
        name: &str,
        build: impl FnOnce(&mut Builder<'_>) -> Result<Residual>,
    ) -> Result<Self> {
        let path = builder.join(name);
        let first = builder.position();
        let body = Body::Residual(build(&mut builder.scope(name))?);
        let parameters = first..builder.position();
        Ok(Composite { path, scope: name.to_string(), parameters, body: Arc::new(body) })
    }

    /// Runs in the mode that the context gives to this composite's name.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, residual: Option<&Var>, context: &Context) -> Result<Var> {
        let mode = context.mode(&self.path);
        let mut inputs = vec![x];
        inputs.extend(residual);
        for position in self.parameters.clone() {
            inputs.push(context.parameter(position)?);
        }
        let call = Call {
            body: self.body.clone(),
            context: context.detached(&self.path, mode),
            first: self.parameters.start,
            has_residual: residual.is_some(),
        };
        let y = match self.scope.as_str() {
            "" => tape.call(call, &inputs, mode),
            scope => tape.scope(scope, |tape| tape.call(call, &inputs, mode)),
        }?;
        tape.mark(&self.path, &y);
        Ok(y)
    }

    /// The full name by which experiments choose the mode.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is within.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The innermost composites: this one, or those within.
    pub fn units(&self) -> Vec<&Composite> {
        match &*self.body {
            Body::Unit(_) => vec![self],
            Body::Residual(residual) => residual.children().flat_map(Composite::units).collect(),
        }
    }

    /// This composite's name and those within, outermost first.
    pub fn paths(&self) -> Vec<&str> {
        let mut paths = vec![self.path()];
        if let Body::Residual(residual) = &*self.body {
            paths.extend(residual.children().flat_map(Composite::paths));
        }
        paths
    }

    /// Makes the normalisations within part of the weights before them, where they directly follow: see [`Unit::fold`].
    ///
    /// # Errors
    /// The parameters are those of another model.
    pub(crate) fn fold(&self, parameters: &mut Parameters) -> Result<()> {
        match &*self.body {
            Body::Unit(unit) => unit.fold(parameters),
            Body::Residual(residual) => residual.children().try_for_each(|child| child.fold(parameters)),
        }
    }

    /// Positions of the weights of each projection that a normalisation directly follows, and of that normalisation's running mean.
    pub(crate) fn normalised(&self) -> Vec<[usize; 2]> {
        match &*self.body {
            Body::Unit(unit) => unit.normalised(),
            Body::Residual(residual) => residual.children().flat_map(Composite::normalised).collect(),
        }
    }

    /// Adds the rows of all layers; returns the output's shape.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn describe(&self, input: &[usize], walk: &mut Walk) -> Result<Vec<usize>> {
        walk.scope(&self.scope, |walk| match &*self.body {
            Body::Unit(unit) => unit.describe(input, walk),
            Body::Residual(residual) => residual.describe(input, walk),
        })
    }
}

/// One run of a composite: inputs are `x`, perhaps a residual, and all parameters within.
#[derive(Debug)]
struct Call {
    body: Arc<Body>,
    context: Context,
    first: usize,
    has_residual: bool,
}

impl Function for Call {
    fn name(&self) -> &'static str {
        match *self.body {
            Body::Unit(_) => "unit",
            Body::Residual(_) => "residual",
        }
    }

    fn forward(&self, tape: &mut Tape, inputs: &[Var]) -> Result<Var> {
        let missing = || Error::argument("composite", format!("{} inputs are too few", inputs.len()));
        let (x, rest) = inputs.split_first().ok_or_else(missing)?;
        let (residual, parameters) = match self.has_residual {
            true => rest.split_first().map(|(first, rest)| (Some(first), rest)).ok_or_else(missing)?,
            false => (None, rest),
        };
        let context = self.context.with_window(self.first, parameters);
        match (&*self.body, residual) {
            (Body::Unit(unit), residual) => unit.forward(tape, x, residual, &context),
            (Body::Residual(block), None) => block.forward(tape, x, &context),
            (Body::Residual(_), Some(_)) => Err(Error::argument("residual", "a block takes no residual of another")),
        }
    }
}
