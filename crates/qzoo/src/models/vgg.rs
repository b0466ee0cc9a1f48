//! VGG for small images (Simonyan and Zisserman, 2015): the convolutions of the paper's configurations with batch norm, five
//! poolings, and one linear layer.

use super::plan::{ConvUnit, Plan};
use crate::nn::{Builder, Conv2dConfig, Layer, Pool, PoolKind, Sequential};
use qgraph::Result;

/// Output channels of the convolutions in each of the five stages, which end with a pooling.
pub(super) type Stages = [&'static [usize]; 5];

/// Of QVGG-7 (Xu et al., 2022).
pub(super) const Q7: Stages = [&[64; 2], &[128; 2], &[256], &[512], &[512]];
pub(super) const A: Stages = [&[64], &[128], &[256; 2], &[512; 2], &[512; 2]];
pub(super) const B: Stages = [&[64; 2], &[128; 2], &[256; 2], &[512; 2], &[512; 2]];
pub(super) const D: Stages = [&[64; 2], &[128; 2], &[256; 3], &[512; 3], &[512; 3]];
pub(super) const E: Stages = [&[64; 2], &[128; 2], &[256; 4], &[512; 4], &[512; 4]];

pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>, stages: &Stages) -> Result<Sequential> {
    let mut features = Sequential::new("features");
    let mut scope = builder.scope("features");
    // Names count every module, as in PyTorch's sequence: convolution, batch norm, activation, pooling.
    let (mut channels, mut module) = (plan.input[0], 0);
    for stage in stages {
        for outputs in *stage {
            let outputs = plan.channels(*outputs);
            let (conv, norm) = (module.to_string(), (module + 1).to_string());
            let map = Conv2dConfig::three(channels, outputs, 1);
            let mut unit = ConvUnit { bias: true, ..ConvUnit::new(&conv, &norm, map) };
            module += 3;
            if !plan.config.batch_norm {
                unit.norm = None;
                module -= 1;
            }
            features.push(plan.conv(&mut scope, unit)?);
            channels = outputs;
        }
        features.push(Layer::Pool(Pool::new(PoolKind::Max, 2, 2, 0)));
        module += 1;
    }
    let mut network = Sequential::new("");
    network.push(features);
    network.push(Layer::Flatten);
    if let Some(dropout) = plan.classifier_dropout() {
        network.push(dropout);
    }
    network.push(plan.classifier(builder, "classifier", plan.features(&network)?)?);
    Ok(network)
}
