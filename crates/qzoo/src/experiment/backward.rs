//! `[backward]`: how the gradient of each layer's composite is computed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::named::named_enum;
use super::pattern;

named_enum! {
    /// The ways of running a composite backward.
    BackwardMode {
        Ad = "ad", "record every primitive and differentiate each";
        Symbolic = "symbolic", "the hand-derived rule of a quadratic neuron, from its projections; other layers as ad";
        SymbolicNormalised = "symbolic_normalised", "as symbolic, from its normalised projections";
        SymbolicRecompute = "symbolic_recompute", "as symbolic, from its input: the projections are computed again";
        Recompute = "recompute", "keep only the input of the whole layer and run its forward again: least memory, more time";
    }
}

/// `[backward]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backward {
    /// The mode of every layer that no pattern names. Default `symbolic`.
    pub mode: BackwardMode,
    /// Pattern of layer names (`*` any characters, `?` one) to mode. Where several match, the longest pattern wins.
    /// Default none.
    pub layers: BTreeMap<String, BackwardMode>,
}

impl Default for Backward {
    fn default() -> Self {
        Backward { mode: BackwardMode::Symbolic, layers: BTreeMap::new() }
    }
}

impl Backward {
    /// The mode of the layer of that name: the longest matching pattern's (the last in alphabetical order among equals), else `mode`.
    pub fn mode_of(&self, layer: &str) -> BackwardMode {
        pattern::longest(&self.layers, layer).copied().unwrap_or(self.mode)
    }
}

impl Backward {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        let mut checker = checker.within("layers");
        for name in self.layers.keys() {
            if let Some(mistake) = pattern::mistake(name) {
                checker.wrong_key(name, format!("{name:?} is no pattern of layer names: {mistake}"));
            }
        }
    }
}
