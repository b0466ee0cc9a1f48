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
        Auto = "auto", "whatever meets `memory_budget` at the least time, from costs that are measured when the run starts";
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
    /// Mode `auto` only, and required there: the most memory in tensors at any moment of a step, such as "512MiB": a number with KiB, MiB or GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<String>,
}

impl Default for Backward {
    fn default() -> Self {
        Backward { mode: BackwardMode::Symbolic, layers: BTreeMap::new(), memory_budget: None }
    }
}

impl Backward {
    /// The mode of the layer of that name: the longest matching pattern's (the last in alphabetical order among equals), else `mode`.
    pub fn mode_of(&self, layer: &str) -> BackwardMode {
        pattern::longest(&self.layers, layer).copied().unwrap_or(self.mode)
    }
}

impl Backward {
    /// The memory budget in bytes, where the modes are to be chosen by it.
    pub fn budget(&self) -> Option<u64> {
        if self.mode == BackwardMode::Auto { self.memory_budget.as_deref().and_then(parse_bytes) } else { None }
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        let is_auto = self.mode == BackwardMode::Auto;
        match &self.memory_budget {
            None if is_auto => {
                let message = "mode \"auto\" needs a \"memory_budget\", such as \"512MiB\"".to_string();
                checker.conflict("mode", message, None);
            }
            Some(_) if !is_auto => {
                let message = format!("\"memory_budget\" is only for mode \"auto\", not \"{}\"", self.mode);
                checker.conflict("memory_budget", message, Some("mode = \"auto\""));
            }
            Some(text) if parse_bytes(text).is_none() => {
                let message =
                    format!("{text:?} is no size; give a number above 0 with KiB, MiB or GiB, such as \"512MiB\"");
                checker.wrong("memory_budget", message, None);
            }
            _ => {}
        }
        for (name, mode) in &self.layers {
            if is_auto || *mode == BackwardMode::Auto {
                let message =
                    "mode \"auto\" chooses for all layers: it takes no \"layers\" and stands in none".to_string();
                checker.within("layers").conflict(name.as_str(), message, None);
            }
        }
        let mut checker = checker.within("layers");
        for name in self.layers.keys() {
            if let Some(mistake) = pattern::mistake(name) {
                checker.wrong_key(name, format!("{name:?} is no pattern of layer names: {mistake}"));
            }
        }
    }
}

/// A size such as `512MiB` in bytes.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        .into_iter()
        .find_map(|(unit, power)| Some((text.strip_suffix(unit)?, 1u64 << power)))?;
    let number: f64 = number.trim().parse().ok()?;
    let bytes = number * unit as f64;
    (number.is_finite() && bytes >= 1.0 && bytes < 2f64.powi(53)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes() {
        assert_eq!(["512MiB", "1.5 GiB", "3KiB"].map(parse_bytes), [Some(512 << 20), Some(3 << 29), Some(3072)]);
        for bad in ["", "512", "512MB", "-1MiB", "0MiB", "nanMiB", "1e30GiB", "MiB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
