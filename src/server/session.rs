//! One connection of a worker: what has been read, what has to be written, and
//! what it waits for.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::engine::MAX_OUTPUT;
use crate::policy::request::RequestReader;
use crate::sys::poll::Interest;

/// How long a peer may leave its replies unread before it is dropped.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);

/// A connection.
pub struct Session {
    /// The socket, non-blocking.
    pub socket: Socket,
    /// Reads its requests.
    pub reader: RequestReader,
    /// Input that was read and not looked at yet.
    pub input: Vec<u8>,
    /// Replies.
    pub output: Vec<u8>,
    written: usize,
    /// The request of the reader waits for its command.
    pub is_waiting: bool,
    /// To be closed when everything is written.
    pub is_closing: bool,
    /// The peer has sent everything.
    pub at_end: bool,
    /// Since when replies lie here that the peer does not read.
    pub stalled_since: Option<Instant>,
}

impl Session {
    /// A new connection.
    pub fn new(socket: Socket) -> Self {
        Session {
            socket,
            reader: RequestReader::default(),
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            is_waiting: false,
            is_closing: false,
            at_end: false,
            stalled_since: None,
        }
    }

    /// Reads once. `None`: nothing is there, or it came to its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match (&self.socket).read(buffer) {
                Ok(0) => {
                    self.at_end = true;
                    return Ok(None);
                }
                Ok(length) => return Ok(Some(length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what the peer takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match (&self.socket).write(&self.output[self.written..]) {
                Ok(length) => {
                    self.written += length;
                    self.stalled_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.output.shrink_to(MAX_OUTPUT);
        self.written = 0;
        Ok(())
    }

    /// True if replies are left to be written.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// True if the next request may be looked at.
    pub fn can_advance(&self) -> bool {
        !self.is_waiting && !self.is_closing && self.output.len() < MAX_OUTPUT
    }

    /// True if nothing more will come of this connection.
    pub fn is_finished(&self) -> bool {
        let is_answered = !self.is_waiting && !self.has_output();
        is_answered && (self.is_closing || (self.at_end && self.input.is_empty()))
    }

    /// What to wait for.
    pub fn interest(&self) -> Interest {
        Interest {
            input: self.can_advance() && self.input.is_empty() && !self.at_end,
            output: self.has_output(),
        }
    }
}
