//! Why a server does not start, and what a start does as root for the user the
//! server becomes.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};

use crate::sys::errors::describe;
use crate::sys::process::{self, Identity};

/// Why the server does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// The status the program ends with.
    pub exit_code: i32,
    /// The text for standard error.
    pub message: String,
}

impl StartError {
    /// An error with this status and text.
    pub fn new(exit_code: i32, message: impl Into<String>) -> Self {
        StartError {
            exit_code,
            message: message.into(),
        }
    }

    /// The system refused what the start needs.
    pub fn of_io(what: &str, error: &io::Error) -> Self {
        StartError::new(2, format!("ERROR: {what}: {}", describe(error)))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

/// Writes a line to standard error; if that is closed nobody can be told.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Gives a file to the user the server becomes.
pub fn give_to(file: &File, identity: &Identity) -> io::Result<()> {
    if !process::is_root() {
        return Ok(());
    }
    std::os::unix::fs::fchown(
        file,
        Some(identity.uid.as_raw()),
        Some(identity.gid.as_raw()),
    )
}
