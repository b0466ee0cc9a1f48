//! VGG (Simonyan and Zisserman, 2015): a table of convolutions of 3x3 with batch norm and of poolings, and one linear layer, as it is for small images, or several, as for ImageNet.

use super::plan::{ConvUnit, Plan};
use crate::experiment::{ModelName, VggLayer};
use crate::init::{FanMode, Init, Nonlinearity};
use crate::nn::{
    Builder, Composite, Conv2dConfig, Dropout, Layer, LinearConfig, Map, Pool, PoolKind, ProjectionConfig, Sequential,
    UnitConfig,
};
use qgraph::{Error, Result};

const M: VggLayer = VggLayer::Pool;
const C64: VggLayer = VggLayer::Conv(64);
const C128: VggLayer = VggLayer::Conv(128);
const C256: VggLayer = VggLayer::Conv(256);
const C512: VggLayer = VggLayer::Conv(512);

/// The table of the named network; none where it is no VGG. `vgg7` is QVGG-7 of Xu et al. (2022), the others are configurations A, B, D and E.
#[rustfmt::skip]
pub(crate) fn table(name: ModelName) -> &'static [VggLayer] {
    match name {
        ModelName::Vgg7 => &[C64, C64, M, C128, C128, M, C256, M, C512, M, C512, M],
        ModelName::Vgg11 => &[C64, M, C128, M, C256, C256, M, C512, C512, M, C512, C512, M],
        ModelName::Vgg13 => &[C64, C64, M, C128, C128, M, C256, C256, M, C512, C512, M, C512, C512, M],
        ModelName::Vgg16 => &[C64, C64, M, C128, C128, M, C256, C256, C256, M, C512, C512, C512, M, C512, C512, C512, M],
        ModelName::Vgg19 => &[
            C64, C64, M, C128, C128, M, C256, C256, C256, C256, M, C512, C512, C512, C512, M, C512, C512, C512, C512, M,
        ],
        _ => &[],
    }
}

/// Initial weights of every convolution, those of quadratic neurons included, as in QuadraLib.
const INIT: Init = Init::KaimingNormal { mode: FanMode::FanIn, nonlinearity: Nonlinearity::Relu };

pub(super) fn build(plan: &Plan<'_>, builder: &mut Builder<'_>) -> Result<Sequential> {
    let table = plan.config.layers.as_deref().unwrap_or(table(plan.config.name));
    if table.is_empty() {
        return Err(Error::argument("model", "a VGG network needs a table of layers"));
    }
    let mut features = Sequential::new("features");
    let mut scope = builder.scope("features");
    // Names count every module, as in PyTorch's sequence: convolution, batch norm, activation, pooling.
    let (mut channels, mut module) = (plan.input[0], 0);
    for layer in table {
        let VggLayer::Conv(outputs) = layer else {
            features.push(Layer::Pool(Pool::new(PoolKind::Max, 2, 2, 0)));
            module += 1;
            continue;
        };
        let outputs = plan.channels(*outputs);
        let (conv, norm) = (module.to_string(), (module + 1).to_string());
        let map = Conv2dConfig::three(channels, outputs, 1);
        let unit = ConvUnit { init: INIT, quadratic_init: INIT, ..ConvUnit::new(&conv, &norm, map) };
        let mut unit = ConvUnit { bias: true, ..unit };
        module += 3;
        if !plan.config.batch_norm {
            unit.norm = None;
            module -= 1;
        }
        features.push(plan.conv(&mut scope, unit)?);
        channels = outputs;
    }
    let mut network = Sequential::new("");
    network.push(features);
    network.push(Layer::Flatten);
    if let Some(dropout) = plan.classifier_dropout().filter(|_| plan.config.classifier_widths.is_empty()) {
        network.push(dropout);
    }
    let features = plan.features(&network)?;
    if plan.config.classifier_widths.is_empty() {
        network.push(plan.classify_by(builder, linear("classifier", features, plan.classes))?);
    } else {
        network.push(classifier(plan, builder, features)?);
    }
    Ok(network)
}

fn linear(name: &str, inputs: usize, outputs: usize) -> ProjectionConfig<'_> {
    ProjectionConfig {
        weight_init: Init::Normal { mean: 0.0, deviation: 0.01 },
        bias_init: Some(Init::Constant(0.0)),
        ..ProjectionConfig::new(name, Map::Linear(LinearConfig { inputs, outputs }))
    }
}

/// Linear layers with activation and dropout, and one for the classes.
fn classifier(plan: &Plan<'_>, builder: &mut Builder<'_>, mut features: usize) -> Result<Sequential> {
    // Names count linear layer, activation and dropout, as in torchvision's sequence.
    const MODULES: usize = 3;
    let mut layers = Sequential::new("classifier");
    let mut scope = builder.scope("classifier");
    for (i, &width) in plan.config.classifier_widths.iter().enumerate() {
        let name = (MODULES * i).to_string();
        let unit = UnitConfig {
            neuron: plan.neuron(&scope, &name),
            activation: Some(plan.config.activation),
            ..UnitConfig::plain(linear(&name, features, width))
        };
        layers.push(Composite::unit(&mut scope, unit)?);
        if let Some(probability) = plan.config.dropout.filter(|p| *p > 0.0) {
            layers.push(Layer::Dropout(Dropout::new(probability, i)));
        }
        features = width;
    }
    let name = (MODULES * plan.config.classifier_widths.len()).to_string();
    layers.push(plan.classify_by(&mut scope, linear(&name, features, plan.classes))?);
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use crate::experiment::{self, ModelName};
    use crate::models::Model;

    /// VGG-16 for ImageNet has the names of torchvision's. An eighth of the width keeps the test small.
    #[test]
    fn vgg16_for_imagenet_is_that_of_torchvision() {
        let config = experiment::Model {
            name: ModelName::Vgg16,
            width: 0.125,
            batch_norm: false,
            classifier_widths: vec![32, 16],
            dropout: Some(0.5),
            ..Default::default()
        };
        let model = Model::build(&config, [3, 224, 224], 10, 0).unwrap();
        let names: Vec<&str> = model.parameters().parameters().iter().map(|p| p.name.as_str()).collect();
        let convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28].map(|i| format!("features.{i}"));
        let layers = convolutions.into_iter().chain([0, 3, 6].map(|i| format!("classifier.{i}")));
        let expected: Vec<String> =
            layers.flat_map(|name| ["weight", "bias"].map(|part| format!("{name}.{part}"))).collect();
        assert_eq!(names, expected);
        // By hand: convolutions of 8 to 64 channels, then 64 · 7 · 7 -> 32 -> 16 -> 10.
        let channels = [3, 8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64];
        let convolutions: usize = channels.windows(2).map(|pair| pair[0] * pair[1] * 9 + pair[1]).sum();
        assert_eq!(model.parameters().count(), convolutions + 3136 * 32 + 32 + 32 * 16 + 16 + 160 + 10);
    }
}
