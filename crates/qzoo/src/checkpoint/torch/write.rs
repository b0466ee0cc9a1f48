use super::pickle::{self, Entry};
use crate::checkpoint::safetensors::with_bytes;
use qtensor::{DType, Tensor};
use std::collections::HashSet;
use std::io::{self, Seek, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The folder of all members.
const ROOT: &str = "archive";
/// `torch.save` begins the elements of each tensor at a multiple of this.
const ALIGNMENT: u16 = 64;

/// Writes named tensors as `torch.save` writes an `OrderedDict` of them; `torch.load(weights_only=True)` reads it. Tensors may have any strides; they are stored
/// row-major. Equal tensors give equal bytes.
///
/// # Errors
/// `writer` fails, or two tensors have one name.
pub fn write(writer: impl Write + Seek, tensors: &[(&str, &Tensor)]) -> io::Result<()> {
    let mut seen = HashSet::new();
    if let Some((name, _)) = tensors.iter().find(|(name, _)| !seen.insert(*name)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("two tensors have the name `{name}`")));
    }
    let entries: Vec<Entry<'_>> = tensors
        .iter()
        .enumerate()
        .map(|(number, (name, tensor))| Entry { name, storage: storage(tensor.dtype()), number, shape: tensor.shape() })
        .collect();
    let mut archive = ZipWriter::new(writer);
    member(&mut archive, "data.pkl", 0)?;
    pickle::write(&mut archive, &entries)?;
    member(&mut archive, "byteorder", 6)?;
    archive.write_all(b"little")?;
    for (number, (_, tensor)) in tensors.iter().enumerate() {
        let bytes = tensor.numel() * tensor.dtype().size();
        member(&mut archive, &format!("data/{number}"), bytes as u64)?;
        with_bytes(tensor, |bytes| archive.write_all(bytes))??;
    }
    member(&mut archive, "version", 2)?;
    archive.write_all(b"3\n")?;
    archive.finish()?.flush()
}

/// Begins a member: stored as it is, without a date.
fn member(archive: &mut ZipWriter<impl Write + Seek>, name: &str, bytes: u64) -> io::Result<()> {
    let options = SimpleFileOptions::DEFAULT
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT)
        .large_file(bytes >= u64::from(u32::MAX));
    Ok(archive.start_file(format!("{ROOT}/{name}"), options)?)
}

/// The name of PyTorch's storage of such elements.
fn storage(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "FloatStorage",
        DType::F64 => "DoubleStorage",
        DType::BF16 => "BFloat16Storage",
        DType::I8 => "CharStorage",
        DType::U8 => "ByteStorage",
        DType::I32 => "IntStorage",
        DType::I64 => "LongStorage",
    }
}
