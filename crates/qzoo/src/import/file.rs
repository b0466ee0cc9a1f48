//! The tensors of a foreign checkpoint, whatever its format.

use crate::checkpoint::CheckpointError;
use crate::checkpoint::safetensors;
use crate::checkpoint::torch::{self, TorchFormat, TorchTensor};
use qtensor::{DType, Tensor};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How a foreign checkpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// A zip archive of PyTorch, since 1.6.
    Zip,
    /// Pickles and elements of PyTorch, until 1.5.
    Legacy,
    /// Safetensors.
    Safetensors,
}

/// What a foreign checkpoint holds.
pub(super) struct ForeignFile {
    pub(super) format: FileFormat,
    /// In the order of the file.
    pub(super) tensors: Vec<ForeignTensor>,
    /// Numbers, texts and truth values beside them.
    pub(super) values: Vec<(String, serde_json::Value)>,
}

/// A tensor of a foreign checkpoint.
pub(super) enum ForeignTensor {
    /// Not read yet.
    Torch(TorchTensor),
    Read {
        name: String,
        value: Tensor,
        path: PathBuf,
    },
}

impl ForeignFile {
    /// Reads a file of PyTorch or a safetensors file, by what it begins with.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is of neither format.
    pub(super) fn read(path: &Path) -> Result<Self, CheckpointError> {
        if is_safetensors(path) {
            let file = safetensors::read(path)?;
            let tensor = |(name, value)| ForeignTensor::Read { name, value, path: path.to_path_buf() };
            let tensors = file.tensors.into_iter().map(tensor).collect();
            let values = file.metadata.into_iter().filter(|(_, value)| value.len() <= torch::LONGEST_VALUE);
            let values = values.map(|(name, value)| (name, value.into())).collect();
            return Ok(ForeignFile { format: FileFormat::Safetensors, tensors, values });
        }
        let file = torch::read(path)?;
        let format = match file.format {
            TorchFormat::Zip => FileFormat::Zip,
            TorchFormat::Legacy => FileFormat::Legacy,
        };
        let tensors = file.tensors.into_iter().map(ForeignTensor::Torch).collect();
        Ok(ForeignFile { format, tensors, values: file.values })
    }
}

/// Whether a file begins as a safetensors file does: eight bytes of a length, then a JSON object.
fn is_safetensors(path: &Path) -> bool {
    let mut start = [0; 9];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start[8] == b'{'
}

impl ForeignTensor {
    /// The keys that lead to it, joined by dots.
    pub(super) fn name(&self) -> &str {
        match self {
            ForeignTensor::Torch(tensor) => &tensor.name,
            ForeignTensor::Read { name, .. } => name,
        }
    }

    /// Its dimensions, outermost first.
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            ForeignTensor::Torch(tensor) => tensor.shape(),
            ForeignTensor::Read { value, .. } => value.shape(),
        }
    }

    /// Whether its elements are floating-point numbers.
    pub(super) fn is_float(&self) -> bool {
        match self {
            ForeignTensor::Torch(tensor) => tensor.is_float(),
            ForeignTensor::Read { value, .. } => value.dtype().is_float(),
        }
    }

    /// The elements.
    ///
    /// # Errors
    /// The file is damaged or has changed, or the elements are of a type that tensors do not have.
    pub(super) fn read(&self) -> Result<Tensor, CheckpointError> {
        match self {
            ForeignTensor::Torch(tensor) => tensor.read(),
            ForeignTensor::Read { value, .. } => Ok(value.clone()),
        }
    }

    /// The elements, converted to that type where both are floating-point, or both whole numbers.
    ///
    /// # Errors
    /// As `read`, or one is floating-point and the other is not.
    pub(super) fn read_as(&self, dtype: DType) -> Result<Tensor, CheckpointError> {
        let tensor = self.read()?;
        if tensor.dtype().is_float() != dtype.is_float() {
            return Err(self.refuse(&format!("has elements of type {}, not {dtype}", tensor.dtype())));
        }
        tensor.to_dtype(dtype).map_err(|error| self.refuse(&error.to_string()))
    }

    /// The error that this tensor is not fit for its use.
    pub(super) fn refuse(&self, message: &str) -> CheckpointError {
        let path = match self {
            ForeignTensor::Torch(tensor) => tensor.path(),
            ForeignTensor::Read { path, .. } => path,
        };
        CheckpointError::incompatible(path, format!("tensor `{}` {message}", self.name()))
    }
}
