use super::Folded;
use super::plan::Plan;
use super::{cifar_cnn, cifar_resnet, mlp, mnist_cnn, mobilenet, resnet, small_cnn, vgg};
use crate::experiment::{self, Backward, InitName, ModelName, pattern};
use crate::init::{FanMode, Init, Nonlinearity};
use crate::nn::{
    Body, Builder, Composite, Context, Inputs, Leaves, MOMENTUM, Parameters, Phase, Row, Sequential, SparseLayers,
    Walk, update_running,
};
use qgraph::{Effect, Error, Result, Tape, Var};
use qtensor::Tensor;
use std::sync::Arc;

/// A network with its parameters and running statistics.
///
/// ```
/// use qgraph::{Tape, Tensor, Var};
/// use qzoo::{experiment, models::Model, nn::{Leaves, Phase}};
/// let config = experiment::Model { name: experiment::ModelName::Mlp, widths: vec![8], ..Default::default() };
/// let model = Model::build(&config, [1, 4, 4], 3, 0)?;
/// let mut tape = Tape::new();
/// let leaves = Leaves::on(&mut tape, model.parameters());
/// let images = Var::constant(Tensor::full([2, 1, 4, 4], 0.5f32)?);
/// let logits = model.forward(&mut tape, &leaves, &images, Phase::Train { seed: 0, step: 0 })?;
/// let loss = tape.cross_entropy(&logits, &Tensor::from_slice([2], &[0i64, 2])?, 0.0)?;
/// let gradients = leaves.into_gradients(tape.backward(&loss)?);
/// assert_eq!(gradients.len(), model.parameters().parameters().len());
/// # Ok::<(), qgraph::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    name: ModelName,
    parameters: Parameters,
    network: Arc<Sequential>,
    backward: Arc<Backward>,
    /// Projections whose inputs are quantized at inference.
    inputs: Arc<Inputs>,
    /// Projections that train on sparse kernels.
    sparse: Arc<SparseLayers>,
    /// Projections that answer on sparse kernels.
    sparse_answers: Arc<SparseLayers>,
    input: [usize; 3],
    classes: usize,
}

impl Model {
    /// Builds the network for images `[C, H, W]` and draws its parameters.
    ///
    /// # Errors
    /// An input or a width that the network cannot take.
    pub fn build(config: &experiment::Model, input: [usize; 3], classes: usize, seed: u64) -> Result<Self> {
        if input.contains(&0) || classes == 0 {
            let message = format!("images of {input:?} and {classes} classes leave nothing to learn");
            return Err(Error::argument("model", message));
        }
        let mut parameters = Parameters::default();
        let mut builder = Builder::new(&mut parameters, seed)
            .with_weight_init(weight_init(config.init))
            .with_winograd(config.winograd);
        let plan = Plan { config, input, classes };
        let network = match config.name {
            ModelName::Mlp => mlp::build(&plan, &mut builder),
            ModelName::SmallCnn => small_cnn::build(&plan, &mut builder),
            ModelName::MnistCnn => mnist_cnn::build(&plan, &mut builder),
            ModelName::CifarCnn => cifar_cnn::build(&plan, &mut builder),
            ModelName::Vgg7 | ModelName::Vgg11 | ModelName::Vgg13 | ModelName::Vgg16 | ModelName::Vgg19 => {
                vgg::build(&plan, &mut builder)
            }
            ModelName::ResNet10
            | ModelName::ResNet14
            | ModelName::ResNet20
            | ModelName::ResNet32
            | ModelName::ResNet44
            | ModelName::ResNet56 => cifar_resnet::build(&plan, &mut builder),
            ModelName::ResNet18 | ModelName::ResNet34 => resnet::build(&plan, &mut builder, resnet::Kind::Basic),
            ModelName::ResNet50 => resnet::build(&plan, &mut builder, resnet::Kind::Bottleneck),
            ModelName::MobileNetV1 => mobilenet::build(&plan, &mut builder, &mobilenet::A),
            ModelName::MobileNetB => mobilenet::build(&plan, &mut builder, &mobilenet::B),
        }?;
        let model = Model {
            name: config.name,
            parameters,
            network: Arc::new(network),
            backward: Arc::new(Backward::default()),
            inputs: Arc::default(),
            sparse: Arc::default(),
            sparse_answers: Arc::default(),
            input,
            classes,
        };
        for pattern in config.neurons.keys() {
            model.layer_matching("neurons", pattern)?;
        }
        // Walking once finds an image that is too small for the network before any is given.
        model.summary()?;
        Ok(model)
    }

    /// Chooses the backward mode of each composite.
    ///
    /// # Errors
    /// A pattern that matches no composite.
    pub fn set_backward(&mut self, backward: &Backward) -> Result<()> {
        for wanted in backward.layers.keys() {
            self.layer_matching("backward", wanted)?;
        }
        self.backward = Arc::new(backward.clone());
        Ok(())
    }

    /// Refuses a pattern of `key` that matches no composite.
    fn layer_matching(&self, key: &'static str, wanted: &str) -> Result<()> {
        let composites = self.composites();
        if composites.iter().any(|name| pattern::matches(wanted, name)) {
            return Ok(());
        }
        let message = format!("no layer of {} matches {wanted}; its layers are {}", self.name, composites.join(", "));
        Err(Error::argument(key, message))
    }

    /// Logits `[N, classes]` for images `[N, C, H, W]`. Gradients flow to the leaves that `leaves` made on `tape`; in training the
    /// batch statistics are emitted as effects of the tape.
    ///
    /// # Errors
    /// Images of another shape, or leaves of another model.
    pub fn forward(&self, tape: &mut Tape, leaves: &Leaves, images: &Var, phase: Phase) -> Result<Var> {
        let context = Context::new(phase, leaves, self.backward.clone())
            .with_inputs(self.inputs.clone())
            .with_sparse(self.sparse_in(phase));
        self.forward_in(tape, images, &context)
    }

    pub(super) fn forward_in(&self, tape: &mut Tape, images: &Var, context: &Context) -> Result<Var> {
        let fits = images.shape().split_first().is_some_and(|(_, image)| image == self.input);
        if !fits || context.count() != self.parameters.parameters().len() {
            let message = format!("{} takes [N, C, H, W] of {:?}, found {}", self.name, self.input, images.shape());
            return Err(Error::shape("model", message));
        }
        self.network.forward(tape, images, context)
    }

    /// Logits for images, with running statistics and without dropout; nothing is recorded.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn infer(&self, images: &Tensor) -> Result<Tensor> {
        self.infer_with(&self.parameters, images)
    }

    /// As [`infer`](Self::infer) with other values of the parameters, such as their moving average.
    ///
    /// # Errors
    /// Images of another shape, or parameters of another model.
    pub fn infer_with(&self, parameters: &Parameters, images: &Tensor) -> Result<Tensor> {
        let (leaves, images) = (Leaves::constant(parameters), Var::constant(images.clone()));
        Ok(self.forward(&mut Tape::new(), &leaves, &images, Phase::Evaluate)?.into_value())
    }

    /// Quantizes the inputs of some projections from now on.
    pub(crate) fn set_inputs(&mut self, inputs: Inputs) {
        self.inputs = Arc::new(inputs);
    }

    /// The projections whose inputs are quantized.
    pub(crate) fn inputs(&self) -> &Arc<Inputs> {
        &self.inputs
    }

    /// Trains some projections on sparse kernels from now on; answers are those of dense ones unless [`set_sparse_answers`](Self::set_sparse_answers) follows.
    pub fn set_sparse(&mut self, layers: SparseLayers) {
        self.sparse = Arc::new(layers);
        self.sparse_answers = Arc::default();
    }

    /// Answers with some projections on sparse kernels from now on.
    pub fn set_sparse_answers(&mut self, layers: SparseLayers) {
        self.sparse_answers = Arc::new(layers);
    }

    /// The projections on sparse kernels in that phase.
    pub(super) fn sparse_in(&self, phase: Phase) -> Arc<SparseLayers> {
        let layers = if matches!(phase, Phase::Train { .. }) { &self.sparse } else { &self.sparse_answers };
        layers.clone()
    }

    /// Takes over which projections of another network of this kind are on sparse kernels.
    pub(crate) fn take_sparse(&mut self, other: &Model) {
        (self.sparse, self.sparse_answers) = (other.sparse.clone(), other.sparse_answers.clone());
    }

    /// The projections that train on sparse kernels.
    pub fn sparse(&self) -> &SparseLayers {
        &self.sparse
    }

    /// This network prepared for answers only, as it is now: see [`Folded`].
    ///
    /// # Errors
    /// None for a network that was built here.
    pub fn folded(&self) -> Result<Folded> {
        Folded::new(self, &self.network)
    }

    /// Takes the batch statistics of a forward pass into the running ones; give it what
    /// [`Tape::take_effects`] returns.
    ///
    /// # Errors
    /// Effects of something other than this model.
    pub fn apply(&mut self, effects: &[Effect]) -> Result<()> {
        self.apply_share(effects, MOMENTUM)
    }

    /// As [`apply`](Self::apply) with that share of the batch's statistics in the new ones.
    pub(crate) fn apply_share(&mut self, effects: &[Effect], share: f64) -> Result<()> {
        effects.iter().try_for_each(|effect| update_running(&mut self.parameters, effect, share))
    }

    /// Parameters and running statistics.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Parameters and running statistics, for updates of their values.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Which network it is.
    pub fn name(&self) -> ModelName {
        self.name
    }

    /// `[C, H, W]` of an image.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Number of logits.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The tree of layers.
    pub fn network(&self) -> &Sequential {
        &self.network
    }

    /// Names of the parts whose backward mode can be chosen, outermost first.
    pub fn composites(&self) -> Vec<&str> {
        self.network.composites().into_iter().flat_map(Composite::paths).collect()
    }

    /// Names of the innermost parts whose backward mode can be chosen.
    pub fn units(&self) -> Vec<&str> {
        self.network.composites().into_iter().flat_map(Composite::units).map(Composite::path).collect()
    }

    /// Whether any layer is quadratic.
    pub fn is_quadratic(&self) -> bool {
        let mut units = self.network.composites().into_iter().flat_map(Composite::units);
        units.any(|unit| matches!(unit.body(), Body::Unit(unit) if unit.is_quadratic()))
    }

    /// Names of the weights of each projection that a batch normalisation directly follows, and of that normalisation's running mean. Weights
    /// that several projections share stand in several rows.
    pub fn normalised(&self) -> Vec<[&str; 2]> {
        let (parameters, buffers) = (self.parameters.parameters(), self.parameters.buffers());
        let positions = self.network.composites().into_iter().flat_map(Composite::normalised);
        positions.map(|[weight, mean]| [parameters[weight].name.as_str(), buffers[mean].name.as_str()]).collect()
    }

    /// One row a layer, for one image.
    ///
    /// # Errors
    /// The image is too small for the network.
    pub fn summary(&self) -> Result<Vec<Row>> {
        let mut walk = Walk::new();
        let output = self.network.describe(&self.input, &mut walk)?;
        if output != [self.classes] {
            return Err(Error::shape("model", format!("the network gives {output:?}, not {} logits", self.classes)));
        }
        Ok(walk.into_rows())
    }
}

fn weight_init(name: InitName) -> Option<Init> {
    let (mode, nonlinearity) = (FanMode::FanIn, Nonlinearity::Relu);
    match name {
        InitName::Default => None,
        InitName::KaimingNormal => Some(Init::KaimingNormal { mode, nonlinearity }),
        InitName::KaimingUniform => Some(Init::KaimingUniform { mode, nonlinearity }),
        InitName::XavierNormal => Some(Init::XavierNormal { gain: 1.0 }),
        InitName::XavierUniform => Some(Init::XavierUniform { gain: 1.0 }),
    }
}
