//! The network for MNIST of QuadraLib's demonstration of hybrid back-propagation: two convolutions, a hidden layer and the classifier, whose neuron
//! is the quadratic one there. It has no batch norm.

use super::plan::Plan;
use crate::nn::{
    Builder, Composite, Conv2dConfig, Dropout, Layer, LinearConfig, Map, Order, Pool, PoolKind, ProjectionConfig,
    Sequential, UnitConfig,
};
use qgraph::Result;

/// Channels of the two convolutions.
const CHANNELS: [usize; 2] = [32, 64];
const HIDDEN: usize = 128;
/// Behind the pooling and behind the hidden layer.
const DROPOUT: [f64; 2] = [0.25, 0.5];

/// A projection with PyTorch's initial values, and the activation.
fn unit(plan: &Plan<'_>, builder: &mut Builder<'_>, name: &str, map: Map) -> Result<Composite> {
    let neuron = plan.neuron(builder, name);
    let activation = Some(plan.config.activation);
    let projection = ProjectionConfig::new(name, map);
    Composite::unit(builder, UnitConfig { projection, neuron, norm: None, activation, order: Order::NormFirst })
}

pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>) -> Result<Sequential> {
    let dropout = |number: usize| {
        let share = plan.config.dropout.unwrap_or(DROPOUT[number]);
        Layer::Dropout(Dropout::new(share, number))
    };
    let mut network = Sequential::new("");
    let mut channels = plan.input[0];
    for (i, outputs) in CHANNELS.into_iter().enumerate() {
        let outputs = plan.channels(outputs);
        let map = Map::Conv2d(Conv2dConfig::three(channels, outputs, 1));
        network.push(unit(plan, builder, &format!("conv{}", i + 1), map)?);
        channels = outputs;
    }
    network.push(Layer::Pool(Pool::new(PoolKind::Max, 2, 2, 0)));
    network.push(dropout(0));
    network.push(Layer::Flatten);
    let hidden = plan.channels(HIDDEN);
    let map = Map::Linear(LinearConfig { inputs: plan.features(&network)?, outputs: hidden });
    network.push(unit(plan, builder, "fc1", map)?);
    network.push(dropout(1));
    network.push(plan.classifier(builder, "fc2", hidden)?);
    Ok(network)
}
