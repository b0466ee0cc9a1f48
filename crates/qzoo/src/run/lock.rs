use super::{Result, RunError};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

/// Keeps other processes from writing to the same run.
///
/// The operating system holds the lock and releases it when the process ends, however it ends; so there is no stale lock to detect.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the run in `folder`.
    pub(super) fn take(folder: &Path) -> Result<Lock> {
        let path = folder.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(RunError::io(&path, "open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number is for the message only.
                let _ = (&mut file).take(32).read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "unknown".into() } else { holder.trim().to_string() };
                return Err(RunError::Locked { path: folder.to_path_buf(), holder });
            }
            // Some network file systems have no locks; there the run goes on without.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(RunError::io(&path, "lock")(error)),
        }
        let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        write.map_err(RunError::io(&path, "write"))?;
        Ok(Lock { _file: file })
    }
}
