use super::{Buffer, Parameter, ParameterKind, Parameters};
use crate::init::Init;
use qtensor::random::{Purpose, Stream, StreamKey};
use qtensor::{Result, Tensor};

/// Where new layers put their parameters: a store, and a path that goes before their names.
///
/// ```
/// use qzoo::{init::Init, nn::{Builder, ParameterKind, Parameters}};
/// let mut parameters = Parameters::default();
/// let mut root = Builder::new(&mut parameters, 0);
/// let mut stage = root.scope("layer1");
/// stage.scope("0").parameter("conv1.weight", &[8, 3, 3, 3], ParameterKind::Weight, Init::RESNET)?;
/// assert_eq!(parameters.parameters()[0].name, "layer1.0.conv1.weight");
/// # Ok::<(), qtensor::Error>(())
/// ```
#[derive(Debug)]
pub struct Builder<'a> {
    store: &'a mut Parameters,
    seed: u64,
    path: String,
    weight_init: Option<Init>,
    winograd: bool,
}

impl<'a> Builder<'a> {
    /// A builder at the root. The values that it draws depend on `seed` and on the position of each parameter.
    pub fn new(store: &'a mut Parameters, seed: u64) -> Self {
        Builder { store, seed, path: String::new(), weight_init: None, winograd: true }
    }

    /// Draws all weights by this rule, whatever the model asks for, unless that is a constant.
    pub fn with_weight_init(mut self, init: Option<Init>) -> Self {
        self.weight_init = init;
        self
    }

    /// Whether convolutions may use Winograd's algorithm; they may unless told otherwise.
    pub fn with_winograd(mut self, winograd: bool) -> Self {
        self.winograd = winograd;
        self
    }

    /// What [`with_winograd`](Self::with_winograd) said.
    pub fn winograd(&self) -> bool {
        self.winograd
    }

    /// The same store with `name` added to the path.
    pub fn scope(&mut self, name: &str) -> Builder<'_> {
        let path = self.join(name);
        Builder { store: self.store, seed: self.seed, path, weight_init: self.weight_init, winograd: self.winograd }
    }

    /// The path and `name`, separated by a dot.
    pub fn join(&self, name: &str) -> String {
        match (self.path.is_empty(), name.is_empty()) {
            (true, _) => name.to_string(),
            (_, true) => self.path.clone(),
            _ => format!("{}.{name}", self.path),
        }
    }

    /// Number of parameters so far, which is the position of the next one.
    pub fn position(&self) -> usize {
        self.store.parameters().len()
    }

    /// Adds a parameter and returns its position.
    ///
    /// # Errors
    /// The rule for its initial values does not fit the shape.
    pub fn parameter(&mut self, name: &str, shape: &[usize], kind: ParameterKind, init: Init) -> Result<usize> {
        let index = self.position() as u64;
        let mut stream = Stream::new(StreamKey { seed: self.seed, purpose: Purpose::Init, epoch: 0, index });
        let is_drawn = kind.is_weight() && !matches!(init, Init::Constant(_));
        let init = self.weight_init.filter(|_| is_drawn).unwrap_or(init);
        let value = init.draw(shape, &mut stream)?;
        Ok(self.store.push(Parameter { name: self.join(name), value, kind }))
    }

    /// Says that all parameters since the position `first` belong to the second-order part of a quadratic neuron.
    pub fn mark_quadratic(&mut self, first: usize) {
        self.store.mark_quadratic(first..self.position());
    }

    /// Adds a buffer and returns its position.
    pub fn buffer(&mut self, name: &str, value: Tensor) -> usize {
        let name = self.join(name);
        self.store.push_buffer(Buffer { name, value })
    }
}
