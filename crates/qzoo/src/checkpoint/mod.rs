//! Checkpoints: one safetensors file holds the tensors and, in its metadata, the state of the run and a SHA-256 digest of everything.
//!
//! State and tensors can never disagree, because they are one file that appears by one rename ([`atomic`]). The digest stands at a
//! fixed place and covers every other byte, so a checkpoint that was cut, damaged or edited is refused with its path and the offset.
//! Equal runs write equal bytes: nothing in a checkpoint depends on the clock, on threads or on the machine.

pub mod atomic;
mod error;
mod file;
mod folder;
pub mod safetensors;
mod state;
pub mod torch;

pub use error::CheckpointError;
pub use file::{Checkpoint, weights_digest};
pub use folder::{CheckpointFolder, Loaded};
pub use state::{Best, EpochRecord, Normalization, Position, Purpose, RunningTotals, State};

/// `Result` with [`CheckpointError`].
pub type Result<T, E = CheckpointError> = std::result::Result<T, E>;
