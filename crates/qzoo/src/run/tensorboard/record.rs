use super::crc::masked_crc32c;
use std::io::{self, Write};

/// Writes one record: its length, the length's checksum, the data, and the data's checksum.
///
/// # Errors
/// `writer` fails.
pub fn write_record(writer: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    writer.write_all(&length)?;
    writer.write_all(&masked_crc32c(&length).to_le_bytes())?;
    writer.write_all(data)?;
    writer.write_all(&masked_crc32c(data).to_le_bytes())
}

/// Where and why a file of records cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (byte {offset})")]
pub struct RecordError {
    /// Start of the record.
    pub offset: usize,
    /// What is wrong with it.
    pub message: &'static str,
}

/// Splits a file into its records, up to the first that is cut or damaged; that one is reported beside them.
pub fn read_records(bytes: &[u8]) -> (Vec<&[u8]>, Option<RecordError>) {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        match first_record(rest) {
            Ok((data, after)) => {
                records.push(data);
                rest = after;
            }
            Err(message) => return (records, Some(RecordError { offset: bytes.len() - rest.len(), message })),
        }
    }
    (records, None)
}

fn first_record(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    const CUT: &str = "the file ends inside a record";
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or(CUT)?;
    let (length_crc, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
    if masked_crc32c(length) != u32::from_le_bytes(*length_crc) {
        return Err("the checksum of a record's length is wrong");
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| CUT)?;
    let (data, rest) = rest.split_at_checked(length).ok_or(CUT)?;
    let (data_crc, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
    if masked_crc32c(data) != u32::from_le_bytes(*data_crc) {
        return Err("the checksum of a record's data is wrong");
    }
    Ok((data, rest))
}
