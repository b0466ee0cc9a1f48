use std::io;
use std::path::{Path, PathBuf};

/// What can be wrong with the folder of a run. Every variant names the file or folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A new run would write over something.
    #[error("{}: already exists and is not empty; choose another folder, or continue that run with --resume", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process writes to the run.
    #[error("{}: process {holder} is writing to this run; wait for it or stop it first", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Number of the process, or `unknown`.
        holder: String,
    },
    /// The folder is not that of a run.
    #[error("{}: {message}", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        message: String,
    },
    /// A file of the run that cannot be understood.
    #[error("{}: {message} (byte {offset})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file reading failed.
        offset: u64,
        /// What was found there.
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

impl RunError {
    /// For `map_err`: the operating system refused `action` on `path`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| RunError::Io { path, action, source }
    }
}
