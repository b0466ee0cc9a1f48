//! Files that appear whole or not at all.
//!
//! The bytes go to a temporary file in the same folder; [`AtomicFile::commit`] forces them to the disk, renames the file over its
//! target and forces the folder to the disk. Until the rename the old file is untouched, after it the new one is complete: a process
//! that dies at any moment leaves one of the two. This assumes what every database assumes: rename is atomic, fsync tells the truth.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Ends the name of every temporary file.
const SUFFIX: &str = ".partial";
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A file being written beside its target. Dropping it without [`commit`](Self::commit) removes it and leaves the target as it was.
#[derive(Debug)]
pub struct AtomicFile {
    file: Option<File>,
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Begins to write `target`; its folder must exist.
    ///
    /// # Errors
    /// The folder cannot be written to, or `target` names no file.
    pub fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{count}{SUFFIX}", std::process::id()));
        let temporary = target.with_file_name(temporary);
        let file = File::create(&temporary)?;
        Ok(AtomicFile { file: Some(file), temporary, target: target.to_path_buf() })
    }

    /// Makes the bytes durable, then visible under the target's name, then makes that durable too.
    ///
    /// # Errors
    /// The disk refuses at any of the three steps. If it refuses before the rename, the target still is the old file.
    pub fn commit(mut self) -> io::Result<()> {
        self.file_mut()?.sync_all()?;
        // Some systems do not rename open files.
        self.file = None;
        fs::rename(&self.temporary, &self.target)?;
        sync_folder(parent(&self.target))
    }

    /// Makes the bytes durable and calls `before_rename`, then goes on as [`commit`](Self::commit) does.
    ///
    /// # Errors
    /// As `commit`, or what `before_rename` returns: then the target still is the old file.
    pub fn commit_after(mut self, before_rename: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.file_mut()?.sync_all()?;
        before_rename()?;
        self.commit()
    }

    fn file_mut(&mut self) -> io::Result<&mut File> {
        self.file.as_mut().ok_or_else(|| io::Error::other("the file is already committed"))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file_mut()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file_mut()?.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        self.file = None;
        // After a commit the name is gone, and that is as it should be.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Writes a whole small file atomically.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::commit`].
pub fn write(target: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes.as_ref())?;
    file.commit()
}

/// Gives `source` a second name, which replaces whatever had that name. `source` keeps its own name throughout.
///
/// File systems without hard links get a copy.
///
/// # Errors
/// The folder cannot be written to, or `source` does not exist.
pub fn second_name(source: &Path, name: &Path) -> io::Result<()> {
    let link = name.with_file_name(format!(
        ".link-{}-{}{SUFFIX}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    if fs::hard_link(source, &link).is_err() {
        let mut copy = AtomicFile::create(name)?;
        io::copy(&mut File::open(source)?, &mut copy)?;
        return copy.commit();
    }
    let renamed = fs::rename(&link, name);
    // Where both names already are the same file, rename does nothing and leaves the link.
    let _ = fs::remove_file(&link);
    renamed
}

/// Removes temporary files that killed processes left in `folder`, and returns how many there were.
///
/// Only call it while no other process writes there.
///
/// # Errors
/// The folder cannot be read, or a file cannot be removed.
pub fn remove_stale(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(SUFFIX) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The folder of a file; the current one for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other systems cannot open folders; there a rename is as durable as the system makes it.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("state");
        write(&target, "old").unwrap();
        let mut abandoned = AtomicFile::create(&target).unwrap();
        abandoned.write_all(b"half of the n").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        drop(abandoned);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        write(&target, "new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn what_fails_before_the_rename_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("state");
        write(&target, "old").unwrap();
        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"new").unwrap();
        assert!(file.commit_after(|| Err(io::Error::other("no"))).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn stale_files_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("state");
        std::mem::forget(AtomicFile::create(&target).unwrap());
        std::mem::forget(AtomicFile::create(&target).unwrap());
        fs::write(folder.path().join("mine.partial"), "").unwrap();
        assert_eq!(remove_stale(folder.path()).unwrap(), 2);
        assert!(folder.path().join("mine.partial").exists());
    }

    #[test]
    fn a_second_name_survives_the_replacement_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let (last, step) = (folder.path().join("last"), folder.path().join("step-1"));
        write(&last, "one").unwrap();
        second_name(&last, &step).unwrap();
        second_name(&last, &step).unwrap();
        write(&last, "two").unwrap();
        assert_eq!((fs::read(&last).unwrap(), fs::read(&step).unwrap()), (b"two".to_vec(), b"one".to_vec()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(&folder.path().join("absent").join("file"), "x").is_err());
        assert!(AtomicFile::create(Path::new("/")).is_err());
    }
}
