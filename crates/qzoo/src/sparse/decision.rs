//! What is decided about a layer, and why.

use crate::experiment::Precision;
use qkernels::sparse::Order;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the products of a layer's training are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    /// All weights, zeros included.
    Dense,
    /// The weights that there are, in f32, with the batch innermost in memory.
    F32,
    /// The same along rows of pixels, sample by sample.
    F32Rows,
    /// The weights that there are, in bytes, with the batch innermost in memory.
    Int8,
    /// The same along rows of pixels, sample by sample.
    Int8Rows,
}

impl Kernels {
    /// All of them.
    pub const ALL: [Kernels; 5] = [Kernels::Dense, Kernels::F32, Kernels::F32Rows, Kernels::Int8, Kernels::Int8Rows];

    /// Whether products are made of f32 of the weights that there are.
    pub fn is_f32(self) -> bool {
        matches!(self, Kernels::F32 | Kernels::F32Rows)
    }

    /// Whether products are made of bytes.
    pub fn is_int8(self) -> bool {
        matches!(self, Kernels::Int8 | Kernels::Int8Rows)
    }

    /// The memory order that sparse kernels work in.
    pub(super) fn order(self) -> Order {
        match self {
            Kernels::F32Rows | Kernels::Int8Rows => Order::RowMajor,
            Kernels::Dense | Kernels::F32 | Kernels::Int8 => Order::BatchInnermost,
        }
    }

    /// Whether layers of these kernels hand each other what they compute with the batch innermost. Others are given images channels-last, and what follows them makes that of their results.
    pub(super) fn is_innermost(self) -> bool {
        matches!(self, Kernels::F32 | Kernels::Int8)
    }

    /// These, and those that make products of the same along rows.
    pub(super) fn in_all_orders(self) -> &'static [Kernels] {
        match self {
            Kernels::Dense => &[Kernels::Dense],
            Kernels::F32 | Kernels::F32Rows => &[Kernels::F32, Kernels::F32Rows],
            Kernels::Int8 | Kernels::Int8Rows => &[Kernels::Int8, Kernels::Int8Rows],
        }
    }
}

impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kernels::Dense => "dense",
            Kernels::F32 => "f32",
            Kernels::F32Rows => "f32 rows",
            Kernels::Int8 => "int8",
            Kernels::Int8Rows => "int8 rows",
        })
    }
}

/// Seconds of a forward and a backward pass of a layer on some kernels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Which.
    pub kernels: Kernels,
    /// From and to the memory order of these kernels: between layers of the same kind. As alone for those along rows, because what lies between layers is not.
    pub within: f64,
    /// From and to the order of dense layers: alone among them.
    pub alone: f64,
}

/// A row of the decision table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Full name of the layer.
    pub layer: String,
    /// What it is, such as `conv 3x3 64 -> 128`.
    pub kind: String,
    /// What it is given for a batch.
    pub input: Vec<usize>,
    /// Weights that are left.
    pub nonzeros: usize,
    /// Share of its weights that are zero.
    pub sparsity: f64,
    /// What was measured; empty where nothing was.
    pub timings: Vec<Timing>,
    /// What it runs on.
    pub choice: Kernels,
    /// Why.
    pub why: String,
}

impl Decision {
    /// The timing on some kernels.
    pub fn timing(&self, kernels: Kernels) -> Option<&Timing> {
        self.timings.iter().find(|timing| timing.kernels == kernels)
    }
}

/// What is decided about a network with certain masks. A run keeps the table of each change of its masks in `kernels.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwapTable {
    /// Images of a batch.
    pub batch: usize,
    /// Threads that it was measured with.
    pub threads: usize,
    /// The instruction set.
    pub isa: String,
    /// The numbers between layers.
    #[serde(default = "single")]
    pub precision: Precision,
    /// Seconds of a whole training pass on dense kernels, and with the layers as chosen; absent where no layer was measured.
    pub step: Option<[f64; 2]>,
    /// Seconds of an evaluation of a batch on dense kernels, and with the layers that were chosen on sparse ones in f32: the faster way is taken, whose answers are the same but for the
    /// rounding of f32. Absent where no layer was measured.
    #[serde(default)]
    pub evaluation: Option<[f64; 2]>,
    /// The layers, in the order of the forward pass.
    pub layers: Vec<Decision>,
}

/// What layers of tables without a precision were measured in.
fn single() -> Precision {
    Precision::F32
}

impl SwapTable {
    /// Whether any layer runs on sparse kernels.
    pub fn is_swapped(&self) -> bool {
        self.layers.iter().any(|layer| layer.choice != Kernels::Dense)
    }

    /// The kernels that some layer was measured on, dense ones first.
    pub fn measured(&self) -> Vec<Kernels> {
        let is_measured = |kernels: &Kernels| self.layers.iter().any(|layer| layer.timing(*kernels).is_some());
        Kernels::ALL.into_iter().filter(is_measured).collect()
    }

    /// What came of it: a line for each layer that was measured, and one for the network.
    pub fn lines(&self) -> Vec<String> {
        let measured = self.layers.iter().filter(|layer| !layer.timings.is_empty());
        let line = |layer: &Decision| format!("{} ({}): {}: {}", layer.layer, layer.kind, layer.choice, layer.why);
        measured.map(line).chain([self.message()]).collect()
    }

    /// Whether evaluations are faster on sparse kernels.
    pub(crate) fn evaluates_sparsely(&self) -> bool {
        self.is_swapped() && self.evaluation.is_some_and(|[dense, sparse]| sparse < dense)
    }

    fn message(&self) -> String {
        let count = |is: fn(Kernels) -> bool| self.layers.iter().filter(|layer| is(layer.choice)).count();
        let [f32, int8] = [count(Kernels::is_f32), count(Kernels::is_int8)];
        let step = self.step.map(|[dense, swapped]| {
            format!("; a pass over {} images takes {:.1} ms, dense {:.1}", self.batch, 1e3 * swapped, 1e3 * dense)
        });
        let evaluation = self.evaluation.filter(|_| self.is_swapped()).map(|[dense, sparse]| {
            format!("; an evaluation in f32 takes {:.1} ms, dense {:.1}", 1e3 * sparse, 1e3 * dense)
        });
        format!(
            "sparse kernels in {} of {} layers, {f32} in f32 and {int8} in int8{}{}",
            f32 + int8,
            self.layers.len(),
            step.unwrap_or_default(),
            evaluation.unwrap_or_default()
        )
    }

    /// Whether it was made for networks with so many weights left in each layer.
    pub fn fits(&self, nonzeros: impl Fn(&str) -> Option<usize>) -> bool {
        self.layers.iter().all(|layer| nonzeros(&layer.layer).is_none_or(|left| left == layer.nonzeros))
    }

    /// Puts every layer back on dense kernels.
    pub(crate) fn revert(&mut self, why: &str) {
        for layer in self.layers.iter_mut().filter(|layer| layer.choice != Kernels::Dense) {
            layer.why = format!("{why}; by itself {}", layer.why);
            layer.choice = Kernels::Dense;
        }
    }
}
