use crate::DType;
use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a tensor operation. Every variant names the operation.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Shapes, axes or lengths that do not fit the operation or each other.
    Shape {
        /// The operation that refused.
        op: &'static str,
        /// Which shapes, and what would fit.
        message: String,
    },
    /// An element type that the operation does not take.
    DType {
        /// The operation that refused.
        op: &'static str,
        /// What it takes.
        expected: DType,
        /// What it got.
        found: DType,
    },
    /// A size whose bytes do not fit the address space.
    Overflow {
        /// The operation that refused.
        op: &'static str,
        /// The dimensions asked for.
        shape: Vec<usize>,
    },
    /// An argument out of its range.
    Argument {
        /// The operation that refused.
        op: &'static str,
        /// Which argument, its value, and the range.
        message: String,
    },
    /// Bytes from outside that are not of the format they should have.
    Format {
        /// The format, such as `npy`.
        format: &'static str,
        /// Byte offset at which reading failed.
        offset: u64,
        /// What was found there, and what was expected.
        message: String,
    },
    /// The operating system refused a read or a write.
    Io(std::io::Error),
}

impl Error {
    /// A shape error of `op`.
    pub fn shape(op: &'static str, message: impl Into<String>) -> Self {
        Error::Shape { op, message: message.into() }
    }

    /// An argument error of `op`.
    pub fn argument(op: &'static str, message: impl Into<String>) -> Self {
        Error::Argument { op, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Shape { op, message } | Error::Argument { op, message } => write!(f, "{op}: {message}"),
            Error::DType { op, expected, found } => {
                write!(f, "{op}: expected elements of type {expected}, found {found}")
            }
            Error::Overflow { op, shape } => write!(f, "{op}: the size of shape {shape:?} overflows"),
            Error::Format { format, offset, message } => {
                write!(f, "not a valid {format} file: {message} (byte {offset})")
            }
            Error::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::Io(error)
    }
}
