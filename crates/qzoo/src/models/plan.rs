use super::resnet;
use crate::experiment::{self, NeuronName};
use crate::init::Init;
use crate::nn::{
    Builder, Composite, Conv2dConfig, Dropout, Layer, LinearConfig, Map, NeuronConfig, Order, ProjectionConfig,
    Sequential, UnitConfig, Walk,
};
use qgraph::{Error, Result};

/// What a builder of a network is given, with the steps that many networks share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) config: &'a experiment::Model,
    /// `[C, H, W]` of an image.
    pub(super) input: [usize; 3],
    pub(super) classes: usize,
}

/// A convolution with its normalisation and activation, as a model's table gives it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvUnit<'a> {
    pub(super) conv: &'a str,
    /// Name of the normalisation; `None` for none, and then the convolution has a bias.
    pub(super) norm: Option<&'a str>,
    pub(super) map: Conv2dConfig,
    pub(super) bias: bool,
    pub(super) activated: bool,
    /// Whether it has the neuron of the experiment, or is first-order unless the experiment names it in full.
    pub(super) quadratic: bool,
    pub(super) init: Init,
    /// Initial weights of each projection where its neuron is quadratic.
    pub(super) quadratic_init: Init,
}

impl<'a> ConvUnit<'a> {
    /// Convolution without bias, normalisation, activation, with the initial weights of residual networks.
    pub(super) fn new(conv: &'a str, norm: &'a str, map: Conv2dConfig) -> Self {
        ConvUnit {
            conv,
            norm: Some(norm),
            map,
            bias: false,
            activated: true,
            quadratic: true,
            init: Init::RESNET,
            // As QuadraLib's residual networks draw them: larger weights, which the normalisation of each projection hides, learn more slowly.
            quadratic_init: Init::LAYER_DEFAULT,
        }
    }

    /// The same without quadratic terms, unless the experiment names this layer in full.
    pub(super) fn first_order(self) -> Self {
        ConvUnit { quadratic: false, ..self }
    }
}

impl Plan<'_> {
    /// The model's number of channels times the width of the experiment, at least 1.
    pub(super) fn channels(&self, channels: usize) -> usize {
        self.config.channels(channels)
    }

    /// Blocks of each stage of a residual network: those of the experiment, or the named network's.
    pub(super) fn blocks<const STAGES: usize>(&self) -> Result<[usize; STAGES]> {
        let blocks = self.config.blocks.as_deref().unwrap_or(resnet::blocks(self.config.name));
        blocks.try_into().map_err(|_| {
            let message = format!("{} has {STAGES} stages, not {}", self.config.name, blocks.len());
            Error::argument("model", message)
        })
    }

    /// The neuron of the layer of that name within the builder's path.
    pub(super) fn neuron(&self, builder: &Builder<'_>, name: &str) -> NeuronConfig {
        self.of(self.config.neuron_of(&builder.join(name)))
    }

    /// The neuron of a layer that is first-order in the model's own table: another one only where `neurons` has its full name.
    pub(super) fn named_neuron(&self, builder: &Builder<'_>, name: &str) -> NeuronConfig {
        match self.config.neurons.get(&builder.join(name)) {
            Some(name) => self.of(*name),
            None => NeuronConfig::LINEAR,
        }
    }

    fn of(&self, name: NeuronName) -> NeuronConfig {
        let experiment::Model { rank, branch_norm, branch_activation, quadratic_init, .. } = *self.config;
        let has_form = matches!(name, NeuronName::Type1 | NeuronName::Type1Pure | NeuronName::Type1And2);
        NeuronConfig { name, rank: rank.filter(|_| has_form), branch_norm, branch_activation, init: quadratic_init }
    }

    /// Builds a convolution, its normalisation and its activation.
    pub(super) fn conv(&self, builder: &mut Builder<'_>, unit: ConvUnit<'_>) -> Result<Composite> {
        let neuron =
            if unit.quadratic { self.neuron(builder, unit.conv) } else { self.named_neuron(builder, unit.conv) };
        let init = if neuron.name == NeuronName::Linear { unit.init } else { unit.quadratic_init };
        let projection = ProjectionConfig {
            bias: unit.bias,
            weight_init: init,
            bias_init: Some(Init::Constant(0.0)),
            ..ProjectionConfig::new(unit.conv, Map::Conv2d(unit.map))
        };
        let activation = unit.activated.then_some(self.config.activation);
        let order = Order::NormFirst;
        Composite::unit(builder, UnitConfig { projection, neuron, norm: unit.norm, activation, order })
    }

    /// Dropout in front of the classifier where the experiment asks for it.
    pub(super) fn classifier_dropout(&self) -> Option<Layer> {
        self.config.dropout.filter(|p| *p > 0.0).map(|p| Layer::Dropout(Dropout::new(p, 0)))
    }

    /// The classifier, with PyTorch's initial values; linear unless the experiment names it in full.
    pub(super) fn classifier(&self, builder: &mut Builder<'_>, name: &str, features: usize) -> Result<Composite> {
        let map = Map::Linear(LinearConfig { inputs: features, outputs: self.classes });
        self.classify_by(builder, ProjectionConfig::new(name, map))
    }

    /// The classifier with that projection.
    pub(super) fn classify_by(&self, builder: &mut Builder<'_>, projection: ProjectionConfig<'_>) -> Result<Composite> {
        let neuron = self.named_neuron(builder, projection.name);
        Composite::unit(builder, UnitConfig { neuron, ..UnitConfig::plain(projection) })
    }

    /// Number of features that the layers so far give for one image.
    pub(super) fn features(&self, layers: &Sequential) -> Result<usize> {
        Ok(layers.describe(&self.input, &mut Walk::new())?.iter().product())
    }
}
