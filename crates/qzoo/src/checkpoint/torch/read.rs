use super::outline::{Outline, Pickles, Refusal};
use crate::checkpoint::{CheckpointError, Result};
use bytemuck::{AnyBitPattern, NoUninit};
use half::f16;
use pytorch_reader::{DType as Kind, PickleValue, PytorchError, PytorchReader, Tensor as Stored};
use qtensor::{Element, Shape, Tensor, bf16};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// Instructions that a file of tensors begins with: a zip archive.
const ZIP: &[u8] = b"PK";
/// The longest text among the values that are reported, in characters.
pub(crate) const LONGEST_VALUE: usize = 200;
/// A legacy file has four pickles of a few hundred bytes at most beside that of the tensors.
const LEGACY_PICKLES: usize = 5;

/// Which of PyTorch's formats a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TorchFormat {
    /// A zip archive, since PyTorch 1.6.
    Zip,
    /// Pickles and elements one after the other, until PyTorch 1.5.
    Legacy,
}

/// What a checkpoint file of PyTorch holds.
#[derive(Clone, Debug)]
pub struct TorchFile {
    /// Its format.
    pub format: TorchFormat,
    /// Its tensors in the order of the file; their elements are not read yet.
    pub tensors: Vec<TorchTensor>,
    /// Numbers, texts and truth values beside them, in the order of the file.
    pub values: Vec<(String, serde_json::Value)>,
}

/// A tensor of a [`TorchFile`].
#[derive(Clone, Debug)]
pub struct TorchTensor {
    /// The keys that lead to it, joined by dots.
    pub name: String,
    stored: Stored,
    path: PathBuf,
}

/// Reads what a file holds, all but the elements of its tensors. Nothing is executed.
///
/// # Errors
/// The file cannot be read, is of neither format, is damaged, names a Python object that a file of tensors does not need, or declares a tensor of more
/// bytes than the file has.
pub fn read(path: &Path) -> Result<TorchFile> {
    let length = std::fs::metadata(path).map_err(CheckpointError::io(path, "open"))?;
    if !length.is_file() {
        return Err(CheckpointError::incompatible(path, "is not a file"));
    }
    let length = length.len();
    let (format, outline) = look(path)?;
    let refused = |error| refusal(path, error);
    let stored = PytorchReader::new(path).map_err(refused)?.into_tensors();
    if let Some(large) = stored.values().find(|tensor| tensor.byte_len() as u64 > length) {
        let message = format!(
            "tensor `{}` of shape {:?} would take {} bytes, but the whole file has {length}; save a copy without expanded tensors",
            large.name,
            large.shape(),
            large.byte_len()
        );
        return Err(CheckpointError::incompatible(path, message));
    }
    let root = PytorchReader::read_pickle_data(path, None).map_err(refused)?;
    let places = places(&outline);
    let place = |name: &str| suffixes(name).find_map(|suffix| places.get(suffix)).copied().unwrap_or(usize::MAX);
    let mut tensors: Vec<TorchTensor> =
        stored.into_iter().map(|(name, stored)| TorchTensor { name, stored, path: path.to_path_buf() }).collect();
    tensors.sort_by_cached_key(|tensor| (place(&tensor.name), tensor.name.clone()));
    let mut values = values(root);
    values.sort_by_cached_key(|(name, _)| (place(name), name.clone()));
    Ok(TorchFile { format, tensors, values })
}

/// Checks every instruction of the file's pickles, and gives what the one of the tensors says.
fn look(path: &Path) -> Result<(TorchFormat, Outline)> {
    let file = File::open(path).map_err(CheckpointError::io(path, "open"))?;
    let mut file = BufReader::new(file);
    let mut start = [0; 2];
    let read = file.read_exact(&mut start).and_then(|()| file.rewind());
    if read.is_err() || !(start == ZIP || start == [0x80, 0x02]) {
        let message = "is not a checkpoint that torch.save of PyTorch 0.4 or later has written: it is neither a zip archive nor a legacy file";
        return Err(CheckpointError::damaged(path, 0, message));
    }
    if start == ZIP { look_in_zip(path, file) } else { look_in_legacy(path, file) }
}

fn look_in_zip(path: &Path, file: BufReader<File>) -> Result<(TorchFormat, Outline)> {
    let broken = |error: zip::result::ZipError| {
        CheckpointError::incompatible(
            path,
            format!("cannot be read as a zip archive: {error}; copy or download it again"),
        )
    };
    let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
    let mut found = None;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?.to_string();
        if !(name == "data.pkl" || name.ends_with("/data.pkl")) {
            continue;
        }
        let outline = Pickles::new(BufReader::new(entry)).next();
        let outline = outline.map_err(|Refusal { offset, message }| {
            let message = format!("{message} (byte {offset} of its member {})", name.escape_debug());
            CheckpointError::incompatible(path, message)
        })?;
        if found.replace(outline).is_some() {
            return Err(CheckpointError::incompatible(
                path,
                "has more than one member data.pkl: it is no file of torch.save",
            ));
        }
    }
    let none = || CheckpointError::incompatible(path, "is a zip archive without data.pkl: it is no file of torch.save");
    Ok((TorchFormat::Zip, found.ok_or_else(none)?))
}

fn look_in_legacy(path: &Path, file: BufReader<File>) -> Result<(TorchFormat, Outline)> {
    let mut pickles = Pickles::new(file);
    let mut outlines = Vec::with_capacity(LEGACY_PICKLES);
    for _ in 0..LEGACY_PICKLES {
        let outline = pickles.next();
        outlines.push(outline.map_err(|refusal| CheckpointError::damaged(path, refusal.offset, refusal.message))?);
    }
    // Magic number, protocol version, system, tensors, keys of the storages.
    Ok((TorchFormat::Legacy, outlines.swap_remove(3)))
}

fn refusal(path: &Path, error: PytorchError) -> CheckpointError {
    match error {
        PytorchError::Io(source) if source.raw_os_error().is_some() => CheckpointError::io(path, "read")(source),
        error => {
            let message =
                format!("cannot be read as a PyTorch checkpoint: {error}; copy or download it again, or save it again");
            CheckpointError::incompatible(path, message)
        }
    }
}

/// Where each text of the pickle stands first.
fn places(outline: &Outline) -> HashMap<&str, usize> {
    let mut places = HashMap::new();
    for (place, text) in outline.texts.iter().enumerate() {
        places.entry(text.as_str()).or_insert(place);
    }
    places
}

/// The name, then what follows each of its dots: a key of a dictionary may have dots itself.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(name).chain(name.match_indices('.').map(|(dot, _)| &name[dot + 1..]))
}

/// Numbers, texts and truth values of the outermost dictionary.
fn values(root: PickleValue) -> Vec<(String, serde_json::Value)> {
    let PickleValue::Dict(entries) = root else { return Vec::new() };
    let value = |value| {
        Some(match value {
            PickleValue::Bool(value) => value.into(),
            PickleValue::Int(value) => value.into(),
            PickleValue::Float(value) if value.is_finite() => value.into(),
            PickleValue::String(value) => value.chars().take(LONGEST_VALUE).collect::<String>().into(),
            _ => return None,
        })
    };
    entries.into_iter().filter_map(|(name, entry)| Some((name, value(entry)?))).collect()
}

impl TorchTensor {
    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.stored.shape()
    }

    /// Whether its elements are floating-point numbers.
    pub fn is_float(&self) -> bool {
        matches!(self.stored.dtype(), Kind::F64 | Kind::F32 | Kind::F16 | Kind::BF16)
    }

    /// Reads the elements. Half precision becomes f32, which holds it exactly; every other type stays.
    ///
    /// # Errors
    /// The file is damaged or has changed, or the elements are of a type that tensors do not have.
    pub fn read(&self) -> Result<Tensor> {
        let incompatible = |message: String| CheckpointError::incompatible(&self.path, message);
        let bytes = self.stored.read().map_err(|error| match error.raw_os_error() {
            Some(_) => CheckpointError::io(&self.path, "read")(error),
            None => incompatible(format!("is damaged: {error}; copy or download it again")),
        })?;
        let shape =
            Shape::new(self.shape()).map_err(|error| incompatible(format!("tensor `{}`: {error}", self.name)))?;
        let tensor = match self.stored.dtype() {
            Kind::F64 => elements::<f64>(shape, &bytes),
            Kind::F32 => elements::<f32>(shape, &bytes),
            Kind::BF16 => elements::<bf16>(shape, &bytes),
            Kind::F16 => Tensor::from_vec(shape, collect::<f16>(&bytes).into_iter().map(f16::to_f32).collect()),
            Kind::I64 => elements::<i64>(shape, &bytes),
            Kind::I32 => elements::<i32>(shape, &bytes),
            Kind::I8 => elements::<i8>(shape, &bytes),
            Kind::U8 | Kind::Bool => elements::<u8>(shape, &bytes),
            other => {
                let message = format!("tensor `{}` has elements of type {other:?}, which is not supported", self.name);
                return Err(incompatible(message));
            }
        };
        tensor.map_err(|error| incompatible(format!("tensor `{}`: {error}", self.name)))
    }

    /// The file that it is in.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn collect<T: NoUninit + AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}

fn elements<T: Element + NoUninit + AnyBitPattern>(shape: Shape, bytes: &[u8]) -> qtensor::Result<Tensor> {
    Tensor::from_vec(shape, collect::<T>(bytes))
}
