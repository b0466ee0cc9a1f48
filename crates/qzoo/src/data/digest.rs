use super::error::{DataError, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// SHA-256 of a file as it lies on the disk, in lower-case hexadecimal.
pub(super) fn file_digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
    digest(|buffer| file.read(buffer).map_err(DataError::io(path, "read")))
}

/// SHA-256 of the bytes that `read` gives until it gives none.
pub(super) fn digest(mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match read(&mut buffer)? {
            0 => return Ok(hexadecimal(hasher)),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// The digest of what went into the hasher.
pub(super) fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
