use qgraph::ops::{SparseArithmetic, SparseMap};
use qgraph::{Result, Tape, Var};
use qkernels::Activation as Epilogue;
use qkernels::sparse::Plan;
use qtensor::random::StreamKey;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A projection of a model on sparse kernels.
#[derive(Clone, Debug)]
pub struct SparseLayer {
    /// Its weights, and the size of its images.
    pub plan: Arc<Plan>,
    /// What its products are made of.
    pub arithmetic: SparseArithmetic,
}

/// Sparse layers by the position of their weights in the model's list.
pub type SparseLayers = BTreeMap<usize, SparseLayer>;

impl SparseLayer {
    /// The same in f32.
    pub fn in_f32(&self) -> SparseLayer {
        SparseLayer { plan: self.plan.clone(), arithmetic: SparseArithmetic::F32 }
    }

    /// `epilogue(weight · x + bias)`; `noise` names the noise of stochastic rounding.
    ///
    /// # Errors
    /// The input does not fit.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape,
        [x, weight]: [&Var; 2],
        bias: Option<&Var>,
        activation: Epilogue,
        noise: Option<StreamKey>,
    ) -> Result<Var> {
        let op = SparseMap { plan: self.plan.clone(), arithmetic: self.arithmetic.clone(), activation, noise };
        tape.sparse_map(op, x, weight, bias)
    }
}
