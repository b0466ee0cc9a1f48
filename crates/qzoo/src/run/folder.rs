use super::lock::Lock;
use super::{Result, RunError};
use crate::checkpoint::atomic;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The folder of a run that this process writes to; nobody else can until it is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: Lock,
}

impl RunFolder {
    /// Makes `<root>/<name>-<n>` with the first free number after all that are there. Safe against other processes doing the same.
    ///
    /// # Errors
    /// The name would leave `root`, or the folder cannot be made.
    pub fn create(root: &Path, name: &str) -> Result<Self> {
        if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
            let message = format!("`{name}` cannot name a run: use letters, digits, `-`, `_` and `.`");
            return Err(RunError::NotARun { path: root.to_path_buf(), message });
        }
        fs::create_dir_all(root).map_err(RunError::io(root, "create"))?;
        let mut number = numbers(root, name)?.max().unwrap_or(0) + 1;
        loop {
            let path = root.join(format!("{name}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Self::prepare(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(RunError::io(&path, "create")(error)),
            }
        }
    }

    /// Makes the folder `path` itself, or takes it where it exists and is empty.
    ///
    /// # Errors
    /// It holds something already, or cannot be made.
    pub fn create_at(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(RunError::io(path, "create"))?;
        let taken = || RunError::Exists { path: path.to_path_buf() };
        let mut entries = fs::read_dir(path).map_err(RunError::io(path, "read"))?;
        if entries.next().is_some() {
            return Err(taken());
        }
        Self::prepare(path.to_path_buf())
    }

    /// Opens the folder of a run to go on with it, and removes what a killed process left half-written.
    ///
    /// # Errors
    /// It is not the folder of a run, or another process writes to it.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join("config.resolved.toml").is_file() {
            let message = "is not the folder of a run: it has no config.resolved.toml".to_string();
            return Err(RunError::NotARun { path: path.to_path_buf(), message });
        }
        Self::prepare(path.to_path_buf())
    }

    /// Takes the folder `path`, which is made where it does not exist, for something that keeps its own books there, and removes what a killed process left
    /// half-written.
    ///
    /// # Errors
    /// Another process writes to it, or it cannot be made.
    pub fn take(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(RunError::io(path, "create"))?;
        Self::prepare(path.to_path_buf())
    }

    fn prepare(path: PathBuf) -> Result<Self> {
        let lock = Lock::take(&path)?;
        atomic::remove_stale(&path).map_err(RunError::io(&path, "remove temporary files"))?;
        Ok(RunFolder { path, _lock: lock })
    }

    /// Gives up a run that could not begin: removes the folder if nothing was written to it.
    pub fn abandon(self) {
        let holds_only_the_lock =
            fs::read_dir(&self.path).is_ok_and(|entries| entries.flatten().all(|e| e.file_name() == "lock"));
        if holds_only_the_lock {
            // What cannot be removed does no harm.
            let _ = fs::remove_file(self.path.join("lock")).and_then(|()| fs::remove_dir(&self.path));
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Writes a whole file of the run atomically.
    ///
    /// # Errors
    /// The disk refuses; then the file is what it was.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path.join(name);
        atomic::write(&path, contents).map_err(RunError::io(&path, "write"))
    }

    /// Writes a value as indented JSON.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let path = self.path.join(name);
        let mut text = serde_json::to_string_pretty(value).map_err(|e| RunError::io(&path, "write")(e.into()))?;
        text.push('\n');
        self.write(name, text)
    }
}

/// The numbers of the runs of that name below `root`.
fn numbers(root: &Path, name: &str) -> Result<impl Iterator<Item = u64>> {
    let prefix = format!("{name}-");
    let entries = fs::read_dir(root).map_err(RunError::io(root, "read"))?;
    Ok(entries.filter_map(move |entry| entry.ok()?.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()))
}

/// The run below `root` that was written to last, of that name where one is given; `None` where there is none.
///
/// # Errors
/// `root` exists but cannot be read.
pub fn latest(root: &Path, name: Option<&str>) -> Result<Option<PathBuf>> {
    latest_where(root, name, |_| true)
}

/// As [`latest`], among the runs that `fits` accepts.
///
/// # Errors
/// As `latest`.
pub fn latest_where(root: &Path, name: Option<&str>, fits: impl Fn(&Path) -> bool) -> Result<Option<PathBuf>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(RunError::io(root, "read"))?,
    };
    let is_named = |path: &Path| {
        let number = |n: &str| path.file_name()?.to_str()?.strip_prefix(n)?.strip_prefix('-')?.parse::<u64>().ok();
        name.is_none_or(|name| number(name).is_some())
    };
    let age = |path: &PathBuf| -> Option<SystemTime> {
        let metrics = fs::metadata(path.join("metrics.jsonl"));
        metrics.or_else(|_| fs::metadata(path.join("config.resolved.toml"))).ok()?.modified().ok()
    };
    let runs = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let runs = runs.filter(|path| is_named(path) && path.join("config.resolved.toml").is_file() && fits(path));
    Ok(runs.max_by_key(|path| (age(path), path.clone())))
}
