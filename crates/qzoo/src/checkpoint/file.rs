use super::atomic::AtomicFile;
use super::safetensors::{self, TensorFile, hex, with_bytes};
use super::{CheckpointError, Result, State};
use qtensor::Tensor;
use sha2::{Digest, Sha256};
use std::io::{self, BufWriter, Write};
use std::path::Path;

const FORMAT: &str = "quartz-checkpoint";
const VERSION: &str = "1";

/// The state of a run and its tensors.
///
/// Parameters and buffers have the names that PyTorch gives them; everything else has a prefix with a colon, which those names never
/// have: `optimizer:momentum:fc.weight`, `ema:fc.weight`.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// How far the run has come, and what it is.
    pub state: State,
    /// Names and tensors, in order.
    pub tensors: Vec<(String, Tensor)>,
}

impl Checkpoint {
    /// Reads and verifies a checkpoint.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, is no checkpoint, or is of another version.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_file(safetensors::read(path)?, path)
    }

    /// The checkpoint in the bytes of a file; `path` is for messages only.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::from_file(safetensors::parse(bytes, path)?, path)
    }

    fn from_file(file: TensorFile, path: &Path) -> Result<Self> {
        let entry = |key: &str| file.metadata.get(key).map(String::as_str);
        if !file.has_digest || entry("format") != Some(FORMAT) {
            return Err(CheckpointError::incompatible(
                path,
                "is a safetensors file, but not a checkpoint of this program",
            ));
        }
        if entry("version") != Some(VERSION) {
            let found = entry("version").unwrap_or("none");
            let message = format!("has format version {found}; this program reads version {VERSION}");
            return Err(CheckpointError::incompatible(path, message));
        }
        let state = entry("state").unwrap_or_default();
        let state = serde_json::from_str(state)
            .map_err(|e| CheckpointError::incompatible(path, format!("its state cannot be read: {e}")))?;
        Ok(Checkpoint { state, tensors: file.tensors })
    }

    /// Writes the file's bytes.
    ///
    /// # Errors
    /// `writer` fails, or two tensors have one name.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let state = serde_json::to_string(&self.state)?;
        let tensors: Vec<(&str, &Tensor)> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        safetensors::write(writer, &tensors, &[("format", FORMAT), ("version", VERSION), ("state", &state)])
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// The disk refuses; then `path` still is what it was.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.stage(path)?.commit().map_err(CheckpointError::io(path, "write"))
    }

    /// Writes the file beside `path` without making it visible yet.
    pub(super) fn stage(&self, path: &Path) -> Result<AtomicFile> {
        let staged = AtomicFile::create(path).and_then(|file| {
            let mut writer = BufWriter::with_capacity(1 << 20, file);
            self.write_to(&mut writer)?;
            writer.into_inner().map_err(io::IntoInnerError::into_error)
        });
        staged.map_err(CheckpointError::io(path, "write"))
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor)
    }

    /// Tensors whose name begins with `prefix`, without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        self.tensors.iter().filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
    }

    /// Parameters and buffers.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().filter(|(name, _)| !name.contains(':')).map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// SHA-256 of the parameters and buffers, as lower-case hexadecimal digits.
    ///
    /// # Errors
    /// Never for checkpoints that were read.
    pub fn weights_digest(&self) -> io::Result<String> {
        weights_digest(self.weights())
    }
}

/// SHA-256 over names, shapes and elements, as lower-case hexadecimal digits: equal for equal networks, whatever their strides.
///
/// # Errors
/// Never for tensors of supported types.
pub fn weights_digest<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> io::Result<String> {
    let mut hash = Sha256::new();
    for (name, tensor) in tensors {
        hash.update(format!("{name} {} {}\n", tensor.dtype(), tensor.shape()));
        with_bytes(tensor, |bytes| hash.update(bytes))?;
    }
    Ok(hex(&hash.finalize()))
}
