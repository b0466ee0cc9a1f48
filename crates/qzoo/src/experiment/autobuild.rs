//! `[autobuild]`: how the auto-builder measures the layers of a network, and how small it makes it.

use serde::{Deserialize, Serialize};

use super::NeuronName;
use super::check::Checker;
use super::named::named_enum;

named_enum! {
    /// What is set to zero in a layer to see how much the network needs it.
    Masking {
        Structured = "structured", "whole output channels: their filters, biases and normalisations in every projection of the layer, so that the layer gives zero there";
        Unstructured = "unstructured", "single weights, drawn for each matrix of weights";
    }
}

named_enum! {
    /// How a network is made smaller.
    ReductionName {
        Remove = "remove", "whole layers are left out: convolutions of VGG, blocks of residual networks";
        Shrink = "shrink", "layers keep a share of their channels: VGG only";
        RemoveThenShrink = "remove_then_shrink", "layers are left out while there are such that can be, then the others shrink: VGG only";
    }
}

/// `[autobuild]`. Only `quartz autobuild` reads it. It needs a budget: `max_parameters`, `max_macs` or `max_drop`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Autobuild {
    /// The neuron that replaces those of the model. Default `ours`.
    pub neuron: NeuronName,
    /// What is set to zero. Default `structured`.
    pub masking: Masking,
    /// Share of a layer's channels or weights that is set to zero, above 0 and at most 1. Default 0.5.
    pub ratio: f64,
    /// Random draws of what is set to zero, for each layer, 1 to 1000. Default 3.
    pub seeds: usize,
    /// Measure the running statistics of batch normalisation anew before every accuracy, on training images. Default false.
    pub recalibrate: bool,
    /// Training images for that, 2 to 1000000. Default 1024.
    pub calibration_images: usize,
    /// Images that accuracies are measured on; 0 = all. They are held-out ones where `data.validation` is above 0, else test images. Default 0.
    pub images: usize,
    /// Most parameters of the reduced network: up to 1 a share of the full one's, above 1 a number. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parameters: Option<f64>,
    /// Most multiplications with an addition for an image: up to 1 a share of the full network's, above 1 a number. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_macs: Option<f64>,
    /// Most percentage points of accuracy below the full network, 0 to 100. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
    /// How the network is made smaller. Default `remove`.
    pub reduce: ReductionName,
    /// Share of its channels that a layer keeps when it shrinks, above 0 and below 1. Default 0.5.
    pub shrink: f64,
    /// Layers removed or shrunk before the network is trained and measured again; 0 = all that `max_parameters` and `max_macs` ask for, or one where
    /// neither is given. Default 0.
    pub changes_per_round: usize,
    /// Epochs of the training of the full network, 1 to 1000000. Default: `train.epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Epochs of the training of each reduced network, 1 to 1000000. Default: `train.epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduced_epochs: Option<usize>,
}

impl Default for Autobuild {
    fn default() -> Self {
        Autobuild {
            neuron: NeuronName::Ours,
            masking: Masking::Structured,
            ratio: 0.5,
            seeds: 3,
            recalibrate: false,
            calibration_images: 1024,
            images: 0,
            max_parameters: None,
            max_macs: None,
            max_drop: None,
            reduce: ReductionName::Remove,
            shrink: 0.5,
            changes_per_round: 0,
            epochs: None,
            reduced_epochs: None,
        }
    }
}

impl Autobuild {
    /// Whether something ends the search.
    pub(super) fn has_budget(&self) -> bool {
        self.max_parameters.is_some() || self.max_macs.is_some() || self.max_drop.is_some()
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if !(self.ratio > 0.0 && self.ratio <= 1.0) {
            checker.wrong("ratio", format!("\"ratio\" must be above 0 and at most 1, not {}", self.ratio), None);
        }
        checker.whole("seeds", self.seeds, 1, 1000);
        checker.whole("calibration_images", self.calibration_images, 2, 1_000_000);
        for (key, limit) in [("max_parameters", self.max_parameters), ("max_macs", self.max_macs)] {
            let Some(limit) = limit else { continue };
            let fits = limit > 0.0 && limit.is_finite() && (limit <= 1.0 || limit.fract() == 0.0);
            if !fits {
                let message = format!("{key:?} must be a share above 0 and at most 1 or a whole number, not {limit}");
                checker.wrong(key, message, None);
            }
        }
        if let Some(drop) = self.max_drop.filter(|drop| !(0.0..=100.0).contains(drop)) {
            checker.wrong("max_drop", format!("\"max_drop\" must be from 0 to 100, not {drop}"), None);
        }
        if !(self.shrink > 0.0 && self.shrink < 1.0) {
            checker.wrong("shrink", format!("\"shrink\" must be above 0 and below 1, not {}", self.shrink), None);
        }
        for (key, epochs) in [("epochs", self.epochs), ("reduced_epochs", self.reduced_epochs)] {
            if let Some(epochs) = epochs {
                checker.whole(key, epochs, 1, 1_000_000);
            }
        }
    }
}
