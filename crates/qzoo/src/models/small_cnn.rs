//! A network of four convolutions that learns 32x32 images within minutes on two cores.

use super::plan::{ConvUnit, Plan};
use crate::nn::{Builder, Conv2dConfig, Layer, Pool, PoolKind, Sequential};
use qgraph::Result;

/// Channels of each convolution, and whether the image is halved behind it.
const TABLE: [(usize, bool); 4] = [(32, true), (32, false), (64, true), (64, false)];

pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>) -> Result<Sequential> {
    let mut network = Sequential::new("");
    let mut channels = plan.input[0];
    for (i, (outputs, pool)) in TABLE.into_iter().enumerate() {
        let outputs = plan.channels(outputs);
        let (conv, norm) = (format!("conv{}", i + 1), format!("bn{}", i + 1));
        let unit = ConvUnit::new(&conv, &norm, Conv2dConfig::three(channels, outputs, 1));
        network.push(plan.conv(builder, unit)?);
        if pool {
            network.push(Layer::Pool(Pool::new(PoolKind::Max, 2, 2, 0)));
        }
        channels = outputs;
    }
    network.push(Layer::GlobalAveragePool);
    if let Some(dropout) = plan.classifier_dropout() {
        network.push(dropout);
    }
    network.push(plan.classifier(builder, "fc", channels)?);
    Ok(network)
}
