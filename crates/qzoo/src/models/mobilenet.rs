//! MobileNetV1 (Howard et al., 2017, arXiv:1704.04861): depthwise 3x3 and pointwise 1x1 convolutions, each with batch norm and ReLU.
//!
//! For images below 64 pixels the stem has stride 1 instead of the paper's 2, as is usual for CIFAR: 32x32 then ends at 2x2. Larger
//! images are halved by the stem, and 224x224 ends at the paper's 7x7.

use super::plan::{ConvUnit, Plan};
use crate::nn::{Builder, Conv2dConfig, Layer, Sequential};
use qgraph::Result;

const STEM: usize = 32;
/// Smallest side at which the stem has stride 2.
const LARGE: usize = 64;
/// Output channels and stride of each block.
pub(super) type Blocks = [(usize, usize)];

/// Of the paper.
pub(super) const A: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// Of QMobileNet (Xu et al., 2022), which has fewer layers of 512 channels.
pub(super) const B: [(usize, usize); 8] =
    [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (1024, 2)];

pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>, blocks: &Blocks) -> Result<Sequential> {
    let mut network = Sequential::new("");
    let mut channels = plan.channels(STEM);
    let [inputs, height, width] = plan.input;
    let stride = if height.min(width) < LARGE { 1 } else { 2 };
    network.push(
        plan.conv(builder, ConvUnit::new("conv1", "bn1", Conv2dConfig::three(inputs, channels, stride)).first_order())?,
    );
    let mut layers = Sequential::new("layers");
    let mut scope = builder.scope("layers");
    for (i, (outputs, stride)) in blocks.iter().copied().enumerate() {
        let outputs = plan.channels(outputs);
        layers.push(block(plan, &mut scope, &i.to_string(), Conv2dConfig::three(channels, outputs, stride))?);
        channels = outputs;
    }
    network.push(layers);
    network.push(Layer::GlobalAveragePool);
    if let Some(dropout) = plan.classifier_dropout() {
        network.push(dropout);
    }
    network.push(plan.classifier(builder, "fc", channels)?);
    Ok(network)
}

/// A depthwise convolution with the stride of `map`, and a pointwise one to its outputs.
fn block(plan: &Plan<'_>, builder: &mut Builder<'_>, name: &str, map: Conv2dConfig) -> Result<Sequential> {
    let depthwise = Conv2dConfig { outputs: map.inputs, groups: map.inputs, ..map };
    let pointwise = Conv2dConfig::one(map.inputs, map.outputs, 1);
    let mut scope = builder.scope(name);
    let mut block = Sequential::new(name);
    block.push(plan.conv(&mut scope, ConvUnit::new("conv1", "bn1", depthwise))?);
    block.push(plan.conv(&mut scope, ConvUnit::new("conv2", "bn2", pointwise))?);
    Ok(block)
}
