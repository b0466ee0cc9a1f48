use crate::{Error, Result};
use qtensor::{Shape, Tensor};
use std::collections::VecDeque;

/// The tensors that one op keeps alive for its backward pass; nothing else is kept.
///
/// [`Vjp::save`](crate::Vjp::save) fills it in some order, [`Vjp::vjp`](crate::Vjp::vjp) takes it apart in the same order.
#[derive(Debug, Default)]
pub struct Saved {
    tensors: VecDeque<Tensor>,
    shapes: VecDeque<Shape>,
}

impl Saved {
    /// Keeps a handle on a tensor. Nothing is copied, and the whole buffer stays alive.
    pub fn keep(&mut self, tensor: &Tensor) {
        self.tensors.push_back(tensor.clone());
    }

    /// Keeps a handle where `wanted`; the rule must take it under the same condition.
    pub fn keep_if(&mut self, wanted: bool, tensor: &Tensor) {
        if wanted {
            self.keep(tensor);
        }
    }

    /// The next tensor in the order in which they were kept.
    ///
    /// # Errors
    /// All were taken: `save` and `vjp` of this op do not match.
    pub fn take(&mut self) -> Result<Tensor> {
        self.tensors
            .pop_front()
            .ok_or_else(|| Error::argument("saved", "the rule takes more tensors than were kept for it"))
    }

    /// The next tensor where `wanted`, the counterpart of [`keep_if`](Self::keep_if).
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_if(&mut self, wanted: bool) -> Result<Option<Tensor>> {
        if wanted { self.take().map(Some) } else { Ok(None) }
    }

    /// Remembers a shape, which keeps no buffer alive.
    pub fn keep_shape(&mut self, tensor: &Tensor) {
        self.shapes.push_back(*tensor.shape());
    }

    /// The next shape in the order in which they were remembered.
    ///
    /// # Errors
    /// All were taken: `save` and `vjp` of this op do not match.
    pub fn take_shape(&mut self) -> Result<Shape> {
        self.shapes
            .pop_front()
            .ok_or_else(|| Error::argument("saved", "the rule takes more shapes than were kept for it"))
    }

    /// Number of tensors kept.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors, in the order in which they were kept.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter()
    }
}
