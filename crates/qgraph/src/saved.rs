use crate::{Error, Record, Result};
use qtensor::{Shape, Tensor};
use std::collections::VecDeque;

/// The tensors that one op keeps alive for its backward pass; nothing else is kept.
///
/// [`Vjp::save`](crate::Vjp::save) fills it in some order, [`Vjp::vjp`](crate::Vjp::vjp) takes it apart in the same order.
#[derive(Debug, Default)]
pub struct Saved {
    kept: VecDeque<Kept>,
    shapes: VecDeque<Shape>,
}

#[derive(Clone, Debug)]
enum Kept {
    Tensor(Tensor),
    /// The output of this entry of the tape, which is computed again when it is needed.
    Output(usize),
}

impl Saved {
    /// Keeps a handle on a tensor. Nothing is copied, and the whole buffer stays alive.
    pub fn keep(&mut self, tensor: &Tensor) {
        self.kept.push_back(Kept::Tensor(tensor.clone()));
    }

    /// Keeps an input; or nothing, where the op that computed it can do so again before the rule runs.
    pub fn keep_input(&mut self, record: &Record<'_>, index: usize) {
        match record.restorable.get(index) {
            Some(Some(entry)) => self.kept.push_back(Kept::Output(*entry)),
            _ => self.keep(&record.inputs[index]),
        }
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
        match self.kept.pop_front() {
            Some(Kept::Tensor(tensor)) => Ok(tensor),
            Some(Kept::Output(_)) => Err(Error::argument("saved", "an output was not restored")),
            None => Err(Error::argument("saved", "the rule takes more tensors than were kept for it")),
        }
    }

    /// Computes the outputs that were not kept, from the entries of the tape that gave them.
    pub(crate) fn restore(&mut self, mut output: impl FnMut(usize) -> Result<Tensor>) -> Result<()> {
        for kept in &mut self.kept {
            if let Kept::Output(entry) = kept {
                *kept = Kept::Tensor(output(*entry)?);
            }
        }
        Ok(())
    }

    /// Handles on all tensors, those that were not kept computed from the entries of the tape that gave them.
    pub(crate) fn restored(&self, mut output: impl FnMut(usize) -> Result<Tensor>) -> Result<Saved> {
        let kept = self.kept.iter().map(|kept| match kept {
            Kept::Tensor(tensor) => Ok(Kept::Tensor(tensor.clone())),
            Kept::Output(entry) => output(*entry).map(Kept::Tensor),
        });
        Ok(Saved { kept: kept.collect::<Result<_>>()?, shapes: self.shapes.clone() })
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

    /// Number of tensors that the rule may take.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The tensors that are kept alive, in the order in which they were kept.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.kept.iter().filter_map(|kept| match kept {
            Kept::Tensor(tensor) => Some(tensor),
            Kept::Output(_) => None,
        })
    }
}
