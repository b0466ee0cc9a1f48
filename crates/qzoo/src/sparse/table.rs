use crate::nn::Parameter;
use serde::{Deserialize, Serialize};

/// How sparse a layer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSparsity {
    /// Its full name, without `.weight`.
    pub name: String,
    /// Shape of its weights.
    pub shape: Vec<usize>,
    /// Weights that are left.
    pub nonzeros: u64,
    /// The share of zeros.
    pub sparsity: f64,
}

/// The row of weights of which so many are left.
pub(super) fn row(parameter: &Parameter, nonzeros: usize) -> LayerSparsity {
    let all = parameter.value.numel().max(1) as f64;
    LayerSparsity {
        name: parameter.name.strip_suffix(".weight").unwrap_or(&parameter.name).to_string(),
        shape: parameter.value.shape().to_vec(),
        nonzeros: nonzeros as u64,
        sparsity: 1.0 - nonzeros as f64 / all,
    }
}
