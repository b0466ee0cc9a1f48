//! The layers that are looked at.

use crate::experiment::{pattern, suggest};
use crate::models::Model;
use crate::nn::{Activation, Body, Composite, Map};
use crate::{Error, Result};
use serde::Serialize;

/// A unit of a network: a linear or convolutional layer or a quadratic neuron, with normalisation and activation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerInfo {
    /// Its full name.
    pub name: String,
    /// Whether it sees images.
    pub is_convolution: bool,
    /// Whether it is a quadratic neuron.
    pub is_quadratic: bool,
    /// Bounds of its results that its activation approaches or reaches; `None` where there is no upper bound, or a normalisation behind it.
    pub bounds: Option<[f32; 2]>,
}

impl LayerInfo {
    /// All units of a model, in the order of their parameters.
    pub(super) fn of(model: &Model) -> Vec<LayerInfo> {
        let info = |composite: &Composite| match composite.body() {
            Body::Unit(unit) => Some(LayerInfo {
                name: composite.path().to_string(),
                is_convolution: matches!(unit.map(), Map::Conv2d(_)),
                is_quadratic: unit.is_quadratic(),
                bounds: unit.last_activation().and_then(bounds),
            }),
            Body::Residual(_) => None,
        };
        model.network().composites().into_iter().flat_map(Composite::units).filter_map(info).collect()
    }
}

fn bounds(activation: Activation) -> Option<[f32; 2]> {
    match activation {
        Activation::Tanh => Some([-1.0, 1.0]),
        Activation::Sigmoid => Some([0.0, 1.0]),
        Activation::Relu6 => Some([0.0, 6.0]),
        _ => None,
    }
}

/// Positions of the layers that a pattern matches (`*` any characters, `?` one); without a pattern the first, the middle
/// and the last quadratic layer, or convolution where there is none, or layer where there is none of these either.
///
/// # Errors
/// The pattern matches no layer; the message names the nearest.
pub fn select(layers: &[LayerInfo], wanted: Option<&str>) -> Result<Vec<usize>> {
    if let Some(wanted) = wanted {
        let found: Vec<usize> = (0..layers.len()).filter(|i| pattern::matches(wanted, &layers[*i].name)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let names = || layers.iter().map(|layer| layer.name.as_str());
        let all = || format!("the layers are {}", names().collect::<Vec<_>>().join(", "));
        let hint = suggest::did_you_mean(wanted, names()).unwrap_or_else(all);
        return Err(Error::Config(format!("no layer matches {wanted:?}; {hint}")));
    }
    let those = |wanted: &dyn Fn(&LayerInfo) -> bool| (0..layers.len()).filter(|i| wanted(&layers[*i])).collect();
    let kinds: [Vec<usize>; 3] =
        [those(&|layer| layer.is_quadratic), those(&|layer| layer.is_convolution), those(&|_| true)];
    let from = kinds.into_iter().find(|kind| !kind.is_empty()).unwrap_or_default();
    let mut chosen: Vec<usize> = match from.len() {
        0 => Vec::new(),
        n => vec![from[0], from[n / 2], from[n - 1]],
    };
    chosen.dedup();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Vec<LayerInfo> {
        let names = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "fc"];
        let layer = |name: &str| LayerInfo {
            name: name.into(),
            is_convolution: name != "fc",
            is_quadratic: false,
            bounds: None,
        };
        names.map(layer).to_vec()
    }

    #[test]
    fn patterns_choose_layers() {
        assert_eq!(select(&layers(), None).unwrap(), [0, 2, 3]);
        assert_eq!(select(&layers(), Some("layer1.*")).unwrap(), [1, 2]);
        assert_eq!(select(&layers()[4..], None).unwrap(), [0]);
        let mut quadratic = layers();
        quadratic[1..4].iter_mut().for_each(|layer| layer.is_quadratic = true);
        assert_eq!(select(&quadratic, None).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_wrong_name_brings_the_nearest() {
        let error = select(&layers(), Some("layer2.0.conv2")).unwrap_err();
        assert_eq!(error.class().exit_code(), 2);
        let message = error.to_string();
        assert!(message.contains("did you mean") && message.contains("conv"), "{message}");
        assert!(select(&layers(), Some("zzzzzzzzzz")).unwrap_err().to_string().contains("layer1.0.conv2"));
    }
}
