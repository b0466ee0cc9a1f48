//! From the importance of layers to a smaller network.

use super::Blueprint;
use crate::experiment::ReductionName;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a network costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Learnt values.
    pub parameters: u64,
    /// Multiplications with an addition for an image.
    pub macs: u64,
}

/// The most that a network may cost; absent = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Learnt values.
    pub parameters: Option<u64>,
    /// Multiplications with an addition for an image.
    pub macs: Option<u64>,
}

impl Budget {
    /// Limits of an experiment: up to 1 shares of the full network, above 1 numbers.
    pub fn new(parameters: Option<f64>, macs: Option<f64>, full: Size) -> Self {
        let limit = |limit: f64, full: u64| if limit <= 1.0 { (limit * full as f64).floor() } else { limit } as u64;
        Budget { parameters: parameters.map(|l| limit(l, full.parameters)), macs: macs.map(|l| limit(l, full.macs)) }
    }

    /// Whether there is a limit at all.
    pub fn is_some(&self) -> bool {
        self.parameters.is_some() || self.macs.is_some()
    }

    /// Whether a network of that size keeps all limits.
    pub fn holds(&self, size: Size) -> bool {
        let within = |limit: Option<u64>, value: u64| limit.is_none_or(|limit| value <= limit);
        within(self.parameters, size.parameters) && within(self.macs, size.macs)
    }
}

/// One step towards a smaller network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A layer is left out.
    Removed {
        /// Its name in the network before.
        layer: String,
    },
    /// A layer has fewer channels.
    Shrunk {
        /// Its name in the network before.
        layer: String,
        /// Channels before.
        from: usize,
        /// Channels after.
        to: usize,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Removed { layer } => write!(f, "{layer} removed"),
            Change::Shrunk { layer, from, to } => write!(f, "{layer} shrunk from {from} to {to} channels"),
        }
    }
}

/// How to reduce.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Leave layers out, or shrink them.
    pub how: ReductionName,
    /// Share of its channels that a layer keeps.
    pub shrink: f64,
    /// The limits to get below.
    pub budget: Budget,
    /// At most so many changes.
    pub most: usize,
}

/// A smaller network.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    /// Its layers.
    pub blueprint: Blueprint,
    /// What led there, in order.
    pub changes: Vec<Change>,
    /// What it costs.
    pub size: Size,
}

/// Changes one layer after another, that of the highest importance first, until the network keeps the budget, nothing more can be changed, or there were as many
/// changes as the rules allow. A layer that shrank to a share `s` of its channels has its importance times `s²` from then on, as its parameters
/// and its multiplications have become fewer by about `s` each.
///
/// `layers` gives each layer's name and importance, in the order of the blueprint; `size` what a blueprint costs.
///
/// # Errors
/// Shrinking is asked of a network whose layers cannot, or `size` fails.
pub fn reduce(
    blueprint: &Blueprint,
    layers: &[(String, f64)],
    rules: &Rules,
    size: &dyn Fn(&Blueprint) -> Result<Size>,
) -> Result<Reduced> {
    if rules.how != ReductionName::Remove && !blueprint.shrinks() {
        let message =
            "layers shrink in VGG networks only; blocks of residual networks can be left out: reduce = \"remove\"";
        return Err(Error::Config(message.into()));
    }
    let mut scores: Vec<f64> = layers.iter().map(|(_, importance)| *importance).collect();
    let mut reduced = Reduced { blueprint: blueprint.clone(), changes: Vec::new(), size: size(blueprint)? };
    while reduced.changes.len() < rules.most && !(rules.budget.is_some() && rules.budget.holds(reduced.size)) {
        let Some((smaller, change)) = next(&reduced.blueprint, layers, &mut scores, rules) else { break };
        let size = size(&smaller)?;
        reduced.changes.push(change);
        (reduced.blueprint, reduced.size) = (smaller, size);
    }
    Ok(reduced)
}

fn next(
    blueprint: &Blueprint,
    layers: &[(String, f64)],
    scores: &mut [f64],
    rules: &Rules,
) -> Option<(Blueprint, Change)> {
    let mut order = blueprint.parts();
    // Where two are alike the later one goes first: it is farther from the image.
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(b.cmp(a)));
    let name = |part: usize| layers[part].0.clone();
    if rules.how != ReductionName::Shrink {
        let removed = order.iter().find_map(|part| Some((blueprint.without(*part)?, name(*part))));
        if let Some((smaller, layer)) = removed {
            return Some((smaller, Change::Removed { layer }));
        }
        if rules.how == ReductionName::Remove {
            return None;
        }
    }
    let (part, (smaller, [from, to])) =
        order.into_iter().find_map(|part| Some((part, blueprint.shrunk(part, rules.shrink)?)))?;
    scores[part] *= (to as f64 / from as f64).powi(2);
    Some((smaller, Change::Shrunk { layer: name(part), from, to }))
}
