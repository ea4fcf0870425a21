//! What master and children say to each other: single octets on a socket of
//! their own. That it ends tells each that the other is gone.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// From a child: it serves.
    Ready,
    /// From a child: it was asked by signal; from the master: read the
    /// whitelists again.
    Reload,
    /// From a child: it was asked by signal for statistics.
    Statistics,
    /// From the master: the writer is a new one.
    WriterReplaced,
    /// From the master to the writer: all workers have ended.
    End,
}

impl Message {
    fn octet(self) -> u8 {
        match self {
            Message::Ready => b'R',
            Message::Reload => b'H',
            Message::Statistics => b'U',
            Message::WriterReplaced => b'W',
            Message::End => b'E',
        }
    }

    /// The message of an octet.
    pub fn of(octet: u8) -> Option<Self> {
        use Message::{End, Ready, Reload, Statistics, WriterReplaced};
        let all = [Ready, Reload, Statistics, WriterReplaced, End];
        all.into_iter().find(|message| message.octet() == octet)
    }
}

/// Sends a message.
pub fn send(mut socket: &UnixStream, message: Message) -> io::Result<()> {
    socket.write_all(&[message.octet()])
}
