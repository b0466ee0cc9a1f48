//! NumPy's `.npy` files: versions 1 to 3 are read, version 1 is written, little-endian, in either memory order.
//! The format is described in NumPy's `numpy.lib.format`.

use crate::{DType, Element, Error, Result, Shape, Tensor};
use std::io::{Read, Write};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longer headers than this are refused; a real one has about 100 bytes.
const MAX_HEADER: usize = 1 << 16;

/// Reads one array. Memory grows with the data that is really there, not with what the header claims.
///
/// # Errors
/// [`Error::Format`] with the byte offset for anything that is not a complete `.npy` file of a supported type; [`Error::Io`].
pub fn read(mut reader: impl Read) -> Result<Tensor> {
    let mut prefix = [0; 8];
    read_exactly(&mut reader, &mut prefix, 0)?;
    if &prefix[..6] != MAGIC {
        return Err(refuse(0, "the file does not begin with the magic bytes \\x93NUMPY"));
    }
    let length_bytes = match prefix[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(refuse(6, format!("version {version} is unknown; 1 to 3 are supported"))),
    };
    let mut length = [0; 4];
    read_exactly(&mut reader, &mut length[..length_bytes], 8)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(refuse(8, format!("a header of {length} bytes; at most {MAX_HEADER} are accepted")));
    }
    let start = 8 + length_bytes as u64;
    let mut header = vec![0; length];
    read_exactly(&mut reader, &mut header, start)?;
    let header = Header::parse(&header).map_err(|message| refuse(start, message))?;
    read_data(reader, &header, start + length as u64)
}

fn read_data(mut reader: impl Read, header: &Header, start: u64) -> Result<Tensor> {
    let shape = Shape::new(&header.shape).map_err(|e| refuse(start, e.to_string()))?;
    let expected = shape.numel() * header.dtype.size();
    let mut bytes = Vec::new();
    reader.by_ref().take(expected as u64).read_to_end(&mut bytes)?;
    if bytes.len() < expected {
        let message =
            format!("shape {:?} needs {expected} bytes of data, only {} are there", header.shape, bytes.len());
        return Err(refuse(start + bytes.len() as u64, message));
    }
    if reader.read(&mut [0])? != 0 {
        return Err(refuse(start + expected as u64, "more bytes than the shape needs"));
    }
    let stored: Vec<usize> =
        if header.fortran { header.shape.iter().rev().copied().collect() } else { header.shape.clone() };
    let mut tensor = Tensor::empty(&stored, header.dtype)?;
    match header.dtype {
        DType::F32 => fill::<f32, 4>(&mut tensor, &bytes, f32::from_le_bytes)?,
        DType::F64 => fill::<f64, 8>(&mut tensor, &bytes, f64::from_le_bytes)?,
        DType::I8 => fill::<i8, 1>(&mut tensor, &bytes, i8::from_le_bytes)?,
        DType::U8 => fill::<u8, 1>(&mut tensor, &bytes, u8::from_le_bytes)?,
        DType::I32 => fill::<i32, 4>(&mut tensor, &bytes, i32::from_le_bytes)?,
        DType::I64 => fill::<i64, 8>(&mut tensor, &bytes, i64::from_le_bytes)?,
        DType::BF16 => return Err(refuse(start, "bf16 has no npy form")),
    }
    let reversed: Vec<usize> = (0..stored.len()).rev().collect();
    if header.fortran { tensor.permute(&reversed) } else { Ok(tensor) }
}

fn fill<T: Element, const N: usize>(tensor: &mut Tensor, bytes: &[u8], decode: fn([u8; N]) -> T) -> Result<()> {
    let chunks = bytes.chunks_exact(N);
    for (value, chunk) in tensor.memory_mut::<T>()?.iter_mut().zip(chunks) {
        let mut word = [0; N];
        word.copy_from_slice(chunk);
        *value = decode(word);
    }
    Ok(())
}

/// Writes the elements in row-major order as version 1.
///
/// # Errors
/// bf16, which has no `.npy` form, and [`Error::Io`].
pub fn write(mut writer: impl Write, tensor: &Tensor) -> Result<()> {
    let descr = match tensor.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::BF16 => return Err(Error::argument("npy", "bf16 has no npy form; convert to f32 first")),
    };
    let dims: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    let dims = if tensor.rank() == 1 { dims.trim_end() } else { dims.trim_end().trim_end_matches(',') };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The data starts at a multiple of 64 bytes, the header ends with a line break.
    let padding = 63 - (MAGIC.len() + 4 + header.len()) % 64;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    writer.write_all(MAGIC)?;
    writer.write_all(&[1, 0])?;
    writer.write_all(&(header.len() as u16).to_le_bytes())?;
    writer.write_all(header.as_bytes())?;
    let dense = tensor.contiguous();
    match tensor.dtype() {
        DType::F32 => dump(&mut writer, dense.as_slice()?, f32::to_le_bytes),
        DType::F64 => dump(&mut writer, dense.as_slice()?, f64::to_le_bytes),
        DType::I32 => dump(&mut writer, dense.as_slice()?, i32::to_le_bytes),
        DType::I64 => dump(&mut writer, dense.as_slice()?, i64::to_le_bytes),
        DType::I8 => dump(&mut writer, dense.as_slice()?, i8::to_le_bytes),
        DType::U8 | DType::BF16 => dump(&mut writer, dense.as_slice()?, u8::to_le_bytes),
    }
}

fn dump<T: Element, const N: usize>(writer: &mut impl Write, values: &[T], encode: fn(T) -> [u8; N]) -> Result<()> {
    let mut bytes = Vec::with_capacity(N * values.len().min(1 << 14));
    for chunk in values.chunks(1 << 14) {
        bytes.clear();
        chunk.iter().for_each(|v| bytes.extend_from_slice(&encode(*v)));
        writer.write_all(&bytes)?;
    }
    Ok(())
}

struct Header {
    dtype: DType,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// The header is a Python dictionary literal with exactly the keys `descr`, `fortran_order` and `shape`.
    fn parse(bytes: &[u8]) -> Result<Header, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the header is not text".to_string())?;
        let body =
            text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or("the header is no dictionary")?;
        let (mut dtype, mut fortran, mut shape) = (None, None, None);
        let mut rest = body.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let after =
                after.trim_start().strip_prefix(':').ok_or_else(|| format!("no ':' after {key:?}"))?.trim_start();
            let end = value_end(after)?;
            let value = after[..end].trim();
            let fresh = match key {
                "descr" => dtype.replace(parse_dtype(value)?).is_none(),
                "fortran_order" => fortran.replace(parse_bool(value)?).is_none(),
                "shape" => shape.replace(parse_shape(value)?).is_none(),
                _ => return Err(format!("unknown key {key:?} in the header")),
            };
            if !fresh {
                return Err(format!("key {key:?} appears twice in the header"));
            }
            rest = after[end..].strip_prefix(',').unwrap_or("").trim();
        }
        Ok(Header {
            dtype: dtype.ok_or("the header has no 'descr'")?,
            fortran: fortran.ok_or("the header has no 'fortran_order'")?,
            shape: shape.ok_or("the header has no 'shape'")?,
        })
    }
}

/// A quoted string at the start of `text`, and what follows it.
fn quoted(text: &str) -> Result<(&str, &str), String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or("a key without quotes in the header")?;
    text[1..].split_once(quote).ok_or_else(|| "an unclosed quote in the header".to_string())
}

/// Length of the value at the start of `text`: up to the next comma outside parentheses.
fn value_end(text: &str) -> Result<usize, String> {
    let mut depth = 0usize;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or("an unopened parenthesis in the header")?,
            ',' if depth == 0 => return Ok(i),
            _ => {}
        }
    }
    if depth == 0 { Ok(text.len()) } else { Err("an unclosed parenthesis in the header".to_string()) }
}

fn parse_dtype(value: &str) -> Result<DType, String> {
    match quoted(value)?.0 {
        "<f4" => Ok(DType::F32),
        "<f8" => Ok(DType::F64),
        "|i1" => Ok(DType::I8),
        "|u1" => Ok(DType::U8),
        "<i4" => Ok(DType::I32),
        "<i8" => Ok(DType::I64),
        other => Err(format!("element type {other:?} is not supported; <f4, <f8, |i1, |u1, <i4 and <i8 are")),
    }
}

fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        "True" => Ok(true),
        "False" => Ok(false),
        _ => Err(format!("fortran_order is {value:?}, neither True nor False")),
    }
}

fn parse_shape(value: &str) -> Result<Vec<usize>, String> {
    let inner = value
        .strip_prefix('(')
        .and_then(|v| v.strip_suffix(')'))
        .ok_or_else(|| format!("shape {value:?} is no tuple"))?;
    let dims = inner.split(',').map(str::trim).filter(|d| !d.is_empty());
    dims.map(|d| d.parse().map_err(|_| format!("dimension {d:?} is no whole number"))).collect()
}

fn read_exactly(reader: &mut impl Read, buffer: &mut [u8], offset: u64) -> Result<()> {
    reader.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            refuse(offset, format!("the file ends before {} bytes could be read", buffer.len()))
        }
        _ => Error::Io(error),
    })
}

fn refuse(offset: u64, message: impl Into<String>) -> Error {
    Error::Format { format: "npy", offset, message: message.into() }
}
