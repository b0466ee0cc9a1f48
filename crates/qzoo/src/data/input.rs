//! Bytes from outside, plain or gzip, read with a running offset and never beyond what the file can hold.

use super::error::{DataError, Result};
use flate2::bufread::GzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Deflate stores at most this many bytes in one.
const DEFLATE_RATIO: u64 = 1032;

enum Stream<'a> {
    Plain(Box<dyn BufRead + 'a>),
    Gzip(Box<GzDecoder<Box<dyn BufRead + 'a>>>),
}

/// A file, or bytes that stand for one, unpacked on the way if they are gzip.
///
/// Every error names the file and the offset in its unpacked bytes.
pub struct Input<'a> {
    path: PathBuf,
    stream: Stream<'a>,
    offset: u64,
    /// No more unpacked bytes than this can come out of the file.
    most: u64,
}

impl Input<'static> {
    /// Opens a file; gzip is known by its first two bytes.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(DataError::io(path, "open"))?;
        let metadata = file.metadata().map_err(DataError::io(path, "read"))?;
        if !metadata.is_file() {
            return Err(DataError::unfit(path, "not a regular file"));
        }
        Self::new(path, Box::new(BufReader::with_capacity(1 << 16, file)), metadata.len())
    }
}

impl<'a> Input<'a> {
    /// Reads `bytes` as if they were the file `path`.
    ///
    /// # Errors
    /// None for bytes in memory; those of [`open`](Input::open) come from the disk.
    pub fn from_bytes(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        Self::new(path, Box::new(bytes), bytes.len() as u64)
    }

    fn new(path: &Path, mut bytes: Box<dyn BufRead + 'a>, length: u64) -> Result<Self> {
        let gzip = bytes.fill_buf().map_err(DataError::io(path, "read"))?.starts_with(&[0x1f, 0x8b]);
        let (stream, most) = match gzip {
            true => (Stream::Gzip(Box::new(GzDecoder::new(bytes))), length.saturating_mul(DEFLATE_RATIO)),
            false => (Stream::Plain(bytes), length),
        };
        Ok(Input { path: path.to_path_buf(), stream, offset: 0, most })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unpacked bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file is not of its format; `offset` is where that shows.
    pub fn refuse(&self, offset: u64, message: impl Into<String>) -> DataError {
        DataError::damaged(&self.path, offset, message)
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// The file ends before that, is no sound gzip, or cannot be read.
    pub fn exactly(&mut self, buffer: &mut [u8]) -> Result<()> {
        let read = self.up_to(buffer)?;
        if read < buffer.len() {
            let message = format!("the file ends after {read} of {} bytes", buffer.len());
            return Err(self.refuse(self.offset, message));
        }
        Ok(())
    }

    /// Fills `buffer` as far as the file goes, and says how far.
    ///
    /// # Errors
    /// The file is no sound gzip, or cannot be read.
    pub fn up_to(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => {
                    filled += n;
                    self.offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(filled)
    }

    /// The next `length` bytes. Memory is taken only as fast as bytes arrive, and none for a length that the file cannot hold.
    ///
    /// # Errors
    /// The file ends before that, is no sound gzip, or cannot be read.
    pub fn vector(&mut self, length: u64) -> Result<Vec<u8>> {
        const STEP: usize = 1 << 20;
        if length > self.most.saturating_sub(self.offset) {
            let message = format!("{length} bytes should follow, more than the file can hold");
            return Err(self.refuse(self.offset, message));
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let start = bytes.len();
            let step = (length - start as u64).min(STEP.max(start) as u64) as usize;
            bytes.resize(start + step, 0);
            self.exactly(&mut bytes[start..])?;
        }
        Ok(bytes)
    }

    /// The file must end here; for gzip this also compares its checksum.
    ///
    /// # Errors
    /// More bytes follow, or the checksum of a gzip file is wrong.
    pub fn end(mut self) -> Result<()> {
        let mut one = [0];
        let offset = self.offset;
        if self.up_to(&mut one)? != 0 {
            return Err(self.refuse(offset, "the file goes on where it should end"));
        }
        if let Stream::Gzip(decoder) = &mut self.stream {
            let rest =
                decoder.get_mut().fill_buf().map(|bytes| bytes.len()).map_err(DataError::io(&self.path, "read"))?;
            if rest > 0 {
                return Err(self.refuse(offset, "bytes follow the gzip stream"));
            }
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> DataError {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.kind() {
            UnexpectedEof => self.refuse(self.offset, "the gzip stream is cut"),
            InvalidData | InvalidInput => self.refuse(self.offset, format!("not a sound gzip stream: {error}")),
            _ => DataError::Io { path: self.path.clone(), action: "read", source: error },
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(bytes) => bytes.read(buffer),
            Stream::Gzip(bytes) => bytes.read(buffer),
        }
    }
}
