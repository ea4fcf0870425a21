//! Why a command of postgreyctl failed: the text for standard error, and the
//! exit status.

use std::io::{self, Write};

use crate::store::{ErrorKind, StoreError};

/// A failure. Its text is the whole of what the user sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The text, without the last line end; empty if all is said, or nobody
    /// listens any more.
    pub message: String,
    /// 1 if the words do not fit the grammar or the answer is no, 2 if a value
    /// is wrong or the thing cannot be done.
    pub exit_code: i32,
}

impl Failure {
    /// A failure with this text and status.
    pub fn new(message: impl Into<String>, exit_code: i32) -> Self {
        Failure {
            message: message.into(),
            exit_code,
        }
    }

    /// The words do not fit the grammar.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(message, 1)
    }

    /// The answer is no: there is no such record, or something is wrong.
    pub fn no(message: impl Into<String>) -> Self {
        Failure::new(message, 1)
    }

    /// A value is wrong, or what was asked for cannot be done.
    pub fn error(message: impl std::fmt::Display) -> Self {
        Failure::new(format!("ERROR: {message}"), 2)
    }

    /// A call on a file failed.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Failure::error(format!(
            "{}: {}",
            path.display(),
            crate::sys::errors::describe(error)
        ))
    }

    /// Says it; returns the exit status.
    pub fn report(&self) -> i32 {
        if !self.message.is_empty() {
            // Standard error may be closed.
            let _ = writeln!(io::stderr(), "{}", self.message);
        }
        self.exit_code
    }

    /// The reader of our output went away, which is his right.
    pub fn silent() -> Self {
        Failure::new("", 0)
    }
}

impl From<StoreError> for Failure {
    /// Of damage the answer is no: the database is not in order.
    fn from(error: StoreError) -> Self {
        match error.kind {
            ErrorKind::Damage => Failure::new(format!("ERROR: {error}"), 1),
            _ => Failure::error(error),
        }
    }
}
