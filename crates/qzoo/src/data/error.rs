use std::io;
use std::path::{Path, PathBuf};

/// `Result` with this module's [`DataError`].
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// What can be wrong with a data set. Variants about a file name it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Bytes that are not what the format says: cut, overwritten or hostile.
    #[error("{}: {message} (byte {offset})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, unpacked if it is compressed, reading failed.
        offset: u64,
        /// What was found there, and what was expected.
        message: String,
    },
    /// A file or folder that is not there.
    #[error("{}: not found; {advice}", path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// How to get it.
        advice: String,
    },
    /// Sound files that do not fit each other or what is asked of them.
    #[error("{}: {message}", path.display())]
    Unfit {
        /// The file or folder.
        path: PathBuf,
        /// What does not fit, and what to do.
        message: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, such as `read`.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that is not the published one.
    #[error("{}: its SHA-256 is {found}, expected {expected}; delete it and fetch it again", path.display())]
    Checksum {
        /// The file, as it was kept for inspection.
        path: PathBuf,
        /// Hexadecimal digest of the published file.
        expected: String,
        /// Hexadecimal digest of this file.
        found: String,
    },
    /// A download that could not be completed.
    #[error(
        "cannot download {url}: {message}; to go on without the network, put that file ({bytes} bytes) at {} and fetch again",
        target.display()
    )]
    Download {
        /// The address.
        url: String,
        /// Why it failed.
        message: String,
        /// Size of the whole file.
        bytes: u64,
        /// Where the file belongs.
        target: PathBuf,
    },
    /// A description of a data set that is not valid.
    #[error("{name}.toml: {message}")]
    Manifest {
        /// Name of the data set.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A name or a number that was asked for and cannot be.
    #[error("{0}")]
    Argument(String),
    /// A worker thread of a loader that stopped.
    #[error("a thread that prepares batches stopped: {0}")]
    Worker(String),
    /// A tensor that could not be made.
    #[error(transparent)]
    Tensor(#[from] qtensor::Error),
}

impl DataError {
    pub(crate) fn damaged(path: &Path, offset: u64, message: impl Into<String>) -> Self {
        DataError::Damaged { path: path.to_path_buf(), offset, message: message.into() }
    }

    pub(crate) fn unfit(path: &Path, message: impl Into<String>) -> Self {
        DataError::Unfit { path: path.to_path_buf(), message: message.into() }
    }

    pub(crate) fn missing(path: &Path, advice: impl Into<String>) -> Self {
        DataError::Missing { path: path.to_path_buf(), advice: advice.into() }
    }

    /// For `map_err`: the operating system refused `action` on `path`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| DataError::Io { path, action, source }
    }
}
