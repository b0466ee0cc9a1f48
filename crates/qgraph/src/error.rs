use crate::Pass;
use qtensor::Shape;
use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong on a tape. Errors of an op carry its name and its scope.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation refused its arguments.
    Tensor(qtensor::Error),
    /// An op or a composite failed.
    Op {
        /// The op's name.
        op: &'static str,
        /// The scope in which it was applied, such as `layer1.0`; empty outside any scope.
        scope: String,
        /// Forward, backward or a rerun.
        pass: Pass,
        /// Why.
        source: Box<Error>,
    },
    /// A value or a gradient is infinite or not a number; reported only with [`Tape::check_finite`](crate::Tape::check_finite).
    NotFinite {
        /// The first op in the order of computation that shows it.
        op: &'static str,
        /// The scope in which it was applied.
        scope: String,
        /// Forward, backward or a rerun.
        pass: Pass,
        /// `input 0`, `output` or `gradient of input 0`.
        what: String,
    },
    /// A variable that this tape cannot take here.
    Variable {
        /// The operation that refused.
        op: &'static str,
        /// What is wrong with it.
        message: &'static str,
    },
    /// A backward rule, or a caller, gave a gradient that does not fit its variable.
    Gradient {
        /// The op whose rule it is, or `backward_from`.
        op: &'static str,
        /// What was expected, and what was given.
        message: String,
    },
}

impl Error {
    /// A shape error of `op`, for implementations of [`Op`](crate::Op).
    pub fn shape(op: &'static str, message: impl Into<String>) -> Self {
        Error::Tensor(qtensor::Error::shape(op, message))
    }

    /// An argument error of `op`, for implementations of [`Op`](crate::Op).
    pub fn argument(op: &'static str, message: impl Into<String>) -> Self {
        Error::Tensor(qtensor::Error::argument(op, message))
    }

    /// Adds the place to an error that does not name one yet.
    pub(crate) fn at(self, op: &'static str, scope: &str, pass: Pass) -> Self {
        match self {
            Error::Op { .. } | Error::NotFinite { .. } => self,
            source => Error::Op { op, scope: scope.to_string(), pass, source: Box::new(source) },
        }
    }

    pub(crate) fn gradient_shape(op: &'static str, expected: &Shape, found: &Shape) -> Self {
        Error::Gradient { op, message: format!("expected a gradient of shape {expected}, found {found}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>, op: &str, scope: &str| match scope {
            "" => write!(f, "{op}"),
            _ => write!(f, "{op} in {scope}"),
        };
        match self {
            Error::Tensor(error) => write!(f, "{error}"),
            Error::Op { op, scope, pass, source } => {
                place(f, op, scope)?;
                write!(f, " ({pass}): {source}")
            }
            Error::NotFinite { op, scope, pass, what } => {
                write!(f, "{what} of ")?;
                place(f, op, scope)?;
                write!(f, " ({pass}) is not finite")
            }
            Error::Variable { op, message } => write!(f, "{op}: {message}"),
            Error::Gradient { op, message } => write!(f, "{op}: {message}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Tensor(error) => error.source(),
            Error::Op { source, .. } => source.source(),
            _ => None,
        }
    }
}

impl From<qtensor::Error> for Error {
    fn from(error: qtensor::Error) -> Self {
        Error::Tensor(error)
    }
}
