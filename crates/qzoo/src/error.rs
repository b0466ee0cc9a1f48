use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::experiment::Diagnostics;
use crate::run::RunError;
use crate::train::Divergence;

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between an experiment file and a trained network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Mistakes in an experiment.
    #[error(transparent)]
    Experiment(#[from] Diagnostics),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Config(String),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file of tensors.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder of a run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The loss, a gradient or a weight became infinite or not a number.
    #[error(transparent)]
    Diverged(#[from] Box<Divergence>),
    /// A computation that the engine refused.
    #[error(transparent)]
    Graph(#[from] qgraph::Error),
    /// A tensor operation that the engine refused.
    #[error(transparent)]
    Tensor(#[from] qtensor::Error),
}

/// Kinds of failure that a caller can tell apart; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The run failed.
    Failed,
    /// The experiment, or the use of the command, is wrong.
    Config,
    /// Data is missing or corrupt.
    Data,
    /// A checkpoint cannot be read or does not fit.
    Checkpoint,
    /// Training diverged.
    Diverged,
}

impl Class {
    /// The exit code of a process that fails so.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Failed => 1,
            Class::Config => 2,
            Class::Data => 3,
            Class::Checkpoint => 4,
            Class::Diverged => 5,
        }
    }
}

impl Error {
    /// The kind of failure.
    pub fn class(&self) -> Class {
        match self {
            Error::Experiment(_) | Error::Config(_) => Class::Config,
            Error::Run(RunError::Exists { .. } | RunError::NotARun { .. }) => Class::Config,
            Error::Data(_) => Class::Data,
            // What the disk refuses to write is no fault of the file.
            Error::Checkpoint(CheckpointError::Io { action, .. }) if *action != "open" && *action != "read" => {
                Class::Failed
            }
            Error::Checkpoint(_) => Class::Checkpoint,
            Error::Diverged(_) => Class::Diverged,
            Error::Run(_) | Error::Graph(_) | Error::Tensor(_) => Class::Failed,
        }
    }
}
