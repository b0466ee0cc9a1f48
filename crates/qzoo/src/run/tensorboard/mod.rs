//! Event files for TensorBoard: scalars over steps.

mod crc;
mod event;
mod record;

pub use crc::crc32c;
pub use event::Event;
pub use record::{RecordError, read_records, write_record};

use super::{Result, RunError, unix_seconds};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// An event file of this process. A continued run has several; each begins with its first step, after which TensorBoard
/// disregards what earlier files hold.
#[derive(Debug)]
pub struct EventFile {
    writer: BufWriter<File>,
    path: PathBuf,
}

impl EventFile {
    /// Makes a new event file in `folder`, for the steps from `step` on.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        let mut number = 0;
        loop {
            let path = folder.join(format!("events.out.tfevents.{:010}.quartz.{number}", unix_seconds() as u64));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut events = EventFile { writer: BufWriter::new(file), path };
                    events.write(&Event::version(unix_seconds()))?;
                    events.write(&Event::session_start(unix_seconds(), step))?;
                    events.flush()?;
                    return Ok(events);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(RunError::io(&path, "create")(error)),
            }
        }
    }

    /// Adds scalars of a step under their tags, such as `train/loss`.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.write(&Event::scalars(unix_seconds(), step, values))
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(RunError::io(&self.path, "write"))
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        write_record(&mut self.writer, event.bytes()).map_err(RunError::io(&self.path, "write"))
    }
}
