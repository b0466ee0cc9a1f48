use crate::Var;
use crate::var::TapeId;
use qtensor::Tensor;

/// The gradients of the leaves of one tape.
///
/// A gradient has the shape and type of its leaf, and any strides: it may be a view of a transposed matrix, or repeat one value.
/// It may share its buffer with another gradient; writing to it then copies it first.
#[derive(Debug)]
pub struct Gradients {
    pub(crate) id: TapeId,
    pub(crate) slots: Vec<Option<Tensor>>,
}

impl Gradients {
    /// The gradient of a leaf; `None` where the result did not depend on it, or for a variable that is no leaf of that tape.
    pub fn get(&self, leaf: &Var) -> Option<&Tensor> {
        self.slots.get(self.index(leaf)?)?.as_ref()
    }

    /// Moves the gradient of a leaf out, so that an optimiser may write to it in place.
    pub fn take(&mut self, leaf: &Var) -> Option<Tensor> {
        let index = self.index(leaf)?;
        self.slots.get_mut(index)?.take()
    }

    fn index(&self, leaf: &Var) -> Option<usize> {
        leaf.node.as_ref().filter(|(tape, _)| *tape == self.id).map(|(_, index)| *index)
    }
}
