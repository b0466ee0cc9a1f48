//! The CIFAR-10 network of Lybrand and Saab, "A greedy algorithm for quantizing neural networks" (JMLR 2021): six convolutions
//! and two linear layers, each convolution followed by ReLU and then batch norm.

use super::plan::Plan;
use crate::init::{FanMode, Init, Nonlinearity};
use crate::nn::{
    Builder, Composite, Conv2dConfig, Dropout, Layer, LinearConfig, Map, Order, Pool, PoolKind, ProjectionConfig,
    Sequential, UnitConfig,
};
use qgraph::Result;

/// Channels of the two convolutions of a stage, and the dropout behind its pooling.
const STAGES: [(usize, f64); 3] = [(32, 0.2), (64, 0.3), (128, 0.4)];
const HIDDEN: usize = 128;
const HIDDEN_DROPOUT: f64 = 0.5;
const HE_UNIFORM: Init = Init::KaimingUniform { mode: FanMode::FanIn, nonlinearity: Nonlinearity::Relu };

/// A projection, the activation and batch norm number `number`.
fn unit(plan: &Plan<'_>, builder: &mut Builder<'_>, name: &str, map: Map, number: usize) -> Result<Composite> {
    let projection = ProjectionConfig {
        weight_init: HE_UNIFORM,
        bias_init: Some(Init::Constant(0.0)),
        ..ProjectionConfig::new(name, map)
    };
    let norm = format!("bn{number}");
    let activation = Some(plan.config.activation);
    let neuron = plan.neuron(builder, name);
    let order = Order::ActivationFirst;
    Composite::unit(builder, UnitConfig { projection, neuron, norm: Some(&norm), activation, order })
}

pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>) -> Result<Sequential> {
    let dropout = |own: f64, number: usize| Layer::Dropout(Dropout::new(plan.config.dropout.unwrap_or(own), number));
    let mut network = Sequential::new("");
    let (mut channels, mut number) = (plan.input[0], 0);
    for (stage, (outputs, share)) in STAGES.into_iter().enumerate() {
        let outputs = plan.channels(outputs);
        for _ in 0..2 {
            number += 1;
            let map = Map::Conv2d(Conv2dConfig::three(channels, outputs, 1));
            network.push(unit(plan, builder, &format!("conv{number}"), map, number)?);
            channels = outputs;
        }
        network.push(Layer::Pool(Pool::new(PoolKind::Max, 2, 2, 0)));
        network.push(dropout(share, stage));
    }
    network.push(Layer::Flatten);
    let hidden = plan.channels(HIDDEN);
    let map = Map::Linear(LinearConfig { inputs: plan.features(&network)?, outputs: hidden });
    network.push(unit(plan, builder, "fc1", map, number + 1)?);
    network.push(dropout(HIDDEN_DROPOUT, STAGES.len()));
    network.push(plan.classifier(builder, "fc2", hidden)?);
    Ok(network)
}
