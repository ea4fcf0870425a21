//! Standard output, buffered; a reader that goes away ends the program without
//! a word.

use std::io::{self, BufWriter, Stdout, Write};

use super::failure::Failure;

/// Standard output.
pub struct Output(BufWriter<Stdout>);

impl Output {
    /// Standard output with an empty buffer.
    pub fn new() -> Self {
        Output(BufWriter::with_capacity(64 * 1024, io::stdout()))
    }

    /// Writes octets as they are.
    pub fn write(&mut self, octets: &[u8]) -> Result<(), Failure> {
        self.0.write_all(octets).map_err(|error| failure(&error))
    }

    /// Writes a line.
    pub fn line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.write(line.as_ref())?;
        self.write(b"\n")
    }

    /// Writes out what is in the buffer.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.0.flush().map_err(|error| failure(&error))
    }
}

impl Default for Output {
    fn default() -> Self {
        Output::new()
    }
}

fn failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::silent();
    }
    Failure::usage(format!("can't write to standard output: {error}"))
}
