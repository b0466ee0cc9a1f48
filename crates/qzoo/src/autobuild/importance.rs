//! How much a layer costs, and how much the network needs it.
//!
//! `RI = P_M · P_W / δ`: P_M is the layer's share of the network's parameters, P_W its share of the multiplications, δ the accuracy that is lost where a part of the
//! layer is set to zero, as a fraction. A high RI is a costly layer that is little needed. A test on N images cannot tell losses below half an image,
//! and masking may even help by chance: a δ below 1 / (2 N) counts as 1 / (2 N).

use super::{Part, belongs};
use crate::Result;
use crate::experiment::Masking;
use crate::models::Model;
use crate::train::Score;
use serde::{Deserialize, Serialize};

/// A layer's part of the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The layer's name.
    pub name: String,
    /// Its parameters: filters, biases and what else is named below it, such as the normalisations of its projections.
    pub parameters: u64,
    /// Its multiplications with an addition for an image.
    pub macs: u64,
    /// P_M: its share of the network's parameters.
    pub parameter_share: f64,
    /// P_W: its share of the network's multiplications.
    pub mac_share: f64,
}

/// The shares of the layers that the auto-builder looks at, in the order of the network.
///
/// # Errors
/// None for a network that was built.
pub fn shares(model: &Model, parts: &[Part]) -> Result<Vec<Share>> {
    let rows = model.summary()?;
    let total = |name: Option<&str>| {
        let rows = rows.iter().filter(|row| name.is_none_or(|name| belongs(&row.name, name)));
        rows.fold((0, 0), |(parameters, macs), row| (parameters + row.parameters as u64, macs + row.macs))
    };
    let (all_parameters, all_macs) = total(None);
    let share = |part: &Part| {
        let (parameters, macs) = total(Some(&part.name));
        Share {
            name: part.name.clone(),
            parameters,
            macs,
            parameter_share: parameters as f64 / all_parameters.max(1) as f64,
            mac_share: macs as f64 / all_macs.max(1) as f64,
        }
    };
    Ok(parts.iter().map(share).collect())
}

/// What masking a layer showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerImportance {
    /// What the layer costs.
    #[serde(flatten)]
    pub share: Share,
    /// Accuracy lost in each draw, as a fraction; negative where masking helped.
    pub drops: Vec<f64>,
    /// Their mean.
    pub mean_drop: f64,
    /// Their standard deviation (n - 1); absent for a single draw.
    pub drop_deviation: Option<f64>,
    /// Whether the mean is below what the test can tell, so that the limit counts instead.
    pub below_resolution: bool,
    /// RI of the mean drop.
    pub importance: f64,
    /// The smallest RI of the single draws.
    pub lowest: f64,
    /// The largest RI of the single draws.
    pub highest: f64,
}

/// The table of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// What was set to zero.
    pub masking: Masking,
    /// Which share of it.
    pub ratio: f64,
    /// Whether running statistics were measured anew before every accuracy, the whole network's included.
    pub recalibrated: bool,
    /// What the images were: `test` or `validation`.
    pub split: String,
    /// Images of every accuracy.
    pub images: u64,
    /// Accuracy of the whole network on them, as a fraction.
    pub accuracy: f64,
    /// The smallest loss of accuracy that counts: half an image's worth.
    pub resolution: f64,
    /// One entry a layer.
    pub layers: Vec<LayerImportance>,
}

/// RI of a layer by the accuracies of the whole network and of every draw of its mask. Without a draw nothing is known to be lost.
pub fn importance(share: Share, whole: Score, masked: &[Score]) -> LayerImportance {
    let accuracy = |score: &Score| score.correct as f64 / score.images.max(1) as f64;
    let resolution = resolution(whole);
    let cost = share.parameter_share * share.mac_share;
    let of_drop = |drop: f64| cost / drop.max(resolution);
    let drops: Vec<f64> = masked.iter().map(|score| accuracy(&whole) - accuracy(score)).collect();
    let count = drops.len().max(1) as f64;
    let mean_drop = drops.iter().sum::<f64>() / count;
    let squares: f64 = drops.iter().map(|drop| (drop - mean_drop).powi(2)).sum();
    let single = drops.iter().map(|drop| of_drop(*drop));
    LayerImportance {
        mean_drop,
        drop_deviation: (drops.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
        below_resolution: mean_drop < resolution,
        importance: of_drop(mean_drop),
        lowest: single.clone().fold(of_drop(mean_drop), f64::min),
        highest: single.fold(of_drop(mean_drop), f64::max),
        share,
        drops,
    }
}

/// Half an image's worth of accuracy.
pub(super) fn resolution(whole: Score) -> f64 {
    0.5 / whole.images.max(1) as f64
}
