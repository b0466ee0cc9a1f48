//! How a command can fail, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

/// An error with the exit code that scripts see.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Failure { code, message: message.into() }
    }

    /// The run failed (exit 1).
    pub(crate) fn run(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// The command line or the experiment is wrong (exit 2).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    /// Data are missing or damaged (exit 3).
    pub(crate) fn data(message: impl Into<String>) -> Self {
        Self::new(3, message)
    }

    /// A signal ended the run after it was saved (exit 128 + the signal's number).
    pub(crate) fn signal(number: u8, message: impl Into<String>) -> Self {
        Self::new(128 + number, message)
    }

    /// The exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error and its causes, one a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.contains(&line) {
            text.push_str("\n  caused by: ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    text
}

impl From<qzoo::Error> for Failure {
    fn from(error: qzoo::Error) -> Self {
        Failure::new(error.class().exit_code(), chain(&error))
    }
}

/// Everything that the zoo's parts return takes the zoo's own classes.
macro_rules! through_zoo {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                qzoo::Error::from(error).into()
            }
        }
    )*};
}
through_zoo!(qzoo::experiment::Diagnostics, qzoo::run::RunError, qzoo::data::DataError, qgraph::Error, qtensor::Error);

macro_rules! run_failed {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::run(chain(&error))
            }
        }
    )*};
}
run_failed!(serde_json::Error, std::io::Error);
