use qtensor::Tensor;
use std::sync::Arc;

/// Values that a forward pass hands out besides its result, such as the batch statistics for a running mean.
///
/// Ops and composites are pure: they change nothing but what they return. What should happen once a step is emitted as an effect,
/// and the owner of the tape applies it. A composite that is run again in the backward pass emits nothing, so each effect
/// arrives exactly once.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The op that emitted it.
    pub op: &'static str,
    /// The scope in which it was emitted.
    pub scope: Arc<str>,
    /// Whose effect it is: the number that the caller gave to the op.
    pub key: usize,
    /// The values; the op's documentation says which.
    pub values: Vec<Tensor>,
}
