//! Residual networks of the ImageNet kind (He et al., 2016): a 7x7 stem with pooling and four stages. Bottlenecks have the stride in
//! their 3x3 convolution, as in torchvision.

use super::plan::{ConvUnit, Plan};
use crate::experiment::ModelName;
use crate::nn::{Builder, Composite, Conv2dConfig, Layer, Pool, PoolKind, Residual, Sequential};
use qgraph::Result;

/// What the blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Two convolutions of 3x3.
    Basic,
    /// 1x1, 3x3, 1x1, with four times as many channels at the ends.
    Bottleneck,
}

const EXPANSION: usize = 4;

/// Blocks of each stage of the named network; none where it has no blocks.
pub(crate) fn blocks(name: ModelName) -> &'static [usize] {
    match name {
        ModelName::ResNet10 => &[1; 3],
        ModelName::ResNet14 => &[2; 3],
        ModelName::ResNet20 => &[3; 3],
        ModelName::ResNet32 => &[5; 3],
        ModelName::ResNet44 => &[7; 3],
        ModelName::ResNet56 => &[9; 3],
        ModelName::ResNet18 => &[2, 2, 2, 2],
        ModelName::ResNet34 | ModelName::ResNet50 => &[3, 4, 6, 3],
        _ => &[],
    }
}

pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>, kind: Kind) -> Result<Sequential> {
    let blocks = plan.blocks::<4>()?;
    let mut network = Sequential::new("");
    let mut channels = plan.channels(64);
    let stem = Conv2dConfig { kernel: 7, padding: 3, ..Conv2dConfig::three(plan.input[0], channels, 2) };
    network.push(plan.conv(builder, ConvUnit::new("conv1", "bn1", stem).first_order())?);
    network.push(Layer::Pool(Pool::new(PoolKind::Max, 3, 2, 1)));
    for (i, count) in blocks.into_iter().enumerate() {
        let width = plan.channels(64 << i);
        let first_stride = if i == 0 { 1 } else { 2 };
        network.push(stage(builder, &format!("layer{}", i + 1), count, |builder, block| {
            let map = Conv2dConfig::three(channels, width, if block == "0" { first_stride } else { 1 });
            match kind {
                Kind::Basic => {
                    channels = width;
                    basic_block(plan, builder, block, map, "downsample")
                }
                Kind::Bottleneck => {
                    channels = width * EXPANSION;
                    bottleneck(plan, builder, block, map)
                }
            }
        })?);
    }
    network.push(Layer::GlobalAveragePool);
    if let Some(dropout) = plan.classifier_dropout() {
        network.push(dropout);
    }
    network.push(plan.classifier(builder, "fc", channels)?);
    Ok(network)
}

/// `count` blocks in a scope of that name; `block` is given the builder and the number of each.
pub(super) fn stage(
    builder: &mut Builder<'_>,
    name: &str,
    count: usize,
    mut block: impl FnMut(&mut Builder<'_>, &str) -> Result<Composite>,
) -> Result<Sequential> {
    let mut stage = Sequential::new(name);
    let mut scope = builder.scope(name);
    for i in 0..count {
        stage.push(block(&mut scope, &i.to_string())?);
    }
    Ok(stage)
}

/// Two convolutions of 3x3, the first as `map` says.
pub(super) fn basic_block(
    plan: &Plan<'_>,
    builder: &mut Builder<'_>,
    name: &str,
    map: Conv2dConfig,
    shortcut: &str,
) -> Result<Composite> {
    Composite::residual(builder, name, |builder| {
        let second = Conv2dConfig::three(map.outputs, map.outputs, 1);
        let units = vec![
            plan.conv(builder, ConvUnit::new("conv1", "bn1", map))?,
            plan.conv(builder, ConvUnit::new("conv2", "bn2", second))?,
        ];
        let shortcut = projection_shortcut(plan, builder, shortcut, Conv2dConfig { ..map })?;
        Residual::new(units, shortcut)
    })
}

/// 1x1 to the width of `map`, its 3x3, and 1x1 to four times that.
fn bottleneck(plan: &Plan<'_>, builder: &mut Builder<'_>, name: &str, map: Conv2dConfig) -> Result<Composite> {
    Composite::residual(builder, name, |builder| {
        let (inputs, width, outputs) = (map.inputs, map.outputs, map.outputs * EXPANSION);
        let units = vec![
            plan.conv(builder, ConvUnit::new("conv1", "bn1", Conv2dConfig::one(inputs, width, 1)))?,
            plan.conv(builder, ConvUnit::new("conv2", "bn2", Conv2dConfig { inputs: width, ..map }))?,
            plan.conv(builder, ConvUnit::new("conv3", "bn3", Conv2dConfig::one(width, outputs, 1)))?,
        ];
        let shortcut = projection_shortcut(plan, builder, "downsample", Conv2dConfig { outputs, ..map })?;
        Residual::new(units, shortcut)
    })
}

/// 1x1 convolution and batch norm where a block of that geometry changes the shape.
fn projection_shortcut(
    plan: &Plan<'_>,
    builder: &mut Builder<'_>,
    name: &str,
    map: Conv2dConfig,
) -> Result<Option<Composite>> {
    if map.stride == 1 && map.inputs == map.outputs {
        return Ok(None);
    }
    let (conv, norm) = (format!("{name}.0"), format!("{name}.1"));
    let map = Conv2dConfig::one(map.inputs, map.outputs, map.stride);
    plan.conv(builder, ConvUnit { activated: false, ..ConvUnit::new(&conv, &norm, map).first_order() }).map(Some)
}
