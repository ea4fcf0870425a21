//! What is wrong with a command line.

use std::fmt;

/// Why the program does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The text for standard error, without the last line end. Several
    /// mistakes are several lines.
    pub message: String,
    /// The exit status: 1 if the words do not fit the grammar, 2 if a value
    /// is wrong, 255 for an address, as the original has it.
    pub exit_code: i32,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}
