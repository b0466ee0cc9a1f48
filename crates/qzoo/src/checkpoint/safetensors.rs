//! Reading and writing safetensors files, for checkpoints and for exchange with other tools.
//!
//! A file is eight bytes of header length, a JSON header, and the elements. The `safetensors` crate parses the header; on top of its
//! checks come ours: a smaller cap on the header, unique names, products that cannot overflow, and a digest.
//!
//! Files written here carry `sha256` as the first entry of their metadata. It covers the whole file with the 64 digits of the
//! digest itself taken as zeros, so no bit of such a file can change unseen. Other tools ignore it.

use super::{CheckpointError, Result};
use qtensor::{DType, Element, Shape, Tensor, bf16};
use safetensors::{Dtype, SafeTensors, tensor::TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

/// The longest header that is read, in bytes.
pub const HEADER_LIMIT: usize = 8 << 20;
const PREFIX: &str = "{\"__metadata__\":{\"sha256\":\"";
const DIGEST_START: usize = 8 + PREFIX.len();
const DIGEST_DIGITS: usize = 64;
const ZEROS: [u8; DIGEST_DIGITS] = [b'0'; DIGEST_DIGITS];

// The format is little-endian, and elements are copied as they are.
const _: () = assert!(cfg!(target_endian = "little"), "safetensors files need a little-endian machine");

/// The contents of a safetensors file.
#[derive(Clone, Debug, Default)]
pub struct TensorFile {
    /// Names and tensors in the order of the file; row-major.
    pub tensors: Vec<(String, Tensor)>,
    /// The metadata of the header, without the digest.
    pub metadata: BTreeMap<String, String>,
    /// Whether the file carries a digest (that then was right).
    pub has_digest: bool,
}

impl TensorFile {
    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor)
    }
}

/// Reads a file.
///
/// # Errors
/// The file cannot be read, is damaged (with the offset), or holds an element type that tensors do not have.
pub fn read(path: &Path) -> Result<TensorFile> {
    let metadata = std::fs::metadata(path).map_err(CheckpointError::io(path, "open"))?;
    if !metadata.is_file() {
        return Err(CheckpointError::incompatible(path, "is not a file"));
    }
    let bytes = std::fs::read(path).map_err(CheckpointError::io(path, "read"))?;
    parse(&bytes, path)
}

/// Reads the bytes of a file; `path` is for messages only.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], path: &Path) -> Result<TensorFile> {
    let damaged = |offset: usize, message: String| CheckpointError::damaged(path, offset as u64, message);
    let header = header(bytes).map_err(|(offset, message)| damaged(offset, message))?;
    let data = &bytes[8 + header.len()..];
    let has_digest = header.starts_with(PREFIX);
    if has_digest {
        verify_digest(bytes).map_err(|(offset, message)| damaged(offset, message))?;
    }
    let Names(names) = serde_json::from_str(header).map_err(|e| damaged(8 + json_offset(header, &e), e.to_string()))?;
    let (_, info) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(8, format!("invalid header: {e}")))?;
    let mut infos = info.tensors();
    let mut tensors = Vec::with_capacity(infos.len());
    for name in names {
        if let Some(info) = infos.remove(&name) {
            let tensor = tensor(info, data).map_err(|problem| match problem {
                Problem::Unsupported(message) => {
                    CheckpointError::incompatible(path, format!("tensor `{name}` {message}"))
                }
                Problem::Damaged(message) => {
                    damaged(8 + header.len() + info.data_offsets.0, format!("tensor `{name}` {message}"))
                }
            })?;
            tensors.push((info.data_offsets.0, name, tensor));
        }
    }
    tensors.sort_by_key(|(start, ..)| *start);
    let mut metadata: BTreeMap<_, _> = info.metadata().clone().unwrap_or_default().into_iter().collect();
    if has_digest {
        metadata.remove("sha256");
    }
    Ok(TensorFile {
        tensors: tensors.into_iter().map(|(_, name, tensor)| (name, tensor)).collect(),
        metadata,
        has_digest,
    })
}

/// The JSON header, or the offset and the reason why there is none.
fn header(bytes: &[u8]) -> Result<&str, (usize, String)> {
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err((bytes.len(), format!("the file ends after {} of the 8 bytes of its header length", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT as u64 {
        return Err((0, format!("a header of {length} bytes is over the limit of {HEADER_LIMIT}")));
    }
    let Some(header) = bytes[8..].get(..length as usize) else {
        return Err((bytes.len(), format!("the file ends inside its header of {length} bytes")));
    };
    if header.first() != Some(&b'{') {
        return Err((8, "the header does not begin with `{`; this is not a safetensors file".into()));
    }
    std::str::from_utf8(header).map_err(|e| (8 + e.valid_up_to(), "the header is not UTF-8".into()))
}

fn verify_digest(bytes: &[u8]) -> Result<(), (usize, String)> {
    let stored = bytes.get(DIGEST_START..DIGEST_START + DIGEST_DIGITS).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(&bytes[..DIGEST_START]);
    hash.update(ZEROS);
    hash.update(bytes.get(DIGEST_START + DIGEST_DIGITS..).unwrap_or_default());
    let found = hex(&hash.finalize());
    if found.as_bytes() == stored {
        return Ok(());
    }
    let stored = String::from_utf8_lossy(stored);
    Err((
        DIGEST_START,
        format!("the SHA-256 digest of the {} bytes is {found}, but the file says {stored:?}", bytes.len()),
    ))
}

enum Problem {
    Unsupported(String),
    Damaged(String),
}

fn tensor(info: &TensorInfo, data: &[u8]) -> Result<Tensor, Problem> {
    let dtype = dtype(info.dtype).ok_or_else(|| {
        Problem::Unsupported(format!("has elements of type {:?}, which is not supported", info.dtype))
    })?;
    let shape = Shape::new(&info.shape).map_err(|e| Problem::Damaged(e.to_string()))?;
    let (start, end) = info.data_offsets;
    let bytes = data.get(start..end).ok_or_else(|| Problem::Damaged("leaves the file".into()))?;
    if shape.numel().checked_mul(dtype.size()) != Some(bytes.len()) {
        return Err(Problem::Damaged(format!(
            "of shape {shape} and type {dtype} does not fit in {} bytes",
            bytes.len()
        )));
    }
    let mut tensor = Tensor::empty(shape, dtype).map_err(|e| Problem::Damaged(e.to_string()))?;
    memory_bytes_mut(&mut tensor).map_err(|e| Problem::Damaged(e.to_string()))?.copy_from_slice(bytes);
    Ok(tensor)
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::BF16 => DType::BF16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}

/// Keys of the outermost object in order; a repeated key is an error.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let (mut names, mut seen) = (Vec::new(), HashSet::new());
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("two tensors have the name `{name}`")));
                    }
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The byte of `text` at which `error` happened.
fn json_offset(text: &str, error: &serde_json::Error) -> usize {
    let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    (line_start + error.column().saturating_sub(1)).min(text.len())
}

/// Writes a file with a digest. Tensors may have any strides; they are stored row-major in the given order.
///
/// # Errors
/// `writer` fails, a name or metadata key repeats or is reserved, or the header would be over [`HEADER_LIMIT`].
pub fn write<W: Write>(writer: &mut W, tensors: &[(&str, &Tensor)], metadata: &[(&str, &str)]) -> io::Result<()> {
    let header = make_header(tensors, metadata)?;
    let mut hash = Sha256::new();
    hash.update((header.len() as u64).to_le_bytes());
    hash.update(&header);
    // Twice over the tensors, because the digest comes first: cheaper than a second copy of all of them.
    for (_, tensor) in tensors {
        with_bytes(tensor, |bytes| hash.update(bytes))?;
    }
    let mut header = header;
    header[PREFIX.len()..PREFIX.len() + DIGEST_DIGITS].copy_from_slice(hex(&hash.finalize()).as_bytes());
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(&header)?;
    for (_, tensor) in tensors {
        with_bytes(tensor, |bytes| writer.write_all(bytes))??;
    }
    writer.flush()
}

/// The header with zeros for its digest, padded so that the elements begin at a multiple of eight.
fn make_header(tensors: &[(&str, &Tensor)], metadata: &[(&str, &str)]) -> io::Result<Vec<u8>> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
    let mut seen = HashSet::from(["__metadata__"]);
    if let Some((name, _)) = tensors.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(invalid(format!("two tensors have the name `{name}`")));
    }
    let mut keys = HashSet::from(["sha256"]);
    if let Some((key, _)) = metadata.iter().find(|(key, _)| !keys.insert(key)) {
        return Err(invalid(format!("two metadata entries have the name `{key}`")));
    }
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut header = String::from(PREFIX);
    header.extend(ZEROS.map(char::from));
    header.push('"');
    for (key, value) in metadata {
        header.push_str(&format!(",{}:{}", quote(key), quote(value)));
    }
    header.push('}');
    let mut start = 0;
    for (name, tensor) in tensors {
        let end = start + tensor.numel() * tensor.dtype().size();
        let dtype = tensor.dtype().to_string().to_uppercase();
        let shape = serde_json::Value::from(tensor.shape().to_vec());
        let entry =
            format!(",{}:{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}", quote(name));
        header.push_str(&entry);
        start = end;
    }
    header.push('}');
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    if header.len() > HEADER_LIMIT {
        return Err(invalid(format!("a header of {} bytes is over the limit of {HEADER_LIMIT}", header.len())));
    }
    Ok(header.into_bytes())
}

/// Calls `use_bytes` with the elements in row-major order.
pub(crate) fn with_bytes<R>(tensor: &Tensor, use_bytes: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
    let tensor = tensor.contiguous();
    fn bytes<T: Element>(tensor: &Tensor) -> qtensor::Result<&[u8]> {
        Ok(bytemuck::cast_slice(tensor.as_slice::<T>()?))
    }
    let bytes = match tensor.dtype() {
        DType::F32 => bytes::<f32>(&tensor),
        DType::F64 => bytes::<f64>(&tensor),
        DType::BF16 => bytes::<bf16>(&tensor),
        DType::I8 => bytes::<i8>(&tensor),
        DType::U8 => bytes::<u8>(&tensor),
        DType::I32 => bytes::<i32>(&tensor),
        DType::I64 => bytes::<i64>(&tensor),
    };
    bytes.map(use_bytes).map_err(io::Error::other)
}

fn memory_bytes_mut(tensor: &mut Tensor) -> qtensor::Result<&mut [u8]> {
    fn bytes<T: Element>(tensor: &mut Tensor) -> qtensor::Result<&mut [u8]> {
        Ok(bytemuck::cast_slice_mut(tensor.memory_mut::<T>()?))
    }
    match tensor.dtype() {
        DType::F32 => bytes::<f32>(tensor),
        DType::F64 => bytes::<f64>(tensor),
        DType::BF16 => bytes::<bf16>(tensor),
        DType::I8 => bytes::<i8>(tensor),
        DType::U8 => bytes::<u8>(tensor),
        DType::I32 => bytes::<i32>(tensor),
        DType::I64 => bytes::<i64>(tensor),
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
