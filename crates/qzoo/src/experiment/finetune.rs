//! `[sparse.finetune]`: a trained network is pruned and trained on, on several kinds of kernels side by side.

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::sparse::Arithmetic;
use super::train::Precision;

/// Most epochs that a key accepts, as for `train.epochs`.
const MOST: usize = 1_000_000;

/// `[sparse.finetune]`. With it the other sections train a dense network, and `quartz sparsify` prunes and finetunes that, once for each sparsity and arithmetic, with the same settings
/// otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finetune {
    /// Shares of zeros, each 0 or larger and below 1. Default: `sparse.sparsity`.
    pub sparsity: Vec<f64>,
    /// What sparse layers compute in, once for each. Default `["dense", "f32", "int8"]`.
    pub arithmetic: Vec<Arithmetic>,
    /// Epochs, 1 to 1000000, in place of `train.epochs`. Default 5.
    pub epochs: usize,
    /// Learning rate at the start, above 0, in place of `optim.lr`; it falls along half a cosine. Default 0.01.
    pub lr: f64,
    /// The numbers between layers of int8 networks, in place of `train.precision`: with `bf16` activations take half the memory. Default: that of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int8_precision: Option<Precision>,
}

impl Default for Finetune {
    fn default() -> Self {
        Finetune {
            sparsity: Vec::new(),
            arithmetic: vec![Arithmetic::Dense, Arithmetic::F32, Arithmetic::Int8],
            epochs: 5,
            lr: 0.01,
            int8_precision: None,
        }
    }
}

impl Finetune {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        for (i, sparsity) in self.sparsity.iter().enumerate() {
            if !(0.0..1.0).contains(sparsity) {
                let message = format!("a sparsity must be 0 or larger and below 1, not {sparsity}");
                checker.within("sparsity").wrong(i, message, None);
            }
        }
        if self.arithmetic.is_empty() {
            let message = "\"arithmetic\" must name at least one".to_string();
            checker.wrong("arithmetic", message, Some("arithmetic = [\"dense\", \"f32\", \"int8\"]"));
        }
        checker.whole("epochs", self.epochs, 1, MOST);
        checker.positive("lr", self.lr);
    }
}
