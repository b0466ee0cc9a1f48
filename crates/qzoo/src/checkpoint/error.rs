use std::io;
use std::path::{Path, PathBuf};

/// What can be wrong with a file of tensors. Every variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Bytes that are not what the format says: cut, overwritten or hostile.
    #[error("{}: {message} (byte {offset})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file reading failed.
        offset: u64,
        /// What was found there, and what was expected.
        message: String,
    },
    /// A sound file that does not fit what it is wanted for.
    #[error("{}: {message}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What does not fit, and what to do.
        message: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, such as `write`.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl CheckpointError {
    pub(crate) fn damaged(path: &Path, offset: u64, message: impl Into<String>) -> Self {
        CheckpointError::Damaged { path: path.to_path_buf(), offset, message: message.into() }
    }

    pub(crate) fn incompatible(path: &Path, message: impl Into<String>) -> Self {
        CheckpointError::Incompatible { path: path.to_path_buf(), message: message.into() }
    }

    /// For `map_err`: the operating system refused `action` on `path`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| CheckpointError::Io { path, action, source }
    }
}
