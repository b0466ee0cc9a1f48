//! Thin residual networks for 32x32 images (He et al., 2016, section 4.2): a stem and three stages of basic blocks with 16, 32 and 64
//! channels. Where a stage changes the shape, the shortcut is a 1x1 convolution with batch norm ("option B").

use super::plan::{ConvUnit, Plan};
use super::resnet::{basic_block, stage};
use crate::nn::{Builder, Conv2dConfig, Layer, Sequential};
use qgraph::Result;

/// Channels and first stride of each stage.
const STAGES: [(usize, usize); 3] = [(16, 1), (32, 2), (64, 2)];

/// `n` blocks in every stage make a network of `6 · n + 2` layers.
pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>) -> Result<Sequential> {
    let blocks = plan.blocks::<3>()?;
    let mut network = Sequential::new("");
    let mut channels = plan.channels(STAGES[0].0);
    network.push(
        plan.conv(
            builder,
            ConvUnit::new("conv1", "bn1", Conv2dConfig::three(plan.input[0], channels, 1)).first_order(),
        )?,
    );
    for (i, (outputs, stride)) in STAGES.into_iter().enumerate() {
        let outputs = plan.channels(outputs);
        let name = format!("layer{}", i + 1);
        network.push(stage(builder, &name, blocks[i], |builder, block| {
            let map = Conv2dConfig::three(channels, outputs, if block == "0" { stride } else { 1 });
            channels = outputs;
            basic_block(plan, builder, block, map, "shortcut")
        })?);
    }
    network.push(Layer::GlobalAveragePool);
    if let Some(dropout) = plan.classifier_dropout() {
        network.push(dropout);
    }
    network.push(plan.classifier(builder, "fc", channels)?);
    Ok(network)
}
