use super::{Given, Inputs, Parameters, SparseLayer, SparseLayers};
use crate::experiment::{Backward, BackwardMode};
use qgraph::{Error, Gradients, Mode, Result, Tape, Var};
use qtensor::Tensor;
use qtensor::random::{Purpose, StreamKey};
use std::sync::Arc;

/// Whether a forward pass trains, and then which step it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Running statistics, no dropout: a pure function of the input.
    Evaluate,
    /// Batch statistics and dropout, whose noise depends on these two numbers and the layer only.
    Train {
        /// The seed of the experiment.
        seed: u64,
        /// The number of this forward pass over the whole training; every pass has its own noise.
        step: u64,
    },
}

/// The tensors of a model as variables of one step.
#[derive(Clone, Debug)]
pub struct Leaves {
    parameters: Arc<[Var]>,
    buffers: Arc<[Tensor]>,
}

impl Leaves {
    /// One leaf of `tape` for each parameter: gradients flow to all of them.
    pub fn on(tape: &mut Tape, parameters: &Parameters) -> Self {
        Self::new(parameters, |value| tape.leaf(value))
    }

    /// Constants: nothing will be recorded.
    pub fn constant(parameters: &Parameters) -> Self {
        Self::new(parameters, Var::constant)
    }

    fn new(parameters: &Parameters, variable: impl FnMut(Tensor) -> Var) -> Self {
        Leaves {
            parameters: parameters.parameters().iter().map(|p| p.value.clone()).map(variable).collect(),
            buffers: parameters.buffers().iter().map(|b| b.value.clone()).collect(),
        }
    }

    /// The variable of each parameter, by position.
    pub fn parameters(&self) -> &[Var] {
        &self.parameters
    }

    /// Takes the gradient of each parameter, by position, and gives up the handles on the parameters, so that an optimizer may
    /// write to them in place.
    pub fn into_gradients(self, mut gradients: Gradients) -> Vec<Option<Tensor>> {
        self.parameters.iter().map(|leaf| gradients.take(leaf)).collect()
    }
}

/// How the gradient of a quadratic neuron is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuadraticRules {
    /// By the rules of the elementary ops that it is made of.
    Elementary,
    /// By a rule of its own, from its projections.
    KeepProjections,
    /// From its normalised projections.
    KeepNormalised,
    /// From its input, by computing the projections again.
    KeepInput,
}

/// What a layer needs besides its input: the phase, the tensors of the model, and the backward mode of each composite.
#[derive(Clone, Debug)]
pub struct Context {
    phase: Phase,
    parameters: Arc<[Var]>,
    /// Position of the first of `parameters`: within a composite they are a window of the model's list.
    first: usize,
    buffers: Arc<[Tensor]>,
    backward: Arc<Backward>,
    /// Whether normalisations are part of the weights before them: see [`Model::folded`](crate::models::Model::folded).
    folded: bool,
    /// Those of the composite at hand.
    quadratic: QuadraticRules,
    /// Projections whose inputs are quantized.
    inputs: Arc<Inputs>,
    /// Projections on sparse kernels.
    sparse: Arc<SparseLayers>,
    /// Within a composite that is run again as a whole, running a part of it a third time saves nothing.
    within_recompute: bool,
}

impl Context {
    /// The context of a whole model.
    pub fn new(phase: Phase, leaves: &Leaves, backward: Arc<Backward>) -> Self {
        Context {
            phase,
            parameters: leaves.parameters.clone(),
            first: 0,
            buffers: leaves.buffers.clone(),
            backward,
            folded: false,
            quadratic: QuadraticRules::KeepProjections,
            inputs: Arc::default(),
            sparse: Arc::default(),
            within_recompute: false,
        }
    }

    /// The context of an evaluation with parameters into which normalisations were [folded](super::Unit::fold).
    pub(crate) fn folded(leaves: &Leaves, backward: Arc<Backward>) -> Self {
        Context { folded: true, ..Context::new(Phase::Evaluate, leaves, backward) }
    }

    /// The same with quantized inputs of some projections. They are constants: no gradient flows through their rounding.
    pub(crate) fn with_inputs(self, inputs: Arc<Inputs>) -> Self {
        Context { inputs, ..self }
    }

    /// The same with some projections on sparse kernels.
    pub(crate) fn with_sparse(self, sparse: Arc<SparseLayers>) -> Self {
        Context { sparse, ..self }
    }

    /// The sparse kernels of the projection whose weights stand at that position.
    pub(crate) fn sparse(&self, weight: usize) -> Option<&SparseLayer> {
        self.sparse.get(&weight)
    }

    /// What is done with the input of the projection whose weights stand at that position.
    pub(crate) fn given(&self, weight: usize) -> Option<&Given> {
        self.inputs.get(&weight)
    }

    /// Whether normalisations behind a projection are part of its weights.
    pub(crate) fn is_folded(&self) -> bool {
        self.folded
    }

    /// Number of parameters at hand.
    pub(crate) fn count(&self) -> usize {
        self.parameters.len()
    }

    /// Whether batch statistics and dropout are in effect.
    pub fn training(&self) -> bool {
        self.phase != Phase::Evaluate
    }

    /// The parameter at that position of the model's list.
    ///
    /// # Errors
    /// It lies outside the composite that asks for it.
    pub fn parameter(&self, position: usize) -> Result<&Var> {
        position
            .checked_sub(self.first)
            .and_then(|i| self.parameters.get(i))
            .ok_or_else(|| Error::argument("layer", format!("parameter {position} is not part of this composite")))
    }

    /// The buffer at that position of the model's list.
    ///
    /// # Errors
    /// The model has no such buffer.
    pub fn buffer(&self, position: usize) -> Result<&Tensor> {
        self.buffers
            .get(position)
            .ok_or_else(|| Error::argument("layer", format!("the model has no buffer number {position}")))
    }

    /// The name of the noise of a layer in this step; `None` outside training.
    pub fn noise(&self, purpose: Purpose, layer: usize) -> Option<StreamKey> {
        let Phase::Train { seed, step } = self.phase else { return None };
        // The low half of the step is the epoch of the stream, the rest goes above the layer's number in the index.
        let index = (step >> 32) << 24 | layer as u64;
        Some(StreamKey { seed, purpose, epoch: step as u32, index })
    }

    /// The mode in which the composite of that name runs.
    pub fn mode(&self, composite: &str) -> Mode {
        match self.backward.mode_of(composite) {
            BackwardMode::Recompute if !self.within_recompute => Mode::Recompute,
            BackwardMode::Ad | BackwardMode::Recompute => Mode::Ad,
            _ => Mode::Symbolic,
        }
    }

    /// The rules of quadratic neurons in the composite of that name.
    fn rules(&self, composite: &str) -> QuadraticRules {
        match self.backward.mode_of(composite) {
            BackwardMode::Ad => QuadraticRules::Elementary,
            BackwardMode::SymbolicNormalised => QuadraticRules::KeepNormalised,
            BackwardMode::SymbolicRecompute if !self.within_recompute => QuadraticRules::KeepInput,
            _ => QuadraticRules::KeepProjections,
        }
    }

    /// The rules of quadratic neurons at hand.
    pub(crate) fn quadratic(&self) -> QuadraticRules {
        self.quadratic
    }

    /// This context without variables, to be kept in the composite of that name, which runs in the given mode.
    pub(crate) fn detached(&self, composite: &str, mode: Mode) -> Context {
        let within_recompute = self.within_recompute || mode == Mode::Recompute;
        let quadratic = self.rules(composite);
        Context { parameters: Arc::from([]), first: 0, quadratic, within_recompute, ..self.clone() }
    }

    /// This context with the window of parameters that begins at position `first`.
    pub(crate) fn with_window(&self, first: usize, parameters: &[Var]) -> Context {
        Context { parameters: Arc::from(parameters), first, ..self.clone() }
    }
}
