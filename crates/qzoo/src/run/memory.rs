use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a training step keeps for its backward pass and what it takes, in each backward mode: `memory.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryProfile {
    /// Images in the step.
    pub batch: usize,
    /// The modes that differ for this network, each measured with all layers in it.
    pub modes: Vec<ModeTotal>,
    /// By layer, in the order of the forward pass.
    pub layers: Vec<LayerMemory>,
    /// What the run chose, where it was left to it.
    pub plan: Option<MemoryPlan>,
}

/// A step with all layers in one mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModeTotal {
    /// The mode's name in `[backward]`.
    pub mode: String,
    /// Bytes kept between forward and backward pass, each buffer once.
    pub kept_bytes: u64,
    /// The most bytes in tensors at any moment, parameters and gradients included.
    pub peak_bytes: u64,
    /// Seconds of forward and backward pass, the median of a few.
    pub seconds: f64,
}

/// One layer in each mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerMemory {
    /// Its name in `[backward] layers`; empty for what belongs to no layer whose mode can be chosen.
    pub name: String,
    /// In the order of [`MemoryProfile::modes`].
    pub modes: Vec<LayerMode>,
}

/// One layer in one mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerMode {
    /// Bytes kept by its ops.
    pub kept_bytes: u64,
    /// Seconds of its ops in both passes.
    pub seconds: f64,
}

/// The modes that meet a memory budget at the least time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// The budget for tensors.
    pub budget_bytes: u64,
    /// The most bytes in tensors at any moment of a step, the optimizer's state included.
    pub peak_bytes: u64,
    /// Seconds of forward and backward pass.
    pub seconds: f64,
    /// The layers that are not in the mode `symbolic`, with their modes.
    pub layers: BTreeMap<String, String>,
}
