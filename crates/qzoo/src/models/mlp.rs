//! The fully connected network of the experiments on MNIST: linear, activation, batch norm for each width, and a classifier.

use super::plan::Plan;
use crate::init::Init;
use crate::nn::{
    Builder, Composite, Dropout, Layer, LinearConfig, Map, Order, ProjectionConfig, Sequential, UnitConfig,
};
use qgraph::Result;

/// Weights as Glorot and Bengio draw them, biases 0.
fn linear<'a>(name: &'a str, inputs: usize, outputs: usize) -> ProjectionConfig<'a> {
    ProjectionConfig {
        weight_init: Init::XavierUniform { gain: 1.0 },
        bias_init: Some(Init::Constant(0.0)),
        ..ProjectionConfig::new(name, Map::Linear(LinearConfig { inputs, outputs }))
    }
}

pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>) -> Result<Sequential> {
    let mut network = Sequential::new("");
    network.push(Layer::Flatten);
    let mut features = plan.input.iter().product();
    let widths = &plan.config.widths;
    for (i, &width) in widths.iter().enumerate() {
        let (name, norm) = (format!("fc{}", i + 1), format!("bn{}", i + 1));
        let unit = UnitConfig {
            projection: linear(&name, features, width),
            neuron: plan.neuron(builder, &name),
            norm: plan.config.batch_norm.then_some(&norm),
            activation: Some(plan.config.activation),
            order: Order::ActivationFirst,
        };
        network.push(Composite::unit(builder, unit)?);
        if let Some(probability) = plan.config.dropout.filter(|p| *p > 0.0) {
            network.push(Layer::Dropout(Dropout::new(probability, i)));
        }
        features = width;
    }
    let name = format!("fc{}", widths.len() + 1);
    network.push(plan.classify_by(builder, linear(&name, features, plan.classes))?);
    Ok(network)
}
