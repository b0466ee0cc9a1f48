use super::{Checkpoint, CheckpointError, Result, atomic};
use std::fs;
use std::path::{Path, PathBuf};

/// The checkpoints of a run: `last`, `best`, earlier ones as `step-<n>`, and the weights of chosen epochs as `epoch-<n>`.
///
/// At any moment `last` is a complete checkpoint: a new one is made durable first, then the old one gets its second name
/// `step-<n>`, then the new one takes the name `last`, and only then are the oldest removed.
#[derive(Debug)]
pub struct CheckpointFolder {
    path: PathBuf,
    keep: usize,
    /// The step of the sound checkpoint that has the name `last`.
    last_step: Option<u64>,
}

/// A checkpoint to go on from.
#[derive(Debug)]
pub struct Loaded {
    /// The newest sound checkpoint.
    pub checkpoint: Checkpoint,
    /// Its file.
    pub path: PathBuf,
    /// Why newer files were passed over, newest first.
    pub damaged: Vec<CheckpointError>,
}

impl CheckpointFolder {
    /// Opens the folder, which is made where it does not exist, and removes what killed processes left in it.
    ///
    /// `keep` is the number of earlier checkpoints beside `last`; at least one is always kept.
    ///
    /// # Errors
    /// The folder cannot be made, read or written to.
    pub fn open(path: &Path, keep: usize) -> Result<Self> {
        fs::create_dir_all(path).map_err(CheckpointError::io(path, "create"))?;
        atomic::remove_stale(path).map_err(CheckpointError::io(path, "remove temporary files"))?;
        Ok(CheckpointFolder { path: path.to_path_buf(), keep: keep.max(1), last_step: None })
    }

    /// Changes the number of earlier checkpoints.
    pub fn set_keep(&mut self, keep: usize) {
        self.keep = keep.max(1);
    }

    /// The newest training checkpoint.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }

    /// The weights of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// The weights after so many epochs.
    pub fn epoch(&self, epoch: u64) -> PathBuf {
        self.path.join(format!("epoch-{epoch}.safetensors"))
    }

    fn step(&self, step: u64) -> PathBuf {
        self.path.join(format!("step-{step}.safetensors"))
    }

    /// Makes `checkpoint` the last one; the one before stays as `step-<n>`.
    ///
    /// # Errors
    /// The disk refuses. Then the checkpoint before still is `last`.
    pub fn save_last(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let (last, step) = (self.last(), checkpoint.state.position.step);
        let staged = checkpoint.stage(&last)?;
        let earlier = self.last_step.filter(|earlier| *earlier != step).map(|earlier| self.step(earlier));
        let keep_earlier = || match &earlier {
            Some(earlier) => atomic::second_name(&last, earlier),
            None => Ok(()),
        };
        staged.commit_after(keep_earlier).map_err(CheckpointError::io(&last, "write"))?;
        self.last_step = Some(step);
        self.prune(step)
    }

    /// Replaces the best weights.
    ///
    /// # Errors
    /// The disk refuses. Then the weights before still are there.
    pub fn save_best(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.save(&self.best())
    }

    /// Keeps weights under the number of completed epochs.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_epoch(&self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.save(&self.epoch(checkpoint.state.position.epoch))
    }

    /// The newest sound training checkpoint, or `None` where the folder has none at all.
    ///
    /// # Errors
    /// There are checkpoints, but none is sound: the error of the newest.
    pub fn load_newest(&mut self) -> Result<Option<Loaded>> {
        let mut damaged = Vec::new();
        let steps = self.steps()?.into_iter().map(|step| self.step(step));
        let candidates: Vec<PathBuf> = std::iter::once(self.last()).filter(|last| last.exists()).chain(steps).collect();
        for path in candidates {
            match Checkpoint::load(&path) {
                Ok(checkpoint) => {
                    // A damaged or absent `last` must not become a `step-<n>`.
                    self.last_step = (path == self.last()).then_some(checkpoint.state.position.step);
                    return Ok(Some(Loaded { checkpoint, path, damaged }));
                }
                Err(error) => damaged.push(error),
            }
        }
        match damaged.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    /// Steps of the earlier checkpoints, newest first.
    fn steps(&self) -> Result<Vec<u64>> {
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(CheckpointError::io(&self.path, "read"))? {
            let name = entry.map_err(CheckpointError::io(&self.path, "read"))?.file_name();
            let step =
                name.to_str().and_then(|n| n.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse::<u64>().ok());
            steps.extend(step);
        }
        steps.sort_unstable_by(|a: &u64, b| b.cmp(a));
        Ok(steps)
    }

    /// Removes the oldest, and those of a future that a fall-back to an earlier checkpoint has undone.
    fn prune(&self, newest: u64) -> Result<()> {
        let (earlier, undone): (Vec<u64>, Vec<u64>) = self.steps()?.into_iter().partition(|step| *step < newest);
        for step in undone.into_iter().chain(earlier.into_iter().skip(self.keep)) {
            let path = self.step(step);
            fs::remove_file(&path).map_err(CheckpointError::io(&path, "remove"))?;
        }
        Ok(())
    }
}
