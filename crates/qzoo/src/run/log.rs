use super::{Result, RunError, unix_seconds, utc};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The text log of a run: one line an entry, each with its time.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    path: PathBuf,
}

impl LogFile {
    /// Opens the log at its end; it is made where it does not exist.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(RunError::io(path, "open"))?;
        Ok(LogFile { file, path: path.to_path_buf() })
    }

    /// Adds a message; line breaks in it stay inside its entry, indented.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn line(&mut self, message: &str) -> Result<()> {
        let entry = format!("{} {}\n", utc(unix_seconds()), message.trim_end().replace('\n', "\n    "));
        self.file.write_all(entry.as_bytes()).map_err(RunError::io(&self.path, "write"))
    }
}
