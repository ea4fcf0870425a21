//! One connection of a worker: what has been read, what has to be written, and
//! what it waits for.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::engine::{MAX_OUTPUT, Replies};
use crate::policy::request::RequestReader;
use crate::sys::poll::Interest;

/// How long a peer may leave its replies unread before it is dropped.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);
/// A connection that was silent for less is never closed to make room.
const LEAST_IDLE: Duration = Duration::from_secs(10);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may send requests.
    Reading,
    /// The request of its reader waits for its command.
    Waiting,
    /// It is to be closed when everything is written.
    Closing,
}

/// A connection.
pub struct Connection {
    /// The socket, non-blocking.
    pub socket: Socket,
    /// Tells it from an earlier one at the same index.
    pub serial: u32,
    /// Reads its requests.
    pub reader: RequestReader,
    /// Input that was read and not looked at yet.
    pub input: Vec<u8>,
    /// Replies.
    pub replies: Replies,
    written: usize,
    /// What it is doing.
    pub state: State,
    /// The peer has sent everything.
    pub at_end: bool,
    /// Since when replies lie here that the peer does not read.
    pub stalled_since: Option<Instant>,
    /// When something was last read from it, or when it came.
    pub last_heard: Instant,
    /// The window of the gather delay in which it was last counted.
    pub counted_in: u32,
}

impl Connection {
    /// A new connection.
    pub fn new(socket: Socket, is_local: bool, serial: u32, now: Instant) -> Self {
        Connection {
            socket,
            serial,
            reader: match is_local {
                true => RequestReader::default(),
                false => RequestReader::of_remote_peer(),
            },
            input: Vec::new(),
            replies: Replies::default(),
            written: 0,
            state: State::Reading,
            at_end: false,
            stalled_since: None,
            last_heard: now,
            counted_in: 0,
        }
    }

    /// Reads once. False: nothing is there, or it came to its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            match (&self.socket).read(buffer) {
                Ok(length) => {
                    self.at_end = length == 0;
                    self.input.extend_from_slice(&buffer[..length]);
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what the peer takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.replies.octets.len() {
            match (&self.socket).write(&self.replies.octets[self.written..]) {
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
        self.replies.octets.clear();
        self.replies.octets.shrink_to(MAX_OUTPUT);
        self.written = 0;
        Ok(())
    }

    /// True if replies are left to be written.
    pub fn has_output(&self) -> bool {
        !self.replies.octets.is_empty()
    }

    /// True if the next request may be looked at.
    pub fn can_advance(&self) -> bool {
        self.state == State::Reading && self.replies.octets.len() < MAX_OUTPUT
    }

    /// True if nothing is under way for it.
    pub fn is_idle(&self) -> bool {
        self.state != State::Waiting && !self.has_output()
    }

    /// True if nothing more will come of this connection.
    pub fn is_finished(&self) -> bool {
        let is_over = self.state == State::Closing || (self.at_end && self.input.is_empty());
        self.is_idle() && is_over
    }

    /// True if it may be closed to make room for another: it is silent, and not
    /// because Postfix sleeps as it was told to.
    pub fn may_make_room(&self, now: Instant) -> bool {
        self.is_idle()
            && !self.replies.last_is_sleep
            && now.saturating_duration_since(self.last_heard) >= LEAST_IDLE
    }

    /// What to wait for.
    pub fn interest(&self) -> Interest {
        Interest {
            input: self.can_advance() && self.input.is_empty() && !self.at_end,
            output: self.has_output(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn who_is_silent_makes_room_unless_it_sleeps() {
        let start = Instant::now();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(socket.into(), true, 0, start);
        let later = start + LEAST_IDLE;
        assert!(!connection.may_make_room(later - Duration::from_millis(1)));
        assert!(connection.may_make_room(later));
        connection.replies.last_is_sleep = true;
        assert!(!connection.may_make_room(later));
        connection.replies.last_is_sleep = false;
        connection.state = State::Waiting;
        assert!(!connection.may_make_room(later));
        connection.state = State::Reading;
        connection.replies.octets.push(b'a');
        assert!(!connection.may_make_room(later));
    }
}
