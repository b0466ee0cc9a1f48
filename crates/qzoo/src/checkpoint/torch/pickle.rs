//! The few instructions of pickle protocol 2 that a dictionary of tensors needs.

use std::io::{self, Write};

/// One tensor as the pickle describes it; its elements stand elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// Its key.
    pub(super) name: &'a str,
    /// Its storage type below the module `torch`, such as `FloatStorage`.
    pub(super) storage: &'static str,
    /// Its number, which names the elements.
    pub(super) number: usize,
    /// Its dimensions.
    pub(super) shape: &'a [usize],
}

/// A call without arguments: an empty `OrderedDict`.
const ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";

/// Writes `OrderedDict` of names to tensors.
///
/// # Errors
/// `writer` fails, or a name or a size is too large for the format.
pub(super) fn write(writer: &mut impl Write, entries: &[Entry<'_>]) -> io::Result<()> {
    writer.write_all(b"\x80\x02")?;
    writer.write_all(ORDERED_DICT)?;
    writer.write_all(b"(")?;
    for entry in entries {
        text(writer, entry.name)?;
        tensor(writer, entry)?;
    }
    writer.write_all(b"u.")
}

/// `_rebuild_tensor_v2(storage, offset 0, shape, strides, requires_grad False, hooks OrderedDict())`
fn tensor(writer: &mut impl Write, entry: &Entry<'_>) -> io::Result<()> {
    let count: usize = entry.shape.iter().product();
    writer.write_all(b"ctorch._utils\n_rebuild_tensor_v2\n(")?;
    // The persistent identifier of the storage: ("storage", type, key, device, elements).
    writer.write_all(b"(")?;
    text(writer, "storage")?;
    write!(writer, "ctorch\n{}\n", entry.storage)?;
    text(writer, &entry.number.to_string())?;
    text(writer, "cpu")?;
    number(writer, count)?;
    writer.write_all(b"tQ")?;
    number(writer, 0)?;
    tuple(writer, entry.shape)?;
    tuple(writer, &strides(entry.shape))?;
    writer.write_all(b"\x89")?;
    writer.write_all(ORDERED_DICT)?;
    writer.write_all(b"tR")
}

/// Elements from one index to the next along each axis, row-major.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

fn tuple(writer: &mut impl Write, values: &[usize]) -> io::Result<()> {
    writer.write_all(b"(")?;
    values.iter().try_for_each(|value| number(writer, *value))?;
    writer.write_all(b"t")
}

fn text(writer: &mut impl Write, text: &str) -> io::Result<()> {
    let length = u32::try_from(text.len()).map_err(|_| io::Error::other("a name is too long"))?;
    writer.write_all(b"X")?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(text.as_bytes())
}

/// Four bytes with a sign, or eight.
fn number(writer: &mut impl Write, value: usize) -> io::Result<()> {
    if let Ok(small) = i32::try_from(value) {
        writer.write_all(b"J")?;
        return writer.write_all(&small.to_le_bytes());
    }
    let large = i64::try_from(value).map_err(|_| io::Error::other("a size is too large"))?;
    writer.write_all(b"\x8a\x08")?;
    writer.write_all(&large.to_le_bytes())
}
