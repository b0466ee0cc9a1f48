use super::{Result, RunError};
use crate::checkpoint::EpochRecord;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// The training so far in an epoch.
    Step(StepLine),
    /// A completed epoch.
    Epoch(EpochLine),
}

/// The state of training after a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Optimizer steps since the start of the run.
    pub step: u64,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Training accuracy of the epoch so far, as a fraction.
    pub top1: f64,
    /// Loss of this step alone.
    pub step_loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Training images a second in this process so far.
    pub images_per_s: f64,
    /// Seconds of training since the process started.
    pub seconds: f64,
    /// Seconds since 1970.
    pub time: f64,
}

/// A completed epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochLine {
    /// Its figures.
    #[serde(flatten)]
    pub record: EpochRecord,
    /// Training images a second, without evaluation.
    pub images_per_s: f64,
    /// Seconds of training since the process started.
    pub seconds: f64,
    /// Seconds since 1970.
    pub time: f64,
}

/// All lines of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Lines of steps, in order.
    pub steps: Vec<StepLine>,
    /// Lines of epochs, in order.
    pub epochs: Vec<EpochLine>,
}

/// `metrics.jsonl`, open for writing. A line is written by one call, so that a killed process leaves whole lines.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
    path: PathBuf,
    lines: u64,
}

impl MetricsFile {
    /// Opens the file, cut to its first `keep` lines: what comes after the point of a resume happens again.
    ///
    /// Where the file has fewer whole lines, those are kept; a torn line at the end is cut in any case.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path, keep: u64) -> Result<Self> {
        let (lines, length) = match File::open(path) {
            Ok(file) => whole_lines(BufReader::new(file), keep).map_err(RunError::io(path, "read"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => (0, 0),
            Err(error) => return Err(RunError::io(path, "open")(error)),
        };
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(RunError::io(path, "open"))?;
        file.set_len(length).map_err(RunError::io(path, "cut"))?;
        Ok(MetricsFile { file, path: path.to_path_buf(), lines })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record).map_err(std::io::Error::from);
        let written = line.and_then(|line| self.file.write_all((line + "\n").as_bytes()));
        written.map_err(RunError::io(&self.path, "write"))?;
        self.lines += 1;
        Ok(())
    }

    /// Lines in the file.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Makes all lines durable. A checkpoint counts on the lines before it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(RunError::io(&self.path, "write"))
    }
}

/// Number and total length of the first lines that are whole, at most `most`.
fn whole_lines(mut reader: impl BufRead, most: u64) -> std::io::Result<(u64, u64)> {
    let (mut lines, mut length, mut line) = (0, 0, Vec::new());
    while lines < most {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        lines += 1;
        length += line.len() as u64;
    }
    Ok((lines, length))
}

/// Reads `metrics.jsonl`. A torn last line, as a killed process may leave, is passed over.
///
/// # Errors
/// The file cannot be read, or a line other than a torn last one is no record.
pub fn read_metrics(path: &Path) -> Result<Metrics> {
    let text = std::fs::read(path).map_err(RunError::io(path, "read"))?;
    let (mut metrics, mut offset) = (Metrics::default(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Record::Step(step)) => metrics.steps.push(step),
            Ok(Record::Epoch(epoch)) => metrics.epochs.push(epoch),
            Err(_) if !line.ends_with(b"\n") => {}
            Err(error) => {
                let message = format!("line {} is no record: {error}", metrics.steps.len() + metrics.epochs.len() + 1);
                return Err(RunError::Damaged { path: path.to_path_buf(), offset, message });
            }
        }
        offset += line.len() as u64;
    }
    Ok(metrics)
}
