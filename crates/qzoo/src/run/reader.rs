use super::{
    Environment, EvaluationReport, MemoryProfile, Metrics, Profile, Result, RunError, RunResult, read_metrics,
};
use crate::quantize::{DETAILS, Details, RESULT, SearchResult};
use crate::sparse::{LayerSparsity, SwapTable};
use crate::train::SWAPS;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Reads the folder of a run, finished or not, without locking it.
#[derive(Clone, Debug)]
pub struct RunReader {
    path: PathBuf,
}

impl RunReader {
    /// Opens the folder.
    ///
    /// # Errors
    /// It is not the folder of a run.
    pub fn open(path: &Path) -> Result<Self> {
        if path.join("config.resolved.toml").is_file() {
            return Ok(RunReader { path: path.to_path_buf() });
        }
        let message = "is not the folder of a run: it has no config.resolved.toml".to_string();
        Err(RunError::NotARun { path: path.to_path_buf(), message })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved experiment, as TOML.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn experiment(&self) -> Result<String> {
        let path = self.path.join("config.resolved.toml");
        std::fs::read_to_string(&path).map_err(RunError::io(&path, "read"))
    }

    /// Steps and epochs so far; empty for a run that has not logged yet.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn metrics(&self) -> Result<Metrics> {
        let path = self.path.join("metrics.jsonl");
        if path.exists() { read_metrics(&path) } else { Ok(Metrics::default()) }
    }

    /// Where and how the run was made; `None` where the file is not there.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn environment(&self) -> Result<Option<Environment>> {
        self.json("env.json")
    }

    /// The final evaluation; `None` before the end of the run.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn evaluation(&self) -> Result<Option<EvaluationReport>> {
        self.json("evaluation.json")
    }

    /// Time and memory by layer; `None` where it was not measured.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn profile(&self) -> Result<Option<Profile>> {
        self.json("profile.json")
    }

    /// Memory and time by layer and backward mode; `None` before the end of the run.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn memory(&self) -> Result<Option<MemoryProfile>> {
        self.json("memory.json")
    }

    /// The pruned layers of the last network; `None` before the end of the run, and where nothing is pruned.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn sparsity(&self) -> Result<Option<Vec<LayerSparsity>>> {
        self.json("sparsity.json")
    }

    /// The decision table of each change of masks; `None` where the run is not a sparse one.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn swaps(&self) -> Result<Option<Vec<SwapTable>>> {
        self.json(SWAPS)
    }

    /// What the quantization came to; `None` where the run has no quantized weights.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn quantization(&self) -> Result<Option<SearchResult>> {
        self.json(RESULT)
    }

    /// Accuracies by quantized layers, and histograms of the weights; `None` as [`quantization`](Self::quantization).
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn quantization_details(&self) -> Result<Option<Details>> {
        self.json(DETAILS)
    }

    /// The totals; `None` before the end of the run.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn result(&self) -> Result<Option<RunResult>> {
        self.json("result.json")
    }

    /// The last training checkpoint.
    pub fn last(&self) -> PathBuf {
        self.path.join("checkpoints").join("last.safetensors")
    }

    /// The weights of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.path.join("checkpoints").join("best.safetensors")
    }

    /// All checkpoints: `best`, `last`, and those that are numbered by epoch or step, in the order of their names. Empty before the first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<PathBuf>> {
        let folder = self.path.join("checkpoints");
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(RunError::io(&folder, "read"))?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(RunError::io(&folder, "read"))?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".safetensors"));
            let number = |name: &str, prefix| name.strip_prefix(prefix).is_some_and(|n| n.parse::<u64>().is_ok());
            if name
                .is_some_and(|name| ["best", "last"].contains(&name) || number(name, "epoch-") || number(name, "step-"))
            {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        read_json(&self.path.join(name))
    }
}

/// What a JSON file holds; `None` where it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(RunError::io(path, "read"))?,
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let offset = (before + error.column().saturating_sub(1)).min(text.len()) as u64;
        RunError::Damaged { path: path.to_path_buf(), offset, message: error.to_string() }
    })
}
