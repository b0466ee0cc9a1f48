use qkernels::norm::Moments;
use qtensor::{DType, Shape, Tensor};
use std::fmt;
use std::sync::Arc;

/// The identity of a tape: variables and gradients carry it, so that those of another tape are refused and not mixed up.
#[derive(Clone, Debug)]
pub(crate) struct TapeId(Arc<()>);

impl TapeId {
    pub(crate) fn new() -> Self {
        TapeId(Arc::new(()))
    }
}

impl PartialEq for TapeId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A value in a computation: a tensor and, where a gradient may flow back to it, its place on a tape.
///
/// A variable owns its tensor by reference count. The tape holds no tensor because a variable exists: when the last clone of a
/// variable is dropped and no op saved its tensor for the backward pass, the buffer is free again, even in the middle of the
/// forward pass. Cloning is cheap and shares the buffer.
#[derive(Clone)]
pub struct Var {
    pub(crate) value: Tensor,
    pub(crate) node: Option<(TapeId, usize)>,
    /// What the op that computed the tensor tells of its channels.
    pub(crate) moments: Option<Arc<Moments>>,
}

impl Var {
    /// A value to which no gradient flows; it may be used on any tape.
    pub fn constant(value: Tensor) -> Self {
        Var { value, node: None, moments: None }
    }

    /// The tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The tensor; the variable ends here.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// The dimensions of the tensor.
    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }

    /// The element type of the tensor.
    pub fn dtype(&self) -> DType {
        self.value.dtype()
    }

    /// Whether a gradient flows back to this variable.
    pub fn needs_gradient(&self) -> bool {
        self.node.is_some()
    }

    /// The same value cut off from its history: no gradient flows through the result.
    pub fn detach(&self) -> Var {
        Var::constant(self.value.clone())
    }
}

impl From<Tensor> for Var {
    fn from(value: Tensor) -> Self {
        Var::constant(value)
    }
}

impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some((_, index)) => write!(f, "Var({:?}, node {index})", self.value),
            None => write!(f, "Var({:?}, constant)", self.value),
        }
    }
}
