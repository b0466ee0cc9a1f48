//! The two halves of an op: [`Op`] computes, [`Vjp`] takes a gradient back.

use crate::{Effect, Error, OnHalf, Result, Saved};
use qkernels::norm::Moments;
use qtensor::Tensor;
use std::fmt::Debug;
use std::sync::Arc;

/// What a forward pass has computed, from which [`Vjp::save`] chooses.
#[derive(Debug)]
pub struct Record<'a> {
    /// The inputs, in the order of the call.
    pub inputs: &'a [Tensor],
    /// The output.
    pub output: &'a Tensor,
    /// Intermediates that the forward offered, in its order: by [`Context::tap`] in a primitive, by
    /// [`Tape::tap`](crate::Tape::tap) in a composite.
    pub taps: &'a [Tensor],
    /// Which inputs need a gradient.
    pub needs: &'a [bool],
    /// For each input, the entry of the tape that can compute it again, if any.
    pub(crate) restorable: &'a [Option<usize>],
}

/// The backward half of an op: the vector-Jacobian product of `y = f(x0, x1, …)`.
///
/// # Contract
/// - The rule itself holds settings only (a stride, a slope, a random key). Every tensor that the backward pass needs goes
///   into [`Saved`], where it is counted and released in time.
/// - [`save`](Self::save) runs once, right after the forward, and only where some input needs a gradient. It should keep the
///   least that [`vjp`](Self::vjp) needs for the inputs that `needs` marks: keeping a handle costs no copy, but keeps the
///   whole buffer alive.
/// - [`vjp`](Self::vjp) runs at most once. It owns what was saved and `dy`, and may write to either: a write to a shared
///   buffer copies it first, so no other value ever changes.
pub trait Vjp: Debug + Send + Sync {
    /// A short name in lower case, such as `matmul`: for reports and errors.
    fn name(&self) -> &'static str;

    /// Keeps what [`vjp`](Self::vjp) needs. The default keeps nothing.
    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        let _ = (record, saved);
    }

    /// The gradient with respect to each input, in the order of the inputs: the sum over all elements of `dy · ∂y/∂x`.
    ///
    /// `dy` has the shape and type of the output. The result has one entry an input: `None` where `needs` is false, or where
    /// the output does not depend on that input. A gradient may have the shape to which its input was broadcast; the tape sums
    /// it back to the input's shape.
    ///
    /// # Errors
    /// Whatever a kernel refuses; the tape adds the op's name and scope.
    fn vjp(&self, saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>>;

    /// Whether [`vjp_of_two`](Self::vjp_of_two) is cheaper than adding the gradients of two uses of the output first.
    fn takes_two(&self) -> bool {
        false
    }

    /// As [`vjp`](Self::vjp) for the gradient `dy + also`. The default adds them, in place where it can.
    ///
    /// # Errors
    /// As [`vjp`](Self::vjp).
    fn vjp_of_two(&self, saved: Saved, [dy, also]: [Tensor; 2], needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        self.vjp(saved, crate::accumulate::total(dy, also)?, needs)
    }

    /// Whether [`restore`](Self::restore) can compute the output again, in one cheap pass or because it was asked to, for a call with so many inputs. An op that needs the output in
    /// its own backward pass, and keeps it by [`Saved::keep_input`], then keeps nothing.
    fn restores(&self, inputs: usize) -> bool {
        let _ = inputs;
        false
    }

    /// The output of the forward pass again, bit for bit, from what [`save`](Self::save) kept, which stays. Called only where
    /// [`restores`](Self::restores), before [`vjp`](Self::vjp).
    ///
    /// # Errors
    /// Whatever a kernel refuses. The default has no way to compute it.
    fn restore(&self, saved: &Saved) -> Result<Tensor> {
        let _ = saved;
        Err(Error::argument(self.name(), "the output cannot be restored"))
    }
}

/// A primitive op: a forward on plain tensors and its backward half.
///
/// # Contract
/// [`forward`](Self::forward) is a pure function of the inputs and of the settings in `self`: equal inputs give equal bits. It
/// must not write to its inputs, and it draws random numbers from a key in `self` only. Anything else that should happen once a
/// step goes through [`Context::effect`].
pub trait Op: Vjp {
    /// Computes the output.
    ///
    /// # Errors
    /// Shapes or types that the op does not take. No panic on any input.
    fn forward(&self, inputs: &[Tensor], context: &mut Context) -> Result<Tensor>;

    /// What it makes of inputs in bf16.
    fn on_half(&self) -> OnHalf {
        OnHalf::default()
    }

    /// Multiplications with an addition of a forward that is a product of the first two inputs, for the figures of
    /// [`Profile`](crate::Profile): the backward pass takes as many for each of the two that needs a gradient. Other ops count none.
    fn multiply_adds(&self, inputs: &[Tensor], output: &Tensor) -> u64 {
        let _ = (inputs, output);
        0
    }
}

/// What the forward of a primitive may do besides computing its output.
#[derive(Debug)]
pub struct Context {
    pub(crate) records: bool,
    pub(crate) taps: Vec<Tensor>,
    pub(crate) effects: Option<Vec<Effect>>,
    pub(crate) scope: Arc<str>,
    pub(crate) op: &'static str,
    /// Of the inputs.
    pub(crate) known: Vec<Option<Arc<Moments>>>,
    /// Of the output.
    pub(crate) moments: Option<Moments>,
}

impl Context {
    /// Whether a backward rule will be recorded: if not, intermediates for it need not be computed.
    pub fn records(&self) -> bool {
        self.records
    }

    /// Offers an intermediate, such as the positions of the maxima, to [`Vjp::save`].
    pub fn tap(&mut self, intermediate: Tensor) {
        if self.records {
            self.taps.push(intermediate);
        }
    }

    /// Mean and variance of each channel of an input, where the op that computed it has told them.
    pub fn moments_of(&self, input: usize) -> Option<&Moments> {
        self.known.get(input)?.as_deref()
    }

    /// Tells mean and variance of each channel of the output to the op that takes it next.
    pub fn measured(&mut self, moments: Option<Moments>) {
        self.moments = moments;
    }

    /// Hands out values for the owner of the tape, once a step: see [`Effect`].
    pub fn effect(&mut self, key: usize, values: Vec<Tensor>) {
        if let Some(effects) = &mut self.effects {
            effects.push(Effect { op: self.op, scope: self.scope.clone(), key, values });
        }
    }
}

/// Takes the inputs of an op apart, or says how many there should be.
///
/// ```
/// # use qgraph::{Result, Tensor, inputs};
/// fn forward(x: &[Tensor]) -> Result<Tensor> {
///     let [a, _b] = inputs("first", x)?;
///     Ok(a.clone())
/// }
/// assert!(forward(&[Tensor::scalar(1.0f32)]).is_err());
/// ```
///
/// # Errors
/// There are not exactly `N` inputs.
pub fn inputs<'a, const N: usize>(op: &'static str, inputs: &'a [Tensor]) -> Result<&'a [Tensor; N]> {
    inputs.try_into().map_err(|_| Error::argument(op, format!("expected {N} inputs, found {}", inputs.len())))
}
