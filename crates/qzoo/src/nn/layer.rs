use super::{Activation, BatchNorm, Composite, Context, Dropout, Pool, Walk};
use qgraph::{Error, Result, Tape, Var};

/// A part of a network.
#[derive(Clone, Debug)]
pub enum Layer {
    /// A unit or a residual block.
    Composite(Composite),
    /// A batch normalisation on its own.
    BatchNorm(BatchNorm),
    /// An activation on its own.
    Activation(Activation),
    /// Dropout.
    Dropout(Dropout),
    /// Pooling over windows.
    Pool(Pool),
    /// The mean of each plane: `[C, H, W]` to `[C]`.
    GlobalAveragePool,
    /// `[C, H, W]` to `[C · H · W]`.
    Flatten,
    /// Layers one after the other.
    Sequential(Sequential),
}

impl Layer {
    /// The layer's result.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        match self {
            Layer::Composite(composite) => composite.forward(tape, x, None, context),
            Layer::BatchNorm(norm) => norm.forward(tape, x, None, Activation::Identity, context),
            Layer::Activation(activation) => activation.forward(tape, x, context),
            Layer::Dropout(dropout) => dropout.forward(tape, x, context),
            Layer::Pool(pool) => pool.forward(tape, x),
            Layer::GlobalAveragePool => tape.global_avg_pool2d(x),
            Layer::Flatten => tape.flatten(x),
            Layer::Sequential(layers) => layers.forward(tape, x, context),
        }
    }

    /// Adds a row for each layer that stores a result; returns the output's shape without the batch axis.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn describe(&self, input: &[usize], walk: &mut Walk) -> Result<Vec<usize>> {
        let image = |name: &'static str| match input {
            &[channels, _, _] => Ok(channels),
            _ => Err(Error::shape(name, format!("expected an image [C, H, W], found {input:?}"))),
        };
        match self {
            Layer::Composite(composite) => composite.describe(input, walk),
            Layer::Sequential(layers) => layers.describe(input, walk),
            Layer::BatchNorm(norm) => {
                walk.row(norm.name(), "batch_norm".into(), input, norm.parameters(), 0);
                Ok(input.to_vec())
            }
            Layer::Activation(activation) => {
                walk.row("", activation.name().into(), input, activation.parameters(), 0);
                Ok(input.to_vec())
            }
            Layer::Dropout(dropout) => {
                walk.row("", format!("dropout {}", dropout.probability()), input, 0, 0);
                Ok(input.to_vec())
            }
            Layer::Pool(pool) => {
                let output = pool.output(input)?;
                walk.row("", pool.kind(), &output, 0, 0);
                Ok(output)
            }
            Layer::GlobalAveragePool => {
                let output = vec![image("global_avg_pool")?];
                walk.row("", "global_avg_pool".into(), &output, 0, 0);
                Ok(output)
            }
            Layer::Flatten => Ok(vec![input.iter().product()]),
        }
    }
}

impl From<Composite> for Layer {
    fn from(composite: Composite) -> Self {
        Layer::Composite(composite)
    }
}

/// Layers one after the other.
#[derive(Clone, Debug, Default)]
pub struct Sequential {
    /// Name within the scope of the parent; empty where the layers within stand for themselves.
    scope: String,
    layers: Vec<Layer>,
}

impl Sequential {
    /// An empty sequence in a scope of that name, which may be empty.
    pub fn new(scope: &str) -> Self {
        Sequential { scope: scope.to_string(), layers: Vec::new() }
    }

    /// Adds a layer at the end.
    pub fn push(&mut self, layer: impl Into<Layer>) {
        self.layers.push(layer.into());
    }

    /// Name within the scope of the parent; empty where the layers within stand for themselves.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The last layer's result.
    ///
    /// # Errors
    /// An input does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        let run = |tape: &mut Tape| {
            let mut y = x.clone();
            for layer in &self.layers {
                y = layer.forward(tape, &y, context)?;
            }
            Ok(y)
        };
        if self.scope.is_empty() { run(tape) } else { tape.scope(&self.scope, run) }
    }

    /// Adds the rows of all layers; returns the output's shape.
    ///
    /// # Errors
    /// An input does not fit.
    pub fn describe(&self, input: &[usize], walk: &mut Walk) -> Result<Vec<usize>> {
        walk.scope(&self.scope, |walk| {
            self.layers.iter().try_fold(input.to_vec(), |shape, layer| layer.describe(&shape, walk))
        })
    }

    /// All composites in this sequence and the sequences within; parts of composites are theirs to name.
    pub fn composites(&self) -> Vec<&Composite> {
        let mut found = Vec::new();
        for layer in &self.layers {
            match layer {
                Layer::Composite(composite) => found.push(composite),
                Layer::Sequential(layers) => found.extend(layers.composites()),
                _ => {}
            }
        }
        found
    }
}

impl From<Sequential> for Layer {
    fn from(layers: Sequential) -> Self {
        Layer::Sequential(layers)
    }
}
